#!/usr/bin/env bash
# The same sweep without Ray: 16 jobs of one GPU each, a part of the plan each. sbatch slurm-shards.sh, and when all are done:
#   lisabench merge reports/shard-* --out reports/sweep
# What a job did not come to is told there, with the command that measures it.
#SBATCH --job-name=lisabench-shard
#SBATCH --array=1-16
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
set -euo pipefail

run=reports/shard-$SLURM_ARRAY_TASK_ID
plan=(--op all --tokens 256..65536 --batch 1,4,16,64 --mode forward,train --dtype fp32,bf16,fp16 --device cuda)
plan+=(--shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT")
if [[ -f "$run/plan.json" ]]; then
    plan=(--resume)
fi
lisabench scale "${plan[@]}" --budget 0 --out "$run"
