"""Build wheel and sdist, look into them, and try both out in new environments (``make package``).

The wheel is built from the sdist. Each is installed into a virtual environment of its own, outside
the repository; the demo runs in an empty folder, and tests of the sdist run against what was
installed. Needs the packages build and twine, and whatever index pip is set up with.
"""

from __future__ import annotations

import argparse
import email.message
import email.parser
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
NAME, PACKAGE = "dualcodec-jax", "dualcodec_jax"
MAX_WHEEL_MEGABYTES = 20.0
FORBIDDEN = {"torch", "torchaudio", "torchvision", "tensorflow", "tensorflow-cpu", "keras"}
"""Distributions that the package must not bring."""
WHEEL_HAS = (
    "py.typed",
    "assets/README.md",
    "assets/librivox.flac",
    *(
        f"assets/{part}/{name}"
        for part in ("demo", "statistics", "whisper")
        for name in ("config.json", "model.safetensors")
    ),
)
"""What the wheel must have below the package, besides its modules."""
LICENSES = ("LICENSE", "NOTICE")
SDIST_HAS = (
    *LICENSES,
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "Makefile",
    "PKG-INFO",
    "README.md",
    "convert_torch_weights.py",
    "pyproject.toml",
    "train_jax.py",
    "benchmarks/codec_speed.py",
    "configs/dualcodec_train.yaml",
    "demo/build_corpus.py",
    "docs/python.md",
    "examples/quickstart.ipynb",
    "packaging/check.py",
    "tests/conftest.py",
    "tests/data/README.md",
    "tests/golden/tiny.npz",
)
JUNK = re.compile(
    r"(^|/)(__pycache__|\.venv[^/]*|build|dist|demo_output|[^/]*\.(pyc|log|tmp))(/|$)"
)
TESTS = ("tests/test_golden.py", "tests/test_config.py", "tests/test_weights.py")
"""Run against what was installed; codes and audio of the PyTorch originals are among them."""
TEST_PACKAGES = ("hypothesis", "pytest")
FACTS = """
import importlib.metadata, json, sys
import dualcodec_jax
names = sorted(d.metadata["Name"] for d in importlib.metadata.distributions())
loaded = sorted(name for name in sys.modules if "." not in name)
print(json.dumps({"version": dualcodec_jax.__version__, "file": dualcodec_jax.__file__,
                  "distributions": names, "modules": loaded}))
"""

console = Console(highlight=False, soft_wrap=True)


class CheckFailed(Exception):
    """What is wrong with a distribution."""


def main() -> int:
    """Do all of it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist", help="default: dist/")
    output = parser.parse_args().output.resolve()
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="dualcodec-package-") as work:
            check(output, Path(work))
    except CheckFailed as failure:
        console.print(f"failed: {failure}", style="red", markup=False)
        return 1
    console.print(f"all passed in {time.monotonic() - start:.0f} s", style="green")
    return 0


def check(output: Path, work: Path) -> None:
    """Build to ``output`` and check, with temporary files in ``work``.

    Raises:
        CheckFailed: on the first thing that is wrong.
    """
    sdist, wheel = build(output)
    look_into_sdist(sdist)
    look_into_wheel(wheel, sdist)
    call(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    done("metadata are valid and README.md renders")
    tests = unpack_tests(sdist, work / "tests")
    version = version_of(wheel)
    with ThreadPoolExecutor() as pool:  # installing takes one core
        running = [
            pool.submit(check_installed, kind, archive, version, tests, work)
            for kind, archive in (("wheel", wheel), ("sdist", sdist))
        ]
    for each in running:
        each.result()


def check_installed(kind: str, archive: Path, version: str, tests: Path, work: Path) -> None:
    """Install the archive into an environment of its own, try it out, and run the tests there.

    Raises:
        CheckFailed: on the first thing that is wrong.
    """
    python = install(archive, work / kind)
    try_out(kind, python, version, work)
    call(python, "-m", "pip", "install", "-q", *TEST_PACKAGES)
    call(python.parent / "pytest", "-q", "-p", "no:cacheprovider", *TESTS, cwd=tests)
    done(f"{kind}: {', '.join(TESTS)} pass on what is installed")


def build(output: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    for old in output.glob(f"{PACKAGE}-*"):
        old.unlink()
    call(sys.executable, "-m", "build", "-q", "--outdir", output, ROOT)
    (sdist,), (wheel,) = output.glob(f"{PACKAGE}-*.tar.gz"), output.glob(f"{PACKAGE}-*.whl")
    for path in (sdist, wheel):
        done(f"built {path.name}, {path.stat().st_size / 1e6:.1f} MB")
    return sdist, wheel


def version_of(wheel: Path) -> str:
    """The version in a wheel's file name."""
    return wheel.name.split("-")[1]


def sdist_files(sdist: Path) -> set[str]:
    """Names of the files, below the folder that all are in."""
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def look_into_sdist(sdist: Path) -> None:
    """Check what the sdist has.

    Raises:
        CheckFailed: listing what is missing or does not belong there.
    """
    names = sdist_files(sdist)
    report("sdist", missing=set(SDIST_HAS) - names, foreign=filter(JUNK.search, names))
    done(f"sdist has sources, tests, docs, examples: {len(names)} files")


def look_into_wheel(wheel: Path, sdist: Path) -> None:
    """Check what the wheel has, against the sdist that it was built from.

    Raises:
        CheckFailed: listing what is missing, does not belong there, or is wrong in the metadata.
    """
    size = wheel.stat().st_size / 1e6
    if size > MAX_WHEEL_MEGABYTES:
        raise CheckFailed(f"the wheel has {size:.1f} MB, more than {MAX_WHEEL_MEGABYTES:g}")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"{PACKAGE}-{version_of(wheel)}.dist-info"
        metadata = email.parser.Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    sources = {name for name in sdist_files(sdist) if name.startswith(f"{PACKAGE}/")}
    wanted = sources | {f"{PACKAGE}/{name}" for name in WHEEL_HAS}
    wanted |= {f"{info}/licenses/{name}" for name in LICENSES}
    foreign = {name for name in names - wanted if not name.startswith(f"{info}/")}
    report("wheel", missing=wanted - names, foreign=foreign)
    done(f"wheel has all modules, py.typed, models and licences: {len(names)} files")
    look_at_metadata(metadata, version_of(wheel))


def look_at_metadata(metadata: email.message.Message, version: str) -> None:
    """Check a wheel's core metadata.

    Raises:
        CheckFailed: on a wrong or missing field, or a dependency that must not be.
    """
    for field, value in (
        ("Name", NAME),
        ("Version", version),
        ("License-Expression", "MIT"),
        ("Description-Content-Type", "text/markdown"),
    ):
        if metadata[field] != value:
            raise CheckFailed(f"metadata: {field} is {metadata[field]}, not {value}")
    if set(metadata.get_all("License-File", [])) != set(LICENSES):
        raise CheckFailed(f"metadata: License-File must be {' and '.join(LICENSES)}")
    classifiers = metadata.get_all("Classifier", [])
    python = [c for c in classifiers if c.startswith("Programming Language :: Python :: 3.")]
    if "Typing :: Typed" not in classifiers or not python or not metadata["Requires-Python"]:
        raise CheckFailed("metadata: classifiers must name Python versions and Typing :: Typed")
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    names = {normalized(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in required}
    if names & FORBIDDEN:
        raise CheckFailed(f"metadata: requires {', '.join(sorted(names & FORBIDDEN))}")


def normalized(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def unpack_tests(sdist: Path, folder: Path) -> Path:
    """The tests of the sdist and their settings, without the package."""
    with tarfile.open(sdist) as archive:
        for member in archive:
            member.name = member.name.partition("/")[2]
            if member.isfile() and member.name.startswith(("tests/", "pyproject.toml")):
                archive.extract(member, folder, filter="data")
    return folder


def install(archive: Path, environment: Path) -> Path:
    """A new virtual environment with the archive and what it depends on; its interpreter."""
    # Not copies: while another thread forks, a new program is open and cannot be run.
    venv.create(environment, with_pip=True, symlinks=True)
    python = environment / "bin" / "python"
    call(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", archive)
    return python


def try_out(kind: str, python: Path, version: str, work: Path) -> None:
    """Import, ask for the version, and run the demo in an empty folder.

    Raises:
        CheckFailed: if anything is not as it should be.
    """
    empty = work / f"empty-{kind}"
    empty.mkdir()
    facts = json.loads(call(python, "-I", "-c", FACTS, cwd=empty))
    distributions = {normalized(name) for name in facts["distributions"]}
    brought = (distributions | set(facts["modules"])) & FORBIDDEN
    if brought:
        raise CheckFailed(f"{kind}: brings {', '.join(sorted(brought))}")
    if not Path(facts["file"]).is_relative_to(python.parent.parent):
        raise CheckFailed(f"{kind}: imports {facts['file']}, which is not what was installed")
    program = python.parent / NAME
    told = call(program, "--version", cwd=empty).strip()
    if not version == facts["version"] == told:
        raise CheckFailed(f"{kind}: versions differ: {version}, {facts['version']}, {told}")
    done(f"{kind}: {len(distributions)} distributions, none of them torch or TensorFlow")
    call(program, "demo", cwd=empty)
    results = {path.name for path in (empty / "demo_output").iterdir()}
    report(f"{kind}: demo", missing={"librivox.dualcodec", "decoded_1.wav"} - results, foreign=())
    done(f"{kind}: dualcodec-jax {told}, the demo runs in an empty folder")


def call(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a program without this machine's settings of the package; what it printed.

    Raises:
        CheckFailed: with the end of its output, if it fails.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DUALCODEC_", "HF_", "PYTHON"))
    }
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | {"HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        lines = (result.stdout + result.stderr).strip().splitlines()[-30:]
        words = " ".join(map(str, command))
        raise CheckFailed(f"{words} (status {result.returncode}):\n" + "\n".join(lines))
    return result.stdout


def report(what: str, *, missing: Iterable[str], foreign: Iterable[str]) -> None:
    """Raise if there is anything in either.

    Raises:
        CheckFailed: listing it.
    """
    problems = [f"lacks {name}" for name in sorted(missing)]
    problems += [f"has {name}, which does not belong there" for name in sorted(foreign)]
    if problems:
        raise CheckFailed(f"{what} " + "; ".join(problems))


def done(text: str) -> None:
    """Say what was found to be right."""
    console.print(f"ok  {text}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
