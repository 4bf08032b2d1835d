"""Adapters to Codec-SUPERB, audiotree and Flax NNX, on a model that compiles in seconds."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest

from dualcodec_jax import read_audio, write_audio
from dualcodec_jax.audio.resample import resample_clip
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.ecosystem.audiotree import AudioTreeCodec
from dualcodec_jax.ecosystem.codec_superb import SuperbCodec
from dualcodec_jax.ecosystem.nnx import as_model, as_nnx
from dualcodec_jax.errors import AudioError, InputError
from dualcodec_jax.inference import Inference
from dualcodec_jax.lengths import decoded_samples
from dualcodec_jax.model import DualCodecModel, random_semantic
from dualcodec_jax.nn.random import random_params

RATE = micro.CODEC.sample_rate


@pytest.fixture(scope="module")
def inference() -> Inference:
    model = DualCodecModel("micro", micro.CODEC, random_params(codec_shapes(micro.CODEC), 0))
    return Inference(model, semantic=(micro.W2V_BERT, *random_semantic(micro.W2V_BERT)))


@pytest.fixture(scope="module")
def codec(inference: Inference) -> SuperbCodec:
    return SuperbCodec(inference)


def expected(inference: Inference, samples: np.ndarray) -> np.ndarray:
    """Codes ``[n, T]`` of all of ``samples [N]`` at the codec's rate."""
    semantic, acoustic = inference.encode(samples[None, None], None, pad_end=True)[:2]
    return np.concatenate([semantic, acoustic], axis=1)[0]


# -- Codec-SUPERB ----------------------------------------------------------------------------


def clip(samples: np.ndarray, rate: int = RATE, **more: Any) -> dict[str, Any]:
    return {"audio": {"array": samples, "sampling_rate": rate}, **more}


def test_units(codec: SuperbCodec, inference: Inference, speech: np.ndarray) -> None:
    samples = speech[20000:31111]
    extracted = codec.extract_unit(clip(samples))
    assert extracted.unit.dtype == np.int32
    assert len(np.unique(extracted.unit)) > 10
    assert (extracted.unit == expected(inference, samples)).all()
    assert extracted.to_dict() == {
        "unit": extracted.unit,
        "stuff_for_synth": extracted.stuff_for_synth,
    }
    sent = pickle.loads(pickle.dumps(extracted.stuff_for_synth))
    audio = codec.decode_unit(sent)
    assert audio.shape == samples.shape
    assert audio.dtype == np.float32
    rows = extracted.unit[None]
    whole = np.asarray(inference.decode(rows[:, :1], rows[:, 1:]))[0, 0]
    assert (audio == whole[: samples.size]).all()


def test_units_at_another_rate(codec: SuperbCodec, inference: Inference) -> None:
    samples = np.sin(np.arange(7500) ** 1.2 / 40).astype(np.float32)
    unit = codec.extract_unit(clip(samples, 16000)).unit
    assert (unit == expected(inference, resample_clip(samples, 16000, RATE))).all()


def test_synth_in_memory(codec: SuperbCodec, speech: np.ndarray) -> None:
    samples = speech[20000:27499]
    data = clip(samples, 16000, id="a", text="something")
    result = codec.synth(data, local_save=False)
    assert result is data
    assert data["text"] == "something"
    assert set(data["audio"]) == {"array", "sampling_rate"}
    assert data["audio"]["sampling_rate"] == 16000
    assert data["audio"]["array"].shape == samples.shape
    extracted = codec.extract_unit(clip(samples, 16000))
    assert (data["unit"] == extracted.unit).all()
    decoded = resample_clip(codec.decode_unit(extracted.stuff_for_synth), RATE, 16000)
    assert (data["audio"]["array"] == decoded[: samples.size]).all()


def test_synth_to_files(
    codec: SuperbCodec, speech: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    samples = speech[20000:27499]
    first, second = (codec.synth(clip(samples, 16000, **more)) for more in ({"id": 7}, {}))
    path = Path("reconstructed_dualcodec_micro_4q") / "7.wav"
    assert first["audio"] == {"path": str(path), "sampling_rate": 16000}
    written = read_audio(path)
    assert (written.samples.size, written.sample_rate) == (samples.size, 16000)
    assert second["audio"]["path"] != first["audio"]["path"]
    assert len(list(path.parent.iterdir())) == 2
    with pytest.raises(InputError, match="would lead out of reconstructed_dualcodec_micro_4q"):
        codec.synth(clip(samples, 16000, id="../mine"))


@pytest.mark.slow
def test_batches(codec: SuperbCodec, speech: np.ndarray) -> None:
    """Each clip gets what it gets alone."""
    clips = [clip(speech[start : start + size]) for start, size in ((20000, 11111), (50000, 10901))]
    batch = codec.batch_extract_unit(clips)
    assert batch.batch_size == len(batch.units) == len(batch.stuff_for_synth) == 2
    assert set(batch.to_dict()) == {"units", "stuff_for_synth", "batch_size"}
    audio = codec.batch_decode_unit(batch)
    for data, unit, samples in zip(clips, batch.units, audio, strict=True):
        alone = codec.extract_unit(data)
        assert (unit == alone.unit).all()
        np.testing.assert_allclose(samples, codec.decode_unit(alone.stuff_for_synth), atol=1e-5)
    both = codec.batch_synth(clips, local_save=False)
    assert [data["audio"]["array"].size for data in both] == [11111, 10901]
    empty = codec.batch_extract_unit([])
    assert (empty.batch_size, codec.batch_decode_unit(empty)) == (0, [])
    assert codec.batch_synth([]) == []


def test_forms_of_audio(codec: SuperbCodec, speech: np.ndarray, tmp_path: Path) -> None:
    class Tensor:
        """The part of torch.Tensor that is used."""

        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def detach(self) -> Tensor:
            return self

        cpu = detach

        def numpy(self) -> np.ndarray:
            return self.array

    path = tmp_path / "clip.wav"
    write_audio(path, speech[20000:31111], RATE)
    samples = read_audio(path).samples
    stereo = np.stack([1.5 * samples, 0.5 * samples])
    unit = codec.extract_unit(clip(samples)).unit
    for audio in (
        str(path),
        {"path": str(path)},
        {"path": str(path), "array": None, "sampling_rate": RATE},
        {"array": samples.astype(np.float64), "sampling_rate": RATE},
        {"array": samples.tolist(), "sampling_rate": None},
        {"array": Tensor(samples), "sampling_rate": RATE},
        {"array": samples[None], "sampling_rate": RATE},
        {"array": stereo, "sampling_rate": RATE},
        {"array": stereo.T, "sampling_rate": RATE},
    ):
        assert (codec.extract_unit({"audio": audio}).unit == unit).all()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({}, InputError, "must be a path, or a dict with 'array' or 'path'"),
        ({"audio": {"array": None}}, InputError, "must be a path, or a dict"),
        (clip(np.zeros(0)), InputError, r"must have samples \[N\] .* got float64 \[0\]"),
        (clip(np.zeros((1, 1, 9000))), InputError, r"got float64 \[1, 1, 9000\]"),
        (clip(np.zeros(9000, np.int16)), InputError, "in floating point; got int16"),
        (clip(np.full(9000, np.nan)), AudioError, "NaN"),
        ({"audio": "nowhere.wav"}, AudioError, "nowhere.wav"),
    ],
)
def test_no_audio(codec: SuperbCodec, data: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        codec.extract_unit(data)


def test_one_code_per_frame(codec: SuperbCodec, inference: Inference, speech: np.ndarray) -> None:
    semantic = SuperbCodec(inference, 1, setting="semantic")
    assert (semantic.setting, codec.setting) == ("semantic", "dualcodec_micro_4q")
    assert (semantic.is_1d(), codec.is_1d()) == (True, False)
    assert (semantic.sampling_rate, semantic.supports_decode) == (RATE, True)
    data = clip(speech[20000:31111])
    extracted = semantic.extract_unit(data)
    assert (extracted.unit == codec.extract_unit(data).unit[:1]).all()
    assert semantic.decode_unit(extracted.stuff_for_synth).shape == (11111,)


@pytest.mark.parametrize("count", [0, 5])
def test_numbers_of_codes(inference: Inference, count: int) -> None:
    for make in (SuperbCodec, AudioTreeCodec.from_inference):
        with pytest.raises(InputError, match=f"n_quantizers must be 1…4; got {count}"):
            make(inference, count)


# -- audiotree -------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tree:
    """What AudioTree has in common with this."""

    waveform: Any
    sample_rate: int = dataclasses.field(default=RATE, metadata={"static": True})


@pytest.fixture(scope="module")
def tree_codec(inference: Inference) -> AudioTreeCodec:
    return AudioTreeCodec.from_inference(inference, pad_end=True)


def test_codes_of_a_tree(
    tree_codec: AudioTreeCodec, inference: Inference, speech: np.ndarray
) -> None:
    waveform = np.stack([speech[20000:31111], speech[50000:61111]])[:, None]
    codes = tree_codec.encode(Tree(waveform))
    assert isinstance(codes, np.ndarray)
    assert codes.shape[:2] == (2, 4)
    for item, samples in zip(codes, waveform, strict=True):
        assert (item == expected(inference, samples[0])).all()
    on_device = tree_codec.encode(Tree(jnp.asarray(waveform)))
    assert isinstance(on_device, jax.Array)
    nested = tree_codec.encode(Tree(waveform[:, None]))  # mini-batches of one
    assert (nested[:, 0] == codes).all()
    sent = pickle.loads(pickle.dumps(tree_codec))
    assert (sent.encode(Tree(waveform)) == codes).all()
    audio = tree_codec.decode(codes)
    assert isinstance(audio, np.ndarray)
    assert audio.shape == (2, 1, decoded_samples(codes.shape[2], micro.CODEC))
    semantic, acoustic = codes[:, :1], codes[:, 1:]
    np.testing.assert_allclose(audio, inference.decode(semantic, acoustic), atol=1e-5)


def test_inside_a_program(tree_codec: AudioTreeCodec, inference: Inference) -> None:
    """At another rate and in stereo; the codec is an argument of the program."""
    time = np.arange(22222, dtype=np.float32)
    stereo = np.stack([np.sin(time**1.2 / 40), np.cos(time / 30)])

    @jax.jit
    def step(codec: AudioTreeCodec, tree: Tree) -> Any:
        return codec.encode(tree)

    codes = step(tree_codec, Tree(stereo[None], 48000))
    mono = resample_clip(stereo.mean(axis=0), 48000, RATE)
    assert (codes[0] == expected(inference, mono)).all()


def test_the_end_of_an_excerpt(tree_codec: AudioTreeCodec) -> None:
    """Without ``pad_end`` it is lost, as in the original."""
    excerpt = Tree(jax.ShapeDtypeStruct((1, 1, 9600), np.float32))
    frames = [
        jax.eval_shape(codec.encode, excerpt).shape[2]
        for codec in (tree_codec, tree_codec.replace(pad_end=False))
    ]
    assert frames[0] == 20 > frames[1]


def test_trees_that_cannot_be_encoded(tree_codec: AudioTreeCodec, inference: Inference) -> None:
    with pytest.raises(InputError, match="no waveform"):
        tree_codec.encode(Tree(None))
    decoder = AudioTreeCodec.from_inference(Inference(inference.model, decode_only=True))
    with pytest.raises(InputError, match="decode_only"):
        decoder.encode(Tree(np.zeros((1, 1, 9600), np.float32)))
    short = AudioTreeCodec.from_inference(inference)
    with pytest.raises(InputError, match="too short"):
        short.encode(Tree(np.zeros((1, 1, 100), np.float32)))


def test_with_audiotree_itself(tree_codec: AudioTreeCodec, speech: np.ndarray) -> None:
    audiotree = pytest.importorskip("audiotree")
    from audiotree.transforms import AudioCodec, encode_with_codec

    assert isinstance(tree_codec, AudioCodec)
    waveform = np.stack([speech[20000:31111], speech[50000:61111]])[:, None]
    tree = audiotree.AudioTree.create(waveform, RATE)
    coded = encode_with_codec(tree_codec).map(tree)
    assert (coded.codes == tree_codec.encode(Tree(waveform))).all()
    step = jax.jit(lambda codec, batch: encode_with_codec(codec).map(batch))
    assert (step(tree_codec, tree).codes == coded.codes).all()
    stereo = audiotree.AudioTree.create(np.repeat(waveform, 2, axis=1), RATE)
    both = encode_with_codec(tree_codec, scope=["wet"]).map({"wet": stereo, "dry": tree})
    assert (both["wet"].codes == coded.codes).all()
    assert both["dry"].codes is None


def test_nnx_there_and_back(inference: Inference) -> None:
    codes = np.random.default_rng(0).integers(0, 64, (1, micro.CODEC.n_quantizers, 12))
    module = as_nnx(inference.model)
    expected = inference.decode(codes[:, :1], codes[:, 1:])
    decoded = module(jnp.asarray(codes), method="decode").swapaxes(1, 2)
    np.testing.assert_allclose(decoded[..., : expected.shape[2]], expected, atol=1e-5)
    back = as_model(module, inference.model)
    jax.tree.map(np.testing.assert_array_equal, back.params, inference.model.params)
