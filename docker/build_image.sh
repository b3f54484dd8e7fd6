#!/usr/bin/env bash
# Builds an image of this tree with docker, podman or buildah, whichever is there.
#
#   docker/build_image.sh [cpu|cuda] [NAME]     NAME: cadre:VERSION-cpu or cadre:VERSION-cuda if not given
#
# More arguments for the builder (a proxy, other bases) stand in BUILD_FLAGS.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:-cpu}
version=$(sed -n 's/^project(cadre VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
name=${2:-cadre:$version-$kind}
revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD 2>/dev/null || revision+=-changed
created=$(date -u -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}" +%Y-%m-%dT%H:%M:%SZ)
flags=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created")
case "$kind" in
  cpu) ;;
  # CUDA 13 needs a driver of version 580 or newer.
  cuda) flags+=(--build-arg CUDA=ON
          --build-arg BUILD_BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04
          --build-arg RUNTIME_BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04) ;;
  *) echo "usage: $0 [cpu|cuda] [NAME]" >&2; exit 64 ;;
esac
# shellcheck disable=SC2206  # several words on purpose
flags+=(${BUILD_FLAGS:-})

builder=
for candidate in docker podman buildah; do
  command -v "$candidate" >/dev/null || continue
  [ "$candidate" != docker ] || docker info >/dev/null 2>&1 || continue
  builder=$candidate
  break
done
[ -n "$builder" ] || { echo "build_image: needs docker (and its daemon), podman or buildah" >&2; exit 69; }
# Docker's own format: the image format of OCI has no health check, and buildah and podman would leave it out.
[ "$builder" = docker ] || flags+=(--format docker)
exec "$builder" build "${flags[@]}" -f docker/Dockerfile -t "$name" .
