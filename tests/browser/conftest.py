"""A served app, and browsers that look at it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
pytest.importorskip("selenium")

from selenium import webdriver

from dualcodec_jax.model import get_model

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app, with the demo model, the same from a folder, and one whose weights are missing."""
    folder = tmp_path_factory.mktemp("models") / "mine"
    get_model("demo").save(folder)
    missing = tmp_path_factory.mktemp("empty") / "lost"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--max-seconds", "10", "--max-megabytes", "2"]
    for place in ("demo", str(folder), str(missing)):
        options += ["--model", place]
    command = [sys.executable, "-m", "dualcodec_jax.app", *options]
    log = tmp_path_factory.mktemp("log") / "app.log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as app:
        url = f"http://127.0.0.1:{port}/"
        for _ in range(240):
            time.sleep(0.5)
            assert app.poll() is None, log.read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(url):
                break
        try:
            yield url
        finally:  # not SIGINT, which what runs in the background of a shell ignores
            app.kill()
    said = log.read_text()
    # gradio logs the requests that it refuses.
    assert said.count("Traceback") == said.count("exceptions.InvalidPathError: "), said


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open a browser of its own on an address."""
    program, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if program is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    opened = []

    def browse(url: str, *flags: str) -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = program
        home = tmp_path / f"browser{len(opened)}"
        for flag in (*FLAGS, f"--user-data-dir={home}", *flags):
            options.add_argument(flag)
        options.add_experimental_option(
            "prefs", {"download.default_directory": str(tmp_path / "downloads")}
        )
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        opened.append(browser)
        browser.set_window_size(1280, 1400)
        browser.get(url)
        return browser

    yield browse
    for browser in opened:
        browser.quit()
