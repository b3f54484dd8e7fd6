// Shuffles, votes, matches and reductions of a warp.
#ifndef CADRE_TESTS_SUPPORT_SIMT_WARP_FUNCTIONS_H_
#define CADRE_TESTS_SUPPORT_SIMT_WARP_FUNCTIONS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/support/simt/block.h"

// NOLINTBEGIN(bugprone-reserved-identifier): the names are CUDA's

namespace simt::internal {

enum class ShuffleKind { kIndex, kUp, kDown, kXor };

inline constexpr const char* kShuffleNames[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};

template <typename T>
struct ShuffleInput {
  T value;
  int offset;  // or the source lane
  int width;
};

// The lane that `lane` reads; itself where the source lies outside of its segment of `width` lanes.
inline int ShuffleSource(ShuffleKind kind, int lane, int offset, int width) {
  const int begin = lane & ~(width - 1);
  switch (kind) {
    case ShuffleKind::kIndex:
      return begin | (offset & (width - 1));
    case ShuffleKind::kUp:
      return lane - (offset & 31) >= begin ? lane - (offset & 31) : lane;
    case ShuffleKind::kDown:
      return lane + (offset & 31) < begin + width ? lane + (offset & 31) : lane;
    case ShuffleKind::kXor:
      return (lane ^ (offset & 31)) < begin + width ? lane ^ (offset & 31) : lane;
  }
  return lane;
}

template <typename T, ShuffleKind kind>
void CompleteShuffle(uint32_t mask, const void* const* in, void* const* out) {
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) == 0) continue;
    const auto& own = *static_cast<const ShuffleInput<T>*>(in[lane]);
    const int source = ShuffleSource(kind, lane, own.offset, own.width);
    if ((mask >> source & 1u) != 0) {
      *static_cast<T*>(out[lane]) = static_cast<const ShuffleInput<T>*>(in[source])->value;
    } else {
      std::memset(out[lane], 0xFF, sizeof(T));  // undefined: NaN, or -1
    }
  }
}

template <typename T, ShuffleKind kind>
inline constexpr WarpOperation kShuffle = {kShuffleNames[static_cast<int>(kind)], CompleteShuffle<T, kind>};

template <ShuffleKind kind, typename T>
T Shuffle(unsigned mask, T value, int offset, int width, CallSite site) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA has no such shuffle");
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) Fail("a shuffle of width %d", width);
  const ShuffleInput<T> in = {value, offset, width};
  T out;
  WaitForWarp(kShuffle<T, kind>, mask, &in, &out, site);
  return out;
}

// Operations of which every lane has the same result: `Reduce` makes it of the inputs of the lanes in the mask.
template <typename In, typename Out,
          Out (*Reduce)(uint32_t mask, const In& (*input)(const void*), const void* const* in)>
void CompleteForAll(uint32_t mask, const void* const* in, void* const* out) {
  const Out result = Reduce(
      mask, [](const void* p) -> const In& { return *static_cast<const In*>(p); }, in);
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) != 0) *static_cast<Out*>(out[lane]) = result;
  }
}

inline uint32_t ReduceToBallot(uint32_t mask, const int& (*input)(const void*), const void* const* in) {
  uint32_t ballot = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) != 0 && input(in[lane]) != 0) ballot |= 1u << lane;
  }
  return ballot;
}
inline constexpr WarpOperation kBallot = {"__ballot_sync", CompleteForAll<int, uint32_t, ReduceToBallot>};
inline constexpr WarpOperation kAny = {"__any_sync", CompleteForAll<int, uint32_t, ReduceToBallot>};
inline constexpr WarpOperation kAll = {"__all_sync", CompleteForAll<int, uint32_t, ReduceToBallot>};

inline uint32_t Ballot(const WarpOperation& operation, unsigned mask, int predicate, CallSite site) {
  uint32_t ballot;
  WaitForWarp(operation, mask, &predicate, &ballot, site);
  return ballot;
}

template <typename T>
void CompleteMatch(uint32_t mask, const void* const* in, void* const* out) {
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) == 0) continue;
    uint32_t same = 0;
    for (int other = 0; other < 32; ++other) {
      if ((mask >> other & 1u) != 0 && std::memcmp(in[lane], in[other], sizeof(T)) == 0) same |= 1u << other;
    }
    *static_cast<uint32_t*>(out[lane]) = same;
  }
}
template <typename T>
inline constexpr WarpOperation kMatchAny = {"__match_any_sync", CompleteMatch<T>};

struct Add {
  static constexpr const char* kName = "__reduce_add_sync";
  static constexpr uint32_t Of(uint32_t a, uint32_t b) { return a + b; }
  static constexpr int Of(int a, int b) {
    return static_cast<int>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
  }
};
struct Min {
  static constexpr const char* kName = "__reduce_min_sync";
  template <typename T>
  static constexpr T Of(T a, T b) {
    return std::min(a, b);
  }
};
struct Max {
  static constexpr const char* kName = "__reduce_max_sync";
  template <typename T>
  static constexpr T Of(T a, T b) {
    return std::max(a, b);
  }
};

template <typename T, typename Reduction>
T ReduceLanes(uint32_t mask, const T& (*input)(const void*), const void* const* in) {
  T result = {};
  bool is_first = true;
  for (int lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) == 0) continue;
    result = is_first ? input(in[lane]) : Reduction::Of(result, input(in[lane]));
    is_first = false;
  }
  return result;
}
template <typename T, typename Reduction>
inline constexpr WarpOperation kReduction = {Reduction::kName, CompleteForAll<T, T, ReduceLanes<T, Reduction>>};

template <typename Reduction, typename T>
T Reduce(unsigned mask, T value, CallSite site) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>, "CUDA reduces int and unsigned only");
  T result;
  WaitForWarp(kReduction<T, Reduction>, mask, &value, &result, site);
  return result;
}

}  // namespace simt::internal

// Small integers are shuffled as int, as in CUDA.
template <typename T>
auto __shfl_sync(unsigned mask, T value, int source_lane, int width = 32,
                 simt::CallSite site = simt::CallSite::Here()) {
  return simt::internal::Shuffle<simt::internal::ShuffleKind::kIndex>(mask, +value, source_lane, width, site);
}
template <typename T>
auto __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                    simt::CallSite site = simt::CallSite::Here()) {
  return simt::internal::Shuffle<simt::internal::ShuffleKind::kUp>(mask, +value, static_cast<int>(delta), width, site);
}
template <typename T>
auto __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                      simt::CallSite site = simt::CallSite::Here()) {
  return simt::internal::Shuffle<simt::internal::ShuffleKind::kDown>(mask, +value, static_cast<int>(delta), width,
                                                                     site);
}
template <typename T>
auto __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                     simt::CallSite site = simt::CallSite::Here()) {
  return simt::internal::Shuffle<simt::internal::ShuffleKind::kXor>(mask, +value, lane_mask, width, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, simt::CallSite site = simt::CallSite::Here()) {
  return simt::internal::Ballot(simt::internal::kBallot, mask, predicate, site);
}
inline int __any_sync(unsigned mask, int predicate, simt::CallSite site = simt::CallSite::Here()) {
  return simt::internal::Ballot(simt::internal::kAny, mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, simt::CallSite site = simt::CallSite::Here()) {
  return simt::internal::Ballot(simt::internal::kAll, mask, predicate, site) == mask;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, simt::CallSite site = simt::CallSite::Here()) {
  uint32_t same;
  simt::WaitForWarp(simt::internal::kMatchAny<T>, mask, &value, &same, site);
  return same;
}

template <typename T>
T __reduce_add_sync(unsigned mask, T value, simt::CallSite site = simt::CallSite::Here()) {
  return simt::internal::Reduce<simt::internal::Add>(mask, value, site);
}
template <typename T>
T __reduce_min_sync(unsigned mask, T value, simt::CallSite site = simt::CallSite::Here()) {
  return simt::internal::Reduce<simt::internal::Min>(mask, value, site);
}
template <typename T>
T __reduce_max_sync(unsigned mask, T value, simt::CallSite site = simt::CallSite::Here()) {
  return simt::internal::Reduce<simt::internal::Max>(mask, value, site);
}

// The lanes that have not exited. A device may answer with any set of them that holds the caller.
inline unsigned __activemask() { return simt::LivingLanes(); }

// NOLINTEND(bugprone-reserved-identifier)

#endif  // CADRE_TESTS_SUPPORT_SIMT_WARP_FUNCTIONS_H_
