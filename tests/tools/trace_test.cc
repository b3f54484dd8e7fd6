#include "tools/loadgen/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tools/loadgen/random.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;

constexpr double kSeconds = 1e9;
constexpr double kMilliseconds = 1e6;

std::vector<TraceRequest> Parsed(const std::string& text, double unit = kSeconds) {
  auto parsed = ParseTrace(text, unit);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *parsed : std::vector<TraceRequest>(1);
}

std::string ErrorOf(const std::string& text, const TraceLimits& limits = {}) {
  const auto parsed = ParseTrace(text, kSeconds, limits);
  EXPECT_FALSE(parsed.ok()) << text.substr(0, 100);
  return std::string(parsed.status().message());
}

TEST(TraceTest, CsvWithoutNames) {
  const auto trace = Parsed("# a comment\n10,5,6\r\n\n10.5,7,8\n12,9,1,team,3\n");
  ASSERT_EQ(trace.size(), 3u);
  EXPECT_EQ(trace[0].offset, 0);
  EXPECT_EQ(trace[1].offset, 500'000'000);
  EXPECT_EQ(trace[1].prompt_tokens, 7);
  EXPECT_EQ(trace[1].output_tokens, 8);
  EXPECT_EQ(trace[2].tenant, "team");
  EXPECT_EQ(trace[2].priority, 3);
  EXPECT_THAT(ErrorOf("1,2,3,t,4,5\n"), HasSubstr("6 fields, the limit is 5"));
  EXPECT_THAT(ErrorOf("time,prompt_tokens,output_tokens\n1,2,3,4\n"), HasSubstr("line 2: 4 fields, the limit is 3"));
}

TEST(TraceTest, CsvWithNamesInAnyOrder) {
  const auto trace = Parsed(
      "Priority,\"Output-Tokens\",ignored,prompt_tokens,TIME,tenant\n"
      "-5,3,x,4,1,\"a, \"\"b\"\"\"\n,1,y,2,0,\n");
  ASSERT_EQ(trace.size(), 2u);
  EXPECT_EQ(trace[0].prompt_tokens, 2);  // sorted by time
  EXPECT_EQ(trace[0].priority, 0);
  EXPECT_EQ(trace[1].offset, 1'000'000'000);
  EXPECT_EQ(trace[1].prompt_tokens, 4);
  EXPECT_EQ(trace[1].output_tokens, 3);
  EXPECT_EQ(trace[1].priority, -5);
  EXPECT_EQ(trace[1].tenant, "a, \"b\"");
}

TEST(TraceTest, PublishedTracesAreReadAsTheyAre) {
  const auto dates = Parsed(
      "TIMESTAMP,ContextTokens,GeneratedTokens\n"
      "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n");
  ASSERT_EQ(dates.size(), 2u);
  EXPECT_NEAR(static_cast<double>(dates[1].offset), 52e6, 1e3);
  EXPECT_EQ(dates[0].prompt_tokens, 4808);
  const auto names = Parsed(
      "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
      "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,0,1087,Conversation log\n");
  ASSERT_EQ(names.size(), 2u);
  EXPECT_EQ(names[1].offset, 40'000'000'000);
  EXPECT_EQ(names[1].output_tokens, 1);  // 0: a request that failed
  const auto json = Parsed(
      "{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46, 47]}\n"
      "{\"timestamp\": 30535, \"input_length\": 6472, \"output_length\": 26, \"hash_ids\": []}\n",
      kMilliseconds);
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[1].offset, 3'053'000'000);
  EXPECT_EQ(json[1].prompt_tokens, 6472);
}

TEST(TraceTest, ErrorsNameLineFieldValueAndLimit) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("no requests"));
  EXPECT_THAT(ErrorOf("time,prompt_tokens,output_tokens\n"), HasSubstr("no requests"));
  EXPECT_EQ(ErrorOf("1,2,3\nx,2,3\n"), "line 2: time: \"x\" is not a number or a date");
  EXPECT_EQ(ErrorOf("1,2.5,3\n"), "line 1: prompt tokens: \"2.5\" is not a whole number in [0, 16777216]");
  EXPECT_THAT(ErrorOf("1,2,-3\n"), HasSubstr("output tokens: \"-3\""));
  EXPECT_THAT(ErrorOf("1,2,1e99\n"), HasSubstr("output tokens: \"1e99\""));
  EXPECT_THAT(ErrorOf("1,2\n"), HasSubstr("line 1: output tokens is missing"));
  EXPECT_THAT(ErrorOf("nan,2,3\n"), HasSubstr("time: \"nan\""));
  EXPECT_THAT(ErrorOf("inf,2,3\n"), HasSubstr("time: \"inf\""));
  EXPECT_THAT(ErrorOf("1,2,3,t,101\n"), HasSubstr("priority: \"101\" is not a whole number in [-100, 100]"));
  EXPECT_THAT(ErrorOf("1,2,3," + std::string(129, 't') + "\n"), HasSubstr("at most 128 bytes"));
  EXPECT_THAT(ErrorOf("1,2,3,\xff\n"), HasSubstr("tenant: \"\\xff\" is not valid UTF-8"));
  EXPECT_THAT(ErrorOf("1,2,\"3\n"), HasSubstr("quote that is not closed"));
  EXPECT_THAT(ErrorOf("0,1,1\n1e12,1,1\n"), HasSubstr("unit"));
  EXPECT_THAT(ErrorOf("{\"time\": 1, \"prompt_tokens\": 1}\n"), HasSubstr("output tokens is missing"));
  EXPECT_THAT(ErrorOf("{\"time\": 1,\n"), HasSubstr("is no JSON object"));
  EXPECT_THAT(ErrorOf("{}\n[1]\n"), HasSubstr("line 1: time is missing"));
  EXPECT_THAT(ErrorOf("{\"time\": [1], \"prompt_tokens\": 1, \"output_tokens\": 1}\n"), HasSubstr("time is neither"));
  EXPECT_THAT(ErrorOf("{\"time\": 0, \"prompt_tokens\": 1, \"output_tokens\": 1}\n1,2,3\n"), HasSubstr("line 2"));
}

TEST(TraceTest, LimitsHold) {
  EXPECT_THAT(ErrorOf("0,1,1\n1,1,1\n2,1,1\n", {.max_requests = 2}), HasSubstr("line 3: more than 2 requests"));
  EXPECT_THAT(ErrorOf("0,1,1\n" + std::string(50, '1') + "\n", {.max_line_bytes = 20}),
              HasSubstr("line 2: 50 bytes, the limit is 20"));
  // Neither deep nesting nor a line of commas may take the stack or much time.
  EXPECT_THAT(ErrorOf("{\"a\":" + std::string(500'000, '[') + "\n"), HasSubstr("is no JSON object"));
  EXPECT_FALSE(ParseTrace("1,2,3\n" + std::string(1'000'000, ',') + "\n", kSeconds).ok());
}

TEST(TraceTest, RandomBytesAreRefusedOrRead) {
  Random random(9);
  const std::string alphabet = "0123456789.,-\"{}[]:#\n\r\t eE\\xtime\xc3\xff";
  int num_read = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text = i % 2 == 0 ? "0,1,1\n" : "{\"time\":0,\"prompt_tokens\":1,\"output_tokens\":1}\n";
    for (int64_t k = random.Integer(0, 40); k > 0; --k) {
      text += alphabet[static_cast<size_t>(random.Integer(0, static_cast<int64_t>(alphabet.size()) - 1))];
    }
    const auto parsed = ParseTrace(text, kSeconds);
    if (!parsed.ok()) continue;
    ++num_read;
    for (const TraceRequest& request : *parsed) {
      EXPECT_GE(request.offset, 0);
      EXPECT_GE(request.prompt_tokens, 1);
      EXPECT_GE(request.output_tokens, 1);
    }
  }
  EXPECT_GT(num_read, 100);
}

}  // namespace
}  // namespace cadre
