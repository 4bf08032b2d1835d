"""What the page computes: recordings → codes → audio, with times. Knows no page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dualcodec_jax.app.models import LoadedModel
from dualcodec_jax.audio.load import load_audio
from dualcodec_jax.container import CodeFile, pack, read_codes
from dualcodec_jax.errors import CodeFileError, DualCodecError
from dualcodec_jax.files import decode_codes, encode_samples
from dualcodec_jax.lengths import bucket

Progress = Callable[[float, str], None]
"""Is told which share is done, and what is being done."""


@dataclasses.dataclass
class Run:
    """A recording or a code file that was dropped in, and what became of it.

    Attributes:
        title: name of what was dropped in.
        model: what encoded and decodes it.
        codes: all that there are.
        original: float32 ``[N]`` at the codec's rate; None where only codes were given.
        encode_seconds: None where only codes were given.
        decoded: audio by the number of codes a frame, as far as it was asked for.
        decode_seconds: the same.
        notes: sentences on what changed the signal.
    """

    title: str
    model: LoadedModel
    codes: CodeFile
    original: np.ndarray | None = None
    encode_seconds: float | None = None
    decoded: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    decode_seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def audio(self, count: int) -> np.ndarray:
        """Audio ``[N]`` of ``count`` codes a frame, decoded when it is first asked for."""
        if count not in self.decoded:
            shape = ("decode", count, bucket(self.codes.num_frames))
            inference = self.model.inference
            self.decoded[count], self.decode_seconds[count] = self.model.timed(
                shape, lambda: decode_codes(inference, self.codes, count)
            )
        return self.decoded[count]

    def code_file(self, count: int) -> bytes:
        """A ``.dualcodec`` file of the first ``count`` codes of each frame."""
        return pack(
            dataclasses.replace(
                self.codes,
                codes=self.codes.codes[:count],
                codebook_sizes=self.codes.codebook_sizes[:count],
            )
        )

    def bitrate(self, count: int) -> float:
        """Bit/s of ``count`` codes a frame."""
        return self.model.inference.config.codec.bitrate(count)


def encode(path: Path, model: LoadedModel, max_seconds: float, progress: Progress) -> Run:
    """Encode an uploaded recording with all codes of the model; times are without compiling.

    Raises:
        DualCodecError: with the name of the file alone: visitors need not know where it lies.
    """
    codec = model.inference.config.codec
    progress(0.1, "reading the recording")
    try:
        audio = load_audio(path, codec.sample_rate, max_seconds=max_seconds)
        shape = ("encode", bucket(-(-audio.samples.size // codec.hop_length)))
        progress(0.3, f"encoding with {model.name}")
        codes, seconds = model.timed(shape, lambda: encode_samples(model.inference, audio.samples))
    except DualCodecError as error:
        raise _without_folder(error, path) from error
    return Run(path.name, model, codes, audio.samples, seconds, notes=audio.notes)


def open_codes(path: Path, max_seconds: float) -> CodeFile:
    """Read an uploaded code file.

    Raises:
        CodeFileError: if it is none, or longer than ``max_seconds``.
    """
    try:
        codes = read_codes(path)
    except DualCodecError as error:
        raise _without_folder(error, path) from error
    seconds = max(codes.seconds, codes.num_frames * codes.hop_length / codes.sample_rate)
    if seconds > max_seconds:
        raise CodeFileError(
            f"{path.name}: stands for {seconds:.1f} s, and this app takes {max_seconds:g} s; "
            "decode it with `dualcodec-jax decode`"
        )
    return codes


def _without_folder(error: DualCodecError, path: Path) -> DualCodecError:
    return type(error)(str(error).replace(str(path), path.name))
