"""The models that a page offers: each is loaded once, when it is first chosen, and shared."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from dualcodec_jax.container import CodeFile
from dualcodec_jax.errors import InputError
from dualcodec_jax.inference import Inference

T = TypeVar("T")


class LoadedModel:
    """A model that sessions share; nothing of theirs is kept in it.

    Attributes:
        name: as the page calls it.
        inference: encoder and decoder.
    """

    def __init__(self, name: str, inference: Inference) -> None:
        self.name, self.inference = name, inference
        self._compiled: set[Hashable] = set()
        self._computing = threading.Lock()

    @property
    def n_quantizers(self) -> int:
        """Codes per frame, at most."""
        return self.inference.config.codec.n_quantizers

    def timed(self, shape: Hashable, function: Callable[[], T]) -> tuple[T, float]:
        """What ``function`` returns, and the seconds it takes without compiling.

        The first call with a ``shape`` compiles, so the function is run once more then. One at a
        time, or sessions would slow each other's clock.
        """
        with self._computing:
            if shape not in self._compiled:
                function()
                self._compiled.add(shape)
            start = time.perf_counter()
            result = function()
            return result, time.perf_counter() - start


class Models:
    """Names and what they stand for.

    Attributes:
        names: in the order of the list on the page.
    """

    def __init__(self, places: Sequence[str], load: Callable[[str], Inference]) -> None:
        """Offer models.

        Args:
            places: model ids and folders; a page shows the folders' last parts.
            load: makes a model of a place.

        Raises:
            InputError: if two places would have one name.
        """
        self._places: dict[str, str] = {}
        for place in places:
            name = os.path.basename(os.path.normpath(place)) or place
            if self._places.setdefault(name, place) != place:
                raise InputError(
                    f"{self._places[name]} and {place} would both be called {name}; rename a folder"
                )
        self._load = load
        self._loaded: dict[str, LoadedModel] = {}
        self._locks = {name: threading.Lock() for name in self._places}

    @property
    def names(self) -> list[str]:
        """In the order in which they were given."""
        return list(self._places)

    def is_loaded(self, name: str) -> bool:
        """Whether getting it takes no time."""
        return name in self._loaded

    def get(self, name: str) -> LoadedModel:
        """Load a model, or find it loaded.

        Raises:
            InputError: if it is not among :attr:`names`.
            ConfigError, HubError, WeightsError: if it cannot be loaded.
        """
        if name not in self._places:
            raise InputError(f"there is no model {name!r} here; choose one of {self.names}")
        with self._locks[name]:
            if name not in self._loaded:
                self._loaded[name] = LoadedModel(name, self._load(self._places[name]))
            return self._loaded[name]

    def for_codes(self, codes: CodeFile, preferred: str) -> LoadedModel:
        """The model that made ``codes``: the preferred one, a loaded one, or one of that name.

        Raises:
            InputError: if there is none.
            ConfigError, HubError, WeightsError: if it cannot be loaded.
        """
        loaded = [name for name in self.names if name in self._loaded]
        for name in [preferred, *loaded]:
            if name in self._loaded and _made(self._loaded[name], codes):
                return self._loaded[name]
        if codes.model_id not in self._places:
            raise InputError(
                f"these codes were made with {codes.model_id}, which is not offered here; start "
                f"the app with --model and its name or folder"
            )
        return self.get(codes.model_id)


def _made(model: LoadedModel, codes: CodeFile) -> bool:
    config = model.inference.config
    sizes = config.codec.codebook_sizes[: codes.n_quantizers]
    return (config.model_id, sizes) == (codes.model_id, codes.codebook_sizes)
