#!/usr/bin/env bash
# Everything of samrt that needs a GPU: built, checked and timed within ten minutes, with the results in one JSON file.
#
#   benchmarks/gpu/run.sh [FILE.json or FOLDER] [--plan confirm|tune|all] [OTHER OPTIONS OF run.py]
#
# A folder (or $OUT; by default benchmarks/gpu) gets <device>-<plan>.json in it. Nothing is downloaded or installed:
# wheels in $SAMRT_WHEELS (default benchmarks/gpu/wheels), whole or split as NAME.whl.part00, NAME.whl.part01,
# ..., are unpacked into a temporary folder. $PYTHON names another Python than python3. docs/gpu.md has the rest.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
python="${PYTHON:-python3}"
command -v "$python" >/dev/null || { echo "run.sh: there is no $python here; name one with PYTHON=..." >&2; exit 1; }

out="${OUT:-$here}"
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then out="$1"; shift; fi

site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
# The package as it lies in the checkout, under the names that an installation gives it.
ln -s "$root/samrt" "$site/samrt"
ln -s "$root/export" "$site/samrt_export"
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml" | head -n 1)"
mkdir "$site/samrt-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: samrt\nVersion: %s\n' "$version" > "$site/samrt-$version.dist-info/METADATA"

"$python" "$here/wheels.py" "${SAMRT_WHEELS:-$here/wheels}" "$site"
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
# What is compiled on the way is compiled afresh each time, and nothing of it is left behind.
export XDG_CACHE_HOME="$site/cache" TORCHINDUCTOR_CACHE_DIR="$site/cache/inductor" TRITON_CACHE_DIR="$site/cache/triton"
mkdir -p "$XDG_CACHE_HOME"
"$python" "$here/run.py" --out "$out" --spent "$SECONDS" "$@"
