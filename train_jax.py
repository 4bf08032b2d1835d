"""Train or finetune DualCodec: see ``--help``, and the headers of the files in ``configs/``."""

import argparse
import sys

from dualcodec_jax.errors import DualCodecError
from dualcodec_jax.train import options

EXAMPLES = """\
options, in upstream's words (--cfg job shows all of them, with their values):
  model=NAME                               model sizes; --list shows the names
  data=NAME data.locations=PATH            recordings, tar shards or a prepared data set
  data.evaluation.locations=PATH           held-out clips
  data.segment_speech.segment_length=N     samples per clip
  trainer.batch_size=N                     clips per device
  trainer.exp_name=NAME                    the run's folder is machine.log_dir/NAME
  trainer.args.resume=true                 go on from the run's newest checkpoint
  trainer.cfg.train.max_steps=N            when the run is complete
  trainer.cfg.train.precision=bfloat16     faster on GPU and TPU
  machine.w2v_path=PATH                    w2v-BERT 2.0; machine.ckpt_root_path: its statistics
  machine.mesh.fsdp=N                      devices that share parameters and optimiser state

example:
  python train_jax.py --config-name=dualcodec_train model=dualcodec_12hz_16384_4096_8vq \\
    trainer.batch_size=3 data.segment_speech.segment_length=24000
"""


def main() -> None:
    """Compose the configuration, then train."""
    parser = argparse.ArgumentParser(
        description="Train or finetune DualCodec.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-name", default="dualcodec_train", help="file in configs/")
    parser.add_argument("--config-path", metavar="DIR", help="folder of your own files")
    parser.add_argument("--cfg", choices=["job"], help="show the configuration and exit")
    parser.add_argument("--list", action="store_true", help="show what can be named and exit")
    parser.add_argument("overrides", nargs="*", metavar="option=value")
    arguments = parser.parse_intermixed_args()
    name, where = arguments.config_name, arguments.config_path
    try:
        if arguments.list:
            sys.stdout.write(options.listing(where))
        elif arguments.cfg:
            sys.stdout.write(options.to_yaml(options.resolve(name, arguments.overrides, where)))
        else:
            run = options.compose(name, arguments.overrides, where)
            from dualcodec_jax.train.loop import train

            train(run)
    except DualCodecError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
