#!/usr/bin/env bash
# Installs, from PyPI, the gateway that tests/e2e/gateway_test.py puts before two servers: into build/gateway, so that
# nothing else of the machine changes. Does nothing when it is there. Ends with 0 and one line when it cannot be had, as
# without a network: the test is skipped then, and says so.
set -euo pipefail
cd "$(dirname "$0")/.."

version=1.13.0
venv=build/gateway
log=build/gateway.log
stamp="$venv/installed-$version"

[ -e "$stamp" ] && exit 0
mkdir -p build
rm -rf "$venv"
echo "installing smg $version from PyPI into $venv"
if python3 -m venv "$venv" >"$log" 2>&1 &&
  timeout 300 "$venv/bin/pip" install --disable-pip-version-check --no-input --only-binary :all: \
    --timeout 15 --retries 1 "smg==$version" >>"$log" 2>&1; then
  touch "$stamp"
else
  rm -rf "$venv"
  echo "smg $version could not be installed ($(tail -n 1 "$log")): its test will be skipped"
fi
