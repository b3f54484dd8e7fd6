// tokenizer.json files that are broken, contradict themselves, want what we do not have, or are out to hurt.
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/text/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/time_limit.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// What any file may take to load or to be refused: twice what the largest of these took on a busy machine.
constexpr double kMaxSeconds = 4.0 * kTimeFactor;

json SmallTokenizer() {
  return json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 3, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": "▁"},
                   {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": false},
    "post_processor": {"type": "TemplateProcessing",
                       "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                  {"Sequence": {"id": "A", "type_id": 0}}],
                       "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}}},
    "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
              "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true, "ignore_merges": false,
              "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}})");
}

absl::Status StatusOf(const std::string& text) {
  const Stopwatch stopwatch;
  absl::Status status = Tokenizer::Parse(text, "").status();
  EXPECT_LT(stopwatch.Seconds(), kMaxSeconds);
  return status;
}

// The small tokenizer with the value at `pointer` replaced.
std::string With(const std::string& pointer, const std::string& value) {
  json file = SmallTokenizer();
  file[json::json_pointer(pointer)] = json::parse(value);
  return file.dump();
}

struct BadFile {
  std::string pointer;
  std::string value;
  std::string message;
};

void ExpectErrors(absl::StatusCode code, const std::vector<BadFile>& files) {
  for (const BadFile& file : files) {
    const absl::Status status = StatusOf(With(file.pointer, file.value));
    EXPECT_EQ(status.code(), code) << file.pointer << " = " << file.value << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(file.message)) << file.pointer << " = " << file.value;
  }
}

TEST(TokenizerMalformedTest, TheFileTheOthersAreMadeFromIsFine) {
  EXPECT_TRUE(StatusOf(SmallTokenizer().dump()).ok());
  EXPECT_TRUE(StatusOf(With("/model/type", "null")).ok());
  EXPECT_TRUE(StatusOf(With("/model/dropout", "0.0")).ok());
  EXPECT_TRUE(StatusOf(With("/model/merges", R"(["#version: 0.2", "a b"])")).ok());
  EXPECT_TRUE(StatusOf(With("/truncation", R"({"max_length": 5})")).ok());
  EXPECT_TRUE(StatusOf(With("/added_tokens/0/content", R"("")")).ok());
}

TEST(TokenizerMalformedTest, CutShortAnywhere) {
  const std::string text = SmallTokenizer().dump();
  for (std::size_t size = 0; size < text.size(); ++size) {
    EXPECT_TRUE(absl::IsInvalidArgument(StatusOf(text.substr(0, size)))) << size;
  }
}

TEST(TokenizerMalformedTest, WhatIsNotSupportedIsRefusedByName) {
  ExpectErrors(
      absl::StatusCode::kUnimplemented,
      {{"/version", R"("2.0")", R"(tokenizer.json: version "2.0" is not supported)"},
       {"/pipeline", "1", R"(option "pipeline")"},
       {"/model/type", R"("Unigram")", R"(tokenizer.json: model: model type "Unigram")"},
       {"/model/type", R"("WordPiece")", R"(model type "WordPiece")"},
       {"/model/type", R"("B\nP\u001bE")", R"(model type "B\nP\x1b)"},
       {"/model/dropout", "0.1", R"(dropout "0.1" is not supported)"},
       {"/model/cache_capacity", "10", R"(option "cache_capacity")"},
       {"/normalizer", R"({"type": "Precompiled", "precompiled_charsmap": ""})", R"(normalizer type "Precompiled")"},
       {"/normalizer/normalizers/0", R"({"type": "BertNormalizer"})", R"(normalizer.normalizers[0]: normalizer type)"},
       {"/normalizer/normalizers/0/form", "1", R"(option "form")"},
       {"/pre_tokenizer", R"({"type": "BertPreTokenizer"})", R"(pre-tokenizer type "BertPreTokenizer")"},
       {"/pre_tokenizer", R"({"type": "UnicodeScripts"})", R"(pre-tokenizer type "UnicodeScripts")"},
       {"/pre_tokenizer/behavior", R"("Mirrored")", R"(split behavior "Mirrored")"},
       {"/pre_tokenizer/pattern", R"({"Regex": "\\bword"})", R"(pre_tokenizer.pattern: the regex construct "\\b")"},
       {"/pre_tokenizer/pattern", R"({"Glob": "*"})", R"(option "Glob")"},
       {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"})",
        R"(prepend_scheme "last")"},
       {"/pipe\nline", "1", R"(option "pipe\nline")"},
       {"/post_processor", R"({"type": "BertProcessing"})", R"(post-processor type "BertProcessing")"},
       {"/post_processor/single/1/Sequence/id", R"("B")", "a second one"},
       {"/post_processor/single", "[]", "the text 0 times"},
       {"/decoder", R"({"type": "WordPiece", "prefix": "##", "cleanup": true})", R"(decoder type "WordPiece")"},
       {"/decoder", R"({"type": "CTC"})", R"(decoder type "CTC")"},
       {"/added_tokens/0/priority", "1", R"(tokenizer.json: added_tokens[0]: option "priority")"}});
}

TEST(TokenizerMalformedTest, WhatContradictsItselfIsInvalid) {
  ExpectErrors(
      absl::StatusCode::kInvalidArgument,
      {{"", "[]", "not an object"},
       {"/model", "null", R"(has no "model")"},
       {"/model", "3", "not an object"},
       {"/model/vocab", "[]", "vocab is not an object"},
       {"/model/vocab/b", "0", "two tokens have the id 0"},
       {"/model/vocab/b", "-1", "the id -1"},
       {"/model/vocab/b", "1.5", "the id 1.5"},
       {"/model/vocab/b", R"("1")", "the id string"},
       {"/model/vocab/b", "16777216", "below 16777216"},
       {"/model/vocab/b", "99999999999999999999", "is not a whole number"},
       {"/model/merges", R"({"a": "b"})", "merges is not an array"},
       {"/model/merges", R"([["a", "c"]])", "merges[0]: the second token is not in the vocabulary"},
       {"/model/merges", R"([["c", "a"]])", "merges[0]: the first token is not in the vocabulary"},
       {"/model/merges", R"([["b", "a"]])", "merges[0]: the merged token is not in the vocabulary"},
       {"/model/merges", R"([["a", "b"], "a b"])", "merges[1] is not a pair"},
       {"/model/merges", R"([["a", "b", "a"]])", "merges[0] is not a pair"},
       {"/model/merges", R"(["a b a"])", "merges[0] is not two tokens"},
       {"/model/merges", R"(["ab"])", "merges[0] is not two tokens"},
       {"/model/merges", "[1]", "merges[0] is not a string"},
       {"/model/continuing_subword_prefix", R"("####")", "lacks continuing_subword_prefix"},
       {"/model/fuse_unk", "1", R"("fuse_unk" is not a boolean)"},
       {"/model/unk_token", "1", R"("unk_token" is not a string)"},
       {"/added_tokens", "{}", "added_tokens is not an array"},
       {"/added_tokens/0/id", "-1", R"("id" is not a whole number)"},
       {"/added_tokens/0/id", "16777216", R"("id" is not a whole number)"},
       {"/added_tokens/0/id", "4", "the file gives this token the id 4, but the next free id is 3"},
       {"/added_tokens/0/content", R"("ab")", "the vocabulary gives it 2"},
       {"/added_tokens/0/special", "null", R"(has no "special")"},
       {"/added_tokens/1", SmallTokenizer()["added_tokens"][0].dump(), "added_tokens[1]"},
       {"/added_tokens/0/content", absl::StrCat("\"", std::string(2000, 'x'), "\""), "2000 bytes, the limit is 1024"},
       {"/normalizer", "[]", "normalizer is array, not an object"},
       {"/normalizer/normalizers", "3", "not an array"},
       {"/normalizer/normalizers/1/prepend", "null", R"(has no "prepend")"},
       {"/pre_tokenizer/pattern", R"({"Regex": "("})", "pre_tokenizer.pattern: the regex does not compile"},
       {"/pre_tokenizer/pattern", R"({"Regex": "a", "String": "a"})", "both"},
       {"/pre_tokenizer/pattern", R"("a")", "not an object"},
       {"/pre_tokenizer/invert", "null", R"(has no "invert")"},
       {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "__"})", "not one character"},
       {"/pre_tokenizer",
        R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "add_prefix_space": false})",
        "add_prefix_space is false"},
       {"/post_processor/single/0/SpecialToken/id", R"("<t>")", R"(special_tokens: has no "<t>")"},
       {"/post_processor/special_tokens/<s>/ids", "3", R"("ids" is number, not an array)"},
       {"/post_processor/special_tokens/<s>/ids", json(std::vector<int>(1025, 3)).dump(),
        "1025 entries, limit is 1024"},
       {"/post_processor/special_tokens/<s>/ids", "[-3]", "an id is not a whole number"},
       {"/post_processor/special_tokens/<s>/ids", "[16777216]", "an id is not a whole number"},
       {"/decoder/decoders/2/content", R"("  ")", "not one character"},
       {"/decoder/decoders/2/start", "-1", R"("start" is not a whole number)"},
       {"/decoder/decoders/2/stop", "1000000000", R"("stop" is not a whole number)"}});
}

TEST(TokenizerMalformedTest, DeepNesting) {
  EXPECT_THAT(std::string(StatusOf(std::string(1'000'000, '[')).message()), HasSubstr("nested deeper"));
  std::string nested = R"({"type": "NFC"})";
  for (int i = 0; i < 10'000; ++i) nested = absl::StrCat(R"({"type":"Sequence","normalizers":[)", nested, "]}");
  EXPECT_TRUE(absl::IsInvalidArgument(StatusOf(absl::StrCat(R"({"normalizer":)", nested, "}"))));
}

TEST(TokenizerMalformedTest, TenMillionMerges) {
  std::string text = R"({"model":{"vocab":{"a":0,"b":1,"ab":2},"merges":["a b")";
  for (int i = 1; i < 10'000'000; ++i) text += R"(,"a b")";
  text += "]}}";
  EXPECT_THAT(std::string(StatusOf(text).message()), HasSubstr("more than 4194304 values"));
}

TEST(TokenizerMalformedTest, AMillionMergesOfOnePair) {
  std::string text = R"({"model":{"vocab":{"a":0,"b":1,"ab":2},"merges":["a b")";
  for (int i = 1; i < 1'000'000; ++i) text += R"(,"a b")";
  EXPECT_TRUE(StatusOf(text + "]}}").ok());
}

TEST(TokenizerMalformedTest, ManyComponents) {
  json components = json::array();
  for (int i = 0; i < 100'000; ++i) {
    components.push_back({{"type", "Replace"}, {"pattern", {{"Regex", "a"}}}, {"content", ""}});
  }
  json file = SmallTokenizer();
  file["normalizer"]["normalizers"] = components;
  EXPECT_THAT(std::string(StatusOf(file.dump()).message()), HasSubstr("more than 64 components"));
}

TEST(TokenizerMalformedTest, ManyAddedTokens) {
  json file = SmallTokenizer();
  for (int i = 1; i < 20'000; ++i) {
    json token = file["added_tokens"][0];
    token["id"] = 3 + i;
    token["content"] = absl::StrCat(std::string(500, '<'), i);
    file["added_tokens"].push_back(token);
  }
  EXPECT_THAT(std::string(StatusOf(file.dump()).message()), HasSubstr("bytes of added tokens"));
}

TEST(TokenizerMalformedTest, AHugeIdCostsLittleMemory) {
  // The largest id there may be, alone: no table of strings of that size may stand behind it.
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::Parse(R"({"model":{"vocab":{"a":16777215},"merges":[]}})", "");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 16777216);
  EXPECT_EQ((*tokenizer)->IdToToken(16777215), "a");
}

}  // namespace
}  // namespace cadre
