"""What the codecs that run in PyTorch share. Importing this module does not import torch."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from dualcodec_jax.evaluation.codecs.base import (
    CodecAbsent,
    CodecFailure,
    CodecInfo,
    Coded,
    Samples,
    coded_bits,
    fit_length,
)

Tensor = Any


class TorchCodec:
    """A PyTorch model as a codec, on a GPU if there is one.

    Args:
        info: with codebook sizes.
        model: moved to the device and put into evaluation mode.
        encode: waveform ``[1, 1, N]`` → codes ``[n, T]``.
        decode: codes int64 ``[n, T]`` → waveform of any shape with N' samples.
    """

    def __init__(
        self,
        info: CodecInfo,
        model: Any,
        encode: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor], Tensor],
    ) -> None:
        torch = importlib.import_module("torch")
        self.info = info
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        model.to(self._device).eval()
        self._encode, self._decode = encode, decode

    def encode(self, samples: Samples) -> Coded:
        """Codes of ``samples [N]``.

        Raises:
            CodecFailure: the model refuses the clip.
        """
        codes = self._run(self._encode, samples[None, None]).astype(np.int32)
        return Coded(codes, coded_bits(codes, self.info.codebook_sizes or ()), codes)

    def decode(self, coded: Coded, num_samples: int) -> Samples:
        """Audio of the codes."""
        audio = self._run(self._decode, coded.payload.astype(np.int64))
        return fit_length(audio.reshape(-1).astype(np.float32), num_samples)

    def _run(self, function: Callable[[Tensor], Tensor], array: np.ndarray) -> np.ndarray:
        torch = importlib.import_module("torch")
        try:
            with torch.inference_mode():
                tensor = torch.from_numpy(np.array(array)).to(self._device)
                return np.asarray(function(tensor).cpu().numpy())
        except (RuntimeError, ValueError, IndexError) as error:
            reason = str(error).partition("\n")[0][:300]
            raise CodecFailure(f"{self.info.name}: {reason}") from error


def missing_packages(*names: str) -> str | None:
    """What to install if any of the packages is not there; else None. Imports nothing."""
    missing = [name for name in names if importlib.util.find_spec(name.partition(".")[0]) is None]
    if not missing:
        return None
    return f"{' and '.join(missing)} not installed: pip install {' '.join(missing)}"


def require_packages(*names: str) -> None:
    """Raise :class:`CodecAbsent` unless all packages are installed."""
    if reason := missing_packages(*names):
        raise CodecAbsent(reason)


def count(modules: Iterable[Any]) -> int:
    """Parameters of modules, one shared by two counted once."""
    found = {id(p): p.numel() for module in modules for p in module.parameters()}
    return sum(found.values())


def fingerprint(*parts: Any) -> str:
    """Twelve hexadecimal digits that change when any parameter or buffer does.

    Args:
        parts: modules, or tensors by name.
    """
    digest = hashlib.sha256()
    for part in parts:
        tensors = part if isinstance(part, Mapping) else part.state_dict()
        for name, value in sorted(tensors.items()):
            array = np.ascontiguousarray(value.detach().cpu().numpy())
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()[:12]


def package_version(name: str) -> str:
    """Name and version of an installed distribution."""
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return name
