"""A shard on disk: an array_record file, maybe a Parquet file, and a sidecar that commits them.

Each file appears under its name when it is complete, the sidecar last. It has the sizes and
checksums of the others: a shard is done when its sidecar is there and they agree.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.errors import CodeFileError
from dualcodec_jax.paths import replacing
from dualcodec_jax.tokens.plan import Plan
from dualcodec_jax.tokens.records import TokenRecord, pack_record

RECORDS_SUFFIX, PARQUET_SUFFIX, INFO_SUFFIX = ".array_record", ".parquet", ".json"
ID_HASH_BYTES = 12
"""Two of 10⁸ ids have one hash with a probability of 10⁻¹³."""

# Groups of one record are what random access needs, and Grain asks for.
_WRITER_OPTIONS = "group_size:1"
_READER_OPTIONS = "readahead_buffer_size:0"
_READ_AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Broken:
    """A recording that gave no record.

    Attributes:
        index: its place in the corpus.
        id: its name, as far as known.
        reason: a sentence for the user.
    """

    index: int
    id: str
    reason: str


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """What the sidecar of a shard says.

    Attributes:
        records: number of records.
        samples: of all recordings, at the model's rate.
        frames: of all codes.
        broken: recordings without a record.
        ids: hashes of the ids, in order, base64.
        files: size in bytes and SHA-256 of each file, by name.
    """

    records: int
    samples: int
    frames: int
    broken: tuple[Broken, ...]
    ids: str
    files: dict[str, dict[str, Any]]

    def id_hashes(self) -> NDArray[Any]:
        """Hashes of the ids, ``[records]``."""
        return np.frombuffer(base64.b64decode(self.ids), np.dtype(f"V{ID_HASH_BYTES}"))


def write_shard(
    folder: Path, plan: Plan, shard: int, records: Sequence[TokenRecord], broken: Sequence[Broken]
) -> ShardInfo:
    """Write the files of a shard, read the records back, compare, and commit.

    Args:
        folder: of the run.
        plan: of the run.
        shard: its number.
        records: in order.
        broken: in order; together with ``records`` all items of the shard.

    Raises:
        DataError: a package is missing, or what was written does not read back.
        InputError: a file cannot be written.
    """
    name = plan.shard_name(shard)
    target = folder / (name + RECORDS_SUFFIX)
    packed = [pack_record(record) for record in records]
    files = {}
    with replacing(target, overwrite=True) as temporary:
        _write_records(temporary, packed)
        files[target.name] = file_facts(temporary)
    if plan.parquet:
        from dualcodec_jax.tokens.parquet import write_parquet

        target = folder / (name + PARQUET_SUFFIX)
        with replacing(target, overwrite=True) as temporary:
            write_parquet(temporary, plan, records)
            files[target.name] = file_facts(temporary)
    info = ShardInfo(
        records=len(records),
        samples=sum(record.num_samples for record in records),
        frames=sum(record.file.num_frames for record in records),
        broken=tuple(broken),
        ids=base64.b64encode(b"".join(id_hash(record.id) for record in records)).decode(),
        files=files,
    )
    with replacing(folder / (name + INFO_SUFFIX), overwrite=True) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(info)) + "\n", encoding="utf-8")
    return info


def info_path(folder: Path, plan: Plan, shard: int) -> Path:
    """Where the sidecar of a shard is."""
    return folder / (plan.shard_name(shard) + INFO_SUFFIX)


def read_info(folder: Path, plan: Plan, shard: int) -> ShardInfo | None:
    """The sidecar of a shard; None if it is missing or cannot be read."""
    try:
        text = info_path(folder, plan, shard).read_text(encoding="utf-8")
        values = json.loads(text)
        broken = tuple(Broken(**item) for item in values.pop("broken"))
        info = ShardInfo(**values, broken=broken)
        counts = (info.records, info.samples, info.frames, *(item.index for item in broken))
        if any(type(count) is not int for count in counts) or not isinstance(info.files, dict):
            return None
        return info if len(info.id_hashes()) == info.records else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def find_fault(folder: Path, plan: Plan, shard: int, *, checksums: bool = True) -> str | None:
    """What is wrong with the files of a shard, by sizes and checksums; None if nothing.

    Args:
        folder: of the run.
        plan: of the run.
        shard: its number.
        checksums: also read the files whole.
    """
    name = plan.shard_name(shard)
    info = read_info(folder, plan, shard)
    if info is None:
        there = info_path(folder, plan, shard).exists()
        return f"{name}{INFO_SUFFIX} is {'damaged' if there else 'missing'}"
    suffixes = [RECORDS_SUFFIX, PARQUET_SUFFIX] if plan.parquet else [RECORDS_SUFFIX]
    if sorted(info.files) != sorted(name + suffix for suffix in suffixes):
        return f"{name}{INFO_SUFFIX} names {sorted(info.files)}"
    for file, expected in info.files.items():
        path = folder / file
        try:
            if path.stat().st_size != expected["bytes"]:
                return f"{file} has {path.stat().st_size} bytes, not {expected['bytes']}"
            if checksums and file_facts(path) != expected:
                return f"{file} has another SHA-256 than when it was written"
        except OSError as error:
            return f"{file} cannot be read ({error.strerror or error})"
    return None


def file_facts(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(_READ_AT_ONCE):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def id_hash(name: str) -> bytes:
    """A short hash of an id."""
    data = name.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=ID_HASH_BYTES).digest()


def read_records(path: Path) -> list[bytes]:
    """All records of an array_record file.

    Raises:
        CodeFileError: it is missing or damaged.
    """
    reader = open_records(path)
    try:
        return list(reader.read_all())
    except RuntimeError as error:
        raise CodeFileError(f"{path}: damaged ({error}); copy it again") from error
    finally:
        reader.close()


def open_records(path: Path) -> Any:
    """A reader of an array_record file.

    Raises:
        CodeFileError: it is missing or damaged.
        DataError: array_record is not installed.
    """
    try:
        reader = import_array_record().ArrayRecordReader(str(path), _READER_OPTIONS)
    except RuntimeError as error:
        raise CodeFileError(f"{path}: damaged ({error}); copy it again") from error
    if not reader.ok():
        raise CodeFileError(f"{path}: is missing or no array_record file; copy it again")
    return reader


def _write_records(path: Path, records: list[bytes]) -> None:
    writer = import_array_record().ArrayRecordWriter(str(path), _WRITER_OPTIONS)
    try:
        for record in records:
            writer.write(record)
        writer.close()
    except RuntimeError as error:
        raise DataError(f"{path}: cannot be written ({error}); make room") from error
    if read_records(path) != records:
        raise DataError(f"{path}: did not read back as written; check the disk")


def import_array_record() -> Any:
    """The module for array_record files; raises :class:`DataError` if it is missing."""
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise DataError(
            f"corpora of codes need the package array-record ({error}); run pip install "
            "'dualcodec-jax[tokens]'"
        ) from error
    return array_record_module
