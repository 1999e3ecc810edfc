#!/usr/bin/env bash
# Train on a Slurm cluster: at once, or, with BATCH=1, as a batch job. A batch job saves
# a minute before its time limit, is put back into the queue and goes on from there.
# usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of mmfakd train]
# environment: GPUS, GPUS_PER_NODE (0: on CPU, one process for each of GPUS),
#     CPUS_PER_TASK, BATCH, SIGNAL, SRUN_ARGS, SBATCH_ARGS, PYTHON
set -euo pipefail
unset CDPATH

if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of mmfakd train]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
WORK_DIR=$4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
HERE=$(cd "$(dirname "$0")" && pwd)

# A checkout need not be installed.
if [ -d "$HERE/../mmfakd" ]; then
    export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"
fi
# Two jobs may share a machine.
export MASTER_PORT=${MASTER_PORT:-$((20000 + ${SLURM_JOB_ID:-RANDOM} % 10000))}
resources=(--job-name="$JOB_NAME" --ntasks="$GPUS" --cpus-per-task="$CPUS_PER_TASK")
if [ "$GPUS_PER_NODE" != 0 ]; then
    resources+=(--gres=gpu:"$GPUS_PER_NODE" --ntasks-per-node="$GPUS_PER_NODE")
fi
allocation=(-p "$PARTITION" --signal="${SIGNAL:-USR1@60}")

# SBATCH_ARGS and SRUN_ARGS hold several arguments in one string.
if [ -n "${BATCH:-}" ]; then
    # shellcheck disable=SC2086
    BATCH='' MASTER_PORT='' exec sbatch "${allocation[@]}" "${resources[@]}" \
        --requeue --open-mode=append ${SBATCH_ARGS:-} \
        --wrap "exec $(printf '%q ' bash "$HERE/slurm_train.sh" "$@")"
fi
[ -z "${SLURM_JOB_ID:-}" ] || allocation=()
status=0
# shellcheck disable=SC2086
srun ${allocation[@]+"${allocation[@]}"} "${resources[@]}" --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u -m mmfakd train "$CONFIG" \
    --work-dir="$WORK_DIR" --launcher slurm "${@:5}" || status=$?

# 75: training was preempted and has saved. 138: USR1 came while it was starting.
# A job that was cancelled is left alone.
if [[ $status =~ ^(75|138)$ ]] && [ "${ENVIRONMENT:-}" = BATCH ] &&
    [ "$(squeue --noheader --job="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
    echo "Preempted: job $SLURM_JOB_ID is queued again." >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
