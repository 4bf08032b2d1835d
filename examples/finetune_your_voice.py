"""Finetune the demo model on your recordings, and hear what it gained.

    python examples/finetune_your_voice.py recordings --held-out other_recordings -o my_voice

Run it in a clone of the repository, whose configs/ it reads; needs `pip install -e '.[train]'`. It
takes the steps that docs/finetuning.md explains, with the same options as `train_jax.py`: train,
export the newest checkpoint, decode held-out recordings before and after. Started again, it goes
on with its run. Compiling takes some minutes on a CPU. For the released models, take their
configurations as that page says.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import dualcodec_jax as dualcodec
from dualcodec_jax.evaluation.metrics import open_metric
from dualcodec_jax.files import decode_codes, encode_samples
from dualcodec_jax.paths import find_audio_files
from dualcodec_jax.train.export import export_run
from dualcodec_jax.train.loop import train
from dualcodec_jax.train.options import compose

CLIPS = Path(__file__).resolve().parent.parent / "tests" / "data"
SHORT = (
    "data.segment_speech.segment_length=9600",
    "trainer.cfg.losses.adversarial=0",
    "trainer.cfg.losses.feature_matching=0",
    "trainer.cfg.bypass_rate=0",
)
"""Options that make a step small: 0.4 s of audio, no discriminators."""


def main() -> None:
    """Train, export, compare."""
    arguments = parse_arguments()
    run = compose("demo_adversarial", options(arguments))
    steps = train(run)
    print(f"{steps} steps are in {run.output}")

    exported = arguments.output / "weights"
    export_run(run.output, exported, torch=False, overwrite=True)
    before = dualcodec.Inference(dualcodec.get_model("demo"))
    semantic = (before.config.semantic, before.params["semantic"], before.params["statistics"])
    after = dualcodec.Inference(dualcodec.get_model("demo", exported), semantic=semantic)
    published = after.save_pretrained(
        arguments.output / "model", semantic_location="bundled", overwrite=True
    )
    compare(arguments, {"before": before, "after": after})
    print(f'load it with Inference.from_pretrained("{published}")')


def options(arguments: argparse.Namespace) -> Sequence[str]:
    """Options of `train_jax.py`."""
    chosen = [
        f"data.locations={arguments.recordings}",
        "data=audio_folder",
        "data.features=step",
        "trainer.args.resume=true",
        "trainer.args.resume_from_ckpt_path=bundled",
        "trainer.args.model_1_name=demo",
        "trainer.exp_name=run",
        f"machine.log_dir={arguments.output}",
        f"trainer.batch_size={arguments.batch}",
        f"trainer.cfg.train.max_steps={arguments.steps}",
        f"trainer.cfg.train.scheduler.total_steps={arguments.steps}",
        f"trainer.cfg.train.scheduler.warmup_steps={arguments.steps // 10}",
        f"trainer.cfg.train.adamw.lr={arguments.rate}",
        f"trainer.cfg.train.keep_codes={str(arguments.keep_codes).lower()}",
        "trainer.cfg.train.codebooks.rate=0",  # a trained model's stay where they are
        "trainer.cfg.train.codebooks.restart=0",
    ]
    return [*chosen, *SHORT] if arguments.short else chosen


def compare(arguments: argparse.Namespace, models: dict[str, dualcodec.Inference]) -> None:
    """Decode held-out recordings with each model; print the distance to the recordings."""
    metric = open_metric("mel")
    distances: dict[str, list[float]] = {name: [] for name in models}
    for path, relative in find_audio_files(arguments.held_out)[: arguments.clips]:
        samples = dualcodec.load_audio(path).samples
        dualcodec.write_audio(
            arguments.output / "original" / relative.with_suffix(".wav"), samples, 24000
        )
        for name, inference in models.items():
            decoded = decode_codes(inference, encode_samples(inference, samples))
            place = arguments.output / name / relative.with_suffix(".wav")
            dualcodec.write_audio(place, decoded, 24000)
            distances[name].append(metric.measure(samples, decoded, 24000))
    for name, values in distances.items():
        print(f"{name}: mel distance {np.mean(values):.3f} on {len(values)} recordings")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recordings", nargs="?", type=Path, default=CLIPS, help="default: the clips of the tests"
    )
    parser.add_argument(
        "--held-out", type=Path, help="recordings to judge on; default: those that it learns"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("my_voice"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=4, help="clips per device and step")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate")
    parser.add_argument(
        "--keep-codes", action="store_true", help="train the decoder alone: tokens stay valid"
    )
    parser.add_argument("--clips", type=int, default=4, help="held-out recordings to decode")
    parser.add_argument("--short", action="store_true", help="three small steps of the decoder")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.steps, arguments.batch, arguments.clips = 3, 2, 1
        arguments.keep_codes = True
    arguments.held_out = arguments.held_out or arguments.recordings
    return arguments


if __name__ == "__main__":
    main()
