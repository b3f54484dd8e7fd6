#include "tools/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

grpc::Status MakeStatus(grpc::StatusCode code, const std::string& message, const google::protobuf::Message& detail) {
  google::rpc::Status status;
  status.add_details()->PackFrom(detail);
  return grpc::Status(code, message, status.SerializeAsString());
}

TEST(ClientTest, TimeoutsHaveUnitsOrMeanSeconds) {
  absl::Duration timeout;
  EXPECT_TRUE(ParseTimeout("1.5", &timeout));
  EXPECT_EQ(timeout, absl::Milliseconds(1500));
  EXPECT_TRUE(ParseTimeout("250ms", &timeout));
  EXPECT_EQ(timeout, absl::Milliseconds(250));
  EXPECT_TRUE(ParseTimeout("1m30s", &timeout));
  EXPECT_EQ(timeout, absl::Seconds(90));
  EXPECT_TRUE(ParseTimeout("0", &timeout));
  EXPECT_EQ(timeout, absl::ZeroDuration());
  for (const char* text : {"", "soon", "-1", "-1s", "inf", "nan", "5 parsecs", "1e300"}) {
    EXPECT_FALSE(ParseTimeout(text, &timeout)) << text;
  }
}

TEST(ClientTest, ErrorsNameTheCodeAndEveryField) {
  google::rpc::BadRequest bad_request;
  auto* violation = bad_request.add_field_violations();
  violation->set_field("sampling.top_p");
  violation->set_description("9 is not in (0, 1]");
  violation = bad_request.add_field_violations();
  violation->set_field("sampling.min_p");
  violation->set_description("2 is not in [0, 1]");
  EXPECT_EQ(DescribeError(MakeStatus(grpc::INVALID_ARGUMENT, "2 fields are wrong", bad_request), "host:1"),
            "cadre: INVALID_ARGUMENT: 2 fields are wrong\n"
            "  sampling.top_p: 9 is not in (0, 1]\n"
            "  sampling.min_p: 2 is not in [0, 1]\n");
  // What the message says already is not said twice.
  EXPECT_EQ(DescribeError(MakeStatus(grpc::INVALID_ARGUMENT, "sampling.top_p: 9 is not in (0, 1]", bad_request), "h"),
            "cadre: INVALID_ARGUMENT: sampling.top_p: 9 is not in (0, 1]\n"
            "  sampling.min_p: 2 is not in [0, 1]\n");

  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(1);
  retry.mutable_retry_delay()->set_nanos(500'000'000);
  EXPECT_EQ(DescribeError(MakeStatus(grpc::RESOURCE_EXHAUSTED, "the queue is full", retry), "h"),
            "cadre: RESOURCE_EXHAUSTED: the queue is full (try again after 1.5s)\n");
}

TEST(ClientTest, AServerThatRefusesIsNotUnreachable) {
  const grpc::Status nobody(grpc::UNAVAILABLE, "connection refused");
  EXPECT_TRUE(IsUnreachable(nobody));
  EXPECT_EQ(DescribeError(nobody, "host:1"), "cadre: cannot reach host:1: connection refused\n");
  google::rpc::ErrorInfo info;
  info.set_reason("DRAINING");
  const grpc::Status draining = MakeStatus(grpc::UNAVAILABLE, "draining", info);
  EXPECT_FALSE(IsUnreachable(draining));
  EXPECT_EQ(DescribeError(draining, "host:1"), "cadre: UNAVAILABLE: draining\n");
  EXPECT_EQ(DescribeError(grpc::Status(grpc::INTERNAL, "x", "not a Status"), "h"), "cadre: INTERNAL: x\n");
}

TEST(TextIoTest, TerminalsGetNoControlCharacters) {
  EXPECT_EQ(WithoutControlCharacters("Grüße,\t世界\n"), "Grüße,\t世界\n");
  EXPECT_EQ(WithoutControlCharacters("a\x1b[2Jb\rc\x7f"), "a\uFFFD[2Jb\uFFFDc\uFFFD");
  // U+009B, the one-character form of ESC [, but not U+00A0 beside it.
  EXPECT_EQ(WithoutControlCharacters("\u009b31m\u00a0"), "\uFFFD31m\u00a0");
}

}  // namespace
}  // namespace cadre
