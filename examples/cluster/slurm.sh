#!/bin/bash
# A run on the GPUs of several nodes under Slurm:
#
#   sbatch examples/cluster/slurm.sh --config=configs/cifar10_resnet32.py \
#       --workdir=/shared/runs/resnet32 --config.mesh.member=4 --config.mesh.data=2
#
# The workdir must be on a file system that all nodes see. member x data devices of the
# mesh are the GPUs asked for here: 2 nodes of 4.
#SBATCH --job-name=edp
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4     # a process for each GPU, as JAX takes Slurm to have it
#SBATCH --gres=gpu:4            # not --gpus-per-task: each process must see all of them
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@300       # five minutes before the end, time to save
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

# Of a virtual environment beside the checkout; a module or a container serves as well.
source "${EDP_VENV:-.venv}/bin/activate"

srun python -m launch.run "$@"
code=$?

# 75: interrupted, its state saved. The job goes back into the queue and goes on.
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
