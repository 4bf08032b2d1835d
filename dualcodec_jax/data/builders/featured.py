"""A data set with cached semantic features."""

from __future__ import annotations

from dualcodec_jax.data.builders.base import DualcodecRecords


class DualcodecFeatures(DualcodecRecords):
    """Audio as it was, and the features that ``semantic_features.json`` describes."""

    DESCRIPTION = "Speech recordings with cached semantic features for DualCodec."
