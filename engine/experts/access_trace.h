// What the layers of the latest steps needed: enough to ask afterwards what another cache would have made of it.
#ifndef CADRE_ENGINE_EXPERTS_ACCESS_TRACE_H_
#define CADRE_ENGINE_EXPERTS_ACCESS_TRACE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/experts/eviction_policy.h"
#include "engine/experts/expert_id.h"

namespace cadre {

// A trace to compute with. A group is what one layer of one step needed, all of it at once.
struct AccessLog {
  int64_t num_layers = 0;
  int64_t num_experts = 0;        // of a layer
  std::vector<LayerTime> times;   // [groups], rising
  std::vector<size_t> ends;       // [groups], in `experts`
  std::vector<ExpertId> experts;  // of all groups, rising in each

  size_t num_groups() const { return times.size(); }
  std::span<const ExpertId> group(size_t i) const {
    const size_t begin = i == 0 ? 0 : ends[i - 1];
    return std::span(experts).subspan(begin, ends[i] - begin);
  }
  // REQUIRES: later than the last group; ids rise and are of the layer `now`.
  void Append(const LayerTime& now, std::span<const ExpertId> needed);
};

struct AccessTraceOptions {
  int64_t num_layers = 0;   // <= 65,535
  int64_t num_experts = 0;  // of a layer; <= 65,535
  // Two for an expert and six for a group. REQUIRES: enough for one group of all experts.
  int64_t max_bytes = int64_t{1} << 20;
};

// A ring: what comes puts out the oldest groups. Not thread-safe, but a copy is a plain one of at most max_bytes.
class AccessTrace {
 public:
  explicit AccessTrace(const AccessTraceOptions& options);

  // Costs a store for each expert. Empty groups are left out. REQUIRES: as AccessLog::Append.
  void Append(const LayerTime& now, std::span<const ExpertId> needed);

  int64_t num_groups() const { return num_groups_; }
  int64_t num_accesses() const;
  // Steps of the log are those of Append, if no more than 65,535 steps lie between two groups.
  AccessLog Log() const;

 private:
  // A group in the ring: layer, steps since the group before, experts; then the experts, as numbers in their layer.
  static constexpr size_t kHeaderWords = 3;

  uint16_t& word(size_t position) { return words_[position % words_.size()]; }
  uint16_t word(size_t position) const { return words_[position % words_.size()]; }
  void DropOldest();

  AccessTraceOptions options_;
  std::vector<uint16_t> words_;
  size_t begin_ = 0;  // of the oldest group
  size_t used_ = 0;   // words
  int64_t num_groups_ = 0;
  LayerTime first_;  // of the oldest group
  LayerTime last_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_ACCESS_TRACE_H_
