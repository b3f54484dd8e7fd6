#include "server/wire.h"

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cadre/v1/generation_service.pb.h"
#include "server/errors.h"

namespace cadre {
namespace {

using Bytes = std::string;

Bytes Varint(uint64_t value) {
  Bytes bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

constexpr uint64_t kVarint = 0;
constexpr uint64_t kLength = 2;
constexpr uint64_t kGroupBegin = 3;
constexpr uint64_t kGroupEnd = 4;
Bytes Tag(int field, uint64_t wire_type) { return Varint(static_cast<uint64_t>(field) << 3 | wire_type); }
Bytes Field(int field, const Bytes& content) { return Tag(field, kLength) + Varint(content.size()) + content; }
Bytes Number(int field, uint64_t value) { return Tag(field, kVarint) + Varint(value); }

using Request = v1::GenerateRequest;

absl::Status Parse(const Bytes& bytes, Request* request) {
  const grpc::Slice slice(bytes);
  return ParseMessage(grpc::ByteBuffer(&slice, 1), request);
}

Request ParseOk(const Bytes& bytes) {
  Request request;
  const absl::Status status = Parse(bytes, &request);
  EXPECT_TRUE(status.ok()) << status;
  return request;
}

absl::Status ParseError(const Bytes& bytes) {
  Request request;
  return Parse(bytes, &request);
}

TEST(WireTest, MessagesThereAndBack) {
  Request request;
  request.set_text("grüße");
  Request back;
  ASSERT_TRUE(ParseMessage(SerializeMessage(request), &back).ok());
  EXPECT_EQ(back.text(), "grüße");
  EXPECT_TRUE(Parse("", &back).ok());
}

TEST(WireTest, TextThatIsNotUtf8IsRefusedByTheNameOfItsField) {
  const Bytes overlong = "\xC0\xAF";
  const Bytes surrogate = "\xED\xA0\x80";
  const Bytes cut = "a\xE2\x82";
  const Bytes beyond = "\xF4\x90\x80\x80";
  const Bytes alone = "\xFF";
  for (const Bytes& bad : {overlong, surrogate, cut, beyond, alone}) {
    const absl::Status status = ParseError(Field(Request::kTextFieldNumber, bad));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), "text: is not valid UTF-8");
    EXPECT_EQ(ErrorReason(status), "INVALID_FIELD");
  }
  const Bytes message = Field(v1::ChatMessage::kContentFieldNumber, cut);
  const Bytes chat = Field(v1::ChatInput::kMessagesFieldNumber, message);
  EXPECT_EQ(ParseError(Field(Request::kChatFieldNumber, chat)).message(), "chat.messages.content: is not valid UTF-8");
  const Bytes stopping = Field(v1::StopConditions::kStopStringsFieldNumber, alone);
  EXPECT_EQ(
      ParseError(Field(Request::kTextFieldNumber, "ok") + Field(Request::kStoppingFieldNumber, stopping)).message(),
      "stopping.stop_strings: is not valid UTF-8");
}

TEST(WireTest, EveryCharacterArrivesAsItIs) {
  const Bytes text =
      Bytes("\0", 1) + "\xEF\xBB\xBF" + "\xE2\x80\xAE\xE2\x81\xA6" + "\x01\x1B[31m\x7F" + "\xF4\x8F\xBF\xBF";
  EXPECT_EQ(ParseOk(Field(Request::kTextFieldNumber, text)).text(), text);
}

TEST(WireTest, WhatIsNoMessageIsRefusedAsSuch) {
  const Bytes text = Field(Request::kTextFieldNumber, "a");
  const int unknown = 1000;
  Bytes groups;
  for (int i = 0; i < 10'000; ++i) groups += Tag(unknown, kGroupBegin);
  for (int i = 0; i < 10'000; ++i) groups += Tag(unknown, kGroupEnd);
  for (const Bytes& bad : {
           Bytes("\xFF"),
           Bytes("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),  // no tag, a number without an end
           Bytes("\0\1", 2),                                       // field 0
           Bytes("\x1E"),
           Bytes("\x1F"),  // wire types 6 and 7
           Tag(Request::kTextFieldNumber, kLength) + Varint((uint64_t{1} << 31) - 1) + "ab",
           Tag(Request::kTextFieldNumber, kLength) + Varint(~uint64_t{0}) + "ab",
           Tag(unknown, kGroupBegin),
           Tag(unknown, kGroupEnd),
           groups,
           Field(Request::kSamplingFieldNumber, "\xFF"),
       }) {
    const absl::Status status = ParseError(text + bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ErrorReason(status), "MALFORMED_REQUEST");
    EXPECT_EQ(status.message(), "the bytes received are not a cadre.v1.GenerateRequest");
  }
}

TEST(WireTest, FieldsOfALaterReleaseAreSkipped) {
  Bytes deep;
  for (int i = 0; i < 10'000; ++i) deep = Field(1000, deep);
  const Request request = ParseOk(deep + Field(Request::kTextFieldNumber, "a") + Number(1001, 5));
  EXPECT_EQ(request.text(), "a");
}

TEST(WireTest, TheSameMeaningMayBeWrittenInSeveralWays) {
  const Bytes one = Number(v1::TokenIds::kIdsFieldNumber, 1);
  const Bytes packed = Field(v1::TokenIds::kIdsFieldNumber, "\2\3");
  const Request ids =
      ParseOk(Field(Request::kTokenIdsFieldNumber, one + packed) + Field(Request::kTokenIdsFieldNumber, one));
  EXPECT_EQ(std::vector<int32_t>(ids.token_ids().ids().begin(), ids.token_ids().ids().end()),
            (std::vector<int32_t>{1, 2, 3, 1}));

  const Bytes nine = Field(Request::kStoppingFieldNumber, Number(v1::StopConditions::kMaxTokensFieldNumber, 9));
  const Bytes two = Field(Request::kStoppingFieldNumber, Number(v1::StopConditions::kMaxTokensFieldNumber, 2));
  EXPECT_EQ(ParseOk(nine + two).stopping().max_tokens(), 2);

  const auto bias = [](const Bytes& value) {
    return Field(v1::SamplingParams::kLogitBiasFieldNumber, Number(1, 7) + Tag(2, 5) + value);
  };
  const Bytes minus_one("\0\0\x80\xBF", 4);
  const Bytes plus_one("\0\0\x80\x3F", 4);
  const Request biased = ParseOk(Field(Request::kSamplingFieldNumber, bias(minus_one) + bias(plus_one)));
  EXPECT_EQ(biased.sampling().logit_bias_size(), 1);
  EXPECT_EQ(biased.sampling().logit_bias().at(7), 1.0f);

  const Request last = ParseOk(Field(Request::kTextFieldNumber, "a") + Field(Request::kTokenIdsFieldNumber, one));
  EXPECT_FALSE(last.has_text());
}

// gRPC hands over a message in as many pieces as it came in.
TEST(WireTest, MessagesComeInPieces) {
  const auto parse = [](const Bytes& bytes, Request* request) {
    std::vector<grpc::Slice> slices;
    for (const char byte : bytes) slices.emplace_back(&byte, 1);
    return ParseMessage(grpc::ByteBuffer(slices.data(), slices.size()), request);
  };
  Request request;
  ASSERT_TRUE(parse(Field(Request::kTextFieldNumber, "\xE2\x82\xAC uro"), &request).ok());
  EXPECT_EQ(request.text(), "\xE2\x82\xAC uro");
  EXPECT_EQ(parse(Field(Request::kTextFieldNumber, "\xE2\x82"), &request).message(), "text: is not valid UTF-8");
}

}  // namespace
}  // namespace cadre
