"""``encode``, ``decode`` and ``reconstruct``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from dualcodec_jax.audio.io import DEFAULT_MAX_SECONDS
from dualcodec_jax.cli.common import (
    OverwriteOption,
    PrecisionChoice,
    PrecisionOption,
    W2vOption,
    WeightsOption,
    chosen_model,
    console,
    load_inference,
    plan_outputs,
    process_each,
    reports_errors,
    show_note,
)
from dualcodec_jax.errors import InputError

if TYPE_CHECKING:
    from dualcodec_jax.container import CodeFile
    from dualcodec_jax.inference import Inference

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="12hz_v1, 25hz_v1 or demo. Default: 12hz_v1 if its weights are configured, else demo.",
        show_default=False,
    ),
]
CountOption = Annotated[
    int | None,
    typer.Option(
        "--n-quantizers",
        "-n",
        help="Codes per frame, the semantic one included. Default: all of the model's.",
        show_default=False,
    ),
]
AudioArgument = Annotated[
    list[str], typer.Argument(metavar="FILES…", help="Audio files, folders or globs.")
]
UpstreamOption = Annotated[
    bool,
    typer.Option(
        "--upstream-lengths",
        help="Give the original's frame count and audio length, which lose the last hops. "
        "Default: pad the end, and decode to the recorded length.",
    ),
]
MaxSecondsOption = Annotated[
    float, typer.Option("--max-seconds", help="Refuse longer audio files; 0 lifts the limit.")
]


@reports_errors
def encode(
    files: AudioArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for code files.")] = Path(
        "codes"
    ),
    model: ModelOption = None,
    n_quantizers: CountOption = None,
    weights: WeightsOption = None,
    w2v: W2vOption = None,
    precision: PrecisionOption = PrecisionChoice.float32,
    overwrite: OverwriteOption = False,
    upstream_lengths: UpstreamOption = False,
    max_seconds: MaxSecondsOption = DEFAULT_MAX_SECONDS,
) -> None:
    """Audio files → .dualcodec files. Folder structure is kept."""
    from dualcodec_jax.container import write_codes
    from dualcodec_jax.paths import find_audio_files

    _check_count(n_quantizers)
    plan = plan_outputs(find_audio_files(files), output, ".dualcodec", overwrite)
    inference = load_inference(chosen_model(model, weights), weights, w2v, precision.value)

    def work(path: Path, target: Path) -> None:
        samples = load_file(path, inference.config.codec.sample_rate, max_seconds)
        codes = encode_samples(inference, samples, n_quantizers, upstream_lengths)
        size = write_codes(target, codes, overwrite=overwrite)
        if len(plan) == 1:
            console.print(
                f"{target}: {codes.num_frames} frames × {codes.n_quantizers} codes, {size} bytes, "
                f"{codes.bitrate / 1000:.3f} kbit/s",
                highlight=False,
            )

    process_each(plan, "encoding", work)


@reports_errors
def decode(
    files: Annotated[
        list[str], typer.Argument(metavar="FILES…", help=".dualcodec files, folders or globs.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for audio files.")] = Path(
        "decoded"
    ),
    n_quantizers: CountOption = None,
    weights: WeightsOption = None,
    precision: PrecisionOption = PrecisionChoice.float32,
    overwrite: OverwriteOption = False,
    upstream_lengths: UpstreamOption = False,
) -> None:
    """Code files (.dualcodec) → wav files. The model is the one named in each file."""
    from dualcodec_jax.audio.io import write_audio
    from dualcodec_jax.container import read_codes
    from dualcodec_jax.errors import CodeFileError
    from dualcodec_jax.paths import find_files

    _check_count(n_quantizers)
    inputs = find_files(files, {".dualcodec"}, error=CodeFileError)
    plan = plan_outputs(inputs, output, ".wav", overwrite)
    models: dict[str, Inference] = {}

    def work(path: Path, target: Path) -> None:
        codes = read_codes(path)
        if codes.model_id not in models:
            models[codes.model_id] = load_inference(
                codes.model_id, weights, None, precision.value, decode_only=True
            )
        inference = models[codes.model_id]
        audio = decode_codes(inference, codes, n_quantizers, upstream_lengths)
        write_audio(target, audio, codes.sample_rate)

    process_each(plan, "decoding", work)


@reports_errors
def reconstruct(
    files: AudioArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for audio files.")] = Path(
        "reconstructed"
    ),
    model: ModelOption = None,
    n_quantizers: CountOption = None,
    weights: WeightsOption = None,
    w2v: W2vOption = None,
    precision: PrecisionOption = PrecisionChoice.float32,
    overwrite: OverwriteOption = False,
    upstream_lengths: UpstreamOption = False,
    max_seconds: MaxSecondsOption = DEFAULT_MAX_SECONDS,
) -> None:
    """Audio files → codes → wav files, for listening to what the codec keeps."""
    from dualcodec_jax.audio.io import write_audio
    from dualcodec_jax.paths import find_audio_files

    _check_count(n_quantizers)
    plan = plan_outputs(find_audio_files(files), output, ".wav", overwrite)
    inference = load_inference(chosen_model(model, weights), weights, w2v, precision.value)

    def work(path: Path, target: Path) -> None:
        samples = load_file(path, inference.config.codec.sample_rate, max_seconds)
        codes = encode_samples(inference, samples, n_quantizers, upstream_lengths)
        audio = decode_codes(inference, codes, None, upstream_lengths)
        write_audio(target, audio, codes.sample_rate)

    process_each(plan, "reconstructing", work)


def load_file(path: Path, sample_rate: int, max_seconds: float) -> np.ndarray:
    """Samples ``[N]`` of an audio file at ``sample_rate``; what changed the signal is shown."""
    from dualcodec_jax.audio.load import load_audio

    audio = load_audio(path, sample_rate, max_seconds=max_seconds or None)
    for note in audio.notes:
        show_note(f"{path}: {note}")
    return audio.samples


def encode_samples(
    inference: Inference,
    samples: np.ndarray,
    n_quantizers: int | None,
    upstream_lengths: bool = False,
) -> CodeFile:
    """Codes of ``samples [N]``, with the length that decoding will give back."""
    from dualcodec_jax.container import CodeFile
    from dualcodec_jax.lengths import decoded_samples

    config = inference.config.codec
    semantic, acoustic = inference.encode(
        samples.reshape(1, 1, -1), n_quantizers, pad_end=not upstream_lengths
    )[:2]
    rows = semantic if acoustic is None else np.concatenate([semantic, acoustic], axis=1)
    codes = np.asarray(rows)[0]
    return CodeFile(
        codes=codes,
        model_id=inference.config.model_id,
        sample_rate=config.sample_rate,
        hop_length=config.hop_length,
        num_samples=(decoded_samples(codes.shape[1], config) if upstream_lengths else samples.size),
        codebook_sizes=config.codebook_sizes[: codes.shape[0]],
    )


def decode_codes(
    inference: Inference,
    codes: CodeFile,
    n_quantizers: int | None = None,
    upstream_lengths: bool = False,
) -> np.ndarray:
    """Audio ``[N]`` of one code file, with at most ``n_quantizers`` of its codes per frame.

    Raises:
        InputError: if the file's sizes are not those of the model it names.
    """
    config = inference.config.codec
    expected = (config.sample_rate, config.hop_length, config.codebook_sizes[: codes.n_quantizers])
    if (codes.sample_rate, codes.hop_length, codes.codebook_sizes) != expected:
        raise InputError(
            f"the file says {codes.model_id}, but its sample rate, hop or codebook sizes are not "
            "those of that model"
        )
    rows = codes.codes[None, :n_quantizers]
    audio = inference.decode(
        rows[:, :1],
        rows[:, 1:] if rows.shape[1] > 1 else None,
        num_samples=None if upstream_lengths else codes.num_samples,
    )
    return np.asarray(audio)[0, 0]


def _check_count(n_quantizers: int | None) -> None:
    if n_quantizers is not None and n_quantizers < 1:
        raise InputError(f"--n-quantizers must be at least 1; got {n_quantizers}")
