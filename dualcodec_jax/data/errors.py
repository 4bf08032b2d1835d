"""Errors of the data pipeline."""

from __future__ import annotations

from dualcodec_jax.errors import DualCodecError


class DataError(DualCodecError, ValueError):
    """A data set cannot be used as asked: missing, damaged, foreign, or configured wrongly."""


class BrokenDataError(DataError):
    """More items are damaged than allowed, or the filters leave none."""


class DataStateError(DataError):
    """A saved iterator state belongs to another data set, configuration or process."""
