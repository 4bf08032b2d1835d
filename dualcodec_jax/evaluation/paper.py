"""Figures of the DualCodec paper, to print beside measured ones.

Source: arXiv 2505.13000, Tables 2, 3 and 5; facts only. The paper's text gives 94.8 as the MUSHRA
score of row G5, its table 88.2. Sizes in parentheses are those of the codebooks: RVQ-1 + others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """A row of a table of the paper.

    Attributes:
        id: as in the paper, ``G5``; empty where it has none.
        system: its name.
        codec: spec of the same system for :func:`~.codecs.open_codec`; None if it was not released.
        values: by column; a column that has no value for the system is not there.
    """

    id: str
    system: str
    codec: str | None
    values: Mapping[str, float]


def _table(columns: str, rows: str) -> tuple[PaperRow, ...]:
    """Rows of ``id | system | codec | values``; ``-`` stands for nothing."""
    table = []
    for line in rows.strip().splitlines():
        name, system, codec, values = (field.strip() for field in line.split("|"))
        pairs = zip(columns.split(), values.split(), strict=True)
        present = {column: float(value) for column, value in pairs if value != "-"}
        codec_spec = None if codec == "-" else codec
        table.append(PaperRow("" if name == "-" else name, system, codec_spec, present))
    return tuple(table)


TABLE_2 = _table(
    "frame_rate wer_en wer_zh",
    """
    A1 | ground truth                  | original            | -    2.13 1.25
    A2 | SpeechTokenizer (1024)        | speechtokenizer@1   | 50   14.9 83.2
    B1 | DAC (1024)                    | -                   | 25   55.4 46.4
    B2 | DAC (1024), distillation      | -                   | 25   28.4 26.4
    B3 | dual encoding (1024)          | -                   | 25   5.59 6.52
    C1 | DAC (16384)                   | -                   | 25   31.8 21.0
    C2 | DAC (16384), distillation     | -                   | 25   17.8 14.4
    C3 | dual encoding (16384)         | dualcodec:25hz_v1@1 | 25   2.98 2.91
    D1 | dual encoding (16384)         | dualcodec:12hz_v1@1 | 12.5 6.94 6.36
    """,
)
"""WER in percent of audio decoded from RVQ-1 alone; frame rates in Hz."""

TABLE_3 = _table(
    "millions kbit_s tokens_s n_quantizers pesq_nb pesq_wb stoi mcd utmos mushra",
    """
    E1|DAC official 75 Hz            |dac:24khz@1        | 74 .75  75 1 1.46 1.18 .75 6.00 1.32 26.0
    E2|EnCodec 75 Hz                 |encodec:1.5        | 15 1.5 150 2 1.92 1.54 .84 4.30 1.55 36.2
    E3|SpeechTokenizer 50 Hz         |speechtokenizer@2  |103 1.0 100 2 1.42 1.15 .70 6.94 1.81 35.9
    E4|WavTokenizer-large 75 Hz      |wavtokenizer       | 71 .90  75 1 2.54 2.05 .89 3.99 3.87 81.0
    E5|Mimi 12.5 Hz                  |mimi@6             | 78 .83  75 6 2.51 1.99 .89 4.13 3.43 72.8
    F1|DAC-repro 25 Hz (1024+1024)   |-                  | 74 .75  75 3 2.58 2.06 .89 3.93 3.29 68.8
    F2|DAC-repro 12.5 Hz (1024+1024) |-                  | 69 .75  75 6 2.88 2.33 .91 3.70 3.87 81.8
    G1|DualCodec 25 Hz (1024+1024)   |-                  |100 .75  75 3 2.64 2.07 .90 3.99 3.86 79.5
    G2|DualCodec 25 Hz (16384+1024)  |dualcodec:25hz_v1@3|100 .85  75 3 2.92 2.32 .91 3.61 4.08 86.2
    G3|DualCodec 12.5 Hz (1024+1024) |-                  | 95 .75  75 6 2.89 2.30 .91 3.61 3.94 83.5
    G4|DualCodec 12.5 Hz (16384+1024)|-                  | 95 .80  75 6 2.94 2.33 .91 3.65 4.04 85.2
    G5|DualCodec 12.5 Hz (16384+4096)|dualcodec:12hz_v1@6| 95 .93  75 6 3.11 2.54 .92 3.33 4.11 88.2
    """,
)
"""Reconstruction of LibriSpeech test-clean; parameters in millions."""

TABLE_5 = _table(
    "encode_millions encode_rtf decode_millions decode_rtf",
    """
    - |DAC official                  |dac:24khz@1        | 22 .005  52 .004
    - |EnCodec                       |encodec:1.5        |7.4 .006 7.4 .004
    - |SpeechTokenizer               |speechtokenizer@2  | 68 .006  35 .004
    - |WavTokenizer-large            |wavtokenizer       |8.8 .006  62 .002
    - |Mimi                          |mimi@6             | 38 .008  40 .004
    - |DAC-repro 25 Hz               |-                  | 22 .003  52 .002
    - |DAC-repro 12.5 Hz             |-                  | 16 .004  53 .002
    - |DualCodec 25 Hz               |dualcodec:25hz_v1@3|628 .015  53 .002
    - |DualCodec 12.5 Hz             |dualcodec:12hz_v1@6|622 .015  53 .003
    """,
)
"""Real-time factors (seconds of computing per second of audio) on an A100, batch size 1."""
