#!/usr/bin/env bash
# Runs the paper's CIFAR-10 experiment on a spot Cloud TPU of eight chips: creates it,
# sets it up, runs, recreates it after a preemption (the run resumes from its workdir) and
# deletes it at the end. Needs the Google Cloud CLI (gcloud) and a bucket; set NAME, ZONE,
# TYPE and BUCKET in the environment. DRY_RUN=1 prints the commands.
set -euo pipefail
cd "$(dirname "$0")/.."

# Two chips per teacher, which share its batches.
${PYTHON:-python} -m launch.cloud_tpu run \
    --name="${NAME:-edp}" --zone="${ZONE:-us-west4-a}" --type="${TYPE:-v5litepod-8}" \
    --spot --delete_when_done ${DRY_RUN:+--dry_run} -- \
    --config=configs/cifar10_resnet32.py \
    --config.mesh.member=4 --config.mesh.data=2 --config.dtype=bfloat16 \
    --config.data.data_dir="gs://${BUCKET:-my-bucket}/tfds" \
    --workdir="gs://${BUCKET:-my-bucket}/edp/c10_resnet32"
