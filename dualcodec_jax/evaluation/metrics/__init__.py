"""Metrics by name, each behind one interface; :class:`Metric` says what a metric is.

Importing this package imports no metric package, and neither torch nor JAX.
"""

from __future__ import annotations

from collections.abc import Callable

from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation.metrics import (
    dnsmos,
    mcd,
    mel,
    mos,
    pesq,
    speaker,
    stoi,
    utmos,
)
from dualcodec_jax.evaluation.metrics.base import Metric, MetricAbsent, MetricFailure, MetricInfo

__all__ = [
    "DEFAULT",
    "METRICS",
    "Metric",
    "MetricAbsent",
    "MetricFailure",
    "MetricInfo",
    "available_metrics",
    "open_metric",
]

METRICS: dict[str, Callable[[], Metric]] = {
    "pesq_nb": lambda: pesq.Pesq("nb"),
    "pesq_wb": lambda: pesq.Pesq("wb"),
    "stoi": lambda: stoi.Stoi(extended=False),
    "estoi": lambda: stoi.Stoi(extended=True),
    "mcd": mcd.MelCepstralDistortion,
    "mel": mel.MelDistance,
    "distillmos": mos.DistillMos,
    "dnsmos": dnsmos.DnsMos,
    "utmos": utmos.Utmos,
    "speaker": speaker.SpeakerSimilarity,
}
"""Name → what opens it, which may load a model. A metric of one's own may be added."""

DEFAULT = tuple(METRICS)
"""In the order of the tables' columns: the paper's first."""

_ABSENCE: dict[str, Callable[[], str | None]] = {
    "pesq_nb": pesq.Pesq.absence,
    "pesq_wb": pesq.Pesq.absence,
    "stoi": stoi.Stoi.absence,
    "estoi": stoi.Stoi.absence,
    "mcd": mcd.MelCepstralDistortion.absence,
    "distillmos": mos.DistillMos.absence,
    "dnsmos": dnsmos.DnsMos.absence,
    "utmos": utmos.Utmos.absence,
    "speaker": speaker.SpeakerSimilarity.absence,
}


def open_metric(name: str) -> Metric:
    """Open a metric.

    ============== ==========================================================================
    ``pesq_nb``    PESQ, narrow band, at 8 kHz: MOS-LQO 1 … 4.55
    ``pesq_wb``    PESQ, wide band, at 16 kHz: MOS-LQO 1 … 4.64
    ``stoi``       short-time objective intelligibility, 0 … 1
    ``estoi``      extended STOI, 0 … 1
    ``mcd``        mel-cepstral distortion with time warping, dB; less is better
    ``mel``        the mel distance of training, at 24 kHz; less is better
    ``distillmos`` DistillMOS, 1 … 5, of the output alone
    ``dnsmos``     DNSMOS P.808, 1 … 5, of the output alone
    ``utmos``      UTMOS22 strong, 1 … 5, of the output alone; weights of one's own
    ``speaker``    cosine similarity of Resemblyzer's voice embeddings, 0 … 1
    ============== ==========================================================================

    Raises:
        MetricAbsent: its packages or weights are not here.
        InputError: there is no such metric.
    """
    if name not in METRICS:
        raise InputError(f"unknown metric {name!r}; use one of {', '.join(METRICS)}")
    return METRICS[name]()


def available_metrics() -> list[tuple[str, str | None]]:
    """All metrics with what is missing, None if nothing is. Imports no metric package."""
    return [(name, _ABSENCE[name]() if name in _ABSENCE else None) for name in METRICS]
