#!/usr/bin/env bash
# Installs, from npm's registry, what clients/examples/stream.mjs needs and no distribution has, for
# tests/e2e/examples_test.py: into build/grpc-js, so that nothing else of the machine changes. Does nothing when it is
# there, or where Node.js or npm is missing. Ends with 0 and one line when it cannot be had, as without a network: the
# example is parsed and not run then, and the test says so.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(@grpc/grpc-js@1.13.4 @grpc/proto-loader@0.8.0)
folder=build/grpc-js
log=build/grpc-js.log
stamp="$folder/installed"

[ -e "$stamp" ] && exit 0
{ command -v node && command -v npm; } >/dev/null || exit 0
rm -rf "$folder"
mkdir -p "$folder"
echo '{"private": true}' >"$folder/package.json"
echo "installing ${packages[*]} from npm's registry into $folder"
if (cd "$folder" && timeout 120 npm install --cache "$PWD/cache" --no-audit --no-fund --no-progress \
  --ignore-scripts --fetch-retries=0 --fetch-timeout=15000 "${packages[@]}") >"$log" 2>&1; then
  touch "$stamp"
else
  rm -rf "$folder"
  reason=$(grep -m 1 "npm \(error\|ERR!\)" "$log" || tail -n 1 "$log")
  reason=${reason:-no answer in time}
  echo "${packages[*]} could not be installed ($reason): the example for Node.js will not be run"
fi
