"""What a run will do, written down before it starts: items, shards, model, settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dualcodec_jax import __version__
from dualcodec_jax.config import DualCodecConfig, code_bits, from_dict
from dualcodec_jax.errors import ConfigError, InputError
from dualcodec_jax.paths import replacing

PLAN_FILE = "plan.json"
FORMAT = "dualcodec_jax tokens"
FORMAT_VERSION = 1
"""Version of folder and record layout that this module writes, and the only one that it reads."""

_NOT_COMPARED = ("locations", "split", "version")
"""Where the same items lie may change between runs; the digest says which they are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that the records of a run depend on.

    Attributes:
        kind: of the source.
        locations: where it was when the run began.
        split: of a TFDS data set.
        items: number of recordings.
        digest: SHA-256 of their list; see :class:`~dualcodec_jax.tokens.corpus.Corpus`.
        shard_size: items per shard; the last one has fewer.
        model_id: name of the model.
        weights: SHA-256 of its parameters; see :func:`~dualcodec_jax.weights.weights_digest`.
        codec: sizes of the model.
        n_quantizers: codes per frame.
        precision: of the computation.
        whole_seconds: longer recordings are encoded in windows.
        window_seconds: audio that w2v-BERT sees at once then; None: 30 s.
        overlap_seconds: audio that two windows share; None: a sixth of one.
        parquet: whether every shard is written as Parquet too.
        version: of dualcodec_jax when the run began.
    """

    kind: str
    locations: tuple[str, ...]
    split: str | None
    items: int
    digest: str
    shard_size: int
    model_id: str
    weights: str
    codec: DualCodecConfig
    n_quantizers: int
    precision: str
    whole_seconds: float
    window_seconds: float | None
    overlap_seconds: float | None
    parquet: bool
    version: str = __version__

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise InputError(f"shard_size must be at least 1; got {self.shard_size}")
        if not self.whole_seconds > 0:
            raise InputError(f"whole_seconds must be positive; got {self.whole_seconds}")

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.items // self.shard_size)

    def indices(self, shard: int) -> range:
        """The items of a shard."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.items))

    def shard_name(self, shard: int) -> str:
        """The name of a shard's files, without suffix."""
        return f"codes-{shard:05d}-of-{self.shards:05d}"

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Size of the codebook of each row of codes."""
        return self.codec.codebook_sizes[: self.n_quantizers]

    @property
    def bitrate(self) -> float:
        """Bits of codes per second of audio."""
        return self.codec.frame_rate * sum(code_bits(size) for size in self.codebook_sizes)


def start_plan(folder: Path, plan: Plan) -> None:
    """Write the plan of a new run, or check that the run in ``folder`` is the same.

    Raises:
        InputError: the folder has another run, saying what differs, or files that are no run.
    """
    path = folder / PLAN_FILE
    if not path.exists():
        if folder.is_dir() and any(not _is_hidden(entry) for entry in folder.iterdir()):
            # Another process may have written the plan in between.
            if not path.exists():
                raise InputError(
                    f"{folder}: is not empty and has no {PLAN_FILE}; choose a new folder with -o"
                )
        else:
            values = {"format": FORMAT, "format_version": FORMAT_VERSION, **_values(plan)}
            with replacing(path, overwrite=True) as temporary:
                temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    old, new = _values(read_plan(folder)), _values(plan)
    changed = [
        f"{name} was {_short(old[name])}, is {_short(new[name])}"
        for name in new
        if name not in _NOT_COMPARED and old[name] != new[name]
    ]
    if changed:
        raise InputError(
            f"{folder}: holds a run that differs: {'; '.join(changed)}. Give the same source, "
            "model and settings to resume it, or another folder with -o"
        )


def read_plan(folder: Path) -> Plan:
    """The plan of the run in ``folder``.

    Raises:
        InputError: there is none, or it is damaged or of another version.
    """
    path = folder / PLAN_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no {PLAN_FILE}; give a folder that dualcodec-jax tokenize wrote"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); tokenise again") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise InputError(f"{path}: is not the plan of a corpus of codes")
    version = values.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {version}, but this release reads {FORMAT_VERSION}; use the "
            "dualcodec_jax that wrote it"
        )
    try:
        codec = from_dict(DualCodecConfig, values.pop("codec"))
        return Plan(**{**values, "locations": tuple(values["locations"])}, codec=codec)
    except (ConfigError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is damaged ({error}); tokenise again") from error


def _values(plan: Plan) -> dict[str, Any]:
    """As JSON gives them back."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(plan)))
    return values


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}…"
    if isinstance(value, Mapping):
        return "another one"
    return json.dumps(value)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")
