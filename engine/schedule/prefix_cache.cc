#include "engine/schedule/prefix_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace cadre {

PrefixCache::PrefixCache(const PrefixCacheOptions& options, BlockPool* pool) : options_(options), pool_(pool) {
  CADRE_CHECK_GE(options.block_size, 1);
  CADRE_CHECK(options.key_bits >= 1 && options.key_bits <= 64);
  const auto num_blocks = static_cast<size_t>(pool->num_total());
  entries_.resize(num_blocks);
  tokens_.resize(num_blocks * static_cast<size_t>(options.block_size));
}

uint64_t PrefixCache::Truncate(uint64_t key) const { return key >> (64 - options_.key_bits); }

uint64_t PrefixCache::NextKey(uint64_t key, std::span<const int32_t> tokens) const {
  return Truncate(XXH3_64bits_withSeed(tokens.data(), tokens.size_bytes(), key));
}

PrefixChain PrefixCache::MakeChain(std::string_view domain) const {
  PrefixChain chain;
  if (!domain.empty()) chain.domain = std::make_shared<const std::string>(domain);
  return chain;
}

void PrefixCache::ExtendChain(std::span<const int32_t> tokens, PrefixChain* chain) const {
  if (chain->domain == nullptr) return;
  const auto block_size = static_cast<size_t>(options_.block_size);
  const std::string& domain = *chain->domain;
  for (size_t i = chain->keys.size(); i < tokens.size() / block_size; ++i) {
    const uint64_t before =
        i > 0 ? chain->keys.back() : Truncate(XXH3_64bits_withSeed(domain.data(), domain.size(), options_.key_seed));
    chain->keys.push_back(NextKey(before, tokens.subspan(i * block_size, block_size)));
  }
}

std::vector<int32_t> PrefixCache::Find(const Sequence& sequence, const PrefixChain& chain) const {
  if (chain.domain == nullptr) return {};
  const auto block_size = static_cast<size_t>(options_.block_size);
  const size_t limit = static_cast<size_t>(sequence.num_tokens() - 1) / block_size;
  CADRE_CHECK_GE(chain.keys.size(), limit);
  return FindRun(sequence, chain, 0, limit, kNone);
}

std::vector<int32_t> PrefixCache::FindRun(const Sequence& sequence, const PrefixChain& chain, size_t begin, size_t end,
                                          int32_t parent) const {
  const auto block_size = static_cast<size_t>(options_.block_size);
  std::vector<int32_t> blocks;
  for (size_t i = begin; i < end; ++i) {
    parent = Lookup(chain.keys[i], parent, *chain.domain, sequence.tokens().subspan(i * block_size, block_size));
    if (parent == kNone) break;
    blocks.push_back(parent);
  }
  return blocks;
}

void PrefixCache::Enter(Sequence* sequence, PrefixChain* chain) {
  if (chain->domain == nullptr) return;
  const auto block_size = static_cast<size_t>(options_.block_size);
  const auto run = static_cast<size_t>(sequence->tokens_computed_together(options_.block_size)) / block_size;
  const int32_t num_tokens = std::min(sequence->num_computed_tokens(), sequence->num_shareable_tokens());
  const auto num_full = static_cast<size_t>(num_tokens) / block_size / run * run;
  CADRE_CHECK_GE(chain->keys.size(), num_full);
  for (auto i = static_cast<size_t>(chain->num_entered); i < num_full; i += run) {
    const int32_t parent = i == 0 ? kNone : sequence->block_table()[i - 1];
    if (parent != kNone && !entry(parent).is_used) return;  // forgotten since: what stands on it has no name
    const std::vector<int32_t> known = FindRun(*sequence, *chain, i, i + run, parent);
    // The first blocks are of a run that goes on otherwise, so their contents are others, too: there is no name left.
    if (!known.empty() && known.size() < run) return;
    if (known.empty() && !AreUsable(std::span(sequence->block_table()).subspan(i, run))) return;
    for (size_t k = i; k < i + run; ++k) {
      const int32_t block = sequence->block_table()[k];
      if (known.empty()) {
        Insert(block, chain->keys[k], k == 0 ? kNone : sequence->block_table()[k - 1], chain->domain,
               sequence->tokens().subspan(k * block_size, block_size));
      } else if (known[k - i] != block) {
        pool_->AddHolder(known[k - i]);
        pool_->Release(block);
        sequence->ReplaceBlock(static_cast<int32_t>(k), known[k - i]);
      }
    }
    chain->num_entered += static_cast<int32_t>(run);
  }
}

void PrefixCache::Hold(std::span<const int32_t> blocks) {
  for (int32_t block : blocks) pool_->AddHolder(block);
}

std::vector<int32_t> PrefixCache::Allocate(int32_t count) {
  while (pool_->num_free() < count) EvictOldest();
  return pool_->Allocate(count);
}

void PrefixCache::EvictIdle() {
  while (pool_->num_idle() > 0) EvictOldest();
}

bool PrefixCache::AreUsable(std::span<const int32_t> blocks) const {
  return std::ranges::all_of(blocks, [this](int32_t block) { return pool_->is_usable(block); });
}

void PrefixCache::SetUsableBlocks(int32_t count) {
  std::vector<int32_t> going;
  for (int32_t block = count; block < pool_->num_total(); ++block) {
    if (entry(block).is_used) going.push_back(block);
  }
  const int32_t before = num_entries_;
  if (!going.empty()) Forget(going);
  num_evictions_ += before - num_entries_;
  pool_->SetUsable(count);
}

void PrefixCache::EvictOldest() {
  const int32_t block = pool_->OldestIdle();
  CADRE_CHECK_EQ(entry(block).num_children, 0);
  Remove(block);
  ++num_evictions_;
}

void PrefixCache::Release(std::span<const int32_t> block_table) {
  for (size_t i = block_table.size(); i-- > 0;) {
    pool_->Release(block_table[i]);
    if (!options_.keeps_idle && pool_->is_idle(block_table[i])) Remove(block_table[i]);
  }
}

std::vector<int32_t> PrefixCache::Forget(std::span<const int32_t> blocks) {
  enum class Verdict : int8_t { kUnknown, kStays, kGoes };
  std::vector<Verdict> verdicts(entries_.size(), Verdict::kUnknown);
  for (int32_t block : blocks) verdicts[static_cast<size_t>(block)] = Verdict::kGoes;
  std::vector<int32_t> path;
  for (int32_t leaf = 0; leaf < pool_->num_total(); ++leaf) {
    path.clear();
    int32_t block = leaf;
    while (block != kNone && verdicts[static_cast<size_t>(block)] == Verdict::kUnknown) {
      path.push_back(block);
      block = entry(block).is_used ? entry(block).parent : kNone;
    }
    const Verdict verdict = block == kNone ? Verdict::kStays : verdicts[static_cast<size_t>(block)];
    for (int32_t passed : path) verdicts[static_cast<size_t>(passed)] = verdict;
  }
  std::vector<int32_t> freed;
  for (int32_t block = 0; block < pool_->num_total(); ++block) {
    if (verdicts[static_cast<size_t>(block)] != Verdict::kGoes) continue;
    if (entry(block).is_used) Remove(block);
    if (pool_->ref_count(block) == 0) freed.push_back(block);
  }
  return freed;
}

int32_t PrefixCache::Lookup(uint64_t key, int32_t parent, const std::string& domain,
                            std::span<const int32_t> tokens) const {
  const auto it = first_with_key_.find(key);
  for (int32_t block = it == first_with_key_.end() ? kNone : it->second; block != kNone;
       block = entry(block).next_with_key) {
    const Entry& candidate = entry(block);
    if (candidate.parent == parent && std::ranges::equal(TokensOf(block), tokens) &&
        (parent != kNone || *candidate.domain == domain)) {
      return block;
    }
  }
  return kNone;
}

void PrefixCache::Insert(int32_t block, uint64_t key, int32_t parent, const std::shared_ptr<const std::string>& domain,
                         std::span<const int32_t> tokens) {
  const auto [it, is_first] = first_with_key_.try_emplace(key, kNone);
  entry(block) = {.is_used = true,
                  .key = key,
                  .parent = parent,
                  .domain = parent == kNone ? domain : nullptr,
                  .num_children = 0,
                  .next_with_key = it->second};
  it->second = block;
  if (parent != kNone) ++entry(parent).num_children;
  std::ranges::copy(tokens, tokens_.begin() + static_cast<std::ptrdiff_t>(block) * options_.block_size);
  pool_->Keep(block);
  ++num_entries_;
}

void PrefixCache::Remove(int32_t block) {
  const Entry removed = std::exchange(entry(block), {});
  CADRE_CHECK(removed.is_used);
  const auto it = first_with_key_.find(removed.key);
  CADRE_CHECK(it != first_with_key_.end());
  int32_t* link = &it->second;
  while (*link != block) link = &entry(*link).next_with_key;
  *link = removed.next_with_key;
  if (it->second == kNone) first_with_key_.erase(it);
  if (removed.parent != kNone && entry(removed.parent).is_used) --entry(removed.parent).num_children;
  pool_->Forget(block);
  --num_entries_;
}

std::span<const int32_t> PrefixCache::TokensOf(int32_t block) const {
  const auto block_size = static_cast<size_t>(options_.block_size);
  return std::span(tokens_).subspan(static_cast<size_t>(block) * block_size, block_size);
}

absl::Status PrefixCache::Audit() const {
  std::vector<int32_t> idle_order(entries_.size(), pool_->num_total());  // in use: after all idle ones
  const std::vector<int32_t> idle = pool_->IdleBlocks();
  for (size_t i = 0; i < idle.size(); ++i) idle_order[static_cast<size_t>(idle[i])] = static_cast<int32_t>(i);
  std::vector<int32_t> num_children(entries_.size(), 0);
  int32_t num_used = 0;
  for (int32_t block = 0; block < pool_->num_total(); ++block) {
    if (entry(block).is_used != pool_->is_kept(block)) {
      return absl::InternalError(absl::StrCat("block ", block, " has an entry or is kept, but not both"));
    }
    if (!entry(block).is_used) continue;
    ++num_used;
    CADRE_RETURN_IF_ERROR(AuditEntry(block, idle_order));
    if (const int32_t parent = entry(block).parent; parent != kNone) ++num_children[static_cast<size_t>(parent)];
  }
  if (num_used != num_entries_) {
    return absl::InternalError(absl::StrCat(num_used, " entries, ", num_entries_, " are counted"));
  }
  for (int32_t block = 0; block < pool_->num_total(); ++block) {
    if (entry(block).num_children != num_children[static_cast<size_t>(block)]) {
      return absl::InternalError(absl::StrCat("block ", block, " counts ", entry(block).num_children, " children, has ",
                                              num_children[static_cast<size_t>(block)]));
    }
  }
  return absl::OkStatus();
}

absl::Status PrefixCache::AuditEntry(int32_t block, std::span<const int32_t> idle_order) const {
  const Entry& audited = entry(block);
  const int32_t parent = audited.parent;
  if (parent != kNone) {
    if (!entry(parent).is_used)
      return absl::InternalError(absl::StrCat("the parent of block ", block, " has no entry"));
    if (pool_->ref_count(parent) < pool_->ref_count(block)) {
      return absl::InternalError(absl::StrCat("block ", block, " has ", pool_->ref_count(block),
                                              " holders, its parent has ", pool_->ref_count(parent)));
    }
    if (pool_->is_idle(parent) && idle_order[static_cast<size_t>(parent)] <= idle_order[static_cast<size_t>(block)]) {
      return absl::InternalError(absl::StrCat("block ", block, " would be evicted after its parent ", parent));
    }
  } else if (audited.domain == nullptr) {
    return absl::InternalError(absl::StrCat("the root block ", block, " has no domain"));
  }
  const std::string no_domain;
  const std::string& domain = parent == kNone ? *audited.domain : no_domain;
  if (Lookup(audited.key, parent, domain, TokensOf(block)) != block) {
    return absl::InternalError(absl::StrCat("block ", block, " is not what its key finds"));
  }
  return absl::OkStatus();
}

}  // namespace cadre
