#!/usr/bin/env bash
# Runs every libFuzzer target of a `fuzz` build for a number of seconds, two at a time, from the committed corpora.
# What a target finds is kept in build/fuzz/findings, and fails the run.
#
#   tools/fuzz.sh [seconds [target...]]     30 seconds and all targets unless told otherwise
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-30}
shift || true
bin=build/fuzz/bin
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for program in "$bin"/*_fuzz; do targets+=("$(basename "$program" _fuzz)"); done
fi

fuzz_one() {
  local target=$1 seconds=$2
  local work=build/fuzz/findings/$target
  rm -rf "$work"
  mkdir -p "$work/new"
  # New inputs go to the first folder; the committed corpus is only read.
  if build/fuzz/bin/"${target}_fuzz" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
      -artifact_prefix="$work/" "$work/new" "tests/fuzz/corpus/$target" >"$work/log" 2>&1; then
    local executions
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
    printf '%-24s %s executions, no findings\n' "$target" "$executions"
    return 0
  fi
  printf '%-24s FAILED: %s\n' "$target" "$work"
  tail -40 "$work/log"
  return 1
}
export -f fuzz_one

printf '%s\0' "${targets[@]}" | xargs -0 -P "$(nproc)" -I{} bash -c 'fuzz_one "$@"' _ {} "$seconds"
