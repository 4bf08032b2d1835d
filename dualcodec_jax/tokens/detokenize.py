"""A corpus of codes → audio files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from dualcodec_jax.errors import CodeFileError, DualCodecError, InputError
from dualcodec_jax.files import decode_file
from dualcodec_jax.inference import Inference
from dualcodec_jax.tokens.ids import target_path
from dualcodec_jax.tokens.manifest import read_manifest
from dualcodec_jax.tokens.records import TokenRecord, unpack_record
from dualcodec_jax.tokens.shards import RECORDS_SUFFIX, read_records

FORMATS = ("flac", "wav", "ogg")


@dataclasses.dataclass
class Decoded:
    """How far it is.

    Attributes:
        records: of this process.
        done: decoded, kept or failed.
        kept: files that were there already.
        failed: records that gave no file.
        audio_seconds: decoded.
    """

    records: int
    done: int = 0
    kept: int = 0
    failed: int = 0
    audio_seconds: float = 0.0


def detokenize(
    corpus: str | Path,
    output: str | Path,
    inference: Inference,
    *,
    audio_format: str = "flac",
    n_quantizers: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    on_progress: Callable[[Decoded], None] | None = None,
    on_failure: Callable[[str, DualCodecError], None] | None = None,
) -> Decoded:
    """Decode all records to files ``ID.flac`` below a folder.

    Files that are there are kept: each appears when it is complete, so that a run which was stopped
    can be started again.

    Args:
        corpus: folder of a finished corpus of codes.
        output: folder for audio files.
        inference: the model; ``decode_only`` is enough.
        audio_format: ``flac``, ``wav`` or ``ogg``.
        n_quantizers: codes per frame to decode, at most; None: all.
        process_index: which of several processes this is; it does every ``process_count``-th shard.
        process_count: how many there are.
        on_progress: told how far it is after every record.
        on_failure: told of every record that gave no file; None: the first one raises.

    Raises:
        DataError: there is no finished corpus.
        InputError: the model is another one than that of the corpus, or a setting is wrong.
    """
    corpus, output = Path(corpus), Path(output)
    if audio_format not in FORMATS:
        raise InputError(f"audio_format must be one of {', '.join(FORMATS)}; got {audio_format!r}")
    if n_quantizers is not None and n_quantizers < 1:
        raise InputError(f"n_quantizers must be at least 1; got {n_quantizers}")
    if not 0 <= process_index < process_count:
        raise InputError(f"process {process_index} of {process_count} does not exist")
    manifest = read_manifest(corpus)
    if inference.config.model_id != manifest["model_id"]:
        raise InputError(
            f"{corpus}: has codes of {manifest['model_id']}, not of {inference.config.model_id}"
        )
    shards = manifest["shards"][process_index::process_count]
    status = Decoded(records=sum(shard["records"] for shard in shards))
    for shard in shards:
        for name, record in _records(corpus / (shard["name"] + RECORDS_SUFFIX)):
            try:
                if isinstance(record, CodeFileError):
                    raise record
                target = target_path(output, record.id, audio_format)
                if target.exists():
                    status.kept += 1
                else:
                    decode_file(inference, record.file, target, n_quantizers)
                    status.audio_seconds += record.seconds
            except DualCodecError as error:
                if on_failure is None:
                    raise
                status.failed += 1
                on_failure(name, error)
            status.done += 1
            if on_progress is not None:
                on_progress(status)
    return status


def _records(path: Path) -> Iterator[tuple[str, TokenRecord | CodeFileError]]:
    for row, data in enumerate(read_records(path)):
        try:
            record = unpack_record(data)
        except CodeFileError as error:
            yield f"{path.name}, record {row}", error
        else:
            yield record.id, record
