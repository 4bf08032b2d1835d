"""Every recording through every system, and all that can be measured of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dualcodec_jax.audio.reader import DEFAULT_MAX_SECONDS
from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation.cache import CLIPS_FOLDER, ClipRecord, Store, folder_name
from dualcodec_jax.evaluation.clip import FAILURES, WER, ClipWork, Tools, reason
from dualcodec_jax.evaluation.codecs import Codec, CodecAbsent, open_codec
from dualcodec_jax.evaluation.codecs.original import Original
from dualcodec_jax.evaluation.codecs.registry import parse_spec
from dualcodec_jax.evaluation.collect import compared_codes, system_result
from dualcodec_jax.evaluation.datasets import Item
from dualcodec_jax.evaluation.environment import environment
from dualcodec_jax.evaluation.results import ORIGINAL, Results, SystemResult

if TYPE_CHECKING:
    from dualcodec_jax.evaluation.metrics.base import Metric
    from dualcodec_jax.evaluation.recognisers import Recogniser

RTF = "rtf"
"""Stands among names of metrics as ``wer`` does, and is always measured."""
DEFAULT_RECOGNISER = "faster-whisper"
"""For word error rates where none is named."""

Progress = Callable[[int, int, str], None]
"""Called with clips done, clips in all, and what is in work."""
Recognisers: TypeAlias = "str | Recogniser | Sequence[str | Recogniser] | None"


def evaluate(
    systems: Sequence[str | Codec],
    items: Sequence[Item],
    *,
    metrics: Sequence[str | Metric] | None = None,
    recogniser: Recognisers = None,
    output: str | Path,
    keep_audio: bool = True,
    progress: Progress | None = None,
    limit: int | None = None,
    max_seconds: float | None = DEFAULT_MAX_SECONDS,
    overwrite: bool = False,
) -> Results:
    """Measure systems on recordings; what an earlier call in ``output`` measured is kept.

    The recordings themselves are always measured too, with what needs no comparison. What cannot
    run, or would be measured twice, is listed in :attr:`Results.absent`, clips that fail in
    :attr:`Results.problems`; everything else goes on.

    Args:
        systems: codecs, or their specs (see :func:`~.codecs.open_codec`).
        items: recordings with different ids.
        metrics: names (see :data:`~.metrics.METRICS`) or objects; None: all that are installed.
            ``wer`` asks for the default recogniser, ``rtf`` changes nothing.
        recogniser: for word error rates: spec (see :func:`~.recognisers.open_recogniser`) or
            object, or several of them for several languages. None: the default one if all metrics
            or ``wer`` are asked for.
        output: folder for per-clip results, codes and audio.
        keep_audio: keep what was decoded as ``audio/SYSTEM/CLIP.flac``.
        progress: called before every clip and at the end.
        limit: use so many of the items, evenly spread over their order.
        max_seconds: longer recordings fail; None lifts the limit.
        overwrite: measure all again.

    Raises:
        InputError: no items or systems, a spec or metric that does not exist, a limit that is not
            positive, or an output folder that holds something else.
    """
    if max_seconds is not None and not max_seconds > 0:
        raise InputError(f"max_seconds must be positive or None; got {max_seconds!r}")
    if not items or not systems:
        raise InputError("nothing to evaluate: give at least one system and one recording")
    if len({item.id for item in items}) != len(items):
        raise InputError("two recordings have the same id; load them with one load_items call")
    for system in systems:
        if isinstance(system, str):
            parse_spec(system)
    absent: dict[str, str] = {}
    tools = Tools(
        metrics=_opened_metrics(metrics, absent),
        recognisers=_opened_recognisers(recogniser, metrics, absent),
        absent=absent,
        max_seconds=max_seconds,
    )
    chosen = spread(items, limit)
    _note_languages(chosen, tools)
    folder = check_output(output, overwrite=overwrite)
    # First of all: by it a run that was killed during its first clip knows the folder again.
    (folder / CLIPS_FOLDER).mkdir(parents=True, exist_ok=True)
    run = _Run(folder, chosen, tools, keep_audio, overwrite)
    return run.run(systems, progress or (lambda done, total, what: None))


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """``limit`` of the items, evenly spread, so that all speakers of a sorted list have a chance.

    Raises:
        InputError: the limit is not positive.
    """
    if limit is None or limit >= len(items):
        return list(items)
    if limit < 1:
        raise InputError(f"the limit must be at least 1; got {limit}")
    return [items[index * len(items) // limit] for index in range(limit)]


def check_output(output: str | Path, *, overwrite: bool) -> Path:
    """The folder, if it is new, empty, or that of an earlier evaluation.

    Raises:
        InputError: it is something else.
    """
    path = Path(output)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is not a folder; name a folder for the results")
    ours = overwrite or not path.is_dir() or (path / CLIPS_FOLDER).is_dir()
    if not ours and any(path.iterdir()):
        raise InputError(
            f"{path}: holds other files; name another folder, or pass overwrite=True "
            "(--overwrite on the command line) to write among them"
        )
    return path


class _Run:
    """One call of :func:`evaluate`."""

    def __init__(
        self, output: Path, items: Sequence[Item], tools: Tools, keep_audio: bool, overwrite: bool
    ) -> None:
        self._output, self._items, self._tools = output, items, tools
        self._keep_audio, self._overwrite = keep_audio, overwrite
        self._infos = {metric.info.name: metric.info for metric in tools.metrics}
        self._heard: dict[str, str] = {}  # in the recordings themselves, by clip

    def run(self, systems: Sequence[str | Codec], progress: Progress) -> Results:
        """Evaluate all systems, the original first."""
        originals = [system for system in systems if _name(system) == ORIGINAL]
        others = [system for system in systems if _name(system) != ORIGINAL]
        ordered: list[str | Codec] = [*(originals[:1] or [Original()]), *others]
        total, done = len(ordered) * len(self._items), 0
        results: dict[str, SystemResult] = {}
        for system in ordered:
            progress(done, total, _name(system))
            codec = self._open(system)
            result = None
            if codec is not None and (same := results.get(codec.info.name)) is not None:
                self._tools.absent[f"duplicate {_name(system)}"] = _same_name(codec, same)
            elif codec is not None:
                advance = functools.partial(_advance, progress, done, total, codec.info.name)
                result = self._system(_name(system), codec, advance)
            if result is None:
                total -= len(self._items)
                continue
            results[result.name] = result
            done += len(self._items)
        progress(done, total, "done")
        running = {metric.info.name for metric in self._tools.metrics}
        return Results(
            systems=tuple(results.values()),
            metrics={name: _plain(info) for name, info in self._infos.items() if name in running},
            recognisers=tuple(_plain(recogniser.info) for recogniser in self._tools.recognisers),
            absent=self._tools.absent,
            compared=tuple(compared_codes(self._output, list(results.values()))),
            environment=environment(),
        )

    def _open(self, system: str | Codec) -> Codec | None:
        if not isinstance(system, str):
            return system
        try:
            return open_codec(system)
        except FAILURES as error:
            self._tools.absent[f"codec {system}"] = reason(error)
            return None

    def _system(
        self, spec: str, codec: Codec, advance: Callable[[int], None]
    ) -> SystemResult | None:
        """All clips through one codec; None if it turns out to be absent."""
        store = Store(self._output, folder_name(codec.info.name), keep_audio=self._keep_audio)
        if self._overwrite:
            store.forget()
        work = ClipWork(codec, store, self._tools, keep_audio=self._keep_audio)
        known = store.read()
        records: dict[str, ClipRecord] = {}
        for index, item in enumerate(self._items):
            advance(index)
            try:
                record, is_new = work.do(item, known.get(item.id, {}))
            except CodecAbsent as error:
                self._tools.absent[f"codec {spec}"] = reason(error)
                return None
            if is_new:
                store.append(record)
            records[item.id] = record
        if codec.info.name == ORIGINAL:
            heard = {name: record.get("values", {}).get(WER) for name, record in records.items()}
            self._heard = {name: entry["value"] for name, entry in heard.items() if entry}
        return system_result(
            spec, codec.info, store, self._items, records, self._heard, self._tools
        )


def _advance(progress: Progress, done: int, total: int, what: str, index: int) -> None:
    progress(done + index, total, what)


def _name(system: str | Codec) -> str:
    return system if isinstance(system, str) else system.info.name


def _same_name(codec: Codec, other: SystemResult) -> str:
    """Why a codec is left out: it is the other one, or only has its name."""
    if dataclasses.asdict(codec.info) == other.info:
        return f"it is {other.spec}, which is measured already"
    return f"{other.spec}, which is measured already, has its name; give one of them another"


def _plain(info: Any) -> dict[str, Any]:
    """A dataclass as JSON can hold it."""
    fields = dataclasses.asdict(info)
    return {key: list(v) if isinstance(v, tuple) else v for key, v in fields.items()}


def _opened_metrics(metrics: Sequence[str | Metric] | None, absent: dict[str, str]) -> list[Metric]:
    """Those that run, in the order asked for.

    Raises:
        InputError: there is no such metric.
    """
    from dualcodec_jax.evaluation.metrics import METRICS, open_metric

    opened: dict[str, Metric] = {}
    for metric in METRICS if metrics is None else metrics:
        if not isinstance(metric, str):
            opened[metric.info.name] = metric
        elif metric not in (WER, RTF, *opened):
            if metric not in METRICS:
                known = ", ".join((*METRICS, WER, RTF))
                raise InputError(f"unknown metric {metric!r}; use one of {known}")
            try:
                opened[metric] = open_metric(metric)
            except FAILURES as error:
                absent[f"metric {metric}"] = reason(error)
    return list(opened.values())


def _opened_recognisers(
    recognisers: Recognisers, metrics: Sequence[str | Metric] | None, absent: dict[str, str]
) -> list[Recogniser]:
    """Those that run; the default one if word errors are wanted and none was named.

    Raises:
        InputError: there is no such recogniser.
    """
    from dualcodec_jax.evaluation.recognisers import open_recogniser

    if recognisers is None:
        recognisers = [DEFAULT_RECOGNISER] if metrics is None or WER in metrics else []
    elif isinstance(recognisers, str) or not isinstance(recognisers, Sequence):
        recognisers = [recognisers]
    opened: list[Recogniser] = []
    for recogniser in recognisers:
        if not isinstance(recogniser, str):
            opened.append(recogniser)
            continue
        try:
            opened.append(open_recogniser(recogniser))
        except InputError:
            raise
        except FAILURES as error:
            absent[f"recogniser {recogniser}"] = reason(error)
    return opened


def _note_languages(items: Sequence[Item], tools: Tools) -> None:
    """Say for which languages no recogniser is there, though others are."""
    for language in sorted({item.language for item in items if item.language}):
        if tools.recognisers and tools.recogniser_for(language) is None:
            known = ", ".join(recogniser.info.name for recogniser in tools.recognisers)
            tools.absent[f"word errors of {language}"] = f"{known} does not know the language"
