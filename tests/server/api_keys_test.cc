#include "server/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kAlice[] = "alice-has-a-long-secret";
constexpr char kOps[] = "the-secret-of-the-operators";

std::string HashOf(std::string_view secret) {
  const Sha256Digest digest = Sha256(secret);
  return absl::BytesToHexString(std::string(digest.begin(), digest.end()));
}

std::string ErrorOf(const std::string& text) {
  const auto keys = ApiKeys::Parse(text);
  EXPECT_FALSE(keys.ok()) << text;
  return std::string(keys.status().message());
}

TEST(ApiKeysTest, ADigestIsSha256) {
  EXPECT_EQ(HashOf("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(ApiKeysTest, FindsTheKeyOfASecret) {
  const auto keys = ApiKeys::Parse(absl::StrCat("# who, what, secret\n\nalice\tgeneration  ", kAlice,
                                                "  # since May\r\nops operator,experts-read sha256:", HashOf(kOps)));
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->size(), 2);
  ASSERT_NE(keys->Match(kAlice), nullptr);
  EXPECT_EQ(keys->Match(kAlice)->name, "alice");
  EXPECT_EQ(keys->Match(kAlice)->roles, kRoleGeneration);
  ASSERT_NE(keys->Match(kOps), nullptr);
  EXPECT_EQ(keys->Match(kOps)->name, "ops");
  EXPECT_EQ(keys->Match(kOps)->roles, kRoleOperator | kRoleExpertsRead);
  for (const std::string& wrong :
       {std::string(), std::string("alice-has-a-long-secreT"), absl::StrCat(kAlice, "x"), absl::StrCat(" ", kAlice),
        HashOf(kOps), absl::StrCat("sha256:", HashOf(kOps)), std::string(100'000, 'x')}) {
    EXPECT_EQ(keys->Match(wrong), nullptr) << wrong.substr(0, 80);
  }
}

TEST(ApiKeysTest, FindsEveryOneOfMany) {
  std::string text;
  for (size_t i = 0; i < kMaxApiKeys; ++i) absl::StrAppend(&text, "k", i, " generation a-longer-secret-", i, "\n");
  const auto keys = ApiKeys::Parse(text);
  ASSERT_TRUE(keys.ok()) << keys.status();
  for (size_t i = 0; i < kMaxApiKeys; ++i) {
    const ApiKey* const key = keys->Match(absl::StrCat("a-longer-secret-", i));
    ASSERT_NE(key, nullptr) << i;
    EXPECT_EQ(key->name, absl::StrCat("k", i));
  }
  EXPECT_THAT(ErrorOf(text + "one operator more-than-there-may-be"), HasSubstr("line 1025: more than 1024 keys"));
}

TEST(ApiKeysTest, ASecretIsReplacedInTwoSteps) {
  const auto keys = ApiKeys::Parse("app generation the-secret-until-now\napp generation the-secret-from-now-on\n");
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->Match("the-secret-until-now")->name, "app");
  EXPECT_EQ(keys->Match("the-secret-from-now-on")->name, "app");
}

TEST(ApiKeysTest, ErrorsNameTheLineAndNeverASecret) {
  const std::string first = absl::StrCat("alice generation ", kAlice, "\n");
  EXPECT_THAT(ErrorOf(first + "bob generation"), HasSubstr("line 2: 2 words"));
  EXPECT_THAT(ErrorOf(first + "bob generation a-secret with-a-blank-in-it"), HasSubstr("line 2: 4 words"));
  EXPECT_THAT(ErrorOf("b@b generation long-enough-secret"), HasSubstr("line 1: name"));
  EXPECT_THAT(ErrorOf(std::string(65, 'b') + " generation long-enough-secret"), HasSubstr("65 characters"));
  EXPECT_THAT(ErrorOf("bob admin long-enough-secret"), HasSubstr("line 1: roles: \"admin\""));
  EXPECT_THAT(ErrorOf("bob generation,, long-enough-secret"), HasSubstr("line 1: roles: \"\""));
  EXPECT_THAT(ErrorOf("bob generation 15-characters.."), HasSubstr("15 characters are not 16 to 512"));
  EXPECT_THAT(ErrorOf("bob generation " + std::string(513, 'x')), HasSubstr("513 characters"));
  EXPECT_THAT(ErrorOf("bob generation caf\xc3\xa9-is-not-metadata"), HasSubstr("visible ASCII"));
  EXPECT_THAT(ErrorOf("bob generation sha256:" + std::string(63, 'a')), HasSubstr("63 characters are not the 64"));
  EXPECT_THAT(ErrorOf("bob generation sha256:" + std::string(64, 'g')), HasSubstr("hexadecimal"));
  EXPECT_THAT(ErrorOf(first + "\nbob operator " + kAlice), HasSubstr("line 3: secret: another line"));
  EXPECT_THAT(ErrorOf(first + "bob operator sha256:" + HashOf(kAlice)), HasSubstr("line 2: secret: another line"));
  EXPECT_THAT(ErrorOf(first + "alice operator another-secret-of-hers"), HasSubstr("line 2: roles"));
  EXPECT_THAT(ErrorOf("# nobody\n"), HasSubstr("no key"));
  EXPECT_THAT(ErrorOf(std::string(kMaxApiKeyFileBytes + 1, '\n')), HasSubstr("the limit of 1048576"));
  EXPECT_THAT(ErrorOf(first + "bob operator " + kAlice), Not(HasSubstr(kAlice)));
}

}  // namespace
}  // namespace cadre
