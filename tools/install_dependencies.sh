#!/usr/bin/env bash
# Installs what the build, the tests and the demo need and this machine lacks, from the distribution's own packages
# (Debian 12, Ubuntu 24.04). Does nothing, and needs no privileges, when all is there.
#
#   tools/install_dependencies.sh [build|test|fuzz]     test (the default) includes build, fuzz includes test
set -euo pipefail

build_packages=(
  g++ cmake ninja-build make pkg-config ccache mold python3
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libabsl-dev
  libspdlog-dev prometheus-cpp-dev libcli11-dev nlohmann-json3-dev
  libpcre2-dev libutf8proc-dev libboost-dev libxxhash-dev zlib1g-dev
  libssl-dev libc-ares-dev libre2-dev libedit-dev
)
test_packages=(
  git libgtest-dev libgmock-dev libbenchmark-dev libboost-context-dev clang-format clang-tidy
  python3-grpcio python3-protobuf python3-yaml prometheus haproxy docker-compose mandoc zsh
)
# The page /experts is tested in it where the distribution has it as a package (Debian: 122 MB, half a minute; Ubuntu
# has none); elsewhere those tests are skipped.
browser_package=chromium
fuzz_packages=(clang libclang-rt-dev)

level=${1:-test}
packages=("${build_packages[@]}")
case "$level" in
  build) ;;
  test) packages+=("${test_packages[@]}") ;;
  fuzz) packages+=("${test_packages[@]}" "${fuzz_packages[@]}") ;;
  *) echo "usage: $0 [build|test|fuzz]" >&2; exit 64 ;;
esac

is_installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ]
}
# Whether the browser is wanted, not there, and to be had.
lacks_browser() {
  [ "$level" != build ] && ! is_installed "$browser_package" &&
    apt-cache policy "$browser_package" 2>/dev/null | grep "Candidate: [0-9]" >/dev/null
}

missing=()
for package in "${packages[@]}"; do
  is_installed "$package" || missing+=("$package")
done
if lacks_browser; then missing+=("$browser_package"); fi
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "install_dependencies: this system has no apt-get; install the equivalents of: ${missing[*]}" >&2
  exit 69
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "install_dependencies: run as root, or install: apt-get install ${missing[*]}" >&2
    exit 77
  fi
  as_root=(sudo)
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q
# What is to be had may be known only now.
if [[ " ${missing[*]} " != *" $browser_package "* ]] && lacks_browser; then missing+=("$browser_package"); fi
# The prometheus package would start a service of its own where an init system runs; the tests start theirs.
"${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}"
