"""The protocols of the paper's tables, for ``dualcodec-jax evaluate --preset``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from dualcodec_jax.evaluation.codecs.base import CodecInfo
from dualcodec_jax.evaluation.paper import TABLE_2, TABLE_3, TABLE_5, PaperRow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """How to reproduce one table with whichever data and weights there are.

    Attributes:
        name: ``table2``, ``table3`` or ``table5``.
        title: one line.
        metrics: names of the metrics to compute, in the table's order.
        columns: heading of each column of :attr:`rows`, in order.
        rows: the paper's.
        notes: sentences on the paper's protocol, to print below the table.
        n_quantizers: codes per frame of every codec; None: see :attr:`tokens_per_second`.
        tokens_per_second: choose the number of quantizers that comes nearest to this.
    """

    name: str
    title: str
    metrics: tuple[str, ...]
    columns: Mapping[str, str]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...]
    n_quantizers: int | None = None
    tokens_per_second: float | None = None

    @property
    def codecs(self) -> tuple[str, ...]:
        """Specs of the systems of the table that anyone can have, in its order."""
        return tuple(row.codec for row in self.rows if row.codec is not None)

    def quantizers_for(self, info: CodecInfo) -> int | None:
        """How many quantizers of a codec, opened with all of them, the protocol uses.

        None for a codec without codes, or with a fixed number that the protocol does not change.
        """
        available, tokens = info.n_quantizers, info.tokens_per_second
        if available is None or tokens is None:
            return None
        if self.n_quantizers is not None:
            return min(self.n_quantizers, available)
        if self.tokens_per_second is None:
            return available
        return min(available, max(1, round(self.tokens_per_second * available / tokens)))

    def row_for(self, spec: str) -> PaperRow | None:
        """The paper's row of a codec, if it has one."""
        return next((row for row in self.rows if row.codec == spec), None)


_TOKENS = 75.0

PRESETS: dict[str, Preset] = {
    "table2": Preset(
        name="table2",
        title="Semantic content of RVQ-1: word error rate of audio decoded from it alone",
        metrics=("wer",),
        columns={"frame_rate": "Hz", "wer_en": "WER EN %", "wer_zh": "WER ZH %"},
        rows=TABLE_2,
        n_quantizers=1,
        notes=(
            "Paper: Seed-TTS-Eval; Whisper-large-v3 for English, Paraformer-zh for Chinese.",
            "Only audio decoded from the first code of each frame is recognised.",
        ),
    ),
    "table3": Preset(
        name="table3",
        title="Reconstruction (the paper: at about 75 tokens per second)",
        metrics=("pesq_nb", "pesq_wb", "stoi", "mcd", "utmos"),
        columns={
            "millions": "params, M",
            "kbit_s": "kbit/s",
            "tokens_s": "tokens/s",
            "n_quantizers": "#VQ",
            "pesq_nb": "PESQ_nb",
            "pesq_wb": "PESQ_wb",
            "stoi": "STOI",
            "mcd": "MCD",
            "utmos": "UTMOS",
            "mushra": "MUSHRA",
        },
        rows=TABLE_3,
        tokens_per_second=_TOKENS,
        notes=(
            "Paper: LibriSpeech test-clean, whole; MUSHRA with 8 raters and 15 sets.",
            "EnCodec and SpeechTokenizer have two quantizers there: 150 and 100 tokens per second.",
            "Parameters do not include w2v-BERT 2.0.",
        ),
    ),
    "table5": Preset(
        name="table5",
        title="Real-time factors, one clip at a time",
        metrics=("rtf",),
        columns={
            "encode_millions": "encode params, M",
            "encode_rtf": "encode RTF",
            "decode_millions": "decode params, M",
            "decode_rtf": "decode RTF",
        },
        rows=TABLE_5,
        tokens_per_second=_TOKENS,
        notes=(
            "Paper: LibriSpeech test-clean on an A100, batch size 1; it does not say with how many "
            "quantizers, here as in Table 3.",
            "Encoding includes w2v-BERT 2.0: 24 layers in the paper, here the 17 that are used.",
        ),
    ),
}
"""By name."""
