// How fast experts are read: a few of them, before anybody needs one.
#ifndef CADRE_ENGINE_EXPERTS_READ_PROBE_H_
#define CADRE_ENGINE_EXPERTS_READ_PROBE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/base/clock.h"
#include "engine/experts/expert_id.h"
#include "engine/experts/expert_source.h"

namespace cadre {

struct ReadProbeOptions {
  int num_threads = 4;                                // reads at a time
  absl::Duration begin_limit = absl::Seconds(0.5);    // no read is begun afterwards
  absl::Duration give_up_limit = absl::Seconds(5.0);  // what has not ended by then is given up
};

struct ReadProbe {
  std::vector<ExpertId> experts;  // that were read; ids rise
  absl::Duration time;            // until the last of them was

  double bytes_per_second(int64_t expert_bytes) const {
    return static_cast<double>(std::ssize(experts) * expert_bytes) / absl::ToDoubleSeconds(time);
  }
};

// `count` of `num_experts`, evenly spread: with any luck of different files, and of no order.
std::vector<ExpertId> ChooseProbed(int64_t num_experts, int64_t count);

// Reads `experts`, ids that rise, from `source` into memory of its own, an expert for each thread. The first read that
// failed is the error; DEADLINE_EXCEEDED where none ended in time. A read that hangs in the system is waited for.
absl::StatusOr<ReadProbe> ProbeReads(const ExpertSource& source, std::span<const ExpertId> experts,
                                     const ReadProbeOptions& options, const Clock& clock);

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_READ_PROBE_H_
