#!/usr/bin/env bash
# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
#
# A Slurm cluster of this one machine, for as long as a test takes. Needs root and
# Debian's packages: apt-get install munge slurmctld slurmd slurm-client
#
#   tests/helpers/one_machine_slurm.sh start FOLDER   # then: export SLURM_CONF=...
#   tests/helpers/one_machine_slurm.sh stop FOLDER
#
# All that it writes lies in FOLDER, an absolute path. Processes are followed through
# /proc, so that no cgroups are needed, as in a container. There is no accounting, and
# four cores, whatever there is.
set -euo pipefail

what=$1
folder=$2
pids=("$folder/slurmd.pid" "$folder/slurmctld.pid" "$folder/munged.pid")

stop() {
    for file in "${pids[@]}"; do
        [ ! -e "$file" ] || kill "$(cat "$file")" || true
    done
}

start() {
    host=$(hostname -s)
    mkdir -p "$folder/state" "$folder/spool"
    (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
    export SLURM_CONF=$folder/slurm.conf
    # Requeued jobs wait until their old credentials are worthless: here ten seconds.
    cat >"$SLURM_CONF" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=${SLURMCTLD_PORT:-16817}
SlurmdPort=${SLURMD_PORT:-16818}
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=10
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" \
        --seed-file="$folder/munge.seed"
    slurmctld
    slurmd
    for _ in $(seq 30); do
        sinfo --noheader --states=idle 2>/dev/null | grep -q . && return
        sleep 1
    done
    tail -n 20 "$folder"/*.log >&2
    stop
    exit 1
}

"$what"
