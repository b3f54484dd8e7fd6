# Whether kernels/cuda is built, and how: sets CADRE_HAS_CUDA and CADRE_CUDA_FLAGS.

set(CADRE_CUDA AUTO CACHE STRING "Build the CUDA device: AUTO (when nvcc is found), ON or OFF")
set_property(CACHE CADRE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(CADRE_CUDA_ARCHITECTURES 90a CACHE STRING "GPU architectures to compile for; 90a is Hopper (H100, H200)")

set(CADRE_HAS_CUDA OFF)
if(CADRE_CUDA)  # AUTO counts as true
  include(CheckLanguage)
  set(CMAKE_CUDA_ARCHITECTURES ${CADRE_CUDA_ARCHITECTURES})
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(CADRE_HAS_CUDA ON)
    # CMake before 3.26 does not know how a newer nvcc is told.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
  elseif(NOT CADRE_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "CADRE_CUDA is ON, but there is no CUDA compiler (nvcc) to be found")
  endif()
endif()

# A product and a sum stay two roundings unless the code says fma, as on the CPU. The compiler's report of registers and
# spills goes to the build's log, where a test reads it.
set(CADRE_CUDA_FLAGS -fmad=false --expt-relaxed-constexpr --extended-lambda -Xptxas=-v,-warn-spills,-Werror -Werror=all-warnings)
message(STATUS "CUDA device: ${CADRE_HAS_CUDA}")
