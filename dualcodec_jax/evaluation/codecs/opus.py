"""Opus through ``opusenc`` and ``opusdec``: variable bitrate, 20 ms frames, full complexity.

Opus runs at 48 kHz inside, so that is the rate here; at low bitrates it narrows the band on its
own. ``opusdec`` removes the encoder's delay (pre-skip) and the padding at the end, so the output
is aligned with the input and as long.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dualcodec_jax.audio.reader import read_audio
from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation.codecs.base import (
    CodecFailure,
    CodecInfo,
    Coded,
    Samples,
    fit_length,
)
from dualcodec_jax.evaluation.codecs.programs import missing_programs, require_programs, run

PROGRAMS, PACKAGE = ("opusenc", "opusdec"), "opus-tools"
SAMPLE_RATE = 48000
LOWEST, HIGHEST = 6.0, 256.0
"""Target bitrates that ``opusenc`` accepts for one channel, in kbit/s."""
DEFAULT_KBITS = 6.0
_HEADERS = 2  # OpusHead and OpusTags


class Opus:
    """Mono Opus at a target bitrate in kbit/s."""

    def __init__(self, kbits: float) -> None:
        require_programs(PROGRAMS, PACKAGE)
        self._kbits = f"{kbits:g}"
        self.info = CodecInfo(
            name=f"opus:{self._kbits}", sample_rate=SAMPLE_RATE, version=program_version()
        )

    def encode(self, samples: Samples) -> Coded:
        """The bytes of an Ogg Opus file; of these, the audio packets are counted."""
        with tempfile.TemporaryDirectory() as folder:
            wav, opus = Path(folder, "in.wav"), Path(folder, "out.opus")
            write_audio(wav, samples, SAMPLE_RATE)
            run(["opusenc", "--quiet", "--vbr", "--bitrate", self._kbits, wav, opus])
            data = opus.read_bytes()
        return Coded(data, 8 * sum(list(packet_sizes(data))[_HEADERS:]))

    def decode(self, coded: Coded, num_samples: int) -> Samples:
        """Decode the file."""
        with tempfile.TemporaryDirectory() as folder:
            opus, wav = Path(folder, "in.opus"), Path(folder, "out.wav")
            opus.write_bytes(coded.payload)
            run(["opusdec", "--quiet", "--float", "--rate", str(SAMPLE_RATE), opus, wav])
            samples = read_audio(wav, max_seconds=None).samples
        return fit_length(samples, num_samples)


def packet_sizes(data: bytes) -> Iterator[int]:
    """Sizes in bytes of the packets of an Ogg file with one stream (RFC 3533).

    Raises:
        CodecFailure: if it is not an Ogg file.
    """
    position = size = 0
    while position < len(data):
        page = data[position : position + 27]
        if len(page) < 27 or page[:4] != b"OggS":
            raise CodecFailure(f"no Ogg page at byte {position}: opusenc wrote something else")
        lacing = data[position + 27 : position + 27 + page[26]]
        for segment in lacing:
            size += segment
            if segment < 255:
                yield size
                size = 0
        position += 27 + page[26] + sum(lacing)


@functools.cache
def program_version() -> str:
    """First line of ``opusenc --version``: the tools' and the library's version."""
    result = subprocess.run(
        ["opusenc", "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=10,
        check=False,
    )
    return result.stdout.decode("utf-8", "replace").partition("\n")[0].strip()


def open_opus(argument: str | None, n_quantizers: int | None) -> Opus:
    """``opus:KBITS``; see :func:`~.registry.open_codec`."""
    if n_quantizers is not None:
        raise InputError("opus has no quantizers; give its bitrate: opus:6")
    try:
        kbits = DEFAULT_KBITS if argument is None else float(argument)
    except ValueError:
        kbits = 0.0
    if not LOWEST <= kbits <= HIGHEST:
        raise InputError(f"opus:{argument}: give {LOWEST:g} to {HIGHEST:g} kbit/s, as in opus:12")
    return Opus(kbits)


def absence_of_opus() -> str | None:
    """What to install, if anything."""
    return missing_programs(PROGRAMS, PACKAGE)
