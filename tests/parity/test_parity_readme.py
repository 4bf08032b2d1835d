"""The snippet of the original's README, with the three changes that moving over takes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import soundfile
from oracle import torch
from upstream import MODEL_IDS, Release

import dualcodec_jax
from dualcodec_jax.errors import DualCodecWarning
from dualcodec_jax.lengths import decoded_samples

SPEECH = Path(dualcodec_jax.__file__).parent / "assets" / "librivox.flac"

# Changed: the import; no `.to("cuda")`; soundfile instead of torchaudio for files, which
# upstream's own torchaudio can no longer read without another package.
SNIPPET = """
import dualcodec_jax as dualcodec

w2v_path = W2V_PATH
dualcodec_model_path = DUALCODEC_PATH
model_id = MODEL_ID

dualcodec_model = dualcodec.get_model(model_id, dualcodec_model_path)
dualcodec_inference = dualcodec.Inference(dualcodec_model=dualcodec_model, dualcodec_path=dualcodec_model_path, w2v_path=w2v_path, device="cuda")

audio, sr = load("YOUR_WAV.wav")
# resample to 24kHz
audio = torchaudio.functional.resample(audio, sr, 24000)
audio = audio.reshape(1,1,-1)
# extract codes, for example, using 8 quantizers here:
semantic_codes, acoustic_codes = dualcodec_inference.encode(audio, n_quantizers=8)
# semantic_codes shape: torch.Size([1, 1, T])
# acoustic_codes shape: torch.Size([1, n_quantizers-1, T])

# produce output audio. If `acoustic_codes=None` is passed, will decode only semantic codes (RVQ-1)
out_audio = dualcodec_inference.decode(semantic_codes, acoustic_codes)

# save output audio
import soundfile
soundfile.write("out.wav", out_audio[0, 0], 24000)
"""  # noqa: E501


@pytest.mark.parametrize("model_id", MODEL_IDS)
def test_the_originals_snippet_runs(
    release: Release, model_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: str) -> tuple[Any, int]:
        samples, rate = soundfile.read(SPEECH, dtype="float32")
        return torch.from_numpy(samples[None, : 2 * rate]), rate

    monkeypatch.chdir(tmp_path)
    names = {
        "W2V_PATH": release.w2v_bert,
        "DUALCODEC_PATH": release.dualcodec,
        "MODEL_ID": model_id,
        "load": load,
        "torchaudio": oracle.torchaudio,
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(SNIPPET, names)
    assert [w.category for w in caught if w.category is DualCodecWarning] == [DualCodecWarning]
    frames = names["semantic_codes"].shape[2]
    assert names["acoustic_codes"].shape == (1, 7, frames)
    audio, rate = soundfile.read("out.wav")
    config = dualcodec_jax.get_config(model_id).codec
    assert (audio.size, rate) == (decoded_samples(frames, config), 24000)
    assert np.abs(audio).max() > 0
