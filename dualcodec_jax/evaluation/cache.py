"""What was computed before, in files that a killed process leaves usable.

Of every system, ``clips/SYSTEM.jsonl`` has a line for each recording done; the last one counts.
``audio/SYSTEM/CLIP.flac`` is what it decoded, ``codes/SYSTEM/CLIP.npy`` its codes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.audio.reader import read_audio
from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.errors import AudioError
from dualcodec_jax.paths import replacing

Codes = NDArray[np.int32]
Samples = NDArray[np.float32]
ClipRecord = dict[str, Any]

CLIPS_FOLDER, AUDIO_FOLDER, CODES_FOLDER = "clips", "audio", "codes"
_MAX_NAME = 48  # characters of a folder's name before the digits that tell it apart
_STEPS = 32768  # of 16-bit audio


def folder_name(name: str) -> str:
    """A folder for a system: safe everywhere, and another one for every other name.

    ``dualcodec:demo@4`` becomes ``dualcodec_demo@4``. Where more than the first colon has to
    change, digits of the name's hash follow.
    """
    plain = name.replace(":", "_", 1)
    safe = re.sub(r"[^A-Za-z0-9_.@-]+", "_", plain).strip("._")
    if safe == plain and len(safe) <= _MAX_NAME and "_" not in name.partition(":")[0]:
        return safe
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    # The end of a path says more than its beginning.
    return f"{safe[-_MAX_NAME:].lstrip('._')}-{digest}"


def file_key(path: Path) -> str:
    """Changes when a file does: size and time of the last change.

    Raises:
        AudioError: there is no such file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror})") from error
    return f"{status.st_size} {status.st_mtime_ns}"


def rounded(samples: Samples) -> Samples:
    """The samples as 16-bit audio keeps them, so that measuring later gives the same."""
    steps = np.rint(np.clip(samples, -1, 1).astype(np.float64) * _STEPS)
    return (np.minimum(steps, _STEPS - 1) / _STEPS).astype(np.float32)


def checksum(array: NDArray[Any]) -> int:
    """Of an array's values."""
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def digest(*parts: object) -> str:
    """Sixteen hexadecimal digits that change when any part does."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


class Store:
    """The files of one system.

    Args:
        root: output folder of the evaluation.
        folder: of the system.
        keep_audio: whether to keep what was decoded.
    """

    def __init__(self, root: Path, folder: str, *, keep_audio: bool) -> None:
        self._lines = root / CLIPS_FOLDER / f"{folder}.jsonl"
        self._audio = root / AUDIO_FOLDER / folder
        self._codes = root / CODES_FOLDER / folder
        self._keep_audio = keep_audio

    def forget(self) -> None:
        """Delete the lines, so that all is computed again."""
        self._lines.unlink(missing_ok=True)

    def read(self) -> dict[str, ClipRecord]:
        """The last line of every recording. A line that a kill cut short does not count."""
        records: dict[str, ClipRecord] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self._lines.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    record = json.loads(line)
                    if isinstance(record, dict) and isinstance(record.get("clip"), str):
                        records[record["clip"]] = record
        return records

    def append(self, record: ClipRecord) -> None:
        """Write the line of one recording; it is on its way to the disk on return."""
        self._lines.parent.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
        with open(self._lines, "ab+") as file:
            if file.tell() and not _ends_line(file):
                line = b"\n" + line
            file.write(line)

    def audio_path(self, clip: str) -> Path:
        """Where the decoded audio of a recording is kept."""
        return self._audio / f"{clip}.flac"

    def read_audio(self, clip: str, expected: int) -> Samples | None:
        """Decoded audio that was kept, if it was and has the expected checksum."""
        if self.audio_path(clip).is_file():
            with contextlib.suppress(AudioError):
                samples = read_audio(self.audio_path(clip), max_seconds=None).samples
                return samples if checksum(samples) == expected else None
        return None

    def write_audio(self, clip: str, samples: Samples, sample_rate: int) -> None:
        """Keep decoded audio, if it is to be kept."""
        if self._keep_audio:
            write_audio(self.audio_path(clip), samples, sample_rate)

    def read_codes(self, clip: str) -> Codes | None:
        """Codes ``[n, T]`` that were kept, if they were."""
        with contextlib.suppress(OSError, ValueError, EOFError):
            codes = np.load(self._codes / f"{clip}.npy", allow_pickle=False)
            return np.asarray(codes, np.int32)
        return None

    def write_codes(self, clip: str, codes: Codes) -> None:
        """Keep codes ``[n, T]``."""
        path = self._codes / f"{clip}.npy"
        with replacing(path, overwrite=True) as temporary, open(temporary, "wb") as file:
            np.save(file, codes, allow_pickle=False)


def _ends_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")
