"""Random parameters rescaled so that codes depend on all of the input.

As initialised, the waveform's latent is a thousandth of the semantic one, and the codes of a
layer sit in a corner of its codebook: a broken waveform encoder would go unnoticed.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualcodec_jax.config import Config
from dualcodec_jax.functional import semantic_features
from dualcodec_jax.model import DualCodecModel, random_model, random_semantic
from dualcodec_jax.nn.codec import DualCodec


def calibrated(config: Config, speech: np.ndarray) -> tuple[DualCodecModel, tuple[Any, Any, Any]]:
    """A random generator and semantic model, calibrated on ``speech [N]``.

    Returns:
        The generator, and (configuration, parameters, statistics) of the semantic model, as
        ``Inference(..., semantic=)`` takes them.
    """
    semantic, statistics = random_semantic(config.semantic)
    params = {"semantic": semantic, "statistics": statistics}
    extract = jax.jit(semantic_features, static_argnames="config")
    features = np.asarray(extract(params, config, speech[None])[0])[0]
    statistics = {"mean": features.mean(axis=0), "var": features.var(axis=0)}
    features = (features - statistics["mean"]) / np.sqrt(statistics["var"])
    model = random_model(config.model_id)
    codec = calibrate_codec(config, model.params, speech[None, :, None], features[None])
    model = DualCodecModel(model.model_id, model.config, codec)
    return model, (config.semantic, semantic, statistics)


def calibrate_codec(config: Config, params: Any, audio: np.ndarray, features: np.ndarray) -> Any:
    """Spread the latents over every codebook for ``audio [1, N, 1]`` and ``features [1, T, D]``."""
    params = jax.tree.map(np.array, params)
    codec = DualCodec(config.codec)

    @jax.jit
    def measure(params: Any) -> Any:
        acoustic = codec.apply({"params": params}, audio, method="encode_acoustic")
        latent, semantic = codec.apply({"params": params}, features, method="encode_semantic")
        residual = acoustic[:, : latent.shape[1]] - latent
        quantize = lambda module, z: module.dac.quantizer(z)  # noqa: E731
        stack = codec.apply({"params": params}, residual, method=quantize)
        latents = jnp.concatenate([semantic.latents, stack.latents], axis=1)[0]
        movement = [jnp.mean(jnp.std(x[0], axis=0)) for x in (acoustic, latent)]
        return *movement, latents.mean(axis=1), latents.std(axis=1)

    acoustic_quantizers = params["dac"]["quantizer"]
    quantizers = [
        params["semantic_vq"]["quantizer_0"],
        *(acoustic_quantizers[f"quantizer_{i}"] for i in range(config.codec.n_codebooks)),
    ]
    # A layer's input depends on the codes of the layers before it, hence the repetition.
    for _ in range(1 + config.codec.n_quantizers):
        acoustic, latent, means, stds = (np.asarray(value) for value in measure(params))
        params["dac"]["encoder"]["conv_out"]["weight_g"] *= 2 * latent / acoustic
        for quantizer, mean, std in zip(quantizers, means, stds, strict=True):
            quantizer["in_proj"]["weight_g"] /= std
            quantizer["in_proj"]["bias"] = (quantizer["in_proj"]["bias"] - mean) / std
    return params
