// When requests are sent.
#ifndef CADRE_TOOLS_LOADGEN_ARRIVALS_H_
#define CADRE_TOOLS_LOADGEN_ARRIVALS_H_

#include <cstdint>

#include "tools/loadgen/random.h"

namespace cadre {

enum class ArrivalKind {
  kPoisson,   // independent users: exponential gaps
  kConstant,  // equal gaps
};

// Offsets of an open-loop load from its start, in order. The same seed gives the same offsets.
class ArrivalProcess {
 public:
  // `rate` > 0, in requests per second.
  ArrivalProcess(ArrivalKind kind, double rate, uint64_t seed) : kind_(kind), rate_(rate), random_(seed) {}

  // The first comes after one gap.
  int64_t NextNanoseconds() {
    constexpr double kNanosecondsPerSecond = 1e9;
    time_ += kind_ == ArrivalKind::kPoisson ? random_.Exponential() : 1.0;
    return static_cast<int64_t>(time_ / rate_ * kNanosecondsPerSecond);
  }

 private:
  const ArrivalKind kind_;
  const double rate_;
  Random random_;
  double time_ = 0.0;  // in mean gaps
};

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_ARRIVALS_H_
