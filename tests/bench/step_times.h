// What steps of one kind took, and what the expert cache did in them.
#ifndef CADRE_TESTS_BENCH_STEP_TIMES_H_
#define CADRE_TESTS_BENCH_STEP_TIMES_H_

#include <cstdint>
#include <numeric>
#include <vector>

#include "engine/experts/expert_cache.h"
#include "engine/model/model_runner.h"

namespace cadre {

// Steps of one kind: `tokens` of each took a time, and could not have taken less than a bound.
struct StepTimes {
  int batch = 0;
  int tokens = 0;
  int context = 0;
  std::vector<double> seconds = {};
  std::vector<double> shares = {};  // bound / time of each
  double counting_seconds = 0.0;    // of all of them
  // Of the expert cache, if there is one, in these steps.
  int64_t lookups = 0;
  int64_t hits = 0;
  int64_t direct_bytes = 0;
};

inline double HitRatio(const StepTimes& times) {
  return static_cast<double>(times.hits) / static_cast<double>(times.lookups);
}

// GB/s of experts that were read where they lie in the host's memory, over the whole time of the steps.
inline double DirectRate(const StepTimes& times) {
  const double seconds = std::accumulate(times.seconds.begin(), times.seconds.end(), 1e-12);
  return static_cast<double>(times.direct_bytes) * 1e-9 / seconds;
}

inline double CountingShare(const StepTimes& times) {
  return times.counting_seconds / std::accumulate(times.seconds.begin(), times.seconds.end(), 1e-12);
}

// Zeros where there is no cache.
inline ExpertCacheReport CacheReport(const ModelRunner& runner) {
  return runner.expert_cache().value_or(ExpertCacheReport());
}

inline void AddCacheUse(const ExpertCacheReport& before, const ExpertCacheReport& after, StepTimes* times) {
  times->hits = after.slots.hits - before.slots.hits;
  times->lookups = times->hits + after.slots.misses - before.slots.misses;
  times->direct_bytes = after.direct_bytes - before.direct_bytes;
}

}  // namespace cadre

#endif  // CADRE_TESTS_BENCH_STEP_TIMES_H_
