// Atomic operations. Each is a place where other threads may go first, so that their order is as undefined as it is on
// a device.
#ifndef CADRE_TESTS_SUPPORT_SIMT_ATOMICS_H_
#define CADRE_TESTS_SUPPORT_SIMT_ATOMICS_H_

#include <type_traits>

#include "tests/support/simt/block.h"

namespace simt::internal {

template <typename T, typename Update>
T Atomic(T* address, const Update& update) {
  MayYield();
  const T old = *address;
  *address = update(old);
  return old;
}

}  // namespace simt::internal

template <typename T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long> ||
                    std::is_same_v<T, float> || std::is_same_v<T, double>,
                "CUDA has no such atomicAdd");
  return simt::internal::Atomic(address, [=](T old) {
    if constexpr (std::is_same_v<T, int>) {
      return static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value));
    } else {
      return old + value;
    }
  });
}

#define CADRE_SIMT_ATOMIC(name, result)                                        \
  template <typename T>                                                        \
  T name(T* address, std::type_identity_t<T> value) {                          \
    static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), \
                  "CUDA has " #name " for integers of 32 and 64 bits");        \
    return simt::internal::Atomic(address, [=](T old) { return result; });     \
  }
CADRE_SIMT_ATOMIC(atomicMax, old < value ? value : old)
CADRE_SIMT_ATOMIC(atomicMin, value < old ? value : old)
CADRE_SIMT_ATOMIC(atomicAnd, old& value)
CADRE_SIMT_ATOMIC(atomicOr, old | value)
CADRE_SIMT_ATOMIC(atomicXor, old ^ value)
#undef CADRE_SIMT_ATOMIC

inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return simt::internal::Atomic(address, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}
inline unsigned atomicDec(unsigned* address, unsigned limit) {
  return simt::internal::Atomic(address, [=](unsigned old) { return old == 0 || old > limit ? limit : old - 1; });
}

template <typename T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>, "CUDA has no such atomicSub");
  return simt::internal::Atomic(
      address, [=](T old) { return static_cast<T>(static_cast<unsigned>(old) - static_cast<unsigned>(value)); });
}
template <typename T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA has no such atomicExch");
  return simt::internal::Atomic(address, [=](T) { return value; });
}
template <typename T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>, "CUDA has no such atomicCAS");
  return simt::internal::Atomic(address, [=](T old) { return old == expected ? value : old; });
}

#endif  // CADRE_TESTS_SUPPORT_SIMT_ATOMICS_H_
