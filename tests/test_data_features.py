"""Semantic features of data sets: hidden states for statistics, and the cache."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import soundfile

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("grain")

from dualcodec_jax.config import PRESETS, Config
from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.extract import SemanticExtractor
from dualcodec_jax.data.feature_info import INFO_FILE, FeatureInfo
from dualcodec_jax.data.features import cache_features
from dualcodec_jax.data.folder import FolderSource
from dualcodec_jax.data.pipeline import open_batches
from dualcodec_jax.data.tfds_source import TfdsSource
from dualcodec_jax.data.transforms import Reject
from dualcodec_jax.functional import semantic_features
from dualcodec_jax.lengths import code_length, min_samples
from dualcodec_jax.model import random_semantic

TINY = PRESETS["tiny"]
RATE, HOP = TINY.codec.sample_rate, TINY.codec.hop_length
SEGMENT = 20 * HOP  # 1.6 s
in_step = jax.jit(semantic_features, static_argnames="config")


@pytest.fixture(scope="module")
def model(speech: np.ndarray) -> tuple[Config, dict[str, Any]]:
    semantic, _ = random_semantic(TINY.semantic)
    hidden = SemanticExtractor(TINY, semantic).hidden(speech[:SEGMENT])
    statistics = {"mean": hidden.mean(axis=0), "var": hidden.var(axis=0)}
    return TINY, {"semantic": semantic, "statistics": statistics}


@pytest.fixture(scope="module")
def extractor(model: tuple[Config, dict[str, Any]]) -> SemanticExtractor:
    config, params = model
    return SemanticExtractor(config, params["semantic"], params["statistics"])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, speech: np.ndarray) -> Path:
    """One segment, a longer utterance, a shorter one, one too short for a frame, one damaged."""
    folder = tmp_path_factory.mktemp("clips")
    for name, size in (
        ("exact", SEGMENT),
        ("long", 3 * RATE + 123),
        ("short", RATE),
        ("tiny", min_samples(TINY.codec) - 1),
    ):
        soundfile.write(folder / f"{name}.wav", 0.5 * speech[:size], RATE, subtype="FLOAT")
    (folder / "broken.wav").write_text("text")
    return folder


def config(location: Path, **changes: Any) -> DataConfig:
    fields: dict[str, Any] = {
        "kind": "tfds",
        "locations": (str(location),),
        "segment_length": SEGMENT,
        "sample_rate": RATE,
    }
    return DataConfig(**{**fields, **changes})


@pytest.fixture(scope="module", params=["float32", "float16"])
def cache(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    clips: Path,
    extractor: SemanticExtractor,
) -> Path:
    left_out: dict[str, str] = {}
    used = []

    def note(reject: Reject | None) -> None:
        if reject is None:
            used.append(1)
        else:
            left_out[reject.key] = reject.reason

    output = tmp_path_factory.mktemp("cache") / "out"
    cache_features(
        FolderSource(clips),
        extractor,
        config(clips, kind="folder"),
        output,
        dtype=request.param,
        on_record=note,
    )
    assert len(used) == 3
    assert left_out == {"tiny.wav": "too short", "broken.wav": "damaged"}
    return output


def tolerance(cache: Path) -> dict[str, float]:
    # float32: padding to a bucket changes the order of sums; float16: half a unit of 2^-11.
    kept = TfdsSource(cache).features
    assert kept is not None
    return {"rtol": 1e-3, "atol": 2e-3} if kept.dtype == "float16" else {"rtol": 0, "atol": 2e-4}


def test_audio_is_kept_and_described(cache: Path, clips: Path) -> None:
    source = TfdsSource(cache)
    kept = {record.key: record for record in (source[i] for i in range(len(source)))}
    assert set(kept) == {"exact.wav", "long.wav", "short.wav"}
    for key, record in kept.items():
        assert record.audio == (clips / key).read_bytes()
    (path,) = cache.rglob(INFO_FILE)
    assert json.loads(path.read_text()) | {"dtype": ""} == {
        "version": 1,
        "model_id": "tiny",
        "semantic_dim": 64,
        "sample_rate": RATE,
        "hop_length": HOP,
        "frame_rate": 12.5,
        "dtype": "",
        "peak_normalized": True,
    }


def test_one_segment_has_the_features_of_the_training_step(
    cache: Path, clips: Path, model: tuple[Config, dict[str, Any]]
) -> None:
    tiny, params = model
    with open_batches(
        config(cache).for_evaluation(), 3, codec=tiny.codec
    ) as batches:  # exact, long, short
        batch = next(batches)
    frames = code_length(SEGMENT, tiny.codec)
    assert batch["features"].shape == (3, frames, 64)
    expected = np.asarray(in_step(params, tiny, batch["audio"][:1])[0])
    assert expected.std() > 0.5
    np.testing.assert_allclose(batch["features"][:1], expected, **tolerance(cache))


def test_crops_take_their_frames(cache: Path, clips: Path, extractor: SemanticExtractor) -> None:
    whole = soundfile.read(clips / "long.wav", dtype="float32")[0]
    features = extractor.features(whole)
    frames = code_length(SEGMENT, TINY.codec)
    assert len(features) == code_length(whole.size, TINY.codec)
    starts = set()
    only = TfdsSource(cache)
    indices = [index for index in range(len(only)) if only[index].key == "long.wav"]

    class Only:
        features = only.features

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            return only[indices[0]]

    with open_batches(config(cache), 8, codec=TINY.codec, source=Only()) as batches:
        batch = next(batches)
    for audio, own in zip(batch["audio"], batch["features"], strict=True):
        (start,) = [
            at
            for at in range(0, whole.size - SEGMENT, HOP)
            if np.array_equal(whole[at : at + SEGMENT], audio)
        ]
        starts.add(start)
        expected = np.zeros((frames, 64), np.float32)
        part = features[start // HOP : start // HOP + frames]
        expected[: len(part)] = part
        np.testing.assert_allclose(own, expected, **tolerance(cache))
    assert len(starts) > 3


def test_short_utterances_are_padded_with_zeros(cache: Path) -> None:
    with open_batches(config(cache).for_evaluation(), 4, codec=TINY.codec) as batches:
        batch = next(batches)
    assert batch["num_samples"].tolist() == [SEGMENT, SEGMENT, RATE, 0]
    frames = code_length(RATE, TINY.codec)
    assert batch["features"][2, :frames].any(axis=-1).all()
    assert not batch["features"][2, frames:].any()
    assert not batch["features"][3].any()


def test_a_cache_that_does_not_fit_is_refused(cache: Path) -> None:
    for codec, message in (
        (PRESETS["12hz_v1"].codec, "semantic_dim 64, the model has 1024"),
        (PRESETS["25hz_v1"].codec, "hop_length 1920, the model has 960"),
    ):
        with pytest.raises(DataError, match=message):
            open_batches(config(cache), 1, codec=codec)
    with pytest.raises(DataError, match="the data configuration 16000"):
        open_batches(config(cache, sample_rate=16000), 1, codec=TINY.codec)
    with open_batches(config(cache), 1) as batches:  # without a codec it is audio like any other
        assert set(next(batches)) == {"audio", "num_samples"}


def test_damaged_descriptions(cache: Path, tmp_path: Path) -> None:
    info = FeatureInfo.of("tiny", TINY.codec, "float16")
    with pytest.raises(DataError, match="float16 or float32"):
        FeatureInfo.of("tiny", TINY.codec, "int8")
    with pytest.raises(DataError, match="not finite in float16"):
        info.pack(np.full((1, 64), 1e6))
    with pytest.raises(DataError, match=r"must be \[T, 64\]"):
        info.pack(np.zeros((1, 63)))
    with pytest.raises(DataError, match="damaged: 3 bytes"):
        info.unpack(b"abc")
    from dualcodec_jax.data.feature_info import read_feature_info

    (tmp_path / INFO_FILE).write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        read_feature_info(tmp_path)
    values = {**dataclasses.asdict(info), "version": 99}
    (tmp_path / INFO_FILE).write_text(json.dumps(values))
    with pytest.raises(DataError, match="version 99"):
        read_feature_info(tmp_path)


def test_hidden_states_are_what_is_normalised(
    model: tuple[Config, dict[str, Any]], extractor: SemanticExtractor, speech: np.ndarray
) -> None:
    tiny, params = model
    samples = speech[:SEGMENT]
    hidden = extractor.hidden(samples)
    statistics = params["statistics"]
    normal = (hidden - statistics["mean"]) / np.sqrt(statistics["var"])
    frames, factor = code_length(samples.size, tiny.codec), tiny.codec.semantic_downsample_factor
    pooled = normal[: frames * factor].reshape(frames, factor, -1).mean(axis=1)
    expected = np.asarray(in_step(params, tiny, samples[None])[0])[0]
    np.testing.assert_allclose(pooled, expected, atol=2e-4)
    assert extractor.hidden(samples[:100]).shape == (0, 64)
    bare = SemanticExtractor(tiny, params["semantic"])
    np.testing.assert_array_equal(bare.hidden(samples), hidden)
    with pytest.raises(DataError, match="need the statistics"):
        bare.features(samples)
