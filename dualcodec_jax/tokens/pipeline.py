"""Some shards of a corpus encoded: reading, computing and writing at the same time.

Reader threads decode and resample; the calling thread forms batches and starts them on the
devices; one more thread waits for codes, packs them and writes shards.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dualcodec_jax.container import CodeFile
from dualcodec_jax.data.errors import BrokenDataError
from dualcodec_jax.data.transforms import fault
from dualcodec_jax.errors import AudioError, InputError
from dualcodec_jax.files import encode_file
from dualcodec_jax.inference import Inference
from dualcodec_jax.tokens.batches import Group, Grouper, Stacker
from dualcodec_jax.tokens.corpus import Corpus
from dualcodec_jax.tokens.encode import BatchEncoder, default_batch_seconds
from dualcodec_jax.tokens.plan import Plan
from dualcodec_jax.tokens.reading import Reader, Recording, no_samples, read_ahead
from dualcodec_jax.tokens.records import TokenRecord
from dualcodec_jax.tokens.settings import Settings, Status
from dualcodec_jax.tokens.shards import Broken, write_shard

STACKS_AHEAD = 2
"""Batches that are started before the codes of the first have been fetched."""
SHARDS_AHEAD = 2
"""Shards that may wait for others to fill a stack with."""
MAX_READERS = 32

Stack = Sequence[Group[Recording]]
Items = Iterator[tuple[Recording | Broken, float]]


class Pipeline:
    """One process at work."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        corpus: Corpus,
        inference: Inference,
        settings: Settings,
        broken: int,
        on_progress: Callable[[Status], None] | None,
        on_broken: Callable[[Broken], None] | None,
    ) -> None:
        self.status = Status()
        self._folder, self._plan, self._corpus = folder, plan, corpus
        self._inference, self._settings = inference, settings
        self._broken = broken
        self._on_progress, self._on_broken = on_progress, on_broken
        self._start = time.perf_counter()
        self._open: dict[int, _OpenShard] = {}  # touched by the writer only
        self._pending: deque[Future[None]] = deque()

    def shards(self, todo: Sequence[int]) -> None:
        """Encode and write these shards."""
        if not todo:
            return
        plan, settings = self._plan, self._settings
        self._encoder = BatchEncoder(self._inference, plan.n_quantizers)
        self._stacker: Stacker[Recording] = Stacker(self._encoder.devices)
        self.status.items = sum(len(plan.indices(shard)) for shard in todo)
        threads = settings.readers or min(MAX_READERS, os.cpu_count() or 1)
        read = Reader(self._corpus, plan.codec.sample_rate, plan.whole_seconds)
        items = read_ahead(read, (i for shard in todo for i in plan.indices(shard)), threads)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")
        try:
            finished: deque[int] = deque()
            for shard in todo:
                self._read_shard(shard, items)
                finished.append(shard)
                if len(finished) > SHARDS_AHEAD:
                    for stack in self._stacker.flush(finished.popleft()):
                        self._begin(stack)
            for stack in self._stacker.flush():
                self._begin(stack)
            self._settle(0)
        finally:
            items.close()
            self._writer.shutdown(cancel_futures=True)

    def check_broken(self, broken: int) -> None:
        """Raise if so many recordings are too many."""
        limit = self._settings.broken_limit(self._plan.items)
        if limit is not None and broken > limit:
            raise BrokenDataError(
                f"{broken} broken recordings, more than the {limit} allowed of "
                f"{self._plan.items}; replace or remove them, or raise max_broken and "
                "max_broken_fraction (--max-broken, --max-broken-fraction)"
            )

    def _read_shard(self, shard: int, items: Items) -> None:
        plan = self._plan
        seconds = self._settings.batch_seconds or default_batch_seconds()
        grouper: Grouper[Recording] = Grouper(shard, plan.codec, seconds)
        for _ in plan.indices(shard):
            start = time.perf_counter()
            item, spent = next(items)
            self.status.waited_for_readers += time.perf_counter() - start
            self.status.read += spent
            if isinstance(item, Recording) and item.long is None:
                for group in grouper.add(item):
                    self._stack(group)
                continue
            result = self._encode_long(item) if isinstance(item, Recording) else item
            if isinstance(result, Broken):
                self._count_broken(result)
            self._submit(self._write_item, shard, result)
            self._settle(STACKS_AHEAD)  # a full disk must stop the run now, not at its end
        for group in grouper.finish():
            self._stack(group)

    def _stack(self, group: Group[Recording]) -> None:
        for stack in self._stacker.add(group):
            self._begin(stack)

    def _begin(self, stack: Stack) -> None:
        """Start a batch, and have its codes written when they are there."""
        start = time.perf_counter()
        self._settle(STACKS_AHEAD - 1)
        self.status.waited_for_writer += time.perf_counter() - start
        samples = [[item.samples for item in group.items] for group in stack]
        codes = self._encoder.start(samples, stack[0].frames, stack[0].rows)
        # Of the audio only its length is needed from here on.
        rows = [
            (
                device * group.rows + row,
                group.shard,
                dataclasses.replace(item, samples=no_samples()),
            )
            for device, group in enumerate(stack)
            for row, item in enumerate(group.items)
        ]
        self._submit(self._write_rows, rows, codes)

    def _encode_long(self, item: Recording) -> TokenRecord | Broken:
        start = time.perf_counter()
        plan, record = self._plan, item.long
        if record is None:
            raise ValueError("not a long recording")
        try:
            with record.audio_path() as path:
                try:
                    codes, _ = encode_file(
                        self._inference,
                        path,
                        plan.n_quantizers,
                        whole_seconds=plan.whole_seconds,
                        window_seconds=plan.window_seconds,
                        overlap_seconds=plan.overlap_seconds,
                    )
                except AudioError as error:
                    return Broken(item.index, item.id, fault(error, path))
        except OSError as error:
            return Broken(item.index, item.id, f"cannot be read ({error.strerror or error})")
        finally:
            self.status.long += time.perf_counter() - start
        return self._record(item, codes)

    def _count_broken(self, item: Broken) -> None:
        self._broken += 1
        self.status.broken += 1
        if self._on_broken is not None:
            self._on_broken(item)
        self.check_broken(self._broken)

    # The writer's side ----------------------------------------------------------------------

    def _submit(self, work: Callable[..., None], *arguments: Any) -> None:
        self._pending.append(self._writer.submit(work, *arguments))

    def _settle(self, most: int) -> None:
        """Wait until the writer has at most so many things to do."""
        while len(self._pending) > most:
            self._pending.popleft().result()

    def _write_rows(self, rows: list[tuple[int, int, Recording]], result: jax.Array) -> None:
        """Records of some rows of a batch: (row, shard, recording)."""
        start = time.perf_counter()
        codes = self._fetch(result)
        self.status.waited_for_codes += time.perf_counter() - start
        codec = self._plan.codec
        for row, shard, item in rows:
            file = CodeFile(
                codes=codes[row, :, : self._encoder.length(item.num_samples)],
                model_id=self._plan.model_id,
                sample_rate=codec.sample_rate,
                hop_length=codec.hop_length,
                num_samples=item.num_samples,
                codebook_sizes=self._plan.codebook_sizes,
            )
            self._write_item(shard, self._record(item, file))

    def _fetch(self, result: jax.Array) -> np.ndarray:
        try:
            return np.asarray(result)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise InputError(
                "the device has not enough memory for a batch; lower batch_seconds "
                f"(--batch-seconds), now "
                f"{self._settings.batch_seconds or default_batch_seconds():g}, or whole_seconds"
            ) from error

    def _record(self, item: Recording, codes: CodeFile) -> TokenRecord:
        weights = self._plan.weights[:16]
        return TokenRecord(index=item.index, id=item.id, file=codes, weights=weights, **item.fields)

    def _write_item(self, shard: int, item: TokenRecord | Broken) -> None:
        """Note what became of an item; write its shard if that was the last."""
        start = time.perf_counter()
        opened = self._open.setdefault(shard, _OpenShard())
        if isinstance(item, Broken):
            opened.broken.append(item)
        else:
            opened.records.append(item)
            self.status.audio_seconds += item.seconds
        if len(opened.records) + len(opened.broken) == len(self._plan.indices(shard)):
            del self._open[shard]
            records = sorted(opened.records, key=lambda record: record.index)
            broken = sorted(opened.broken, key=lambda item: item.index)
            write_shard(self._folder, self._plan, shard, records, broken)
        now = time.perf_counter()
        self.status.done += 1
        self.status.write += now - start
        self.status.elapsed = now - self._start
        if self._on_progress is not None:
            self._on_progress(self.status)


@dataclasses.dataclass
class _OpenShard:
    """What there is of a shard so far."""

    records: list[TokenRecord] = dataclasses.field(default_factory=list)
    broken: list[Broken] = dataclasses.field(default_factory=list)
