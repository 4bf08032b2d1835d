"""Listening tests: from the audio of an evaluation to a MUSHRA test for webMUSHRA.

The test follows ITU-R BS.1534: every page has an open reference, the same hidden among the
conditions, and two anchors, the reference low-passed at 3.5 and 7 kHz. What is written::

    configs/NAME.yaml                            the test
    configs/resources/NAME/CLIP/reference.wav    48 kHz, 16 bits, mono
    configs/resources/NAME/CLIP/anchor35.wav, anchor70.wav, CODEC.wav
    key.json                                     what was chosen, and the gain of every file

The folder ``configs`` goes into a copy of webMUSHRA; see docs/listening_tests.md.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualcodec_jax.audio.load import load_audio
from dualcodec_jax.audio.reader import audio_info, read_audio
from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation.codecs.base import Samples, fit_length
from dualcodec_jax.paths import replacing

AUDIO_FOLDER, ORIGINAL = "audio", "original"
"""Of an evaluation's results: ``audio/CODEC/CLIP.flac``, and the codec that is the reference."""
AUDIO_SUFFIXES = (".flac", ".wav")
CONFIGS_FOLDER, KEY_FILE = "configs", "key.json"
"""Of a test."""
SAMPLE_RATE = 48000
ANCHORS = {"anchor35": 3500.0, "anchor70": 7000.0}
"""Names that webMUSHRA gives its own anchors, and the ends of their pass bands in Hz."""
MAX_SECONDS, MAX_CONDITIONS = 12.0, 12
"""Limits of BS.1534 that webMUSHRA checks: of a clip, and of conditions beside the reference."""
MIN_SECONDS = 1.0
REFERENCE_DBFS = -26.0
"""RMS level of every reference, lowered where a condition would clip otherwise."""
PEAK = 0.99
TRANSITION = 500.0
"""From pass band to stop band of the anchors' filters, in Hz."""
_TAPS = 383

INSTRUCTIONS = (
    "<p>You will hear recordings of speech. On each page, compare every condition with the "
    "reference and rate its basic audio quality: any difference from the reference counts.</p>"
    "<p>100 means that you hear no difference. One of the conditions is the reference itself; give "
    "it 100. You may listen as often as you like, and switch while a recording plays.</p>"
    "<p>Wear headphones, and use Google Chrome or Chromium.</p>"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MushraConfig:
    """What to test.

    Attributes:
        name: of the test: file names, and ``testId`` in the results.
        title: what listeners see.
        codecs: folder names below ``audio``; None: all.
        clips: how many, drawn at random from those that all codecs have and that are
            1 to 12 s long.
        seed: of the draw.
        align_levels: scale every codec's output to the level (RMS) of the reference, since a
            louder version tends to be rated higher; otherwise levels stay as decoded.
        remote_service: where webMUSHRA sends ratings.
    """

    name: str = "dualcodec"
    title: str = "Quality of coded speech"
    codecs: Sequence[str] | None = None
    clips: int = 10
    seed: int = 0
    align_levels: bool = True
    remote_service: str = "service/write.php"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_-]+", self.name):
            raise InputError(
                f"test name {self.name!r}: use lower-case letters, digits, _ and - only"
            )
        if self.clips < 1:
            raise InputError(f"clips must be at least 1; got {self.clips}")


@dataclasses.dataclass(frozen=True)
class MushraTest:
    """What was written.

    Attributes:
        folder: with ``configs`` and ``key.json``.
        codecs: conditions, without anchors and hidden reference.
        clips: one page each.
        left_out: clips that could not be used, with the reason.
    """

    folder: Path
    codecs: tuple[str, ...]
    clips: tuple[str, ...]
    left_out: dict[str, str]


def write_mushra(
    results: str | Path,
    output: str | Path,
    config: MushraConfig | None = None,
    *,
    overwrite: bool = False,
) -> MushraTest:
    """Write a listening test from the audio that an evaluation kept.

    Args:
        results: the evaluation's output folder.
        output: folder to write.
        config: what to test.
        overwrite: replace ``output``.

    Raises:
        InputError: there is no such audio, no clip that all codecs have, too many conditions, or
            the folder cannot be written.
        AudioError: a file cannot be read.
    """
    config = config or MushraConfig()
    _check_disposable(Path(output))
    audio = Path(results) / AUDIO_FOLDER
    files = _files(audio)
    codecs = _codecs(files, config.codecs, audio)
    usable, left_out = _usable(files, codecs)
    if not usable:
        reasons = "; ".join(f"{clip}: {why}" for clip, why in list(left_out.items())[:3])
        raise InputError(f"{audio}: no clip can be used ({reasons or 'there is none'})")
    clips = sorted(random.Random(config.seed).sample(usable, min(config.clips, len(usable))))
    resources = f"{CONFIGS_FOLDER}/resources/{config.name}"
    levels = {}
    with replacing(output, overwrite=overwrite, folder=True) as folder:
        for clip in clips:
            paths = {codec: files[codec][clip] for codec in (ORIGINAL, *codecs)}
            signals, levels[clip] = prepare_clip(paths, config.align_levels)
            for name, samples in signals.items():
                write_audio(folder / resources / clip / f"{name}.wav", samples, SAMPLE_RATE)
        test = _test(config, resources, clips, codecs)
        path = folder / CONFIGS_FOLDER / f"{config.name}.yaml"
        path.write_text(_dump(test), encoding="utf-8")
        key = {
            "seed": config.seed,
            "aligned": config.align_levels,
            "codecs": codecs,
            "gain_db": levels,
            "left_out": left_out,
        }
        (folder / KEY_FILE).write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")
        check_mushra(folder)
    return MushraTest(Path(output), tuple(codecs), tuple(clips), left_out)


def check_mushra(folder: str | Path) -> int:
    """Check a test as webMUSHRA would: every file is there, and those of a page fit together.

    Returns:
        The number of pages with ratings.

    Raises:
        InputError: saying what is wrong with which page.
        AudioError: a file is missing or damaged.
    """
    root = Path(folder)
    pages = 0
    for path in sorted((root / CONFIGS_FOLDER).glob("*.yaml")):
        for page in _pages(_yaml().safe_load(path.read_text("utf-8"))["pages"]):
            if page["type"] == "volume":
                audio_info(root / page["stimulus"])
            if page["type"] != "mushra":
                continue
            pages += 1
            infos = [audio_info(root / page["reference"])]
            infos += [audio_info(root / stimulus) for stimulus in page["stimuli"].values()]
            kinds = {(info.sample_rate, info.channels, info.num_samples) for info in infos}
            if len(kinds) != 1:
                raise InputError(f"{path}, page {page['id']}: files differ in rate or length")
            if len(page["stimuli"]) > MAX_CONDITIONS or (infos[0].seconds or 0) > MAX_SECONDS:
                raise InputError(f"{path}, page {page['id']}: beyond the limits of BS.1534")
    if not pages:
        raise InputError(f"{root}: no listening test in configs/*.yaml")
    return pages


def prepare_clip(
    paths: Mapping[str, Path], align_levels: bool
) -> tuple[dict[str, Samples], dict[str, float]]:
    """The files of one page: ``reference``, anchors and codecs, and the gain of each in dB.

    All are at 48 kHz and as long as the original. One gain, common to all, brings the reference
    to :data:`REFERENCE_DBFS`, or as near as no file clips. Anchors get no gain of their own.

    Args:
        paths: audio files by codec; :data:`ORIGINAL` among them.
        align_levels: whether codecs get one, see :class:`MushraConfig`.
    """
    reference = load_audio(paths[ORIGINAL], SAMPLE_RATE).samples
    signals = {"reference": reference}
    signals |= {name: low_pass(reference, edge) for name, edge in ANCHORS.items()}
    gains = dict.fromkeys(signals, 1.0)
    for codec, path in paths.items():
        if codec != ORIGINAL:
            signals[codec] = fit_length(load_audio(path, SAMPLE_RATE).samples, reference.size)
            own = _rms(signals[codec])
            gains[codec] = _rms(reference) / own if align_levels and own > 0 else 1.0
    peak = max(gains[name] * float(np.abs(samples).max()) for name, samples in signals.items())
    level = _rms(reference)
    common = min(10 ** (REFERENCE_DBFS / 20) / level if level else 1.0, PEAK / max(peak, 1e-9))
    scaled = {
        name: (samples * np.float32(common * gains[name])).astype(np.float32)
        for name, samples in signals.items()
    }
    return scaled, {name: round(20 * float(np.log10(common * g)), 3) for name, g in gains.items()}


def low_pass(samples: Samples, edge: float, sample_rate: int = SAMPLE_RATE) -> Samples:
    """``samples [N]`` without what lies above ``edge`` Hz; no delay.

    A linear-phase filter: ripple below 0.01 dB up to ``edge``, attenuation above 60 dB from
    ``edge`` + 500 Hz on. BS.1534 asks for 0.1 dB, 25 dB at 500 Hz and 50 dB at 1 kHz above.
    """
    taps = _TAPS * sample_rate // SAMPLE_RATE | 1
    time = np.arange(taps) - taps // 2
    cut = 2 * (edge + TRANSITION / 2) / sample_rate
    kernel = cut * np.sinc(cut * time) * np.kaiser(taps, 5.9)
    size = 1 << (samples.size + taps).bit_length()
    spectrum = np.fft.rfft(samples.astype(np.float64), size) * np.fft.rfft(kernel, size)
    start = taps // 2
    return np.fft.irfft(spectrum, size)[start : start + samples.size].astype(np.float32)


def _check_disposable(folder: Path) -> None:
    """Raise unless replacing ``folder`` deletes nothing but a listening test."""
    if folder.is_dir():
        others = sorted({path.name for path in folder.iterdir()} - {CONFIGS_FOLDER, KEY_FILE})
        if others:
            raise InputError(
                f"{folder}: holds {others[0]}, which is no part of a listening test and would be "
                "deleted; choose another folder"
            )


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def _files(audio: Path) -> dict[str, dict[str, Path]]:
    """Audio files by codec and clip."""
    if not audio.is_dir():
        raise InputError(
            f"{audio} does not exist; give the output folder of `dualcodec-jax evaluate`, run with "
            "audio kept"
        )
    return {
        folder.name: {
            path.stem: path for path in sorted(folder.iterdir()) if path.suffix in AUDIO_SUFFIXES
        }
        for folder in sorted(audio.iterdir())
        if folder.is_dir()
    }


def _codecs(
    files: Mapping[str, Mapping[str, Path]], wanted: Sequence[str] | None, audio: Path
) -> list[str]:
    """The conditions, checked."""
    available = [codec for codec in files if codec != ORIGINAL]
    codecs = available if wanted is None else list(dict.fromkeys(wanted))
    if ORIGINAL not in files:
        raise InputError(f"{audio} has no {ORIGINAL}; evaluate it, too: it is the reference")
    if unknown := sorted(set(codecs) - set(available)):
        raise InputError(f"{audio} has no {unknown[0]}; it has {', '.join(available)}")
    limit = MAX_CONDITIONS - len(ANCHORS)
    if not 1 <= len(codecs) <= limit:
        raise InputError(f"{len(codecs)} codecs; choose 1 to {limit} of {', '.join(available)}")
    return codecs


def _usable(
    files: Mapping[str, Mapping[str, Path]], codecs: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Clips that can be used, and the others with the reason."""
    usable, left_out = [], {}
    for clip, path in files[ORIGINAL].items():
        missing = [codec for codec in codecs if clip not in files[codec]]
        if missing:
            left_out[clip] = f"{missing[0]} has no audio of it"
            continue
        samples = read_audio(path, max_seconds=None)
        seconds = samples.samples.size / samples.sample_rate
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            left_out[clip] = f"{seconds:.1f} s, not {MIN_SECONDS:g} to {MAX_SECONDS:g} s"
        elif not samples.samples.any():
            left_out[clip] = "silent"
        else:
            usable.append(clip)
    return usable, left_out


def _test(
    config: MushraConfig, resources: str, clips: Sequence[str], codecs: Sequence[str]
) -> dict[str, Any]:
    """The configuration of webMUSHRA."""
    trials = [
        {
            "type": "mushra",
            "id": clip,
            "name": "Rate the quality",
            "content": "Compare every condition with the reference.",
            "showWaveform": True,
            "enableLooping": True,
            "strict": True,
            "randomize": True,
            "showConditionNames": False,
            "reference": f"{resources}/{clip}/reference.wav",
            "createAnchor35": False,
            "createAnchor70": False,
            "stimuli": {name: f"{resources}/{clip}/{name}.wav" for name in (*ANCHORS, *codecs)},
        }
        for clip in clips
    ]
    return {
        "testname": config.title,
        "testId": config.name,
        "bufferSize": 2048,
        "stopOnErrors": True,
        "showButtonPreviousPage": True,
        "remoteService": config.remote_service,
        "pages": [
            {"type": "generic", "id": "welcome", "name": "Welcome", "content": INSTRUCTIONS},
            {
                "type": "volume",
                "id": "volume",
                "name": "Volume",
                "content": "Set a comfortable volume, and leave it so.",
                "stimulus": trials[0]["reference"],
                "defaultVolume": 0.5,
            },
            ["random", *trials],
            {
                "type": "finish",
                "name": "Thank you",
                "content": "Send your ratings with the button below.",
                "showResults": False,
                "writeResults": True,
                "questionnaire": [{"type": "text", "label": "Name or code", "name": "participant"}],
            },
        ],
    }


def _pages(entries: Sequence[Any]) -> list[dict[str, Any]]:
    """All pages, those of nested lists too."""
    pages = []
    for entry in entries:
        if isinstance(entry, list):
            pages += _pages(entry)
        elif isinstance(entry, dict):
            pages.append(entry)
    return pages


def _dump(test: dict[str, Any]) -> str:
    text: str = _yaml().safe_dump(test, sort_keys=False, allow_unicode=True, width=2**16)
    # webMUSHRA's parser takes a list in a list only where it starts on a line of its own.
    return text.replace("\n- - ", "\n-\n  - ")


def _yaml() -> Any:
    try:
        return importlib.import_module("yaml")
    except ImportError as error:
        raise InputError("writing a listening test needs PyYAML: pip install pyyaml") from error
