"""What the cached semantic features of a data set are, and whether they fit a model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.config import DualCodecConfig
from dualcodec_jax.data.errors import DataError

INFO_FILE = "semantic_features.json"
FORMAT_VERSION = 1
DTYPES = ("float16", "float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureInfo:
    """The form of cached features.

    Attributes:
        model_id: the model that they were computed for.
        semantic_dim: D of ``[T, D]``.
        sample_rate: of the audio, in Hz.
        hop_length: samples per frame.
        frame_rate: frames per second.
        dtype: ``float16`` or ``float32``.
        peak_normalized: always True: audio was divided by its peak where that exceeded 1.
    """

    model_id: str
    semantic_dim: int
    sample_rate: int
    hop_length: int
    frame_rate: float
    dtype: Literal["float16", "float32"]
    peak_normalized: bool = True

    @classmethod
    def of(cls, model_id: str, codec: DualCodecConfig, dtype: str) -> FeatureInfo:
        """The form for a model.

        Raises:
            DataError: for another dtype.
        """
        if dtype not in DTYPES:
            raise DataError(f"features are kept as {' or '.join(DTYPES)}; got {dtype!r}")
        return cls(
            model_id=model_id,
            semantic_dim=codec.semantic_dim,
            sample_rate=codec.sample_rate,
            hop_length=codec.hop_length,
            frame_rate=codec.frame_rate,
            dtype=cast(Literal["float16", "float32"], dtype),
        )

    def check(self, codec: DualCodecConfig, sample_rate: int) -> None:
        """Raise unless the features fit a model.

        Args:
            codec: the model to train.
            sample_rate: of the training audio, in Hz.

        Raises:
            DataError: they do not; the message lists every difference.
        """
        wanted = {
            "semantic_dim": codec.semantic_dim,
            "sample_rate": codec.sample_rate,
            "hop_length": codec.hop_length,
        }
        different = [
            f"{name} {getattr(self, name)}, the model has {value}"
            for name, value in wanted.items()
            if getattr(self, name) != value
        ]
        if sample_rate != self.sample_rate:
            different.append(
                f"sample_rate {self.sample_rate}, the data configuration {sample_rate}"
            )
        if different:
            raise DataError(
                f"the cached features are for {self.model_id} and do not fit: "
                f"{'; '.join(different)}; compute them again with dualcodec-jax data features"
            )

    def pack(self, features: NDArray[Any]) -> bytes:
        """``features [T, D]`` as bytes.

        Raises:
            DataError: a value is not finite, or not within the dtype's range.
        """
        with np.errstate(over="ignore"):  # what overflows is not finite
            kept = np.ascontiguousarray(features, np.dtype(self.dtype).newbyteorder("<"))
        if kept.ndim != 2 or kept.shape[1] != self.semantic_dim:
            raise DataError(f"features must be [T, {self.semantic_dim}]; got {kept.shape}")
        if not np.isfinite(kept).all():
            raise DataError(f"features are not finite in {self.dtype}; use --dtype float32")
        return kept.tobytes()

    def unpack(self, data: bytes) -> NDArray[Any]:
        """``[T, D]`` of bytes that :meth:`pack` made; read-only.

        Raises:
            DataError: the size does not fit.
        """
        dtype = np.dtype(self.dtype).newbyteorder("<")
        if len(data) % (dtype.itemsize * self.semantic_dim):
            raise DataError(f"cached features are damaged: {len(data)} bytes; compute them again")
        return np.frombuffer(data, dtype).reshape(-1, self.semantic_dim)


def read_feature_info(folder: Path) -> FeatureInfo | None:
    """The description beside a data set; None if it has no cached features.

    Raises:
        DataError: the description is damaged or of another version.
    """
    path = folder / INFO_FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_bytes())
        version = values.pop("version")
        info = FeatureInfo(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); compute the features again") from error
    if version != FORMAT_VERSION or info.dtype not in DTYPES:
        raise DataError(
            f"{path}: version {version} with {info.dtype} features cannot be read; compute them "
            "again"
        )
    return info


def feature_info_text(info: FeatureInfo) -> str:
    """The content of the description file."""
    return json.dumps({"version": FORMAT_VERSION, **dataclasses.asdict(info)}, indent=2) + "\n"
