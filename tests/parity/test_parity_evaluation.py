"""Codecs of an evaluation that run in PyTorch: the original, and others with tiny random weights.

EnCodec, DAC, Mimi are models of ``transformers``; SpeechTokenizer and WavTokenizer stand-ins with
the published interface.
"""

from __future__ import annotations

import gc
import json
import re
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers
import upstream
import yaml
from upstream import Release

from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.errors import InputError, WeightsError
from dualcodec_jax.evaluation.codecs import (
    CodecAbsent,
    CodecFailure,
    hugging_face,
    open_codec,
    speechtokenizer,
    wavtokenizer,
)
from dualcodec_jax.evaluation.codecs import dualcodec as dualcodec_adapter
from dualcodec_jax.evaluation.codecs import upstream as upstream_adapter
from dualcodec_jax.evaluation.codecs.compare import compare_codes
from dualcodec_jax.evaluation.datasets import Item
from dualcodec_jax.hub import W2V_BERT_VARIABLE

AUDIO = 1e-4
SAMPLES = np.random.default_rng(0).standard_normal(24001).astype(np.float32) * np.float32(0.1)


@pytest.fixture(autouse=True)
def no_model_is_kept() -> Iterator[None]:
    yield
    for load in (
        hugging_face._pretrained,
        speechtokenizer._load,
        wavtokenizer._load,
        dualcodec_adapter._load,
        upstream_adapter._load,
    ):
        load.cache_clear()
    jax.clear_caches()
    gc.collect()


# The original -------------------------------------------------------------------------------


def test_the_original_gives_the_same_codes_and_audio(
    report: Any, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips of odd lengths, encoded to their ends by both."""
    monkeypatch.setenv(W2V_BERT_VARIABLE, str(release.w2v_bert))
    items = []
    for name, length in (("librivox", 30011), ("librivox_0920", 29003)):
        path = tmp_path / f"{name}.wav"
        write_audio(path, upstream.clip(name, length, 7001)[0], upstream.SAMPLE_RATE)
        items.append(Item(name, path))
    place = f"{release.dualcodec}/12hz_v1"
    ours, theirs = (open_codec(f"{family}:{place}@8") for family in ("dualcodec", "upstream"))
    result = compare_codes(ours, theirs, items)
    assert result.share > 1 - upstream.EXCUSED
    assert result.total == (16 + 16,) * 8  # hops of 1920 samples, to the end
    samples = upstream.clip("librivox", 30011, 7001)[0, 0]
    coded = ours.encode(samples)
    expected = theirs.encode(samples)
    assert coded.num_bits == expected.num_bits
    audio = [codec.decode(coded, samples.size) for codec in (ours, theirs)]
    report.error("evaluation: audio of the same codes", *audio, AUDIO)
    alone = open_codec(f"upstream:{place}@1").encode(samples).codes
    np.testing.assert_array_equal(alone, np.asarray(expected.codes)[:1])
    a, b = ours.info, theirs.info
    assert (a.bitrate, a.tokens_per_second, a.codebook_sizes) == (
        b.bitrate,
        b.tokens_per_second,
        b.codebook_sizes,
    )
    # Ours are without the gains of the weight norm.
    assert a.parameters is not None
    assert b.parameters is not None
    assert 0 < b.parameters - a.parameters < 0.01 * b.parameters


def test_the_original_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(W2V_BERT_VARIABLE, str(tmp_path))
    with pytest.raises(CodecAbsent, match="it needs the released"):
        open_codec(f"upstream:{tmp_path}/12hz_v1")


# Hugging Face -------------------------------------------------------------------------------


def save_random(model: Any, folder: Path) -> Path:
    """Codebooks are zeros or equal as initialised; draw them, or no code would differ."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and ("embed" in name or "codebook.weight" in name):
                value.copy_(torch.randn(value.shape, generator=generator).abs() + 0.1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encodec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = transformers.EncodecConfig(
        num_filters=4,
        hidden_size=16,
        codebook_dim=16,
        codebook_size=32,
        upsampling_ratios=[8, 5, 4, 2],
        num_lstm_layers=1,
        target_bandwidths=[0.75, 1.5],
    )
    return save_random(transformers.EncodecModel(config), tmp_path_factory.mktemp("encodec"))


@pytest.fixture(scope="module")
def mimi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = transformers.MimiConfig(
        hidden_size=32,
        num_filters=4,
        codebook_size=32,
        codebook_dim=16,
        num_quantizers=5,
        vector_quantization_hidden_dimension=16,
        upsample_groups=32,
        num_hidden_layers=1,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return save_random(transformers.MimiModel(config), tmp_path_factory.mktemp("mimi"))


@pytest.fixture(scope="module")
def dac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = transformers.DacConfig(
        encoder_hidden_size=4,
        decoder_hidden_size=32,
        downsampling_ratios=[2, 4, 8, 5],
        n_codebooks=3,
        codebook_size=32,
        codebook_dim=4,
        sampling_rate=24000,
    )
    return save_random(transformers.DacModel(config), tmp_path_factory.mktemp("dac"))


@pytest.mark.parametrize(
    ("family", "quantizers", "frame_rate", "frames"),
    [
        ("encodec", 4, 75, 76),
        ("encodec", 2, 75, 76),
        ("mimi", 5, 12.5, 13),
        ("mimi", 1, 12.5, 13),
        ("dac", 3, 75, 76),
        ("dac", 1, 75, 76),
    ],
)
def test_transformers(
    request: pytest.FixtureRequest, family: str, quantizers: int, frame_rate: float, frames: int
) -> None:
    """Shapes, bits, lengths; and the audio is that of the model's own forward pass."""
    folder = request.getfixturevalue(family)
    codec = open_codec(f"{family}:{folder}@{quantizers}")
    coded = codec.encode(SAMPLES)
    assert coded.codes is not None
    assert coded.codes.shape == (quantizers, frames)
    assert coded.codes.dtype == np.int32
    assert len(np.unique(coded.codes)) > 1
    assert coded.num_bits == 5 * coded.codes.size
    info = codec.info
    assert info.name == f"{family}:{folder}@{quantizers}"  # not that of the released model
    assert info.bitrate == 5 * frame_rate * quantizers
    assert info.tokens_per_second == frame_rate * quantizers
    assert info.codebook_sizes == (32,) * quantizers
    assert info.sample_rate == 24000
    assert info.parameters is not None
    assert 0 < (info.encode_parameters or 0) < info.parameters
    assert 0 < (info.decode_parameters or 0) < info.parameters
    audio = codec.decode(coded, SAMPLES.size)
    assert audio.shape == SAMPLES.shape
    assert audio.dtype == np.float32
    model = transformers.AutoModel.from_pretrained(folder).eval()
    options = {
        "encodec": {"bandwidth": 0.375 * quantizers},
        "mimi": {"num_quantizers": quantizers},
        "dac": {"n_quantizers": quantizers},
    }[family]
    size = frames * 320 if family == "dac" else SAMPLES.size  # its own padding
    wave = torch.zeros(1, 1, size)
    wave[0, 0, : SAMPLES.size] = torch.from_numpy(SAMPLES)
    with torch.inference_mode():
        expected = model(wave, **options).audio_values.reshape(-1).numpy()[: SAMPLES.size]
    np.testing.assert_allclose(audio[: expected.size], expected, atol=1e-5)


def test_quantizers_that_transformers_models_have_not(encodec: Path, mimi: Path, dac: Path) -> None:
    for spec, words in {
        f"encodec:{encodec}@3": r"0\.75 kbit/s \(@2\), 1\.5 kbit/s \(@4\)",
        f"encodec:{encodec}@5": "1 to 4 quantizers, not 5",
        f"mimi:{mimi}@6": "1 to 5",
        f"dac:{dac}@4": "1 to 3",
        "encodec:1.5@2": "not both",
        "mimi:3@2": "twice",
    }.items():
        with pytest.raises(InputError, match=words):
            open_codec(spec)


def test_clips_that_a_model_refuses(dac: Path) -> None:
    codec = open_codec(f"dac:{dac}")
    with pytest.raises(CodecFailure, match=re.escape(f"dac:{dac}@3: ")):
        codec.encode(np.zeros(0, np.float32))


def test_transformers_without_weights(
    encodec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for spec, words in {
        "mimi:8": "hf download kyutai/mimi",
        "dac:16khz": "hf download descript/dac_16khz",
        "encodec": "hf download facebook/encodec_24khz",
        f"dac:{tmp_path / 'no'}": "is not a folder",
    }.items():
        with pytest.raises(CodecAbsent, match=words):
            open_codec(spec)
    with pytest.raises(WeightsError):
        open_codec(f"mimi:{encodec}")
    damaged = tmp_path / "damaged"
    shutil.copytree(encodec, damaged)
    (damaged / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=re.escape(str(damaged))):
        open_codec(f"encodec:{damaged}")


def test_released_models_have_short_names(
    encodec: Path, mimi: Path, dac: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, folders = hugging_face._pretrained, {"encodec": encodec, "mimi": mimi, "dac": dac}

    def pretrained(kind: str, family: str, folder: str | None, repository: str) -> Any:
        assert folder is None
        return load(kind, family, str(folders[family]), repository)

    monkeypatch.setattr(hugging_face, "_pretrained", pretrained)
    names = {"encodec:1.5": "encodec@4", "mimi:3": "mimi@3", "dac": "dac:24khz@3"}
    assert {spec: open_codec(spec).info.name for spec in names} == names


# Published interfaces -----------------------------------------------------------------------


class TinySpeechTokenizer(torch.nn.Module):
    """Codes are scaled means of hops of 320 samples; has the methods of ``SpeechTokenizer``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(2, 1)
        self.quantizer = torch.nn.Linear(1, 1)
        self.decoder = torch.nn.Linear(3, 1)

    @classmethod
    def load_from_checkpoint(cls, config_path: str, ckpt_path: str) -> Any:
        model = cls()
        model.load_state_dict(torch.load(ckpt_path, map_location="cpu"))
        return model

    def encode(self, x: Any, n_q: int | None = None, st: int | None = None) -> Any:
        assert not self.training
        batch, channels, size = x.shape
        assert channels == 1
        x = torch.nn.functional.pad(x, (0, -size % 320)).reshape(batch, -1, 320).mean(-1)
        codes = (x.abs() * 3000).long().clamp(max=31)
        return torch.stack([(codes + row) % 32 for row in range(n_q or 4)])

    def decode(self, codes: Any, st: int = 0) -> Any:
        assert codes.dtype == torch.int64
        return (codes.float().mean(0) / 32).repeat_interleave(320, -1)[:, None]


def test_speechtokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("speechtokenizer")
    package.SpeechTokenizer = TinySpeechTokenizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "speechtokenizer", package)
    monkeypatch.setattr(speechtokenizer, "PACKAGES", ("torch",))
    with pytest.raises(CodecAbsent, match=r"no config\.json and SpeechTokenizer\.pt"):
        open_codec(f"speechtokenizer:{tmp_path}")
    config = {"sample_rate": 16000, "strides": [8, 5, 4, 2], "n_q": 4, "codebook_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = tmp_path / "SpeechTokenizer.pt"
    torch.save(TinySpeechTokenizer().state_dict(), weights)
    codec = open_codec(f"speechtokenizer:{tmp_path}@2")
    coded = codec.encode(SAMPLES[:16001])
    assert coded.codes is not None
    assert coded.codes.shape == (2, 51)
    np.testing.assert_array_equal(coded.codes[1], (coded.codes[0] + 1) % 32)
    assert coded.num_bits == 51 * 2 * 5
    assert codec.info.name == f"speechtokenizer:{tmp_path}@2"
    assert codec.info.sample_rate == 16000
    assert codec.info.bitrate == 50 * 2 * 5
    assert (codec.info.parameters, codec.info.encode_parameters) == (9, 5)
    assert codec.info.decode_parameters == 6
    audio = codec.decode(coded, 16001)
    np.testing.assert_allclose(audio[::320], coded.codes.mean(axis=0) / 32, rtol=1e-6)
    with pytest.raises(InputError, match="1 to 4 quantizers, not 5"):
        open_codec(f"speechtokenizer:{tmp_path}@5")
    monkeypatch.setattr(speechtokenizer, "_files", lambda _: (tmp_path / "config.json", weights))
    assert open_codec("speechtokenizer@2").info.name == "speechtokenizer@2"
    torch.save({"foreign": torch.zeros(1)}, weights)
    for content in (weights.read_bytes(), b"damaged"):
        weights.write_bytes(content)
        speechtokenizer._load.cache_clear()
        with pytest.raises(WeightsError, match="not a SpeechTokenizer"):
            open_codec(f"speechtokenizer:{tmp_path}")


WAVTOKENIZER_SOURCE = """
import torch

class Encodec(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(1, 1)
        self.quantizer = torch.nn.Linear(2, 1)

class FeatureExtractor(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encodec = Encodec()

class WavTokenizer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.feature_extractor = FeatureExtractor()
        self.backbone = torch.nn.Linear(3, 1)
        self.head = torch.nn.Linear(4, 1)

    @classmethod
    def from_pretrained0802(cls, config_path, model_path):
        model = cls()
        model.load_state_dict(torch.load(model_path)["state_dict"])
        print("loaded")
        return model

    def encode_infer(self, audio_input, bandwidth_id):
        batch, size = audio_input.shape
        padded = torch.nn.functional.pad(audio_input, (0, -size % 320)).reshape(batch, -1, 320)
        codes = (padded.mean(-1).abs() * 300000).long().clamp(max=4095)[None]
        return self.codes_to_features(codes), codes

    def codes_to_features(self, codes):
        assert codes.shape[:2] == (1, 1)
        return codes[0].float()[:, None]

    def decode(self, features_input, bandwidth_id):
        assert bandwidth_id.tolist() == [0]
        return (features_input[:, 0] / 4096).repeat_interleave(320, -1)
"""


def test_wavtokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CodecAbsent, match="PYTHONPATH"):
        open_codec("wavtokenizer")
    source, folder = tmp_path / "source" / "decoder", tmp_path / "weights"
    for path in (source, folder):
        path.mkdir(parents=True)
    (source / "__init__.py").touch()
    (source / "pretrained.py").write_text(WAVTOKENIZER_SOURCE)
    monkeypatch.syspath_prepend(source.parent)
    for name in ("decoder", "decoder.pretrained"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(CodecAbsent, match="WAVTOKENIZER_FOLDER"):
        open_codec("wavtokenizer")
    with pytest.raises(CodecAbsent, match=r"0 \*\.yaml and 0 \*\.ckpt"):
        open_codec(f"wavtokenizer:{folder}")
    arguments = {"num_quantizers": 1, "vq_bins": 4096, "dowmsamples": [8, 5, 4, 2]}
    config = {"model": {"init_args": {"feature_extractor": {"init_args": arguments}}}}
    (folder / "large.yaml").write_text(yaml.safe_dump(config))
    torch.save({"state_dict": {}}, folder / "large.ckpt")
    with pytest.raises(WeightsError, match="not a WavTokenizer"):
        open_codec(f"wavtokenizer:{folder}")
    from decoder.pretrained import WavTokenizer  # type: ignore[import-not-found]

    torch.save({"state_dict": WavTokenizer().state_dict()}, folder / "large.ckpt")
    monkeypatch.setenv("WAVTOKENIZER_FOLDER", str(folder))
    codec = open_codec("wavtokenizer@1")
    assert codec.info.name == "wavtokenizer@1"
    assert open_codec(f"wavtokenizer:{folder}").info.name == f"wavtokenizer:{folder}@1"
    assert capsys.readouterr().out == ""
    coded = codec.encode(SAMPLES)
    assert coded.codes is not None
    assert coded.codes.shape == (1, 76)
    assert coded.num_bits == 76 * 12
    assert codec.info.bitrate == 900
    assert codec.info.tokens_per_second == 75
    assert (codec.info.encode_parameters, codec.info.decode_parameters) == (5, 12)
    audio = codec.decode(coded, SAMPLES.size)
    np.testing.assert_allclose(audio[::320], coded.codes[0] / 4096, rtol=1e-6)
    with pytest.raises(InputError, match="has 1 quantizers, not 2"):
        open_codec("wavtokenizer@2")
