"""Metrics against their packages' own figures and analytic cases; models on stand-ins.

Packages that are not installed are skipped; which ones a skip names.
"""

from __future__ import annotations

import importlib.util
import math
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax import losses
from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation import metrics
from dualcodec_jax.evaluation.metrics import (
    METRICS,
    Metric,
    MetricAbsent,
    MetricFailure,
    MetricInfo,
    available_metrics,
    base,
    open_metric,
    utmos,
)
from dualcodec_jax.evaluation.metrics.base import ClipMetric
from dualcodec_jax.evaluation.metrics.mel import MelDistance
from dualcodec_jax.train.config import MelLossConfig

RATE = 24000
INTRUSIVE = ("pesq_nb", "pesq_wb", "stoi", "estoi", "mcd", "mel", "speaker")
ALONE = ("distillmos", "dnsmos")


@pytest.fixture(scope="module")
def clip(speech: np.ndarray) -> np.ndarray:
    """Two and a half seconds of speech."""
    return speech[RATE : 7 * RATE // 2]


def opened(name: str) -> Metric:
    try:
        return open_metric(name)
    except MetricAbsent as error:
        pytest.skip(str(error))


def noisy(clip: np.ndarray, snr: float) -> np.ndarray:
    """The clip with white noise, ``snr`` dB below it."""
    noise = np.random.default_rng(0).standard_normal(clip.size).astype(np.float32)
    return clip + clip.std() * np.float32(10 ** (-snr / 20)) * noise


# Values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "best", "tolerance"),
    [
        # The top of P.862.1's and P.862.2's mapping of 4.5, the score of equal signals.
        ("pesq_nb", 0.999 + 4 / (1 + math.exp(-1.4945 * 4.5 + 4.6607)), 1e-3),
        ("pesq_wb", 0.999 + 4 / (1 + math.exp(-1.3669 * 4.5 + 3.8224)), 1e-3),
        ("stoi", 1, 1e-6),
        ("estoi", 1, 1e-6),
        ("mcd", 0, 0),
        ("mel", 0, 0),
        ("speaker", 1, 1e-5),
    ],
)
def test_a_clip_and_itself(clip: np.ndarray, name: str, best: float, tolerance: float) -> None:
    metric = opened(name)
    assert metric.measure(clip, clip.copy(), RATE) == pytest.approx(best, abs=tolerance)
    if metric.info.range is not None:
        assert metric.info.range[1] == pytest.approx(best, abs=0.01)


@pytest.mark.parametrize("name", INTRUSIVE + ALONE)
def test_more_noise_is_worse(clip: np.ndarray, name: str) -> None:
    metric = opened(name)
    values = [metric.measure(clip, noisy(clip, snr), RATE) for snr in (40, 20, 5)]
    assert all(isinstance(value, float) for value in values)
    ordered = sorted(values, reverse=metric.info.higher_is_better)  # type: ignore[type-var]
    assert values == ordered
    assert len(set(values)) == 3
    if metric.info.range is not None:
        low, high = metric.info.range
        assert all(low <= value <= high for value in values)  # type: ignore[operator]


def test_pesq_of_the_package() -> None:
    """The package's own example clips are not in its wheel; its function on the same samples."""
    pesq = pytest.importorskip("pesq")
    rng = np.random.default_rng(1)
    envelope = np.repeat(rng.uniform(0, 1, 20), 1600)
    target = (0.1 * envelope * rng.standard_normal(32000)).astype(np.float32)
    output = noisy(target, 10)
    metric = opened("pesq_wb")
    expected = pesq.pesq(16000, target, output, "wb")
    assert metric.measure(target, output, 16000) == pytest.approx(expected)


def test_pesq_of_a_long_clip_is_that_of_the_package(speech: np.ndarray) -> None:
    pesq = pytest.importorskip("pesq")
    clip = np.tile(speech[: 5 * 16000], 4)[: 16 * 16000]  # at another rate: it is speech still
    output = noisy(clip, 10)
    expected = pesq.pesq(16000, clip, output, "wb")
    assert opened("pesq_wb").measure(clip, output, 16000) == pytest.approx(expected)


def test_a_clip_on_which_pesq_crashes_is_a_typed_error() -> None:
    """Eighty utterances: the package writes past its tables and its process dies."""
    metric = opened("pesq_nb")
    bursts = np.repeat(np.tile([1.0, 0.0], 80), 4000)
    clip = (0.1 * bursts * np.random.default_rng(0).standard_normal(bursts.size)).astype(np.float32)
    with pytest.raises(MetricFailure, match="50 utterances; use clips of at most 15 s"):
        metric.measure(clip, noisy(clip, 20), 8000)


def test_stoi_of_the_package(clip: np.ndarray) -> None:
    pystoi = pytest.importorskip("pystoi")
    output = noisy(clip, 5)
    for name, extended in (("stoi", False), ("estoi", True)):
        expected = pystoi.stoi(clip, output, RATE, extended=extended)
        assert opened(name).measure(clip, output, RATE) == pytest.approx(expected, abs=1e-6)


def test_mcd_of_the_package(clip: np.ndarray, tmp_path: Path) -> None:
    """Against files through the package, at its own rate."""
    metric = opened("mcd")
    package = importlib.import_module("pymcd.mcd")
    soundfile = importlib.import_module("soundfile")
    clip = clip[:22050]
    pair = {"original": clip, "output": noisy(clip, 20)}
    for name, samples in pair.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 22050, subtype="FLOAT")
    paths = [str(tmp_path / f"{name}.wav") for name in pair]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what librosa imports to read files is deprecated
        expected = package.Calculate_MCD("dtw").calculate_mcd(*paths)
    assert metric.measure(*pair.values(), 22050) == pytest.approx(expected, rel=1e-5)


def test_mcd_of_a_gain_is_analytic(clip: np.ndarray) -> None:
    """A gain g moves c_0 alone, by 2 ln g: the package takes power for amplitude.

    Only far above the floor that the package puts below the spectrum, hence the factor of 1000.
    """
    value = opened("mcd").measure(1000 * clip, 2000 * clip, RATE)
    expected = 10 / math.log(10) * math.sqrt(2) * 2 * math.log(2)
    assert value == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("distance", ["absolute", "squared"])
def test_the_mel_distance_is_that_of_training(clip: np.ndarray, distance: Any) -> None:
    config = MelLossConfig(window_lengths=(512,), n_mels=(80,), distance=distance)
    clip, output = clip[:12345], noisy(clip, 10)[:12345]
    expected = losses.mel_distance(
        jnp.asarray(clip[None]),
        jnp.asarray(output[None]),
        sample_rate=RATE,
        window_lengths=config.window_lengths,
        n_mels=config.n_mels,
        distance=distance,
    )
    value = MelDistance(config).measure(clip, output, RATE)
    # The logarithm of nearly empty bands sees the rounding of float32.
    assert value == pytest.approx(float(expected), rel=1e-4)


def test_the_version_of_the_mel_distance_is_that_of_its_settings() -> None:
    """The key of cached values must change with them."""
    config = MelLossConfig(distance="squared")
    mine = [MelDistance(), MelDistance(config), MelDistance(sample_rate=16000)]
    assert len({metric.info.version for metric in mine}) == 3


def test_the_lowest_mel_bins(clip: np.ndarray) -> None:
    """A change above the compared bands does not count; below, it does."""
    config = MelLossConfig(window_lengths=(1024,), n_mels=(80,), lowest=0.5)
    time = np.arange(clip.size) / RATE
    high, low = (0.1 * np.sin(2 * np.pi * f * time).astype(np.float32) for f in (9000, 500))
    metric = MelDistance(config)
    value_high, value_low = (metric.measure(clip, clip + tone, RATE) for tone in (high, low))
    assert value_high is not None
    assert value_low is not None
    assert 20 * value_high < value_low


# What has no value --------------------------------------------------------------------------


@pytest.mark.parametrize("name", INTRUSIVE + ALONE)
def test_clips_without_a_value(clip: np.ndarray, name: str) -> None:
    metric = opened(name)
    silence = np.zeros_like(clip)
    broken = np.where(np.arange(clip.size) == 5, np.float32(np.nan), clip)
    assert metric.measure(silence, silence, RATE) is None
    assert metric.measure(clip, broken, RATE) is None
    for length in (0, 1, 500):
        assert metric.measure(clip[:length], clip[:length], RATE) is None
    if metric.info.intrusive:
        assert metric.measure(silence, clip, RATE) is None
        assert metric.measure(broken, clip, RATE) is None
    value = metric.measure(clip, silence, RATE)
    if name in ("stoi", "estoi"):
        assert value == pytest.approx(0, abs=0.05)
    elif name == "mel":
        assert value is not None
        assert value > 1
    else:
        assert value is None


def test_noise_without_speech_and_loud_clips_do_not_raise(clip: np.ndarray) -> None:
    noise = 1e-3 * np.random.default_rng(0).standard_normal(clip.size).astype(np.float32)
    for name, reason in available_metrics():
        if reason is None:
            metric = open_metric(name)
            for pair in ((noise, noise), (clip, 30 * clip), (clip[:7000], noise[:7000])):
                value = metric.measure(*pair, RATE)
                assert value is None or math.isfinite(value)


def info(**changes: Any) -> MetricInfo:
    facts: dict[str, Any] = {
        "name": "mine",
        "title": "mine",
        "unit": "",
        "higher_is_better": True,
        "range": None,
        "intrusive": True,
        "packages": (),
        "source": "",
        "version": "1",
    }
    return MetricInfo(**facts | changes)


class Mine(ClipMetric):
    def __init__(self, result: Any, **changes: Any) -> None:
        super().__init__(info(**changes))
        self._result = result

    def _value(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float | None:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result  # type: ignore[no-any-return]


def test_an_error_of_a_package_is_a_typed_error(clip: np.ndarray) -> None:
    with pytest.raises(MetricFailure, match=r"mine: bad clip$"):
        Mine(ValueError("bad clip\nand more")).measure(clip, clip, RATE)
    with pytest.raises(MetricFailure, match="mine: IndexError"):
        Mine(IndexError()).measure(clip, clip, RATE)


def test_values_that_are_not_finite_are_none(clip: np.ndarray) -> None:
    assert Mine(math.nan).measure(clip, clip, RATE) is None
    assert Mine(math.inf).measure(clip, clip, RATE) is None
    assert Mine(1.5).measure(clip, clip, RATE) == 1.5


def test_a_metric_of_the_output_alone_does_not_look_at_the_original(clip: np.ndarray) -> None:
    assert Mine(2.0, intrusive=False).measure(np.zeros(0), clip, RATE) == 2.0


# Names, packages ----------------------------------------------------------------------------


def test_names_are_those_of_the_info(clip: np.ndarray) -> None:
    for name, reason in available_metrics():
        if reason is None:
            facts = open_metric(name).info
            assert facts.name == name
            assert "revision" in facts.version
            assert all(package.partition("<")[0] for package in facts.packages)


def test_order_is_that_of_the_tables() -> None:
    assert metrics.DEFAULT[:5] == ("pesq_nb", "pesq_wb", "stoi", "estoi", "mcd")
    assert [name for name, _ in available_metrics()] == list(METRICS)
    with pytest.raises(InputError, match=r"unknown metric 'visqol'.*pesq_nb"):
        open_metric("visqol")


def test_a_metric_of_ones_own(monkeypatch: pytest.MonkeyPatch, clip: np.ndarray) -> None:
    monkeypatch.setitem(METRICS, "mine", lambda: Mine(3.0))
    assert ("mine", None) in available_metrics()
    assert open_metric("mine").measure(clip, clip, RATE) == 3.0


def test_missing_packages_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reasons = dict(available_metrics())
    assert reasons.pop("mel") is None
    for name, reason in reasons.items():
        assert "not installed: pip install" in (reason or "")
        with pytest.raises(MetricAbsent, match="pip install"):
            open_metric(name)
    assert "'setuptools<81'" in (reasons["mcd"] or "")


def test_a_package_that_does_not_import_is_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_package.py").write_text("raise OSError('libcudart.so.13: not found')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MetricAbsent, match=r"importing it fails: libcudart.so.13"):
        base.load_package("broken_package")


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from dualcodec_jax.evaluation.metrics import available_metrics; "
        "available_metrics(); "
        "sys.exit(' '.join({'torch', 'jax', 'scipy', 'librosa', 'pesq'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.stderr == b"\n", result.stderr.decode()


# UTMOS --------------------------------------------------------------------------------------

HUBCONF = """
dependencies = ["torch"]
import torch
from speechmos.strong import Model

def utmos22_strong(progress=True):
    url = "https://example.invalid/utmos22_strong_step7459_v1.pt"
    state = torch.hub.load_state_dict_from_url(url, map_location="cpu", progress=progress)
    model = Model()
    model.load_state_dict(state)
    return model
"""
STRONG = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, wave, rate):
        return self.bias + wave.shape[1] / rate
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch.hub folder with the layout of SpeechMOS, whose model gives seconds + 1."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchaudio")
    code = tmp_path / "tarepan_SpeechMOS_v1.2.0"
    (code / "speechmos").mkdir(parents=True)
    (code / "speechmos" / "__init__.py").touch()
    (code / "speechmos" / "strong.py").write_text(STRONG)
    (code / "hubconf.py").write_text(HUBCONF)
    (tmp_path / "checkpoints").mkdir()
    torch.save({"bias": torch.ones(1)}, tmp_path / utmos.WEIGHTS_FILE)
    monkeypatch.setenv(utmos.HUB_VARIABLE, str(tmp_path))
    return tmp_path


def test_utmos_from_a_hub_folder(
    hub: Path, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the package of DNSMOS, of the same name, has been imported."""
    earlier = type(sys)("speechmos")
    monkeypatch.setitem(sys.modules, "speechmos", earlier)
    metric = open_metric("utmos")
    assert metric.measure(clip, clip, RATE) == pytest.approx(1 + clip.size / RATE, abs=1e-4)
    assert sys.modules["speechmos"] is earlier
    assert "speechmos.strong" not in sys.modules
    assert "weights" in metric.info.version


def test_utmos_whose_code_does_not_load_is_absent(hub: Path) -> None:
    (hub / "tarepan_SpeechMOS_v1.2.0" / "hubconf.py").write_text("import nothing_of_that_name")
    with pytest.raises(MetricAbsent, match=r"tarepan_SpeechMOS_v1\.2\.0 does not load"):
        open_metric("utmos")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_utmos_with_damaged_weights_is_absent(hub: Path, content: bytes) -> None:
    (hub / utmos.WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(MetricAbsent, match=r"does not load.*step7459_v1\.pt again"):
        open_metric("utmos")


def test_what_loading_a_model_raises_is_absence() -> None:
    message = "the model does not load: bad key; get it again"
    with pytest.raises(MetricAbsent, match=message), base.loading("the model", "get it again"):
        raise pickle.UnpicklingError("bad key\nand more")


def test_where_utmos_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(utmos.HUB_VARIABLE, raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert utmos.hub_folder() == tmp_path / "torch" / "hub"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    assert utmos.hub_folder() == tmp_path / "home" / "hub"
    monkeypatch.setenv(utmos.HUB_VARIABLE, str(tmp_path))
    assert utmos.HUB_VARIABLE in (utmos._missing_weights(utmos.hub_folder()) or "")
