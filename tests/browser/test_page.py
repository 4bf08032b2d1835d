"""What visitors do, in a real browser. Screenshots go to ``$SCREENSHOTS`` if that is set."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from dualcodec_jax.container import read_codes

SPEECH = Path(__file__).parent.parent.parent / "dualcodec_jax" / "assets" / "librivox.flac"
SECONDS = soundfile.info(SPEECH).duration
Browse = Callable[..., Any]

# Selenium leaves the connection to its driver open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def wait(browser: Any, condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    return WebDriverWait(browser, seconds, ignored_exceptions=[Exception]).until(
        lambda _: condition()
    )


def find(browser: Any, selector: str) -> Any:
    return wait(browser, lambda: browser.find_element(By.CSS_SELECTOR, selector))


def text(browser: Any, selector: str) -> str:
    return str(find(browser, selector).text)


def press(browser: Any, selector: str) -> None:
    element = find(browser, selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    wait(browser, lambda: element.is_displayed() and element.is_enabled())
    element.click()


def upload(browser: Any, selector: str, path: Path) -> None:
    find(browser, f"{selector} input[type=file]").send_keys(str(path))


def message(browser: Any) -> str:
    """What a toast says."""
    return str(wait(browser, lambda: browser.find_element(By.CSS_SELECTOR, ".toast-body").text))


def duration(browser: Any, name: str) -> float:
    """Seconds that the player of a component would play, as the browser decodes them."""
    link = find(browser, f"#{name} a.download-link").get_attribute("href")
    script = """
        const [link, done] = arguments;
        const audio = new Audio(link);
        audio.onloadedmetadata = () => done(audio.duration);
        audio.onerror = () => done(-1);
    """
    return float(browser.execute_async_script(script, link))


def shoot(browser: Any, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        assert browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def history(browser: Any) -> Any:
    """Cells of the table, row by row."""
    return browser.find_elements(By.CSS_SELECTOR, "#history .body-cell")


def run_speech(browser: Any, path: Path = SPEECH) -> str:
    """Upload, wait until the waveform is there, run; what the table says."""
    upload(browser, "#recording", path)
    find(browser, "#recording [data-testid^=waveform]")
    press(browser, "#run")
    wait(browser, lambda: path.name in text(browser, "#facts"))
    return text(browser, "#facts")


def choose(browser: Any, name: str) -> None:
    press(browser, "#model input")
    options = "#model ~ * [role=option], [role=option]"
    wait(
        browser,
        lambda: next(
            o for o in browser.find_elements(By.CSS_SELECTOR, options) if o.text.strip(" ✓") == name
        ),
    ).click()


def set_count(browser: Any, selector: str, count: int) -> None:
    field = find(browser, f"{selector} input[type=number]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", field)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(str(count), Keys.TAB)


def test_listen_change_compare_and_go_back(address: str, browse: Browse, tmp_path: Path) -> None:
    browser = browse(address)
    shoot(browser, "wide_light_open")
    facts = run_speech(browser)
    assert "1.300 kbit/s" in facts
    assert "5 of 5 × 178 frames" in facts
    assert "real time" in facts
    for player in ("original", "decoded"):
        assert duration(browser, player) == pytest.approx(SECONDS, abs=0.01)
    for picture in ("original_picture", "decoded_picture", "tokens"):
        size = find(browser, f"#{picture} img").get_property("naturalWidth")
        assert size > 300
    shoot(browser, "wide_light_run")

    set_count(browser, "#count", 2)
    wait(browser, lambda: "2 of 5" in text(browser, "#facts"))
    assert "0.550 kbit/s" in text(browser, "#facts")

    press(browser, "#compare button")
    press(browser, "#compare_run")
    find(browser, "#compared_picture img")
    first = find(browser, "#compared a.download-link").get_attribute("href")
    set_count(browser, "#compared_count", 3)
    wait(
        browser,
        lambda: find(browser, "#compared a.download-link").get_attribute("href") != first,
    )
    assert duration(browser, "compared") == pytest.approx(SECONDS, abs=0.01)
    shoot(browser, "wide_light_compare")

    press(browser, "#download")
    downloads = tmp_path / "downloads"
    wait(browser, lambda: list(downloads.glob("*.dualcodec")))
    (path,) = downloads.glob("*.dualcodec")
    codes = read_codes(path)
    assert codes.n_quantizers == 2
    assert codes.model_id == "demo"

    press(browser, "#codes_tab-button")
    upload(browser, "#codes", path)
    wait(browser, lambda: path.stem in text(browser, "#codes"))
    press(browser, "#decode")
    wait(browser, lambda: path.name in text(browser, "#facts"))
    assert "2 of 2" in text(browser, "#facts")
    assert duration(browser, "decoded") == pytest.approx(SECONDS, abs=0.01)

    press(browser, "#history_box button")
    wait(
        browser, lambda: next(cell for cell in history(browser) if cell.text == SPEECH.name)
    ).click()
    wait(browser, lambda: SPEECH.name in text(browser, "#facts"))


def test_choosing_a_model_loads_it(address: str, browse: Browse) -> None:
    browser = browse(address)
    choose(browser, "mine")
    wait(browser, lambda: text(browser, "#about").startswith("mine is loaded"))
    run_speech(browser)
    assert "mine" in text(browser, "#facts")
    choose(browser, "lost")
    assert "lost cannot be loaded" in message(browser)
    shoot(browser, "wide_light_error")
    wait(browser, lambda: find(browser, "#model input").get_property("value") == "mine")


def test_bad_files(address: str, browse: Browse, tmp_path: Path) -> None:
    browser = browse(address)
    press(browser, "#run")
    assert "no recording yet" in message(browser)
    browser.get(address)
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(11 * 8000), 8000)
    upload(browser, "#recording", long)
    find(browser, "#recording [data-testid^=waveform]")
    press(browser, "#run")
    said = message(browser)
    assert "long.wav" in said
    assert "11.000 s" in said
    assert str(tmp_path) not in said
    assert "/tmp" not in said

    browser.get(address)
    press(browser, "#codes_tab-button")
    broken = tmp_path / "broken.dualcodec"
    broken.write_bytes(b"these are no codes")
    upload(browser, "#codes", broken)
    wait(browser, lambda: broken.stem in text(browser, "#codes"))
    press(browser, "#decode")
    said = message(browser)
    assert "not a .dualcodec file" in said
    assert "/tmp" not in said

    browser.get(address)
    large = tmp_path / "large.wav"
    soundfile.write(large, np.zeros(1_500_000), 48000, subtype="PCM_16")
    upload(browser, "#recording", large)
    assert "exceed the maximum allowed size" in message(browser)


def test_two_visitors(address: str, browse: Browse, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    samples, rate = soundfile.read(SPEECH)
    soundfile.write(other, samples[: 3 * rate], rate)
    one, two = browse(address), browse(address)
    for browser, path in ((one, SPEECH), (two, other)):
        upload(browser, "#recording", path)
        find(browser, "#recording [data-testid^=waveform]")
    for browser in (one, two):
        press(browser, "#run")
    for browser, path, seconds in ((one, SPEECH, SECONDS), (two, other, 3.0)):
        wait(browser, lambda b=browser, p=path: p.name in text(b, "#facts"))
        assert duration(browser, "decoded") == pytest.approx(seconds, abs=0.01)
        press(browser, "#history_box button")
        cells = wait(browser, lambda b=browser: history(b))
        assert [cell.text for cell in cells][1::6] == [path.name]


def test_recording(address: str, browse: Browse) -> None:
    browser = browse(address)
    press(browser, "#recording button[aria-label='Record audio']")
    press(browser, "#recording .record-button, #recording button.record")
    wait(browser, lambda: "0:02" in text(browser, "#recording"))
    press(browser, "#recording .stop-button, #recording button.stop-button")
    find(browser, "#recording [data-testid^=waveform]")
    press(browser, "#run")
    wait(browser, lambda: "kbit/s" in text(browser, "#facts"))
    assert 1.0 < duration(browser, "decoded") < 8.0


@pytest.mark.parametrize("look", ["light", "dark"])
def test_on_a_phone(address: str, browse: Browse, look: str) -> None:
    browser = browse(f"{address}?__theme={look}")
    browser.set_window_size(520, 2800)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True},
    )
    run_speech(browser)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 390
    shoot(browser, f"phone_{look}_run")


def test_nothing_is_asked_of_other_machines(address: str, browse: Browse) -> None:
    browser = browse(f"{address}?__theme=dark")
    run_speech(browser)
    shoot(browser, "wide_dark_run")
    asked = []
    for entry in browser.get_log("performance"):
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.requestWillBeSent":
            asked.append(event["params"]["request"]["url"])
    assert any(url.startswith(address) for url in asked)
    own = (address, "chrome://", "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []


@pytest.mark.parametrize("path", ["/etc/hostname", str(Path(__file__)), str(SPEECH)])
def test_files_of_the_server_are_not_given_away(address: str, path: str) -> None:
    for route in (f"gradio_api/file={path}", f"file={path}"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(address + route)
        assert error.value.code in (403, 404)


def test_a_request_cannot_name_a_file_of_the_server(address: str) -> None:
    settings = json.load(urllib.request.urlopen(address + "config"))
    run = next(event["id"] for event in settings["dependencies"] if event["api_name"] == "on_run")
    secret = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}
    body = {"data": [secret, "demo", 5, None], "fn_index": run, "session_hash": "stranger"}
    request = urllib.request.Request(
        address + "gradio_api/queue/join",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(request)
        answer = urllib.request.urlopen(
            address + "gradio_api/queue/data?session_hash=stranger", timeout=30
        )
        lines = []
        for line in answer:
            lines.append(line.decode())
            if "process_completed" in lines[-1] or "close_stream" in lines[-1]:
                break
        said = "".join(lines)
    except urllib.error.HTTPError as error:
        said = f'"success":false {error.read().decode()}'
    assert '"success":false' in said.replace(" ", "")
    assert "kbit/s" not in said
