#!/bin/bash
# Runs on the GPUs of several nodes under Slurm:
#
#   sbatch examples/cluster/slurm.sh --config=configs/cifar10_resnet32.py \
#       --workdir=/shared/runs/resnet32 --config.mesh.member=4 --config.mesh.data=2
#
# The workdir must be on a shared file system. mesh.member x mesh.data must be the number
# of GPUs requested here: 2 nodes of 4.
#SBATCH --job-name=edp
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4     # one process per GPU, as JAX assumes under Slurm
#SBATCH --gres=gpu:4            # not --gpus-per-task: each process must see all GPUs
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@300       # five minutes before the end, to save a checkpoint
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

# A virtual environment beside the checkout; a module or a container works too.
source "${EDP_VENV:-.venv}/bin/activate"

srun python -m launch.run "$@"
code=$?

# 75: interrupted, with a checkpoint. The job is requeued and resumes.
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
