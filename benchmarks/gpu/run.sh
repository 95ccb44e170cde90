#!/usr/bin/env bash
# Builds, checks and times everything of samrt that needs a GPU, within ten minutes. Writes one JSON file of results.
#
#   benchmarks/gpu/run.sh [FILE.json or FOLDER] [--plan confirm|tune|all] [OTHER OPTIONS OF run.py]
#
# In a folder (default: $OUT, else benchmarks/gpu), the file is <device>-<plan>.json. Nothing is downloaded or installed:
# wheels in $SAMRT_WHEELS (default benchmarks/gpu/wheels), whole or split as NAME.whl.part00, NAME.whl.part01,
# ..., are unpacked into a temporary folder. $PYTHON names another Python than python3. See docs/gpu.md.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
python="${PYTHON:-python3}"
command -v "$python" >/dev/null || { echo "run.sh: $python was not found; set PYTHON to another Python" >&2; exit 1; }

out="${OUT:-$here}"
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then out="$1"; shift; fi

site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
# The checkout's packages, under the names that they have when installed.
ln -s "$root/samrt" "$site/samrt"
ln -s "$root/export" "$site/samrt_export"
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml" | head -n 1)"
mkdir "$site/samrt-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: samrt\nVersion: %s\n' "$version" > "$site/samrt-$version.dist-info/METADATA"

"$python" "$here/wheels.py" "${SAMRT_WHEELS:-$here/wheels}" "$site"
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
# Caches of compiled code are temporary: each run compiles again and leaves nothing behind.
export XDG_CACHE_HOME="$site/cache" TORCHINDUCTOR_CACHE_DIR="$site/cache/inductor" TRITON_CACHE_DIR="$site/cache/triton"
mkdir -p "$XDG_CACHE_HOME"
"$python" "$here/run.py" --out "$out" --spent "$SECONDS" "$@"
