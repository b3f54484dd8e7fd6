// The bytes of tokens against what the tokenizers make of whole sequences.
#include "engine/structured/token_vocabulary.h"

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "engine/base/file.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace cadre {
namespace {

// Sequences without special tokens whose bytes are whole characters.
void ExpectSpellingsAddUp(const Tokenizer& tokenizer, uint64_t seed) {
  std::vector<int32_t> spelled;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.SpellToken(id).has_value()) spelled.push_back(id);
  }
  ASSERT_FALSE(spelled.empty());
  std::mt19937_64 random(seed);
  int num_compared = 0;
  for (int i = 0; i < 3000; ++i) {
    std::vector<int32_t> ids;
    std::string bytes;
    for (size_t n = 1 + random() % 6; n > 0; --n) {
      const int32_t id = spelled[random() % spelled.size()];
      const TokenSpelling spelling = *tokenizer.SpellToken(id);
      bytes += ids.empty() ? spelling.first : spelling.later;
      ids.push_back(id);
    }
    if (!IsValidUtf8(bytes)) continue;
    ++num_compared;
    ASSERT_EQ(tokenizer.Decode(ids), bytes);
  }
  EXPECT_GT(num_compared, 100);
}

TEST(TokenVocabularyTest, SpellingsOfTheDemoTokenizerAddUp) {
  const auto tokenizer = Tokenizer::Load("models/demo");
  ASSERT_TRUE(tokenizer.ok());
  ExpectSpellingsAddUp(**tokenizer, 1);
  const auto vocabulary = TokenVocabulary::FromTokenizer(**tokenizer, 2048, {0});
  ASSERT_TRUE(vocabulary.ok());
  EXPECT_TRUE((*vocabulary)->spelled().all());
  EXPECT_FALSE((*vocabulary)->has_first_trie());
  for (int32_t id = 0; id < 2048; ++id) {
    EXPECT_TRUE(!(*tokenizer)->IsSpecial(id) || (*vocabulary)->token(id).later.empty()) << id;
  }
}

TEST(TokenVocabularyTest, SpellingsOfPublishedLayoutsAddUp) {
  for (const char* name : {"bailing", "deepseek2", "deepseek3", "gpt2", "llama3", "mixtral_legacy", "mixtral_metaspace",
                           "o200k", "qwen2"}) {
    SCOPED_TRACE(name);
    const auto tokenizer = Tokenizer::Load(std::filesystem::path("tests/golden/tokenizers") / name);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    ExpectSpellingsAddUp(**tokenizer, 6);
  }
}

// A byte-fallback vocabulary as Llama and Mixtral have it, with the decoder given.
std::string TokenizerJson(const std::string& decoder) {
  std::string vocab = R"("<unk>":0,"<s>":1,"</s>":2)";
  constexpr char kHex[] = "0123456789ABCDEF";
  int id = 3;
  for (int byte = 0; byte < 256; ++byte) {
    vocab += std::string(",\"<0x") + kHex[byte / 16] + kHex[byte % 16] + ">\":" + std::to_string(id++);
  }
  for (const char* token : {"▁", "a", "▁a", "▁▁", "b", "▁▁b", "é", "▁é▁", "ab"}) {
    vocab += std::string(",\"") + token + "\":" + std::to_string(id++);
  }
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)"
         R"({"id":2,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,)"
         R"("normalized":false,"special":true}],)"
         R"("normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":)" +
         decoder +
         R"(,"model":{"type":"BPE","dropout":null,"unk_token":"<unk>","continuing_subword_prefix":null,)"
         R"("end_of_word_suffix":null,"fuse_unk":true,"byte_fallback":true,"vocab":{)" +
         vocab + R"(},"merges":[]}})";
}

constexpr char kReplace[] = R"({"type":"Replace","pattern":{"String":"▁"},"content":" "})";

TEST(TokenVocabularyTest, SpellingsOfByteFallbackDecodersAddUp) {
  for (const std::string tail : {R"(,{"type":"Strip","content":" ","start":1,"stop":0})", ""}) {
    const std::string decoder = std::string(R"({"type":"Sequence","decoders":[)") + kReplace +
                                R"(,{"type":"ByteFallback"},{"type":"Fuse"})" + tail + "]}";
    const auto tokenizer = Tokenizer::Parse(TokenizerJson(decoder), "");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    const int32_t space_a = *(*tokenizer)->TokenToId("▁a");
    EXPECT_EQ((*tokenizer)->SpellToken(space_a)->first, tail.empty() ? " a" : "a");
    EXPECT_EQ((*tokenizer)->SpellToken(space_a)->later, " a");
    EXPECT_EQ((*tokenizer)->SpellToken(*(*tokenizer)->TokenToId("<0xE4>"))->later, "\xE4");
    EXPECT_FALSE((*tokenizer)->SpellToken(2).has_value());
    // Decode strips one space of the whole text: sequences that begin with a lone space are a matter of two tokens.
    std::mt19937_64 random(2);
    int num_compared = 0;
    for (int i = 0; i < 5000; ++i) {
      std::vector<int32_t> ids;
      std::string bytes;
      for (size_t n = 1 + random() % 5; n > 0; --n) {
        const auto id = static_cast<int32_t>(3 + random() % 265);
        bytes += ids.empty() ? (*tokenizer)->SpellToken(id)->first : (*tokenizer)->SpellToken(id)->later;
        ids.push_back(id);
      }
      if (!IsValidUtf8(bytes)) continue;
      ++num_compared;
      ASSERT_EQ((*tokenizer)->Decode(ids), bytes);
    }
    EXPECT_GT(num_compared, 100);
  }
}

TEST(TokenVocabularyTest, SpellingsOfMetaspaceDecodersAddUp) {
  for (const std::string scheme : {"always", "first", "never"}) {
    const auto tokenizer = Tokenizer::Parse(
        TokenizerJson(R"({"type":"Metaspace","replacement":"▁","prepend_scheme":")" + scheme + R"(","split":false})"),
        "");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    ExpectSpellingsAddUp(**tokenizer, 3);
    EXPECT_EQ((*tokenizer)->SpellToken(*(*tokenizer)->TokenToId("▁é▁"))->first, scheme == "never" ? " é " : "é");
  }
}

TEST(TokenVocabularyTest, DecodersThatLookAtNeighborsAreRefused) {
  const auto tokenizer = Tokenizer::Parse(TokenizerJson("null"), "");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(TokenVocabulary::FromTokenizer(**tokenizer, 268, {2}).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(TokenTrieTest, NodesAreAWalkInByteOrder) {
  const TokenTrie trie({{"ab", 0}, {"a", 1}, {"b", 2}, {"abc", 3}, {"ab", 4}, {"", 5}, {"a\"", 6}});
  std::string bytes;
  for (const TokenTrie::Node& node : trie.nodes().subspan(1, trie.nodes().size() - 2))
    bytes += static_cast<char>(node.byte);
  EXPECT_EQ(bytes, "a\"bcb");
  EXPECT_THAT(trie.tokens(), testing::ElementsAre(1, 6, 0, 4, 3, 2));
  EXPECT_THAT(trie.TokensBelow(1), testing::ElementsAre(1, 6, 0, 4, 3));
  EXPECT_THAT(trie.TokensAt(3), testing::ElementsAre(0, 4));
  EXPECT_EQ(trie.nodes()[1].next, 5u);
  EXPECT_EQ(trie.nodes()[1].height, 3);
  EXPECT_EQ(trie.nodes()[1].run_sets, 1);  // printable, but not inside a JSON string
  EXPECT_EQ(trie.nodes()[3].height, 2);
  EXPECT_EQ(trie.nodes()[3].run_sets, 0b011111);
}

}  // namespace
}  // namespace cadre
