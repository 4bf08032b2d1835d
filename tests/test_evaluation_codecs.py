"""Codecs of an evaluation: DualCodec from all it can come from, programs, specs, comparison."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import micro
import numpy as np
import pytest

from dualcodec_jax import inference as inference_module
from dualcodec_jax.audio.resample import resample_clip
from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation.codecs import (
    CodecAbsent,
    CodecFailure,
    available_codecs,
    open_codec,
    upstream,
)
from dualcodec_jax.evaluation.codecs import dualcodec as dualcodec_adapter
from dualcodec_jax.evaluation.codecs.base import CodecInfo, Coded, coded_bits, fit_length
from dualcodec_jax.evaluation.codecs.codec2 import MODES
from dualcodec_jax.evaluation.codecs.compare import compare_codes, count_equal
from dualcodec_jax.evaluation.codecs.dualcodec import DualCodec
from dualcodec_jax.evaluation.codecs.opus import packet_sizes
from dualcodec_jax.evaluation.codecs.programs import run
from dualcodec_jax.evaluation.codecs.registry import FAMILIES, Spec, parse_spec
from dualcodec_jax.evaluation.datasets import Item
from dualcodec_jax.hub import CODEC_VARIABLE, W2V_BERT_VARIABLE
from dualcodec_jax.inference import Inference
from dualcodec_jax.model import DualCodecModel, random_semantic
from dualcodec_jax.nn.layers import fold_weight_norm
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.weights import Weights, load_weights, save_weights

opus_tools = pytest.mark.skipif(
    not (shutil.which("opusenc") and shutil.which("opusdec")), reason="opus-tools not installed"
)
codec2_tools = pytest.mark.skipif(
    not (shutil.which("c2enc") and shutil.which("c2dec")), reason="codec2 not installed"
)


# Specs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("original", Spec("original")),
        ("dualcodec:12hz_v1@4", Spec("dualcodec", "12hz_v1", 4)),
        ("dualcodec@4", Spec("dualcodec", None, 4)),
        ("opus:6", Spec("opus", "6")),
        ("dualcodec:C:/runs/a@b/x:y@12", Spec("dualcodec", "C:/runs/a@b/x:y", 12)),
        ("dualcodec:runs/me@home", Spec("dualcodec", "runs/me@home")),
    ],
)
def test_specs(text: str, expected: Spec) -> None:
    assert parse_spec(text) == expected


@pytest.mark.parametrize("text", ["", "mp3:64", "opus:", "dualcodec:x@0", "@3", "opus 6"])
def test_bad_specs(text: str) -> None:
    with pytest.raises(InputError):
        parse_spec(text)


NO_SUCH = (
    *("original:1", "original:x", "original@2", "opus:1", "opus:many", "opus:6@2"),
    *("codec2:9", "codec2:3200@1", "upstream:9hz", "upstream:12hz_v1@9"),
)


@pytest.mark.parametrize("spec", NO_SUCH)
def test_variants_that_do_not_exist(spec: str) -> None:
    with pytest.raises(InputError):
        open_codec(spec)


def test_available_codecs_without_torch() -> None:
    """Every family is listed, and looking does not load torch or transformers."""
    code = (
        "import sys\n"
        "from dualcodec_jax.evaluation.codecs import available_codecs\n"
        "print([name for name, _ in available_codecs()])\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == [str(list(FAMILIES)), "[]"]


def test_absent_codecs_say_what_to_get(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(CODEC_VARIABLE, str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reasons = dict(available_codecs())
    assert reasons.pop("original") is None
    for family, words in {
        "dualcodec": CODEC_VARIABLE,
        "upstream": "pip install torch torchaudio dualcodec",
        "opus": "apt install opus-tools",
        "codec2": "apt install codec2",
        "encodec": "pip install torch transformers",
        "dac": "pip install",
        "mimi": "pip install",
        "speechtokenizer": "pip install torch speechtokenizer",
        "wavtokenizer": "pip install",
    }.items():
        assert words in str(reasons.pop(family))
        with pytest.raises(CodecAbsent):
            open_codec(family)
    assert not reasons


# Original, and what all share ---------------------------------------------------------------


def test_original(speech: np.ndarray) -> None:
    codec = open_codec("original")
    coded = codec.encode(speech)
    assert coded.num_bits == 16 * speech.size
    assert coded.codes is None
    np.testing.assert_array_equal(codec.decode(coded, speech.size), speech)
    assert codec.info.bitrate == 384000
    assert open_codec("original:16000").info.sample_rate == 16000


def test_fit_length() -> None:
    samples = np.arange(1, 4, dtype=np.float32)
    assert fit_length(samples, 2).tolist() == [1, 2]
    assert fit_length(samples, 5).tolist() == [1, 2, 3, 0, 0]
    assert fit_length(samples.astype(np.float64), 3).dtype == np.float32


def test_coded_bits() -> None:
    codes = np.zeros((2, 10), np.int32)
    assert coded_bits(codes, (16384, 4096, 4096)) == 10 * (14 + 12)
    assert coded_bits(codes[:1], (1000,)) == 10 * 10


# DualCodec ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def params() -> Any:
    return random_params(codec_shapes(micro.CODEC), 0)


@pytest.fixture(scope="module")
def semantic() -> tuple[Any, Any]:
    return random_semantic(micro.W2V_BERT)


@pytest.fixture(scope="module")
def inference(params: Any, semantic: tuple[Any, Any]) -> Inference:
    model = DualCodecModel("micro", micro.CODEC, params)
    return Inference(model, semantic=(micro.W2V_BERT, *semantic))


@pytest.fixture(scope="module")
def place(params: Any, semantic: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a converted generator, w2v-BERT and statistics."""
    folder = tmp_path_factory.mktemp("place")
    save_weights(Weights("codec", "micro", micro.CODEC, params), folder / "micro")
    save_weights(Weights("w2v_bert", "w2v_bert", micro.W2V_BERT, semantic[0]), folder / "w2v_bert")
    save_weights(Weights("statistics", "statistics", None, semantic[1]), folder / "statistics")
    return folder


@pytest.fixture
def no_cached_model() -> Iterator[None]:
    dualcodec_adapter._load.cache_clear()
    yield
    dualcodec_adapter._load.cache_clear()


@pytest.fixture(scope="module")
def clip(request: pytest.FixtureRequest) -> np.ndarray:
    return np.array(request.getfixturevalue("speech")[:10007])


@pytest.mark.parametrize("count", [1, 3])
def test_dualcodec(inference: Inference, clip: np.ndarray, count: int) -> None:
    codec = DualCodec(inference, name="x", n_quantizers=count, version="1")
    coded = codec.encode(clip)
    rows = inference.encode(clip[None, None], count, pad_end=True)
    expected = np.concatenate([np.asarray(row)[0] for row in rows if row is not None])
    assert coded.codes is not None
    np.testing.assert_array_equal(coded.codes, expected)
    assert coded.codes.shape[0] == count
    # ⌈10007 / 480⌉ hops, at most one more to cover the end.
    assert coded.codes.shape[1] in (21, 22)
    assert coded.num_bits == coded.codes.shape[1] * (8 + 6 * (count - 1))
    audio = codec.decode(coded, clip.size)
    assert audio.shape == clip.shape
    assert audio.dtype == np.float32
    assert np.abs(audio[-100:]).max() > 0  # nothing of the end is lost
    info = codec.info
    assert info.name == f"x@{count}"
    assert info.bitrate == 50 * (8 + 6 * (count - 1))
    assert info.tokens_per_second == 50 * count
    assert info.codebook_sizes == (256, *(64,) * (count - 1))
    with pytest.raises(InputError, match="has 1 to 4 quantizers, not 5"):
        DualCodec(inference, name="x", n_quantizers=5, version="1")


def sizes(inference: Inference, *names: str) -> int:
    """Parameters of the named parts."""
    tree = {**inference.params["codec"], **inference.params["codec"]["dac"], **inference.params}
    return sum(math.prod(leaf.shape) for name in names for leaf in micro_leaves(tree[name]))


def micro_leaves(tree: Any) -> list[Any]:
    if not isinstance(tree, dict):
        return [tree]
    return [leaf for value in tree.values() for leaf in micro_leaves(value)]


def test_parameters_are_those_that_run(inference: Inference) -> None:
    info = DualCodec(inference, name="x", version="1").info
    alone = DualCodec(inference, name="x", n_quantizers=1, version="1").info
    count = functools.partial(sizes, inference)
    assert info.parameters == alone.parameters == count("codec")
    both = count("semantic_vq", "convnext_decoder", "quantizer")
    assert info.encode_parameters == both + count("semantic", "convnext_encoder", "encoder")
    assert info.decode_parameters == both + count("decoder")
    # RVQ-1 needs no waveform encoder, and its residual is not computed.
    assert alone.encode_parameters == count("semantic", "convnext_encoder", "semantic_vq")
    assert alone.decode_parameters == count("semantic_vq", "convnext_decoder", "decoder")


@pytest.mark.usefixtures("no_cached_model")
def test_dualcodec_from_a_checkpoint(
    inference: Inference, place: Path, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder itself, and one that holds it alone; statistics lie beside it."""
    monkeypatch.setenv(W2V_BERT_VARIABLE, str(place))
    monkeypatch.setenv(CODEC_VARIABLE, str(place / "nothing"))
    expected = DualCodec(inference, name="x", n_quantizers=3, version="1").encode(clip).codes
    codec = open_codec(f"dualcodec:{place / 'micro'}@3")
    np.testing.assert_array_equal(codec.encode(clip).codes, expected)
    assert codec.info.trained
    other = open_codec(f"dualcodec:{place}@1")
    np.testing.assert_array_equal(other.encode(clip).codes, np.asarray(expected)[:1])


@pytest.mark.usefixtures("no_cached_model")
def test_version_is_that_of_the_stored_weights(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folded ones differ in the last bits between machines, which would measure all again."""
    monkeypatch.setenv(W2V_BERT_VARIABLE, str(place))
    version = open_codec(f"dualcodec:{place / 'micro'}@1").info.version

    def fold_inexactly(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf * (1 + 2e-7), fold_weight_norm(params))

    monkeypatch.setattr("dualcodec_jax.inference.fold_weight_norm", fold_inexactly)
    dualcodec_adapter._load.cache_clear()
    assert open_codec(f"dualcodec:{place / 'micro'}@1").info.version == version

    stored = load_weights(place / "micro", "codec")
    moved = jax.tree.map(lambda leaf: leaf * np.float32(1 + 2e-7), stored.params)
    save_weights(dataclasses.replace(stored, params=moved), tmp_path / "moved")
    shutil.copytree(place / "statistics", tmp_path / "statistics")
    assert open_codec(f"dualcodec:{tmp_path / 'moved'}@1").info.version != version


@pytest.mark.usefixtures("no_cached_model")
def test_another_number_of_quantizers_loads_nothing(
    place: Path, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And keeps no programs of the one before, which would add up."""
    monkeypatch.setenv(W2V_BERT_VARIABLE, str(place))
    first = open_codec(f"dualcodec:{place / 'micro'}@1")
    first.encode(clip)
    assert inference_module._encode._cache_size()
    second = open_codec(f"dualcodec:{place / 'micro'}@2")
    assert isinstance(first, DualCodec)
    assert isinstance(second, DualCodec)
    assert first._inference is second._inference
    assert inference_module._encode._cache_size() == 0


@pytest.mark.slow
@pytest.mark.usefixtures("no_cached_model")
def test_dualcodec_from_a_training_run(tmp_path: Path, clip: np.ndarray) -> None:
    pytest.importorskip("orbax.checkpoint")
    from dualcodec_jax.checkpoint import Checkpoints
    from dualcodec_jax.data.config import DataConfig
    from dualcodec_jax.train.export import export_run
    from dualcodec_jax.train.run_config import RunConfig, SemanticSource, to_dict
    from dualcodec_jax.train.state import new_state

    config = RunConfig(
        name="test",
        output=tmp_path,
        objective=micro.OBJECTIVE,
        data=DataConfig(kind="folder", locations=("x",), segment_length=4800),
        semantic=SemanticSource(w2v_path="random"),
    )
    state = new_state(micro.OBJECTIVE)
    with Checkpoints(tmp_path / "checkpoints", asynchronous=False) as checkpoints:
        checkpoints.save(7, state, {}, to_dict(config))
    codec = open_codec(f"dualcodec:{tmp_path}@2")
    model = DualCodecModel("micro", micro.CODEC, state.generator)
    expected = Inference(model, semantic=(micro.W2V_BERT, *random_semantic(micro.W2V_BERT)))
    np.testing.assert_array_equal(
        codec.encode(clip).codes,
        DualCodec(expected, name="x", n_quantizers=2, version="1").encode(clip).codes,
    )
    assert not codec.info.trained  # its semantic model is random

    export_run(tmp_path, tmp_path / "export", torch=False)
    with pytest.raises(CodecAbsent, match="w2v"):  # found its one model, and no semantic one
        open_codec(f"dualcodec:{tmp_path / 'export'}")


@pytest.mark.usefixtures("no_cached_model")
def test_dualcodec_that_is_not_there(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CODEC_VARIABLE, str(tmp_path))
    for spec, words in {
        "dualcodec:12hz_v1": "has no 12hz_v1 or dualcodec_12hz",
        f"dualcodec:{tmp_path}": "holds no DualCodec weights",
        f"dualcodec:{tmp_path / 'no' / 'where'}": "is no folder",
    }.items():
        with pytest.raises(CodecAbsent, match=re.escape(words)):
            open_codec(spec)
    shutil.copytree(place / "micro", tmp_path / "a")
    shutil.copytree(place / "micro", tmp_path / "b")
    with pytest.raises(CodecAbsent, match="holds a, b; name one"):
        open_codec(f"dualcodec:{tmp_path}")


class Tensor(np.ndarray):
    """With the methods of torch's that a fingerprint needs."""

    def detach(self) -> Any:
        return self

    def cpu(self) -> Any:
        return self

    def numpy(self) -> np.ndarray:
        return np.asarray(self)


def tensor(*values: float) -> Tensor:
    return np.array(values, np.float32).view(Tensor)


class Module:
    """A network of one tensor."""

    def __init__(self, *values: float) -> None:
        self._values = values

    def state_dict(self) -> dict[str, Tensor]:
        return {"weight": tensor(*self._values)}


class Settings(dict[str, Any]):
    """Items that are attributes, too."""

    __getattr__ = dict.__getitem__


def test_the_version_of_the_original_is_that_of_all_its_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def version(codec: float, semantic: float, mean: float) -> str:
        settings = Settings(semantic_model=Module(semantic), mean=tensor(mean), std=tensor(1))
        package = types.ModuleType("dualcodec")
        package.__dict__.update(
            get_model=lambda *_: Module(codec),
            Inference=lambda *_, **__: types.SimpleNamespace(semantic_cfg=settings),
        )
        monkeypatch.setitem(sys.modules, "dualcodec", package)
        torch = types.ModuleType("torch")
        torch.__dict__["cuda"] = types.SimpleNamespace(is_available=lambda: False)
        monkeypatch.setitem(sys.modules, "torch", torch)
        upstream._load.cache_clear()
        found: str = upstream._load("12hz_v1", str(tmp_path), str(tmp_path))[1]
        upstream._load.cache_clear()
        return found

    assert version(1, 1, 1) == version(1, 1, 1)
    changed = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)]
    assert len({version(*values) for values in changed}) == 4


# Programs -----------------------------------------------------------------------------------


def lag(a: np.ndarray, b: np.ndarray, sample_rate: int) -> float:
    """Seconds by which ``b`` is late, from log envelopes."""
    window = np.hanning(sample_rate // 50)

    def envelope(x: np.ndarray) -> np.ndarray:
        level = np.log(np.convolve(np.abs(x), window / window.sum(), "same") + 1e-3)
        return level - level.mean()

    size = 2 * a.size
    spectrum = np.fft.rfft(envelope(b), size) * np.conj(np.fft.rfft(envelope(a), size))
    best = int(np.argmax(np.fft.irfft(spectrum, size)))
    return (best if best < a.size else best - size) / sample_rate


@opus_tools
@pytest.mark.parametrize("kbits", [6, 24])
def test_opus(speech: np.ndarray, kbits: int) -> None:
    codec = open_codec(f"opus:{kbits}")
    assert codec.info.sample_rate == 48000
    samples = resample_clip(speech, 24000, 48000)[:-777]
    coded = codec.encode(samples)
    # Variable bitrate, and pauses cost less.
    assert 0.75 * kbits < coded.num_bits / samples.size * 48 < 1.1 * kbits
    assert coded.num_bits < 8 * len(coded.payload) - 8 * 500  # neither headers nor tags
    audio = codec.decode(coded, samples.size)
    assert audio.shape == samples.shape
    correlation = np.fft.irfft(np.fft.rfft(audio) * np.conj(np.fft.rfft(samples)), samples.size)
    late = int(np.argmax(correlation))
    assert min(late, samples.size - late) < 10  # pre-skip, 312 samples, is removed
    assert np.corrcoef(audio, samples)[0, 1] > (0.75 if kbits == 6 else 0.95)
    assert "libopus" in codec.info.version


def page(lacing: bytes, data: bytes) -> bytes:
    return b"OggS" + bytes(22) + bytes([len(lacing)]) + lacing + data


def test_ogg_packets() -> None:
    """Packets of 3, 255 and 600 bytes; the last goes on over a page's end."""
    first = page(bytes([3, 255, 0, 255]), bytes(3 + 255 + 255))
    second = page(bytes([255, 90]), bytes(345))
    assert list(packet_sizes(first + second)) == [3, 255, 600]
    with pytest.raises(CodecFailure, match="no Ogg page at byte 0"):
        list(packet_sizes(b"RIFF" + bytes(40)))


@codec2_tools
@pytest.mark.parametrize("mode", list(MODES))
def test_codec2(speech: np.ndarray, mode: str) -> None:
    codec = open_codec(f"codec2:{mode}")
    samples = resample_clip(speech, 24000, 8000)[:-77]
    coded = codec.encode(samples)
    frame = MODES[mode]
    frames = -(-(samples.size + frame.delay) // frame.samples)
    assert coded.num_bits == frames * frame.bits
    nominal = 700 if mode == "700C" else int(mode)
    assert codec.info.bitrate == nominal
    audio = codec.decode(coded, samples.size)
    assert audio.shape == samples.shape
    assert abs(lag(samples, audio, 8000)) < 0.01  # uncorrected: 0.018 to 0.028
    tail = audio[-2000:]
    assert np.abs(tail).max() > 0  # the end is decoded, too


def test_programs_that_fail() -> None:
    run([sys.executable, "-c", "pass"])
    with pytest.raises(CodecFailure, match="status 3: last words"):
        run([sys.executable, "-c", "import sys; print('last words', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(CodecFailure, match=r"more than 0\.1 s"):
        run([sys.executable, "-c", "import time; time.sleep(30)"], timeout=0.1)
    with pytest.raises(CodecAbsent, match="no_such_program not found"):
        run(["no_such_program"])


# Comparison ---------------------------------------------------------------------------------


def test_equal_codes_are_counted() -> None:
    a = np.arange(12, dtype=np.int32).reshape(2, 6)
    b = a.copy()
    b[1, :3] += 1
    longer = np.concatenate([a, a[:, :2]], axis=1)
    result = count_equal([("x", a, a), ("y", a, b), ("z", a, longer)])
    assert result.equal == (18, 15)
    assert result.total == (20, 20)
    assert result.share == pytest.approx(33 / 40)
    assert result.by_quantizer == pytest.approx((0.9, 0.75))
    assert result.clips == pytest.approx({"x": 1.0, "y": 0.75, "z": 0.75})
    with pytest.raises(InputError, match="same number"):
        count_equal([("x", a, a[:1])])
    with pytest.raises(InputError, match="no codes"):
        count_equal([])


class Rounding:
    """A codec whose codes are rounded samples."""

    def __init__(self, step: int, sample_rate: int = 16000) -> None:
        self.info = CodecInfo(name=f"rounding:{step}", sample_rate=sample_rate, version="1")
        self._step = step

    def encode(self, samples: np.ndarray) -> Coded:
        codes = (np.rint(samples * 100) // self._step).astype(np.int32)[None]
        return Coded(codes, 0, codes)

    def decode(self, coded: Coded, num_samples: int) -> np.ndarray:
        raise NotImplementedError


def test_codecs_are_compared_on_recordings(tmp_path: Path) -> None:
    samples = np.linspace(0, 0.5, 1000, dtype=np.float32)
    write_audio(tmp_path / "a.wav", samples, 16000)
    items = [Item("a", tmp_path / "a.wav")]
    assert compare_codes(Rounding(1), Rounding(1), items).share == 1
    expected = np.mean(np.rint(samples * 100) == np.rint(samples * 100) // 2)
    assert compare_codes(Rounding(1), Rounding(2), items).share == pytest.approx(expected, abs=0.01)
    with pytest.raises(InputError, match="different sample rates"):
        compare_codes(Rounding(1), Rounding(1, 8000), items)
    with pytest.raises(InputError, match="not both have codes"):
        compare_codes(Rounding(1), original(), items)


def original() -> Any:
    codec: Any = open_codec("original:16000")
    return codec


def test_info_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Rounding(1).info.name = "x"  # type: ignore[misc]


def test_a_folder_with_the_name_of_a_model_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    codec = open_codec("dualcodec:demo@1")
    assert codec.info.name == "dualcodec:demo@1"
    assert codec.info.trained
