// Sample: from logits to tokens. One block for each row; see engine/sample for the chain.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/cuda/sample_cut.cuh"

namespace cadre::cuda {
namespace {

// Weights are whole multiples of 2^-44: with kMaxSampleVocab tokens their sum stays below 2^63, and what is lost of a
// token is a share of less than 2^-44.
constexpr int kWeightBits = 44;
constexpr double kLn2 = 0.693147180559945309417;
constexpr double kLog2E = 1.44269504088896340736;

struct SampleTensors {
  float* logits;          // [R, V]
  const SampleRow* rows;  // [R]
  int32_t* extras;        // edits and masks
  int32_t* tokens;        // [R]
  int32_t* ranks;         // [R]
  float* logprobs;        // [R, 1 + kMaxAlternatives]
  int32_t* alternatives;  // [R, kMaxAlternatives]
  int vocab_size;
};

// exp((logit - largest) / temperature), at most 1, in units of 2^-kWeightBits; nothing below the least exponent. The
// exponent is computed in double and its power in float, split so that each weight is good to 2^-23 of itself.
struct Weights {
  float largest;
  double inverse_temperature;
  double least_exponent;

  __device__ Mass operator()(float logit) const {
    if (logit == largest) return Mass{1} << kWeightBits;  // also if both are infinite
    if (largest == INFINITY) return 0;
    const double exponent = (static_cast<double>(logit) - static_cast<double>(largest)) * inverse_temperature;
    if (exponent < least_exponent) return 0;
    const double power = exponent * kLog2E;
    if (power < -kWeightBits - 2) return 0;
    const double whole = floor(power);
    const float rest = exp2f(static_cast<float>(power - whole));  // [1, 2]
    const Mass mantissa = static_cast<Mass>(rest * 8388608.0f);   // 2^23
    const int shift = kWeightBits - 23 + static_cast<int>(whole);
    return shift >= 0 ? mantissa << shift : mantissa >> -shift;
  }
};

struct Largest {
  Place place;
  bool has_nan;
};

__device__ Largest FindLargest(const LogitRow& row, CutScratch* s) {
  Place best = 0;
  int num_nans = 0;
  for (int id = static_cast<int>(threadIdx.x); id < row.vocab_size; id += kSampleThreads) {
    const float logit = row(id);
    if (logit != logit) {
      ++num_nans;
    } else if (const Place place = PlaceOf(logit, id); place > best) {
      best = place;
    }
  }
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const Place other = __shfl_xor_sync(kAllLanes, best, offset);
    best = other > best ? other : best;
  }
  const bool has_nan = __syncthreads_or(num_nans) != 0;  // what was in of_warps is not read any more
  if (threadIdx.x % kWarpSize == 0) s->of_warps[threadIdx.x / kWarpSize] = best;
  __syncthreads();
  for (const Place of_warp : s->of_warps) best = of_warp > best ? of_warp : best;
  return {best, has_nan};
}

// The three lists of edits of a row: tokens that are forbidden, biased, and penalized. Within one list each token
// stands once; what a logit was before is kept with the edit.
class RowEdits {
 public:
  __device__ RowEdits(const SampleRow& row, int32_t* extras, float* logits, int vocab_size)
      : row_(row),
        edits_(reinterpret_cast<SampleEdit*>(extras + row.edits)),
        logits_(logits),
        vocab_size_(vocab_size) {}

  __device__ void Apply() const {
    ForEach(0, row_.num_forbidden, [&](float logit, float) { return logit == logit ? -INFINITY : logit; });
    ForEach(row_.num_forbidden, row_.num_biased, [&](float logit, float bias) { return logit + bias; });
    ForEach(row_.num_forbidden + row_.num_biased, row_.num_seen,
            [&](float logit, float count) { return Penalized(logit, count); });
  }

  // In the opposite order.
  __device__ void Undo() const {
    Restore(row_.num_forbidden + row_.num_biased, row_.num_seen);
    Restore(row_.num_forbidden, row_.num_biased);
    Restore(0, row_.num_forbidden);
  }

 private:
  __device__ float Penalized(float logit, float count) const {
    if (row_.repetition_penalty != 1.0f) {
      logit = logit > 0.0f ? logit / row_.repetition_penalty : logit * row_.repetition_penalty;
    }
    if (count == 0.0f) return logit;
    return logit - count * row_.frequency_penalty - row_.presence_penalty;
  }

  template <typename Edit>
  __device__ void ForEach(int first, int count, const Edit& edit) const {
    for (int i = first + static_cast<int>(threadIdx.x); i < first + count; i += kSampleThreads) {
      const int token = edits_[i].token;
      if (token < 0 || token >= vocab_size_) __trap();
      float* const logit = logits_ + token;
      edits_[i].before = *logit;
      *logit = edit(*logit, edits_[i].value);
    }
    __syncthreads();
  }
  __device__ void Restore(int first, int count) const {
    for (int i = first + static_cast<int>(threadIdx.x); i < first + count; i += kSampleThreads) {
      logits_[edits_[i].token] = edits_[i].before;
    }
    __syncthreads();
  }

  const SampleRow& row_;
  SampleEdit* const edits_;
  float* const logits_;
  const int vocab_size_;
};

// The place of the token, given the largest one's.
__device__ Place Choose(const SampleRow& p, const LogitRow& row, Place largest, CutScratch* scratch) {
  if (p.temperature == 0.0f || p.top_k == 1) return largest;
  const Weights weights = {LogitAt(largest), 1.0 / static_cast<double>(p.temperature),
                           p.min_p > 0.0f ? log(static_cast<double>(p.min_p)) : -INFINITY};
  TokenCuts cuts(row, LogitAt(largest), scratch);
  Place cut = 0;
  if (p.top_k > 0 && p.top_k < row.vocab_size) {
    cut = cuts.Find<TokenOrder::kByLogit, TokenMass::kCount>(
        [](float logit, Place) { return logit == -INFINITY ? Mass{0} : Mass{1}; },
        [&](Mass) { return static_cast<Mass>(p.top_k); });
  }
  if (p.top_p < 1.0f) {
    const Place of_top_k = cut;
    const Place of_top_p = cuts.Find<TokenOrder::kByLogit>(
        [=](float logit, Place place) { return place >= of_top_k ? weights(logit) : Mass{0}; },
        [&](Mass total) {
          const Mass share = static_cast<Mass>(ceil(static_cast<double>(p.top_p) * static_cast<double>(total)));
          return share < 1 ? Mass{1} : share > total ? total : share;
        });
    cut = of_top_p > cut ? of_top_p : cut;
  }
  // The first token, by id, whose running sum is more than the draw's share of the total.
  return cuts.Find<TokenOrder::kById>([=](float logit, Place place) { return place >= cut ? weights(logit) : Mass{0}; },
                                      [&](Mass total) { return __umul64hi(total, p.draw << 11) + 1; });
}

// log(sum(exp(logit - largest))).
__device__ double LogSum(const LogitRow& row, float largest, CutScratch* s) {
  const Weights weights = {largest, 1.0, -INFINITY};
  Mass sum = 0;
  for (int id = static_cast<int>(threadIdx.x); id < row.vocab_size; id += kSampleThreads) sum += weights(row(id));
  return log(static_cast<double>(BlockSum(sum, s->of_warps))) - kWeightBits * kLn2;
}

__device__ float LogProb(float logit, float largest, double log_sum) {
  if (logit == largest) return static_cast<float>(0.0 - log_sum);
  if (largest == INFINITY) return -INFINITY;
  return static_cast<float>(static_cast<double>(logit) - static_cast<double>(largest) - log_sum);
}

// The most likely tokens, in their order.
__device__ void DescribeAlternatives(const SampleTensors& t, const LogitRow& row, int num_wanted, float largest,
                                     double log_sum, CutScratch* scratch) {
  const int count = num_wanted < row.vocab_size ? num_wanted : row.vocab_size;
  if (count == 0) return;
  TokenCuts cuts(row, largest, scratch);
  const Place cut = cuts.Find<TokenOrder::kByLogit, TokenMass::kCount>([](float, Place) { return Mass{1}; },
                                                                       [=](Mass) { return static_cast<Mass>(count); });
  const int list_size = cuts.List(cut);
  const int i = static_cast<int>(threadIdx.x);
  if (i < list_size && cuts.listed(i) >= cut) {
    int rank = 0;
    for (int j = 0; j < list_size; ++j) rank += cuts.listed(j) > cuts.listed(i);
    t.alternatives[blockIdx.x * kMaxAlternatives + rank] = IdAt(cuts.listed(i));
    t.logprobs[blockIdx.x * (1 + kMaxAlternatives) + 1 + rank] = LogProb(LogitAt(cuts.listed(i)), largest, log_sum);
  }
  __syncthreads();
}

// 1 + the tokens that are more likely than the one at `place`.
__device__ int RankOf(const LogitRow& row, Place place, CutScratch* s) {
  Mass num_before = 0;
  for (int id = static_cast<int>(threadIdx.x); id < row.vocab_size; id += kSampleThreads) {
    num_before += PlaceOf(row(id), id) > place ? 1 : 0;
  }
  return static_cast<int>(BlockSum(num_before, s->of_warps)) + 1;
}

__global__ void __launch_bounds__(kSampleThreads) SampleKernel(SampleTensors t) {
  CADRE_SHARED(CutScratch, scratch, );
  const SampleRow p = t.rows[blockIdx.x];
  if (p.is_wanted == 0) return;
  float* const logits = t.logits + static_cast<int64_t>(blockIdx.x) * t.vocab_size;
  const LogitRow raw = {logits, nullptr, t.vocab_size};
  const LogitRow masked = {logits, p.mask < 0 ? nullptr : reinterpret_cast<const uint32_t*>(t.extras + p.mask),
                           t.vocab_size};
  const RowEdits edits(p, t.extras, logits, t.vocab_size);
  const bool is_described = p.num_alternatives >= 0;

  float most_likely = 0.0f;
  double log_sum = 0.0;
  if (is_described) {
    const Largest largest = FindLargest(raw, &scratch);
    most_likely = LogitAt(largest.place);
    // What is wrong with the row is found again below.
    if (!largest.has_nan && most_likely != -INFINITY) {
      log_sum = LogSum(raw, most_likely, &scratch);
      DescribeAlternatives(t, raw, p.num_alternatives, most_likely, log_sum, &scratch);
    }
  }
  edits.Apply();
  const Largest largest = FindLargest(masked, &scratch);
  const int error = largest.has_nan ? kSampledNan : LogitAt(largest.place) == -INFINITY ? kSampledNothing : 0;
  const Place place = error != 0 ? 0 : Choose(p, masked, largest.place, &scratch);
  if (threadIdx.x == 0) t.tokens[blockIdx.x] = error != 0 ? error : IdAt(place);
  __syncthreads();
  edits.Undo();
  if (!is_described || error != 0) return;
  const int id = IdAt(place);
  const int rank = RankOf(raw, PlaceOf(raw(id), id), &scratch);
  if (threadIdx.x != 0) return;
  t.ranks[blockIdx.x] = rank;
  t.logprobs[blockIdx.x * (1 + kMaxAlternatives)] = LogProb(raw(id), most_likely, log_sum);
}

}  // namespace

int64_t LargestSampleVocab() { return kMaxSampleVocab; }

cudaError_t LaunchSample(cudaStream_t stream, const SampleOutputs& out, View logits, ConstView rows, View extras) {
  const SampleTensors tensors = {.logits = Data<float>(logits),
                                 .rows = reinterpret_cast<const SampleRow*>(rows.raw()),
                                 .extras = Data<int32_t>(extras),
                                 .tokens = Data<int32_t>(out.tokens),
                                 .ranks = Data<int32_t>(out.ranks),
                                 .logprobs = Data<float>(out.logprobs),
                                 .alternatives = Data<int32_t>(out.alternatives),
                                 .vocab_size = static_cast<int>(logits.dim(1))};
  return Launch(stream, {.blocks = dim3(static_cast<unsigned>(logits.dim(0))), .threads = dim3(kSampleThreads)},
                SampleKernel, tensors);
}

}  // namespace cadre::cuda
