// The random numbers that orders are drawn from.
#ifndef CADRE_TESTS_SUPPORT_SIMT_RANDOM_ORDER_H_
#define CADRE_TESTS_SUPPORT_SIMT_RANDOM_ORDER_H_

#include <bit>
#include <cstdint>

namespace simt {

// SplitMix64: small, fast, and the same everywhere.
class RandomOrder {
 public:
  explicit RandomOrder(uint64_t seed = 0) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  // Below `limit`, which is positive.
  uint64_t Below(uint64_t limit) { return Next() % limit; }

  // The first set bit of `bits`, not zero, from bit `start` on, around the end.
  static int FirstFrom(uint32_t bits, int start) { return (start + std::countr_zero(std::rotr(bits, start))) & 31; }
  int AnyBit(uint32_t bits) { return FirstFrom(bits, static_cast<int>(Next() >> 59)); }

 private:
  uint64_t state_;
};

}  // namespace simt

#endif  // CADRE_TESTS_SUPPORT_SIMT_RANDOM_ORDER_H_
