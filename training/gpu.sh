#!/usr/bin/env bash
# Trains by the `gpu` recipe in SECONDS, all in all, and leaves in $OUT the finished model: model.pth in parts of 15 MiB,
# model.json, log and curves.
#
#   OUT=FOLDER training/gpu.sh SECONDS
#
# Exit status 0: finished, its rates lowered to zero. Another: $OUT has what there was at the last checkpoint, if there
# was one, and the same command goes on from it in SECONDS more. Where there is no GPU it trains by the `dry` recipe,
# which shows that all this works and is worth nothing else; it says so.
#
# Needs torch, OpenCV, Pillow and NumPy for $PYTHON (default python3), and what `python -m training.carry` makes in
# .cache/carried (or $CARRIED). The run's folder is training/runs/RECIPE (or $RUN).
set -euo pipefail

started="$(date +%s.%N)"
seconds="${1:?give the seconds that it may take}"
out="${OUT:?name a folder for the results in OUT}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
python="${PYTHON:-python3}"
carried="${CARRIED:-.cache/carried}"

recipe=gpu
options=(--device cuda)
cores="$(nproc)"
# Not torch's answer: where there is a GPU that torch cannot use, that is an error.
if ! nvidia-smi -L >/dev/null 2>&1; then
    echo "gpu.sh: no GPU here: a dry run on the CPU, uncompiled, by the recipe dry (one small picture a step)" >&2
    recipe=dry
    options=(--device cpu --eager)
    export OMP_NUM_THREADS=1  # the other cores make batches
fi
run="${RUN:-training/runs/$recipe}"
if [ -f "$run/model.json" ]; then
    mv "$run" "$run-$(date +%s)"
    echo "gpu.sh: $run was finished and is moved aside" >&2
fi
processes=$((cores > 1 ? cores - 1 : 1))

site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
ln -s "$root/export" "$site/samrt_export"
export PYTHONPATH="$root:$site${PYTHONPATH:+:$PYTHONPATH}"

# It ends by itself; if it hangs, it is ended, and what there is still gets to $OUT.
status=0
timeout --signal=INT --kill-after=10 "$((seconds + 10))" \
    "$python" -m training.train "$recipe" --data "$carried/packed.npz" --decoder "$carried/decoder.pth" -o "$run" \
    --seconds "$seconds" --started "$started" --processes "$processes" "${options[@]}" || status=$?
rm -f "$out"/{log.jsonl,curves.png,model.json} "$out"/model.pth.part*
for file in log.jsonl curves.png model.json; do
    if [ -f "$run/$file" ]; then cp "$run/$file" "$out/"; fi
done
if [ -f "$run/model.pth" ]; then split -b 15M -d "$run/model.pth" "$out/model.pth.part"; fi
exit "$status"
