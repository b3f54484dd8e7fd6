// What the KV blocks contain: which of them hold the keys and values of a prompt's beginning that was seen before.
#ifndef CADRE_ENGINE_SCHEDULE_PREFIX_CACHE_H_
#define CADRE_ENGINE_SCHEDULE_PREFIX_CACHE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "engine/request/sequence.h"
#include "engine/schedule/block_pool.h"

namespace cadre {

struct PrefixCacheOptions {
  int32_t block_size = 16;  // B, tokens
  // Whether blocks that nobody holds are kept for later. Without it, sequences share what is in use, and no more.
  bool keeps_idle = true;
  uint64_t key_seed = 0;  // makes the keys unpredictable; has no influence on what is found
  int32_t key_bits = 64;  // fewer make keys collide, in tests
};

// The names under which a sequence's blocks are known: one key for each full block, chained, so that a key stands for
// all tokens up to the block's end.
struct PrefixChain {
  std::shared_ptr<const std::string> domain;  // null: shares nothing
  std::vector<uint64_t> keys;                 // of the leading full blocks
  int32_t num_entered = 0;                    // leading blocks of the block table that are, or were, in the cache
};

// A forest of full blocks. A block's entry says: after the tokens of its parent's chain, in this domain, these B tokens
// come, and their keys and values are here. It is found by key and believed only when domain, parent and tokens are the
// same, so that a collision costs time and nothing else.
//
//   whoever holds a block holds its parent     because a sequence enters its blocks in order, and exchanges a block
//   that
//                                              the cache has already for the cache's own
//   children are idle before their parents     because blocks are released from the last to the first
//
// So the block that has been idle for the longest time is always a leaf, and evicting it cuts no chain.
//
// A pure single-threaded state machine.
class PrefixCache {
 public:
  // `pool` must outlive the cache. From now on blocks are released through the cache.
  PrefixCache(const PrefixCacheOptions& options, BlockPool* pool);

  PrefixChain MakeChain(std::string_view domain) const;
  // Adds the keys of full blocks of known tokens that the chain lacks.
  void ExtendChain(std::span<const int32_t> tokens, PrefixChain* chain) const;

  // The longest run of leading blocks in the cache, in order, but never the last known token: its row must run, because
  // its logits choose the next one. Changes nothing. REQUIRES: the chain is extended to the sequence's tokens.
  std::vector<int32_t> Find(const Sequence& sequence, const PrefixChain& chain) const;
  // Enters the full blocks that `sequence` has computed, which must be sound, in runs of what was computed together:
  // what they hold depends on all tokens of the run, so a run is in the cache as a whole or not at all. A block whose
  // contents are in the cache already is exchanged for that one, bit for bit the same. A block that is not usable any
  // more enters no more, and neither does what stands on it.
  void Enter(Sequence* sequence, PrefixChain* chain);

  // One holder more for each of `blocks`, which Find returned.
  void Hold(std::span<const int32_t> blocks);
  // Takes `count` blocks, evicting idle ones as needed. REQUIRES: count <= the pool's num_available().
  std::vector<int32_t> Allocate(int32_t count);
  // One holder fewer for each block of a block table.
  void Release(std::span<const int32_t> block_table);
  // Gives up every idle block.
  void EvictIdle();
  // As BlockPool::SetUsable. Gives up what the others contain, with all that stands on it; what is in use of them is
  // found by nobody any more.
  void SetUsableBlocks(int32_t count);
  // Removes the entries of `blocks` and of all that stand on them: their contents are not to be trusted. Returns those
  // that are free now.
  std::vector<int32_t> Forget(std::span<const int32_t> blocks);

  int64_t num_evictions() const { return num_evictions_; }  // entries given up for room
  int32_t num_entries() const { return num_entries_; }

  // INTERNAL names the first broken rule of the forest: entries and kept blocks are the same, parents have entries, at
  // least as many holders and a later place among the idle, and every entry is found under its key.
  absl::Status Audit() const;

 private:
  static constexpr int32_t kNone = -1;
  struct Entry {
    bool is_used = false;
    uint64_t key = 0;
    int32_t parent = kNone;                     // a block; kNone at the root
    std::shared_ptr<const std::string> domain;  // of a root
    int32_t num_children = 0;
    int32_t next_with_key = kNone;
  };

  // The blocks [begin, end) of the sequence that are in the cache behind `parent`, up to the first that is not.
  std::vector<int32_t> FindRun(const Sequence& sequence, const PrefixChain& chain, size_t begin, size_t end,
                               int32_t parent) const;
  uint64_t NextKey(uint64_t key, std::span<const int32_t> tokens) const;
  uint64_t Truncate(uint64_t key) const;
  int32_t Lookup(uint64_t key, int32_t parent, const std::string& domain, std::span<const int32_t> tokens) const;
  void Insert(int32_t block, uint64_t key, int32_t parent, const std::shared_ptr<const std::string>& domain,
              std::span<const int32_t> tokens);
  void Remove(int32_t block);
  void EvictOldest();
  bool AreUsable(std::span<const int32_t> blocks) const;
  absl::Status AuditEntry(int32_t block, std::span<const int32_t> idle_order) const;
  std::span<const int32_t> TokensOf(int32_t block) const;
  Entry& entry(int32_t block) { return entries_[static_cast<size_t>(block)]; }
  const Entry& entry(int32_t block) const { return entries_[static_cast<size_t>(block)]; }

  const PrefixCacheOptions options_;
  BlockPool* const pool_;
  std::vector<Entry> entries_;   // [num_blocks]
  std::vector<int32_t> tokens_;  // [num_blocks, B]
  absl::flat_hash_map<uint64_t, int32_t> first_with_key_;
  int32_t num_entries_ = 0;
  int64_t num_evictions_ = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_SCHEDULE_PREFIX_CACHE_H_
