#!/usr/bin/env bash
# Evaluate on the GPUs (or, without any, in several processes) of one or more machines.
# usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of mmfakd test and of torchrun]
# environment: NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON
set -euo pipefail
unset CDPATH

if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [options of mmfakd test and of torchrun]" >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
PORT=${PORT:-29500}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
HERE=$(cd "$(dirname "$0")" && pwd)

# A checkout need not be installed.
if [ -d "$HERE/../mmfakd" ]; then
    export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"
fi
# In the place of this shell, so that signals arrive.
exec "${PYTHON:-python}" -m mmfakd test "$CONFIG" "$CHECKPOINT" \
    --nnodes="$NNODES" \
    --node_rank="$NODE_RANK" \
    --master_addr="$MASTER_ADDR" \
    --nproc="$GPUS" \
    --master_port="$PORT" \
    "${@:4}"
