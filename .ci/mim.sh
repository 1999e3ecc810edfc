#!/usr/bin/env bash
# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
#
# Tests mim's commands on the package. mim brings an old setuptools and old versions of
# what others need, so it goes into an environment of its own, on top of the tests' one.
#
#   bash .ci/mim.sh [PYTHON [MIM]]
#
# PYTHON is that of an environment with mmfakd's requirements and pytest, of either
# family. MIM is openmim, which works with both, or onedl-mim.
set -euo pipefail
unset CDPATH

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-$(bash tools/install.sh --lite --tests)}
mim=${2:-openmim}
venv=.venv-$mim
if [ ! -e "$venv/ready" ]; then
    "$python" -m venv --clear "$venv"
    # What is not in this environment is looked up in that one.
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/zz.pth"
    "$venv/bin/python" -m pip install --quiet "$mim"
    touch "$venv/ready"
fi
exec "$venv/bin/python" -m pytest tests/test_mim.py
