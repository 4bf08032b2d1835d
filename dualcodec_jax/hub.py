"""Where weights come from: a local folder, or a Hugging Face repository.

A location is a path, ``bundled`` for what ships with this package, or ``hf://owner/name`` with an
optional ``@revision``. The repositories
that DualCodec was released in are pinned to a commit, so that the same code always reads the
same weights. ``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` work as they do in
``huggingface_hub``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
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
BUNDLED = "bundled"
BUNDLED_MODEL = "demo"
"""The generator that ships with this package, its semantic model, and the statistics of that."""


def codec_location(location: str | Path | None = None) -> str:
    """``location``, or ``$DUALCODEC_WEIGHTS``, or the released repository."""
    return str(location or os.environ.get(CODEC_VARIABLE) or CODEC_REPOSITORY)


def w2v_bert_location(location: str | Path | None = None) -> str:
    """``location``, or ``$DUALCODEC_W2V_BERT``, or the released repository."""
    return str(location or os.environ.get(W2V_BERT_VARIABLE) or W2V_BERT_REPOSITORY)


def whisper_location(location: str | Path | None = None) -> str:
    """``location``, or what ships with this package."""
    return str(location or BUNDLED)


def cache_dir() -> Path:
    """``$DUALCODEC_JAX_CACHE``, or ``dualcodec_jax`` in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return local_path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dualcodec_jax"


def local_path(location: str | Path) -> Path:
    """A location that is not remote, with ``~`` expanded."""
    if str(location) == BUNDLED:
        return Path(str(resources.files("dualcodec_jax") / "assets"))
    return Path(os.path.expanduser(location))


def is_remote(location: str | Path) -> bool:
    """Whether a location is a Hugging Face repository."""
    return str(location).startswith("hf://")


def find(location: str | Path, names: Sequence[str]) -> Path:
    """The first of ``names`` that exists at ``location``, downloaded if need be.

    A name is a file or a folder below the location; a location that is a file is returned as it
    is. From a repository only the last name, the released file, is asked for.

    Raises:
        HubError: saying what was looked for, where, and how to get it.
    """
    if is_remote(location):
        return _download(str(location), names[-1])
    root = local_path(location)
    if os.path.isfile(root):
        return root
    for name in names:
        if os.path.exists(root / name):
            return root / name
    problem = f"has no {' or '.join(names)}" if os.path.isdir(root) else "does not exist"
    raise HubError(
        f"{root} {problem}. Download the released files there, name another folder, or use the "
        f"default {CODEC_REPOSITORY} (see docs/weights.md)"
    )


def _download(location: str, filename: str) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    repository, _, revision = location.removeprefix("hf://").partition("@")
    revision = revision or PINNED_REVISIONS.get(repository, "main")
    try:
        cached = huggingface_hub.try_to_load_from_cache(repository, filename, revision=revision)
        if not isinstance(cached, str):
            # Without a connection this fails at once; hf_hub_download would retry for minutes.
            url = huggingface_hub.hf_hub_url(repository, filename, revision=revision)
            huggingface_hub.get_hf_file_metadata(url)
        return Path(huggingface_hub.hf_hub_download(repository, filename, revision=revision))
    except errors.HFValidationError as error:
        raise HubError(
            f"{location}: not a repository; write hf://owner/name or hf://owner/name@revision "
            f"({error})"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{location}: there is no such repository, or it needs permission; check the name, or "
            "log in with `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"{location}: {repository} has no revision {revision}; name a branch, tag or commit "
            f"of it: hf://{repository}@REVISION"
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise HubError(
            f"{location} has no file {filename} (revision {revision}); name the repository or "
            "folder that has it"
        ) from error
    # The rest are of the HTTP library, of the transfer library, or of the file system.
    except Exception as error:
        raise HubError(_failure(error, location, filename, revision)) from error


def _failure(error: Exception, location: str, filename: str, revision: str) -> str:
    """What to do about a download that failed for no fault of the names."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    what = f"cannot download {filename} from {location} (revision {revision})"
    detail = str(error).partition("\n")[0] or type(error).__name__
    if isinstance(error, HfHubHTTPError):
        return f"{what}: the hub refused ({detail}); try again later"
    if isinstance(error, OSError) and not isinstance(
        error, ConnectionError | TimeoutError | LocalEntryNotFoundError
    ):
        return f"{what}: {detail}; make room or set HF_HOME to another place"
    repository = location.removeprefix("hf://").partition("@")[0]
    variable = W2V_BERT_VARIABLE if "w2v" in repository else CODEC_VARIABLE
    return (
        f"{what}: the hub cannot be reached ({detail}) and its local cache lacks the file. "
        "Either set HF_ENDPOINT to a mirror, or on a machine with a connection run "
        f"`hf download {repository} {filename} --revision {revision} --local-dir DIR`, copy DIR "
        f"here and set {variable}=DIR"
    )
