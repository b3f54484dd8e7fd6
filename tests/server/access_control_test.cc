#include "server/access_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/errors.h"
#include "server/method_roles.h"
#include "tests/support/temp_dir.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kGenerate = "/cadre.v1.GenerationService/Generate";
constexpr std::string_view kStats = "/cadre.v1.ExpertService/GetExpertStats";
constexpr std::string_view kModel = "/cadre.v1.ModelService/GetModel";
constexpr std::string_view kPin = "/cadre.v1.ExpertService/PinExperts";
constexpr std::string_view kReflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
constexpr std::string_view kAlice = "Bearer secret-of-alice-12345";
constexpr std::string_view kGrafana = "Bearer secret-of-grafana-123";
constexpr std::string_view kOps = "Bearer secret-of-operators-1";

void SetKeys(AccessControl& access) {
  auto keys = ApiKeys::Parse(
      "alice generation secret-of-alice-12345\n"
      "grafana experts-read secret-of-grafana-123\n"
      "ops operator secret-of-operators-1\n");
  ASSERT_TRUE(keys.ok()) << keys.status();
  access.SetKeys(*std::move(keys));
}

absl::StatusCode CodeOf(const AccessControl& access, std::string_view path,
                        const std::vector<std::string_view>& authorizations) {
  return access.Check(path, authorizations).code();
}

// Every method of every .proto of this repository, as it travels.
std::set<std::string> AllMethods() {
  std::set<std::string> methods;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("proto")) {
    if (entry.path().extension() != ".proto") continue;
    if (entry.path().string().starts_with("proto/opentelemetry/")) continue;  // others serve it
    std::string package;
    std::string service;
    for (const std::string& line : std::vector<std::string>(absl::StrSplit(ReadFile(entry.path()), '\n'))) {
      const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" (;{"), absl::SkipEmpty());
      if (words.size() < 2) continue;
      if (words[0] == "package") package = words[1];
      if (words[0] == "service") service = words[1];
      if (words[0] == "rpc") methods.insert(absl::StrCat("/", package, ".", service, "/", words[1]));
    }
  }
  return methods;
}

TEST(MethodRolesTest, EveryMethodHasALine) {
  const std::set<std::string> methods = AllMethods();
  EXPECT_TRUE(methods.contains(std::string(kGenerate)));
  EXPECT_GE(methods.size(), 20);
  for (const std::string& method : methods) {
    const bool is_health = method.starts_with(kHealthPrefix);
    EXPECT_NE(FindMethodRole(method).has_value(), is_health) << method << ": add a line to server/method_roles.cc";
  }
  // And no line is of a method that has another name by now.
  for (const MethodRole& line : MethodRoles()) {
    EXPECT_TRUE(line.path == kReflection || methods.contains(std::string(line.path))) << line.path;
    EXPECT_NE(line.roles, 0) << line.path;
    if (line.is_operators) {
      EXPECT_EQ(line.roles, kRoleOperator) << line.path;
    }
  }
}

TEST(AccessControlTest, WithoutAKeyNothingButHealthIsAnswered) {
  AccessControl access(/*operator_services=*/true, nullptr);
  SetKeys(access);
  for (const MethodRole& method : MethodRoles()) {
    EXPECT_EQ(CodeOf(access, method.path, {}), absl::StatusCode::kUnauthenticated) << method.path;
  }
  EXPECT_EQ(CodeOf(access, "/nobody.Knows/This", {}), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(CodeOf(access, "/grpc.health.v1.Health/Check", {}), absl::StatusCode::kOk);
  EXPECT_EQ(CodeOf(access, "/grpc.health.v1.Health/Watch", {}), absl::StatusCode::kOk);
  EXPECT_EQ(CodeOf(access, "/grpc.health.v1.HealthOfOthers/Check", {}), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(access.Check(kGenerate, {}).message()), HasSubstr("authorization: Bearer"));
}

TEST(AccessControlTest, OnlyOneWholeKeyCounts) {
  AccessControl access(/*operator_services=*/true, nullptr);
  SetKeys(access);
  EXPECT_EQ(CodeOf(access, kGenerate, {kAlice}), absl::StatusCode::kOk);
  EXPECT_EQ(CodeOf(access, kGenerate, {"bEARER secret-of-alice-12345"}), absl::StatusCode::kOk);
  const std::vector<std::vector<std::string_view>> wrong = {{kAlice, kAlice},
                                                            {kAlice, "Bearer x"},
                                                            {"Basic secret-of-alice-12345"},
                                                            {"secret-of-alice-12345"},
                                                            {"Bearer"},
                                                            {"Bearer "},
                                                            {""},
                                                            {"Bearer  secret-of-alice-12345"},
                                                            {"Bearer secret-of-alice-1234"},
                                                            {"Bearer secret-of-alice-123456"},
                                                            {"Bearer secret-of-alice-12345 "}};
  for (const auto& authorizations : wrong) {
    EXPECT_EQ(CodeOf(access, kGenerate, authorizations), absl::StatusCode::kUnauthenticated) << authorizations.front();
  }
}

TEST(AccessControlTest, AKeyIsGoodForItsRoles) {
  AccessControl access(/*operator_services=*/true, nullptr);
  SetKeys(access);
  const auto may = [&access](std::string_view key) {
    std::string answer;
    for (const std::string_view path : {kGenerate, kStats, kPin, kModel, kReflection}) {
      const absl::StatusCode code = CodeOf(access, path, {key});
      EXPECT_TRUE(code == absl::StatusCode::kOk || code == absl::StatusCode::kPermissionDenied) << path;
      answer += code == absl::StatusCode::kOk ? 'y' : 'n';
    }
    return answer;
  };
  EXPECT_EQ(may(kAlice), "ynnyy");
  EXPECT_EQ(may(kGrafana), "nynyy");
  EXPECT_EQ(may(kOps), "nnyyy");
  const absl::Status status = access.Check(kPin, std::vector<std::string_view>{kAlice});
  EXPECT_EQ(ErrorReason(status), "ROLE_MISSING");
  EXPECT_THAT(std::string(status.message()), HasSubstr("needs the role operator"));
  // A method without a line is nobody's.
  EXPECT_EQ(CodeOf(access, "/cadre.v1.ModelService/GetSecrets", {kOps}), absl::StatusCode::kUnimplemented);
}

// Fail closed: what no handler has taken upon itself is asked at the door.
TEST(AccessControlTest, TheDoorLeavesNothingToNobody) {
  AccessControl access(/*operator_services=*/true, nullptr);
  SetKeys(access);
  access.LeaveToHandler(std::string(kGenerate));
  for (const MethodRole& method : MethodRoles()) {
    EXPECT_EQ(access.CheckAtDoor(method.path, {}).ok(), method.path == kGenerate) << method.path;
    EXPECT_FALSE(access.Check(method.path, {}).ok()) << method.path;
  }
  EXPECT_FALSE(access.CheckAtDoor("/cadre.v1.GenerationService/GenerateMore", {}).ok());
  EXPECT_TRUE(access.CheckAtDoor("/grpc.health.v1.Health/Check", {}).ok());
}

TEST(AccessControlTest, AServiceThatIsOffSaysWhatTurnsItOn) {
  constexpr std::string_view kInfo = "/vllm.grpc.engine.VllmEngine/GetModelInfo";
  AccessControl access(/*operator_services=*/true, nullptr);
  const absl::Status off = access.CheckAtDoor(kInfo, {});
  EXPECT_EQ(off.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(off.message()), HasSubstr("VllmEngine/GetModelInfo is off"));
  EXPECT_THAT(std::string(off.message()), HasSubstr("--enable-vllm-engine-api"));
  SetKeys(access);
  EXPECT_EQ(access.CheckAtDoor(kInfo, {}).code(), absl::StatusCode::kUnauthenticated) << "strangers learn nothing";
  access.LeaveToHandler(std::string(kInfo));
  EXPECT_TRUE(access.CheckAtDoor(kInfo, {}).ok());
}

TEST(AccessControlTest, OperatorsCallsAreOffUnlessEnabled) {
  const AccessControl off(/*operator_services=*/false, nullptr);
  const AccessControl on(/*operator_services=*/true, nullptr);
  for (const MethodRole& method : MethodRoles()) {
    EXPECT_EQ(CodeOf(off, method.path, {}),
              method.is_operators ? absl::StatusCode::kUnimplemented : absl::StatusCode::kOk)
        << method.path;
    EXPECT_EQ(CodeOf(on, method.path, {}), absl::StatusCode::kOk) << method.path;
  }
  EXPECT_THAT(std::string(off.Check(kPin, {}).message()), HasSubstr("--enable-operator-services"));

  AccessControl with_keys(/*operator_services=*/false, nullptr);
  SetKeys(with_keys);
  EXPECT_EQ(CodeOf(with_keys, kPin, {kOps}), absl::StatusCode::kUnimplemented);
}

TEST(AccessControlTest, TheCallerIsTheNameOfItsKey) {
  AccessControl access(/*operator_services=*/false, nullptr);
  EXPECT_EQ(*access.CallerName({}), "");
  EXPECT_EQ(*access.CallerName(std::vector<std::string_view>{kAlice}), "");
  SetKeys(access);
  EXPECT_EQ(*access.CallerName(std::vector<std::string_view>{kAlice}), "alice");
  EXPECT_EQ(access.CallerName({}).status().code(), absl::StatusCode::kUnauthenticated);
}

TEST(AccessControlTest, ReplacedKeysAreGoodForNothing) {
  AccessControl access(/*operator_services=*/false, nullptr);
  SetKeys(access);
  access.SetKeys(*ApiKeys::Parse("bob generation secret-of-bob-1234567"));
  EXPECT_EQ(CodeOf(access, kGenerate, {kAlice}), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(CodeOf(access, kGenerate, {"Bearer secret-of-bob-1234567"}), absl::StatusCode::kOk);
}

TEST(AccessControlTest, RefusalsAreCounted) {
  Metrics metrics({.version = "test", .revision = "test"});
  AccessControl access(/*operator_services=*/false, &metrics);
  CodeOf(access, kPin, {});
  SetKeys(access);
  CodeOf(access, kPin, {});
  CodeOf(access, kPin, {"Bearer not-a-key-of-anybody"});
  CodeOf(access, kPin, {kAlice});
  const std::string page = metrics.RenderDefaultPage();
  for (const char* reason : {"no_key", "unknown_key", "role", "operators_off"}) {
    EXPECT_THAT(page, HasSubstr(absl::StrCat("cadre_calls_refused_total{reason=\"", reason, "\"} 1\n")));
  }
}

}  // namespace
}  // namespace cadre
