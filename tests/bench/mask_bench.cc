// What structured output costs: compiling, and each token's mask, over vocabularies that are made up after the pattern
// of published byte-level ones (bytes, words with and without a space, runs of spaces, JSON's signs, numbers,
// characters of other scripts).
//
//   mask_bench [--vocab 8192,50000,152000] [--documents 20]
//
// One document is followed again and again, cut into the longest tokens that fit. Its first time is "cold": every mask
// is found. Later times are "warm". All times are CPU time of one thread. Compare with a decode step of engine_bench,
// divided by the batch.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/structured/constraint_compiler.h"
#include "engine/text/utf8.h"

namespace cadre {
namespace {

// CPU time of this thread, which other programs on the machine do not take part in.
double Microseconds() {
  timespec now;
  CADRE_CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

double MicrosecondsSince(double start) { return Microseconds() - start; }

std::string MadeUpWord(std::mt19937_64& random) {
  constexpr std::string_view kConsonants = "tnshrdlcmwfgypbvk";
  constexpr std::string_view kVowels = "eaoiu";
  std::string word;
  const size_t size = 2 + random() % 7;
  for (size_t i = 0; i < size; ++i) {
    const std::string_view letters = i % 2 == 0 ? kConsonants : kVowels;
    word += letters[random() % letters.size()];
  }
  return word;
}

// A piece that is one token more, until there are enough different ones.
std::string MadeUpToken(std::mt19937_64& random) {
  constexpr std::string_view kSigns = "{}[]\",:;.()/_-=<>#*'\\\n";
  std::string token;
  const uint64_t kind = random() % 100;
  if (kind < 45) return " " + MadeUpWord(random);
  if (kind < 65) return MadeUpWord(random);
  if (kind < 70) {
    token = MadeUpWord(random);
    token[0] = static_cast<char>(token[0] - 'a' + 'A');
    return token;
  }
  if (kind < 75) {
    for (size_t i = 1 + random() % 4; i > 0; --i) token += kSigns[random() % kSigns.size()];
    return token;
  }
  if (kind < 77) return MadeUpWord(random) + "\"" + std::string(1, ",:}]"[random() % 4]);
  if (kind < 78) return std::string(1 + random() % 80, ' ');
  for (size_t i = 1 + random() % 3; i > 0; --i) {
    AppendCodePoint(static_cast<char32_t>(kind < 85 ? 0x400 + random() % 0x60 : 0x4E00 + random() % 0x1000), &token);
  }
  return token;
}

std::shared_ptr<const TokenVocabulary> MadeUpVocabulary(size_t size) {
  std::mt19937_64 random(1);
  std::set<std::string> seen;
  std::vector<TokenVocabulary::Token> tokens;
  const auto add = [&](const std::string& token) {
    if (seen.insert(token).second) tokens.push_back({token, token});
  };
  for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
  for (const char* token : {"{\"", "\":", "\": ", "\",", "\", \"", "\"}", "\"]", "},", "}, {", "],", ": ", ", "})
    add(token);
  for (int i = 0; i < 1000; ++i) add(std::to_string(i));
  while (tokens.size() + 1 < size) add(MadeUpToken(random));
  tokens.push_back({});
  return std::make_shared<const TokenVocabulary>(std::move(tokens),
                                                 std::vector<int32_t>{static_cast<int32_t>(size) - 1});
}

struct BenchCase {
  const char* name;
  const char* schema;
  const char* document;
};
constexpr BenchCase kCases[] = {
    {"any JSON", "{}",
     R"({"name": "Ada Lovelace", "born": 1815, "tags": ["mathematics", "computing"], "notes": {"a": "the )"
     R"(first program", "b": null}})"},
    {"person",
     R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},
        "email":{"type":"string"},"tags":{"type":"array","items":{"type":"string"}}},"required":["name","age"]})",
     R"({"name": "Ada Lovelace", "age": 36, "email": "ada@example.org", "tags": ["mathematics", )"
     R"("computing", "poetry"]})"},
    {"maxLength 500",
     R"({"type":"object","properties":{"text":{"type":"string","maxLength":500}},"required":["text"]})",
     R"({"text": "The quick brown fox jumps over the lazy dog, and then it goes on with its day as if )"
     R"(nothing had happened at all."})"},
    {"pattern",
     R"({"type":"object","properties":{"text":{"type":"string","pattern":"^[A-Z][a-z )"
     R"(,.]{1,200}$"}},"required":["text"]})",
     R"({"text": "The quick brown fox jumps over the lazy dog, and then it goes on with its day."})"},
    {"tree",
     R"({"$ref":"#/$defs/N","$defs":{"N":{"type":"object","properties":{"label":{"type":"string"},
        "children":{"type":"array","items":{"$ref":"#/$defs/N"}}},"required":["label","children"]}}})",
     R"({"label": "root", "children": [{"label": "left side", "children": [{"label": "leaf", "children": )"
     R"([]}]}, {"label": "right side", "children": []}]})"},
};

std::vector<int32_t> LongestTokens(const TokenVocabulary& vocabulary, std::string_view text) {
  std::vector<int32_t> ids;
  while (!text.empty()) {
    int32_t best = -1;
    size_t best_size = 0;
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      const std::string& bytes = vocabulary.token(id).later;
      if (bytes.size() <= best_size || !text.starts_with(bytes)) continue;
      best = id;
      best_size = bytes.size();
    }
    ids.push_back(best);
    text.remove_prefix(best_size);
  }
  return ids;
}

struct StepTimes {
  double mean_us = 0;
  double max_us = 0;
};

// With `times_steps`, each by itself, which adds the cost of reading the clock.
StepTimes Follow(const TokenConstraint& constraint, const std::vector<int32_t>& ids, bool times_steps) {
  const std::unique_ptr<ConstraintState> state = constraint.Start();
  StepTimes times;
  const double first = Microseconds();
  for (const int32_t id : ids) {
    const double start = times_steps ? Microseconds() : 0;
    const absl::StatusOr<std::span<const uint64_t>> allowed = state->AllowedTokens();
    CADRE_CHECK(allowed.ok());
    const std::span<const uint64_t> mask = *allowed;
    const bool is_allowed = (mask[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0;
    state->Advance(id);
    CADRE_CHECK(is_allowed);
    if (times_steps) times.max_us = std::max(times.max_us, MicrosecondsSince(start));
  }
  times.mean_us = MicrosecondsSince(first) / static_cast<double>(ids.size());
  CADRE_CHECK(state->done());
  return times;
}

void Run(size_t vocab_size, int num_documents) {
  double start = Microseconds();
  const auto vocabulary = MadeUpVocabulary(vocab_size);
  std::printf("vocabulary of %zu tokens, made in %.0f ms (once for a model)\n", vocab_size,
              MicrosecondsSince(start) / 1e3);
  for (const BenchCase& bench_case : kCases) {
    start = Microseconds();
    const CompiledConstraint constraint = ConstrainToJsonSchema(bench_case.schema, vocabulary);
    const double compile_us = MicrosecondsSince(start);
    CADRE_CHECK(constraint.ok());
    const std::vector<int32_t> ids = LongestTokens(*vocabulary, bench_case.document);
    const StepTimes cold = Follow(**constraint, ids, /*times_steps=*/true);
    std::vector<double> warm;
    for (int i = 0; i < num_documents; ++i) warm.push_back(Follow(**constraint, ids, /*times_steps=*/false).mean_us);
    std::sort(warm.begin(), warm.end());
    std::printf(
        "  %-14s compile %7.0f us, %3zu tokens: cold %7.1f us a token (max %7.1f), warm %5.2f us, keeps %5.0f KiB\n",
        bench_case.name, compile_us, ids.size(), cold.mean_us, cold.max_us, warm[warm.size() / 2],
        static_cast<double>((*constraint)->memory_bytes()) / 1024);
  }
}

}  // namespace
}  // namespace cadre

int main(int argc, char** argv) {
  std::vector<size_t> vocab_sizes = {8192, 50000, 152000};
  int num_documents = 20;
  CLI::App app("What structured output costs");
  app.add_option("--vocab", vocab_sizes, "Vocabulary sizes, at least 2000")->delimiter(',');
  app.add_option("--documents", num_documents, "Warm documents; the median is reported");
  CLI11_PARSE(app, argc, argv);
  for (const size_t vocab_size : vocab_sizes) cadre::Run(vocab_size, num_documents);
  return 0;
}
