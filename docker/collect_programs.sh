#!/usr/bin/env bash
# Lays out what an image gets from a build: the programs, stripped, and under usr/share/doc/cadre the license, the
# packages that own the programs' shared libraries, and the packages that were compiled into them.
#
#   docker/collect_programs.sh BIN_FOLDER OUT_FOLDER
set -euo pipefail
bin=$1
out=$2
root=$(dirname "$0")/..
documents=$out/usr/share/doc/cadre

mkdir -p "$out/usr/bin" "$documents"
for program in cadre-server cadre; do
  strip -o "$out/usr/bin/$program" "$bin/$program"
  chmod 755 "$out/usr/bin/$program"
done
install -m 644 "$root/LICENSE" "$documents/LICENSE"
install -m 755 "$root/docker/write_sbom.sh" "$documents/write_sbom.sh"

# dpkg may know a library below /usr/lib only, where the loader names it below /lib. What no package owns (CUDA's
# libraries, say) has to be part of the base; the image's build looks for what is missing.
ldd "$out/usr/bin/cadre-server" "$out/usr/bin/cadre" | awk '$2 == "=>" && $3 ~ "^/" { print $3 }' | sort -u |
  while read -r library; do
    { dpkg-query -S "$library" || dpkg-query -S "/usr$library" || true; } 2>/dev/null | head -n 1 | sed 's/:.*//'
  done | sort -u >"$documents/runtime-packages"
[ -s "$documents/runtime-packages" ] || { echo "collect_programs: no package owns any library" >&2; exit 70; }

# Headers and static libraries of these are part of the programs, whatever the image has of them.
dpkg-query -W -f '${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n' \
  'libcli11-dev' 'nlohmann-json3-dev' 'libboost*-dev' 'libspdlog-dev' 'libabsl-dev' 'libgrpc++-dev' 'libprotobuf-dev' \
  'prometheus-cpp-dev' 'libpcre2-dev' 'libutf8proc-dev' 'libxxhash-dev' 'zlib1g-dev' 'libstdc++-*-dev' 2>/dev/null |
  awk -F '\t' '$4 == "installed"' | cut -f 1-3 | sort -u >"$documents/build-packages"
