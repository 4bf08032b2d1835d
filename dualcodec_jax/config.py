"""Model configurations: frozen, hashable dataclasses, and the released presets.

A configuration is static under ``jax.jit``. It travels with every checkpoint as
JSON (:func:`to_dict`, :func:`from_dict`), which is read strictly: an unknown or
missing field is an error, not a default.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, TypeVar

from dualcodec_jax.errors import ConfigError

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[str, ...] = ("float32", "bfloat16")
Encoding = Literal["dual", "dac", "dac_distilled"]
ENCODINGS: tuple[str, ...] = ("dual", "dac", "dac_distilled")
SemanticModel = Literal["w2v_bert", "whisper"]
SEMANTIC_MODELS: tuple[str, ...] = ("w2v_bert", "whisper")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DualCodecConfig:
    """Sizes of the DualCodec generator (upstream ``DualCodec.__init__``).

    ``n_codebooks`` counts acoustic codebooks only; users see
    :attr:`n_quantizers`, one more.

    ``semantic_model`` names the kind of model whose features the semantic stream reads, at 50 Hz:
    ``w2v_bert`` in every released model. How many frames an utterance has depends on it.

    ``encoding`` is ``dual`` in every released model. The others are the paper's baselines (Table
    2, rows B1, B2, C1, C2; Table 3, rows F1, F2), which quantize the waveform alone: ``dac``, and
    ``dac_distilled``, whose first code learns to predict the semantic features. There all
    codebooks form one residual stack; the ``semantic_codebook_size`` is that of its first.
    """

    encoder_dim: int
    encoder_rates: tuple[int, ...]
    decoder_dim: int
    decoder_rates: tuple[int, ...]
    n_codebooks: int
    codebook_size: int
    codebook_dim: int = 8
    semantic_codebook_size: int = 16384
    semantic_codebook_dim: int = 8
    semantic_dim: int = 1024
    semantic_downsample_factor: int
    convnext_dim: int = 768
    convnext_layers: int = 4
    convnext_hidden_dim: int = 2048
    is_causal: bool = True
    decode_semantic_for_codec: bool = True
    quantizer_dropout: float = 1.0
    sample_rate: int = 24000
    encoding: Encoding = "dual"
    semantic_model: SemanticModel = "w2v_bert"

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ConfigError(
                f"encoding must be one of {', '.join(ENCODINGS)}; got {self.encoding!r}"
            )
        if self.semantic_model not in SEMANTIC_MODELS:
            raise ConfigError(
                f"semantic_model must be one of {', '.join(SEMANTIC_MODELS)}; got "
                f"{self.semantic_model!r}"
            )
        if math.prod(self.encoder_rates) != math.prod(self.decoder_rates):
            raise ConfigError(
                f"encoder_rates {self.encoder_rates} and decoder_rates {self.decoder_rates} must "
                "have the same product"
            )
        if self.decoder_dim % 2 ** len(self.decoder_rates):
            raise ConfigError(
                f"decoder_dim {self.decoder_dim} must be divisible by "
                f"2**{len(self.decoder_rates)}, because each decoder block halves it"
            )
        if not self.is_dual:
            return
        if self.decode_semantic_for_codec and self.semantic_dim != self.latent_dim:
            raise ConfigError(
                f"semantic_dim {self.semantic_dim} must equal latent_dim {self.latent_dim} "
                "(encoder_dim * 2**len(encoder_rates)): the semantic latent is subtracted from it"
            )
        if not self.decode_semantic_for_codec and self.convnext_dim != self.latent_dim:
            raise ConfigError(
                f"with decode_semantic_for_codec=False, convnext_dim {self.convnext_dim} must "
                f"equal latent_dim {self.latent_dim}"
            )

    def same_model(self, other: DualCodecConfig) -> bool:
        """Whether weights fit both: all is equal but what only training reads."""
        return dataclasses.replace(other, quantizer_dropout=self.quantizer_dropout) == self

    @property
    def is_dual(self) -> bool:
        """Whether the first code comes from a semantic stream of its own."""
        return self.encoding == "dual"

    @property
    def latent_dim(self) -> int:
        """Channels of the DAC latent."""
        return self.encoder_dim * 2 ** len(self.encoder_rates)

    @property
    def hop_length(self) -> int:
        """Samples per code frame."""
        return math.prod(self.encoder_rates)

    @property
    def frame_rate(self) -> float:
        """Code frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def n_quantizers(self) -> int:
        """Codes per frame: one semantic, the others acoustic."""
        return self.n_codebooks + 1

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codebook size of each row of ``codes [B, n_quantizers, T]``."""
        return (self.semantic_codebook_size,) + (self.codebook_size,) * self.n_codebooks

    @property
    def dac_codebook_sizes(self) -> tuple[int, ...]:
        """Those of the codebooks that quantize the waveform's latent."""
        return self.codebook_sizes[1:] if self.is_dual else self.codebook_sizes

    def bitrate(self, n_quantizers: int | None = None) -> float:
        """Bits per second of the first ``n_quantizers`` codes (default: all)."""
        sizes = self.codebook_sizes[:n_quantizers]
        return self.frame_rate * sum(code_bits(size) for size in sizes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class W2vBertConfig:
    """Sizes of w2v-BERT 2.0 (``transformers.Wav2Vec2BertConfig``), cut to the layers in use.

    ``num_layers`` is 17: DualCodec reads ``hidden_states[17]``, the output of the
    17th layer. The release has 24; the others never contribute.
    """

    input_dim: int = 160
    hidden_size: int = 1024
    num_layers: int = 17
    num_heads: int = 16
    intermediate_size: int = 4096
    conv_kernel_size: int = 31
    left_max_position: int = 64
    right_max_position: int = 8
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} must be divisible by num_heads {self.num_heads}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WhisperConfig:
    """Sizes of a Whisper encoder; the defaults are those of ``tiny.en``.

    ``num_layers`` counts the layers in use; the final layer norm follows them. Input longer than
    ``max_frames`` (30 s at 50 Hz) is read in windows of that length, ``overlap_frames`` of
    which each shares with the next.
    """

    num_mels: int = 80
    hidden_size: int = 384
    num_layers: int = 4
    num_heads: int = 6
    intermediate_size: int = 1536
    max_frames: int = 1500
    overlap_frames: int = 200

    def __post_init__(self) -> None:
        for name in ("num_mels", "num_layers", "num_heads", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be positive; got {getattr(self, name)}")
        if self.hidden_size < 4 or self.hidden_size % 2:
            raise ConfigError(
                f"hidden_size {self.hidden_size} must be even and at least 4: half of the "
                "positions are sines, half cosines"
            )
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} must be divisible by num_heads {self.num_heads}"
            )
        if not 0 <= self.overlap_frames < self.max_frames:
            raise ConfigError(
                f"overlap_frames {self.overlap_frames} must lie below max_frames {self.max_frames}"
            )


SemanticConfig = W2vBertConfig | WhisperConfig
"""Sizes of any model whose features the semantic stream can read."""


def semantic_model_of(config: SemanticConfig) -> SemanticModel:
    """The name, as in ``DualCodecConfig.semantic_model``, of a model of such sizes."""
    return "whisper" if isinstance(config, WhisperConfig) else "w2v_bert"


def default_semantic(model: SemanticModel) -> SemanticConfig:
    """The released sizes of a semantic model."""
    return WhisperConfig() if model == "whisper" else W2vBertConfig()


Band = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Sizes of the multi-period and multi-band multi-resolution STFT discriminators.

    The defaults are the released ones (upstream ``Discriminator.__init__``; no
    multi-scale discriminator).
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    fft_sizes: tuple[int, ...] = (2048, 1024, 512)
    bands: tuple[Band, ...] = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
    spectral_channels: int = 64

    @property
    def count(self) -> int:
        """Number of sub-discriminators."""
        return len(self.periods) + len(self.fft_sizes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that :func:`dualcodec_jax.encode` and ``decode`` need to know, static under jit.

    Attributes:
        model_id: name of the model, written into code files.
        codec: the DualCodec generator.
        semantic: the frozen speech model whose features the semantic stream reads.
        precision: ``float32`` (parity; highest matmul precision on every backend) or
            ``bfloat16`` (matrix products and convolutions in bfloat16; codebook search,
            filterbank, softmax and normalisations stay in float32).
    """

    model_id: str
    codec: DualCodecConfig
    semantic: SemanticConfig = W2vBertConfig()
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_precision(self.precision)
        kind = semantic_model_of(self.semantic)
        if self.codec.is_dual and kind != self.codec.semantic_model:
            raise ConfigError(
                f"{self.model_id} reads features of {self.codec.semantic_model}, not of {kind}"
            )


def check_precision(precision: str) -> None:
    """Raise :class:`ConfigError` unless ``precision`` is a supported compute precision."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")


def code_bits(codebook_size: int) -> int:
    """Bits that one code of a codebook of this size takes."""
    return max(1, (codebook_size - 1).bit_length())


DUALCODEC_12HZ_V1 = DualCodecConfig(
    encoder_dim=32,
    encoder_rates=(4, 5, 6, 8, 2),
    decoder_dim=1536,
    decoder_rates=(2, 8, 6, 5, 4),
    n_codebooks=7,
    codebook_size=4096,
    semantic_downsample_factor=4,
)
DUALCODEC_25HZ_V1 = DualCodecConfig(
    encoder_dim=64,
    encoder_rates=(4, 5, 6, 8),
    decoder_dim=1536,
    decoder_rates=(8, 6, 5, 4),
    n_codebooks=11,
    codebook_size=1024,
    semantic_downsample_factor=2,
)
# What ships with this package: widths for a CPU, features of Whisper tiny.en.
DEMO = DualCodecConfig(
    encoder_dim=12,
    encoder_rates=(3, 5, 4, 4, 4),
    decoder_dim=512,
    decoder_rates=(4, 4, 4, 5, 3),
    n_codebooks=4,
    codebook_size=1024,
    semantic_codebook_size=4096,
    semantic_dim=384,
    semantic_downsample_factor=2,
    convnext_dim=256,
    convnext_layers=2,
    convnext_hidden_dim=768,
    quantizer_dropout=0.5,
    semantic_model="whisper",
)
# For tests: the same structure (odd stride, both branches), a thousandth of the work.
TINY = DualCodecConfig(
    encoder_dim=2,
    encoder_rates=(4, 5, 6, 8, 2),
    decoder_dim=64,
    decoder_rates=(2, 8, 6, 5, 4),
    n_codebooks=3,
    codebook_size=64,
    semantic_codebook_size=256,
    semantic_dim=64,
    semantic_downsample_factor=4,
    convnext_dim=32,
    convnext_layers=2,
    convnext_hidden_dim=64,
)
TINY_W2V_BERT = W2vBertConfig(
    hidden_size=64, num_layers=2, num_heads=4, intermediate_size=128, conv_kernel_size=31
)

PRESETS: dict[str, Config] = {
    "12hz_v1": Config(model_id="12hz_v1", codec=DUALCODEC_12HZ_V1),
    "25hz_v1": Config(model_id="25hz_v1", codec=DUALCODEC_25HZ_V1),
    "demo": Config(model_id="demo", codec=DEMO, semantic=WhisperConfig()),
    "tiny": Config(model_id="tiny", codec=TINY, semantic=TINY_W2V_BERT),
}


def get_config(model_id: str) -> Config:
    """Return the preset of a model id.

    Raises:
        ConfigError: if there is no such preset.
    """
    try:
        return PRESETS[model_id]
    except KeyError:
        known = ", ".join(PRESETS)
        raise ConfigError(f"unknown model id {model_id!r}; known: {known}") from None


T = TypeVar("T", DualCodecConfig, W2vBertConfig, WhisperConfig, DiscriminatorConfig)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON types."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Build a configuration from JSON types, strictly.

    Raises:
        ConfigError: on unknown or missing fields, all listed together.
    """
    fields = {field.name for field in dataclasses.fields(cls)}
    unknown, missing = sorted(set(values) - fields), sorted(fields - set(values))
    if unknown or missing:
        raise ConfigError(
            f"{cls.__name__}: unknown fields {unknown}, missing fields {missing}; the file was "
            "written by another version of dualcodec_jax or edited by hand"
        )
    return cls(**{name: _tupled(value) for name, value in values.items()})


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list | tuple) else value
