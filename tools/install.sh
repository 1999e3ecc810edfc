#!/usr/bin/env bash
# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
#
# Installs mmfakd with everything it needs, in .venv or in the active environment.
#
#   bash tools/install.sh [--lite | --full | --force-lite] [--tests] [--lint] [--docs]
#                         [--venv DIR] [--torch 2.11 | 2.1 | newest]
#
# Standard output is one line, the path of the Python to use; progress goes to standard
# error. So a script that needs the package says
#
#   python=$(bash tools/install.sh --lite)
#   "$python" -m mmfakd train ...
#
# Run it as often as you like: with everything in place it returns at once, and after an
# interruption it continues. `bash tools/install.sh --help` explains the options and the
# environment variables. The work is done by .dev_scripts/install.py, which uses uv.
set -euo pipefail
unset CDPATH

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
found=''
# shellcheck disable=SC2086  # $PYTHON alone where it is set
for candidate in ${PYTHON:-python3 python python3.12 python3.11 python3.10 python3.9}; do
    if version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])
import ensurepip, venv; sys.exit(sys.version_info < (3, 9))' 2>/dev/null); then
        exec "$candidate" "$here/../.dev_scripts/install.py" "$@"
    fi
    found="$found $candidate (${version:-not there})"
done
echo "mmfakd needs Python 3.9 or later with venv (Debian: apt install python3-venv), and" \
    "none was found. Looked at:$found." >&2
echo 'Install one of them, or name it: PYTHON=/path/to/python3.11 bash tools/install.sh' >&2
exit 1
