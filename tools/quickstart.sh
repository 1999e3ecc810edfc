#!/usr/bin/env bash
# From a fresh clone to a distilled student on real images, on any machine with two
# cores: installs, trains a teacher on scikit-learn's handwritten digits, trains a
# student alone and with FAM-KD, compares them, draws what was learned, and exports the
# student to stock mmpretrain.
#
#   bash tools/quickstart.sh [--seeds N] [--work-dir DIR]
#
# --seeds 5 gives the table of the README: five seeds, with KD and ReviewKD.
set -euo pipefail
unset CDPATH

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."
# No operator of mmcv is needed, so nothing is compiled.
python=$(bash tools/install.sh --lite)
# Else each process would compile anew what it imports.
unset PYTHONDONTWRITEBYTECODE
# mmpretrain says for each process that mmcv-lite has no operators.
export PYTHONWARNINGS='ignore:Fail to import'
exec "$python" demo/quickstart.py "$@"
