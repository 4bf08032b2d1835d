"""Codecs side by side: DualCodec, its PyTorch original, and others, each behind one interface.

A codec is named by a *spec*: ``FAMILY[:ARGUMENT][@QUANTIZERS]``; see :func:`open_codec`.
"""

from __future__ import annotations

from dualcodec_jax.evaluation.codecs.base import Codec, CodecAbsent, CodecFailure, CodecInfo, Coded
from dualcodec_jax.evaluation.codecs.registry import available_codecs, open_codec

__all__ = [
    "Codec",
    "CodecAbsent",
    "CodecFailure",
    "CodecInfo",
    "Coded",
    "available_codecs",
    "open_codec",
]
