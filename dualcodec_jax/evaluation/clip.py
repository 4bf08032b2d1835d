"""One recording through one codec and all metrics, as far as that is not known already."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from dualcodec_jax.audio.load import load_audio
from dualcodec_jax.audio.reader import DEFAULT_MAX_SECONDS
from dualcodec_jax.audio.resample import resample_clip
from dualcodec_jax.errors import DualCodecError
from dualcodec_jax.evaluation.cache import (
    ClipRecord,
    Codes,
    Samples,
    Store,
    checksum,
    digest,
    file_key,
    rounded,
)
from dualcodec_jax.evaluation.codecs import Codec, CodecAbsent, CodecFailure, Coded
from dualcodec_jax.evaluation.codecs.base import fit_length
from dualcodec_jax.evaluation.datasets import Item
from dualcodec_jax.evaluation.environment import hardware
from dualcodec_jax.evaluation.metrics.base import PACKAGE_FAILURES, MetricAbsent
from dualcodec_jax.evaluation.recognisers import RecogniserAbsent
from dualcodec_jax.evaluation.results import ORIGINAL
from dualcodec_jax.lengths import bucket

if TYPE_CHECKING:
    from dualcodec_jax.evaluation.metrics.base import Metric
    from dualcodec_jax.evaluation.recognisers import Recogniser

COMPARISON_RATE = 24000
"""Metrics get recording and output at this rate, in Hz, whatever the codec's own is: a codec that
narrows the band is measured against the whole."""
FAILURES = (*PACKAGE_FAILURES, DualCodecError, MemoryError)
"""What programs and packages raise on opening or on one clip; the run goes on with the next."""
CODEC, WER = "codec", "wer"
"""Names of problems, and of values, beside those of metrics."""


@dataclasses.dataclass
class Tools:
    """What measures outputs.

    Attributes:
        metrics: those that run; one that turns out to be absent is taken out.
        recognisers: of speech, one a language; one that turns out to be absent is taken out.
        absent: reasons of what does not run, by kind and name.
        max_seconds: longer recordings are refused; None lifts the limit.
    """

    metrics: list[Metric]
    recognisers: list[Recogniser]
    absent: dict[str, str]
    max_seconds: float | None = DEFAULT_MAX_SECONDS

    def recogniser_for(self, language: str | None) -> Recogniser | None:
        """The one for a recording's language, the first one for a language that is not known."""
        if language is None:
            return self.recognisers[0] if self.recognisers else None
        spoken = base_language(language)
        same = (r for r in self.recognisers if base_language(r.info.language) == spoken)
        return next(same, None)


class ClipWork:
    """The work on every clip of one codec.

    Args:
        codec: under test.
        store: of its files.
        tools: what measures its output.
        keep_audio: whether the decoded audio must be in the store in the end.
    """

    def __init__(self, codec: Codec, store: Store, tools: Tools, *, keep_audio: bool) -> None:
        self._codec, self._store, self._tools = codec, store, tools
        self._keep_audio = keep_audio
        self._warm: set[tuple[int, ...]] = set()
        info = codec.info
        self._settings = digest(
            info.name, info.version, info.sample_rate, info.n_quantizers, info.codebook_sizes
        )

    def do(self, item: Item, known: ClipRecord) -> tuple[ClipRecord, bool]:
        """The record of a clip, and whether it has something new.

        Raises:
            CodecAbsent: the codec cannot run at all.
        """
        record: ClipRecord = {"clip": item.id, "problems": {}}
        try:
            key = digest(self._settings, file_key(item.path))
            old = known if known.get("coding", {}).get("key") == key else {}
            output = None
            if old and self._is_complete(item, old):
                record |= {name: old[name] for name in ("coding", "shift") if name in old}
            else:
                record["coding"], output = self._code(item, key)
            values, missing = self._known_values(item, old, key)
            record |= values
            if not missing:
                return record, output is not None
            output = self._output(item, record, output)
        except CodecAbsent:
            raise
        except FAILURES as error:
            record["problems"][CODEC] = reason(error)
            return record, True
        self._measure(item, record, missing, output)
        return record, True

    def _is_complete(self, item: Item, old: ClipRecord) -> bool:
        """Whether the files that belong to a record are there."""
        coding = old["coding"]
        if coding["codes"] is not None:
            codes = self._store.read_codes(item.id)
            if codes is None or checksum(codes) != coding["codes"]:
                return False
        return not self._keep_audio or self._store.audio_path(item.id).is_file()

    def _known_values(
        self, item: Item, old: ClipRecord, key: str
    ) -> tuple[ClipRecord, dict[str, str]]:
        """What of an old record still holds, and the keys of the values that are missing."""
        wanted = {
            metric.info.name: digest(key, metric.info.name, metric.info.version)
            for metric in self._tools.metrics
            if not (metric.info.intrusive and self._codec.info.name == ORIGINAL)
        }
        if (recogniser := self._tools.recogniser_for(item.language)) is not None:
            info = recogniser.info
            wanted[WER] = digest(key, info.name, info.version, info.language)
        # Values that this run does not ask for stay, for one that does.
        values = {
            name: value
            for name, value in old.get("values", {}).items()
            if name not in wanted or value["key"] == wanted[name]
        }
        missing = {name: value_key for name, value_key in wanted.items() if name not in values}
        return {"values": values}, missing

    def _code(self, item: Item, key: str) -> tuple[dict[str, Any], Samples]:
        """Encode and decode; keep codes and audio."""
        codec, rate = self._codec, self._codec.info.sample_rate
        samples = load_audio(item.path, rate, max_seconds=self._tools.max_seconds).samples
        coded, output, times = self._timed(samples)
        if coded.codes is not None and (shape := _shape(samples, coded.codes)) not in self._warm:
            self._warm.add(shape)  # perhaps something was compiled for this length
            coded, output, times = self._timed(samples)
        if not np.isfinite(output).all():
            raise CodecFailure(f"{codec.info.name} gives values that are not finite")
        output = rounded(output)
        self._store.write_audio(item.id, output, rate)
        if coded.codes is not None:
            self._store.write_codes(item.id, coded.codes)
        coding = {
            "key": key,
            "seconds": samples.size / rate,
            "bits": coded.num_bits,
            "encode_seconds": times[0],
            "decode_seconds": times[1],
            "hardware": hardware(),
            "audio": checksum(output),
            "codes": None if coded.codes is None else checksum(coded.codes),
        }
        return coding, output

    def _timed(self, samples: Samples) -> tuple[Coded, Samples, tuple[float, float]]:
        """The code of a clip, what is decoded from it, and the seconds that each of both took."""
        start = time.perf_counter()
        coded = self._codec.encode(samples)
        encoded = time.perf_counter()
        output = self._codec.decode(coded, samples.size)
        return coded, output, (encoded - start, time.perf_counter() - encoded)

    def _output(self, item: Item, record: ClipRecord, output: Samples | None) -> Samples:
        """What was decoded: now, or earlier and kept, or earlier and now again."""
        if output is None:
            output = self._store.read_audio(item.id, record["coding"]["audio"])
        if output is None:
            record["coding"], output = self._code(item, record["coding"]["key"])
        return output

    def _measure(
        self, item: Item, record: ClipRecord, missing: dict[str, str], output: Samples
    ) -> None:
        """Fill in missing values; what fails goes to the record's problems."""
        rate = self._codec.info.sample_rate
        pair = _Pair(item, output, rate, self._tools.max_seconds)
        for metric in list(self._tools.metrics):
            name = metric.info.name
            if name not in missing:
                continue
            try:
                original, measured = pair.aligned() if metric.info.intrusive else pair.signals()
                value = metric.measure(original, measured, COMPARISON_RATE)
            except FAILURES as error:
                if _is_absence(error):
                    self._tools.metrics.remove(metric)
                    self._tools.absent[f"metric {name}"] = reason(error)
                else:
                    record["problems"][name] = reason(error)
                continue
            if value is not None and not np.isfinite(value):
                record["problems"][name] = f"gives {value}"
                continue
            record["values"][name] = {
                "key": missing[name],
                "value": None if value is None else float(value),
            }
        if pair.shift is not None:
            record["shift"] = pair.shift
        if WER in missing:
            self._recognise(item, record, missing[WER], output)

    def _recognise(self, item: Item, record: ClipRecord, key: str, output: Samples) -> None:
        recogniser = self._tools.recogniser_for(item.language)
        if recogniser is None:
            return
        try:
            text = recogniser.transcribe(output, self._codec.info.sample_rate)
        except FAILURES as error:
            if _is_absence(error):
                self._tools.recognisers.remove(recogniser)
                self._tools.absent[f"recogniser {recogniser.info.name}"] = reason(error)
            else:
                record["problems"][WER] = reason(error)
            return
        record["values"][WER] = {"key": key, "value": text}


def _shape(samples: Samples, codes: Codes) -> tuple[int, ...]:
    """What programs compiled for padded lengths can depend on."""
    frames = codes.shape[1]  # and those that the ends of a clip and of its features add
    return bucket(samples.size), *(bucket(frames + more) for more in range(3))


class _Pair:
    """Recording and output at :data:`COMPARISON_RATE`, made when they are asked for."""

    def __init__(self, item: Item, output: Samples, rate: int, max_seconds: float | None) -> None:
        self._item, self._output, self._rate = item, output, rate
        self._max_seconds = max_seconds
        self._signals: tuple[Samples, Samples] | None = None
        self._aligned: tuple[Samples, Samples] | None = None
        self.shift: int | None = None

    def signals(self) -> tuple[Samples, Samples]:
        """Equally long, as they are."""
        if self._signals is None:
            path = self._item.path
            original = load_audio(path, COMPARISON_RATE, max_seconds=self._max_seconds).samples
            output = self._output
            if self._rate != COMPARISON_RATE:
                output = resample_clip(output, self._rate, COMPARISON_RATE)
            self._signals = original, fit_length(output, original.size)
        return self._signals

    def aligned(self) -> tuple[Samples, Samples]:
        """Without the delay of the output."""
        if self._aligned is None:
            from dualcodec_jax.evaluation.alignment import align

            original, output, shift = align(*self.signals(), COMPARISON_RATE)
            self._aligned, self.shift = (original, output), int(shift)
        return self._aligned


def base_language(language: str) -> str:
    """``zh`` of ``zh-CN``."""
    return language.lower().replace("_", "-").partition("-")[0]


def reason(error: BaseException) -> str:
    """The message of an error, in one line; its kind where the message is not written for users."""
    text = " ".join(str(error).split())
    # It may name a file whose name is not UTF-8, and goes into files that are.
    text = text.encode("utf-8", "backslashreplace").decode()
    if isinstance(error, DualCodecError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_absence(error: BaseException) -> bool:
    return isinstance(error, MetricAbsent | RecogniserAbsent)
