#!/usr/bin/env bash
# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
#
# Builds what is published, looks it through, and uses the wheel as its users do: in a
# fresh environment, in another folder, by pip alone.
#
#   bash .ci/wheel.sh [EXTRA]    # stock (the default) or onedl, docs/en/installation.md
set -euo pipefail
unset CDPATH

cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra=${1:-stock}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work/build"
"$work/build/bin/python" -m pip install --quiet build twine
rm -rf dist
"$work/build/bin/python" -m build --outdir dist .
"$work/build/bin/python" -m twine check --strict dist/*
wheel=$(echo "$PWD"/dist/mmfakd-*.whl)

"${PYTHON:-python3}" -m venv "$work/user"
"$work/user/bin/python" -m pip install --quiet "$wheel[$extra]"
cd "$work"
export PATH="$work/user/bin:$PATH" PYTHONPATH=''
short=(--cfg-options train_cfg.max_epochs=1 train_dataloader.dataset.times=1)
student=fakd_review_r18w32_r18w4_1xb50_digits
mmfakd env
mmfakd configs list '*digits*'
mmfakd train r18w32_1xb50_digits "${short[@]}"
mmfakd train "$student" "${short[@]}" \
    --teacher-ckpt work_dirs/r18w32_1xb50_digits/epoch_1.pth
mmfakd test "$student" "work_dirs/$student/epoch_1.pth"
mmfakd export "work_dirs/$student/epoch_1.pth" -o student.pth
