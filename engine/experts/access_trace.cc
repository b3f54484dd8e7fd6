#include "engine/experts/access_trace.h"

#include <algorithm>
#include <limits>

#include "engine/base/check.h"

namespace cadre {
namespace {

constexpr int64_t kMaxWord = std::numeric_limits<uint16_t>::max();

bool IsLater(const LayerTime& now, const LayerTime& before) {
  return now.step != before.step ? now.step > before.step : now.layer > before.layer;
}

size_t CountWords(const AccessTraceOptions& options) {
  CADRE_CHECK_GE(options.max_bytes, 0);
  return static_cast<size_t>(options.max_bytes) / sizeof(uint16_t);
}

void CheckGroup(const LayerTime& now, std::span<const ExpertId> needed, int64_t num_layers, int64_t num_experts) {
  CADRE_CHECK_GE(now.layer, 0);
  CADRE_CHECK_LT(now.layer, num_layers);
  int64_t least = now.layer * num_experts;
  for (const ExpertId expert : needed) {
    CADRE_CHECK_GE(expert, least);
    least = int64_t{expert} + 1;
  }
  CADRE_CHECK_LE(least, (now.layer + 1) * num_experts);
}

}  // namespace

void AccessLog::Append(const LayerTime& now, std::span<const ExpertId> needed) {
  CADRE_CHECK(times.empty() || IsLater(now, times.back()));
  CheckGroup(now, needed, num_layers, num_experts);
  times.push_back(now);
  experts.insert(experts.end(), needed.begin(), needed.end());
  ends.push_back(experts.size());
}

AccessTrace::AccessTrace(const AccessTraceOptions& options) : options_(options), words_(CountWords(options)) {
  CADRE_CHECK_GE(options.num_layers, 1);
  CADRE_CHECK_LE(options.num_layers, kMaxWord);
  CADRE_CHECK_GE(options.num_experts, 1);
  CADRE_CHECK_LE(options.num_experts, kMaxWord);
  CADRE_CHECK_GE(words_.size(), kHeaderWords + static_cast<size_t>(options.num_experts));
}

void AccessTrace::Append(const LayerTime& now, std::span<const ExpertId> needed) {
  if (needed.empty()) return;
  CADRE_CHECK(num_groups_ == 0 || IsLater(now, last_));
  CheckGroup(now, needed, options_.num_layers, options_.num_experts);
  while (used_ + kHeaderWords + needed.size() > words_.size()) DropOldest();
  if (num_groups_ == 0) first_ = last_ = now;
  size_t position = begin_ + used_;
  word(position++) = static_cast<uint16_t>(now.layer);
  word(position++) = static_cast<uint16_t>(std::min(now.step - last_.step, kMaxWord));
  word(position++) = static_cast<uint16_t>(needed.size());
  const int64_t first_id = now.layer * options_.num_experts;
  for (const ExpertId expert : needed) word(position++) = static_cast<uint16_t>(expert - first_id);
  used_ += kHeaderWords + needed.size();
  last_ = now;
  ++num_groups_;
}

void AccessTrace::DropOldest() {
  const size_t size = kHeaderWords + word(begin_ + 2);
  begin_ = (begin_ + size) % words_.size();
  used_ -= size;
  --num_groups_;
  if (num_groups_ > 0) first_ = {first_.step + word(begin_ + 1), word(begin_)};
}

int64_t AccessTrace::num_accesses() const { return static_cast<int64_t>(used_) - num_groups_ * 3; }

AccessLog AccessTrace::Log() const {
  AccessLog log{
      .num_layers = options_.num_layers, .num_experts = options_.num_experts, .times = {}, .ends = {}, .experts = {}};
  log.times.reserve(static_cast<size_t>(num_groups_));
  log.ends.reserve(static_cast<size_t>(num_groups_));
  log.experts.reserve(static_cast<size_t>(num_accesses()));
  LayerTime time = first_;
  std::vector<ExpertId> group;
  for (size_t offset = 0; offset < used_;) {
    const size_t position = begin_ + offset;
    if (offset > 0) time.step += word(position + 1);
    time.layer = word(position);
    const size_t size = word(position + 2);
    group.resize(size);
    for (size_t i = 0; i < size; ++i) {
      group[i] = static_cast<ExpertId>(time.layer * options_.num_experts + word(position + kHeaderWords + i));
    }
    log.Append(time, group);
    offset += kHeaderWords + size;
  }
  return log;
}

}  // namespace cadre
