"""Any model by one word: what ``--model`` of the app and codecs of an evaluation are called."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dualcodec_jax import hub
from dualcodec_jax.config import PRESETS
from dualcodec_jax.convert.files import GENERATOR_FILES, codec_shapes
from dualcodec_jax.ecosystem.pretrained import is_pretrained
from dualcodec_jax.errors import HubError
from dualcodec_jax.inference import Inference
from dualcodec_jax.model import (
    DualCodecModel,
    get_model,
    random_model,
    random_semantic,
    statistics_place,
)
from dualcodec_jax.weights import CONFIG_FILE, check_tree, is_checkpoint, load_weights

RANDOM_PREFIX = "random-"
"""``random-12hz_v1`` has random weights, for trying things out."""
RUN_FOLDER = "checkpoints"  # of dualcodec_jax.train.export, which needs Orbax


def open_model(name: str) -> tuple[Inference, bool]:
    """Load a model, and say whether it was trained.

    Args:
        name: a model id; PLACE/MODEL with released files or checkpoints at PLACE, a folder or
            ``hf://owner/name``; a checkpoint folder; a folder of ``save_pretrained``; the folder of
            a training run; or ``random-MODEL`` for random weights.

    Raises:
        ConfigError: on an unknown model id.
        HubError: if there is nothing to load.
        WeightsError: if what is there does not fit.
    """
    if name.startswith(RANDOM_PREFIX):
        model = random_model(name.removeprefix(RANDOM_PREFIX))
        semantic = PRESETS[model.model_id].semantic
        return Inference(model, semantic=(semantic, *random_semantic(semantic))), False
    path = hub.local_path(name)
    if (path / RUN_FOLDER).is_dir():
        return _run_inference(path)
    if is_pretrained(path):
        return Inference.from_pretrained(path), True
    if is_checkpoint(path):
        return _checkpoint_inference(path), True
    if name in PRESETS:  # whatever else lies in a folder of that name
        return Inference(get_model(name)), True
    place, _, model_id = name.rpartition("/")
    if place and model_id in PRESETS:
        return Inference(get_model(model_id, place), statistics_place(place)), True
    if path.is_dir():
        return _folder_inference(path), True
    if os.sep in name:
        raise HubError(
            f"{path} is no folder; give a model id, a checkpoint, a folder of released files, or "
            "that of a training run"
        )
    return Inference(get_model(name)), True


def _folder_inference(folder: Path) -> Inference:
    """The one model of a folder of released or exported weights."""
    names = [name for name, file in GENERATOR_FILES.items() if (folder / file).is_file()]
    folders = [path for path in sorted(folder.iterdir()) if _is_codec(path)]
    # An export holds its generator twice: under the model's id and as "generator".
    folders = [path for path in folders if path.name != "generator"] or folders
    found = sorted({*names, *(path.name for path in folders)})
    if len(found) != 1:
        problem = f"holds {', '.join(found)}; name one" if found else "holds no DualCodec weights"
        raise HubError(f"{folder} {problem}: {folder}/MODEL")
    if folders:
        return _checkpoint_inference(folders[0])
    return Inference(get_model(found[0], folder), statistics_place(folder))


def _is_codec(path: Path) -> bool:
    if not is_checkpoint(path):
        return False
    return json.loads((path / CONFIG_FILE).read_text("utf-8")).get("kind") == "codec"


def _checkpoint_inference(folder: Path) -> Inference:
    weights = load_weights(folder, "codec")
    check_tree(weights.params, codec_shapes(weights.config), what=f"the generator in {folder}")
    model = DualCodecModel(weights.model_id, weights.config, weights.params, weights.source)
    return Inference(model, statistics_place(folder) or statistics_place(folder.parent))


def _run_inference(folder: Path) -> tuple[Inference, bool]:
    """The newest checkpoint of a training run, with the semantic model that it was trained on."""
    from dualcodec_jax.train.export import load_run
    from dualcodec_jax.train.initial import load_frozen

    run, state = load_run(folder)
    model = run.objective.model
    semantic = None
    if model.codec.is_dual:
        frozen = load_frozen(run.semantic, model.semantic)
        semantic = (model.semantic, frozen["semantic"], frozen["statistics"])
    source = {"run": run.name, "step": int(state.step)}
    generator = DualCodecModel(model.model_id, model.codec, state.generator, source)
    return Inference(generator, semantic=semantic), not run.semantic.random
