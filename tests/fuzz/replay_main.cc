// Runs a fuzz target without a fuzzer, so that each target is also a regression test: over every file of the given
// folders, and over a bounded number of mutations of each. Everything is deterministic.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
// Of targets that know the structure of their input; null for others.
extern "C" __attribute__((weak)) std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                                                     std::size_t max_size, unsigned int seed);

namespace {

constexpr int kNumTruncations = 64;                // of each seed, evenly spread
constexpr int kNumByteFlips = 256;                 // of each seed, one to four bytes each
constexpr int kNumSplices = 32;                    // of each seed, with a part of itself repeated or removed
constexpr int kNumCustomMutants = 512;             // of each seed, one made from the other
constexpr int kNumGenerations = 16;                // before the seed is taken again
constexpr std::size_t kMaxMutatedBytes = 1 << 16;  // longer seeds are run as they are, and truncated only

void Run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
}

int RunTruncations(const std::string& seed) {
  const std::size_t num_runs = std::min<std::size_t>(kNumTruncations, seed.size());
  for (std::size_t i = 0; i < num_runs; ++i) Run(seed.substr(0, seed.size() * i / num_runs));
  return static_cast<int>(num_runs);
}

int RunByteFlips(const std::string& seed, std::mt19937* random) {
  for (int i = 0; i < kNumByteFlips; ++i) {
    std::string mutant = seed;
    const unsigned num_flips = 1 + (*random)() % 4;
    for (unsigned flip = 0; flip < num_flips; ++flip) {
      mutant[(*random)() % mutant.size()] = static_cast<char>((*random)());
    }
    Run(mutant);
  }
  return kNumByteFlips;
}

int RunSplices(const std::string& seed, std::mt19937* random) {
  for (int i = 0; i < kNumSplices; ++i) {
    const std::size_t begin = (*random)() % seed.size();
    const std::size_t size = 1 + (*random)() % std::min<std::size_t>(64, seed.size() - begin);
    std::string mutant = seed;
    if (i % 2 == 0) {
      mutant.erase(begin, size);
    } else {
      mutant.insert((*random)() % seed.size(), seed, begin, size);
    }
    Run(mutant);
  }
  return kNumSplices;
}

int RunCustomMutants(const std::string& seed, std::mt19937* random) {
  if (LLVMFuzzerCustomMutator == nullptr) return 0;
  std::vector<std::uint8_t> mutant;
  for (int i = 0; i < kNumCustomMutants; ++i) {
    if (i % kNumGenerations == 0) mutant.assign(seed.begin(), seed.end());
    std::size_t size = mutant.size();
    mutant.resize(kMaxMutatedBytes);
    size = LLVMFuzzerCustomMutator(mutant.data(), size, mutant.size(), static_cast<unsigned>((*random)()));
    mutant.resize(size);
    LLVMFuzzerTestOneInput(mutant.data(), mutant.size());
  }
  return kNumCustomMutants;
}

std::vector<std::filesystem::path> FilesOf(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

int main(int argc, char** argv) {
  int num_runs = 0;
  int num_seeds = 0;
  for (int i = 1; i < argc; ++i) {
    for (const std::filesystem::path& path : FilesOf(argv[i])) {
      std::ifstream file(path, std::ios::binary);
      const std::string seed{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
      // Named before it runs: after a crash the last line says which seed it was.
      std::printf("%s\n", path.c_str());
      std::fflush(stdout);
      Run(seed);
      ++num_seeds;
      num_runs += 1 + RunTruncations(seed);
      if (seed.empty() || seed.size() > kMaxMutatedBytes) continue;
      std::mt19937 random(static_cast<unsigned>(seed.size()));
      num_runs += RunByteFlips(seed, &random) + RunSplices(seed, &random) + RunCustomMutants(seed, &random);
    }
  }
  std::printf("%d seeds, %d runs\n", num_seeds, num_runs);
  if (num_seeds == 0) std::fprintf(stderr, "no seeds found\n");
  return num_seeds == 0 ? 1 : 0;
}
