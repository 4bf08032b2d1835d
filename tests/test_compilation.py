"""The hint on memory for training on a CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dualcodec_jax.compilation import HUGE_PAGES, huge_pages_hint


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A Linux whose programs have to ask for huge pages, and none is asked for."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path: "always [madvise] never\n")
    return monkeypatch


def test_hint_where_huge_pages_must_be_asked_for(linux: pytest.MonkeyPatch) -> None:
    assert f"GLIBC_TUNABLES={HUGE_PAGES} " in (huge_pages_hint("cpu") or "")
    linux.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    assert huge_pages_hint("cpu")


def test_no_hint_where_it_would_change_nothing(linux: pytest.MonkeyPatch) -> None:
    assert huge_pages_hint("gpu") is None
    linux.setenv("GLIBC_TUNABLES", f"glibc.malloc.check=1:{HUGE_PAGES}")
    assert huge_pages_hint("cpu") is None
    linux.delenv("GLIBC_TUNABLES")
    for mode in ("[always] madvise never\n", "always madvise [never]\n"):
        linux.setattr(Path, "read_text", lambda path, mode=mode: mode)
        assert huge_pages_hint("cpu") is None


def test_no_hint_on_other_systems(linux: pytest.MonkeyPatch) -> None:
    linux.setattr(Path, "is_file", lambda path: False)
    assert huge_pages_hint("cpu") is None
    linux.setattr(sys, "platform", "darwin")
    assert huge_pages_hint("cpu") is None
