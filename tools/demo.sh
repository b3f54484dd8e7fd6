#!/usr/bin/env bash
# Serves models/demo on free ports, streams a completion, shows the experts and some metrics, and stops the server.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=build/release/bin
address=127.0.0.1:${CADRE_DEMO_PORT:-50151}
metrics_port=${CADRE_DEMO_METRICS_PORT:-50152}
prompt=${1:-"Once upon a time"}

"$bin/cadre-server" --model models/demo --port "${address##*:}" --metrics-port "$metrics_port" &
server=$!
stop() { kill -TERM "$server" 2>/dev/null && wait "$server"; }
trap 'stop || true' EXIT

# A server of somebody else on the same port answers too: ours must be alive once the port answers.
for _ in $(seq 200); do
  answers=no
  "$bin/cadre" health --address "$address" >/dev/null 2>&1 && answers=yes
  kill -0 "$server" 2>/dev/null || { echo "demo: the server ended before it was ready" >&2; exit 1; }
  [ "$answers" = yes ] && break
  sleep 0.1
done

heading() { printf '\n\033[1m%s\033[0m\n' "$1"; }

heading "cadre generate \"$prompt\""
"$bin/cadre" generate "$prompt" --max-tokens 96 --seed 7 --address "$address"

heading "cadre generate \"12 + 30 =\" (greedy)"
"$bin/cadre" generate "12 + 30 =" --max-tokens 8 --temperature 0 --address "$address"

heading "cadre experts"
"$bin/cadre" experts --address "$address"

heading "GET http://127.0.0.1:$metrics_port/metrics (some lines)"
# A shell and bash's own /dev/tcp: a fresh machine may have neither curl nor wget.
exec 3<>"/dev/tcp/127.0.0.1/$metrics_port"
printf 'GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&3
wanted='generated_tokens_total|routing_assignments_total|router_load_entropy_ratio|expert_extreme_load_ratio|kv_blocks'
grep -E "^cadre_($wanted)" <&3
exec 3>&-

heading "SIGTERM: the server drains and exits"
trap - EXIT
stop
