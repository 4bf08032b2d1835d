"""Both released models whole, from files, through the public ``Inference``, on real speech."""

from __future__ import annotations

import gc
import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import upstream
from upstream import CodeCounts, Encoding, Release, Upstream, clip, compare_codes

import dualcodec_jax
from dualcodec_jax import functional
from dualcodec_jax.audio.fbank import semantic_input
from dualcodec_jax.audio.resample import resample
from dualcodec_jax.config import Config
from dualcodec_jax.lengths import SEMANTIC_SAMPLE_RATE, code_length, decoded_samples
from dualcodec_jax.nn.codec import DualCodec
from dualcodec_jax.nn.w2v_bert import W2vBert

INTERMEDIATE = 1e-4
AUDIO = 1e-4
BATCHED_AUDIO = 1e-5
DISTINCT = 0.6
CLIPS = list(upstream.speech())

# All of these lengths share a bucket in both models: 26 hops (12hz), 52 hops (25hz).
TWO_SECONDS = (48001, 48130, 48803, 49001, 49919)
SHORT = (7200, 7199, 6999, 6721, 7680)
WHOLE = "every quantizer, about 2 s"


def stacked(rows: tuple[Any, ...]) -> np.ndarray:
    """(semantic, acoustic or None, …) → codes ``[B, n, T]``."""
    return np.concatenate([np.asarray(row) for row in rows[:2] if row is not None], axis=1)


def compared(original: Upstream, actual: np.ndarray, expected: Encoding) -> CodeCounts:
    return compare_codes(actual, expected.codes, expected.latents, original.codebooks)


def total(counts: list[CodeCounts]) -> CodeCounts:
    return sum(counts, CodeCounts())


# The rule of comparison ---------------------------------------------------------------------


def near_tie() -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Codes ``[1, 3, 40]`` of random latents; codes 0 and 1 of each book are all but equal."""
    rng = np.random.default_rng(0)
    books = [rng.standard_normal((16, 8), np.float32) for _ in range(3)]
    latents = [rng.standard_normal((1, 40, 8), np.float32) for _ in range(3)]
    for book, latent in zip(books, latents, strict=True):
        book[1] = book[0] * 3
        latent[0, 5] = book[0] + 1e-6
    rows = [
        [upstream.upstream_distances(frame, book).argmin() for frame in latent[0]]
        for latent, book in zip(latents, books, strict=True)
    ]
    codes = np.array([rows])
    codes[:, :, 5] = 0
    return codes, latents, books


def test_equal_codes() -> None:
    codes, latents, books = near_tie()
    assert compare_codes(codes, codes, latents, books) == CodeCounts(40, 120, 120, 0, 0)


def test_a_wrong_code_is_not_excused() -> None:
    codes, latents, books = near_tie()
    for row in range(3):
        wrong = codes.copy()
        wrong[0, row, 7] = (wrong[0, row, 7] + 1) % 16
        with pytest.raises(AssertionError, match=f"row {row}, frame 7"):
            compare_codes(wrong, codes, latents, books)


def test_a_tie_excuses_later_layers_of_its_frame() -> None:
    codes, latents, books = near_tie()
    flipped = codes.copy()
    flipped[0, 1, 5] = 1
    assert compare_codes(flipped, codes, latents, books) == CodeCounts(40, 120, 119, 1, 0)
    flipped[0, 2, 5] = 9
    assert compare_codes(flipped, codes, latents, books) == CodeCounts(40, 120, 118, 1, 1)
    flipped[0, 2, 6] = (flipped[0, 2, 6] + 1) % 16
    with pytest.raises(AssertionError, match="row 2, frame 6"):
        compare_codes(flipped, codes, latents, books)


def test_a_semantic_tie_excuses_the_frames_that_its_latent_reaches() -> None:
    codes, latents, books = near_tie()
    flipped = codes.copy()
    flipped[0, 0, 5] = 1
    last = 5 + upstream.REACH
    flipped[0, 1, [5, last]] = (codes[0, 1, [5, last]] + 1) % 16
    assert compare_codes(flipped, codes, latents, books) == CodeCounts(40, 120, 117, 1, 2)
    for row, frame in ((0, 6), (1, 4), (1, last + 1)):
        wrong = flipped.copy()
        wrong[0, row, frame] = (codes[0, row, frame] + 1) % 16
        with pytest.raises(AssertionError, match=f"row {row}, frame {frame}"):
            compare_codes(wrong, codes, latents, books)


# Codes --------------------------------------------------------------------------------------


def test_codes_of_speech(report: Any, original: Upstream, ours: Any, model_id: str) -> None:
    """Odd lengths, all quantizers; and the codes are diverse, or this would prove little."""
    counts, seen = [], []
    for name, num_samples in zip(CLIPS, TWO_SECONDS, strict=True):
        audio = clip(name, num_samples, 7001)
        expected = original.encode(audio)
        counts.append(compared(original, stacked(ours.encode(audio, None)), expected))
        seen.append(expected.codes[0])
    report.codes(model_id, WHOLE, total(counts))
    frames = np.concatenate(seen, axis=1)
    assert frames.shape[0] == ours.config.codec.n_quantizers
    assert min(len(np.unique(row)) for row in frames) > DISTINCT * frames.shape[1]


def test_intermediate_tensors(report: Any, original: Upstream, ours: Any) -> None:
    audio = clip("librivox", 49001, 7001)
    expected = original.encode(audio, None)
    check_intermediates(report, ours, audio, expected)


def check_intermediates(report: Any, ours: Any, audio: np.ndarray, expected: Encoding) -> None:
    @jax.jit
    def hidden_and_pooled(params: Any, audio: Any) -> Any:
        config: Config = ours.config
        inputs = semantic_input(resample(audio, config.codec.sample_rate, SEMANTIC_SAMPLE_RATE))
        hidden = W2vBert(config.semantic).apply(
            {"params": params["semantic"]}, inputs.features, inputs.mask
        )
        return hidden, functional.semantic_features(params, config, audio)[0]

    @jax.jit
    def latents(params: Any, audio: Any, pooled: Any) -> Any:
        codec, variables = DualCodec(ours.config.codec), {"params": params["codec"]}
        semantic, _ = codec.apply(variables, pooled, method="encode_semantic")
        return semantic, codec.apply(variables, audio[..., None], method="encode_acoustic")

    hidden, pooled = hidden_and_pooled(ours.params, audio[:, 0])
    semantic, acoustic = latents(ours.params, audio[:, 0], pooled)
    report.error("whole: features of layer 17", hidden, expected.hidden, INTERMEDIATE)
    report.error("whole: pooled features", pooled, expected.pooled, INTERMEDIATE)
    report.error("whole: semantic latent", semantic, expected.semantic_latent, INTERMEDIATE)
    report.error("whole: encoder output", acoustic, expected.acoustic, INTERMEDIATE)


def test_codes_of_short_clips(report: Any, original: Upstream, ours: Any, model_id: str) -> None:
    """0.3 s and thereabouts."""
    counts = []
    for name, num_samples in zip(CLIPS, SHORT, strict=True):
        audio = clip(name, num_samples, 20000)
        counts.append(compared(original, stacked(ours.encode(audio, None)), original.encode(audio)))
    report.codes(model_id, "every quantizer, 0.3 s", total(counts))


def test_batches_of_equal_length(report: Any, original: Upstream, ours: Any, model_id: str) -> None:
    counts = []
    for start, num_samples in ((0, 48803), (11111, 49152)):
        audio = np.concatenate([clip(name, num_samples, start) for name in CLIPS[:3]])
        expected = original.encode(audio)
        assert expected.codes.shape[0] == 3
        counts.append(compared(original, stacked(ours.encode(audio, None)), expected))
    report.codes(model_id, "equal lengths, batch of 3", total(counts))


def check_n_quantizers(
    report: Any, original: Upstream, ours: Any, model_id: str, count: int | None
) -> None:
    available = ours.config.codec.n_quantizers
    counts = []
    for name, num_samples in list(zip(CLIPS, SHORT, strict=True))[:2]:
        audio = clip(name, num_samples, 20000)
        rows = ours.encode(audio, count)
        assert (rows[1] is None) == (count == 1)
        actual = stacked(rows)
        assert actual.shape[1] == (available if count is None else count)
        counts.append(compared(original, actual, original.encode(audio, count)))
    report.codes(model_id, f"n_quantizers={count}, 0.3 s", total(counts))


@pytest.mark.parametrize("count", [1, 2, None])
def test_some_n_quantizers(
    report: Any, original: Upstream, ours: Any, model_id: str, count: int | None
) -> None:
    check_n_quantizers(report, original, ours, model_id, count)


@pytest.mark.slow
@pytest.mark.parametrize("count", range(3, 13))
def test_every_other_n_quantizers(
    report: Any, original: Upstream, ours: Any, model_id: str, count: int
) -> None:
    if count > ours.config.codec.n_quantizers:
        pytest.skip("this model has fewer quantizers")
    check_n_quantizers(report, original, ours, model_id, count)


def test_default_n_quantizers_is_upstreams(original: Upstream, ours: Any) -> None:
    """Eight, also for the model of twelve."""

    def default(function: Any) -> Any:
        return inspect.signature(function).parameters["n_quantizers"].default

    assert default(type(ours).encode) == default(type(original.inference).encode) == 8


@pytest.mark.slow
def test_whole_clips(report: Any, original: Upstream, ours: Any, model_id: str) -> None:
    """25 s of speech, codes and audio."""
    counts = []
    for samples in upstream.speech().values():
        audio = samples[None, None]
        expected = original.encode(audio)
        counts.append(compared(original, stacked(ours.encode(audio, None)), expected))
        decoded = ours.decode(expected.codes[:, :1], expected.codes[:, 1:])
        what = "whole: decoded audio, whole clips"
        report.error(what, decoded, original.decode(expected.codes), AUDIO)
    report.codes(model_id, "whole clips of 3 to 7 s", total(counts))


# Audio --------------------------------------------------------------------------------------


def random_codes(config: Any, batch: int, frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    sizes = config.codec.codebook_sizes
    rows = [rng.integers(0, size, (batch, 1, frames)) for size in sizes]
    return np.concatenate(rows, axis=1).astype(np.int32)


def decode(ours: Any, codes: np.ndarray) -> np.ndarray:
    return np.asarray(ours.decode(codes[:, :1], codes[:, 1:] if codes.shape[1] > 1 else None))


def check_prefix(report: Any, original: Upstream, ours: Any, count: int) -> None:
    codes = random_codes(ours.config, 1, 6)[:, :count]
    expected = original.decode(codes)
    assert 0.02 < expected.std() < 0.9
    report.error("whole: decoded audio, prefixes", decode(ours, codes), expected, AUDIO)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_decode_some_prefixes(report: Any, original: Upstream, ours: Any, count: int) -> None:
    """From the semantic codes alone to upstream's default."""
    check_prefix(report, original, ours, count)


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 9, 10, 11, 12])
def test_decode_every_other_prefix(report: Any, original: Upstream, ours: Any, count: int) -> None:
    if count > ours.config.codec.n_quantizers:
        pytest.skip("this model has fewer quantizers")
    check_prefix(report, original, ours, count)


@pytest.mark.parametrize(("batch", "frames"), [(1, 24), (3, 24), (1, 1)])
def test_decode_random_codes(
    report: Any, original: Upstream, ours: Any, batch: int, frames: int
) -> None:
    codes = random_codes(ours.config, batch, frames)
    audio = decode(ours, codes)
    assert audio.shape == (batch, 1, frames * ours.config.codec.hop_length - 4)
    report.error("whole: decoded audio", audio, original.decode(codes), AUDIO)


def test_decode_codes_of_speech(report: Any, original: Upstream, ours: Any) -> None:
    codes = original.encode(clip("librivox_0920", 48001, 5000)).codes[:, :, :24]
    report.error("whole: decoded audio", decode(ours, codes), original.decode(codes), AUDIO)


# Unequal lengths ----------------------------------------------------------------------------

Item = tuple[str, int, int]
"""A cut of a clip: name, samples, start."""


class Singles:
    """Single runs of upstream's and ours, each once."""

    def __init__(self, original: Upstream, ours: Any) -> None:
        self.original, self.ours = original, ours
        self._expected: dict[Item, Encoding] = {}
        self._own: dict[Item, np.ndarray] = {}
        self._audio: dict[bytes, np.ndarray] = {}

    def expected(self, item: Item) -> Encoding:
        if item not in self._expected:
            self._expected[item] = self.original.encode(clip(*item))
        return self._expected[item]

    def own(self, item: Item) -> np.ndarray:
        if item not in self._own:
            self._own[item] = stacked(self.ours.encode(clip(*item), None))
        return self._own[item]

    def audio(self, codes: np.ndarray) -> np.ndarray:
        """Our decoding of codes ``[1, n, T]``."""
        if (key := codes.tobytes()) not in self._audio:
            self._audio[key] = decode(self.ours, codes)
        return self._audio[key]


def encode_padded(ours: Any, items: list[Item], rng: np.random.Generator) -> list[np.ndarray]:
    """Codes of a batch whose padding is loud noise, cut to each item's length."""
    config = ours.config.codec
    lengths = np.array([num_samples for _, num_samples, _ in items])
    batch = rng.standard_normal((len(items), 1, lengths.max() + 700), np.float32)
    for row, item in zip(batch, items, strict=True):
        row[:, : item[1]] = clip(*item)[0]
    rows = ours.encode(batch, None, lengths=lengths)
    frames = code_length(lengths, config)
    assert np.array_equal(rows[2], frames)
    codes = stacked(rows)
    assert codes.shape[2] == frames.max()
    for row, size in zip(codes, frames, strict=True):
        assert not row[:, size:].any()
    return [row[None, :, :size] for row, size in zip(codes, frames, strict=True)]


def test_unequal_lengths(report: Any, original: Upstream, ours: Any, model_id: str) -> None:
    """Padded batches against upstream's single runs."""
    singles, rng = Singles(original, ours), np.random.default_rng(0)
    combinations = [
        [("librivox", 48803, 0), ("librivox_0880", 30001, 5000), ("librivox_0920", 7199, 9000)],
        [("librivox_0890", 4800, 40000), ("librivox_0930", 48130, 3000), ("librivox", 19999, 9)],
        [("librivox_0920", 47000, 60000), ("librivox", 2039, 30000), ("librivox_0930", 49919, 0)],
    ]
    counts = []
    for items in combinations:
        for item, codes in zip(items, encode_padded(ours, items, rng), strict=True):
            counts.append(compared(original, codes, singles.expected(item)))
    report.codes(model_id, "unequal lengths, upstream's single runs", total(counts))


def decode_padded(ours: Any, codes: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Audio of a batch of codes ``[1, n, T]`` padded with random codes, cut to each length."""
    config = ours.config.codec
    frames = np.array([row.shape[2] for row in codes])
    batch = random_codes(ours.config, len(codes), int(frames.max()) + 2, seed=int(rng.integers(99)))
    for row, item in zip(batch, codes, strict=True):
        row[:, : item.shape[2]] = item[0]
    audio, lengths = ours.decode(batch[:, :1], batch[:, 1:], code_lengths=frames)
    assert np.array_equal(lengths, decoded_samples(frames, config))
    audio = np.asarray(audio)
    assert audio.shape[2] == lengths.max()
    for row, size in zip(audio, lengths, strict=True):
        assert not row[:, size:].any()
    return [row[None, :, :size] for row, size in zip(audio, lengths, strict=True)]


def test_decode_unequal_lengths(report: Any, original: Upstream, ours: Any) -> None:
    sizes, rng = (24, 6, 1), np.random.default_rng(0)
    codes = [random_codes(ours.config, 1, size, seed=size) for size in sizes]
    for item, audio in zip(codes, decode_padded(ours, codes, rng), strict=True):
        report.error(
            "unequal lengths: audio, upstream's single runs", audio, original.decode(item), AUDIO
        )
        report.error(
            "unequal lengths: audio, own single runs", audio, decode(ours, item), BATCHED_AUDIO
        )


@pytest.mark.slow
def test_fifty_combinations_of_lengths(
    report: Any, original: Upstream, ours: Any, model_id: str
) -> None:
    """Random lengths from 0.2 to 2 s in batches of 2 to 4, encoded and decoded.

    Lengths fall into four classes of hops, so that few shapes are compiled.
    """
    rng = np.random.default_rng(1)
    hop = ours.config.codec.hop_length
    classes = np.array([0.24, 0.64, 1.28, 2.0]) * 24000 // hop
    singles = Singles(original, ours)
    pool = [random_item(rng, int(hops), hop) for hops in classes for _ in range(5)]
    upstreams, owns, audio_items = [], [], 0
    for _ in range(50):
        size = int(rng.integers(2, 5))
        items = [pool[i] for i in rng.choice(len(pool), size, replace=False)]
        items[int(rng.integers(size))] = pool[int(rng.integers(10, 20))]
        codes = encode_padded(ours, items, rng)
        for item, row in zip(items, codes, strict=True):
            expected = singles.expected(item)
            upstreams.append(compared(original, row, expected))
            owns.append(compare_codes(row, singles.own(item), expected.latents, original.codebooks))
        for item, audio in zip(codes, decode_padded(ours, codes, rng), strict=True):
            audio_items += 1
            own = singles.audio(item)
            report.error("50 combinations: audio, own single runs", audio, own, BATCHED_AUDIO)
    report.codes(model_id, "50 combinations, upstream's single runs", total(upstreams))
    report.codes(model_id, "50 combinations, own single runs", total(owns))
    assert audio_items == len(owns) >= 100


def random_item(rng: np.random.Generator, hops: int, hop: int) -> Item:
    num_samples = int(rng.integers((hops - 1) * hop + 1, hops * hop + 1))
    name = CLIPS[int(rng.integers(len(CLIPS)))]
    start = int(rng.integers(0, upstream.speech()[name].size - num_samples))
    return name, num_samples, start


# The released w2v-BERT at full size ---------------------------------------------------------


@pytest.fixture(scope="session")
def full_release(scratch: Path) -> Iterator[Release]:
    """24 layers with a feed-forward of 4096: 2.3 GB, calibrated anew."""
    folder = scratch / "full"
    yield upstream.write_release(folder, num_layers=24, intermediate_size=4096)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_full_w2v_bert(report: Any, full_release: Release, model_id: str) -> None:
    """Everything at its released size: features, codes and audio of one clip."""
    audio = clip("librivox", 72137, 12000)
    original = Upstream(full_release, model_id)
    expected = original.encode(audio)
    decoded = original.decode(expected.codes)
    original.inference.semantic_cfg.semantic_model = None
    gc.collect()
    model = dualcodec_jax.get_model(model_id, full_release.dualcodec)
    ours = dualcodec_jax.Inference(model, full_release.dualcodec, full_release.w2v_bert)
    assert ours.config.semantic == dualcodec_jax.get_config(model_id).semantic
    counts = compared(original, stacked(ours.encode(audio, None)), expected)
    report.codes(model_id, "w2v-BERT at full size, 3 s", counts)
    check_intermediates(report, ours, audio, expected)
    report.error("whole: decoded audio", decode(ours, expected.codes), decoded, AUDIO)
