// Which instruction sets this machine can run, and the kernels of each.
#ifndef CADRE_KERNELS_CPU_CPU_ISA_H_
#define CADRE_KERNELS_CPU_CPU_ISA_H_

#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/cpu_kernels.h"

namespace cadre {

// Null when this machine cannot run `isa`.
const CpuKernels* FindCpuKernels(CpuIsa isa);

}  // namespace cadre

#endif  // CADRE_KERNELS_CPU_CPU_ISA_H_
