"""Where weights come from: a local folder, or a Hugging Face repository.

A location is a path, or ``hf://owner/name`` with an optional ``@revision``. The repositories
that DualCodec was released in are pinned to a commit, so that the same code always reads the
same weights. ``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` work as they do in
``huggingface_hub``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dualcodec_jax.errors import HubError

CODEC_REPOSITORY = "hf://amphion/dualcodec"
W2V_BERT_REPOSITORY = "hf://facebook/w2v-bert-2.0"
PINNED_REVISIONS = {
    "amphion/dualcodec": "a4243540cfb149e38c82dc80dfa5c83d5e0af2a9",
    "facebook/w2v-bert-2.0": "da985ba0987f70aaeb84a80f2851cfac8c697a7b",
}
CODEC_VARIABLE, W2V_BERT_VARIABLE = "DUALCODEC_WEIGHTS", "DUALCODEC_W2V_BERT"
CACHE_VARIABLE = "DUALCODEC_JAX_CACHE"


def codec_location(location: str | Path | None = None) -> str:
    """``location``, or ``$DUALCODEC_WEIGHTS``, or the released repository."""
    return str(location or os.environ.get(CODEC_VARIABLE) or CODEC_REPOSITORY)


def w2v_bert_location(location: str | Path | None = None) -> str:
    """``location``, or ``$DUALCODEC_W2V_BERT``, or the released repository."""
    return str(location or os.environ.get(W2V_BERT_VARIABLE) or W2V_BERT_REPOSITORY)


def cache_dir() -> Path:
    """``$DUALCODEC_JAX_CACHE``, or ``dualcodec_jax`` in the user's cache folder."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dualcodec_jax"


def is_remote(location: str | Path) -> bool:
    """Whether a location is a Hugging Face repository."""
    return str(location).startswith("hf://")


def find(location: str | Path, names: Sequence[str]) -> Path:
    """The first of ``names`` that exists at ``location``, downloaded if need be.

    A name is a file or a folder below the location; ``"."`` stands for the location itself.
    From a repository only the last name, the released file, is asked for.

    Raises:
        HubError: saying what was looked for, where, and how to get it.
    """
    if is_remote(location):
        return _download(str(location), names[-1])
    root = Path(location).expanduser()
    if root.is_file():
        return root
    for name in names:
        if name != "." and (root / name).exists():
            return root / name
    what = " or ".join(name for name in names if name != ".")
    problem = f"has no {what}" if root.is_dir() else "does not exist"
    raise HubError(
        f"{root} {problem}. Download the released files there, name another folder, or use the "
        f"default {CODEC_REPOSITORY} (see docs/weights.md)"
    )


def _download(location: str, filename: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    repository, _, revision = location.removeprefix("hf://").partition("@")
    revision = revision or PINNED_REVISIONS.get(repository, "main")
    try:
        return Path(hf_hub_download(repository, filename, revision=revision))
    except (EntryNotFoundError, HFValidationError) as error:
        if not _offline(error):
            raise HubError(f"{location} has no file {filename}: {error}") from error
        raise HubError(_offline_message(location, filename, revision)) from error
    except (HfHubHTTPError, OSError) as error:
        raise HubError(_offline_message(location, filename, revision)) from error


def _offline(error: Exception) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError

    return isinstance(error, LocalEntryNotFoundError)


def _offline_message(location: str, filename: str, revision: str) -> str:
    repository = location.removeprefix("hf://").partition("@")[0]
    variable = W2V_BERT_VARIABLE if "w2v" in repository else CODEC_VARIABLE
    return (
        f"cannot download {filename} from {location} (revision {revision}): the hub cannot be "
        "reached and the file is not in its local cache. Either set HF_ENDPOINT to a mirror, or "
        f"on a machine with a connection run `hf download {repository} {filename} --revision "
        f"{revision} --local-dir DIR`, copy DIR here and set {variable}=DIR"
    )
