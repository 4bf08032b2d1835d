"""DualCodec as a codec of audiotree, for ``encode_with_codec``.

Source: the protocol ``audiotree.transforms.AudioCodec`` of audiotree 1.0.0 (PyPI): ``encode`` takes
an ``AudioTree`` of any sample rate and channels, and returns its codes, batch first. audiotree is
not imported.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from dualcodec_jax import functional
from dualcodec_jax.audio.resample import resample
from dualcodec_jax.config import Config
from dualcodec_jax.errors import InputError
from dualcodec_jax.inference import Inference
from dualcodec_jax.lengths import samples_to_cover


class AudioTree(Protocol):
    """What is read of an ``audiotree.AudioTree``."""

    @property
    def waveform(self) -> Any:
        """Floats ``[..., channels, N]``, or None."""

    @property
    def sample_rate(self) -> int:
        """In Hz."""


@struct.dataclass
class AudioTreeCodec:
    """A codec that satisfies ``audiotree.transforms.AudioCodec``.

    It is a pytree: to use it inside your own ``jax.jit``, pass it as an argument, or the program
    holds the parameters as constants. It can be pickled for worker processes (with its
    parameters). Every length of audio compiles anew, so give excerpts of one duration.

    Attributes:
        params: of the model, as for :func:`dualcodec_jax.encode`.
        config: of the model; static.
        n_quantizers: codes per frame, the semantic one included; static.
        pad_end: zero-pad the end, so that codes cover the whole excerpt; static.
    """

    params: functional.Params
    config: Config = struct.field(pytree_node=False)
    n_quantizers: int = struct.field(pytree_node=False)
    pad_end: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def from_inference(
        cls, inference: Inference, n_quantizers: int | None = None, *, pad_end: bool = False
    ) -> Self:
        """Wrap a model; None: all codes.

        Raises:
            InputError: if ``n_quantizers`` is out of range.
        """
        most = inference.config.codec.n_quantizers
        count = most if n_quantizers is None else n_quantizers
        if not 1 <= count <= most:
            raise InputError(f"n_quantizers must be 1…{most}; got {n_quantizers}")
        return cls(inference.params, inference.config, count, pad_end)

    def encode(self, audio: AudioTree) -> np.ndarray | Array:
        """Codes of an ``AudioTree``, mixed to mono and resampled here.

        Args:
            audio: excerpts.

        Returns:
            int32 ``[..., n, T]``, row 0 semantic; in numpy if the waveform is.

        Raises:
            InputError: if there is no waveform, it is too short for one frame, or the model was
                loaded with ``decode_only``.
            AudioError: if its rate cannot be resampled exactly.
        """
        waveform: Any = audio.waveform
        if waveform is None:
            raise InputError("this AudioTree has no waveform to encode")
        if self.config.codec.is_dual and "semantic" not in self.params:
            raise InputError("the model was loaded with decode_only=True; it cannot encode")
        shape = waveform.shape
        codes = _encode(
            self.params,
            self.config,
            waveform.reshape(-1, *shape[-2:]),
            int(audio.sample_rate),
            self.n_quantizers,
            self.pad_end,
        )
        codes = codes.reshape(*shape[:-2], *codes.shape[1:])
        return np.asarray(codes) if isinstance(waveform, np.ndarray) else codes

    def decode(self, codes: np.ndarray | Array) -> np.ndarray | Array:
        """Waveform ``[..., 1, N]`` of codes ``[..., n, T]``, at the codec's sample rate.

        Raises:
            InputError: on a wrong shape. Codes outside their codebooks are clamped, as JAX does.
        """
        shape = codes.shape
        audio = _decode(self.params, self.config, codes.reshape(-1, *shape[-2:]))
        audio = audio.reshape(*shape[:-2], *audio.shape[1:])
        return np.asarray(audio) if isinstance(codes, np.ndarray) else audio


@functools.partial(jax.jit, static_argnums=(1, 3, 4, 5))
def _encode(
    params: functional.Params,
    config: Config,
    waveform: Array,
    sample_rate: int,
    count: int,
    pad_end: bool,
) -> Array:
    mono = jnp.mean(waveform.astype(jnp.float32), axis=1)
    mono = resample(mono, sample_rate, config.codec.sample_rate)
    if pad_end:
        missing = samples_to_cover(mono.shape[1], config.codec) - mono.shape[1]
        mono = jnp.pad(mono, ((0, 0), (0, missing)))
    return functional.encode(params, config, mono[:, None], n_quantizers=count).codes


@functools.partial(jax.jit, static_argnums=1)
def _decode(params: functional.Params, config: Config, codes: Array) -> Array:
    return functional.decode(params, config, codes).audio
