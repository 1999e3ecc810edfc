#!/usr/bin/env bash
# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
#
# Runs every linter, even where one before it fails, and fails if any did.
set -uo pipefail
unset CDPATH

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(bash tools/install.sh --lint) || exit 1
failed=''

check() {
    local name=$1
    shift
    printf '%s: ' "$name"
    if "$@"; then echo ok; else
        failed="$failed $name"
    fi
}

parse_shell_scripts() {
    local script
    for script in tools/*.sh .ci/*.sh .ci/run; do
        bash -n "$script" || return 1
    done
}

check ruff "$python" -m ruff check .
check mypy "$python" -m mypy
check codespell "$python" -m codespell_lib
check interrogate "$python" -m interrogate --quiet mmfakd tools demo .dev_scripts
check shell parse_shell_scripts

if [ -n "$failed" ]; then
    echo "lint failed:$failed" >&2
    exit 1
fi
