"""Codec 2 through ``c2enc`` and ``c2dec``: 8 kHz, one stream of equal frames, no container.

The decoded speech lags behind the input by some 20 ms. That many zeros are encoded at the end and
as many samples dropped at the beginning, so the output is aligned. The delay of each mode was
measured on 30 s of speech, from the cross-correlation of log envelopes in four bands; windows of 15
to 50 ms agree on it to 3 samples.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation.codecs.base import (
    CodecFailure,
    CodecInfo,
    Coded,
    Samples,
    fit_length,
)
from dualcodec_jax.evaluation.codecs.programs import (
    debian_version,
    missing_programs,
    require_programs,
    run,
)

PROGRAMS, PACKAGE = ("c2enc", "c2dec"), "codec2"
SAMPLE_RATE = 8000
DEFAULT_MODE = "3200"


class Frame(NamedTuple):
    """A mode: samples of a frame at 8 kHz, its bits, and the delay in samples."""

    samples: int
    bits: int
    delay: int

    @property
    def size(self) -> int:
        """Bytes of a frame in the file; the last may have unused bits."""
        return -(-self.bits // 8)


MODES = {
    "3200": Frame(160, 64, 146),
    "2400": Frame(160, 48, 148),
    "1600": Frame(320, 64, 147),
    "1400": Frame(320, 56, 149),
    "1300": Frame(320, 52, 150),
    "1200": Frame(320, 48, 147),
    "700C": Frame(320, 28, 223),
    "450": Frame(320, 18, 202),
}
"""Modes by name (``codec2.h`` and ``codec2.c`` of Codec 2 1.0)."""


class Codec2:
    """Codec 2 in one mode."""

    def __init__(self, mode: str) -> None:
        require_programs(PROGRAMS, PACKAGE)
        self._mode, self._frame = mode, MODES[mode]
        self.info = CodecInfo(
            name=f"codec2:{mode}",
            sample_rate=SAMPLE_RATE,
            version=f"codec2 {debian_version(PACKAGE)}",
            bitrate=self._frame.bits * SAMPLE_RATE / self._frame.samples,
        )

    def encode(self, samples: Samples) -> Coded:
        """Frames as ``c2enc`` writes them; unused bits at their ends are not counted."""
        total = samples.size + self._frame.delay
        padded = np.zeros(-(-total // self._frame.samples) * self._frame.samples, np.float32)
        padded[: samples.size] = samples
        steps = np.clip(np.rint(padded * 32768), -32768, 32767).astype("<i2")
        data = self._convert("c2enc", steps.tobytes())
        frames, rest = divmod(len(data), self._frame.size)
        if rest or frames * self._frame.samples != padded.size:
            raise CodecFailure(
                f"c2enc wrote {len(data)} bytes for {padded.size} samples; this version of "
                f"Codec 2 has other frames in mode {self._mode}"
            )
        return Coded(data, frames * self._frame.bits)

    def decode(self, coded: Coded, num_samples: int) -> Samples:
        """Decode the frames."""
        steps = np.frombuffer(self._convert("c2dec", coded.payload), "<i2")
        samples = steps[self._frame.delay :].astype(np.float32) / np.float32(32768)
        return fit_length(samples, num_samples)

    def _convert(self, program: str, data: bytes) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "in.bin"), Path(folder, "out.bin")
            source.write_bytes(data)
            run([program, self._mode, source, target])
            return target.read_bytes()


def open_codec2(argument: str | None, n_quantizers: int | None) -> Codec2:
    """``codec2:MODE``; see :func:`~.registry.open_codec`."""
    if n_quantizers is not None:
        raise InputError("codec2 has no quantizers; give its mode: codec2:3200")
    mode = DEFAULT_MODE if argument is None else argument.upper()
    if mode not in MODES:
        raise InputError(f"codec2:{argument}: no such mode; there are {', '.join(MODES)}")
    return Codec2(mode)


def absence_of_codec2() -> str | None:
    """What to install, if anything."""
    return missing_programs(PROGRAMS, PACKAGE)
