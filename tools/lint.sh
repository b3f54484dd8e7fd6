#!/usr/bin/env bash
# Style and static analysis.
#   tools/lint.sh format   every C++ file is as clang-format leaves it
#   tools/lint.sh tidy     clang-tidy finds nothing (needs a configured build/release)
set -euo pipefail
cd "$(dirname "$0")/.."

sources() { git ls-files '*.cc' '*.h' '*.cu' '*.cuh'; }

case "${1:-}" in
  format)
    # Versions of clang-format differ in details: the one of Debian 12 decides.
    formatter=$(command -v clang-format-14 || command -v clang-format)
    if ! "$formatter" --version | grep -q 'version 14\.'; then
      echo "lint: clang-format 14 is needed, found: $("$formatter" --version)" >&2
      exit 69
    fi
    sources | xargs "$formatter" --dry-run --Werror
    ;;
  tidy)
    # Every file must be one that the build knows: tidy has no flags for others. Not in a release build: fail points;
    # what stands in for CUDA, where there is CUDA.
    database=build/release/compile_commands.json
    files=$(git ls-files 'kernels/*.cc' 'engine/*.cc' 'server/*.cc' 'tools/*.cc' |
      grep -vxFe engine/base/failpoint.cc -e kernels/cuda/no_cuda.cc)
    known=$(grep -o '"file": "[^"]*"' "$database" | cut -d'"' -f4)
    unknown=$(sed "s|^|$PWD/|" <<<"$files" | grep -vxF -f <(echo "$known") || true)
    if [ -n "$unknown" ]; then
      printf 'lint: not in %s (stale, or missing in CMakeLists.txt):\n%s\n' "$database" "$unknown" >&2
      exit 65
    fi
    # Findings are shown together at the end, where a log cut short still has them.
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    one='clang-tidy --quiet -p build/release "$0" 2>&1 || { echo "lint: clang-tidy fails on $0"; exit 1; }'
    if ! xargs -P "$(nproc)" -n 1 sh -c "$one" <<<"$files" >"$log"; then
      grep -vE '^[0-9]+ warnings? generated\.$|^$' "$log" >&2
      exit 1
    fi
    echo "lint: clang-tidy finds nothing in $(wc -l <<<"$files") files"
    ;;
  *)
    echo "usage: $0 format|tidy" >&2
    exit 64
    ;;
esac
