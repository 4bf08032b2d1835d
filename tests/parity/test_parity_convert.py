"""Weight files in and out: bit-exact round trips, upstream's strict loading, every refusal."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import oracle
import pytest
import safetensors.torch
import torch
import upstream
from upstream import SAMPLE_RATE, Release, relative_error

import dualcodec_jax
from dualcodec_jax.config import PRESETS, DiscriminatorConfig
from dualcodec_jax.convert.engine import flatten
from dualcodec_jax.convert.files import GENERATOR_FILES, SEMANTIC_LAYERS, STATISTICS_FILE
from dualcodec_jax.convert.stats import read_statistics
from dualcodec_jax.errors import WeightsError
from dualcodec_jax.model import load_semantic
from dualcodec_jax.nn.codec import DualCodec
from dualcodec_jax.nn.layers import fold_weight_norm
from dualcodec_jax.weights import check_tree, load_weights

State = dict[str, Any]
FOLDED = 1e-6
FOLDED_AUDIO = 1e-5  # One rounding in each kernel, through 30 layers; upstream's own: 1e-6.


def same(a: State, b: State) -> bool:
    """Equal names, types, shapes and bits."""
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a
    )


def there_and_back(source: Path, folder: Path, kind: str) -> tuple[Path, Any]:
    """Torch file → checkpoint on disk → torch file; the new file and what lay between."""
    dualcodec_jax.convert_file(source, folder / "checkpoint")
    weights = load_weights(folder / "checkpoint", kind)
    return dualcodec_jax.export_torch(weights, folder / "exported.safetensors"), weights


def identical(a: Any, b: Any) -> bool:
    """Two parameter trees with the same bits."""
    left, right = flatten(a), flatten(b)
    return left.keys() == right.keys() and all(np.array_equal(left[p], right[p]) for p in left)


# Round trips --------------------------------------------------------------------------------


def test_generator_round_trip(release: Release, model_id: str, tmp_path: Path) -> None:
    source = release.generator(model_id)
    exported, weights = there_and_back(source, tmp_path, "codec")
    assert (weights.model_id, weights.config) == (model_id, PRESETS[model_id].codec)
    state = safetensors.torch.load_file(exported)
    assert same(state, safetensors.torch.load_file(source))
    # Upstream's own two ways of loading.
    assert upstream.bare_codec(model_id).load_state_dict(state, strict=True)
    model = upstream.bare_codec(model_id)
    assert safetensors.torch.load_model(model, exported) == (set(), [])
    assert same(dict(model.state_dict()), state)
    # The same through the public model, which keeps a converted copy in its cache.
    public = dualcodec_jax.get_model(model_id, release.dualcodec)
    again = public.export_torch(tmp_path / "again.safetensors")
    assert again.read_bytes() == exported.read_bytes()
    public.save(tmp_path / "saved")
    assert identical(dualcodec_jax.get_model(model_id, tmp_path / "saved").params, weights.params)
    remove(tmp_path)


def remove(folder: Path) -> None:
    """Free the disk now: pytest keeps the folders of three sessions."""
    for path in folder.rglob("*.safetensors"):
        path.unlink()


def test_discriminator_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = dict(oracle.Discriminator(sample_rate=SAMPLE_RATE).state_dict())
    state = {name: torch.rand_like(value) for name, value in state.items()}
    safetensors.torch.save_file(state, tmp_path / "discriminator.safetensors")
    exported, weights = there_and_back(
        tmp_path / "discriminator.safetensors", tmp_path, "discriminator"
    )
    assert weights.config == DiscriminatorConfig()
    assert same(safetensors.torch.load_file(exported), state)
    model = oracle.Discriminator(sample_rate=SAMPLE_RATE)
    assert safetensors.torch.load_model(model, exported) == (set(), [])
    assert same(dict(model.state_dict()), state)
    remove(tmp_path)


def test_w2v_bert_round_trip(release: Release, tmp_path: Path) -> None:
    """The 17 layers that are read come back; the 18th and SpecAugment's vector are left out."""
    source = release.w2v_bert / "model.safetensors"
    exported, weights = there_and_back(source, tmp_path, "w2v_bert")
    assert (weights.config.num_layers, weights.config.intermediate_size) == (SEMANTIC_LAYERS, 256)
    state, original = safetensors.torch.load_file(exported), safetensors.torch.load_file(source)
    unused = {name for name in original if name.startswith("encoder.layers.17.")}
    assert len(unused) == 32
    unused.add("masked_spec_embed")
    assert same(state, {name: value for name, value in original.items() if name not in unused})
    assert len(state) == 548
    model = upstream.bare_w2v_bert(SEMANTIC_LAYERS, 256)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["masked_spec_embed"], [])
    # The prefix of transformers' task models.
    prefixed = {f"wav2vec2_bert.{name}": value for name, value in original.items()}
    (tmp_path / "prefixed").mkdir()
    safetensors.torch.save_file(prefixed, tmp_path / "prefixed/model.safetensors")
    (tmp_path / "prefixed/config.json").write_text((release.w2v_bert / "config.json").read_text())
    again = dualcodec_jax.convert_file(
        tmp_path / "prefixed/model.safetensors", tmp_path / "from_prefixed"
    )
    assert identical(again.params, weights.params)
    remove(tmp_path)


# Spellings ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state(release: Release) -> State:
    """The generator 12hz_v1."""
    return safetensors.torch.load_file(release.generator("12hz_v1"))


@pytest.fixture(scope="module")
def params(release: Release) -> Any:
    return dualcodec_jax.get_model("12hz_v1", release.dualcodec).params


def converted(tensors: State, folder: Path, **options: Any) -> Any:
    """Parameters converted from a file with these tensors."""
    safetensors.torch.save_file(tensors, folder / "source.safetensors")
    weights = dualcodec_jax.convert_file(
        folder / "source.safetensors", folder / "checkpoint", **options
    )
    remove(folder)
    assert weights.model_id == "12hz_v1"
    return weights.params


def without_weight_norm(state: State, then: Callable[[Any], Any]) -> Any:
    """Upstream's generator with ``state``, its weight norm removed, ``then`` done to each layer."""
    model = upstream.bare_codec("12hz_v1")
    model.load_state_dict(state)
    for layer in list(model.modules()):
        if hasattr(layer, "weight_g"):
            gain, direction = layer.weight_g.detach(), layer.weight_v.detach()
            torch.nn.utils.remove_weight_norm(layer)
            then((layer, gain, direction))
    return model


def test_parametrized_spelling(state: State, params: Any, tmp_path: Path) -> None:
    """What the current ``torch.nn.utils.parametrizations.weight_norm`` saves."""

    def parametrize(layer_gain_direction: Any) -> None:
        layer, gain, direction = layer_gain_direction
        torch.nn.utils.parametrizations.weight_norm(layer)
        weight = layer.parametrizations.weight
        with torch.no_grad():
            weight.original0.copy_(gain)
            weight.original1.copy_(direction)

    spelled = dict(without_weight_norm(state, parametrize).state_dict())
    assert len(spelled) == len(state)
    assert "dac.encoder.block.0.parametrizations.weight.original0" in spelled
    assert not any(name.endswith(("weight_g", "weight_v")) for name in spelled)
    assert identical(converted(spelled, tmp_path), params)


def test_folded_spelling(report: Any, state: State, params: Any, tmp_path: Path) -> None:
    """Plain weights: the same kernels, codes and audio up to rounding."""
    spelled = dict(without_weight_norm(state, lambda _: None).state_dict())
    assert "dac.encoder.block.0.weight" in spelled
    assert not any(name.endswith(("weight_g", "weight_v")) for name in spelled)
    folded = fold_weight_norm(converted(spelled, tmp_path))
    expected = fold_weight_norm(params)
    kernels = flatten(expected)
    for path, value in flatten(folded).items():
        report.error("folded weights: kernels", value, kernels[path], FOLDED)
    config = PRESETS["12hz_v1"].codec
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 12, config.semantic_dim), np.float32)
    samples = 13 * config.hop_length
    audio = np.stack([upstream.clip(name, samples)[0, 0] for name in ("librivox", "librivox_0920")])

    @jax.jit
    def run(params: Any) -> Any:
        codec = DualCodec(config)
        inputs = audio[..., None], features, config.n_quantizers
        codes = codec.apply({"params": params}, *inputs, method="encode")
        return codes, codec.apply({"params": params}, codes, method="decode")

    codes, decoded = run(folded)
    expected_codes, expected_audio = run(expected)
    assert np.array_equal(codes, expected_codes)
    report.error("folded weights: audio", decoded, expected_audio, FOLDED_AUDIO)


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
def test_prefix(state: State, params: Any, tmp_path: Path, prefix: str) -> None:
    spelled = {f"{prefix}{name}": value for name, value in state.items()}
    assert identical(converted(spelled, tmp_path), params)


# Refusals -----------------------------------------------------------------------------------


def test_every_unfit_tensor_is_named(state: State, tmp_path: Path) -> None:
    broken = dict(state)
    missing = "dac.decoder.model.3.block.1.weight_g"
    misshapen = "convnext_encoder.2.pwconv1.weight"
    transposed = "dac.quantizer.quantizers.1.out_proj.weight_v"
    half = "semantic_vq.quantizers.0.codebook.weight"
    del broken[missing]
    broken[misshapen] = broken[misshapen][:-1].contiguous()
    broken[transposed] = broken[transposed][:, :, 0].contiguous()
    broken[half] = broken[half].half()
    broken["dac.distill_projection.weight_v"] = torch.zeros(1)
    with pytest.raises(WeightsError) as error:
        converted(broken, tmp_path, model_id="12hz_v1")
    remove(tmp_path)
    message = str(error.value)
    assert f"missing tensor {missing}" in message
    assert "unexpected tensor dac.distill_projection.weight_v" in message
    assert f"{misshapen} has shape [2047, 768]" in message
    assert f"{transposed} has shape [1024, 8]" in message
    assert f"{half} is float16" in message
    assert message.count("\n") == 5
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("wanted", upstream.MODEL_IDS)
def test_the_other_models_file(release: Release, tmp_path: Path, wanted: str) -> None:
    (other,) = set(upstream.MODEL_IDS) - {wanted}
    file = release.generator(other)
    with pytest.raises(WeightsError, match=f"weights of {other}, not {wanted}"):
        dualcodec_jax.convert_file(file, tmp_path / "checkpoint", model_id=wanted)
    # The same under the name of the file that was asked for.
    (tmp_path / GENERATOR_FILES[wanted]).symlink_to(file)
    with pytest.raises(WeightsError, match=f"weights of {other}, not {wanted}"):
        dualcodec_jax.get_model(wanted, tmp_path)


def test_truncated_file(release: Release, tmp_path: Path) -> None:
    file = tmp_path / "source.safetensors"
    with release.generator("12hz_v1").open("rb") as source:
        file.write_bytes(source.read(1_000_000))
    with pytest.raises(WeightsError, match=r"source\.safetensors"):
        dualcodec_jax.convert_file(file, tmp_path / "checkpoint")


def test_discriminator_is_no_generator(tmp_path: Path) -> None:
    state = dict(oracle.Discriminator(sample_rate=SAMPLE_RATE).state_dict())
    safetensors.torch.save_file(state, tmp_path / "source.safetensors")
    with pytest.raises(WeightsError, match=r"missing tensor convnext_decoder\.0"):
        dualcodec_jax.convert_file(
            tmp_path / "source.safetensors", tmp_path / "out", kind="codec", model_id="12hz_v1"
        )
    remove(tmp_path)


# Statistics ---------------------------------------------------------------------------------


def statistics(dtype: Any, *shape: int) -> State:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(shape, generator=generator, dtype=dtype)
    return {"mean": mean, "var": torch.rand(shape, generator=generator, dtype=dtype) + 0.1}


def check_statistics(file: Path) -> None:
    expected = torch.load(file)
    actual = read_statistics(file)
    assert actual.keys() == {"mean", "var"}
    for name, value in actual.items():
        assert value.dtype == np.float32
        assert value.shape == (1024,)
        assert np.array_equal(value, expected[name].detach().float().reshape(-1).numpy())


@pytest.mark.parametrize("shape", [(1024,), (1, 1024), (1, 1, 1024)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_statistics_equal_torch_load(tmp_path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    torch.save(statistics(dtype, *shape), tmp_path / STATISTICS_FILE)
    check_statistics(tmp_path / STATISTICS_FILE)


def test_statistics_in_other_containers(tmp_path: Path) -> None:
    """Ordered, as parameters, and as two rows of one storage at an offset."""
    file, plain = tmp_path / STATISTICS_FILE, statistics(torch.float32, 1024)
    torch.save(OrderedDict(plain), file)
    check_statistics(file)
    torch.save({name: value.requires_grad_() for name, value in plain.items()}, file)
    check_statistics(file)
    both = torch.rand(3, 1024) + 0.5
    torch.save({"mean": both[1], "var": both[2], "count": torch.tensor(7.0)}, file)
    check_statistics(file)


def test_statistics_of_the_release(release: Release) -> None:
    check_statistics(release.dualcodec / STATISTICS_FILE)
    _, params, own = load_semantic(release.dualcodec, release.w2v_bert)
    expected = torch.load(release.dualcodec / STATISTICS_FILE)
    check_tree(own, {name: value.numpy() for name, value in expected.items()}, what="statistics")
    assert all(np.array_equal(own[name], expected[name]) for name in expected)
    assert "layer_16" in params
    assert "layer_17" not in params


@pytest.mark.parametrize(
    "content",
    [
        [torch.ones(4)],
        {"mean": torch.ones(4)},
        {"mean": torch.ones(4), "var": torch.ones(5)},
        {"mean": torch.ones(4), "var": torch.zeros(4)},
        {"mean": torch.ones(4), "var": torch.full((4,), np.nan)},
        {"mean": torch.ones(4).int(), "var": torch.ones(4)},
        {"mean": torch.ones(4, dtype=torch.bfloat16), "var": torch.ones(4)},
        {"mean": 1.0, "var": 2.0},
        {"mean": torch.ones(4, 2).T, "var": torch.ones(2, 4)},
        {"mean": np.ones(4), "var": np.ones(4)},
    ],
    ids=range(10),
)
def test_unfit_statistics(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / STATISTICS_FILE)
    with pytest.raises(WeightsError, match=STATISTICS_FILE.replace(".", r"\.")):
        read_statistics(tmp_path / STATISTICS_FILE)


def test_statistics_in_the_old_format(tmp_path: Path) -> None:
    torch.save(
        statistics(torch.float32, 4), tmp_path / "old.pt", _use_new_zipfile_serialization=False
    )
    with pytest.raises(WeightsError, match=r"old\.pt"):
        read_statistics(tmp_path / "old.pt")


class Attack:
    """Unpickles by calling a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("place", ["value", "beside", "top"])
@pytest.mark.parametrize("function", ["os.system", "eval"])
def test_hostile_pickle_runs_nothing(tmp_path: Path, place: str, function: str) -> None:
    marker, file = tmp_path / "marker", tmp_path / STATISTICS_FILE
    attack = {
        "os.system": Attack(os.system, f"touch {marker}"),
        "eval": Attack(eval, f"open({str(marker)!r}, 'w').close()"),
    }[function]
    plain = statistics(torch.float32, 1024)
    content = {
        "value": {**plain, "mean": attack},
        "beside": {**plain, "note": attack},
        "top": attack,
    }[place]
    torch.save(content, file)
    with pytest.raises(WeightsError, match="refused"):
        read_statistics(file)
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists(), "the attack was not real"


def test_relative_error_sees_a_difference() -> None:
    assert relative_error([1.0, 2.0], [1.0, 2.5]) == pytest.approx(0.2)
    assert not relative_error([np.nan], [1.0]) <= 1
