# Compiler cache, fast linker and sanitizers: what changes the speed or the checks of a build, never its result.

find_program(CADRE_CCACHE ccache)
if(CADRE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Paths are told relative to the tree, so that every checkout and build folder shares what one has compiled.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
    CCACHE_SLOPPINESS=pch_defines,time_macros ${CADRE_CCACHE})
endif()

find_program(CADRE_MOLD mold)
if(CADRE_MOLD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12.1)
  add_link_options(-fuse-ld=mold)
endif()

if(CADRE_FAILPOINTS)
  add_compile_definitions(CADRE_FAILPOINTS)
endif()

if(CADRE_FUZZ)
  # Coverage is what steers a fuzzer, so the libraries are instrumented, not the targets alone.
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=all -g1)
  add_link_options(-fsanitize=address,undefined)
  add_compile_definitions(CADRE_SANITIZED)
endif()

if(CADRE_SANITIZE)
  add_compile_options(-fsanitize=${CADRE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g1)
  add_link_options(-fsanitize=${CADRE_SANITIZE})
  add_compile_definitions(CADRE_SANITIZED)
endif()
