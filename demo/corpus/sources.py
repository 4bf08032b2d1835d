"""Where speech comes from: recordings in packages, as items that are read when needed."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpus.packages import Package, Packages, decode_g722

TRAIN, VALID, HELDOUT = "train", "valid", "heldout"
SPLITS = (TRAIN, VALID, HELDOUT)

Audio = tuple[NDArray[np.floating], float]
"""Mono samples, full scale being 1, and their rate in Hz."""

NO_SPEECH = {"ascending-2tone", "beep", "beeperr", "descending-2tone", "tt-monkeys"}
"""Asterisk prompts that are sounds, besides those in the folder ``silence``."""


@dataclass(frozen=True, slots=True)
class Item:
    """One recording, or one utterance to be synthesised.

    Attributes:
        name: unique within the source; the clip's file name without suffix.
        audio: makes the sound; None if there is none in it.
        text: what is said, if known.
        language: as an ISO 639-1 code.
        speaker: unique over all sources.
    """

    name: str
    audio: Callable[[], Audio | None]
    text: str | None
    language: str
    speaker: str


@dataclass(frozen=True, slots=True)
class Source:
    """Speech of one origin.

    Attributes:
        name: the folder below the split.
        packages: what it is made from.
        licence: of the speech.
        attribution: whom the licence or good manners ask to name.
        items: the items, given the packages; always the same in the same order.
        training: whether the licence allows training weights that are passed on; if not, all
            of it is held out.
        valid: number of items set aside from training.
        synthetic: whether a machine speaks. Such items are made once and kept.
    """

    name: str
    packages: tuple[Package, ...]
    licence: str
    attribution: str
    items: Callable[[Packages], Iterator[Item]]
    training: bool = True
    valid: int = 0
    synthetic: bool = False


def splits(source: Source, items: Sequence[Item]) -> list[str]:
    """The split of each item; which are set aside depends on their names alone."""
    if not source.training:
        return [HELDOUT] * len(items)
    order = sorted(items, key=lambda item: hashlib.sha256(item.name.encode()).digest())
    aside = {item.name for item in order[: source.valid]}
    return [VALID if item.name in aside else TRAIN for item in items]


def asterisk(language: str, voice: str) -> Callable[[Packages], Iterator[Item]]:
    """Prompts of Asterisk in one language, G.722 at 16 kHz; English ones with their text."""

    def items(packages: Packages) -> Iterator[Item]:
        folder = (
            packages.unpacked(asterisk_package(language)) / f"usr/share/asterisk/sounds/{voice}"
        )
        texts = prompt_texts(packages.unpacked(ENGLISH_PROMPTS)) if language == "en" else {}
        for path in sorted(folder.rglob("*.g722")):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name not in NO_SPEECH and not name.startswith("silence/"):
                yield Item(
                    name=name.replace("/", "-"),
                    audio=partial(_g722, path),
                    text=texts.get(name),
                    language=language,
                    speaker=f"asterisk-{voice}",
                )

    return items


def prompt_texts(folder: Path) -> dict[str, str]:
    """The English prompts' texts by name, from the list that Debian packages with them."""
    path = folder / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    texts = {}
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        name, separator, text = line.partition(": ")
        text = re.sub(r"\[.*?\]", "", text).replace("*", "star").replace("#", "pound").strip()
        if separator and text and not name.startswith(";"):
            texts[name] = text
    return texts


def festvox_ru(packages: Packages) -> Iterator[Item]:
    """Sentences read by one man, 16 kHz, with their text."""
    folder = packages.unpacked(FESTVOX_RU) / (
        "usr/share/festival/voices/russian/msu_ru_nsh_clunits"
    )
    lines = (folder / "etc/txt.done.data").read_text(encoding="utf-8")
    for name, text in re.findall(r'^\( (\w+) "(.*)" \)', lines, flags=re.MULTILINE):
        yield Item(
            name=name,
            audio=partial(_wav, folder / f"wav/{name}.wav"),
            text=text.replace("+", ""),  # marks the stressed vowel
            language="ru",
            speaker="festvox-msu-nsh",
        )


def librivox(packages: Packages) -> Iterator[Item]:
    """Five sentences of a LibriVox recording of Sense and Sensibility, 16 kHz, with their text."""
    folder = packages.unpacked(POCKETSPHINX) / "usr/share/pocketsphinx/test/data/librivox"
    lines = (folder / "transcription").read_text(encoding="utf-8")
    for text, name in re.findall(r"^<s> (.*) </s> \((\S+)\)", lines, flags=re.MULTILINE):
        yield Item(
            name=name,
            audio=partial(_wav, folder / f"{name}.wav"),
            text=text,
            language="en",
            speaker="librivox-sense-and-sensibility",
        )


def asterisk_package(language: str) -> Package:
    """The package with the prompts in one language."""
    digest, licence = ASTERISK[language]
    return Package(f"asterisk-core-sounds-{language}-g722", "1.6.1-1", digest, licence)


def _g722(path: Path) -> Audio | None:
    if not path.stat().st_size:  # ru_RU_f_IvrvoiceRU/is.g722
        return None
    data, rate = decode_g722(path)
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768, rate


def _wav(path: Path) -> Audio:
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32")
    return samples, rate


ASTERISK = {
    "en": ("38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806", "CC-BY-SA-3.0"),
    "fr": ("7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0", "CC-BY-SA-3.0"),
    "it": ("46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016", "CC-BY-3.0"),
    "ru": ("673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b", "CC-BY-3.0"),
}
"""SHA-256 and licence by language; English and French are for evaluation only."""
ENGLISH_PROMPTS = Package(
    "asterisk-core-sounds-en",
    "1.6.1-1",
    "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
    "CC-BY-SA-3.0",
)
FESTVOX_RU = Package(
    "festvox-ru",
    "0.5+dfsg-6",
    "21ef3f0f2978ecf2e2eddb367cb0ff4a72572196d28dc69feb84f4177af5e6c4",
    "BSD-like",
)
POCKETSPHINX = Package(
    "pocketsphinx-testdata",
    "0.8+5prealpha+1-15",
    "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
    "BSD-2-Clause, recordings in the public domain",
)

RECORDED = (
    Source(
        name="festvox-ru",
        packages=(FESTVOX_RU,),
        licence="BSD-like",
        attribution="Nickolay V. Shmyrev, 2005",
        items=festvox_ru,
        valid=5,
    ),
    Source(
        name="asterisk-it",
        packages=(asterisk_package("it"),),
        licence="CC-BY-3.0",
        attribution="Carlo Flora, www.carloflora.com",
        items=asterisk("it", "it_IT_m_Carlo"),
        valid=6,
    ),
    Source(
        name="asterisk-ru",
        packages=(asterisk_package("ru"),),
        licence="CC-BY-3.0",
        attribution="Maxim Topal, www.ivrvoice.ru",
        items=asterisk("ru", "ru_RU_f_IvrvoiceRU"),
        valid=6,
    ),
    Source(
        name="asterisk-en",
        packages=(asterisk_package("en"), ENGLISH_PROMPTS),
        licence="CC-BY-SA-3.0",
        attribution="Allison Smith, www.theivrvoice.com; Digium, Inc.",
        items=asterisk("en", "en_US_f_Allison"),
        training=False,
    ),
    Source(
        name="asterisk-fr",
        packages=(asterisk_package("fr"),),
        licence="CC-BY-SA-3.0",
        attribution="June Wallack, www.junewallack.com; Digium, Inc.",
        items=asterisk("fr", "fr_CA_f_June"),
        training=False,
    ),
    Source(
        name="librivox",
        packages=(POCKETSPHINX,),
        licence="public domain",
        attribution="LibriVox; Carnegie Mellon University",
        items=librivox,
        training=False,
    ),
)
"""Recordings of people."""
