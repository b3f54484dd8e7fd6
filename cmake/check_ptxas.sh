#!/bin/sh
# Runs a compiler of GPU code (the arguments), and fails on what ptxas only mentions: spilled registers, wgmma
# instructions that it made wait for each other (C7510), setmaxnreg that it ignored (C7508). What was said of the
# kernels of NAME.o is kept in NAME.o.ptxas.
set -u

output=
previous=
for argument in "$@"; do
  if [ "$previous" = -o ]; then output=$argument; fi
  previous=$argument
done
[ -n "$output" ] || exec "$@"

report=$output.ptxas
"$@" 2>"$report"
status=$?
if [ $status -ne 0 ]; then
  cat "$report" >&2
  exit $status
fi
if bad=$(grep -nE 'C7508|C7510|[^0-9][1-9][0-9]* bytes spill|[Ss]erializ.*wgmma|wgmma.*serializ' "$report"); then
  printf '%s: ptxas made slow code of it:\n%s\n(all of it: %s)\n' "$output" "$bad" "$report" >&2
  rm -f "$output"
  exit 1
fi
# What is neither a report on a kernel nor a heading is a warning that somebody should see.
grep -vE "^ptxas info|^ *(Function properties|[0-9]+ bytes stack)|^$" "$report" >&2
exit 0
