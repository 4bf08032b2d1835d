"""The generator as users hold it: configuration, parameters, name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dualcodec_jax import hub
from dualcodec_jax.config import DualCodecConfig, SemanticConfig, SemanticModel, get_config
from dualcodec_jax.convert.engine import Params
from dualcodec_jax.convert.files import (
    GENERATOR_FILES,
    STATISTICS_FILE,
    W2V_BERT_FILE,
    codec_shapes,
    export_torch,
    semantic_shapes,
)
from dualcodec_jax.errors import ConfigError
from dualcodec_jax.loading import load
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.weights import Weights, check_tree, save_weights

W2V_BERT_NAMES = ("w2v_bert", W2V_BERT_FILE)
WHISPER_NAMES = ("whisper", "model.bin", "model.safetensors")
STATISTICS_NAMES = ("statistics", "statistics.safetensors", "statistics.npz", STATISTICS_FILE)


@dataclasses.dataclass(frozen=True)
class DualCodecModel:
    """A DualCodec generator; what :func:`get_model` returns and :class:`Inference` takes.

    Attributes:
        model_id: such as ``12hz_v1``.
        config: sizes of the generator.
        params: weight-normalised parameters, float32, as trained.
        source: notes on where the weights came from.
    """

    model_id: str
    config: DualCodecConfig
    params: Params
    source: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def num_parameters(self) -> int:
        """Stored parameters, gains of the weight norm included."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def save(self, folder: str | Path, *, overwrite: bool = False, quantized: bool = False) -> Path:
        """Write a checkpoint folder that :func:`get_model` reads; ``quantized``: in 8 bits."""
        return save_weights(self._weights(), folder, overwrite=overwrite, quantized=quantized)

    def export_torch(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a safetensors file that the PyTorch original loads strictly."""
        return export_torch(self._weights(), path, overwrite=overwrite)

    def _weights(self) -> Weights:
        params = jax.tree.map(np.asarray, self.params)
        return Weights("codec", self.model_id, self.config, params, self.source)


def get_model(
    model_id: str = "12hz_v1", pretrained_model_path: str | Path | None = None
) -> DualCodecModel:
    """Load a generator (upstream ``get_model``).

    Args:
        model_id: ``12hz_v1`` or ``25hz_v1``; ``demo`` is a small model that ships with this
            package and is not the DualCodec release.
        pretrained_model_path: a folder with the released safetensors files or converted
            checkpoints, a file of either kind, or ``hf://owner/name[@revision]``. None:
            ``$DUALCODEC_WEIGHTS``, else the released repository; for ``demo``, what ships.

    Raises:
        ConfigError: on an unknown model id.
        HubError: if the weights are not there.
        WeightsError: if they do not fit the model.
    """
    config = get_config(model_id)
    location = hub.codec_location(pretrained_model_path)
    if model_id == hub.BUNDLED_MODEL and pretrained_model_path is None:
        location = hub.BUNDLED
    released = GENERATOR_FILES.get(model_id, f"{model_id}.safetensors")
    weights = load("codec", location, (model_id, released), model_id)
    if not config.codec.same_model(weights.config):
        raise ConfigError(f"{location}: its configuration is not that of {model_id}")
    if not weights.verified:
        check_tree(weights.params, codec_shapes(config.codec), what=f"the generator {model_id}")
    return DualCodecModel(model_id, weights.config, weights.params, weights.source)


def random_model(model_id: str = "12hz_v1", seed: int = 0) -> DualCodecModel:
    """A generator with upstream's initial values: for tests, benchmarks, training from scratch."""
    config = get_config(model_id).codec
    params = random_params(codec_shapes(config), seed)
    return DualCodecModel(model_id, config, params, {"random_seed": seed})


def load_semantic(
    dualcodec_path: str | Path | None = None,
    w2v_path: str | Path | None = None,
    kind: SemanticModel = "w2v_bert",
) -> tuple[SemanticConfig, Params, Params]:
    """A semantic model's configuration and parameters, and the statistics of its features.

    Args:
        dualcodec_path: where the statistics are, as in :class:`Inference`. None: for ``whisper``
            those that ship with this package.
        w2v_path: where the semantic model is, as in :class:`Inference`. None: for ``whisper``
            the one that ships with this package.
        kind: ``DualCodecConfig.semantic_model``.

    Raises:
        HubError, WeightsError: as :func:`get_model`.
    """
    weights = load_semantic_model(w2v_path, kind)
    whisper = kind == "whisper"
    where = (hub.whisper_location if whisper else hub.codec_location)(dualcodec_path)
    statistics = load("statistics", where, STATISTICS_NAMES)
    vector = jax.ShapeDtypeStruct((weights.config.hidden_size,), np.float32)
    shapes = {"mean": vector, "var": vector}
    check_tree(statistics.params, shapes, what="the statistics of semantic features")
    return weights.config, weights.params, statistics.params


def statistics_place(place: str | Path) -> str | None:
    """The place as :func:`load_semantic`'s ``dualcodec_path``, or None if it has no statistics.

    Exports of a training run have none: those of the release go on to hold.
    """
    if hub.is_remote(place):
        return str(place)
    path = hub.local_path(place)
    return str(path) if any((path / name).exists() for name in STATISTICS_NAMES) else None


def load_semantic_model(
    w2v_path: str | Path | None = None, kind: SemanticModel = "w2v_bert"
) -> Weights:
    """A semantic model alone; arguments and errors as :func:`load_semantic`."""
    if kind == "whisper":
        weights = load(kind, hub.whisper_location(w2v_path), WHISPER_NAMES)
    else:
        weights = load(kind, hub.w2v_bert_location(w2v_path), W2V_BERT_NAMES)
    if not weights.verified:
        shapes = semantic_shapes(weights.config)
        check_tree(weights.params, shapes, what=f"the semantic model {kind}")
    return weights


def random_semantic(config: SemanticConfig, seed: int = 0) -> tuple[Params, Params]:
    """Random parameters of a semantic model, and statistics that leave its features as they are."""
    ones = np.ones(config.hidden_size, np.float32)
    return random_params(semantic_shapes(config), seed), {"mean": 0 * ones, "var": ones}
