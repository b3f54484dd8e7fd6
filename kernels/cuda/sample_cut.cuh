// Cuts in the order of a row's tokens, found without sorting: what top_k, top_p and the draw have in common.
//
// Tokens have a mass, a whole number, and stand in an order: by logit, the larger and then the lower id first, or by
// id. The cut is the first token in that order at which the running sum of masses reaches what is needed. One reading
// of the row sums masses in bins that follow the order; another one takes the tokens of one bin, or all up to it, into
// a list in shared memory, where the cut is found by comparing all with all. Sums of whole numbers are the same in any
// order of additions, so threads may add as they come.
#ifndef CADRE_KERNELS_CUDA_SAMPLE_CUT_CUH_
#define CADRE_KERNELS_CUDA_SAMPLE_CUT_CUH_

#include <cstdint>

#include "kernels/cuda/numbers.cuh"

namespace cadre::cuda {

inline constexpr int kSampleThreads = 1024;
inline constexpr int kSampleWarps = kSampleThreads / kWarpSize;
inline constexpr int kBinBits = 11;
inline constexpr int kNumBins = 1 << kBinBits;
inline constexpr int kBinsOfWarp = kNumBins / kSampleWarps;
inline constexpr int kListSize = kSampleThreads;  // one token for each thread
// Tokens in a bin by id; so many bins of so many tokens bound the vocabulary.
inline constexpr int kIdsOfBin = 256;
inline constexpr int64_t kMaxSampleVocab = int64_t{kNumBins} * kIdsOfBin;

using Mass = unsigned long long;
// A token's place in the order by logit: the larger stands earlier. The lower half alone is the order by id.
using Place = unsigned long long;

// Rises with the logit. 0 and -0 are one number.
__device__ __forceinline__ uint32_t KeyOfLogit(float logit) {
  const uint32_t bits = __float_as_uint(logit == 0.0f ? 0.0f : logit);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float LogitOfKey(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7FFFFFFFu : ~key);
}
__device__ __forceinline__ Place PlaceOf(float logit, int id) {
  return static_cast<Place>(KeyOfLogit(logit)) << 32 | (0xFFFFFFFFu - static_cast<uint32_t>(id));
}
__device__ __forceinline__ float LogitAt(Place place) { return LogitOfKey(static_cast<uint32_t>(place >> 32)); }
__device__ __forceinline__ int IdAt(Place place) {
  return static_cast<int>(0xFFFFFFFFu - static_cast<uint32_t>(place));
}

// The logits of one token position, under a mask.
struct LogitRow {
  const float* logits;   // [V]
  const uint32_t* mask;  // [ceil(V / 32)] bits of the tokens that may be chosen, or null: all
  int vocab_size;

  __device__ float operator()(int id) const {
    const float logit = logits[id];
    const bool is_hidden = mask != nullptr && (mask[id / 32] >> (id % 32) & 1u) == 0;
    return is_hidden && logit == logit ? -INFINITY : logit;  // a mask does not hide NaN
  }
};

struct CutScratch {
  Mass masses[kNumBins];      // of bins, or of the tokens of the list
  unsigned counts[kNumBins];  // tokens of bins
  Place places[kListSize];    // the list
  Mass of_warps[kSampleWarps];
  Mass before;  // mass of all bins before the one that was found
  Place found;
  int bin;
  int list_size;
};

enum class TokenOrder { kByLogit, kById };
// kCount: all masses are 0 or 1, so that the number of tokens in a bin, to which threads add fast, is its mass.
enum class TokenMass { kAny, kCount };

// All threads of the block call everything here, with the same arguments.
class TokenCuts {
 public:
  // `largest` is the largest logit of `row`, which has no NaN.
  __device__ TokenCuts(const LogitRow& row, float largest, CutScratch* scratch)
      : row_(row), largest_(largest), s_(*scratch), is_listed_(false) {}

  // The place of the cut. `mass(logit, place)` is that of a token: those without mass are not there. `needed(total)`,
  // at least 1, is how much is needed, given the mass of all; 0 when there is not so much.
  template <TokenOrder kOrder, TokenMass kMass = TokenMass::kAny, typename MassOf, typename Needed>
  __device__ Place Find(const MassOf& mass, const Needed& needed) {
    if (is_listed_) {
      const Mass total = WeighList(mass);
      return SelectInList<kOrder>(needed(total));
    }
    const Mass total =
        kOrder == TokenOrder::kById ? FillBinsById(mass) : FillBinsByLogit<kMass>(mass, /*bin=*/-1, Prefix{});
    Mass rest = needed(total);
    if (rest > total) return 0;
    FindBin(rest);
    const int bin = s_.bin;
    if constexpr (kOrder == TokenOrder::kById) {
      rest -= s_.before;
      Gather(
          mass, [=](float, Place place) { return IdAt(place) / kIdsOfBin == bin; }, bin * kIdsOfBin, kIdsOfBin);
    } else if (CountThrough(bin) <= kListSize) {
      // All that may still matter: the row is not read any more.
      Gather(
          mass, [=, this](float logit, Place) { return BinOf(logit) <= bin; }, 0, row_.vocab_size);
      is_listed_ = true;
    } else {
      rest -= s_.before;
      const Prefix prefix = NarrowDown<kMass>(mass, bin, &rest);
      Gather(
          mass, [=, this](float logit, Place place) { return BinOf(logit) == bin && prefix.Has(place); }, 0,
          row_.vocab_size);
    }
    return SelectInList<kOrder>(rest);
  }

  // Takes all tokens from `cut` on into the list; REQUIRES: there are at most kListSize.
  __device__ int List(Place cut) {
    if (!is_listed_) {
      Gather([](float, Place) { return Mass{1}; }, [=](float, Place place) { return place >= cut; }, 0,
             row_.vocab_size);
      is_listed_ = true;
    }
    return s_.list_size;
  }
  __device__ Place listed(int i) const { return s_.places[i]; }

 private:
  // The first bits of places.
  struct Prefix {
    int num_bits = 0;
    Place bits = 0;
    __device__ bool Has(Place place) const { return num_bits == 0 || place >> (64 - num_bits) == bits; }
  };

  // By distance from the largest logit, 64 bins to 1; the last one has all that is farther off.
  __device__ int BinOf(float logit) const {
    constexpr float kBinsOfOne = 64.0f;
    if (logit == largest_) return 0;  // also if both are infinite
    const float distance = (largest_ - logit) * kBinsOfOne;
    return distance < kNumBins - 1 ? static_cast<int>(distance) : kNumBins - 1;
  }

  template <typename Visit>
  __device__ void ForEachToken(int begin, int count, const Visit& visit) const {
    const int end = begin + count < row_.vocab_size ? begin + count : row_.vocab_size;
    for (int id = begin + static_cast<int>(threadIdx.x); id < end; id += kSampleThreads) {
      const float logit = row_(id);
      visit(logit, PlaceOf(logit, id));
    }
  }

  // Bins of all tokens, or of those in `bin` with `prefix`, by the bits that follow it. Returns the mass of all.
  template <TokenMass kMass, typename MassOf>
  __device__ Mass FillBinsByLogit(const MassOf& mass, int bin, Prefix prefix) {
    __syncthreads();  // the bins may still be read
    for (int i = static_cast<int>(threadIdx.x); i < kNumBins; i += kSampleThreads) {
      s_.masses[i] = 0;
      s_.counts[i] = 0;
    }
    __syncthreads();
    Mass sum = 0;
    ForEachToken(0, row_.vocab_size, [&](float logit, Place place) {
      if (bin >= 0 && (BinOf(logit) != bin || !prefix.Has(place))) return;
      const Mass m = mass(logit, place);
      if (m == 0) return;
      const int rest_bits = 64 - prefix.num_bits - kBinBits;
      const int own = bin >= 0 ? kNumBins - 1 - static_cast<int>(place >> rest_bits & (kNumBins - 1)) : BinOf(logit);
      atomicAdd(&s_.counts[own], 1u);
      if constexpr (kMass == TokenMass::kAny) {
        atomicAdd(&s_.masses[own], m);
        sum += m;
      }
    });
    if constexpr (kMass == TokenMass::kCount) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < kNumBins; i += kSampleThreads) {
        s_.masses[i] = s_.counts[i];
        sum += s_.counts[i];
      }
    }
    return BlockSum(sum, s_.of_warps);
  }

  // Masses alone, each bin by one warp: neighbors would all wait for each other to add to the same bin.
  template <typename MassOf>
  __device__ Mass FillBinsById(const MassOf& mass) {
    __syncthreads();  // the bins may still be read
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    Mass sum = 0;
    for (int bin = static_cast<int>(threadIdx.x) / kWarpSize; bin < kNumBins; bin += kSampleWarps) {
      Mass own = 0;
      const int end = (bin + 1) * kIdsOfBin < row_.vocab_size ? (bin + 1) * kIdsOfBin : row_.vocab_size;
      for (int id = bin * kIdsOfBin + lane; id < end; id += kWarpSize) {
        const float logit = row_(id);
        own += mass(logit, PlaceOf(logit, id));
      }
      sum += own;
      own = WarpSum(own);
      if (lane == 0) s_.masses[bin] = own;
    }
    return BlockSum(sum, s_.of_warps);
  }

  // s_.bin is the first bin in whose middle or at whose end the running sum reaches `needed`, which it does.
  __device__ void FindBin(Mass needed) {
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int first = warp * kBinsOfWarp + static_cast<int>(threadIdx.x) % kWarpSize * 2;
    const Mass own = s_.masses[first] + s_.masses[first + 1];
    Mass through = own;  // inclusive sum over the lanes
    for (int offset = 1; offset < kWarpSize; offset *= 2) {
      const Mass other = __shfl_up_sync(kAllLanes, through, static_cast<unsigned>(offset));
      if (static_cast<int>(threadIdx.x) % kWarpSize >= offset) through += other;
    }
    __syncthreads();  // of_warps may still be read
    if (threadIdx.x % kWarpSize == kWarpSize - 1) s_.of_warps[warp] = through;
    __syncthreads();
    for (int w = 0; w < warp; ++w) through += s_.of_warps[w];
    const Mass before = through - own;
    if (before < needed && needed <= through) {
      const bool is_first = before + s_.masses[first] >= needed;
      s_.bin = is_first ? first : first + 1;
      s_.before = is_first ? before : before + s_.masses[first];
    }
    __syncthreads();
  }

  // Tokens in the bins [0, bin].
  __device__ unsigned CountThrough(int bin) {
    Mass count = 0;
    for (int i = static_cast<int>(threadIdx.x); i <= bin; i += kSampleThreads) count += s_.counts[i];
    return static_cast<unsigned>(BlockSum(count, s_.of_warps));
  }

  // Follows the cut through the bits of places until those with one prefix fit into the list: at the latest where only
  // ids differ. `rest` is what is needed of them.
  template <TokenMass kMass, typename MassOf>
  __device__ Prefix NarrowDown(const MassOf& mass, int bin, Mass* rest) {
    Prefix prefix;
    unsigned count = s_.counts[bin];
    while (count > kListSize) {
      FillBinsByLogit<kMass>(mass, bin, prefix);
      FindBin(*rest);
      *rest -= s_.before;
      prefix.bits = prefix.bits << kBinBits | static_cast<Place>(kNumBins - 1 - s_.bin);
      prefix.num_bits += kBinBits;
      count = s_.counts[s_.bin];
    }
    return prefix;
  }

  // The list becomes the tokens, of the ids [begin, begin + count), with mass that `belongs(logit, place)`.
  template <typename MassOf, typename Belongs>
  __device__ void Gather(const MassOf& mass, const Belongs& belongs, int begin, int count) {
    __syncthreads();  // the list, the bins and their number may still be read
    if (threadIdx.x == 0) s_.list_size = 0;
    __syncthreads();
    ForEachToken(begin, count, [&](float logit, Place place) {
      if (!belongs(logit, place)) return;
      const Mass m = mass(logit, place);
      if (m == 0) return;
      const int slot = atomicAdd(&s_.list_size, 1);
      s_.places[slot] = place;
      s_.masses[slot] = m;
    });
    __syncthreads();
  }

  template <typename MassOf>
  __device__ Mass WeighList(const MassOf& mass) {
    __syncthreads();  // the masses may still be read
    const int i = static_cast<int>(threadIdx.x);
    Mass own = 0;
    if (i < s_.list_size) {
      own = mass(LogitAt(s_.places[i]), s_.places[i]);
      s_.masses[i] = own;
    }
    return BlockSum(own, s_.of_warps);
  }

  template <TokenOrder kOrder>
  __device__ Place SelectInList(Mass needed) {
    const auto key = [](Place place) { return kOrder == TokenOrder::kById ? place & 0xFFFFFFFFu : place; };
    __syncthreads();  // what was found before may still be read
    if (threadIdx.x == 0) s_.found = 0;
    __syncthreads();
    const int i = static_cast<int>(threadIdx.x);
    if (i < s_.list_size) {
      const Place own = s_.places[i];
      Mass through = 0;
      for (int j = 0; j < s_.list_size; ++j) {
        if (key(s_.places[j]) >= key(own)) through += s_.masses[j];
      }
      if (through >= needed && through - s_.masses[i] < needed) s_.found = own;
    }
    __syncthreads();
    return s_.found;
  }

  const LogitRow row_;
  const float largest_;
  CutScratch& s_;
  bool is_listed_;  // the list has all that may still be chosen
};

}  // namespace cadre::cuda

#endif  // CADRE_KERNELS_CUDA_SAMPLE_CUT_CUH_
