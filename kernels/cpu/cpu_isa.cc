#include "kernels/cpu/cpu_isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
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

// AVX-512 F, BW, DQ, VL, VNNI and BF16, FMA and F16C, with the registers enabled. No processor has BF16 without VNNI.
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
  const bool has_avx512 = HasBit(b, 16) && HasBit(b, 17) && HasBit(b, 30) && HasBit(b, 31) && HasBit(c, 11);
  if (!has_avx512 || __get_cpuid_count(7, 1, &a, &b, &c, &d) == 0) return false;
  return HasBit(a, 5);
}

// AMX with bfloat16, and the operating system's permission to use its 8 KiB of state, which must be asked for once in a
// process before the first tile instruction.
bool HasAmxBf16() {
  if (!HasAvx512Bf16()) return false;
  constexpr uint64_t kTileState = uint64_t{3} << 17;
  if ((EnabledState() & kTileState) != kTileState) return false;
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;
  uint32_t d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || !HasBit(d, 22) || !HasBit(d, 24)) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  static const bool is_permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return is_permitted;
}

const CpuKernels* Avx512Kernels() { return HasAvx512Bf16() ? &kAvx512Kernels : nullptr; }

const CpuKernels* AmxKernels() {
  static const CpuKernels kernels = [] {
    CpuKernels amx = kAvx512Kernels;
    amx.name = "amx-bf16";
    amx.bf16 = kAmxBf16Matmul;
    return amx;
  }();
  return HasAmxBf16() ? &kernels : nullptr;
}

#else

const CpuKernels* Avx512Kernels() { return nullptr; }
const CpuKernels* AmxKernels() { return nullptr; }

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
      return Avx512Kernels();
    case CpuIsa::kAmxBf16:
      return AmxKernels();
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
