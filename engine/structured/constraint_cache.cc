#include "engine/structured/constraint_cache.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace cadre {
namespace {

constexpr int64_t kEntryOverheadBytes = 256;

std::string KeyOf(ConstraintCache::Kind kind, const std::vector<std::string>& texts) {
  std::string key = absl::StrCat(static_cast<int>(kind));
  for (const std::string& text : texts) absl::StrAppend(&key, ":", text.size(), ":", text);
  return key;
}

bool IsReady(const std::shared_future<CompiledConstraint>& constraint) {
  return constraint.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

}  // namespace

ConstraintCache::ConstraintCache(VocabularyMaker make_vocabulary, Limits limits)
    : make_vocabulary_(std::move(make_vocabulary)), limits_(limits), vocabulary_(absl::UnknownError("not made yet")) {}

CompiledConstraint ConstraintCache::Get(Kind kind, const std::vector<std::string>& texts) {
  std::string key = KeyOf(kind, texts);
  std::promise<CompiledConstraint> promise;
  std::shared_future<CompiledConstraint> constraint;
  bool is_mine = false;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = by_key_.find(key); found != by_key_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      constraint = found->second->constraint;
      ++stats_.num_hits;
    } else {
      is_mine = true;
      constraint = promise.get_future().share();
      entries_.push_front({key, constraint, 0});
      by_key_[std::move(key)] = entries_.begin();
      ++stats_.num_compiled;
    }
  }
  if (is_mine) {
    promise.set_value(Compile(kind, texts));
    const std::lock_guard lock(mutex_);
    MakeRoom({.max_bytes = max_bytes_, .max_entries = limits_.max_entries});
  }
  return constraint.get();
}

CompiledConstraint ConstraintCache::Compile(Kind kind, const std::vector<std::string>& texts) {
  CADRE_ASSIGN_OR_RETURN(std::shared_ptr<const TokenVocabulary> vocabulary, Vocabulary());
  switch (kind) {
    case Kind::kJsonSchema:
      return ConstrainToJsonSchema(texts.at(0), std::move(vocabulary));
    case Kind::kRegex:
      return ConstrainToRegex(texts.at(0), std::move(vocabulary));
    default:
      return ConstrainToChoices(texts, std::move(vocabulary));
  }
}

absl::StatusOr<std::shared_ptr<const TokenVocabulary>> ConstraintCache::Vocabulary() {
  std::call_once(vocabulary_once_, [this] { vocabulary_ = make_vocabulary_(); });
  return vocabulary_;
}

void ConstraintCache::MakeRoom(const Limits& limits) {
  int64_t num_bytes = 0;
  for (Entry& entry : entries_) {
    entry.num_bytes = kEntryOverheadBytes + 2 * std::ssize(entry.key);
    if (IsReady(entry.constraint) && entry.constraint.get().ok()) {
      entry.num_bytes += (*entry.constraint.get())->memory_bytes();
    }
    num_bytes += entry.num_bytes;
  }
  // One that is still being compiled stays: those who wait for it would compile it again.
  for (auto entry = entries_.end(); entry != entries_.begin();) {
    --entry;
    const bool is_full = num_bytes > limits.max_bytes || entries_.size() > limits.max_entries;
    if (!is_full) break;
    if (!IsReady(entry->constraint)) continue;
    num_bytes -= entry->num_bytes;
    by_key_.erase(entry->key);
    entry = entries_.erase(entry);
  }
  stats_.num_bytes = num_bytes;
  stats_.num_entries = std::ssize(entries_);
}

void ConstraintCache::SetMaxBytes(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  max_bytes_ = std::min(bytes, limits_.max_bytes);
  if (stats_.num_bytes > max_bytes_) MakeRoom({.max_bytes = max_bytes_, .max_entries = limits_.max_entries});
}

void ConstraintCache::Clear() {
  const std::lock_guard lock(mutex_);
  MakeRoom({.max_bytes = 0, .max_entries = 0});
}

ConstraintCache::Stats ConstraintCache::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace cadre
