#!/usr/bin/env bash
# DualCodec on a SLURM cluster: one process for each GPU.
#
#   sbatch --array=1-10%1 examples/train_slurm.sh data=tfds data.locations=/data/emilia
#
# Each job of the array goes on where the one before stopped; after max_steps the rest end at once.
# Arguments are options of train_jax.py. Adapt the lines below to the cluster.
#SBATCH --job-name=dualcodec
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --open-mode=append
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

# Five minutes before the time is over every process gets SIGTERM, saves the same step and ends.
exec srun --kill-on-bad-exit=1 "${PYTHON:-python}" train_jax.py \
  --config-name=dualcodec_train \
  model=dualcodec_12hz_16384_4096_8vq \
  machine.distributed=true \
  data.dataloader.num_workers=6 \
  trainer.exp_name=dualcodec_12hz \
  trainer.batch_size=12 \
  trainer.args.resume=true \
  trainer.cfg.train.precision=bfloat16 \
  trainer.cfg.train.save_checkpoint_stride=[5000] \
  "$@"
