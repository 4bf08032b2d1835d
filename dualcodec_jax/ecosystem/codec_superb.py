"""DualCodec with the interface of Codec-SUPERB's codecs.

Source: ``BaseCodec``, ``ExtractedUnit`` and ``BatchExtractedUnit`` in
``SoundCodec/base_codec/general.py`` of github.com/voidful/Codec-SUPERB, commit cfccafc of
2026-05-05. Neither that package nor torch is needed. What differs:

* units are numpy arrays instead of torch tensors;
* the audio of a clip is as long as the clip; nothing of its end is lost;
* ``extract_unit`` resamples where needed, which there only ``synth`` does, with librosa;
* ``synth`` puts the units into ``data["unit"]``, as their guide for contributors asks;
* ``batch_synth`` gives for each clip what ``synth`` gives; theirs stays at the codec's rate;
* a two-dimensional array is mixed to mono.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualcodec_jax.audio.reader import read_audio
from dualcodec_jax.audio.resample import resample_clip
from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.errors import InputError
from dualcodec_jax.inference import Inference

Data = dict[str, Any]
"""A clip. ``audio`` is a path, a dict with ``array`` ``[N]`` and ``sampling_rate``, or one with
``path``; ``id`` names the file that is saved."""


@dataclasses.dataclass(frozen=True)
class Coded:
    """What ``decode_unit`` takes.

    Attributes:
        codes: int32 ``[n, T]``, row 0 semantic.
        num_samples: of the clip, at the codec's rate.
    """

    codes: np.ndarray
    num_samples: int


@dataclasses.dataclass
class ExtractedUnit:
    """Units of a clip.

    Attributes:
        unit: int32 ``[n, T]``, row 0 semantic.
        stuff_for_synth: the same for ``decode_unit``.
    """

    unit: np.ndarray
    stuff_for_synth: Coded

    def to_dict(self) -> dict[str, Any]:
        """Both by name."""
        return {"unit": self.unit, "stuff_for_synth": self.stuff_for_synth}


@dataclasses.dataclass
class BatchExtractedUnit:
    """Units of several clips, as :class:`ExtractedUnit`, each as long as its clip needs."""

    units: list[np.ndarray]
    stuff_for_synth: list[Coded]
    batch_size: int

    def to_dict(self) -> dict[str, Any]:
        """All by name."""
        return {
            "units": self.units,
            "stuff_for_synth": self.stuff_for_synth,
            "batch_size": self.batch_size,
        }


class SuperbCodec:
    """A DualCodec for Codec-SUPERB.

    Attributes:
        sampling_rate: of the audio that it codes, in Hz.
        setting: name of codec and setting, in names of saved files.
        supports_decode: True.
    """

    supports_decode = True

    def __init__(
        self, inference: Inference, n_quantizers: int | None = None, setting: str | None = None
    ) -> None:
        """Wrap a model.

        Args:
            inference: encoder and decoder.
            n_quantizers: codes per frame, the semantic one included; None: all.
            setting: None: ``dualcodec_MODEL_NQ``.

        Raises:
            InputError: if ``n_quantizers`` is out of range.
        """
        codec = inference.config.codec
        self.n_quantizers = codec.n_quantizers if n_quantizers is None else n_quantizers
        if not 1 <= self.n_quantizers <= codec.n_quantizers:
            raise InputError(f"n_quantizers must be 1…{codec.n_quantizers}; got {n_quantizers}")
        self.sampling_rate = codec.sample_rate
        self.setting = setting or f"dualcodec_{inference.config.model_id}_{self.n_quantizers}q"
        self._inference = inference

    def extract_unit(self, data: Data) -> ExtractedUnit:
        """Codes of a clip.

        Raises:
            InputError, AudioError: if there is no audio in it that can be used.
        """
        batch = self.batch_extract_unit([data])
        return ExtractedUnit(batch.units[0], batch.stuff_for_synth[0])

    def decode_unit(self, stuff_for_synth: Coded) -> np.ndarray:
        """Audio of codes, float32 ``[N]`` at :attr:`sampling_rate`.

        Raises:
            InputError: if codes lie outside their codebooks.
        """
        return self._decode([stuff_for_synth])[0]

    def synth(self, data: Data, local_save: bool = True) -> Data:
        """Encode and decode a clip.

        Args:
            data: is changed: ``unit`` gets the codes, ``audio`` what was decoded, at the clip's own
                sample rate.
            local_save: write ``reconstructed_SETTING/ID.wav``, and put ``path`` and
                ``sampling_rate`` into ``audio``; else ``array`` ``[N]`` and ``sampling_rate``.

        Returns:
            ``data``.

        Raises:
            InputError, AudioError: as :meth:`extract_unit`, or if the file cannot be written.
        """
        return self.batch_synth([data], local_save)[0]

    def batch_extract_unit(self, data_list: Sequence[Data]) -> BatchExtractedUnit:
        """Codes of clips of any lengths in one batch: each gets those that it gets alone."""
        clips = [_read(data, self.sampling_rate) for data in data_list]
        coded = self._encode([resample_clip(*clip, self.sampling_rate) for clip in clips])
        return BatchExtractedUnit([item.codes for item in coded], coded, len(coded))

    def batch_decode_unit(self, batch_extracted_unit: BatchExtractedUnit) -> list[np.ndarray]:
        """:meth:`decode_unit` for clips of any lengths in one batch."""
        return self._decode(batch_extracted_unit.stuff_for_synth)

    def batch_synth(self, data_list: Sequence[Data], local_save: bool = True) -> list[Data]:
        """:meth:`synth` for clips of any lengths in one batch."""
        clips = [_read(data, self.sampling_rate) for data in data_list]
        coded = self._encode([resample_clip(*clip, self.sampling_rate) for clip in clips])
        for data, (samples, rate), item, audio in zip(
            data_list, clips, coded, self._decode(coded), strict=True
        ):
            audio = resample_clip(audio, self.sampling_rate, rate)[: samples.size]
            data["unit"] = item.codes
            if local_save:
                path = self._path(data.get("id", uuid.uuid4()))
                write_audio(path, audio, rate)
                data["audio"] = {"path": str(path), "sampling_rate": rate}
            else:
                data["audio"] = {"array": audio, "sampling_rate": rate}
        return list(data_list)

    def is_1d(self) -> bool:
        """Whether there is one code per frame."""
        return self.n_quantizers == 1

    def _encode(self, clips: list[np.ndarray]) -> list[Coded]:
        if not clips:
            return []
        lengths = np.array([clip.size for clip in clips])
        batch = np.zeros((len(clips), 1, lengths.max()), np.float32)
        for row, clip in zip(batch, clips, strict=True):
            row[0, : clip.size] = clip
        parts = self._inference.encode(batch, self.n_quantizers, lengths=lengths, pad_end=True)
        *codes, frames = [np.asarray(part) for part in parts if part is not None]
        rows = np.concatenate(codes, axis=1)
        return [
            Coded(item[:, :count], int(size))
            for item, count, size in zip(rows, frames, lengths, strict=True)
        ]

    def _decode(self, coded: Sequence[Coded]) -> list[np.ndarray]:
        if not coded:
            return []
        frames = np.array([item.codes.shape[1] for item in coded])
        batch = np.zeros((len(coded), self.n_quantizers, frames.max()), np.int32)
        for row, item in zip(batch, coded, strict=True):
            row[:, : item.codes.shape[1]] = item.codes
        sizes = np.array([item.num_samples for item in coded])
        acoustic = batch[:, 1:] if self.n_quantizers > 1 else None
        audio, _ = self._inference.decode(
            batch[:, :1], acoustic, code_lengths=frames, num_samples=sizes
        )
        return [item[0, :size] for item, size in zip(np.asarray(audio), sizes, strict=True)]

    def _path(self, name: Any) -> Path:
        folder = Path(f"reconstructed_{self.setting}")
        path = folder / f"{name}.wav"
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"the id {name!r} would lead out of {folder}; change it")
        return path


def _read(data: Data, default_rate: int) -> tuple[np.ndarray, int]:
    """Mono float32 ``[N]`` of a clip, and its sample rate."""
    audio = data.get("audio")
    path = audio if isinstance(audio, str) else None
    if isinstance(audio, dict):
        if audio.get("array") is not None:
            rate = audio.get("sampling_rate") or default_rate
            return _mono(audio["array"]), int(rate)
        path = audio.get("path")
    if path is None:
        raise InputError("data['audio'] must be a path, or a dict with 'array' or 'path'")
    read = read_audio(path)
    return read.samples, read.sample_rate


def _mono(array: Any) -> np.ndarray:
    if hasattr(array, "detach"):  # of torch
        array = array.detach().cpu().numpy()
    samples: np.ndarray = np.asarray(array)
    if samples.dtype.kind != "f" or samples.ndim not in (1, 2) or not samples.size:
        raise InputError(
            "data['audio']['array'] must have samples [N] in floating point; got "
            f"{samples.dtype} {list(samples.shape)}"
        )
    if samples.ndim == 2:  # soundfile has channels last, torchaudio first
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    return samples.astype(np.float32)
