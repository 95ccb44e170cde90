#!/usr/bin/env bash
# Trains by the `gpu` recipe for so many seconds in training/runs/gpu, and leaves in $OUT log, curves and the weights so
# far. Run again, it goes on.
#
#   OUT=FOLDER training/gpu.sh SECONDS
#
# Needs torch, OpenCV, Pillow and NumPy for $PYTHON (default python3), and the two files that docs/training.md makes:
# .cache/packed.npz (or $DATA) and .cache/lite_medsam.pth (or $DECODER).
set -euo pipefail

seconds="${1:?give the seconds that it may take}"
out="${OUT:?name a folder for the results in OUT}"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
run=training/runs/gpu

site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
ln -s "$root/export" "$site/samrt_export"
export PYTHONPATH="$root:$site${PYTHONPATH:+:$PYTHONPATH}"

status=0
"${PYTHON:-python3}" -m training.train gpu --data "${DATA:-.cache/packed.npz}" \
    --decoder "${DECODER:-.cache/lite_medsam.pth}" -o "$run" --device cuda --processes "$(nproc)" \
    --stop-after "$seconds" || status=$?
mkdir -p "$out"
for file in log.jsonl curves.png model.json; do
    if [ -f "$run/$file" ]; then cp "$run/$file" "$out/"; fi
done
rm -f "$out"/model.pth.part*
if [ -f "$run/model.pth" ]; then split -b 15M -d "$run/model.pth" "$out/model.pth.part"; fi
# 3: the time was up before the end, which is what was asked for.
if [ "$status" -ne 0 ] && [ "$status" -ne 3 ]; then exit "$status"; fi
