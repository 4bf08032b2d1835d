"""One visitor's session: what was run, and the folder of files to download."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

from dualcodec_jax.app.work import Run
from dualcodec_jax.paths import replacing

KEPT = 10
"""Runs that a session remembers, with their audio."""


@dataclasses.dataclass
class Entry:
    """A run in the history.

    Attributes:
        time: of day, as shown.
        run: what was run.
        count: codes a frame that were decoded last.
    """

    time: str
    run: Run
    count: int


class Session:
    """History, newest first; the current run is the one that is shown."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dualcodec_app_")
        self._entries: list[Entry] = []
        self.current: Entry | None = None

    def add(self, run: Run, count: int) -> Entry:
        """Remember a run and show it."""
        self.current = Entry(time.strftime("%H:%M:%S"), run, count)
        self._entries = [self.current, *self._entries][:KEPT]
        return self.current

    def show(self, index: int) -> Entry | None:
        """Make an earlier run the current one; None if there is none."""
        if 0 <= index < len(self._entries):
            self.current = self._entries[index]
            return self.current
        return None

    def rows(self) -> list[list[str]]:
        """The history as a table: time, recording, seconds, model, codes a frame, kbit/s."""
        return [
            [
                entry.time,
                entry.run.title,
                f"{entry.run.codes.seconds:.1f}",
                entry.run.model.name,
                str(entry.count),
                f"{entry.run.bitrate(entry.count) / 1000:.3f}",
            ]
            for entry in self._entries
        ]

    def code_file(self, entry: Entry) -> Path:
        """The current codes as a file to download, named after the recording."""
        path = Path(self._folder.name) / f"{Path(entry.run.title).stem}.dualcodec"
        with replacing(path, overwrite=True) as temporary:
            temporary.write_bytes(entry.run.code_file(entry.count))
        return path

    def close(self) -> None:
        """Delete the folder; the session is over."""
        self._folder.cleanup()
