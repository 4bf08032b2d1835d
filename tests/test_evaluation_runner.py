"""The runner: what is measured, what is kept, what goes on when something fails."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_standins import (
    RATE,
    StandInCodec,
    StandInMetric,
    StandInRecogniser,
    count_errors,
    make_items,
)

from dualcodec_jax.audio.reader import read_audio
from dualcodec_jax.errors import AudioError, InputError
from dualcodec_jax.evaluation import clip as clip_module
from dualcodec_jax.evaluation import metrics, recognisers, runner
from dualcodec_jax.evaluation.cache import Store, folder_name, rounded
from dualcodec_jax.evaluation.clip import reason
from dualcodec_jax.evaluation.collect import NO_REFERENCE, quantizer_use
from dualcodec_jax.evaluation.datasets import Item
from dualcodec_jax.evaluation.results import Results
from dualcodec_jax.evaluation.runner import evaluate, spread
from dualcodec_jax.evaluation.summary import summarise


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    return make_items(tmp_path / "in")


@pytest.fixture(autouse=True)
def plain_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognisers, "count_errors", count_errors)


def lines(folder: Path, name: str = "standin_1@2") -> list[dict[str, Any]]:
    text = (folder / "clips" / f"{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def run(
    folder: Path, items: list[Item], codec: StandInCodec, *metrics: Any, **more: Any
) -> Results:
    return evaluate([codec], items, metrics=metrics, output=folder / "out", **more)


def test_values(tmp_path: Path, items: list[Item]) -> None:
    compared, alone = StandInMetric("gain"), StandInMetric("peak", intrusive=False)
    results = run(tmp_path, items, StandInCodec(), compared, alone)
    original, coded = results.systems
    assert (original.name, coded.name, coded.folder) == ("original", "standin:1@2", "standin_1@2")
    assert [clip.id for clip in coded.clips] == [item.id for item in items]
    np.testing.assert_allclose([c.values["gain"] for c in coded.clips], 0.5, atol=1e-3)
    np.testing.assert_allclose(
        [c.values["peak"] for c in coded.clips], [0.1, 0.2, 0.3, 0.4], atol=1e-4
    )
    np.testing.assert_allclose(
        [c.values["peak"] for c in original.clips], [0.2, 0.4, 0.6, 0.8], atol=1e-4
    )
    # Comparing a recording with itself says nothing.
    assert all("gain" not in clip.values for clip in original.clips)
    assert [clip.bits for clip in coded.clips] == [60, 66, 72, 78]
    assert [clip.seconds for clip in coded.clips] == pytest.approx([1.0, 1.1, 1.2, 1.3])
    assert not results.problems
    assert not results.absent
    assert list(results.metrics) == ["gain", "peak"]


def test_codebooks(tmp_path: Path, items: list[Item]) -> None:
    _, coded = run(tmp_path, items, StandInCodec()).systems
    first, second = coded.codebooks
    # Peaks 0.2 … 0.8 have the levels 3, 6, 9 and 12 for 10 … 13 frames.
    shares = np.array([10, 11, 12, 13]) / 46
    assert (first.size, first.frames, first.used) == (16, 46, 4)
    assert first.entropy == pytest.approx(-(shares * np.log2(shares)).sum())
    assert (second.size, second.used, second.entropy) == (4, 1, 0.0)


def test_entropy_of_equal_use() -> None:
    use = quantizer_use(np.array([3, 3, 0, 0, 3, 3]))
    assert (use.entropy, use.used, use.usage) == (2.0, 4, pytest.approx(4 / 6))


def test_audio_is_kept_as_measured(tmp_path: Path, items: list[Item]) -> None:
    results = run(tmp_path, items, StandInCodec(), StandInMetric("peak", intrusive=False))
    for clip in results.systems[1].clips:
        kept = read_audio(tmp_path / "out" / "audio" / "standin_1@2" / f"{clip.id}.flac")
        assert kept.sample_rate == RATE
        assert float(np.abs(kept.samples).max()) == clip.values["peak"]
    samples = np.array([1.5, -1.5, 0.1], np.float32)
    assert rounded(samples).tolist() == [32767 / 32768, -1.0, 3277 / 32768]


def test_a_second_run_computes_nothing(tmp_path: Path, items: list[Item]) -> None:
    metrics = StandInMetric("gain"), StandInMetric("peak", intrusive=False)
    first = run(tmp_path, items, StandInCodec(), *metrics, recogniser=StandInRecogniser())
    written = {path: path.read_bytes() for path in (tmp_path / "out" / "clips").iterdir()}
    codec, again = StandInCodec(), (StandInMetric("gain"), StandInMetric("peak", intrusive=False))
    recogniser = StandInRecogniser()
    second = run(tmp_path, items, codec, *again, recogniser=recogniser)
    assert not codec.calls
    assert [metric.calls for metric in again] == [0, 0]
    assert recogniser.calls == 0
    assert second.systems == first.systems
    assert {path: path.read_bytes() for path in written} == written


def test_a_killed_run_goes_on(tmp_path: Path, items: list[Item]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, items, StandInCodec(kills=2), StandInMetric())
    path = tmp_path / "out" / "clips" / "standin_1@2.jsonl"
    assert len(lines(tmp_path / "out")) == 2
    with open(path, "ab") as file:
        file.write(b'{"clip": "clip2", "coding": {"key"')  # cut short
    codec, metric = StandInCodec(), StandInMetric()
    results = run(tmp_path, items, codec, metric)
    assert len(codec.encoded) == 2  # clips that were missing
    assert metric.calls == 2
    assert [clip.values["gain"] for clip in results.systems[1].clips] == pytest.approx(
        [0.5] * 4, abs=1e-3
    )
    # What came after the torn line can be read.
    assert run(tmp_path, items, StandInCodec(kills=0), StandInMetric()).systems == results.systems


def test_a_run_killed_during_its_first_clip_goes_on(
    tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = StandInMetric("peak", intrusive=False)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(metric, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, items, StandInCodec(), metric)
    assert len(list((tmp_path / "out" / "audio").rglob("*.flac"))) == 1
    results = run(tmp_path, items, StandInCodec(), metric)
    assert [len(system.clips) for system in results.systems] == [4, 4]


def test_messages_may_name_files_that_are_not_utf8(tmp_path: Path) -> None:
    message = reason(AudioError("b\udce9.wav: damaged"))
    assert message == "b\\udce9.wav: damaged"
    store = Store(tmp_path, "a", keep_audio=False)
    store.append({"clip": "one", "failure": message})
    assert store.read()["one"]["failure"] == message


def test_a_new_metric_needs_no_encoding(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path, items, StandInCodec(), StandInMetric("gain"))
    codec, old, new = StandInCodec(), StandInMetric("gain"), StandInMetric("other")
    results = run(tmp_path, items, codec, old, new)
    assert not codec.calls
    assert (old.calls, new.calls) == (0, 4)
    # The first metric alone again: the second one's values stay for later.
    run(tmp_path, items, codec, StandInMetric("gain", version="2"))
    third = StandInMetric("other")
    again = run(tmp_path, items, codec, third)
    assert third.calls == 0
    assert not codec.calls
    assert again.systems[1].clips[0].values["other"] == results.systems[1].clips[0].values["other"]


def test_without_audio_a_new_metric_encodes_again(tmp_path: Path, items: list[Item]) -> None:
    first = run(tmp_path, items, StandInCodec(), StandInMetric(), keep_audio=False)
    assert not (tmp_path / "out" / "audio").exists()
    codec, metric = StandInCodec(), StandInMetric("other")
    second = run(tmp_path, items, codec, StandInMetric(), metric, keep_audio=False)
    assert len(codec.encoded) == 4
    values = [[c.values["gain"] for c in r.systems[1].clips] for r in (first, second)]
    assert values[0] == values[1]


@pytest.mark.parametrize("what", ["codec", "metric", "file", "audio", "codes"])
def test_what_changed_is_measured_again(tmp_path: Path, items: list[Item], what: str) -> None:
    run(tmp_path, items, StandInCodec(), StandInMetric("gain"), StandInMetric("other"))
    codec = StandInCodec(version="2" if what == "codec" else "1")
    changed = StandInMetric("gain", version="2" if what == "metric" else "1")
    other = StandInMetric("other")
    if what == "file":
        os.utime(items[1].path, ns=(1, 1))
    elif what == "audio":
        (tmp_path / "out" / "audio" / "standin_1@2" / "clip1.flac").unlink()
    elif what == "codes":
        (tmp_path / "out" / "codes" / "standin_1@2" / "clip1.npy").write_bytes(b"x")
    results = run(tmp_path, items, codec, changed, other)
    encoded = {"codec": 4, "metric": 0, "file": 1, "audio": 1, "codes": 1}[what]
    assert len(codec.encoded) == encoded
    assert changed.calls == {"codec": 4, "metric": 4, "file": 1, "audio": 0, "codes": 0}[what]
    assert other.calls == {"codec": 4, "metric": 0, "file": 1, "audio": 0, "codes": 0}[what]
    assert results.systems[1].codebooks[0].frames == 46


def test_overwrite_measures_again(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path, items, StandInCodec(), StandInMetric())
    codec, metric = StandInCodec(), StandInMetric()
    run(tmp_path, items, codec, metric, overwrite=True)
    assert len(codec.encoded) == metric.calls == 4


def test_a_clip_that_fails(tmp_path: Path, items: list[Item]) -> None:
    failing = StandInCodec(fails=[round(1.1 * RATE)])
    results = run(tmp_path, items, failing, StandInMetric())
    assert results.problems == [("standin:1@2", "clip1", "codec", "too loud")]
    assert [bool(clip.values) for clip in results.systems[1].clips] == [True, False, True, True]
    codec = StandInCodec()  # tried again
    assert not run(tmp_path, items, codec, StandInMetric()).problems
    assert codec.encoded == {round(1.1 * RATE)}


def test_a_recording_that_cannot_be_read(tmp_path: Path, items: list[Item]) -> None:
    items[2].path.write_bytes(b"no audio")
    items[3].path.unlink()
    results = run(tmp_path, items, StandInCodec(), StandInMetric())
    assert {(system, clip) for system, clip, _, _ in results.problems} == {
        (system, clip) for system in ("original", "standin:1@2") for clip in ("clip2", "clip3")
    }
    assert results.systems[1].clips[0].values


def test_a_metric_that_fails(tmp_path: Path, items: list[Item]) -> None:
    good, bad = StandInMetric("good"), StandInMetric("bad", fails=True)
    results = run(tmp_path, items, StandInCodec(), bad, good)
    assert [what for _, _, what, _ in results.problems] == ["bad"] * 4
    assert all("good" in clip.values for clip in results.systems[1].clips)


def test_a_metric_without_values(tmp_path: Path, items: list[Item]) -> None:
    results = run(tmp_path, items, StandInCodec(), StandInMetric(nothing=True))
    assert results.without_value == [("standin:1@2", "gain", 4)]
    assert not results.problems


def test_a_metric_that_is_absent_says_so_once(tmp_path: Path, items: list[Item]) -> None:
    good, bad = StandInMetric("good"), StandInMetric("bad", absent=True)
    results = run(tmp_path, items, StandInCodec(), bad, good)
    assert results.absent == {"metric bad": "no weights"}
    assert list(results.metrics) == ["good"]
    assert not results.problems


def test_a_codec_that_is_absent_says_so_once(tmp_path: Path, items: list[Item]) -> None:
    codecs = [StandInCodec("a:1@2", absent=True), StandInCodec("b:1@2")]
    seen: list[tuple[int, int, str]] = []
    results = evaluate(
        codecs,
        items,
        metrics=[],
        output=tmp_path / "out",
        progress=lambda *state: seen.append(state),
    )
    assert results.absent == {"codec a:1@2": "no such program; install it"}
    assert [system.name for system in results.systems] == ["original", "b:1@2"]
    assert seen[0] == (0, 12, "original")
    assert seen[-1] == (8, 8, "done")


@pytest.mark.parametrize(
    ("version", "words"), [("1", "it is standin:1@2, which is"), ("2", "has its name; give")]
)
def test_a_name_that_is_taken_is_said(
    tmp_path: Path, items: list[Item], version: str, words: str
) -> None:
    second = StandInCodec(version=version)
    results = evaluate([StandInCodec(), second], items, metrics=[], output=tmp_path / "out")
    assert not second.calls
    assert [system.name for system in results.systems] == ["original", "standin:1@2"]
    assert words in results.absent["duplicate standin:1@2"]


@pytest.mark.parametrize(
    "error",
    [AssertionError("no such\nmodel"), pickle.UnpicklingError("bad key"), EOFError(), TypeError()],
)
def test_what_cannot_be_opened_is_absent(
    tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(runner, "open_codec", fails)
    monkeypatch.setattr(recognisers, "open_recogniser", fails)
    monkeypatch.setitem(metrics.METRICS, "mel", fails)
    results = evaluate(
        ["opus:6", StandInCodec()],
        items[:1],
        metrics=["mel", StandInMetric()],
        recogniser="pocketsphinx",
        output=tmp_path / "out",
    )
    names = "metric mel", "recogniser pocketsphinx", "codec opus:6"
    assert results.absent == dict.fromkeys(names, reason(error))
    assert results.systems[1].clips[0].values["gain"] == pytest.approx(0.5, abs=1e-3)


def test_word_errors(tmp_path: Path, items: list[Item]) -> None:
    results = run(tmp_path, items, StandInCodec(), recogniser=StandInRecogniser())
    original, coded = results.systems
    # Clips 0 and 2 have transcripts of four words; for 1 and 3, what is heard in the original.
    assert [(c.errors, c.words, c.reference) for c in original.clips] == [
        (1, 4, "text"),
        (None, None, "original"),
        (0, 4, "text"),
        (None, None, "original"),
    ]
    assert [(c.errors, c.words, c.reference) for c in coded.clips] == [
        (1, 4, "text"),
        (1, 4, "original"),
        (1, 4, "text"),
        (0, 4, "original"),
    ]
    assert results.recognisers == ({"name": "ears", "version": "1", "language": "en"},)


def test_a_new_recogniser_hears_again(tmp_path: Path, items: list[Item]) -> None:
    run(tmp_path, items, StandInCodec(), recogniser=StandInRecogniser())
    codec, recogniser = StandInCodec(), StandInRecogniser(version="2")
    run(tmp_path, items, codec, recogniser=recogniser)
    assert recogniser.calls == 8
    assert not codec.calls


def test_recognisers_by_language(tmp_path: Path, items: list[Item]) -> None:
    items[1] = Item("clip1", items[1].path, "一 二 三", "zh-CN")
    items[2] = Item("clip2", items[2].path, "un deux", "fr")
    english, chinese = StandInRecogniser(), StandInRecogniser(language="zh")
    results = run(tmp_path, items, StandInCodec(), recogniser=[english, chinese])
    assert (english.calls, chinese.calls) == (4, 2)
    assert results.absent == {"word errors of fr": "ears, ears does not know the language"}
    assert [clip.errors for clip in results.systems[1].clips] == [1, 0, None, 0]


def test_the_language_of_counting_is_kept(tmp_path: Path, items: list[Item]) -> None:
    """Where the recording's is not known, it is the recogniser's."""
    items = [dataclasses.replace(item, language=None) for item in items]
    results = run(tmp_path, items, StandInCodec(), recogniser=StandInRecogniser(language="zh"))
    (first, *_), summary = results.systems[1].clips, summarise(results)
    assert (first.language, first.counted_in, first.counts_characters) == (None, "zh", True)
    assert [column.title for column in summary.columns if column.key == "wer"] == [
        "CER partly vs. original, %"
    ]


def test_no_reference(tmp_path: Path, items: list[Item]) -> None:
    """The original of a clip without transcript cannot be recognised."""

    class Deaf(StandInRecogniser):
        def transcribe(self, samples: np.ndarray, sample_rate: int) -> str:
            if samples.size == round(1.1 * RATE) and np.abs(samples).max() > 0.3:
                raise RuntimeError("out of\nmemory")
            return super().transcribe(samples, sample_rate)

    results = run(tmp_path, items, StandInCodec(), recogniser=Deaf())
    assert results.problems == [
        ("original", "clip1", "wer", "RuntimeError: out of memory"),
        ("standin:1@2", "clip1", "wer", NO_REFERENCE),
    ]


def test_another_rate_is_compared_at_24_khz(tmp_path: Path, items: list[Item]) -> None:
    codec = StandInCodec("standin:8", sample_rate=8000)
    _, coded = run(tmp_path, items, codec, StandInMetric()).systems
    assert read_audio(tmp_path / "out/audio/standin_8/clip0.flac").sample_rate == 8000
    np.testing.assert_allclose([c.values["gain"] for c in coded.clips], 0.5, atol=0.01)


def test_times_leave_out_compiling(tmp_path: Path, items: list[Item]) -> None:
    """A length that is new to the codec is coded twice; the second time counts."""
    codec = StandInCodec()
    run(tmp_path, items, codec)
    assert 4 < codec.calls["encode"] <= 8
    assert codec.calls["encode"] == codec.calls["decode"]


def test_times_keep_their_machine(
    tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_module, "hardware", lambda: "abacus")
    run(tmp_path, items[:2], StandInCodec())
    path = tmp_path / "out" / "clips" / "standin_1@2.jsonl"
    path.write_text(path.read_text().replace(', "hardware": "abacus"', "", 1))  # as of before
    monkeypatch.setattr(clip_module, "hardware", lambda: "slide rule")
    coded = run(tmp_path, items[:3], StandInCodec()).systems[1]
    assert [clip.hardware for clip in coded.clips] == [None, "abacus", "slide rule"]


def test_long_recordings(tmp_path: Path, items: list[Item]) -> None:
    results = run(tmp_path, items, StandInCodec(), StandInMetric(), max_seconds=1.15)
    problems = [p for p in results.problems if p[0] != "original"]
    assert [(clip, what) for _, clip, what, _ in problems] == [
        ("clip2", "codec"),
        ("clip3", "codec"),
    ]
    assert "--max-seconds" in problems[0][3]
    assert not run(tmp_path, items, StandInCodec(), StandInMetric(), max_seconds=None).problems
    with pytest.raises(InputError, match="max_seconds must be positive"):
        run(tmp_path, items, StandInCodec(), max_seconds=0)


def test_codes_of_the_original_are_compared(tmp_path: Path, items: list[Item]) -> None:
    systems = [StandInCodec("dualcodec:x@2"), StandInCodec("upstream:x@2"), StandInCodec("mimi:2")]
    systems[1].encode = lambda samples: _one_wrong(StandInCodec().encode(samples))  # type: ignore[method-assign]
    results = evaluate(systems, items, metrics=[], output=tmp_path / "out")
    (pair,) = results.compared
    assert (pair.first, pair.second, pair.clips) == ("dualcodec:x@2", "upstream:x@2", 4)
    assert list(pair.total) == [46, 46]
    assert list(pair.equal) == [42, 46]


def _one_wrong(coded: Any) -> Any:
    coded.codes[0, 0] += 1
    return coded


def test_limit_is_spread(tmp_path: Path, items: list[Item]) -> None:
    assert [item.id for item in spread(items, 2)] == ["clip0", "clip2"]
    assert spread(items, 9) == items
    results = run(tmp_path, items, StandInCodec(), StandInMetric(), limit=2)
    assert [clip.id for clip in results.systems[1].clips] == ["clip0", "clip2"]
    codec = StandInCodec()
    run(tmp_path, items, codec, StandInMetric())
    assert len(codec.encoded) == 2
    with pytest.raises(InputError, match="at least 1"):
        spread(items, 0)


def test_bad_requests(tmp_path: Path, items: list[Item]) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="unknown codec"):
        evaluate(["nonsense:1"], items, metrics=[], output=out)
    with pytest.raises(InputError, match=r"unknown metric.*, speaker, wer, rtf$"):
        evaluate(["original"], items, metrics=["nonsense"], output=out)
    with pytest.raises(InputError, match="unknown recogniser"):
        evaluate(["original"], items, metrics=[], recogniser="nonsense", output=out)
    with pytest.raises(InputError, match="at least one"):
        evaluate([], items, metrics=[], output=out)
    with pytest.raises(InputError, match="same id"):
        evaluate(["original"], [items[0], items[0]], metrics=[], output=out)
    with pytest.raises(InputError, match="not a folder"):
        evaluate(["original"], items, metrics=[], output=items[0].path)
    with pytest.raises(InputError, match="holds other files"):
        evaluate(["original"], items, metrics=[], output=tmp_path / "in")
    assert not out.exists()


def test_folder_names_are_safe_and_distinct() -> None:
    assert folder_name("original") == "original"
    assert folder_name("dualcodec:demo@4") == "dualcodec_demo@4"
    names = ["a:b", "a_b", "a:b:c", "a:b_c", "a:b/c", "a:/b/c", "a:b c", "a:..", "a:" + "x" * 300]
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert len(folder) < 64
        assert not folder.startswith(".")
        assert set(folder) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.@")


def test_damaged_lines_do_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path, "x", keep_audio=True)
    store.append({"clip": "a", "n": 1})
    path = tmp_path / "clips" / "x.jsonl"
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n[1]\n" + b'{"clip": "b"')
    store.append({"clip": "c", "n": 2})
    store.append({"clip": "a", "n": 3})
    assert store.read() == {"a": {"clip": "a", "n": 3}, "c": {"clip": "c", "n": 2}}
