"""From the lines of clips to the results of systems: word errors, codebooks, codes compared."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.evaluation.cache import ClipRecord, Store, folder_name
from dualcodec_jax.evaluation.clip import WER, Tools
from dualcodec_jax.evaluation.codecs import CodecInfo
from dualcodec_jax.evaluation.codecs.compare import count_equal
from dualcodec_jax.evaluation.datasets import Item
from dualcodec_jax.evaluation.results import (
    ORIGINAL,
    ClipResult,
    CodesCompared,
    QuantizerUse,
    SystemResult,
)

TEXT = "text"
"""A reference that came with the recording; the other kind is :data:`ORIGINAL`."""
NO_REFERENCE = "has no transcript, and the original could not be recognised to stand in for it"


def system_result(
    spec: str,
    info: CodecInfo,
    store: Store,
    items: Sequence[Item],
    records: Mapping[str, ClipRecord],
    heard: Mapping[str, str],
    tools: Tools,
) -> SystemResult:
    """What the records of one system say.

    Args:
        spec: the system, as asked for.
        info: its facts.
        store: of its files.
        items: recordings, in order.
        records: by clip.
        heard: what the recogniser heard in the recordings themselves, by clip.
        tools: what this run measures with.
    """
    clips = [clip_result(item, records[item.id], info, heard, tools) for item in items]
    coded = [clip.id for clip in clips if clip.bits is not None]
    return SystemResult(
        name=info.name,
        spec=spec,
        folder=folder_name(info.name),
        info=dataclasses.asdict(info),
        clips=tuple(clips),
        codebooks=tuple(_codebooks(store, coded, info.codebook_sizes or ())),
    )


def clip_result(
    item: Item,
    record: ClipRecord,
    info: CodecInfo,
    heard: Mapping[str, str],
    tools: Tools,
) -> ClipResult:
    """What one record says."""
    coding: Mapping[str, Any] = record.get("coding", {})
    known: Mapping[str, Any] = record.get("values", {})
    names = [metric.info.name for metric in tools.metrics]
    values = {name: known[name]["value"] for name in names if name in known}
    problems = dict(record["problems"])
    recogniser = tools.recogniser_for(item.language)
    transcript = None if recogniser is None else known.get(WER, {}).get("value")
    errors = words = reference = counted_in = None
    if recogniser is not None and transcript is not None:
        reference = ORIGINAL if item.text is None else TEXT
        expected = heard.get(item.id) if item.text is None else item.text
        if expected is None:
            problems[WER] = NO_REFERENCE
        elif not (info.name == ORIGINAL and reference == ORIGINAL):
            from dualcodec_jax.evaluation.recognisers import count_errors

            counted_in = item.language or recogniser.info.language
            counted = count_errors(expected, transcript, counted_in)
            errors, words = counted.errors, counted.words
    return ClipResult(
        id=item.id,
        language=item.language,
        seconds=coding.get("seconds"),
        bits=coding.get("bits"),
        encode_seconds=coding.get("encode_seconds"),
        decode_seconds=coding.get("decode_seconds"),
        hardware=coding.get("hardware"),
        shift=record.get("shift"),
        values=values,
        transcript=transcript,
        errors=errors,
        words=words,
        reference=reference,
        counted_in=counted_in,
        problems=problems,
    )


def compared_codes(output: Path, systems: Sequence[SystemResult]) -> list[CodesCompared]:
    """Ours against the PyTorch original wherever both ran one model with one number of codes."""
    compared = []
    for first, second in itertools.combinations(systems, 2):
        families = {system.name.partition(":")[0] for system in (first, second)}
        models = {system.name.partition(":")[2] for system in (first, second)}
        if families != {"dualcodec", "upstream"} or len(models) != 1:
            continue
        stores = [Store(output, system.folder, keep_audio=False) for system in (first, second)]
        pairs = []
        for one, other in zip(first.clips, second.clips, strict=True):
            codes = [store.read_codes(one.id) for store in stores]
            if one.bits and other.bits and codes[0] is not None and codes[1] is not None:
                pairs.append((one.id, codes[0], codes[1]))
        if pairs:
            equal = count_equal(pairs)
            compared.append(
                CodesCompared(
                    first=first.name,
                    second=second.name,
                    clips=len(pairs),
                    equal=equal.equal,
                    total=equal.total,
                )
            )
    return compared


def _codebooks(store: Store, clips: Sequence[str], sizes: Sequence[int]) -> list[QuantizerUse]:
    counts: list[NDArray[np.int64]] = [np.zeros(size, np.int64) for size in sizes]
    for clip in clips:
        codes = store.read_codes(clip)
        for count, row in zip(counts, () if codes is None else codes, strict=False):
            count += np.bincount(row, minlength=count.size)
    return [quantizer_use(count) for count in counts if count.sum()]


def quantizer_use(counts: NDArray[np.int64]) -> QuantizerUse:
    """Use of a codebook whose codes occurred ``counts [size]`` times."""
    shares = counts[counts > 0] / counts.sum()
    return QuantizerUse(
        size=counts.size,
        frames=int(counts.sum()),
        used=int(shares.size),
        entropy=float(-(shares * np.log2(shares)).sum()) + 0.0,
    )
