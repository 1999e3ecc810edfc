#!/usr/bin/env bash
# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
#
# Installs what the tests need (the first time about two minutes, and ten more where
# mmcv has to be compiled) and runs them: all of them on every core, or what is asked for.
#
#   bash tools/run_tests.sh                          # all of them
#   bash tools/run_tests.sh [pytest's own arguments]
#
#   bash tools/run_tests.sh -m 'not slow'            # without the slow ones
#   bash tools/run_tests.sh tests/test_models -k review
set -euo pipefail
unset CDPATH

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(bash tools/install.sh --full --tests)
# Else each process would compile anew what it imports.
unset PYTHONDONTWRITEBYTECODE
# The tensors of the tests are small: threads cost more than they bring.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# One module stays on one worker: fixtures are made once, commands run in their order.
# The order of the modules is that of tests/conftest.py.
[ $# -gt 0 ] || set -- --numprocesses auto --maxprocesses 8 --dist loadfile \
    --no-loadscope-reorder
exec "$python" -m pytest "$@"
