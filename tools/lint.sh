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
    # Only files that the build knows, tests' data generators and fuzz mains included.
    known=$(grep -o '"file": "[^"]*"' build/release/compile_commands.json | cut -d'"' -f4 | sort -u)
    files=$(for f in $(git ls-files 'kernels/*.cc' 'engine/*.cc' 'server/*.cc' 'tools/*.cc'); do
      grep -qx "$PWD/$f" <<<"$known" && echo "$f"
    done)
    printf '%s\n' $files | xargs -P "$(nproc)" -n 2 clang-tidy --quiet -p build/release
    ;;
  *)
    echo "usage: $0 format|tidy" >&2
    exit 64
    ;;
esac
