"""DualCodec itself: released weights, the demo, any checkpoint, any training run."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from dualcodec_jax import __version__, hub
from dualcodec_jax.config import DualCodecConfig
from dualcodec_jax.convert.engine import Params
from dualcodec_jax.convert.files import GENERATOR_FILES
from dualcodec_jax.errors import HubError, InputError
from dualcodec_jax.evaluation.codecs.base import CodecAbsent, CodecInfo, Coded, Samples, coded_bits
from dualcodec_jax.inference import Inference, clear_programs
from dualcodec_jax.opening import open_model

DEFAULT_MODEL = "12hz_v1"


class DualCodec:
    """A DualCodec in float32; the end is padded so that nothing of a clip is lost.

    Args:
        inference: encoder and decoder.
        name: for tables.
        n_quantizers: codes per frame; None: all.
        version: of the weights.
        trained: False for random weights.
    """

    def __init__(
        self,
        inference: Inference,
        *,
        name: str,
        n_quantizers: int | None = None,
        version: str,
        trained: bool = True,
    ) -> None:
        codec = inference.config.codec
        count = codec.n_quantizers if n_quantizers is None else n_quantizers
        if not 1 <= count <= codec.n_quantizers:
            raise InputError(f"{name}: has 1 to {codec.n_quantizers} quantizers, not {count}")
        self._inference, self._count = inference, count
        whole, encoding, decoding = _sizes(inference.params, codec, count)
        self.info = CodecInfo(
            name=f"{name}@{count}",
            sample_rate=codec.sample_rate,
            version=version,
            parameters=whole,
            encode_parameters=encoding,
            decode_parameters=decoding,
            bitrate=codec.bitrate(count),
            tokens_per_second=codec.frame_rate * count,
            n_quantizers=count,
            codebook_sizes=codec.codebook_sizes[:count],
            trained=trained,
        )

    def encode(self, samples: Samples) -> Coded:
        """Codes of ``samples [N]``.

        Raises:
            InputError: the clip is too short or too long.
            AudioError: it is not finite.
        """
        rows = self._inference.encode(samples.reshape(1, 1, -1), self._count, pad_end=True)
        codes = np.concatenate([np.asarray(row)[0] for row in rows if row is not None])
        sizes = self._inference.config.codec.codebook_sizes
        return Coded(codes, coded_bits(codes, sizes), codes)

    def decode(self, coded: Coded, num_samples: int) -> Samples:
        """Audio of the codes."""
        codes = coded.payload[None]
        acoustic = codes[:, 1:] if codes.shape[1] > 1 else None
        audio = self._inference.decode(codes[:, :1], acoustic, num_samples=num_samples)
        return np.asarray(audio)[0, 0]


def _sizes(params: Params, config: DualCodecConfig, n_quantizers: int) -> tuple[int, int, int]:
    """Parameters of the codec, of what encodes ``n_quantizers`` codes, and of what decodes them.

    Folded, that is without the gains of the weight norm.
    """
    codec = params["codec"]
    parts = {name: _size(part) for name, part in codec.items() if name != "dac"}
    parts |= {name: _size(part) for name, part in codec["dac"].items()}
    whole = sum(parts.values())
    if not config.is_dual:
        shared = parts["quantizer"]
        return whole, parts["encoder"] + shared, parts["decoder"] + shared
    shared = parts["semantic_vq"] + parts["convnext_decoder"]
    acoustic = parts["quantizer"] if n_quantizers > 1 else 0
    encoding = _size(params.get("semantic", {})) + parts["convnext_encoder"]
    if n_quantizers > 1:
        encoding += shared + acoustic + parts["encoder"]
    else:
        encoding += parts["semantic_vq"]
    return whole, encoding, shared + acoustic + parts["decoder"]


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def open_dualcodec(argument: str | None, n_quantizers: int | None) -> DualCodec:
    """``dualcodec:MODEL@N``; see :func:`~.registry.open_codec`.

    The argument is a name for :func:`dualcodec_jax.opening.open_model`. What was loaded last is
    kept, so that another number of quantizers costs nothing; programs of the one before are not,
    as every length has its own.
    """
    clear_programs()
    argument = argument or DEFAULT_MODEL
    places = hub.codec_location(), hub.w2v_bert_location()  # what a model id stands for
    try:
        inference, version, trained = _load(argument, places)
    except HubError as error:
        raise CodecAbsent(f"dualcodec:{argument}: {error}") from error
    return DualCodec(
        inference,
        name=f"dualcodec:{argument}",
        n_quantizers=n_quantizers,
        version=version,
        trained=trained,
    )


def absence_of_dualcodec() -> str | None:
    """Whether the released weights are on disk; others are used by their folder."""
    location = hub.codec_location()
    names = (DEFAULT_MODEL, GENERATOR_FILES[DEFAULT_MODEL])
    if hub.is_remote(location):
        import huggingface_hub

        repository, _, revision = location.removeprefix("hf://").partition("@")
        revision = revision or hub.PINNED_REVISIONS.get(repository, "main")
        cached = huggingface_hub.try_to_load_from_cache(repository, names[-1], revision=revision)
        if isinstance(cached, str):
            return None
    elif any((hub.local_path(location) / name).exists() for name in names):
        return None
    return (
        f"released weights are not on disk (docs/weights.md): set {hub.CODEC_VARIABLE} and "
        f"{hub.W2V_BERT_VARIABLE}, or name a folder: dualcodec:FOLDER"
    )


@functools.lru_cache(maxsize=1)
def _load(argument: str, _: tuple[str, str]) -> tuple[Inference, str, bool]:
    """Inference, version, and whether it was trained. The second argument is part of the key."""
    inference, trained = open_model(argument)
    digest = inference.weights_digest()[:12]
    version = f"dualcodec_jax {__version__}, float32, weights {digest}"
    return inference, version, trained
