"""The README.md of a published model, as the Hugging Face hub shows it."""

from __future__ import annotations

import json

from dualcodec_jax.config import code_bits
from dualcodec_jax.hub import BUNDLED, BUNDLED_MODEL
from dualcodec_jax.model import DualCodecModel

CARD_FILE = "README.md"

_CARD = """\
---
library_name: dualcodec-jax
pipeline_tag: audio-to-audio
tags:
- audio
- speech
- codec
- jax
- dualcodec
---

# {model_id}

A [DualCodec](https://arxiv.org/abs/2505.13000) for `dualcodec-jax`: speech at {rate} kHz to
{frames:g} frames of discrete codes a second, and back.{note}

| | |
| --- | --- |
| codes per frame | 1 to {codes} |
| codebooks | {codebooks} |
| bitrate | {lowest:.3f} to {highest:.3f} kbit/s |
| parameters | {parameters:.1f} M |
| semantic model | {semantic} |
| made from | `{source}` |

```python
import dualcodec_jax as dualcodec

inference = dualcodec.Inference.from_pretrained("FOLDER OR OWNER/NAME")
audio = dualcodec.load_audio("speech.wav").samples
semantic, acoustic = inference.encode(audio.reshape(1, 1, -1), n_quantizers=None)
reconstructed = inference.decode(semantic, acoustic)
```

To be added by whoever publishes it: what it was trained on, its licence, its limits.
"""
_DEMO = """
It is the demo model of that package, not the DualCodec release."""


def model_card(
    model: DualCodecModel, semantic_model: str | None, semantic_location: str | None
) -> str:
    """Facts about a model in Markdown, with a header for the hub.

    Args:
        model: the generator.
        semantic_model: kind of its semantic model; None: it has none.
        semantic_location: where that is; None: beside the card.
    """
    config = model.config
    if semantic_model is None:
        semantic = "none"
    elif semantic_location is None:
        semantic = f"`{semantic_model}`, in this folder"
    elif semantic_location == BUNDLED:
        semantic = f"`{semantic_model}`, which ships with `dualcodec-jax`"
    else:
        semantic = f"`{semantic_model}`, from `{semantic_location}`"
    first, *others = config.codebook_sizes
    books = [str(first)] + ([f"{len(others)} × {others[0]}"] if others else [])
    return _CARD.format(
        model_id=model.model_id,
        note=_DEMO if model.model_id == BUNDLED_MODEL else "",
        rate=f"{config.sample_rate / 1000:g}",
        frames=config.frame_rate,
        codes=config.n_quantizers,
        codebooks=" + ".join(books),
        lowest=config.frame_rate * code_bits(first) / 1000,
        highest=config.bitrate() / 1000,
        parameters=model.num_parameters / 1e6,
        semantic=semantic,
        source=json.dumps(model.source),
    )
