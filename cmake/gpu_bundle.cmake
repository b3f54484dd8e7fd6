# What `make gpu-bundle` gathers: a folder that proves the GPU engine on a machine that has nothing of the build's but a
# GPU, its driver and glibc. cmake --install build/release --component gpu_bundle --prefix FOLDER --strip

set(CADRE_GPU_BUNDLE_PROGRAMS
  cadre-server cadre cuda_ops_test cuda_model_test gpu_calibrate gpu_kernel_bench engine_bench)

foreach(program IN LISTS CADRE_GPU_BUNDLE_PROGRAMS)
  set_target_properties(${program} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
  # DT_RPATH and not DT_RUNPATH: it also holds for what the libraries need, which name no folder themselves.
  target_link_options(${program} PRIVATE -Wl,--disable-new-dtags)
endforeach()
install(TARGETS ${CADRE_GPU_BUNDLE_PROGRAMS} RUNTIME_DEPENDENCY_SET cadre_gpu_bundle
  RUNTIME DESTINATION bin COMPONENT gpu_bundle EXCLUDE_FROM_ALL)
# glibc is the machine's, and the driver's libraries must be.
install(RUNTIME_DEPENDENCY_SET cadre_gpu_bundle
  PRE_EXCLUDE_REGEXES "^ld-linux" "^lib(c|m|dl|rt|pthread|resolv|nsl|util)\\.so" "^libcuda" "^libcublas" "^libnv"
  LIBRARY DESTINATION lib COMPONENT gpu_bundle EXCLUDE_FROM_ALL)

# Where the tests look for it, from the bundle's root.
install(DIRECTORY tests/golden/checkpoints DESTINATION tests/golden COMPONENT gpu_bundle EXCLUDE_FROM_ALL)
# Its tokenizer: weights are made there, of the shapes that count.
install(DIRECTORY models/demo DESTINATION models COMPONENT gpu_bundle EXCLUDE_FROM_ALL
  PATTERN "*.safetensors" EXCLUDE)
install(PROGRAMS tests/gpu/gpu-check.sh DESTINATION . COMPONENT gpu_bundle EXCLUDE_FROM_ALL)
install(FILES tests/gpu/README.md DESTINATION . COMPONENT gpu_bundle EXCLUDE_FROM_ALL)
install(DIRECTORY tests/gpu/scripts DESTINATION . COMPONENT gpu_bundle EXCLUDE_FROM_ALL
  FILES_MATCHING PATTERN "*.py" PATTERN "__pycache__" EXCLUDE)
install(DIRECTORY tests/gpu/shapes DESTINATION . COMPONENT gpu_bundle EXCLUDE_FROM_ALL)

add_custom_target(gpu_bundle_programs DEPENDS ${CADRE_GPU_BUNDLE_PROGRAMS})
