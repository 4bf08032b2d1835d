"""What every codec in an evaluation has: facts, ``encode`` and ``decode``, one clip at a time."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.config import code_bits
from dualcodec_jax.errors import DualCodecError

Samples = NDArray[np.float32]


class CodecAbsent(DualCodecError):
    """A codec's program, package or weights are not here; the message says what to get."""


class CodecFailure(DualCodecError):
    """A codec could not encode or decode one clip; others may go."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecInfo:
    """Facts about a codec as opened.

    Attributes:
        name: what tables call it.
        sample_rate: of the audio that it takes and gives, in Hz.
        version: of program, package and weights; enters the key of cached results.
        parameters: of the codec itself, without a frozen semantic model; None if it is not a
            neural codec.
        encode_parameters: of all networks that encoding runs, a frozen semantic model included.
        decode_parameters: of those that decoding runs.
        bitrate: nominal, in bit/s; None: measured from :attr:`Coded.num_bits`.
        tokens_per_second: codes of all quantizers together; None if there are no codes.
        n_quantizers: codes per frame.
        codebook_sizes: of each quantizer in use.
        trained: False for random weights, whose figures mean nothing.
    """

    name: str
    sample_rate: int
    version: str
    parameters: int | None = None
    encode_parameters: int | None = None
    decode_parameters: int | None = None
    bitrate: float | None = None
    tokens_per_second: float | None = None
    n_quantizers: int | None = None
    codebook_sizes: tuple[int, ...] | None = None
    trained: bool = True


@dataclasses.dataclass(frozen=True)
class Coded:
    """An encoded clip.

    Attributes:
        payload: what the codec's ``decode`` takes.
        num_bits: size of the payload without container: packet bytes of Opus, frame bits of
            Codec2, codes at their codebooks' width of neural codecs, 16 bits a sample of the
            original.
        codes: int32 ``[n, T]``; None if the codec has no codes.
    """

    payload: Any
    num_bits: int
    codes: NDArray[np.int32] | None = None


class Codec(Protocol):
    """Something to evaluate."""

    info: CodecInfo

    def encode(self, samples: Samples) -> Coded:
        """Encode ``samples [N]``, float32 at ``info.sample_rate``.

        Raises:
            DualCodecError: the clip cannot be encoded.
        """
        ...

    def decode(self, coded: Coded, num_samples: int) -> Samples:
        """Decode to ``[num_samples]``, float32 at ``info.sample_rate``.

        Raises:
            DualCodecError: the clip cannot be decoded.
        """
        ...


def coded_bits(codes: NDArray[np.int32], codebook_sizes: tuple[int, ...]) -> int:
    """Bits of ``codes [n, T]``, each at the width of its codebook."""
    return codes.shape[1] * sum(code_bits(size) for size in codebook_sizes[: codes.shape[0]])


def fit_length(samples: Samples, num_samples: int) -> Samples:
    """``samples [N]`` cut or zero-padded at the end to ``[num_samples]``, float32."""
    result = np.zeros(num_samples, np.float32)
    result[: min(num_samples, samples.size)] = samples[:num_samples]
    return result
