// Bytes are operations on the block pool and the prefix cache, without a scheduler between them: sequences take, share,
// grow, give back and fail in any order. After each one the audits hold, every count is the number of tables that a
// block stands in, and what is found is what was written.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <list>
#include <span>
#include <vector>

#include "engine/schedule/prefix_cache.h"

namespace cadre {
namespace {

constexpr int kMaxOperations = 3000;
constexpr size_t kMaxSequences = 12;

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void Require(const absl::Status& status) {
  if (!status.ok()) Fail(status.ToString().c_str());
}

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return position_ >= size_; }
  int32_t Next() { return empty() ? 0 : data_[position_++]; }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t position_ = 0;
};

class Allocator {
 public:
  Allocator(int32_t num_blocks, const PrefixCacheOptions& options)
      : block_size_(options.block_size),
        pool_(num_blocks),
        cache_(options, &pool_),
        contents_(static_cast<size_t>(num_blocks)) {}

  // A prompt of a few letters, so that prompts begin alike.
  void Start(Bytes& bytes) {
    if (live_.size() >= kMaxSequences) return;
    std::vector<int32_t> prompt(static_cast<size_t>(1 + bytes.Next() % 40));
    const int32_t letters = 1 + bytes.Next() % 3;
    int32_t seed = bytes.Next();
    for (int32_t& token : prompt) {
      seed = seed * 5 % 251 + 1;
      token = seed % letters;
    }
    static constexpr const char* kDomains[] = {"a", "b", ""};
    Live live{Sequence(next_id_++, std::move(prompt)), cache_.MakeChain(kDomains[bytes.Next() % 3])};
    cache_.ExtendChain(live.sequence.tokens(), &live.chain);
    const std::vector<int32_t> found = cache_.Find(live.sequence, live.chain);
    const int32_t needed = BlocksFor(live.sequence.num_tokens()) - static_cast<int32_t>(found.size());
    cache_.Hold(found);
    if (needed > pool_.num_available()) {
      cache_.Release(found);
      return;
    }
    live.sequence.Resume(static_cast<int32_t>(found.size()) * block_size_, found);
    live.chain.num_entered = static_cast<int32_t>(found.size());
    live_.push_back(std::move(live));
    Run(live_.back());
  }

  void Grow(Bytes& bytes) {
    Live* live = Pick(bytes);
    if (live == nullptr) return;
    const int32_t needed = BlocksFor(live->sequence.num_tokens() + 1) - BlocksFor(live->sequence.num_tokens());
    if (live->sequence.num_uncomputed_tokens() > 0 || needed > pool_.num_available()) return;
    live->sequence.AppendToken(bytes.Next() % 3);
    cache_.ExtendChain(live->sequence.tokens(), &live->chain);
    Run(*live);
  }

  void Enter(Bytes& bytes) {
    if (Live* live = Pick(bytes)) cache_.Enter(&live->sequence, &live->chain);
  }

  void End(Bytes& bytes, bool is_sound) {
    Live* live = Pick(bytes);
    if (live == nullptr) return;
    const std::vector<int32_t> table = live->sequence.Finish();
    cache_.Release(table);
    if (!is_sound) {
      for (int32_t block : cache_.Forget(table)) contents_[static_cast<size_t>(block)].clear();
    }
    live_.remove_if([live](const Live& other) { return &other == live; });
  }

  void Audit() const {
    Require(pool_.Audit());
    Require(cache_.Audit());
    std::vector<int32_t> counts(contents_.size(), 0);
    for (const Live& live : live_) {
      const std::vector<int32_t>& table = live.sequence.block_table();
      for (size_t i = 0; i < table.size(); ++i) {
        ++counts[static_cast<size_t>(table[i])];
        const size_t end = std::min((i + 1) * static_cast<size_t>(block_size_),
                                    static_cast<size_t>(live.sequence.num_computed_tokens()));
        const std::span<const int32_t> history = live.sequence.tokens().first(end);
        const std::vector<int32_t>& written = contents_[static_cast<size_t>(table[i])];
        if (!std::ranges::equal(written, history)) Fail("a block holds another history");
      }
    }
    for (int32_t block = 0; block < pool_.num_total(); ++block) {
      if (counts[static_cast<size_t>(block)] != pool_.ref_count(block)) Fail("a count is not the number of tables");
    }
  }

  void EndAll() {
    Bytes none(nullptr, 0);
    while (!live_.empty()) End(none, true);
    Audit();
    if (pool_.num_in_use() != 0) Fail("blocks are in use at the end");
  }

 private:
  struct Live {
    Sequence sequence;
    PrefixChain chain;
  };

  int32_t BlocksFor(int32_t num_tokens) const { return (num_tokens + block_size_ - 1) / block_size_; }

  Live* Pick(Bytes& bytes) {
    if (live_.empty()) return nullptr;
    return &*std::next(live_.begin(), static_cast<std::ptrdiff_t>(static_cast<size_t>(bytes.Next()) % live_.size()));
  }

  // Computes what is left: each row writes what the block holds up to there.
  void Run(Live& live) {
    Sequence& sequence = live.sequence;
    const int32_t begin = sequence.num_computed_tokens();
    const int32_t missing = BlocksFor(sequence.num_tokens()) - static_cast<int32_t>(sequence.block_table().size());
    sequence.Schedule(sequence.num_uncomputed_tokens(), cache_.Allocate(missing));
    for (int32_t position = begin; position < sequence.num_tokens(); ++position) {
      const int32_t block = sequence.block_table()[static_cast<size_t>(position / block_size_)];
      if (pool_.ref_count(block) != 1) Fail("a shared block is written");
      const auto history = sequence.tokens().first(static_cast<size_t>(position) + 1);
      contents_[static_cast<size_t>(block)].assign(history.begin(), history.end());
    }
    sequence.Advance();
  }

  const int32_t block_size_;
  BlockPool pool_;
  PrefixCache cache_;
  std::vector<std::vector<int32_t>> contents_;  // of each block: the whole history at its last row
  std::list<Live> live_;
  SequenceId next_id_ = 0;
};

}  // namespace
}  // namespace cadre

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  cadre::Bytes bytes(data, size);
  const int32_t num_blocks = 1 + bytes.Next() % 40;
  const int32_t options = bytes.Next();
  cadre::Allocator allocator(
      num_blocks,
      {.block_size = 1 + options % 5, .keeps_idle = options / 8 % 4 != 3, .key_bits = options / 32 % 2 == 0 ? 64 : 2});
  for (int i = 0; i < cadre::kMaxOperations && !bytes.empty(); ++i) {
    switch (bytes.Next() % 8) {
      case 0:
      case 1:
      case 2:
        allocator.Start(bytes);
        break;
      case 3:
        allocator.Grow(bytes);
        break;
      case 4:
      case 5:
        allocator.Enter(bytes);
        break;
      case 6:
        allocator.End(bytes, true);
        break;
      default:
        allocator.End(bytes, bytes.Next() % 4 != 0);
        break;
    }
    allocator.Audit();
  }
  allocator.EndAll();
  return 0;
}
