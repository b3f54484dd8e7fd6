// Attention in plain C++: scores of all visible positions, softmax, weighted sum of the values, in order of position.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu_kernels.h"

namespace cadre {
namespace {

template <typename T>
const T* RowAt(const AttentionTask& task, const std::byte* cache, int64_t position) {
  const int64_t block = task.block_table[position / task.block_size];
  const int64_t offset = position % task.block_size;
  return reinterpret_cast<const T*>(cache) + block * task.block_stride + offset * task.head_dim;
}

template <typename T>
void AttendOne(const AttentionTask& task, const float* q, float* out, int64_t position, float* scores) {
  const int64_t d = task.head_dim;
  const int64_t begin = task.sliding_window > 0 ? std::max<int64_t>(0, position - task.sliding_window + 1) : 0;
  float largest = -INFINITY;
  for (int64_t j = begin; j <= position; ++j) {
    const T* k = RowAt<T>(task, task.k, j);
    float dot = 0.0f;
    for (int64_t i = 0; i < d; ++i) dot += q[i] * ToFloat(k[i]);
    scores[j] = dot * task.scale;
    largest = std::max(largest, scores[j]);
  }
  float sum = 0.0f;
  for (int64_t j = begin; j <= position; ++j) {
    scores[j] = std::exp(scores[j] - largest);
    sum += scores[j];
  }
  std::fill(out, out + d, 0.0f);
  for (int64_t j = begin; j <= position; ++j) {
    const T* v = RowAt<T>(task, task.v, j);
    for (int64_t i = 0; i < d; ++i) out[i] += scores[j] * ToFloat(v[i]);
  }
  for (int64_t i = 0; i < d; ++i) out[i] /= sum;
}

}  // namespace

int64_t AttentionScratchPortable(int64_t /*head_dim*/, int64_t /*num_heads*/, int64_t max_positions) {
  return max_positions;
}

void AttentionPortable(const AttentionTask& task, float* scratch) {
  DispatchFloat(task.kv_dtype, [&]<typename T>() {
    for (int64_t row = 0; row < task.num_rows; ++row) {
      for (int64_t head = 0; head < task.num_heads; ++head) {
        const int64_t at = row * task.row_stride + head * task.head_dim;
        AttendOne<T>(task, task.q + at, task.out + at, task.positions[row], scratch);
      }
    }
  });
}

}  // namespace cadre
