// Merging in windows against merging at one go with a heap, for tables of every kind and texts that are longer than
// many windows.
#include "engine/text/merger.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <map>
#include <queue>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace cadre {
namespace {

using Ids = std::vector<std::int32_t>;

// What the reference library does: one heap of (rank, position) for the whole piece. A pair that has changed since it
// was found still counts if it makes the token that it was found for.
Ids MergeAtOneGo(const MergeTable& table, const Ids& symbols) {
  struct Symbol {
    std::int32_t id;
    int previous;
    int next;
    bool is_gone = false;
  };
  using Candidate = std::pair<std::pair<std::uint32_t, int>, std::int32_t>;  // rank, position; merged id
  std::vector<Symbol> list;
  const int size = static_cast<int>(symbols.size());
  for (int i = 0; i < size; ++i)
    list.push_back({symbols[static_cast<std::size_t>(i)], i - 1, i + 1 < size ? i + 1 : -1});
  const auto at = [&list](int i) -> Symbol& { return list[static_cast<std::size_t>(i)]; };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto consider = [&](int left) {
    if (left < 0 || at(left).next < 0) return;
    const MergeTable::Merge merge = table.Find(at(left).id, at(at(left).next).id);
    if (merge.rank != MergeTable::kNoRank) candidates.push({{merge.rank, left}, merge.merged_id});
  };
  for (int i = 0; i < size; ++i) consider(i);
  while (!candidates.empty()) {
    const auto [place, merged_id] = candidates.top();
    candidates.pop();
    Symbol& left = at(place.second);
    if (left.is_gone || left.next < 0) continue;
    Symbol& right = at(left.next);
    const MergeTable::Merge merge = table.Find(left.id, right.id);
    if (merge.rank == MergeTable::kNoRank || merge.merged_id != merged_id) continue;
    left.id = merged_id;
    left.next = right.next;
    right.is_gone = true;
    if (left.next >= 0) at(left.next).previous = place.second;
    consider(left.previous);
    consider(place.second);
  }
  Ids tokens;
  for (const Symbol& symbol : list) {
    if (!symbol.is_gone) tokens.push_back(symbol.id);
  }
  return tokens;
}

// A table made of strings, as those of tokenizer.json are: tokens are what they spell.
class Vocabulary {
 public:
  explicit Vocabulary(std::size_t prefix_size = 0) : prefix_size_(prefix_size) {}

  std::int32_t Id(const std::string& token) {
    const auto [entry, is_new] = ids_.try_emplace(token, static_cast<std::int32_t>(tokens_.size()));
    if (is_new) tokens_.push_back(token);
    return entry->second;
  }
  const std::string& Token(std::size_t id) const { return tokens_[id]; }
  std::size_t size() const { return tokens_.size(); }

  // REQUIRES: each rank once, and the right token has the prefix.
  void Merge(const std::string& left, const std::string& right, std::size_t rank) {
    const std::int32_t merged = Id(left + right.substr(prefix_size_));
    table_.Add(Id(left), Id(right), {static_cast<std::uint32_t>(rank), merged});
  }
  const MergeTable& table() const { return table_; }

 private:
  std::size_t prefix_size_;
  absl::flat_hash_map<std::string, std::int32_t> ids_;
  std::vector<std::string> tokens_;
  MergeTable table_;
};

Ids Spell(Vocabulary* vocabulary, const std::string& text) {
  Ids symbols;
  for (const char c : text) symbols.push_back(vocabulary->Id(std::string(1, c)));
  return symbols;
}

void ExpectTheSame(const MergeTable& table, const Ids& symbols) {
  Merger merger(&table);
  Ids other_tokens;
  merger.Merge(Ids(symbols.rbegin(), symbols.rend()), &other_tokens);  // which must leave no trace
  Ids tokens = {-7};                                                   // what stands there already stays
  merger.Merge(symbols, &tokens);
  Ids expected = {-7};
  const Ids merged = MergeAtOneGo(table, symbols);
  expected.insert(expected.end(), merged.begin(), merged.end());
  ASSERT_EQ(tokens, expected) << symbols.size() << " symbols";
}

// Texts of `size` symbols from the first `alphabet` ids: random, of short and long periods, with runs.
void ExpectTheSameForTexts(const MergeTable& table, int alphabet, std::size_t size, std::mt19937* random) {
  const auto pick = [&] { return static_cast<std::int32_t>((*random)() % static_cast<unsigned>(alphabet)); };
  for (const std::size_t period :
       {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{7}, std::size_t{50}, std::size_t{300}, size}) {
    Ids symbols;
    for (std::size_t i = 0; i < size; ++i) symbols.push_back(i < period ? pick() : symbols[i - period]);
    ASSERT_NO_FATAL_FAILURE(ExpectTheSame(table, symbols));
  }
  Ids runs;
  while (runs.size() < size) runs.insert(runs.end(), 1 + (*random)() % 100, pick());
  ASSERT_NO_FATAL_FAILURE(ExpectTheSame(table, runs));
}

// `num_merges` of tokens at random, ranked in the order in which they are made (`canonical`, as training does) or not.
Vocabulary RandomVocabulary(int alphabet, int num_merges, bool canonical, std::mt19937* random) {
  Vocabulary vocabulary;
  for (int i = 0; i < alphabet; ++i) vocabulary.Id(std::string(1, static_cast<char>('a' + i)));
  std::vector<std::size_t> ranks;
  for (int i = 0; i < num_merges; ++i) ranks.push_back(static_cast<std::size_t>(i));
  if (!canonical) std::shuffle(ranks.begin(), ranks.end(), *random);
  std::map<std::pair<std::string, std::string>, bool> seen;
  for (std::size_t i = 0; i < ranks.size();) {
    const std::string left = vocabulary.Token((*random)() % vocabulary.size());
    const std::string right = vocabulary.Token((*random)() % vocabulary.size());
    if (left.size() + right.size() > 64 || !seen.try_emplace({left, right}, true).second) continue;
    vocabulary.Merge(left, right, ranks[i++]);
  }
  return vocabulary;
}

TEST(MergerTest, ShortPiecesOfAllLengths) {
  std::mt19937 random(1);
  const Vocabulary vocabulary = RandomVocabulary(3, 60, /*canonical=*/false, &random);
  ASSERT_NO_FATAL_FAILURE(ExpectTheSame(vocabulary.table(), {}));
  for (std::size_t size = 1; size < 600; ++size) {
    ASSERT_NO_FATAL_FAILURE(ExpectTheSameForTexts(vocabulary.table(), 3, size, &random));
  }
}

class RandomTablesTest : public testing::TestWithParam<bool> {};

TEST_P(RandomTablesTest, WindowsMakeNoDifference) {
  std::mt19937 random(GetParam() ? 2 : 3);
  for (const int alphabet : {1, 2, 3, 5, 20}) {
    for (const int num_merges : {3, 20, 150, 1000}) {
      if (alphabet == 1 && num_merges > 20) continue;
      for (int i = 0; i < 6; ++i) {
        const Vocabulary vocabulary = RandomVocabulary(alphabet, num_merges, GetParam(), &random);
        SCOPED_TRACE(testing::Message() << alphabet << " letters, " << num_merges << " merges, table " << i);
        ASSERT_NO_FATAL_FAILURE(ExpectTheSameForTexts(vocabulary.table(), alphabet, 3000, &random));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, RandomTablesTest, testing::Values(true, false),
                         [](const auto& ranks) { return ranks.param ? "InOrder" : "Shuffled"; });

TEST(MergerTest, TokensLongerThanWindows) {
  Vocabulary vocabulary;
  std::string token = "a";
  for (std::size_t rank = 0; rank < 13; ++rank) {
    vocabulary.Merge(token, token, rank);
    token += token;
  }
  for (const std::size_t size : {255, 256, 257, 4095, 4096, 8191, 8192, 8193, 30000}) {
    ASSERT_NO_FATAL_FAILURE(ExpectTheSame(vocabulary.table(), Ids(size, 0)));
  }
  // And after what does not merge with them.
  std::string text;
  std::mt19937 random(4);
  while (text.size() < 60000) text += "bc" + std::string(random() % 9000, 'a');
  ASSERT_NO_FATAL_FAILURE(ExpectTheSame(vocabulary.table(), Spell(&vocabulary, text)));
}

// Pairs whose ranks fall (or rise) along the text: what becomes of the first symbol depends on how many follow, so that
// windows which end or begin within share no token.
TEST(MergerTest, DependenceOverLongDistances) {
  constexpr int kLength = 1500;
  for (const bool falls : {true, false}) {
    MergeTable table;
    for (int i = 0; i + 1 < kLength; ++i) {
      table.Add(i, i + 1, {static_cast<std::uint32_t>(falls ? kLength - i : i), kLength + i});
    }
    for (const int first : {0, 1, 2, 3, 300, 777}) {
      for (const int last : {1000, 1001, 1400, 1498, 1499}) {
        Ids symbols;
        for (int repeats = 0; repeats < 5; ++repeats) {
          for (int i = first; i <= last; ++i) symbols.push_back(i);
        }
        ASSERT_NO_FATAL_FAILURE(ExpectTheSame(table, symbols)) << falls << " " << first << " " << last;
      }
    }
  }
}

// "##" alone continues a word and spells nothing: merged with it a token stays as it is, and pairs that changed since
// they were found are still merged.
TEST(MergerTest, TokensThatStayAsTheyAre) {
  std::mt19937 random(5);
  for (int i = 0; i < 60; ++i) {
    Vocabulary vocabulary(/*prefix_size=*/2);
    for (const char* token : {"##", "##a", "##b", "##c"}) vocabulary.Id(token);
    std::vector<std::size_t> ranks;
    for (std::size_t rank = 0; rank < 60; ++rank) ranks.push_back(rank);
    std::shuffle(ranks.begin(), ranks.end(), random);
    std::map<std::pair<std::string, std::string>, bool> seen;
    for (std::size_t next = 0; next < ranks.size();) {
      const std::string left = vocabulary.Token(random() % vocabulary.size());
      const std::string right = next % 4 == 0 ? "##" : vocabulary.Token(random() % vocabulary.size());
      if (left.size() + right.size() > 64 || !seen.try_emplace({left, right}, true).second) continue;
      vocabulary.Merge(left, right, ranks[next++]);
    }
    ASSERT_TRUE(vocabulary.table().keeps_left());
    ASSERT_NO_FATAL_FAILURE(ExpectTheSameForTexts(vocabulary.table(), 4, 1500, &random)) << i;
    ASSERT_NO_FATAL_FAILURE(ExpectTheSameForTexts(vocabulary.table(), 4, 12, &random)) << i;
  }
}

// The pair (x, b) is found twice, because b swallows an empty token and is pushed again; the second finding merges xb
// with the other empty token, long before that pair's own turn, and so y goes to xb and not to z.
TEST(MergerTest, PairsThatChangedButMakeTheSameToken) {
  enum Token : std::int32_t { kX, kB, kEmpty, kOtherEmpty, kY, kZ, kXb, kXby, kYz };
  MergeTable table;
  table.Add(kB, kEmpty, {0, kB});
  table.Add(kX, kB, {1, kXb});
  table.Add(kXb, kY, {2, kXby});
  table.Add(kY, kZ, {3, kYz});
  table.Add(kXb, kOtherEmpty, {4, kXb});
  Ids symbols;
  Ids expected;
  for (int repeats = 1; repeats < 200; ++repeats) {
    symbols.insert(symbols.end(), {kX, kB, kEmpty, kOtherEmpty, kY, kZ});
    expected.insert(expected.end(), {kXby, kZ});
    Ids tokens;
    Merger(&table).Merge(symbols, &tokens);
    ASSERT_EQ(tokens, expected) << repeats;
    ASSERT_NO_FATAL_FAILURE(ExpectTheSame(table, symbols));
  }
}

class LayoutTest : public testing::TestWithParam<const char*> {};

TEST_P(LayoutTest, WindowsMakeNoDifference) {
  const std::string path = std::string("tests/golden/tokenizers/") + GetParam() + "/tokenizer.json";
  std::ifstream file(path);
  const nlohmann::json model = nlohmann::json::parse(file)["model"];
  const std::size_t prefix_size =
      model.contains("continuing_subword_prefix") && model["continuing_subword_prefix"].is_string()
          ? model["continuing_subword_prefix"].get<std::string>().size()
          : 0;
  Vocabulary vocabulary(prefix_size);
  std::uint32_t rank = 0;
  for (const nlohmann::json& merge : model["merges"]) {
    const std::string line =
        merge.is_array() ? merge[0].get<std::string>() + " " + merge[1].get<std::string>() : merge.get<std::string>();
    const std::size_t space = line.find(' ');
    vocabulary.Merge(line.substr(0, space), line.substr(space + 1), rank++);
  }
  std::mt19937 random(6);
  // Any tokens may stand side by side, as byte fallback and unknown tokens make them.
  for (const int alphabet : {5, 50, static_cast<int>(vocabulary.size())}) {
    ASSERT_NO_FATAL_FAILURE(ExpectTheSameForTexts(vocabulary.table(), alphabet, 20000, &random));
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, LayoutTest,
                         testing::Values("bailing", "deepseek2", "deepseek3", "gpt2", "llama3", "metaspace_unk",
                                         "mixtral_legacy", "mixtral_metaspace", "o200k", "qwen2", "word_prefix",
                                         "word_suffix"));

}  // namespace
}  // namespace cadre
