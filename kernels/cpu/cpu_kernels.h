// The inner loops of the CPU verbs: one table of functions per instruction set.
//
// The verbs (matmul.cc, attention.cc, expert_ffn.cc) decide what is computed and split it into tasks; these functions
// compute one task on one thread. Only raw pointers cross this line: a translation unit built for AVX-512 must not emit
// inline functions that the linker could choose for code that runs on older machines.
#ifndef CADRE_KERNELS_CPU_CPU_KERNELS_H_
#define CADRE_KERNELS_CPU_CPU_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace cadre {

// A group of packed activation rows (the rows of one expert, or of a whole step) begins at a multiple of kPackRows: the
// columns of one AMX tile.
inline constexpr int64_t kPackRows = 16;
// Weight rows of one task. 32 rows of 2,048 bfloat16 are 128 KiB: gate, up and a chunk of activations share a 1 MiB L2.
// Also the columns that one task adds to the packed input of the next product, hence one k-step of a bfloat16 tile.
inline constexpr int64_t kPanelRows = 32;
// Activation rows of one call of `dots`: a multiple of kPackRows and of every token tile; 96 x 2,048 bfloat16 are 384
// KiB.
inline constexpr int64_t kChunkRows = 96;
// Columns of the packed input of a product with quantized weights that share a scale, so that one task must add so
// many.
inline constexpr int64_t kQuantizedColumns = 128;
// Queries (rows x query heads of one kv head) that share one pass over the keys and values.
inline constexpr int64_t kAttentionQueries = 48;

using PackFunction = void(std::byte* packed, int64_t k, int64_t first_row, int64_t num_rows, int64_t first_column,
                          int64_t num_columns, const float* const* rows);
using DotsFunction = void(float* out, const std::byte* weight, int64_t num_weight_rows, const std::byte* packed,
                          int64_t first_row, int64_t num_rows, int64_t k);

// Products with weights of one dtype. Activations are converted once into `packed` rows, whose layout belongs to the
// instruction set. An output is one dot product with a summation order of its own: neither the number of rows nor the
// place of a row in a chunk or panel changes its bits.
struct MatmulKernels {
  // Bytes of a packed row of k inputs; a group takes its rows, rounded up to kPackRows, times this.
  int64_t (*packed_row_bytes)(int64_t k);

  // Stores columns [first_column, first_column + num_columns) of rows [first_row, first_row + num_rows) of a group,
  // with rows[i] pointing to the first of the columns. `first_column` is a multiple of pack_columns and, unless the
  // columns end at k, so is num_columns; first_row is a multiple of kPackRows. Fills the padding after column k with
  // zeros.
  PackFunction* pack;

  // out[r * kPanelRows + n] = dot(packed row first_row + r, weight row n) for r < num_rows <= kChunkRows,
  // n < num_weight_rows <= kPanelRows. Weight rows are RowBytes of k elements each; first_row is a multiple of
  // kPackRows.
  DotsFunction* dots;

  int64_t pack_columns = kPanelRows;  // a multiple of kPanelRows, at most kQuantizedColumns
};

// Consecutive rows of one sequence against one kv head.
struct AttentionTask {
  float* out = nullptr;                // [num_rows, num_heads, d] with row_stride between rows
  const float* q = nullptr;            // like out
  const int32_t* positions = nullptr;  // [num_rows]
  int64_t num_rows = 0;
  int64_t num_heads = 0;         // query heads that read this kv head
  int64_t head_dim = 0;          // d
  int64_t row_stride = 0;        // H * d elements
  const std::byte* k = nullptr;  // block 0 of this kv head
  const std::byte* v = nullptr;
  DType kv_dtype = DType::kF32;
  const int32_t* block_table = nullptr;
  int64_t block_size = 0;    // B positions
  int64_t block_stride = 0;  // G * B * d elements
  float scale = 0.0f;
  int64_t sliding_window = 0;
};

struct CpuKernels {
  const char* name;
  MatmulKernels f32;
  MatmulKernels bf16;
  MatmulKernels f16;
  MatmulKernels q8;
  MatmulKernels q4;

  // out[i] = silu(gate[i]) * up[i].
  void (*silu_mul)(float* out, const float* gate, const float* up, int64_t n);

  // Floats of scratch that `attention` needs on each thread, for up to max(kAttentionQueries, num_heads) queries.
  int64_t (*attention_scratch)(int64_t head_dim, int64_t num_heads, int64_t max_positions);
  // scratch is 64-byte aligned. task.num_rows * task.num_heads <= max(kAttentionQueries, task.num_heads).
  void (*attention)(const AttentionTask& task, float* scratch);

  const MatmulKernels& matmul(DType weight) const {
    switch (weight) {
      case DType::kF32:
        return f32;
      case DType::kBF16:
        return bf16;
      case DType::kQ8:
        return q8;
      case DType::kQ4:
        return q4;
      default:
        return f16;
    }
  }
};

// Parts of the tables below that live in files of their own.
int64_t AttentionScratchPortable(int64_t head_dim, int64_t num_heads, int64_t max_positions);
void AttentionPortable(const AttentionTask& task, float* scratch);
int64_t PackedRowBytesQuantizedPortable(int64_t k);
PackFunction PackQuantizedPortable;
DotsFunction DotsQ8Portable;
DotsFunction DotsQ4Portable;

extern const CpuKernels kPortableKernels;
#if defined(__x86_64__)
int64_t AttentionScratchAvx512(int64_t head_dim, int64_t num_heads, int64_t max_positions);
void AttentionAvx512(const AttentionTask& task, float* scratch);
int64_t PackedRowBytesQuantizedAvx512(int64_t k);
PackFunction PackQ8Avx512;
PackFunction PackQ4Avx512;
DotsFunction DotsQ8Avx512;
DotsFunction DotsQ4Avx512;

extern const CpuKernels kAvx512Kernels;
// Replaces kAvx512Kernels.bf16 where the machine has AMX.
extern const MatmulKernels kAmxBf16Matmul;
#endif

}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_CPU_KERNELS_H_
