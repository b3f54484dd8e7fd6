#include "kernels/cpu/cpu_isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace cadre {
namespace {

#if defined(__x86_64__)

bool HasBit(uint32_t word, int bit) { return ((word >> bit) & 1u) != 0; }

// State components that the kernel saves on a context switch, as XGETBV reports them.
uint64_t EnabledState() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// AVX-512 F, BW, DQ, VL and BF16, FMA and F16C, with the registers enabled.
bool HasAvx512Bf16() {
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;
  uint32_t d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return false;
  const bool os_saves_state = HasBit(c, 27);
  if (!os_saves_state || !HasBit(c, 12) || !HasBit(c, 29)) return false;
  constexpr uint64_t kAvx512State = 0xE6;  // XMM, YMM, opmask, ZMM
  if ((EnabledState() & kAvx512State) != kAvx512State) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  const bool has_avx512 = HasBit(b, 16) && HasBit(b, 17) && HasBit(b, 30) && HasBit(b, 31);
  if (!has_avx512 || __get_cpuid_count(7, 1, &a, &b, &c, &d) == 0) return false;
  return HasBit(a, 5);
}

#else

bool HasAvx512Bf16() { return false; }

#endif

}  // namespace

std::string_view CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return "portable";
    case CpuIsa::kAvx512Bf16:
      return "avx512-bf16";
    case CpuIsa::kAmxBf16:
      return "amx-bf16";
  }
  return "unknown";
}

const CpuKernels* FindCpuKernels(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return &kPortableKernels;
    case CpuIsa::kAvx512Bf16:
#if defined(__x86_64__)
      if (HasAvx512Bf16()) return &kAvx512Kernels;
#endif
      return nullptr;
    case CpuIsa::kAmxBf16:
      return nullptr;
  }
  return nullptr;
}

std::vector<CpuIsa> SupportedCpuIsas() {
  std::vector<CpuIsa> isas;
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx512Bf16, CpuIsa::kAmxBf16}) {
    if (FindCpuKernels(isa) != nullptr) isas.push_back(isa);
  }
  return isas;
}

}  // namespace cadre
