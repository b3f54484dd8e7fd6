// AMX without AMX: the code of kernels/cpu/amx_dots.h over tile registers in plain C++.
#ifndef CADRE_TESTS_KERNELS_EMULATED_AMX_H_
#define CADRE_TESTS_KERNELS_EMULATED_AMX_H_

#include <memory>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/device.h"

namespace cadre {

// Needs AVX-512, as everything around the tiles does.
const MatmulKernels& EmulatedAmxMatmul();
std::unique_ptr<Device> MakeEmulatedAmxDevice(int num_threads);

}  // namespace cadre

#endif  // CADRE_TESTS_KERNELS_EMULATED_AMX_H_
