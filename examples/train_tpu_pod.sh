#!/usr/bin/env bash
# DualCodec on a Cloud TPU pod slice: the same command on every host.
#
#   TPU=my-v4-32 ZONE=us-central2-b RUNS=/mnt/shared/runs examples/train_tpu_pod.sh \
#     data=tfds data.locations=/mnt/emilia
#
# Every host needs a checkout in ~/dualcodec_jax with `pip install -e '.[train]' 'jax[tpu]'`, the
# data, and RUNS: a mounted folder that all share. Arguments are options of train_jax.py. Run it again
# after a preemption: it goes on where it stopped.
set -euo pipefail

command=(
  python train_jax.py
  --config-name=dualcodec_train
  model=dualcodec_12hz_16384_4096_8vq
  machine.distributed=true
  "machine.log_dir=${RUNS:?a folder that all hosts share}"
  data.dataloader.num_workers=16
  trainer.exp_name=dualcodec_12hz
  trainer.batch_size=12
  trainer.args.resume=true
  trainer.cfg.train.precision=bfloat16
  "trainer.cfg.train.save_checkpoint_stride=[2000]"
  "$@"
)
exec gcloud compute tpus tpu-vm ssh "${TPU:?name of the pod slice}" \
  --zone "${ZONE:?zone of the pod slice}" --worker=all \
  --command "cd dualcodec_jax && $(printf '%q ' "${command[@]}")"
