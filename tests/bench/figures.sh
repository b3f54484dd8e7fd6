#!/usr/bin/env bash
# Behavior under load, all figures in one run of about 20 minutes (needs `make test` before, and a quiet machine):
# overload, cancels, silent readers, the cost of streaming, masks, prefix cache, scheduler, tokenizing, a long soak.
#
#   tests/bench/figures.sh [seconds of the soak]      600 unless told otherwise
set -uo pipefail
cd "$(dirname "$0")/../.."

soak_seconds=${1:-600}
bin=build/release/bin
port=50971
failed=()

figure() {
  local name=$1
  shift
  printf '\n==> %s\n$ %s\n' "$name" "$*"
  "$@" || failed+=("$name")
}

soak() {
  "$bin/cadre-server" --model sim:step_ms=0 --port $port --metrics-port $((port + 1)) --log-level warn &
  local server=$!
  for _ in $(seq 50); do "$bin/cadre" -a 127.0.0.1:$port health >/dev/null 2>&1 && break; sleep 0.2; done
  "$bin/soak_bench" --target 127.0.0.1:$port --pid $server --seconds "$soak_seconds"
  local status=$?
  kill $server
  wait $server && return $status
}

printf 'machine: %s, %s CPUs, load average %s, %s\n' "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)" \
  "$(nproc)" "$(cut -d' ' -f1 /proc/loadavg)" "$(date -u +%F)"
export CADRE_BIN=$PWD/$bin
figure "overload"           /usr/bin/python3 tests/bench/overload_bench.py -- --max-num-seqs 16 --max-queue-requests 8
figure "cancels"            build/release/tests/services_test --gtest_filter='*Cancel*'
figure "streaming"          "$bin/stream_bench" --model sim:step_ms=5 --streams 64
figure "silent readers"     "$bin/stream_bench" --model sim:step_ms=5 --streams 128 --silent 100
figure "masks"              "$bin/mask_bench" --documents 50
figure "sampling"           "$bin/sample_bench"
figure "prefix cache"       "$bin/prefix_bench" --model models/demo --repeats 9
figure "scheduler"          "$bin/scheduler_bench"
figure "tokenizing"         "$bin/tokenize_bench" --ratios --bytes 65536
figure "soak"               soak

printf '\n%s of 10 runs failed or missed their target%s\n' "${#failed[@]}" "${failed[*]:+: ${failed[*]}}"
exit ${#failed[@]}
