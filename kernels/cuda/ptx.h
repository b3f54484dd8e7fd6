// What kernels need of PTX: tensor core products, matrix loads, asynchronous copies and dependent launches. Under the
// emulator the functions of the same names come with simt.h.
#ifndef CADRE_KERNELS_CUDA_PTX_H_
#define CADRE_KERNELS_CUDA_PTX_H_

#include <cstdint>

#include "kernels/cuda/simt.h"

#if !defined(CADRE_SIMT_EMULATOR)

namespace cadre::cuda {

// The address of `pointer` in the block's shared memory.
__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// ---- tensor cores: every thread of the warp calls, at the same place ----
// In the fragments below lane l has g = l / 4 and t = l % 4, and a register holds two bf16, the lower index in its
// lower half (PTX ISA, "Matrix Fragments for mma.m16n8k16").

// d [16, 8] += a [16, 16] * b [16, 8].
//   a[0], a[1], a[2], a[3]: rows g, g + 8, g, g + 8; columns 2t, 2t + 1 in the first two, 8 more in the last two
//   b[0], b[1]: column g; rows 2t, 2t + 1 and 2t + 8, 2t + 9
//   d[0], d[1]: row g, columns 2t, 2t + 1; d[2], d[3]: the same of row g + 8
__device__ __forceinline__ void MmaM16N8K16Bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Loads 8 x 8 matrices of 16-bit elements from shared memory. Lane 8i + j gives the address of row j of matrix i, 16
// bytes, aligned to 16. r[i] gets elements 2t and 2t + 1 of row g of matrix i; transposed, rows 2t and 2t + 1 of
// column g. LdMatrixX2 ignores the addresses of lanes 16 to 31, which must be shared addresses all the same.
__device__ __forceinline__ void LdMatrixX4(uint32_t (&r)[4], const void* smem_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(smem_row))
               : "memory");
}

__device__ __forceinline__ void LdMatrixX2(uint32_t (&r)[2], const void* smem_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(SharedAddress(smem_row))
               : "memory");
}

__device__ __forceinline__ void LdMatrixX4Trans(uint32_t (&r)[4], const void* smem_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(smem_row))
               : "memory");
}

__device__ __forceinline__ void LdMatrixX2Trans(uint32_t (&r)[2], const void* smem_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(SharedAddress(smem_row))
               : "memory");
}

// Two floats as bfloat16, rounded to nearest, ties to even; `low` in the lower half, as fragments want them.
__device__ __forceinline__ uint32_t PackBFloat16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// ---- asynchronous copies: each thread has its own groups ----

// Begins to copy 16 bytes from global to shared memory, both aligned to 16, past the first-level cache; zeros if not
// `valid`, and then `global` is not read. What the destination holds is undefined until the group has been waited for.
__device__ __forceinline__ void CpAsync16(void* smem, const void* global, bool valid) {
  asm volatile(
      "{\n"
      ".reg .pred is_ignored;\n"
      "setp.eq.u32 is_ignored, %2, 0;\n"
      "cp.async.cg.shared.global [%0], [%1], 16, is_ignored;\n"
      "}"
      :
      : "r"(SharedAddress(smem)), "l"(__cvta_generic_to_global(global)), "r"(static_cast<uint32_t>(valid))
      : "memory");
}

// Closes the group of the copies begun since the last commit; it may be empty.
__device__ __forceinline__ void CpAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the last N groups of this thread are still under way. Other threads see the copies only after a
// barrier.
template <int N>
__device__ __forceinline__ void CpAsyncWait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

// ---- programmatic dependent launch ----

// Waits until the kernels before this one in the stream have ended and their writes can be seen. Without the launch
// attribute it returns at once.
__device__ __forceinline__ void GridDependencyWait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// Allows the next kernel of the stream to start.
__device__ __forceinline__ void GridDependencyLaunch() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

}  // namespace cadre::cuda

#endif  // !CADRE_SIMT_EMULATOR

#endif  // CADRE_KERNELS_CUDA_PTX_H_
