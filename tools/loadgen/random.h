// Random numbers for workloads: one seed gives the same workload on every machine and with every standard library,
// whose distributions differ.
#ifndef CADRE_TOOLS_LOADGEN_RANDOM_H_
#define CADRE_TOOLS_LOADGEN_RANDOM_H_

#include <cmath>
#include <cstdint>
#include <numbers>
#include <random>

namespace cadre {

class Random {
 public:
  explicit Random(uint64_t seed) : bits_(seed) {}

  // In (0, 1): 53 bits, never an end.
  double Uniform() { return (static_cast<double>(bits_() >> 11) + 0.5) * 0x1p-53; }

  // In [low, high]; low <= high. The bias of the multiplication is below 2^-32 for ranges of 32 bits.
  int64_t Integer(int64_t low, int64_t high) {
    const double width = static_cast<double>(high - low) + 1.0;
    return low + static_cast<int64_t>(Uniform() * width);
  }

  // Mean 1.
  double Exponential() { return -std::log(Uniform()); }

  // Mean 0, standard deviation 1 (Box and Muller 1958, one of the pair).
  double Normal() {
    const double radius = std::sqrt(2.0 * Exponential());
    return radius * std::cos(2.0 * std::numbers::pi * Uniform());
  }

 private:
  std::mt19937_64 bits_;
};

}  // namespace cadre

#endif  // CADRE_TOOLS_LOADGEN_RANDOM_H_
