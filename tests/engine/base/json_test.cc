#include "engine/base/json.h"

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace cadre {
namespace {

std::string ErrorOf(std::string_view text, int max_depth = 64) {
  const absl::StatusOr<nlohmann::json> document = ParseJson(text, "file.json", max_depth);
  EXPECT_EQ(document.status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 100);
  return std::string(document.status().message());
}

TEST(JsonTest, BuildsTheSameDocumentAsTheLibrary) {
  const std::string text =
      R"({"a": [1, -2, 3.5, true, false, null, "x\u00e9\n"], "b": {"c": {}, "d": []}, "": 18446744073709551615})";
  const absl::StatusOr<nlohmann::json> document = ParseJson(text, "file.json");
  ASSERT_TRUE(document.ok()) << document.status();
  EXPECT_EQ(*document, nlohmann::json::parse(text));
  EXPECT_TRUE((*document)["a"][0].is_number_unsigned());
  EXPECT_TRUE((*document)["a"][1].is_number_integer());
  EXPECT_EQ((*document)[""].get<std::uint64_t>(), 18446744073709551615u);
}

TEST(JsonTest, AcceptsAnyValueAtTheRoot) {
  EXPECT_EQ(*ParseJson("3", "file.json"), 3);
  EXPECT_EQ(*ParseJson(" \"x\" ", "file.json"), "x");
  EXPECT_EQ(*ParseJson("[]", "file.json"), nlohmann::json::array());
}

TEST(JsonTest, SyntaxErrorsNameTheFileAndThePosition) {
  EXPECT_EQ(ErrorOf("{\n  \"a\": ?\n}"), "file.json: invalid JSON at line 2, byte 8");
  EXPECT_EQ(ErrorOf(std::string_view("{}\0{}", 5)), "file.json: invalid JSON at line 1, byte 3");
  for (const std::string_view text : {"", "{", "[1,]", "{\"a\":1,}", "{'a':1}", "nul", "1 2", "01", "\"\\ud800\"",
                                      "NaN", "1e999", "\"\x80\"", "\"a\nb\"", "{1:2}", "]"}) {
    EXPECT_NE(ErrorOf(text).find("file.json: invalid JSON at line "), std::string::npos) << text;
  }
}

TEST(JsonTest, EveryTruncationIsAnError) {
  const std::string text = R"({"a": [1, -2.5e3, true, null, "\u00e9\ud83d\ude00"], "b": {"c": "d"}})";
  for (std::size_t size = 0; size < text.size(); ++size) ErrorOf(std::string_view(text).substr(0, size));
}

TEST(JsonTest, RefusesDuplicateKeys) {
  EXPECT_EQ(ErrorOf(R"({"a": {"b": 1, "b": 1}})"), "file.json: duplicate key \"b\"");
  const std::string long_key(1000, 'k');
  EXPECT_EQ(ErrorOf("{\"" + long_key + "\": 1, \"" + long_key + "\": 2}"),
            "file.json: duplicate key \"" + std::string(60, 'k') + "..." + std::string(60, 'k') + "\"");
  EXPECT_EQ(ErrorOf(R"({"a\n\u001b": 1, "a\n\u001b": 2})"), "file.json: duplicate key \"a\\n\\x1b\"");
  EXPECT_TRUE(ParseJson(R"([{"a": 1}, {"a": 1}])", "file.json").ok());
}

TEST(JsonTest, LimitsTheDepth) {
  EXPECT_TRUE(ParseJson("[[[]]]", "file.json", 3).ok());
  EXPECT_EQ(ErrorOf("[[[[]]]]", 3), "file.json: nested deeper than 3 levels");
  EXPECT_EQ(ErrorOf("{\"a\":[{\"a\":[1]}]}", 3), "file.json: nested deeper than 3 levels");
  EXPECT_EQ(ErrorOf(std::string(10'000'000, '[')), "file.json: nested deeper than 64 levels");
}

TEST(JsonTest, LimitsTheNumberOfValues) {
  std::string text = "[";
  for (std::size_t i = 0; i + 2 < kMaxJsonValues; ++i) text += "1,";
  EXPECT_TRUE(ParseJson(text + "1]", "file.json").ok());
  EXPECT_EQ(ErrorOf(text + "1,1]"), "file.json: more than 4194304 values");
}

}  // namespace
}  // namespace cadre
