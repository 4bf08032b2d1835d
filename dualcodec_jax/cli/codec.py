"""``encode``, ``decode`` and ``reconstruct``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualcodec_jax.cli.common import (
    Bars,
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
from dualcodec_jax.lengths import WHOLE_SECONDS

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
    float | None,
    typer.Option(
        "--max-seconds", help="Refuse longer audio files. Default: no limit.", show_default=False
    ),
]
WholeSecondsOption = Annotated[
    float,
    typer.Option(
        "--whole-seconds",
        help="Encode longer recordings in overlapping windows, at constant memory.",
    ),
]
WindowOption = Annotated[
    float | None,
    typer.Option(
        "--window-seconds",
        help="Audio that w2v-BERT sees at once in these. Default: 30.",
        show_default=False,
    ),
]
OverlapOption = Annotated[
    float | None,
    typer.Option(
        "--overlap-seconds",
        help="Audio that two windows share. Default: a sixth of one.",
        show_default=False,
    ),
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
    max_seconds: MaxSecondsOption = None,
    whole_seconds: WholeSecondsOption = WHOLE_SECONDS,
    window_seconds: WindowOption = None,
    overlap_seconds: OverlapOption = None,
) -> None:
    """Audio files → .dualcodec files, at any length. Folder structure is kept."""
    from dualcodec_jax.container import write_codes
    from dualcodec_jax.paths import find_audio_files

    _check_count(n_quantizers)
    plan = plan_outputs(find_audio_files(files), output, ".dualcodec", overwrite)
    inference = load_inference(chosen_model(model, weights), weights, w2v, precision.value)
    encoder = _encoder(
        inference,
        n_quantizers,
        upstream_lengths=upstream_lengths,
        max_seconds=max_seconds,
        whole_seconds=whole_seconds,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
    )

    def work(path: Path, target: Path, bars: Bars) -> None:
        codes = encoder(path, bars)
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
    from dualcodec_jax.container import read_codes
    from dualcodec_jax.errors import CodeFileError
    from dualcodec_jax.files import decode_file
    from dualcodec_jax.paths import find_files

    _check_count(n_quantizers)
    inputs = find_files(files, {".dualcodec"}, error=CodeFileError)
    plan = plan_outputs(inputs, output, ".wav", overwrite)
    models: dict[str, Inference] = {}

    def work(path: Path, target: Path, bars: Bars) -> None:
        codes = read_codes(path)
        if codes.model_id not in models:
            models[codes.model_id] = load_inference(
                codes.model_id, weights, None, precision.value, decode_only=True
            )
        decode_file(
            models[codes.model_id],
            codes,
            target,
            n_quantizers,
            upstream_lengths=upstream_lengths,
            progress=bars.within(path.name),
        )

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
    max_seconds: MaxSecondsOption = None,
    whole_seconds: WholeSecondsOption = WHOLE_SECONDS,
    window_seconds: WindowOption = None,
    overlap_seconds: OverlapOption = None,
) -> None:
    """Audio files → codes → wav files, for listening to what the codec keeps."""
    from dualcodec_jax.files import decode_file
    from dualcodec_jax.paths import find_audio_files

    _check_count(n_quantizers)
    plan = plan_outputs(find_audio_files(files), output, ".wav", overwrite)
    inference = load_inference(chosen_model(model, weights), weights, w2v, precision.value)
    encoder = _encoder(
        inference,
        n_quantizers,
        upstream_lengths=upstream_lengths,
        max_seconds=max_seconds,
        whole_seconds=whole_seconds,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
    )

    def work(path: Path, target: Path, bars: Bars) -> None:
        codes = encoder(path, bars)
        decode_file(
            inference,
            codes,
            target,
            upstream_lengths=upstream_lengths,
            progress=bars.within(f"decoding {path.name}"),
        )

    process_each(plan, "reconstructing", work)


def _encoder(
    inference: Inference, n_quantizers: int | None, **options: Any
) -> Callable[[Path, Bars], CodeFile]:
    """``encode_file`` with these options, checked, which shows notes and how far it is."""
    from dualcodec_jax.files import encode_file
    from dualcodec_jax.stream_encode import semantic_windows

    if inference.config.codec.is_dual:
        semantic_windows(inference.config, options["window_seconds"], options["overlap_seconds"])

    def encode(path: Path, bars: Bars) -> CodeFile:
        progress = bars.within(f"encoding {path.name}")
        codes, notes = encode_file(inference, path, n_quantizers, progress=progress, **options)
        for note in notes:
            show_note(f"{path}: {note}")
        return codes

    return encode


def _check_count(n_quantizers: int | None) -> None:
    if n_quantizers is not None and n_quantizers < 1:
        raise InputError(f"--n-quantizers must be at least 1; got {n_quantizers}")
