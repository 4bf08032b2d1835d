"""Codecs by name."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable

from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation.codecs.base import Codec

Opener = Callable[[str | None, int | None], Codec]

_MODULES = {
    "original": "original",
    "dualcodec": "dualcodec",
    "upstream": "upstream",
    "opus": "opus",
    "codec2": "codec2",
    "encodec": "hugging_face",
    "dac": "hugging_face",
    "mimi": "hugging_face",
    "speechtokenizer": "speechtokenizer",
    "wavtokenizer": "wavtokenizer",
}
"""Family → module of this package with ``open_FAMILY`` and ``absence_of_FAMILY``."""

FAMILIES = tuple(_MODULES)
_SPEC = re.compile(r"(?P<family>\w+)(?::(?P<argument>.+?))?(?:@(?P<count>\d+))?")


@dataclasses.dataclass(frozen=True)
class Spec:
    """A codec's name taken apart.

    Attributes:
        family: one of :data:`FAMILIES`.
        argument: what stands between ``:`` and ``@``; its meaning is the family's.
        n_quantizers: codes per frame; None: all, or as the argument says.
    """

    family: str
    argument: str | None = None
    n_quantizers: int | None = None


def parse_spec(spec: str) -> Spec:
    """Take ``FAMILY[:ARGUMENT][@QUANTIZERS]`` apart.

    Raises:
        InputError: it is not of this form, or there is no such family.
    """
    match = _SPEC.fullmatch(spec)
    if match is None or match["family"] not in _MODULES:
        raise InputError(
            f"unknown codec {spec!r}; write FAMILY[:ARGUMENT][@QUANTIZERS] with one of "
            f"{', '.join(FAMILIES)}"
        )
    count = None if match["count"] is None else int(match["count"])
    if count == 0:
        raise InputError(f"{spec}: the number of quantizers after @ must be at least 1")
    return Spec(match["family"], match["argument"], count)


def open_codec(spec: str) -> Codec:
    """Open a codec.

    =============================== ==========================================================
    ``original``, ``original:RATE`` the recording itself, at 24 kHz or RATE Hz
    ``dualcodec:12hz_v1@4``         released weights, the first four codes of each frame
    ``dualcodec:PLACE``             a checkpoint, released files, or a training run's folder
    ``upstream:12hz_v1@8``          the PyTorch original on the same weights, in float32
    ``opus:6``                      kbit/s
    ``codec2:3200``                 mode
    ``encodec:1.5``, ``mimi:8``     kbit/s; number of quantizers
    ``dac:24khz@8``                 16khz, 24khz or 44khz
    ``speechtokenizer@2``           …
    ``wavtokenizer``                …
    =============================== ==========================================================

    ``encodec``, ``dac``, ``mimi``, ``speechtokenizer`` and ``wavtokenizer`` take a folder with
    weights as their argument, too. docs/other_codecs.md says where each looks.

    Raises:
        CodecAbsent: its program, package or weights are not here.
        InputError: there is no such codec, or it has no such variant.
        WeightsError: weights are damaged or of another model.
    """
    parsed = parse_spec(spec)
    opener: Opener = getattr(_module(parsed.family), f"open_{parsed.family}")
    return opener(parsed.argument, parsed.n_quantizers)


def available_codecs() -> list[tuple[str, str | None]]:
    """Families with what is missing for their default variant, None if nothing is.

    Nothing is loaded or downloaded, torch is not imported.
    """
    return [(family, getattr(_module(family), f"absence_of_{family}")()) for family in FAMILIES]


def _module(family: str) -> object:
    return importlib.import_module(f"dualcodec_jax.evaluation.codecs.{_MODULES[family]}")
