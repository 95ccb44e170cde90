#!/usr/bin/env bash
# Trains a recipe within SECONDS and writes the model to $OUT: model.pth in parts of 15 MiB, model.json, log and curves.
#
#   OUT=FOLDER training/gpu.sh SECONDS [RECIPE [OPTION...]]
#
# RECIPE is `gpu` (default) or `trunk_gpu`; OPTION is one of training.train, such as --eager. $OUT has the results of
# the last checkpoint from the first one on, renewed every $EVERY seconds (default 45), also if this script is killed.
#
# Exit status 0: the model is finished, its learning rates were lowered to zero. Another exit status: the same command
# continues from the last checkpoint for SECONDS more. Without a GPU it trains the recipe `dry` or `trunk_dry` and says
# so: that shows that everything runs, but the model has no use. It may need up to 30 seconds more than SECONDS, to end
# a run that hangs and to copy. A time limit for this script must include them.
#
# Needs torch, OpenCV, Pillow and NumPy for $PYTHON (default python3), and the files that `python -m training.carry`
# writes to .cache/carried (or $CARRIED). The run's folder is training/runs/RECIPE (or $RUN). A part of model.pth has
# 15 MiB (or $PART).
set -euo pipefail

started="$(date +%s.%N)"
seconds="${1:?give the seconds for the run}"
out="${OUT:?set OUT to a folder for the results}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
python="${PYTHON:-python3}"
carried="${CARRIED:-.cache/carried}"

recipe="${2:-gpu}"
case "$recipe" in
    gpu) dry=dry; weights=(--decoder "$carried/decoder.pth") ;;
    trunk_gpu) dry=trunk_dry; weights=(--start "$carried/start.pth") ;;
    *) echo "gpu.sh: there is no recipe $recipe for a GPU; give gpu or trunk_gpu" >&2; exit 2 ;;
esac
options=(--device cuda "${@:3}")
cores="$(nproc)"
# Not what torch says, nor whether nvidia-smi works: a GPU that is there but cannot be used is an error.
if ! command -v nvidia-smi >/dev/null && [ ! -e /dev/nvidia0 ] && [ ! -e /dev/nvidiactl ]; then
    echo "gpu.sh: no GPU found: a dry run on the CPU, uncompiled, with the recipe $dry (one small image per step)" >&2
    recipe="$dry"
    options=(--device cpu --eager)
    export OMP_NUM_THREADS=1  # the other cores make batches
fi
run="${RUN:-training/runs/$recipe}"
if [ -f "$run/model.json" ]; then
    mv "$run" "$run-$(date +%s)"
    echo "gpu.sh: $run holds a finished run and was renamed" >&2
fi
processes=$((cores > 16 ? 15 : cores > 1 ? cores - 1 : 1))  # each takes memory and reads the data

site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
ln -s "$root/export" "$site/samrt_export"
export PYTHONPATH="$root:$site${PYTHONPATH:+:$PYTHONPATH}"

# It ends by itself. If it hangs, it is killed, and the results so far are still copied to $OUT.
train() {  # BEGAN SECONDS OPTION...
    timeout --signal=INT --kill-after=10 "$(($2 + 10))" \
        "$python" -m training.train "$recipe" --data "$carried/packed.npz" "${weights[@]}" -o "$run" \
        --started "$1" --seconds "$2" --processes "$processes" "${@:3}"
}

results() {
    rm -f "$out"/{log.jsonl,curves.png,model.json} "$out"/model.pth.part*
    for file in log.jsonl curves.png model.json; do
        if [ -f "$run/$file" ]; then cp "$run/$file" "$out/"; fi
    done
    if [ -f "$run/model.pth" ]; then split -b "${PART:-15M}" -d "$run/model.pth" "$out/model.pth.part"; fi
}
while sleep "${EVERY:-45}" && kill -0 $$; do results; done >/dev/null 2>&1 &
renewing=$!
trap 'kill "$renewing" 2>/dev/null || true; rm -rf "$site"' EXIT

status=0
train "$started" "$seconds" "${options[@]}" || status=$?
left=$((seconds + ${started%.*} - $(date +%s)))
if [ "$status" != 0 ] && [ "$status" != 130 ] && [ -f "$run/checkpoint.pt" ] && [ "$left" -gt 90 ]; then
    echo "gpu.sh: training failed (exit status $status); it goes on from its last checkpoint, uncompiled" >&2
    status=0
    train "$(date +%s.%N)" "$left" "${options[@]}" --eager || status=$?
fi
if [ -f "$run/model.json" ]; then status=0; fi  # the last that is written: only the end of the processes took too long
kill "$renewing"
wait "$renewing" 2>/dev/null || true  # so that it does not copy what has changed meanwhile
results
exit "$status"
