#!/usr/bin/env bash
# The paper's CIFAR-10 run on a spot Cloud TPU of eight chips: made, set up, run, made
# again whenever it is taken away, and deleted when the run has ended. It goes on from
# its workdir. Needs the Google Cloud CLI (gcloud) and a bucket; set NAME, ZONE, TYPE
# and BUCKET in the environment. DRY_RUN=1 prints what it would do.
set -euo pipefail
cd "$(dirname "$0")/.."

# One chip to each teacher, and their batches over two.
${PYTHON:-python} -m launch.cloud_tpu run \
    --name="${NAME:-edp}" --zone="${ZONE:-us-west4-a}" --type="${TYPE:-v5litepod-8}" \
    --spot --delete_when_done ${DRY_RUN:+--dry_run} -- \
    --config=configs/cifar10_resnet32.py \
    --config.mesh.member=4 --config.mesh.data=2 --config.dtype=bfloat16 \
    --config.data.data_dir="gs://${BUCKET:-my-bucket}/tfds" \
    --workdir="gs://${BUCKET:-my-bucket}/edp/c10_resnet32"
