#!/bin/sh
# A Slurm array with a task for each submission. In the directory with this file, for 100 submissions:
#
#   sbatch --array=0-99 slurm.sh /shared/submissions /shared/reports
#
#SBATCH --job-name=virt-walker-grade
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --time=5
set -eu
# Slurm runs a copy of this file, so its own directory is the one of sbatch.
exec "${SLURM_SUBMIT_DIR:?run this by sbatch}/grade-nth" "$1" "$2" "${SLURM_ARRAY_TASK_ID:?give sbatch --array}"
