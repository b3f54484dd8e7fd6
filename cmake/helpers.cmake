# cadre_library(NAME SRCS ... DEPS ...): a static library with the project's warnings.
# cadre_executable(NAME SRCS ... DEPS ...): a program in build/<preset>/bin.
# cadre_test(NAME SRCS ... DEPS ... [ARGS ...] [LABELS ...] [TIMEOUT seconds]): a GoogleTest program run by ctest.

# A test that takes longer hangs. Sanitizers make the longest ones take minutes where little else runs.
set(CADRE_TEST_TIMEOUT 300)
if(CADRE_SANITIZE)
  set(CADRE_TEST_TIMEOUT 900)
endif()

add_library(cadre_warnings INTERFACE)
target_compile_options(cadre_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wnon-virtual-dtor;-Werror>)
if(CADRE_SANITIZE)
  # gcc's flow analysis reports false positives in instrumented library headers.
  target_compile_options(cadre_warnings INTERFACE -Wno-error=maybe-uninitialized)
endif()

function(cadre_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SRCS})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE cadre_warnings)
endfunction()

function(cadre_executable name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} cadre_warnings)
endfunction()

function(cadre_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS;ARGS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT ${CADRE_TEST_TIMEOUT})
  endif()
  cadre_executable(${name} SRCS ${ARG_SRCS} DEPS ${ARG_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} ${ARG_ARGS} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

# cadre_gpu_test(NAME SRCS ... DEPS ...): one that needs a real GPU. It is built wherever CUDA is; where there is no GPU it
# ends with code 77, and ctest reports it as skipped.
function(cadre_gpu_test name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  cadre_executable(${name} SRCS ${ARG_SRCS} ${PROJECT_SOURCE_DIR}/tests/support/gpu_test_main.cc
    DEPS ${ARG_DEPS} cadre_cuda GTest::gtest GTest::gmock)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT 600 LABELS gpu SKIP_RETURN_CODE 77 RUN_SERIAL ON)
endfunction()

# cadre_fuzz(NAME SRCS ... DEPS ...): NAME_fuzz is defined by tests/fuzz/NAME_fuzz.cc. Every build replays the corpus in
# tests/fuzz/corpus/NAME, mutated a bounded number of times, as a test; with CADRE_FUZZ, a libFuzzer program is built too.
function(cadre_fuzz name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  cadre_executable(${name}_replay SRCS ${ARG_SRCS} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.cc DEPS ${ARG_DEPS})
  set_target_properties(${name}_replay PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name}_replay COMMAND ${name}_replay ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
  set_tests_properties(${name}_replay PROPERTIES TIMEOUT ${CADRE_TEST_TIMEOUT} LABELS fuzz)
  if(CADRE_FUZZ)
    cadre_executable(${name}_fuzz SRCS ${ARG_SRCS} DEPS ${ARG_DEPS})
    target_link_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
    add_dependencies(fuzzers ${name}_fuzz)
  endif()
endfunction()
