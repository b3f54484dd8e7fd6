#!/usr/bin/env bash
# Programs that users get have no failpoints in them: no_failpoints_test.sh PROGRAM...
set -euo pipefail

status=0
for program in "$@"; do
  symbols=$(nm -C "$program")
  # A stripped program would pass whatever is in it.
  grep -q ' [Tt] main$' <<<"$symbols" || { echo "$program: has no symbols to look at"; status=1; }
  if grep -i failpoint <<<"$symbols"; then
    echo "$program: contains failpoints"
    status=1
  fi
done
exit "$status"
