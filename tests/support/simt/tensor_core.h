// Tensor core products and matrix loads, under the names of kernels/cuda/ptx.h, where their layouts are.
#ifndef CADRE_TESTS_SUPPORT_SIMT_TENSOR_CORE_H_
#define CADRE_TESTS_SUPPORT_SIMT_TENSOR_CORE_H_

#include <cstdint>

#include "tests/support/simt/block.h"

namespace simt {

struct MmaInput {
  uint32_t a[4];
  uint32_t b[2];
  float c[4];
};

// d = c + a * b in float32, each element summed in rising depth with one rounding per sum: a product of two bf16 is
// exact, but below the smallest normal float. A device's order within the 16 products is not documented.
void MmaM16N8K16(float (&d)[4], const MmaInput& input, CallSite site);

// `num_matrices` is 2 or 4.
void LdMatrix(uint32_t* r, int num_matrices, bool is_transposed, const void* smem_row, CallSite site);

// Rounded to nearest, ties to even; every NaN is the device's, 0x7FFF.
uint32_t ToBf16Bits(float x);

}  // namespace simt

namespace cadre::cuda {

inline void MmaM16N8K16Bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                            simt::CallSite site = simt::CallSite::Here()) {
  const simt::MmaInput input = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {d[0], d[1], d[2], d[3]}};
  simt::MmaM16N8K16(d, input, site);
}

inline void LdMatrixX4(uint32_t (&r)[4], const void* smem_row, simt::CallSite site = simt::CallSite::Here()) {
  simt::LdMatrix(r, 4, false, smem_row, site);
}
inline void LdMatrixX2(uint32_t (&r)[2], const void* smem_row, simt::CallSite site = simt::CallSite::Here()) {
  simt::LdMatrix(r, 2, false, smem_row, site);
}
inline void LdMatrixX4Trans(uint32_t (&r)[4], const void* smem_row, simt::CallSite site = simt::CallSite::Here()) {
  simt::LdMatrix(r, 4, true, smem_row, site);
}
inline void LdMatrixX2Trans(uint32_t (&r)[2], const void* smem_row, simt::CallSite site = simt::CallSite::Here()) {
  simt::LdMatrix(r, 2, true, smem_row, site);
}

inline uint32_t PackBFloat16(float low, float high) { return simt::ToBf16Bits(low) | simt::ToBf16Bits(high) << 16; }

}  // namespace cadre::cuda

#endif  // CADRE_TESTS_SUPPORT_SIMT_TENSOR_CORE_H_
