"""Inputs that lead to files, and outputs that appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dualcodec_jax.errors import AudioError, CodeFileError, InputError
from dualcodec_jax.paths import find_audio_files, find_files, replacing

# -- finding ---------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Path:
    for name in (
        "c/b/2.flac",
        "c/b/1.WAV",
        "c/a.mp3",
        "c/notes.txt",
        "c/.hidden.wav",
        "c/.git/x.wav",
        "d/b/1.wav",
        "odd[1].wav",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_text(pairs: list[tuple[Path, Path]]) -> list[tuple[str, str]]:
    return [(file.as_posix(), relative.as_posix()) for file, relative in pairs]


C_FILES = [("c/a.mp3", "a.mp3"), ("c/b/1.WAV", "b/1.WAV"), ("c/b/2.flac", "b/2.flac")]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["c"], C_FILES),
        ("c", C_FILES),
        (Path("c"), C_FILES),
        (["c/b/1.WAV", "d"], [("c/b/1.WAV", "1.WAV"), ("d/b/1.wav", "b/1.wav")]),
        (["c/notes.txt"], [("c/notes.txt", "notes.txt")]),
        (["odd[1].wav"], [("odd[1].wav", "odd[1].wav")]),
        (["c/*"], C_FILES),
        (["c/**/*.flac"], [("c/b/2.flac", "b/2.flac")]),
        (["?/b/1.wav"], [("d/b/1.wav", "d/b/1.wav")]),
        (["c/b/[0-9].*"], [("c/b/1.WAV", "1.WAV"), ("c/b/2.flac", "2.flac")]),
        (["c", "c/a.mp3", "c/**"], C_FILES),
        (["c", "c/b", "./c/../c/b/1.WAV"], C_FILES),
        (["."], [("d/b/1.wav", "d/b/1.wav"), ("odd[1].wav", "odd[1].wav")]),
    ],
)
def test_find(corpus, inputs, expected):
    found = as_text(find_audio_files(inputs))
    if inputs == ["."]:
        found = [pair for pair in found if not pair[0].startswith("c/")]
    assert found == expected


def test_find_absolute_glob(corpus):
    found = find_audio_files([corpus / "c" / "*.mp3"])
    assert found == [(corpus / "c" / "a.mp3", Path("a.mp3"))]


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([], AudioError, "no input files"),
        (["gone.wav"], AudioError, "gone.wav: no such file or folder"),
        (["null\0.wav"], AudioError, "null character"),
        (["c/*.opus"], AudioError, r"c/\*.opus: the pattern matches no files"),
        (["c/*.txt"], AudioError, "matches no files with suffix"),
        (["c/.git/sub"], AudioError, "no such file"),
        (["c", "d", "e*"], AudioError, "e\\*"),
        (["*/../d"], InputError, "'..' cannot follow a wildcard"),
        (["d", "c/b/../../d/b/1.wav", "d/b"], None, ""),
        (["c/b/1.WAV", "copy"], InputError, "c/b/1.WAV and copy/1.WAV would both become 1.WAV"),
    ],
)
def test_find_refuses(corpus, inputs, error, message):
    Path("copy").mkdir()
    Path("copy/1.WAV").touch()
    if error is None:
        assert len(find_audio_files(inputs)) == 1
        return
    with pytest.raises(error, match=message):
        find_audio_files(inputs)


def test_find_empty_folder(tmp_path):
    with pytest.raises(AudioError, match=r"no files with suffix .*\.wav.* in this folder"):
        find_audio_files([tmp_path])


def test_find_other_suffixes(corpus):
    Path("c/x.dualcodec").touch()
    assert as_text(find_files(["c"], {".dualcodec"})) == [("c/x.dualcodec", "x.dualcodec")]
    with pytest.raises(CodeFileError, match=r"\.dualcodec"):
        find_files(["d"], [".dualcodec"], error=CodeFileError)


def test_find_survives_link_loops(corpus):
    Path("c/b/loop").symlink_to(corpus / "c", target_is_directory=True)
    assert as_text(find_audio_files(["c"])) == C_FILES


# -- replacing -------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, str]:
    """Relative path → content of every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_folder(path: Path, content: str, *, overwrite: bool = True) -> None:
    with replacing(path, overwrite=overwrite, folder=True) as temporary:
        assert temporary.parent == Path(os.path.realpath(path)).parent
        assert os.listdir(temporary) == []
        (temporary / "a").write_text(content)


def test_folder_is_made_and_replaced(tmp_path):
    path = tmp_path / "deep" / "er" / "folder"
    write_folder(path, "old", overwrite=False)
    (path / "b").write_text("goes too")
    write_folder(path, "new")
    assert tree(tmp_path) == {"deep/er/folder/a": "new"}
    assert os.listdir(path.parent) == ["folder"]


def test_folder_has_the_permissions_of_any_new_folder(tmp_path):
    (tmp_path / "plain").mkdir()
    write_folder(tmp_path / "new", "")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_folder_behind_a_link(tmp_path):
    write_folder(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    write_folder(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "new"


def test_existing_is_refused_unless_overwrite(tmp_path):
    write_folder(tmp_path / "a", "old")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    for name in ("a", "dangling"):
        with pytest.raises(InputError, match=r"exists already; pass overwrite=True \(--overwrite"):
            write_folder(tmp_path / name, "new", overwrite=False)
    assert tree(tmp_path) == {"a/a": "old"}


def test_file_and_folder_do_not_replace_each_other(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="file: is not a folder"):
        write_folder(tmp_path / "file", "new")
    refusal = pytest.raises(InputError, match="folder: is a folder; give the name of a file")
    with refusal, replacing(tmp_path / "folder", overwrite=True):
        pass
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("folder", [True, False])
def test_failure_in_the_block_changes_nothing(tmp_path, error, existing, folder):
    path = tmp_path / "a"
    if existing and folder:
        write_folder(path, "old")
    elif existing:
        path.write_text("old")
    before = tree(tmp_path)
    expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
    refusal = pytest.raises(expected, match=r"a: cannot be written|^$")
    with refusal, replacing(path, overwrite=True, folder=folder) as temporary:
        (temporary / "half" if folder else temporary).write_text("half")
        raise error
    assert tree(tmp_path) == before
    assert os.listdir(tmp_path) == (["a"] if existing else [])


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", [1, 2])
def test_failing_rename_puts_the_old_folder_back(tmp_path, monkeypatch, error, failing):
    write_folder(tmp_path / "a", "old")
    replace, calls = os.replace, []

    def fail_once(source: Any, target: Any) -> None:
        calls.append((source, target))
        if len(calls) == failing:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_folder(tmp_path / "a", "new")
    assert tree(tmp_path) == {"a/a": "old"}
    assert os.listdir(tmp_path) == ["a"]


KILLED = """
import os, sys
from dualcodec_jax.paths import replacing
replace = os.replace
def replace_and_die(source, target):
    replace(source, target)
    os._exit(7)
with replacing(sys.argv[1], overwrite=True, folder=True) as temporary:
    (temporary / "a").write_text("new")
    os.replace = replace_and_die
"""


def test_killed_between_the_renames_loses_nothing(tmp_path):
    """What the documentation promises: the old folder is whole beside where it was."""
    write_folder(tmp_path / "a", "old")
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a"]).returncode == 7
    (visible,) = (name for name in os.listdir(tmp_path) if not name.startswith("."))
    assert visible.startswith("a.replaced-")
    assert tree(tmp_path / visible) == {"a": "old"}
    os.rename(tmp_path / visible, tmp_path / "a")
    write_folder(tmp_path / "a", "newer")
    assert tree(tmp_path / "a") == {"a": "newer"}


def test_unusable_places(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        for folder in (True, False):
            with (
                pytest.raises(InputError, match="cannot be written"),
                replacing(path, overwrite=True, folder=folder) as temporary,
            ):
                temporary.touch()
    assert os.listdir(tmp_path) == ["file"]
