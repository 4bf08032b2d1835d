"""Where weights are looked for: folders, variables, and a hub on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dualcodec_jax import hub
from dualcodec_jax.convert.files import GENERATOR_FILES, STATISTICS_FILE, W2V_BERT_FILE
from dualcodec_jax.errors import HubError
from dualcodec_jax.model import random_model
from dualcodec_jax.weights import is_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CODEC_COMMIT = "a4243540cfb149e38c82dc80dfa5c83d5e0af2a9"
W2V_BERT_COMMIT = "da985ba0987f70aaeb84a80f2851cfac8c697a7b"

# -- variables -------------------------------------------------------------------------------


def test_locations(monkeypatch):
    for location, variable, repository in (
        (hub.codec_location, "DUALCODEC_WEIGHTS", "hf://amphion/dualcodec"),
        (hub.w2v_bert_location, "DUALCODEC_W2V_BERT", "hf://facebook/w2v-bert-2.0"),
    ):
        monkeypatch.delenv(variable, raising=False)
        assert location() == repository
        assert hub.is_remote(location())
        monkeypatch.setenv(variable, "")
        assert location() == repository
        monkeypatch.setenv(variable, "/some/folder")
        assert location() == "/some/folder"
        assert not hub.is_remote(location())
        assert location(Path("given")) == "given"


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("DUALCODEC_JAX_CACHE", raising=False)
    assert hub.cache_dir() == tmp_path / ".cache" / "dualcodec_jax"
    monkeypatch.setenv("DUALCODEC_JAX_CACHE", "")  # unset, not the current folder
    assert hub.cache_dir() == tmp_path / ".cache" / "dualcodec_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert hub.cache_dir() == Path("/xdg/dualcodec_jax")
    monkeypatch.setenv("DUALCODEC_JAX_CACHE", "~/mine")
    assert hub.cache_dir() == tmp_path / "mine"


# -- folders ---------------------------------------------------------------------------------


def test_find_in_a_folder(tmp_path, monkeypatch):
    names = ["12hz_v1", "released.safetensors"]
    (tmp_path / "released.safetensors").touch()
    assert hub.find(tmp_path, names) == tmp_path / "released.safetensors"
    (tmp_path / "12hz_v1").mkdir()
    assert hub.find(str(tmp_path), names) == tmp_path / "12hz_v1"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub.find("~", names) == tmp_path / "12hz_v1"


def test_find_a_file(tmp_path):
    (tmp_path / "mine.safetensors").touch()
    assert hub.find(tmp_path / "mine.safetensors", ["a"]) == tmp_path / "mine.safetensors"


@pytest.mark.parametrize("location", ["", "gone", "file/below", "x" * 5000, "null\0", "~nobody_/x"])
def test_find_nothing(tmp_path, monkeypatch, location):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError) as caught:
        hub.find(location, ["12hz_v1", "released.safetensors"])
    message = str(caught.value)
    problem = "does not exist" if location else "has no 12hz_v1 or released.safetensors"
    assert problem in message
    assert "Download the released files there, name another folder" in message
    assert "hf://amphion/dualcodec" in message


# -- a hub -----------------------------------------------------------------------------------


class Hub:
    """A hub on this machine.

    Attributes:
        files: (repository, revision, name) → content.
        requests: (method, repository, revision, name) of what was asked for.
        status: if not None, what every request is answered with.
        cut_at: if not None, after how many bytes every download breaks off.
    """

    def __init__(self) -> None:
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.requests: list[tuple[str, str, str, str]] = []
        self.status: int | None = None
        self.cut_at: int | None = None
        self.endpoint = ""

    def respond(self, request: http.server.BaseHTTPRequestHandler) -> None:
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", request.path)
        if match is None:
            return request.send_error(400)
        repository, revision, name = match.groups()
        self.requests.append((request.command, repository, revision, name))
        if self.status is not None:
            return request.send_error(self.status)
        content = self.files.get((repository, revision, name))
        if content is None:
            known = [key for key in self.files if key[0] == repository]
            is_revision = any(key[1] == revision for key in known)
            code = "EntryNotFound" if is_revision else "RevisionNotFound"
            request.send_response(404)
            request.send_header("X-Error-Code", code if known else "RepoNotFound")
            request.send_header("Content-Length", "0")
            return request.end_headers()
        request.send_response(200)
        request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        commit = revision if len(revision) == 40 else hashlib.sha1(revision.encode()).hexdigest()
        request.send_header("X-Repo-Commit", commit)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content[: self.cut_at])
        return None


@pytest.fixture
def fake_hub() -> Iterator[Hub]:
    fake = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.respond(self)

        do_HEAD = do_GET

        def log_message(self, *_args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


FIND = """
import json, sys, time
from dualcodec_jax import hub
from dualcodec_jax.errors import HubError
for location, names in json.loads(sys.argv[1]):
    start, answer = time.monotonic(), {}
    try:
        answer["path"] = str(hub.find(location, names))
    except HubError as error:
        answer["error"] = str(error)
    print(json.dumps(answer | {"seconds": time.monotonic() - start}), flush=True)
"""


def run(script: str, argument: Any, endpoint: str, home: Path, **variables: str) -> list[Any]:
    """Run a script with a hub's endpoint, which is read when huggingface_hub is imported.

    Returns:
        What it printed, a JSON value a line.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "DUALCODEC_")) and not name.lower().endswith("_proxy")
    }
    variables |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DUALCODEC_JAX_CACHE": str(home / "converted"),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(hub.__file__).parents[1]),
    }
    command = [sys.executable, "-c", script, json.dumps(argument)]
    done = subprocess.run(command, env=kept | variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def find_all(queries: list[Any], endpoint: str, home: Path, **variables: str) -> list[Any]:
    return run(FIND, queries, endpoint, home, **variables)


def test_released_repositories_are_pinned(fake_hub, tmp_path):
    released = {
        ("amphion/dualcodec", CODEC_COMMIT, GENERATOR_FILES["12hz_v1"]): b"generator",
        ("amphion/dualcodec", CODEC_COMMIT, STATISTICS_FILE): b"statistics",
        ("facebook/w2v-bert-2.0", W2V_BERT_COMMIT, W2V_BERT_FILE): b"w2v-bert",
    }
    fake_hub.files = dict(released)
    queries = [
        (hub.CODEC_REPOSITORY, ["12hz_v1", GENERATOR_FILES["12hz_v1"]]),
        (hub.CODEC_REPOSITORY, ["statistics", STATISTICS_FILE]),
        (hub.W2V_BERT_REPOSITORY, ["w2v_bert", W2V_BERT_FILE]),
    ]
    answers = find_all(queries, fake_hub.endpoint, tmp_path)
    assert [Path(answer["path"]).read_bytes() for answer in answers] == list(released.values())
    assert {request[1:] for request in fake_hub.requests} == set(released)
    # Again without a request, and without a connection.
    fake_hub.requests.clear()
    assert [a["path"] for a in find_all(queries, fake_hub.endpoint, tmp_path)] == [
        answer["path"] for answer in answers
    ]
    assert fake_hub.requests == []
    again = find_all(queries, nowhere(), tmp_path)
    assert [a["path"] for a in again] == [answer["path"] for answer in answers]


def test_revisions(fake_hub, tmp_path):
    """A revision replaces the pinned one; other repositories are read at ``main``."""
    fake_hub.files = {
        ("amphion/dualcodec", "v2", "a"): b"branch",
        ("amphion/dualcodec", "refs%2Fpr%2F1", "a"): b"pull request",
        ("someone/other", "main", "a"): b"main",
    }
    queries = [
        ("hf://amphion/dualcodec@v2", ["a"]),
        ("hf://amphion/dualcodec@refs/pr/1", ["a"]),
        ("hf://someone/other", ["a"]),
    ]
    answers = find_all(queries, fake_hub.endpoint, tmp_path)
    contents = [Path(answer["path"]).read_bytes() for answer in answers]
    assert contents == [b"branch", b"pull request", b"main"]
    # A branch may move, so it is looked up again, but the cached file does without.
    offline = find_all(queries[2:], nowhere(), tmp_path)
    assert offline[0]["path"] == answers[2]["path"]
    assert offline[0]["seconds"] < 5


def test_what_does_not_exist(fake_hub, tmp_path):
    fake_hub.files = {("someone/model", "main", "a.safetensors"): b""}
    answers = find_all(
        [
            ("hf://someone/model", ["b.safetensors"]),
            ("hf://someone/model@v9", ["a.safetensors"]),
            ("hf://someone/modell", ["a.safetensors"]),
            ("hf://someone/model/", ["a.safetensors"]),
            ("hf://", ["a.safetensors"]),
            ("hf://a/b/c", ["a.safetensors"]),
        ],
        fake_hub.endpoint,
        tmp_path,
    )
    expected = [
        r"hf://someone/model has no file b\.safetensors \(revision main\)",
        r"someone/model has no revision v9; name a branch, tag or commit",
        r"hf://someone/modell: there is no such repository, or it needs permission; .*hf auth",
        "hf://someone/model/: not a repository; write hf://owner/name",
        "hf://: not a repository",
        "hf://a/b/c: not a repository",
    ]
    for answer, pattern in zip(answers, expected, strict=True):
        assert re.search(pattern, answer["error"])
        assert "cannot be reached" not in answer["error"]
        assert answer["seconds"] < 5


def nowhere() -> str:
    """An endpoint that nothing listens to."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@contextlib.contextmanager
def silence() -> Iterator[str]:
    """An endpoint that accepts connections and never answers, as behind some firewalls."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_without_a_connection(tmp_path):
    """One clear error at once: huggingface_hub alone retries for half a minute or more."""
    released = GENERATOR_FILES["12hz_v1"]
    queries = [(hub.CODEC_REPOSITORY, [released]), (hub.W2V_BERT_REPOSITORY, [W2V_BERT_FILE])]
    closed, offline, proxy = (
        find_all(queries, nowhere(), tmp_path),
        find_all(queries, nowhere(), tmp_path, HF_HUB_OFFLINE="1"),
        find_all(queries, "http://host.invalid", tmp_path, HTTP_PROXY=nowhere()),
    )
    with silence() as endpoint:
        silent = find_all(queries[:1], endpoint, tmp_path, HF_HUB_ETAG_TIMEOUT="1")
    for codec, *w2v_bert in (closed, offline, proxy, silent):
        assert codec["seconds"] < 8
        message = codec["error"]
        assert message.startswith(f"cannot download {released} from hf://amphion/dualcodec (rev")
        assert "the hub cannot be reached" in message
        assert "set HF_ENDPOINT to a mirror" in message
        assert f"--revision {CODEC_COMMIT} --local-dir DIR`" in message
        assert "set DUALCODEC_WEIGHTS=DIR" in message
        assert all("set DUALCODEC_W2V_BERT=DIR" in answer["error"] for answer in w2v_bert)
        assert "\n" not in message


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_hub_in_trouble(fake_hub, tmp_path, status):
    fake_hub.status = status
    (answer,) = find_all([("hf://someone/model", ["a"])], fake_hub.endpoint, tmp_path)
    assert "the hub refused" in answer["error"]
    assert str(status) in answer["error"]
    assert answer["seconds"] < 8


def test_broken_transfer(fake_hub, tmp_path):
    fake_hub.files = {("someone/model", "main", "a"): bytes(10000)}
    fake_hub.cut_at = 5000
    query = [("hf://someone/model", ["a"])]
    (answer,) = find_all(query, fake_hub.endpoint, tmp_path)
    assert "cannot download a from hf://someone/model" in answer["error"]
    assert answer["seconds"] < 8
    fake_hub.cut_at = None
    (answer,) = find_all(query, fake_hub.endpoint, tmp_path)
    assert Path(answer["path"]).read_bytes() == bytes(10000)


def test_endpoint_that_is_no_hub(fake_hub, tmp_path):
    """A captive portal, say: it answers, but not as a hub does."""
    (answer,) = find_all([("hf://someone/model", ["a"])], fake_hub.endpoint + "/x", tmp_path)
    assert "cannot download a from hf://someone/model" in answer["error"]


def test_unwritable_hub_cache(fake_hub, tmp_path):
    fake_hub.files = {("someone/model", "main", "a"): b"content"}
    (tmp_path / "file").touch()
    query = [("hf://someone/model", ["a"])]
    (answer,) = find_all(query, fake_hub.endpoint, tmp_path / "file" / "home")
    assert "Not a directory" in answer["error"]
    assert "set HF_HOME to another place" in answer["error"]


LOAD = """
import json, sys
from dualcodec_jax.convert import files
from dualcodec_jax.model import get_model
location = json.loads(sys.argv[1])
sizes = [get_model("tiny", location).num_parameters]
def refuse(*args, **kwargs):
    raise AssertionError("converted again")
files.read_file = refuse
sizes.append(get_model("tiny", location).num_parameters)
print(json.dumps(sizes))
"""


def test_model_from_a_hub(fake_hub, tmp_path):
    """Downloaded once, converted once."""
    model = random_model("tiny")
    path = model.export_torch(tmp_path / "tiny.safetensors")
    fake_hub.files = {("someone/model", COMMIT, "tiny.safetensors"): path.read_bytes()}
    home = tmp_path / "home"
    (sizes,) = run(LOAD, f"hf://someone/model@{COMMIT}", fake_hub.endpoint, home)
    assert sizes == [model.num_parameters] * 2
    assert [request[0] for request in fake_hub.requests].count("GET") == 1
    (converted,) = (home / "converted" / "weights").iterdir()
    assert is_checkpoint(converted)
