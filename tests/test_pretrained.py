"""Models saved as one folder, and loaded from it, from a hub, and by everything else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml
from test_hub import CODEC_COMMIT, W2V_BERT_COMMIT, fake_hub, run  # noqa: F401

import dualcodec_jax as dualcodec
from dualcodec_jax import hub
from dualcodec_jax.config import get_config
from dualcodec_jax.convert.engine import flatten
from dualcodec_jax.ecosystem.pretrained import Semantic, is_pretrained
from dualcodec_jax.errors import HubError, InputError, WeightsError
from dualcodec_jax.inference import Inference
from dualcodec_jax.model import DualCodecModel, random_model, random_semantic
from dualcodec_jax.weights import Weights, save_weights

MAIN_COMMIT = hashlib.sha1(b"main").hexdigest()  # what the hub of these tests answers


@pytest.fixture(scope="module")
def tiny_model() -> DualCodecModel:
    return random_model("tiny")


@pytest.fixture(scope="module")
def tiny_semantic() -> Semantic:
    config = get_config("tiny").semantic
    return config, *random_semantic(config)


@pytest.fixture(scope="module")
def tiny_inference(tiny_model: DualCodecModel, tiny_semantic: Semantic) -> Inference:
    return Inference(tiny_model, semantic=tiny_semantic)


@pytest.fixture(scope="module")
def saved(tiny_inference: Inference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_inference.save_pretrained(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def same(first: Any, second: Any) -> bool:
    have, want = flatten(first), flatten(second)
    return set(have) == set(want) and all(
        np.asarray(have[path]).tobytes() == np.asarray(want[path]).tobytes() for path in want
    )


# -- round trips -----------------------------------------------------------------------------


def test_the_same_model_comes_back(
    saved: Path, tiny_inference: Inference, tiny_model: DualCodecModel
) -> None:
    loaded = Inference.from_pretrained(saved)
    assert loaded.config == tiny_inference.config
    assert same(loaded.params, tiny_inference.params)
    assert same(loaded.model.params, tiny_model.params)  # weight-normalised: it can be finetuned
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded.params))
    assert loaded.model.source == tiny_model.source


def test_a_second_save_is_the_same(saved: Path, tmp_path: Path) -> None:
    again = Inference.from_pretrained(saved).save_pretrained(tmp_path / "again")
    files = [path.relative_to(saved) for path in sorted(saved.rglob("*")) if path.is_file()]
    assert [str(file) for file in files] == [
        "README.md",
        "config.json",
        "statistics/config.json",
        "statistics/model.safetensors",
        "tiny/config.json",
        "tiny/model.safetensors",
        "w2v_bert/config.json",
        "w2v_bert/model.safetensors",
    ]
    for file in files:
        assert (again / file).read_bytes() == (saved / file).read_bytes(), file


def test_options_of_loading(saved: Path) -> None:
    loaded = Inference.from_pretrained(str(saved), precision="bfloat16", decode_only=True)
    assert loaded.config.precision == "bfloat16"
    assert set(loaded.params) == {"codec"}
    with pytest.raises(InputError, match="decode_only"):
        loaded.encode(np.zeros((1, 1, 24000), np.float32))
    with pytest.raises(InputError, match="no semantic model to save; load it without"):
        loaded.save_pretrained(saved.parent / "other")


def test_everything_else_reads_it(saved: Path, tiny_inference: Inference) -> None:
    """As a location of weights."""
    assert is_pretrained(saved)
    assert not is_pretrained(saved / "tiny")
    model = dualcodec.get_model("tiny", saved)
    loaded = Inference(model, dualcodec_path=saved, w2v_path=saved)
    assert same(loaded.params, tiny_inference.params)


def test_eight_bits(saved: Path, tiny_inference: Inference, tmp_path: Path) -> None:
    small = tiny_inference.save_pretrained(tmp_path / "small", quantized=True)
    sizes = [
        sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        for folder in (saved, small)
    ]
    assert sizes[1] < sizes[0] / 2
    loaded = Inference.from_pretrained(small)
    kernel = loaded.model.params["dac"]["decoder"]["conv_in"]["weight_v"]
    exact = tiny_inference.model.params["dac"]["decoder"]["conv_in"]["weight_v"]
    assert 0 < np.abs(kernel - exact).max() < 0.005 * np.abs(exact).max()
    assert same(loaded.params["statistics"], tiny_inference.params["statistics"])


def test_a_model_of_no_preset(tiny_model: DualCodecModel, tmp_path: Path) -> None:
    """A codec of its own sizes and without a semantic stream."""
    config = dataclasses.replace(tiny_model.config, encoding="dac", n_codebooks=2)
    from dualcodec_jax.convert.files import codec_shapes
    from dualcodec_jax.nn.random import random_params

    model = DualCodecModel("my.dac-2", config, random_params(codec_shapes(config), 0))
    folder = Inference(model).save_pretrained(tmp_path / "dac")
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "my.dac-2"}
    loaded = Inference.from_pretrained(folder)
    assert loaded.model.config == config
    assert same(loaded.model.params, model.params)
    assert "| semantic model | none |" in (folder / "README.md").read_text()


# -- a semantic model that is left out ---------------------------------------------------------


def test_left_out(
    tiny_inference: Inference,
    tiny_semantic: Semantic,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "hf://facebook/w2v-bert-2.0"
    folder = tiny_inference.save_pretrained(tmp_path / "tiny", semantic_location=name)
    assert not (folder / "w2v_bert").exists()
    assert f"`w2v_bert`, from `{name}@{W2V_BERT_COMMIT}`" in (folder / "README.md").read_text()

    config, params, _ = tiny_semantic
    place = save_weights(Weights("w2v_bert", "w2v_bert", config, params), tmp_path / "w2v")
    assert same(
        Inference.from_pretrained(folder, w2v_path=place).params["semantic"],
        tiny_inference.params["semantic"],
    )
    monkeypatch.setenv(hub.W2V_BERT_VARIABLE, str(place))
    assert "semantic" in Inference.from_pretrained(folder).params

    other, _ = random_semantic(config, seed=5)
    place = save_weights(Weights("w2v_bert", "w2v_bert", config, other), tmp_path / "other")
    with pytest.raises(WeightsError, match=r"is not the semantic model that .* was saved with"):
        Inference.from_pretrained(folder, w2v_path=place)
    assert set(Inference.from_pretrained(folder, decode_only=True).params) == {"codec"}


def test_what_ships_with_the_package(tmp_path: Path) -> None:
    """The demo, without its semantic model."""
    inference = Inference(dualcodec.get_model("demo"))
    folder = inference.save_pretrained(tmp_path / "demo", semantic_location="bundled")
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "demo",
        "statistics",
    }
    loaded = Inference.from_pretrained(folder)
    assert same(loaded.params["semantic"], inference.params["semantic"])
    assert "not the DualCodec release" in (folder / "README.md").read_text()


def test_a_place_that_others_do_not_have(tiny_inference: Inference, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be hf://owner/name"):
        tiny_inference.save_pretrained(tmp_path / "tiny", semantic_location="/my/w2v-bert")
    assert not (tmp_path / "tiny").exists()


# -- the card --------------------------------------------------------------------------------


def test_card(
    saved: Path,
    tiny_inference: Inference,
    speech: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = (saved / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "dualcodec-jax"
    assert header["pipeline_tag"] == "audio-to-audio"
    config = get_config("tiny").codec
    assert f"{config.frame_rate:g} frames" in card
    assert f"{config.bitrate() / 1000:.3f} kbit/s" in card
    # Its program runs, and the model codes as the one that was saved.
    monkeypatch.chdir(tmp_path)
    dualcodec.write_audio("speech.wav", speech[:12000], 24000)
    (program,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(program.replace("FOLDER OR OWNER/NAME", str(saved)), names)
    codes = tiny_inference.encode(dualcodec.load_audio("speech.wav").samples[None, None], None)
    for name, rows in zip(("semantic", "acoustic"), codes, strict=True):
        assert (names[name] == rows).all()
    assert same({"audio": names["reconstructed"]}, {"audio": tiny_inference.decode(*codes)})


# -- writing ---------------------------------------------------------------------------------


def test_overwriting(saved: Path, tiny_inference: Inference, copy: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        tiny_inference.save_pretrained(copy)
    (copy / "tiny" / "model.safetensors").write_bytes(b"damaged")
    tiny_inference.save_pretrained(copy, overwrite=True)
    written = (copy / "tiny" / "model.safetensors").read_bytes()
    assert written == (saved / "tiny" / "model.safetensors").read_bytes()
    (copy / "recording.wav").touch()
    with pytest.raises(InputError, match=r"holds recording.wav, which is no part"):
        tiny_inference.save_pretrained(copy, overwrite=True)
    assert (copy / "recording.wav").exists()


def test_overwriting_something_else(tiny_inference: Inference, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="not a folder of save_pretrained"):
        tiny_inference.save_pretrained(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "statistics", "w2v_bert", "config.json"])
def test_names_that_are_no_folders(
    tiny_model: DualCodecModel, tiny_semantic: Semantic, tmp_path: Path, name: str
) -> None:
    model = dataclasses.replace(tiny_model, model_id=name)
    with pytest.raises(InputError, match="cannot be the name of a folder"):
        Inference(model, semantic=tiny_semantic).save_pretrained(tmp_path / "out")


def test_failure_leaves_nothing(
    tiny_inference: Inference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dualcodec_jax.ecosystem.pretrained.model_card", fail)
    with pytest.raises(InputError, match="No space left"):
        tiny_inference.save_pretrained(tmp_path / "tiny")
    assert not list(tmp_path.iterdir())


# -- what cannot be loaded -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not a folder of save_pretrained; get_model reads checkpoints"),
        ({"format_version": 2}, "format version 2, but this release reads 1"),
        ({"extra": "x"}, "is damaged, or was edited by hand"),
        ({"model_id": "../tiny"}, "is damaged, or was edited by hand"),
        ({"model_id": 3}, "is damaged, or was edited by hand"),
        ({"semantic_model": "hubert"}, "unknown semantic model 'hubert'"),
        ({"semantic_location": "/etc"}, "is no place for a semantic model"),
        ({"semantic_model": None}, "says tiny with the semantic model None, but the generator is"),
        ({"model_id": "w2v_bert"}, "holds w2v_bert weights, not codec"),
    ],
)
def test_edited_descriptions(copy: Path, changes: dict[str, Any], message: str) -> None:
    edit(copy, **changes)
    with pytest.raises(WeightsError, match=re.escape(message)):
        Inference.from_pretrained(copy)


def test_damaged_parts(copy: Path, tiny_semantic: Semantic) -> None:
    config = tiny_semantic[0]
    wider = dataclasses.replace(config, hidden_size=2 * config.hidden_size)
    widths = random_semantic(wider)
    shutil.rmtree(copy / "w2v_bert")
    shutil.rmtree(copy / "statistics")
    save_weights(Weights("w2v_bert", "w2v_bert", wider, widths[0]), copy / "w2v_bert")
    save_weights(Weights("statistics", "statistics", None, widths[1]), copy / "statistics")
    with pytest.raises(WeightsError, match="reads 64 features, but the semantic model has 128"):
        Inference.from_pretrained(copy)
    shutil.rmtree(copy / "w2v_bert")
    with pytest.raises(HubError, match="has no w2v_bert"):
        Inference.from_pretrained(copy)
    tensors = copy / "tiny" / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        Inference.from_pretrained(copy)
    (copy / "config.json").unlink()
    with pytest.raises(WeightsError, match="not a folder of save_pretrained"):
        Inference.from_pretrained(copy)


@pytest.mark.parametrize("location", ["nowhere", "/no/where", "a/b/c", Path("owner/name")])
def test_no_such_place(tmp_path: Path, monkeypatch: Any, location: str | Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match=r"no such folder; give one that save_pretrained wrote"):
        Inference.from_pretrained(location)


def test_two_revisions() -> None:
    with pytest.raises(InputError, match=r"has a revision already; drop it, or revision='b'"):
        Inference.from_pretrained("hf://owner/name@a", revision="b")


# -- a hub -----------------------------------------------------------------------------------

LOAD = """
import hashlib, json, sys
import jax, numpy as np
from dualcodec_jax import Inference
from dualcodec_jax.errors import DualCodecError
for options in json.loads(sys.argv[1]):
    try:
        inference = Inference.from_pretrained(**options)
    except DualCodecError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        continue
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((inference.model.params, inference.params.get("semantic"))):
        digest.update(np.asarray(leaf).tobytes())
    print(json.dumps({"digest": digest.hexdigest()}), flush=True)
"""


def test_from_a_hub(fake_hub: Any, saved: Path, tmp_path: Path) -> None:  # noqa: F811
    """All files of one commit, once, whatever names it; only those that are needed."""
    contents = {
        str(path.relative_to(saved)): path.read_bytes()
        for path in saved.rglob("*")
        if path.is_file()
    }
    fake_hub.files = {("me/tiny", CODEC_COMMIT, name): data for name, data in contents.items()}
    # A branch may move between two files: the others are asked for at the commit of the first.
    fake_hub.files |= {("me/moving", MAIN_COMMIT, name): data for name, data in contents.items()}
    fake_hub.files["me/moving", "main", "config.json"] = contents["config.json"]
    queries = [
        {"location": "me/tiny", "revision": CODEC_COMMIT, "decode_only": True},
        {"location": f"hf://me/tiny@{CODEC_COMMIT}"},
        {"location": "me/tiny", "revision": CODEC_COMMIT},
        {"location": "me/moving"},
        {"location": "me/other"},
    ]
    decoder, *whole, missing = run(LOAD, queries, fake_hub.endpoint, tmp_path)
    assert whole[0] == whole[1] == whole[2] != decoder
    assert "there is no such repository" in missing["error"]
    asked = [
        name
        for method, repository, _, name in fake_hub.requests
        if method == "GET" and repository == "me/tiny"
    ]
    assert asked == [
        "config.json",
        "tiny/config.json",
        "tiny/model.safetensors",
        "statistics/config.json",
        "statistics/model.safetensors",
        "w2v_bert/config.json",
        "w2v_bert/model.safetensors",
    ]
    (snapshot,) = (tmp_path / "hub" / "models--me--tiny" / "snapshots").iterdir()
    downloaded = Inference.from_pretrained(snapshot)
    assert same(downloaded.params, Inference.from_pretrained(saved).params)
