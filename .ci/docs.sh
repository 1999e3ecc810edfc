#!/usr/bin/env bash
# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
#
# Builds the site of docs/en, without network and with every warning an error, and follows
# its links.
#
#   bash .ci/docs.sh [FOLDER]    # by default docs/en/_build/html; open its index.html
set -euo pipefail
unset CDPATH

cd "$(dirname "${BASH_SOURCE[0]}")/.."
site=$(realpath -m "${1:-docs/en/_build/html}")
python=$(bash tools/install.sh --lite --docs)
cd docs/en
"$python" -m sphinx --fresh-env --fail-on-warning --keep-going --quiet . "$site"
"$python" -m _ext.check_links "$site"
