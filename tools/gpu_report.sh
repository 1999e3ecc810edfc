#!/usr/bin/env bash
# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
#
# What a GPU has to show, on one Markdown page with the card's name: the tests marked
# `gpu`, launches and kernels, layers, training steps in mixed precision and without,
# with Triton's kernels and without, detection, and what is chosen by measurement.
# Within ten minutes, without a network. The page's figures belong into
# docs/en/performance.md.
#
#   bash tools/gpu_report.sh                   # writes gpu_report/report.md
#   bash tools/gpu_report.sh --wheels FOLDER   # where the libraries are not installed
#   bash tools/gpu_report.sh --device cpu      # the same commands, small, on a CPU
#
# Other options: --out FOLDER; environment: PYTHON.
set -uo pipefail
unset CDPATH

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python} device=cuda out=gpu_report wheels=''
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2 ;;
        --out) out=$2 ;;
        --wheels) wheels=$2 ;;
        *)
            echo "gpu_report.sh: unknown option $1; see the head of this file" >&2
            exit 2
            ;;
    esac
    shift 2 || exit 2
done
# It is to be found from the repository, too; a link is that of a virtual environment.
case $python in
    */*) python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python") ;;
esac
mkdir -p "$out" && out=$(cd "$out" && pwd) && page=$out/report.md || exit 1
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONWARNINGS=ignore
if [ -n "$wheels" ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade \
        --target "$out/site" "$wheels"/*.whl || exit 1
    export PYTHONPATH="$PYTHONPATH:$out/site"
fi
if ! said=$("$python" -c 'import mmfakd' 2>&1); then
    echo "$python cannot import mmfakd: ${said##*$'\n'}" >&2
    echo 'Name one that can: PYTHON=.venv/bin/python bash tools/gpu_report.sh' >&2
    exit 1
fi
# What was chosen by measurement before, on this machine, is no part of the report.
MMFAKD_CACHE_DIR=$(mktemp -d) || exit 1
export MMFAKD_CACHE_DIR
trap 'rm -rf "$MMFAKD_CACHE_DIR"' EXIT

# part SECONDS TITLE COMMAND...: a section with what the command prints.
failed=0
part() {
    local limit=$1 title=$2 start=$SECONDS status=0
    shift 2
    printf '\n## %s\n\n`%s`\n\n' "$title" "${*/#$python/python}" >>"$page"
    timeout $((limit * patience)) "$@" >>"$page" 2>"$out/errors.txt" || status=$?
    if [ $status -ne 0 ]; then
        failed=1
        { printf '\n**Ended with status %s.** Its last lines:\n\n```\n' $status
            tail -n 15 "$out/errors.txt"; printf '```\n'; } >>"$page"
    fi
    echo "$title: $((SECONDS - start)) s, status $status"
}
bench() {
    local limit=$1 title=$2 name=$3
    shift 3
    part "$limit" "$title" "$python" -m mmfakd benchmark --device "$device" \
        "${small[@]}" "$@" -o "$out/$name.json"
}

# Limits are seconds; together with imports they leave room within ten minutes.
cd "$root"
card=$("$python" -c "import torch; print(torch.cuda.get_device_name())" 2>/dev/null)
printf '# mmfakd on %s\n\n%s, commit %s\n\n```\n' "${card:-a CPU, small}" \
    "$(date -u +%F)" "$(git rev-parse --short HEAD 2>/dev/null)" >"$page"
"$python" -m mmfakd env >>"$page" 2>&1
printf '```\n' >>"$page"
if [ "$device" = cuda ]; then
    small=(--rounds 5 --min-time 0.05) amp=float16 chosen=auto layers=. patience=1
    pair=r34_r18_8xb32_in1k large=(--batch-size 256) detector=() steps=()
    tests=tests launches='GPU|host|hooks|kernels'
else
    # One case of each, so that every command is tried.
    small=(--rounds 1 --min-time 0.001 --threads 1) amp=bfloat16 chosen=measure
    layers='batch 64, 64 channels, 8 px' patience=5
    pair=r56_r20_1xb64_cifar100 large=(--batch-size 2)
    detector=(--image-size 64 --batch-size 1) steps=(--batch-size 2)
    tests=tests/test_models/test_layers/test_on_gpu.py launches=hooks
fi
part 150 'Tests on the GPU' "$python" -m pytest -q -p no:cacheprovider \
    --import-mode=importlib -m gpu "$tests"
bench 60 'Launches' launches --suite launches --only "$launches"
bench 50 'Layers' layers --suite layers --only "$layers"
bench 50 'Ways' ways --suite ways --only "$layers"
for ways in reference "$chosen"; do
    MMFAKD_WAYS=$ways bench 50 "Steps of R56-R20, MMFAKD_WAYS=$ways" "step_$ways" \
        --suite step "${steps[@]}"
done
MMFAKD_TRITON=0 bench 45 'Steps of R56-R20 without Triton' step_torch --suite step \
    "${steps[@]}"
bench 60 'Steps in mixed precision' amp --suite step --amp "$amp" "${large[@]}" \
    --config "fakd_review_$pair" "reviewkd_$pair"
bench 60 'Connectors of a detector' detection --suite detection --only '^connectors' \
    "${detector[@]}"
part 5 'What was chosen by measurement' cat "${MMFAKD_CACHE_DIR}/ways.json"
echo "written: $page"
exit $failed
