#include "server/errors.h"

#include <gmock/gmock.h>
#include <grpcpp/support/status.h>
#include <gtest/gtest.h>
#include <spdlog/details/log_msg.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "nlohmann/json.hpp"
#include "server/grpc_status.h"
#include "server/logging.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

google::rpc::Status Details(const absl::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(ToGrpcStatus(status).error_details()));
  return details;
}

TEST(ErrorsTest, DetailsTravelThroughAStatus) {
  const absl::Status status = MakeError({.code = absl::StatusCode::kUnavailable,
                                         .reason = reason::kModelLoading,
                                         .message = "later",
                                         .metadata = {{"percent", "10"}},
                                         .retry_delay = absl::Milliseconds(1500)});
  EXPECT_EQ(ErrorReason(status), "MODEL_LOADING");
  EXPECT_EQ(ErrorRetryDelay(status), absl::Milliseconds(1500));
  const grpc::Status wire = ToGrpcStatus(status);
  EXPECT_EQ(wire.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(wire.error_message(), "later");
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(Details(status).details(0).UnpackTo(&info));
  EXPECT_EQ(info.domain(), "cadre");
  EXPECT_EQ(info.metadata().at("percent"), "10");
}

TEST(ErrorsTest, EveryErrorHasAnErrorInfo) {
  EXPECT_EQ(Details(absl::NotFoundError("x")).details_size(), 1);
  EXPECT_EQ(ToGrpcStatus(absl::NotFoundError("x")).error_message(), "x");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

TEST(ErrorsTest, InternalErrorsTellNothingOfTheInside) {
  const grpc::Status status = ToGrpcStatus(absl::InternalError("/secret/path failed"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(status.error_message().find("secret"), std::string::npos);
  EXPECT_EQ(status.error_details().find("secret"), std::string::npos);
}

TEST(ErrorsTest, DetailsAreBounded) {
  ErrorSpec spec{.code = absl::StatusCode::kInvalidArgument, .reason = reason::kInvalidField};
  spec.message = std::string(100'000, 'm');
  for (int i = 0; i < 10'000; ++i) spec.violations.push_back({absl::StrCat("field", i), std::string(50, 'd')});
  const grpc::Status status = ToGrpcStatus(MakeError(std::move(spec)));
  EXPECT_LT(status.error_details().size(), 8192u);
  EXPECT_LE(status.error_message().size(), kMaxErrorMessageBytes);
  spec = {.code = absl::StatusCode::kInvalidArgument, .reason = reason::kInvalidField};
  spec.violations.push_back({"field", std::string(100'000, 'd')});
  EXPECT_LT(ToGrpcStatus(MakeError(std::move(spec))).error_details().size(), 8192u);
}

TEST(ErrorsTest, ExcerptsAreShortAndPrintable) {
  EXPECT_EQ(Excerpt("abc"), "\"abc\"");
  EXPECT_EQ(Excerpt("a\nb\xff"), "\"a\\nb\\xff\"");
  EXPECT_LE(Excerpt(std::string(1'000'000, 'x')).size(), 70u);
}

TEST(JsonLogTest, EveryLineParses) {
  const std::string message = "quote \" backslash \\ newline \n control \x01 broken \xff";
  const spdlog::details::log_msg line("", spdlog::level::warn, message);
  spdlog::memory_buf_t out;
  MakeJsonFormatter()->format(line, out);
  const std::string text(out.data(), out.size());
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  const nlohmann::json parsed = nlohmann::json::parse(text);
  EXPECT_EQ(parsed["level"], "warning");
  EXPECT_THAT(parsed["message"].get<std::string>(), HasSubstr("newline \n control \x01"));
  EXPECT_TRUE(parsed.contains("time"));
}

}  // namespace
}  // namespace cadre
