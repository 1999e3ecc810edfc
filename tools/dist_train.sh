#!/usr/bin/env bash
# Train on the GPUs (or, without any, in several processes) of one or more machines.
# usage: tools/dist_train.sh CONFIG GPUS [options of mmfakd train and of torchrun]
# environment: NNODES, NODE_RANK, MASTER_ADDR, PORT, MAX_RESTARTS, PYTHON
set -euo pipefail
unset CDPATH

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of mmfakd train and of torchrun]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
PORT=${PORT:-29500}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
MAX_RESTARTS=${MAX_RESTARTS:-0}
HERE=$(cd "$(dirname "$0")" && pwd)

# A checkout need not be installed.
if [ -d "$HERE/../mmfakd" ]; then
    export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"
fi
meeting=(--node_rank="$NODE_RANK" --master_addr="$MASTER_ADDR" --master_port="$PORT")
if [ "$MAX_RESTARTS" != 0 ]; then
    # Only here processes that were restarted find each other again.
    meeting=(--rdzv_backend=c10d --rdzv_endpoint="$MASTER_ADDR:$PORT"
        --rdzv_id="mmfakd-$PORT" --rdzv_conf="is_host=$((NODE_RANK == 0))")
fi
# In the place of this shell, so that signals arrive.
exec "${PYTHON:-python}" -m mmfakd train "$CONFIG" --nproc="$GPUS" \
    --nnodes="$NNODES" "${meeting[@]}" --max_restarts="$MAX_RESTARTS" "${@:3}"
