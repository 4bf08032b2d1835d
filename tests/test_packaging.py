"""What a release consists of, and that the check of it finds what is wrong."""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import dualcodec_jax

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WHEEL, SDIST = "dualcodec_jax-1.2.3-py3-none-any.whl", "dualcodec_jax-1.2.3.tar.gz"
INFO = "dualcodec_jax-1.2.3.dist-info"
METADATA = """\
Metadata-Version: 2.4
Name: dualcodec-jax
Version: 1.2.3
License-Expression: MIT
License-File: LICENSE
License-File: NOTICE
Classifier: Programming Language :: Python :: 3.12
Classifier: Typing :: Typed
Requires-Python: >=3.11
Requires-Dist: jax
Requires-Dist: torch; extra == 'parity'
Description-Content-Type: text/markdown
"""


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check", ROOT / "packaging" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_sdist(folder: Path, names: set[str]) -> Path:
    path = folder / SDIST
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"dualcodec_jax-1.2.3/{name}"), io.BytesIO())
    return path


def write_wheel(folder: Path, names: set[str], metadata: str = METADATA) -> Path:
    path = folder / WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
        archive.writestr(f"{INFO}/METADATA", metadata)
    return path


def good_sdist(check: ModuleType) -> set[str]:
    return {*check.SDIST_HAS, "dualcodec_jax/model.py"} | {
        f"dualcodec_jax/{name}" for name in check.WHEEL_HAS
    }


def good_wheel(check: ModuleType) -> set[str]:
    names = {f"dualcodec_jax/{name}" for name in check.WHEEL_HAS}
    return (
        names | {f"{INFO}/licenses/{name}" for name in check.LICENSES} | {"dualcodec_jax/model.py"}
    )


# -- the check -------------------------------------------------------------------------------


def test_sound_distributions(check: ModuleType, tmp_path: Path) -> None:
    sdist = write_sdist(tmp_path, good_sdist(check))
    wheel = write_wheel(tmp_path, good_wheel(check))
    check.look_into_sdist(sdist)
    check.look_into_wheel(wheel, sdist)
    folder = check.unpack_tests(sdist, tmp_path / "tests")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {name for name in check.SDIST_HAS if name.startswith(("tests/", "pyproject"))}


@pytest.mark.parametrize(
    ("lacks", "has", "message"),
    [
        ({"tests/conftest.py"}, set(), "sdist lacks tests/conftest.py"),
        (set(), {"tests/__pycache__/a.pyc"}, "has tests/__pycache__/a.pyc, which does not belong"),
        (set(), {".venv/bin/python"}, "has .venv/bin/python, which"),
        ({"LICENSE"}, {"train.log"}, "sdist lacks LICENSE; has train.log"),
    ],
)
def test_wrong_sdists(
    check: ModuleType, tmp_path: Path, lacks: set[str], has: set[str], message: str
) -> None:
    sdist = write_sdist(tmp_path, good_sdist(check) - lacks | has)
    with pytest.raises(check.CheckFailed, match=re.escape(message)):
        check.look_into_sdist(sdist)


@pytest.mark.parametrize(
    ("lacks", "has", "message"),
    [
        ({"dualcodec_jax/py.typed"}, set(), "wheel lacks dualcodec_jax/py.typed"),
        ({"dualcodec_jax/model.py"}, set(), "wheel lacks dualcodec_jax/model.py"),
        ({"dualcodec_jax/assets/demo/model.safetensors"}, set(), "assets/demo/model.safetensors"),
        ({f"{INFO}/licenses/NOTICE"}, set(), "licenses/NOTICE"),
        (set(), {"tests/conftest.py"}, "wheel has tests/conftest.py, which does not belong there"),
    ],
)
def test_wrong_wheels(
    check: ModuleType, tmp_path: Path, lacks: set[str], has: set[str], message: str
) -> None:
    sdist = write_sdist(tmp_path, good_sdist(check))
    wheel = write_wheel(tmp_path, good_wheel(check) - lacks | has)
    with pytest.raises(check.CheckFailed, match=re.escape(message)):
        check.look_into_wheel(wheel, sdist)


def test_large_wheel(check: ModuleType, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(check, "MAX_WHEEL_MEGABYTES", 1e-4)
    sdist = write_sdist(tmp_path, good_sdist(check))
    wheel = write_wheel(tmp_path, good_wheel(check))
    with pytest.raises(check.CheckFailed, match="MB, more than"):
        check.look_into_wheel(wheel, sdist)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Name: dualcodec-jax", "Name: dualcodec", "Name is dualcodec, not dualcodec-jax"),
        ("Version: 1.2.3", "Version: 1.2.4", "Version is 1.2.4, not 1.2.3"),
        ("License-Expression: MIT\n", "", "License-Expression is None, not MIT"),
        ("License-File: NOTICE\n", "", "License-File must be LICENSE and NOTICE"),
        ("Classifier: Typing :: Typed\n", "", "must name Python versions and Typing"),
        ("Requires-Dist: jax\n", "Requires-Dist: Torch>=2\n", "requires torch"),
        ("Requires-Dist: jax\n", "Requires-Dist: tensorflow[x] ; os\n", "requires tensorflow"),
    ],
)
def test_wrong_metadata(
    check: ModuleType, tmp_path: Path, old: str, new: str, message: str
) -> None:
    sdist = write_sdist(tmp_path, good_sdist(check))
    wheel = write_wheel(tmp_path, good_wheel(check), METADATA.replace(old, new, 1))
    with pytest.raises(check.CheckFailed, match=re.escape(message)):
        check.look_into_wheel(wheel, sdist)


def test_calls(check: ModuleType, tmp_path: Path, monkeypatch: Any) -> None:
    """Programs run without this machine's settings; a failure ends with what they said."""
    monkeypatch.setenv("DUALCODEC_WEIGHTS", "/mine")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    show = "import os; print([n for n in os.environ if n.startswith(('DUAL', 'PYTHONP'))])"
    assert check.call(sys.executable, "-c", show).strip() == "[]"
    with pytest.raises(check.CheckFailed, match=r"(?s)status 1.*ValueError: no good"):
        check.call(sys.executable, "-c", "raise ValueError('no good')", cwd=tmp_path)


# -- the project -----------------------------------------------------------------------------


def test_the_version_is_in_one_place() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "dualcodec_jax/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z0-9.]+)?", dualcodec_jax.__version__)
    assignments = [
        path
        for path in (ROOT / "dualcodec_jax").rglob("*.py")
        if re.search(r"^__version__ =", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert assignments == [ROOT / "dualcodec_jax" / "__init__.py"]
    assert "version" not in citation()


def test_the_core_needs_no_other_framework(check: ModuleType) -> None:
    """What is imported, too, when everything public is."""
    names = {re.split(r"[^\w-]", line)[0] for line in PROJECT["project"]["dependencies"]}
    assert not names & check.FORBIDDEN
    program = (
        "import sys, dualcodec_jax\n"
        "for name in dualcodec_jax.__all__: getattr(dualcodec_jax, name)\n"
        f"print(sorted(set(sys.modules) & {check.FORBIDDEN!r}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


def test_what_the_sdist_must_have_is_here(check: ModuleType) -> None:
    there = [name for name in check.SDIST_HAS if name != "PKG-INFO"]
    assert [name for name in there if not (ROOT / name).is_file()] == []
    assert all((ROOT / name).is_file() for name in check.TESTS)
    assert all((ROOT / "dualcodec_jax" / name).is_file() for name in check.WHEEL_HAS)


def test_the_notice_names_what_ships() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assets = {
        path.name for path in (ROOT / "dualcodec_jax" / "assets").iterdir() if path.suffix != ".md"
    }
    assert assets == {name for name in assets if f"dualcodec_jax/assets/{name}" in notice}
    binary = {".flac", ".npz", ".safetensors", ".wav", ".npy", ".woff2", ".ttf", ".mp3"}
    shipped = [
        path
        for folder in ("dualcodec_jax", "tests", "docs", "examples", "demo", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in binary
    ]
    assert shipped
    for path in shipped:
        name = path.relative_to(ROOT).as_posix()
        named = [name, name.rpartition("/")[0], f"{name.rpartition('/')[0]}/*{path.suffix}"]
        assert any(each in notice for each in named), f"NOTICE does not say where {name} is from"


# -- CITATION.cff ----------------------------------------------------------------------------


def citation() -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return value


def test_citation() -> None:
    """What the schema 1.2.0 asks for, and the paper."""
    software = citation()
    assert software["cff-version"] == "1.2.0"
    assert software["type"] == "software"
    assert software["license"] == PROJECT["project"]["license"]
    assert {"message", "title", "authors"} <= set(software)
    (paper,) = software["references"]
    assert {"type", "title", "authors"} <= set(paper)
    for entry in (software, paper):
        for author in entry["authors"]:
            assert set(author) in ({"name"}, {"family-names", "given-names"})
    assert paper["authors"][0] == {"family-names": "Li", "given-names": "Jiaqi"}
    assert len(paper["authors"]) == 8
    assert paper["conference"]["name"] == "Interspeech 2025"
    assert paper["identifiers"][0]["value"] == "arXiv:2505.13000"
    assert paper["title"].startswith("DualCodec: A Low-Frame-Rate, Semantically-Enhanced")
