"""What the snippets of a page find when they are run: a folder with recordings and weights.

The weights are random and have the sizes of the release, but for a semantic model of one narrow
layer. Snippets load them as readers load theirs, through the environment or by the folders'
names; nothing is replaced.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import dualcodec_jax
from dualcodec_jax.compilation import enable_cache
from dualcodec_jax.config import W2vBertConfig
from dualcodec_jax.hub import CODEC_VARIABLE, W2V_BERT_VARIABLE
from dualcodec_jax.weights import Weights, save_weights

ROOT = Path(__file__).parents[2]
CODEC, SEMANTIC = "dualcodec_ckpts", "w2v-bert-2.0"
SECONDS = 3


def enter() -> None:
    """Go to a new folder that has everything; once for each page."""
    page = Path(tempfile.mkdtemp(prefix="page-", dir=_world()))
    for path in (_world() / "files").iterdir():
        (page / path.name).symlink_to(path)
    os.environ |= {CODEC_VARIABLE: str(page / CODEC), W2V_BERT_VARIABLE: str(page / SEMANTIC)}
    os.chdir(page)
    warnings.simplefilter("error", dualcodec_jax.DualCodecWarning)


def leave() -> None:
    """Go back, and remove what the page wrote."""
    page = Path.cwd()
    os.chdir(ROOT)
    for name in (CODEC_VARIABLE, W2V_BERT_VARIABLE):
        os.environ.pop(name, None)
    shutil.rmtree(page)


@functools.cache
def _world() -> Path:
    """The folder that the pages' folders lie in, made at first and removed at the end."""
    enable_cache()
    world = Path(tempfile.mkdtemp(prefix="dualcodec-docs-"))
    atexit.register(shutil.rmtree, world)
    files = world / "files"
    recordings = files / "recordings"
    recordings.mkdir(parents=True)
    for clip in sorted((ROOT / "tests/data").glob("*.flac")):
        shutil.copy(clip, recordings)
    clip = ROOT / "dualcodec_jax/assets/librivox.flac"
    speech = dualcodec_jax.load_audio(clip).samples[: SECONDS * 24000]
    dualcodec_jax.write_audio(files / "speech.wav", speech, 24000)
    dualcodec_jax.random_model("12hz_v1").save(files / CODEC / "12hz_v1")
    config = W2vBertConfig(num_layers=1, intermediate_size=64)
    semantic, statistics = dualcodec_jax.random_semantic(config)
    for weights, folder in (
        (Weights("w2v_bert", "w2v_bert", config, semantic), files / SEMANTIC / "w2v_bert"),
        (Weights("statistics", "statistics", None, statistics), files / CODEC / "statistics"),
    ):
        save_weights(weights, folder)
    return world
