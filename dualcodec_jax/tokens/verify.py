"""Whether a corpus of codes is whole: everything is read, nothing is taken on trust."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.errors import CodeFileError
from dualcodec_jax.lengths import code_length, samples_to_cover
from dualcodec_jax.tokens.manifest import (
    BROKEN_FILE,
    MANIFEST_FILE,
    broken_lines,
    find_problems,
    make_manifest,
    read_manifest,
)
from dualcodec_jax.tokens.plan import Plan, read_plan
from dualcodec_jax.tokens.records import TokenRecord, unpack_record
from dualcodec_jax.tokens.shards import (
    INFO_SUFFIX,
    PARQUET_SUFFIX,
    RECORDS_SUFFIX,
    ShardInfo,
    find_fault,
    id_hash,
    read_info,
    read_records,
)

_SUFFIXES = (RECORDS_SUFFIX, PARQUET_SUFFIX, INFO_SUFFIX)


@dataclasses.dataclass
class Verdict:
    """What was found.

    Attributes:
        problems: a sentence each; empty if all is well.
        shards: of the plan.
        missing: shards that are not there.
        records: that were read.
        samples: of their recordings.
        sample_rate: of them, in Hz.
    """

    problems: list[str]
    shards: int
    sample_rate: int
    missing: int = 0
    records: int = 0
    samples: int = 0

    @property
    def hours(self) -> float:
        """Of audio."""
        return self.samples / self.sample_rate / 3600


def verify(folder: str | Path, on_shard: Callable[[int], None] | None = None) -> Verdict:
    """Read all of a corpus of codes. No model is needed.

    Checked: all shards are there, with the sizes and checksums of their sidecars; every record can
    be read; every item of the plan has one record or is listed as broken; ids are unique; codes lie
    in their codebooks and are the plan's model's; there are as many frames as the duration asks
    for; the Parquet files say the same; the manifest and the list of broken recordings agree.

    Args:
        folder: what ``tokenize`` wrote.
        on_shard: called with the number of every shard that was read.

    Raises:
        InputError: there is no plan.
        DataError: a package is missing.
    """
    folder = Path(folder)
    plan = read_plan(folder)
    verdict = Verdict([], plan.shards, plan.codec.sample_rate)
    infos: list[ShardInfo] = []
    for shard in range(plan.shards):
        info = read_info(folder, plan, shard)
        if info is None and not (folder / f"{plan.shard_name(shard)}{INFO_SUFFIX}").exists():
            verdict.missing += 1
        else:
            verdict.problems += _shard_problems(folder, plan, shard, verdict)
        if info is not None:
            infos.append(info)
        if on_shard is not None:
            on_shard(shard)
    if verdict.missing:
        verdict.problems.append(
            f"{verdict.missing} of {plan.shards} shards are missing; run dualcodec-jax tokenize "
            "again with the same options"
        )
    if len(infos) == plan.shards:
        verdict.problems += find_problems(plan, infos)
        verdict.problems += _manifest_problems(folder, plan, infos)
    expected = {plan.shard_name(s) + suffix for s in range(plan.shards) for suffix in _SUFFIXES}
    verdict.problems += [
        f"{path.name} is not of this run; remove it"
        for path in sorted(folder.glob("codes-*"))
        if path.name not in expected
    ]
    return verdict


def _shard_problems(folder: Path, plan: Plan, shard: int, verdict: Verdict) -> Iterator[str]:
    fault = find_fault(folder, plan, shard)
    if fault is not None:
        yield f"{fault}; remove the shard's {INFO_SUFFIX} file and run tokenize again"
    info = read_info(folder, plan, shard)
    name = plan.shard_name(shard)
    if info is None:
        return
    try:
        data = read_records(folder / (name + RECORDS_SUFFIX))
    except CodeFileError as error:
        yield str(error)
        return
    records = []
    for row, item in enumerate(data):
        try:
            records.append(unpack_record(item))
        except CodeFileError as error:
            yield f"{name}{RECORDS_SUFFIX}, record {row}: {error}"
    verdict.records += len(records)
    verdict.samples += sum(record.num_samples for record in records)
    for record in records:
        for problem in _record_problems(plan, record):
            yield f"{name}, {record.id}: {problem}"
    indices = [record.index for record in records]
    if indices != sorted(set(indices)):
        yield f"{name}: has an item twice, or not in order"
    have = sorted({*indices, *(item.index for item in info.broken)})
    if have != list(plan.indices(shard)):
        yield f"{name}: has {len(have)} of {len(plan.indices(shard))} items, or foreign ones"
    if b"".join(id_hash(record.id) for record in records) != info.id_hashes().tobytes():
        yield f"{name}: its ids are not those of its {INFO_SUFFIX} file"
    frames = sum(record.file.num_frames for record in records)
    samples = sum(record.num_samples for record in records)
    if (info.records, info.frames, info.samples) != (len(records), frames, samples):
        yield f"{name}: has other totals than its {INFO_SUFFIX} file"
    if plan.parquet and fault is None:
        yield from _parquet_problems(folder / (name + PARQUET_SUFFIX), records)


def _record_problems(plan: Plan, record: TokenRecord) -> Iterator[str]:
    file, codec = record.file, plan.codec
    # That codes lie in the codebooks of the file was checked when it was unpacked.
    if file.codebook_sizes != plan.codebook_sizes:
        yield f"codebooks {file.codebook_sizes}, not {plan.codebook_sizes}"
    facts = (file.model_id, file.sample_rate, file.hop_length, record.weights)
    expected = (plan.model_id, codec.sample_rate, codec.hop_length, plan.weights[:16])
    if facts != expected:
        yield f"says {facts}, not {expected}"
    frames = code_length(samples_to_cover(file.num_samples, codec), codec)
    if file.num_samples < 1 or file.num_frames != frames:
        yield f"{file.num_frames} frames for {file.num_samples} samples, not {frames}"


def _parquet_problems(path: Path, records: Sequence[TokenRecord]) -> Iterator[str]:
    from dualcodec_jax.tokens.parquet import read_parquet

    try:
        rows: list[dict[str, Any]] = read_parquet(path)
    except DataError as error:
        yield str(error)
        return
    same = len(rows) == len(records) and all(
        row["index"] == record.index and row["codes"] == record.codes.tolist()
        for row, record in zip(rows, records, strict=True)
    )
    if not same:
        yield f"{path.name}: its codes are not those of the array_record file"


def _manifest_problems(folder: Path, plan: Plan, infos: Sequence[ShardInfo]) -> Iterator[str]:
    again = "run dualcodec-jax tokenize again with the same options"
    try:
        if read_manifest(folder) != make_manifest(plan, infos):
            yield f"{MANIFEST_FILE} does not agree with the shards; {again}"
    except DataError as error:
        yield str(error)
    try:
        lines = (folder / BROKEN_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        lines = None
    if lines != broken_lines(infos):
        yield f"{BROKEN_FILE} does not agree with the shards; {again}"
