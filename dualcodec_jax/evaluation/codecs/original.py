"""The recording itself: what every codec is measured against."""

from __future__ import annotations

from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation.codecs.base import CodecInfo, Coded, Samples, fit_length

DEFAULT_RATE = 24000
BITS = 16


class Original:
    """Gives back what it gets; counts 16 bits a sample."""

    def __init__(self, sample_rate: int = DEFAULT_RATE) -> None:
        name = "original" if sample_rate == DEFAULT_RATE else f"original:{sample_rate}"
        self.info = CodecInfo(
            name=name, sample_rate=sample_rate, version="1", bitrate=float(BITS * sample_rate)
        )

    def encode(self, samples: Samples) -> Coded:
        """Keep ``samples [N]``."""
        return Coded(samples, BITS * samples.size)

    def decode(self, coded: Coded, num_samples: int) -> Samples:
        """The samples, cut or zero-padded to ``[num_samples]``."""
        return fit_length(coded.payload, num_samples)


def open_original(argument: str | None, n_quantizers: int | None) -> Original:
    """``original`` or ``original:RATE``; see :func:`~.registry.open_codec`."""
    if n_quantizers is not None:
        raise InputError("original has no quantizers; leave out @")
    if argument is None:
        return Original()
    if not argument.isdecimal() or not 8000 <= int(argument) <= 48000:
        raise InputError(f"original:{argument}: give a sample rate of 8000 to 48000 Hz")
    return Original(int(argument))


def absence_of_original() -> None:
    """Never absent."""
    return
