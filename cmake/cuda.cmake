# Whether kernels/cuda is built, and how: sets CADRE_HAS_CUDA and CADRE_CUDA_FLAGS.

set(CADRE_CUDA AUTO CACHE STRING "Build the CUDA device: AUTO (when nvcc 12.0 or newer is found), ON or OFF")
set_property(CACHE CADRE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(CADRE_CUDA_ARCHITECTURES 90a-real CACHE STRING "GPU architectures to compile for; 90a is Hopper (H100, H200)")

# Older ones know neither C++20 nor Hopper. They are asked before CMake does: it would end the configuration.
set(CADRE_NVCC_VERSION "")
if(CADRE_CUDA)  # AUTO counts as true
  include(CheckLanguage)
  set(CMAKE_CUDA_ARCHITECTURES ${CADRE_CUDA_ARCHITECTURES})
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE CADRE_NVCC_TEXT ERROR_QUIET)
    string(REGEX MATCH "release ([0-9.]+)" CADRE_NVCC_MATCH "${CADRE_NVCC_TEXT}")
    set(CADRE_NVCC_VERSION "${CMAKE_MATCH_1}")
  endif()
endif()

set(CADRE_HAS_CUDA OFF)
if(CADRE_NVCC_VERSION AND CADRE_NVCC_VERSION VERSION_GREATER_EQUAL 12.0)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  set(CADRE_HAS_CUDA ON)
  # CMake before 3.26 does not know how a newer nvcc is told.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
elseif(CADRE_CUDA AND NOT CADRE_CUDA STREQUAL "AUTO")
  message(FATAL_ERROR "CADRE_CUDA is ON, but there is no nvcc of version 12.0 or newer (found: '${CADRE_NVCC_VERSION}')")
endif()
message(STATUS "CUDA device: ${CADRE_HAS_CUDA} (nvcc: '${CADRE_NVCC_VERSION}')")

# A product and a sum stay two roundings unless the code says fma, as on the CPU.
set(CADRE_CUDA_FLAGS -fmad=false --expt-relaxed-constexpr -Xptxas=-v,-warn-spills)
if(CADRE_NVCC_VERSION VERSION_GREATER_EQUAL 13.0)  # every driver for it can expand what this makes
  list(APPEND CADRE_CUDA_FLAGS --compress-mode=size)
endif()
if(CADRE_TESTS)  # who builds to use it, with another compiler, is not stopped by a spilled register
  list(APPEND CADRE_CUDA_FLAGS -Xptxas=-Werror -Werror=all-warnings)
  # What ptxas mentions without a warning.
  list(PREPEND CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CURRENT_LIST_DIR}/check_ptxas.sh)
endif()
