#!/usr/bin/env bash
# A sweep over four whole nodes of a Slurm cluster: sbatch slurm.sh
# Ray starts on all of them, lisabench on the first, and all ends with it. Needs Ray 2.49 or newer, and lisabench with its
# extra [ray] in the same place on every node. A job that ran out of time is gone on with by submitting it again.
#SBATCH --job-name=lisabench
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=12:00:00
set -euo pipefail

run=${RUN:-reports/sweep}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
plan=(--op all --tokens 256..65536 --batch 1,4,16,64 --mode forward,train --dtype fp32,bf16,fp16 --device cuda)
if [[ -f "$run/plan.json" ]]; then
    plan=(--resume)
fi

# The address is stated twice: for Ray to meet at, and for lisabench, which would start a cluster of its own without it.
export RAY_ADDRESS="$first:6379"
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
    ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "$SLURM_GPUS_ON_NODE" -- \
    lisabench scale "${plan[@]}" --engine ray --out "$run"
