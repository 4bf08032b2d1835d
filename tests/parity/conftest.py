"""Shared by the parity tests; they need torch and the upstream package (``make test-parity``).

Every measured error and every count of compared codes is printed at the end of the session.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import pytest

import dualcodec_jax
from dualcodec_jax.convert.files import GENERATOR_FILES
from dualcodec_jax.hub import CACHE_VARIABLE

if find_spec("torch"):
    import upstream
else:
    collect_ignore_glob = ["test_*.py"]

if TYPE_CHECKING:
    from upstream import CodeCounts, Release, Upstream

jax.config.update("jax_platforms", "cpu")


class Report:
    """Asserts agreement and keeps what was measured for the end of the session."""

    def __init__(self, properties: list[tuple[str, Any]]) -> None:
        self._properties = properties

    def error(self, what: str, actual: Any, expected: Any, limit: float) -> None:
        """The relative error of ``actual`` must not exceed ``limit``."""
        self.value(what, upstream.relative_error(actual, expected), limit)

    def value(self, what: str, value: float, limit: float) -> None:
        """A measured error must not exceed ``limit``."""
        # Plain numbers: processes of pytest-xdist send them to the first one.
        self._properties.append(("error", [what, float(value), float(limit)]))
        assert value <= limit, f"{what}: error {value:.2e} exceeds {limit:.0e}"

    def codes(self, model_id: str, what: str, counts: CodeCounts) -> None:
        """Codes that follow from flipped ties must be rare; what one tie explains may stand."""
        row = [counts.frames, counts.total, counts.equal, counts.ties, counts.excused]
        self._properties.append(("codes", [model_id, what, *map(int, row)]))
        assert counts.total > 0
        assert counts.ties <= 1 or counts.excused <= upstream.EXCUSED * counts.total


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    return Report(request.node.user_properties)


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder for gigabytes of weights, gone after the session, and the cache inside it."""
    with (
        tempfile.TemporaryDirectory(prefix="dualcodec-parity-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv(CACHE_VARIABLE, f"{folder}/cache")
        yield Path(folder)


@pytest.fixture(scope="session")
def release(scratch: Path) -> Release:
    """Released files with random weights; w2v-BERT with a narrow feed-forward."""
    return upstream.write_release(scratch / "release")


@pytest.fixture(scope="session", params=list(GENERATOR_FILES))
def model_id(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def original(release: Release, model_id: str) -> Iterator[Upstream]:
    """Upstream's ``Inference``, loaded from the released files."""
    yield upstream.Upstream(release, model_id)
    gc.collect()


@pytest.fixture(scope="session")
def generator(release: Release, model_id: str) -> Any:
    """Our generator, loaded from the same file."""
    return dualcodec_jax.get_model(model_id, release.dualcodec)


@pytest.fixture(scope="session")
def ours(release: Release, generator: Any) -> Iterator[Any]:
    """Our ``Inference``, loaded from the same files."""
    yield dualcodec_jax.Inference(generator, release.dualcodec, release.w2v_bert)
    jax.clear_caches()
    gc.collect()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    properties = [
        entry
        for reports in terminalreporter.stats.values()
        for entry in reports
        if getattr(entry, "when", None) == "call"
    ]
    rows = [item for entry in properties for item in entry.user_properties]
    _print_codes(terminalreporter, [row for kind, row in rows if kind == "codes"])
    _print_errors(terminalreporter, [row for kind, row in rows if kind == "error"])


def _print_codes(terminal: Any, rows: list[list[Any]]) -> None:
    if not rows:
        return
    terminal.section("codes: JAX and PyTorch")
    form = "{:<10}{:<44}{:>8}{:>9}{:>9}{:>11}{:>9}"
    terminal.write_line(
        form.format("model", "what", "frames", "codes", "equal", "tie flips", "excused")
    )
    models = sorted({row[0] for row in rows})
    for model in models:
        own = [row for row in rows if row[0] == model]
        sums = [sum(column) for column in zip(*(row[2:] for row in own), strict=True)]
        for row in [*own, [model, "all", *sums]]:
            terminal.write_line(form.format(*row))


def _print_errors(terminal: Any, rows: list[list[Any]]) -> None:
    if not rows:
        return
    terminal.section("greatest errors: JAX and PyTorch")
    form = "{:<62}{:>8}{:>10}{:>10}"
    terminal.write_line(
        form.format("what (relative unless said otherwise)", "cases", "error", "limit")
    )
    for what in dict.fromkeys(row[0] for row in rows):
        values = [row[1] for row in rows if row[0] == what]
        limit = max(row[2] for row in rows if row[0] == what)
        terminal.write_line(form.format(what, len(values), f"{max(values):.1e}", f"{limit:.0e}"))
