"""A whole model as one folder to publish: ``Inference.save_pretrained`` and ``from_pretrained``.

====================== =====================================================================
``config.json``        what the folder holds, and where the semantic model is if it does not
``README.md``          a model card
``MODEL_ID/``          the generator
``statistics/``        of the semantic features
``w2v_bert/``          or ``whisper/``: the semantic model, unless it is left out
====================== =====================================================================

The folders in it are checkpoints (:mod:`dualcodec_jax.weights`). So whatever takes a location of
weights, ``get_model(model_id, folder)`` or ``--weights`` of the command line, takes this one too.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dualcodec_jax import hub
from dualcodec_jax.config import SEMANTIC_MODELS, SemanticConfig, SemanticModel, semantic_model_of
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.ecosystem.model_card import CARD_FILE, model_card
from dualcodec_jax.errors import HubError, InputError, WeightsError
from dualcodec_jax.model import DualCodecModel, load_semantic
from dualcodec_jax.paths import replacing
from dualcodec_jax.weights import (
    CONFIG_FILE,
    TENSOR_FILE,
    Weights,
    check_tree,
    load_weights,
    save_weights,
    weights_digest,
)

if TYPE_CHECKING:
    from dualcodec_jax.inference import Inference

FORMAT = "dualcodec_jax.pretrained"
FORMAT_VERSION = 1
STATISTICS = "statistics"

_RESERVED = {STATISTICS, CONFIG_FILE, CARD_FILE, *SEMANTIC_MODELS}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

Semantic = tuple[SemanticConfig, dict[str, Any], dict[str, Any]]
"""Configuration, parameters and statistics of a semantic model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Contents:
    """What ``config.json`` says.

    Attributes:
        model_id: of the generator, and the name of its folder.
        semantic_model: kind of the semantic model, and the name of its folder; None: the codec has
            none.
        semantic_location: where it is instead; None: in the folder.
        semantic_sha256: digest of its parameters.
    """

    model_id: str
    semantic_model: SemanticModel | None = None
    semantic_location: str | None = None
    semantic_sha256: str | None = None

    def files(self, *, decode_only: bool) -> list[str]:
        """What the folder has beside ``config.json`` and the card, as far as it is needed."""
        folders = [self.model_id]
        if self.semantic_model is not None and not decode_only:
            folders.append(STATISTICS)
            if self.semantic_location is None:
                folders.append(self.semantic_model)
        return [f"{folder}/{name}" for folder in folders for name in (CONFIG_FILE, TENSOR_FILE)]


def save_pretrained(
    inference: Inference,
    folder: str | Path,
    *,
    semantic_location: str | None = None,
    quantized: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a model to a folder, which appears when it is complete.

    Args:
        inference: the model.
        folder: to write.
        semantic_location: ``hf://owner/name[@revision]``, or ``bundled`` for what ships with this
            package: leave the semantic model out and say that it is there. None: write it too
            (w2v-BERT: 1.6 GB).
        quantized: round kernels to 8 bits, for a quarter of the size.
        overwrite: replace a folder that this function wrote.

    Raises:
        InputError: if the folder exists and ``overwrite`` is not set or it holds anything else, if
            it cannot be written, or if the semantic model is not in memory (``decode_only``).
        WeightsError: if what was written does not read back bit for bit.
    """
    folder, model = Path(folder), inference.model
    if not _NAME.fullmatch(model.model_id) or model.model_id in _RESERVED:
        raise InputError(f"model_id {model.model_id!r} cannot be the name of a folder; change it")
    contents = _contents(inference, semantic_location)
    if overwrite:
        _check_disposable(folder)
    with replacing(folder, overwrite=overwrite, folder=True) as temporary:
        model.save(temporary / model.model_id, quantized=quantized)
        if contents.semantic_model is not None:
            _save_semantic(inference, contents, temporary, quantized)
        values = {"format": FORMAT, "format_version": FORMAT_VERSION}
        text = json.dumps(values | dataclasses.asdict(contents), indent=2) + "\n"
        (temporary / CONFIG_FILE).write_text(text, encoding="utf-8")
        card = model_card(model, contents.semantic_model, contents.semantic_location)
        (temporary / CARD_FILE).write_text(card, encoding="utf-8")
    return folder


def load_pretrained(
    location: str | Path,
    *,
    revision: str | None = None,
    w2v_path: str | Path | None = None,
    decode_only: bool = False,
) -> tuple[DualCodecModel, Semantic | None]:
    """Read what :func:`save_pretrained` wrote.

    Args:
        location: a folder; ``owner/name`` or ``hf://owner/name[@revision]`` on the hub.
        revision: branch, tag or commit on the hub; None: ``main``.
        w2v_path: where the semantic model is. None: in the folder; if that leaves it out,
            ``$DUALCODEC_W2V_BERT`` (for w2v-BERT), else where the folder says.
        decode_only: do not load the semantic model.

    Returns:
        The generator; configuration, parameters and statistics of the semantic model, or None.

    Raises:
        HubError: if something is not there.
        WeightsError: if it is damaged, does not fit together, or is not what was saved.
    """
    place = _place(location, revision)
    root = _download(place, decode_only) if hub.is_remote(place) else hub.local_path(place)
    contents = _read_contents(root)
    folder = root / contents.model_id
    weights = load_weights(folder, "codec")
    check_tree(weights.params, codec_shapes(weights.config), what=f"the generator in {folder}")
    model = DualCodecModel(weights.model_id, weights.config, weights.params, weights.source)
    kind = weights.config.semantic_model if weights.config.is_dual else None
    if (model.model_id, kind) != (contents.model_id, contents.semantic_model):
        raise WeightsError(
            f"{root}: {CONFIG_FILE} says {contents.model_id} with the semantic model "
            f"{contents.semantic_model}, but the generator is {model.model_id} with {kind}"
        )
    semantic = None
    if kind is not None and not decode_only:
        semantic = _load_semantic(root, contents, kind, w2v_path)
        if semantic[0].hidden_size != model.config.semantic_dim:
            raise WeightsError(
                f"{root}: the generator reads {model.config.semantic_dim} features, but the "
                f"semantic model has {semantic[0].hidden_size}"
            )
    return model, semantic


def is_pretrained(folder: Path) -> bool:
    """Whether :func:`save_pretrained` wrote ``folder``."""
    try:
        _read_contents(folder)
    except WeightsError:
        return False
    return True


def _contents(inference: Inference, semantic_location: str | None) -> _Contents:
    model_id = inference.model.model_id
    if not inference.model.config.is_dual:
        return _Contents(model_id=model_id)
    if "semantic" not in inference.params:
        raise InputError(
            "this Inference was made with decode_only=True and has no semantic model to save; load "
            "it without"
        )
    return _Contents(
        model_id=model_id,
        semantic_model=semantic_model_of(inference.config.semantic),
        semantic_location=_checked_location(semantic_location),
        semantic_sha256=weights_digest(None, inference.params["semantic"]),
    )


def _checked_location(location: str | None) -> str | None:
    """A location of a semantic model that others can use too, pinned if the release is."""
    if location is None or location == hub.BUNDLED:
        return location
    if not hub.is_remote(location):
        raise InputError(
            f"semantic_location must be hf://owner/name[@revision] or {hub.BUNDLED}, because the "
            f"folder is for others; got {location!r}. None writes the semantic model too"
        )
    repository, _, revision = location.removeprefix("hf://").partition("@")
    pinned = revision or hub.PINNED_REVISIONS.get(repository)
    return f"hf://{repository}@{pinned}" if pinned else location


def _save_semantic(
    inference: Inference, contents: _Contents, folder: Path, quantized: bool
) -> None:
    params: Any = jax.tree.map(
        np.asarray, {name: inference.params[name] for name in ("semantic", "statistics")}
    )
    statistics = Weights("statistics", STATISTICS, None, params["statistics"])
    save_weights(statistics, folder / STATISTICS)
    kind = contents.semantic_model
    if kind is not None and contents.semantic_location is None:
        weights = Weights(kind, kind, inference.config.semantic, params["semantic"])
        save_weights(weights, folder / kind, quantized=quantized)


def _check_disposable(folder: Path) -> None:
    """Raise unless replacing ``folder`` deletes nothing but what :func:`save_pretrained` wrote."""
    if not os.path.isdir(folder) or not os.listdir(folder):
        return
    try:
        contents = _read_contents(folder)
    except WeightsError as error:
        raise InputError(f"{error}; choose another folder") from error
    own = {contents.model_id, contents.semantic_model, STATISTICS, CONFIG_FILE, CARD_FILE}
    if others := sorted(set(os.listdir(folder)) - own):
        raise InputError(
            f"{folder}: holds {others[0]}, which is no part of a saved model and would be deleted; "
            "choose another folder"
        )


def _place(location: str | Path, revision: str | None) -> str:
    """A local folder, or ``hf://owner/name[@revision]``."""
    place = str(location)
    if not hub.is_remote(place):
        if os.path.isdir(hub.local_path(place)):
            return place
        if not isinstance(location, str) or not _REPOSITORY.fullmatch(place):
            raise HubError(
                f"{place}: no such folder; give one that save_pretrained wrote, or owner/name on "
                "the hub"
            )
        place = f"hf://{place}"
    if revision is None:
        return place
    if "@" in place:
        raise InputError(f"{place} has a revision already; drop it, or revision={revision!r}")
    return f"{place}@{revision}"


def _download(place: str, decode_only: bool) -> Path:
    """The folder in the hub's cache, with the files of one commit."""
    root = hub.find(place, [CONFIG_FILE]).parent
    repository, commit = place.partition("@")[0], root.name
    for name in _read_contents(root).files(decode_only=decode_only):
        hub.find(f"{repository}@{commit}", [name])
    return root


def _read_contents(root: Path) -> _Contents:
    path = root / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{root}: not a folder of save_pretrained: {error}") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise WeightsError(
            f"{root}: not a folder of save_pretrained; get_model reads checkpoints and released "
            "files"
        )
    version = values.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format version {version}, but this release reads {FORMAT_VERSION}"
        )
    names = {field.name for field in dataclasses.fields(_Contents)}
    texts = all(value is None or isinstance(value, str) for value in values.values())
    if set(values) != names or not texts or not _NAME.fullmatch(values["model_id"] or ""):
        raise WeightsError(f"{path}: is damaged, or was edited by hand")
    if values["semantic_model"] not in (None, *SEMANTIC_MODELS):
        raise WeightsError(f"{path}: unknown semantic model {values['semantic_model']!r}")
    location = values["semantic_location"]
    if location is not None and location != hub.BUNDLED and not hub.is_remote(location):
        raise WeightsError(f"{path}: {location!r} is no place for a semantic model")
    return _Contents(**values)


def _load_semantic(
    root: Path, contents: _Contents, kind: SemanticModel, w2v_path: str | Path | None
) -> Semantic:
    chosen: str | Path | None = w2v_path
    if chosen is None and contents.semantic_location is not None:
        variable = os.environ.get(hub.W2V_BERT_VARIABLE) if kind == "w2v_bert" else None
        chosen = variable or contents.semantic_location
    semantic = load_semantic(root, root if chosen is None else chosen, kind)
    if chosen is not None and weights_digest(None, semantic[1]) != contents.semantic_sha256:
        raise WeightsError(
            f"{chosen}: is not the semantic model that {root} was saved with, and would give other "
            "codes"
        )
    return semantic
