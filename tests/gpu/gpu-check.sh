#!/bin/sh
# Proves this cadre on this machine's GPU and measures it: see README.md beside it, or --help.
#
#   ./gpu-check.sh [--only SECTIONS] [--skip SECTIONS] [--out FOLDER]
here=$(cd "$(dirname "$0")" && pwd) || exit 70
if ! command -v python3 >/dev/null 2>&1; then
  echo "gpu-check: python3 is missing; it needs version 3.9 or newer, and no package" >&2
  exit 69
fi
exec python3 "$here/scripts/gpu_check.py" "$@"
