#include "tests/support/simt/tensor_core.h"

#include <bit>
#include <cstring>

namespace simt {
namespace {

// The lower or upper bf16 of a register.
float Element(uint32_t pair, int half) { return std::bit_cast<float>(half == 0 ? pair << 16 : pair & 0xFFFF0000u); }

const MmaInput& InputOf(const void* const* in, int lane) { return *static_cast<const MmaInput*>(in[lane]); }

// A(row, k): register (row / 8) + 2 (k / 8) of lane 4 (row % 8) + k % 8 / 2.
float ElementOfA(const void* const* in, int row, int k) {
  return Element(InputOf(in, row % 8 * 4 + k % 8 / 2).a[row / 8 + k / 8 * 2], k % 2);
}

// B(k, column): register k / 8 of lane 4 column + k % 8 / 2.
float ElementOfB(const void* const* in, int k, int column) {
  return Element(InputOf(in, column * 4 + k % 8 / 2).b[k / 8], k % 2);
}

void CompleteMma(uint32_t, const void* const* in, void* const* out) {
  float a[16][16];
  float b[16][8];
  for (int k = 0; k < 16; ++k) {
    for (int row = 0; row < 16; ++row) a[row][k] = ElementOfA(in, row, k);
    for (int column = 0; column < 8; ++column) b[k][column] = ElementOfB(in, k, column);
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* const d = static_cast<float*>(out[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8;
      const int column = lane % 4 * 2 + i % 2;
      float sum = InputOf(in, lane).c[i];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      d[i] = sum;
    }
  }
}
constexpr WarpOperation kMma = {"mma.m16n8k16", CompleteMma, true};

template <int num_matrices, bool is_transposed>
void CompleteLdMatrix(uint32_t, const void* const* in, void* const* out) {
  for (int m = 0; m < num_matrices; ++m) {
    uint16_t matrix[8][8];
    for (int row = 0; row < 8; ++row) std::memcpy(matrix[row], in[m * 8 + row], sizeof(matrix[row]));
    for (int lane = 0; lane < 32; ++lane) {
      const int group = lane / 4;
      const int first = lane % 4 * 2;
      const uint32_t low = is_transposed ? matrix[first][group] : matrix[group][first];
      const uint32_t high = is_transposed ? matrix[first + 1][group] : matrix[group][first + 1];
      static_cast<uint32_t*>(out[lane])[m] = low | high << 16;
    }
  }
}
constexpr WarpOperation kLdMatrix[2][2] = {
    {{"ldmatrix.x2", CompleteLdMatrix<2, false>, true}, {"ldmatrix.x2.trans", CompleteLdMatrix<2, true>, true}},
    {{"ldmatrix.x4", CompleteLdMatrix<4, false>, true}, {"ldmatrix.x4.trans", CompleteLdMatrix<4, true>, true}}};

}  // namespace

void MmaM16N8K16(float (&d)[4], const MmaInput& input, CallSite site) {
  WaitForWarp(kMma, 0xFFFFFFFFu, &input, d, site);
}

void LdMatrix(uint32_t* r, int num_matrices, bool is_transposed, const void* smem_row, CallSite site) {
  if (Lane() < num_matrices * 8 && reinterpret_cast<uintptr_t>(smem_row) % 16 != 0) {
    Fail("ldmatrix at %s:%d of a row at %p, which is not aligned to 16 bytes", site.file, site.line, smem_row);
  }
  WaitForWarp(kLdMatrix[num_matrices == 4][is_transposed], 0xFFFFFFFFu, smem_row, r, site);
}

uint32_t ToBf16Bits(float x) {
  if (x != x) return 0x7FFF;
  const auto bits = std::bit_cast<uint32_t>(x);
  return (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
}

}  // namespace simt
