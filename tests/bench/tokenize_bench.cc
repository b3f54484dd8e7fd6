// What tokenizing costs, over texts that are made to be hard for it: long runs of one character, of signs, digits,
// combining marks, emoji, and what merges into ever longer tokens or never merges.
//
//   tokenize_bench [--bytes 131072] [--ratios] [--curve] [folder with tokenizer.json ...]
//
// A line for each tokenizer: MB/s at --bytes and, with --ratios, t(2n) / t(n), the mean of three doublings, of the text
// that is worst: 2 is linear. Texts of n and 8n bytes take turns for equal times; the median of five turns counts. With
// --curve also ns a byte of the slowest text from 1 KiB to 1 MiB. CPU time of one thread, else the best of three; other
// programs on the machine show through its caches.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/text/tokenizer.h"

namespace cadre {
namespace {

double Seconds() {
  timespec now;
  CADRE_CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

struct Input {
  const char* name;
  std::function<std::string(size_t)> make;  // a text of about so many bytes
};

std::string Repeated(const std::string& piece, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += piece;
  return text;
}

// `pick` appends one piece.
std::string Random(size_t bytes, const std::function<void(std::mt19937&, std::string*)>& pick) {
  std::mt19937 random(7);
  std::string text;
  while (text.size() < bytes) pick(random, &text);
  return text;
}

std::string RandomOf(const std::vector<std::string>& pieces, size_t bytes) {
  return Random(bytes, [&](std::mt19937& random, std::string* text) { *text += pieces[random() % pieces.size()]; });
}

std::vector<Input> Inputs() {
  const auto repeated = [](const std::string& piece) {
    return [piece](size_t bytes) { return Repeated(piece, bytes); };
  };
  const auto random_of = [](const std::vector<std::string>& pieces) {
    return [pieces](size_t bytes) { return RandomOf(pieces, bytes); };
  };
  return {
      {"prose", repeated("Once upon a time there was a young boy named Leo. He said: \"It's 1,234 km!\"\n\n")},
      {"spaces", repeated(" ")},
      {"line breaks", repeated("\n")},
      {"spaces, line breaks", random_of({" ", "\n", "\t", "\r\n", "  "})},
      {"one letter", repeated("a")},
      {"two letters", random_of({"a", "b"})},
      {"letters",
       [](size_t bytes) {
         return Random(
             bytes, [](std::mt19937& random, std::string* text) { *text += static_cast<char>('a' + random() % 26); });
       }},
      {"one digit", repeated("0")},
      {"digits", random_of({"0", "1", "7", "9"})},
      {"one sign", repeated("=")},
      {"signs", random_of({"!", "-", "/", "(", "\"", "'", "\\", "{"})},
      {"apostrophes", repeated("'s")},
      {"combining marks", repeated("\xCC\x81")},
      {"letter and marks", repeated("e\xCC\x81\xCC\xA3")},
      {"emoji", repeated("\xF0\x9F\x98\x80")},
      {"joined emoji", repeated("\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB")},
      {"Chinese", random_of({"\xE6\x97\xA5", "\xE6\x9C\xAC", "\xE8\xAA\x9E", "\xE7\x9A\x84"})},
      {"Hangul parts", repeated("\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB")},
      {"rare characters", repeated("\xF4\x8F\xBF\xBD")},
  };
}

double SecondsToEncode(const Tokenizer& tokenizer, const std::string& text, int times) {
  const double start = Seconds();
  for (int i = 0; i < times; ++i) CADRE_CHECK(tokenizer.Encode(text).ok());
  return (Seconds() - start) / times;
}

double BestSeconds(const Tokenizer& tokenizer, const std::string& text, int times) {
  double best = 1e9;
  for (int i = 0; i < 3; ++i) best = std::min(best, SecondsToEncode(tokenizer, text, times));
  return best;
}

// t(2n) / t(n), the mean of the three doublings from n = `bytes`.
double RatioOfDoubling(const Tokenizer& tokenizer, const Input& input, size_t bytes) {
  constexpr int kGrowth = 8;
  const std::string small = input.make(bytes);
  const std::string large = input.make(kGrowth * bytes);
  std::vector<double> ratios;
  for (int i = 0; i < 5; ++i) {
    const double seconds = SecondsToEncode(tokenizer, small, kGrowth);
    ratios.push_back(SecondsToEncode(tokenizer, large, 1) / seconds);
  }
  std::nth_element(ratios.begin(), ratios.begin() + 2, ratios.end());
  return std::cbrt(ratios[2]);
}

struct Cost {
  double megabytes_per_second;
  double ratio;  // t(2n) / t(n)
};

Cost Measure(const Tokenizer& tokenizer, const Input& input, size_t bytes, bool with_ratios) {
  const double seconds = BestSeconds(tokenizer, input.make(bytes), 1);
  return {.megabytes_per_second = static_cast<double>(bytes) / seconds / 1e6,
          .ratio = with_ratios ? RatioOfDoubling(tokenizer, input, bytes) : 0.0};
}

void PrintCurve(const Tokenizer& tokenizer, const Input& input) {
  std::printf("    ns a byte of %s, by KiB:", input.name);
  for (size_t kib = 1; kib <= 1024; kib *= 4) {
    const double seconds = BestSeconds(tokenizer, input.make(kib << 10), static_cast<int>(1024 / kib));
    std::printf(" %zu: %.0f", kib, seconds / static_cast<double>(kib << 10) * 1e9);
  }
  std::printf("\n");
}

std::vector<std::string> CommittedTokenizers() {
  std::vector<std::string> folders = {"models/demo"};
  for (const auto& entry : std::filesystem::directory_iterator("tests/golden/tokenizers")) {
    if (entry.is_directory()) folders.push_back(entry.path().string());
  }
  std::sort(folders.begin() + 1, folders.end());
  return folders;
}

void Run(const std::vector<std::string>& folders, size_t bytes, bool with_ratios, bool with_curve) {
  const std::vector<Input> inputs = Inputs();
  for (const std::string& folder : folders) {
    const auto tokenizer = Tokenizer::Load(folder);
    CADRE_CHECK(tokenizer.ok());
    Cost slowest{.megabytes_per_second = 1e9, .ratio = 0.0};
    Cost steepest = slowest;
    const Input* slowest_input = &inputs.front();
    const Input* steepest_input = &inputs.front();
    double prose = 0.0;
    for (const Input& input : inputs) {
      const Cost cost = Measure(**tokenizer, input, bytes, with_ratios);
      if (&input == &inputs.front()) prose = cost.megabytes_per_second;
      if (cost.megabytes_per_second < slowest.megabytes_per_second) {
        slowest = cost;
        slowest_input = &input;
      }
      if (cost.ratio > steepest.ratio) {
        steepest = cost;
        steepest_input = &input;
      }
    }
    std::printf("%-40s prose %6.1f MB/s, slowest %6.2f MB/s (%s)", folder.c_str(), prose, slowest.megabytes_per_second,
                slowest_input->name);
    if (with_ratios) std::printf(", worst t(2n)/t(n) %.2f (%s)", steepest.ratio, steepest_input->name);
    std::printf("\n");
    if (with_curve) PrintCurve(**tokenizer, *slowest_input);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace cadre

int main(int argc, char** argv) {
  CLI::App app("what tokenizing costs");
  std::size_t bytes = 128 << 10;
  bool with_ratios = false;
  bool with_curve = false;
  std::vector<std::string> folders;
  app.add_option("--bytes", bytes, "bytes of the shortest text");
  app.add_flag("--ratios", with_ratios, "measure texts of eight times the size, too");
  app.add_flag("--curve", with_curve, "measure the slowest text in sizes from 1 KiB to 1 MiB, too");
  app.add_option("folders", folders, "folders with tokenizer.json (default: those of this repository)");
  CLI11_PARSE(app, argc, argv);
  cadre::Run(folders.empty() ? cadre::CommittedTokenizers() : folders, bytes, with_ratios, with_curve);
  return 0;
}
