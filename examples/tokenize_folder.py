"""Turn a folder of recordings into codes, and read them as batches for a training job.

    python examples/tokenize_folder.py recordings -o tokens

Needs `pip install 'dualcodec-jax[tokens]'`. Start it again to go on after a stop. The command line
does the same, with more options: `dualcodec-jax tokenize` (docs/corpora.md).
"""

import argparse
from pathlib import Path

import grain
import numpy as np

import dualcodec_jax as dualcodec
from dualcodec_jax.compilation import enable_cache
from dualcodec_jax.files import decode_file
from dualcodec_jax.tokens.corpus import open_corpus
from dualcodec_jax.tokens.records import TokenRecord
from dualcodec_jax.tokens.run import tokenize
from dualcodec_jax.tokens.settings import Settings
from dualcodec_jax.tokens.source import TokenSource
from dualcodec_jax.weights import weights_digest

CLIPS = Path(__file__).resolve().parent.parent / "tests" / "data"
CROP = 64  # frames


def main() -> None:
    """Encode, then read back."""
    arguments = parse_arguments()
    enable_cache()  # of compiled programs, so that the next start is quick
    inference = dualcodec.Inference(dualcodec.get_model(arguments.model))
    encode(arguments, inference)
    source = TokenSource(arguments.output)
    show(source)
    for batch in batches(source, count=2):
        print(f"batch: codes {batch['codes'].shape}, lengths {batch['length'].tolist()}")
    path = arguments.output / "first.wav"
    decode_file(inference, source[0].file, path)
    print(f"decoded {source[0].id} to {path}")


def encode(arguments: argparse.Namespace, inference: dualcodec.Inference) -> None:
    """Write shards of codes; what is there already is kept."""
    digest = weights_digest(
        inference.model.params, inference.params["semantic"], inference.params["statistics"]
    )
    settings = Settings(n_quantizers=arguments.n_quantizers)
    outcome = tokenize(
        open_corpus(arguments.recordings), arguments.output, inference, digest, settings
    )
    status = outcome.status
    print(
        f"encoded {status.done - status.broken} recordings, {status.audio_seconds:.1f} s, in "
        f"{status.elapsed:.1f} s; {status.kept} were there; {status.broken} are broken"
    )


def show(source: TokenSource) -> None:
    """A line for each recording."""
    for record in source:
        codes = record.codes
        print(f"{record.id}: {record.seconds:.2f} s, codes {codes.shape}, semantic {codes[0, :6]}…")


def batches(source: TokenSource, count: int) -> grain.IterDataset:
    """Shuffled random crops of equal size."""

    def crop(record: TokenRecord, rng: np.random.Generator) -> dict[str, np.ndarray]:
        start = rng.integers(0, max(1, record.codes.shape[1] - CROP + 1))
        codes = record.codes[:, start : start + CROP]
        padded = np.zeros((len(codes), CROP), np.int32)
        padded[:, : codes.shape[1]] = codes
        return {"codes": padded, "length": np.int32(codes.shape[1])}

    size = 2
    dataset = grain.MapDataset.source(source).seed(0).shuffle().repeat().random_map(crop)
    return dataset.slice(slice(count * size)).to_iter_dataset().batch(size)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recordings", nargs="?", type=Path, default=CLIPS, help="default: the clips of the tests"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("tokens"), help="default: tokens")
    parser.add_argument("--model", default="demo", help="demo, 12hz_v1 or 25hz_v1")
    parser.add_argument("-n", "--n-quantizers", type=int, help="codes per frame; default: all")
    parser.add_argument("--short", action="store_true", help="one recording, two codes per frame")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.recordings = sorted(CLIPS.glob("*.flac"))[0]
        arguments.n_quantizers = 2
    return arguments


if __name__ == "__main__":
    main()
