# make demo      install what is missing, build, serve the demo model, send a prompt, show the experts, stop
# make build     the release build: build/release/bin/cadre-server and build/release/bin/cadre
# make install   programs, manual pages, completions and documents into PREFIX (/usr/local), after make build; DESTDIR goes before it
# make test      install, build, run every test; those that need a GPU are skipped where there is none
# make sanitize  the tests of kernels and engine under ASan+UBSan and under TSan
# make mutants   seeds bugs into a copy of the tree, one at a time, and sees the tests find each; one bug in MUTANT_SHARE
# make lint      clang-format and clang-tidy
# make fuzz      every fuzz target for FUZZ_SECONDS each (30)
# make bench     kernel and engine benchmarks
# make gpu-bundle  what proves the GPU engine on another machine: build/gpu-bundle/, and a .tar.gz of it
# make image     a container image for CPUs: docker/README.md; IMAGE=cuda for GPUs
# make image-test  builds the CPU image with buildah and runs it; with IMAGE_PROGRAMS=build/release/bin, of those programs
# make clean     remove build/

JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 30
MUTANT_SHARE ?= 1
IMAGE ?= cpu
IMAGE_PROGRAMS ?=
PREFIX ?= /usr/local

.PHONY: build install test demo sanitize asan tsan mutants fuzz lint format tidy bench gpu-bundle image image-test clean

build:
	tools/install_dependencies.sh build
	cmake --preset release -DCADRE_TESTS=OFF
	cmake --build --preset release -j $(JOBS)

# Not after "build": root should neither build nor own what is built.
install:
	cmake --install build/release --component cadre --prefix $(PREFIX) --strip

test:
	tools/install_dependencies.sh test
	tools/install_gateway.sh
	tools/install_grpc_js.sh
	cmake --preset release -DCADRE_TESTS=ON
	cmake --build --preset release -j $(JOBS)
	ctest --preset release

demo: build
	tools/demo.sh

sanitize: asan tsan

asan tsan:
	tools/install_dependencies.sh test
	cmake --preset $@
	cmake --build --preset $@ -j $(JOBS)
	ctest --preset $@ -j $(JOBS)

mutants:
	tools/install_dependencies.sh test
	tests/mutants/run.py --share $(MUTANT_SHARE)

fuzz:
	tools/install_dependencies.sh fuzz
	cmake --preset fuzz
	cmake --build --preset fuzz -j $(JOBS) --target fuzzers
	tools/fuzz.sh $(FUZZ_SECONDS)

lint: format tidy

format:
	tools/lint.sh format

tidy:
	tools/install_dependencies.sh test
	cmake --preset release -DCADRE_TESTS=ON
	cmake --build --preset release -j $(JOBS) --target cadre_proto
	tools/lint.sh tidy

bench:
	tools/install_dependencies.sh test
	cmake --preset release -DCADRE_TESTS=ON
	cmake --build --preset release -j $(JOBS) --target kernel_bench engine_bench
	build/release/bin/kernel_bench
	build/release/bin/engine_bench --model models/demo

gpu-bundle:
	tools/install_dependencies.sh test
	cmake --preset release -DCADRE_TESTS=ON -DCADRE_CUDA=ON
	cmake --build --preset release -j $(JOBS) --target gpu_bundle_programs
	rm -rf build/gpu-bundle
	cmake --install build/release --component gpu_bundle --prefix build/gpu-bundle --strip >build/gpu-bundle.log
	tar -czf build/gpu-bundle.tar.gz -C build gpu-bundle
	du -sh --apparent-size build/gpu-bundle build/gpu-bundle.tar.gz

image:
	docker/build_image.sh $(IMAGE)

image-test:
	IMAGE_PROGRAMS=$(IMAGE_PROGRAMS) /usr/bin/python3 tests/deploy/image_test.py

clean:
	rm -rf build
