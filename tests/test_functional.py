"""The pure functions: transformations, padding, sharding, lowering, gradients."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax import config, functional
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.errors import InputError
from dualcodec_jax.inference import Inference
from dualcodec_jax.lengths import code_length, decoded_samples, min_samples
from dualcodec_jax.nn.codec import DualCodec
from dualcodec_jax.nn.random import random_params

TINY = config.PRESETS["tiny"]
HOP = TINY.codec.hop_length
ROWS = TINY.codec.n_quantizers
BATCH, SAMPLES = 3, 9 * HOP - 5

encode = jax.jit(functional.encode, static_argnames=("config", "n_quantizers"))
decode = jax.jit(functional.decode, static_argnames="config")


@pytest.fixture(scope="module")
def params(tiny_inference: Inference) -> Any:
    return tiny_inference.params


@pytest.fixture(scope="module")
def audio(speech: np.ndarray) -> np.ndarray:
    """Three different stretches of speech, ``[3, 1, N]``."""
    starts = (30_000, 70_000, 110_000)
    return np.stack([speech[start : start + SAMPLES] for start in starts])[:, None]


@pytest.fixture(scope="module")
def encoded(params: Any, audio: np.ndarray) -> functional.Encoded:
    return encode(params, TINY, audio, np.full(BATCH, SAMPLES), ROWS)


@pytest.fixture(scope="module")
def decoded(params: Any, encoded: functional.Encoded) -> functional.Decoded:
    return decode(params, TINY, encoded.codes, np.asarray(encoded.lengths))


def test_shapes_types_and_lengths(encoded: functional.Encoded, decoded: functional.Decoded) -> None:
    frames = code_length(SAMPLES, TINY.codec)
    assert encoded.codes.shape == (BATCH, ROWS, frames)
    assert encoded.codes.dtype == encoded.lengths.dtype == jnp.int32
    assert encoded.lengths.tolist() == [frames] * BATCH
    samples = decoded_samples(frames, TINY.codec)
    assert decoded.audio.shape == (BATCH, 1, samples)
    assert decoded.audio.dtype == jnp.float32
    assert decoded.lengths.tolist() == [samples] * BATCH
    assert decoded.lengths.dtype == jnp.int32
    assert 0.001 < np.std(decoded.audio) < 1
    assert np.max(np.abs(decoded.audio)) < 1


def test_codes_are_in_range_and_diverse(encoded: functional.Encoded) -> None:
    for row, size in enumerate(TINY.codec.codebook_sizes):
        codes = np.asarray(encoded.codes[:, row])
        assert 0 <= codes.min() <= codes.max() < size
        assert len(np.unique(codes)) > 12


def test_no_lengths_means_full_lengths(
    params: Any, audio: np.ndarray, encoded: functional.Encoded, decoded: functional.Decoded
) -> None:
    plain = encode(params, TINY, audio, None, ROWS)
    np.testing.assert_array_equal(plain.codes, encoded.codes)
    np.testing.assert_array_equal(plain.lengths, encoded.lengths)
    sound = decode(params, TINY, encoded.codes)
    np.testing.assert_allclose(sound.audio, decoded.audio, atol=1e-6)
    np.testing.assert_array_equal(sound.lengths, decoded.lengths)


def test_vmap_over_items_is_the_batch(
    params: Any, audio: np.ndarray, encoded: functional.Encoded
) -> None:
    def one(item: jax.Array, length: jax.Array) -> functional.Encoded:
        return functional.encode(params, TINY, item[None], length[None], ROWS)

    result = jax.jit(jax.vmap(one))(audio, jnp.full(BATCH, SAMPLES))
    np.testing.assert_array_equal(result.codes[:, 0], encoded.codes)
    np.testing.assert_array_equal(result.lengths[:, 0], encoded.lengths)


def test_vmapped_decoding_is_the_batch(
    params: Any, encoded: functional.Encoded, decoded: functional.Decoded
) -> None:
    one = jax.vmap(lambda codes: functional.decode(params, TINY, codes[None]).audio[0])
    # Convolutions of other shapes add in another order.
    np.testing.assert_allclose(jax.jit(one)(encoded.codes), decoded.audio, atol=1e-6)


def test_codes_past_a_length_are_zero_and_padding_is_ignored(
    params: Any, audio: np.ndarray, encoded: functional.Encoded
) -> None:
    # The second ends with a filterbank frame; the third is too short for any code.
    lengths = np.array([SAMPLES, 8280, 100])
    past = np.arange(SAMPLES) >= lengths[:, None, None]
    zeros, garbage = (
        encode(params, TINY, np.where(past, value, audio).astype(np.float32), lengths, ROWS)
        for value in (0, np.nan)
    )
    frames = [code_length(int(n), TINY.codec) for n in lengths]
    assert garbage.lengths.tolist() == frames
    assert frames[2] == 0
    np.testing.assert_array_equal(garbage.codes, zeros.codes)
    for item, count in enumerate(frames):
        assert not np.any(garbage.codes[item, :, count:])
    np.testing.assert_array_equal(garbage.codes[0], encoded.codes[0])
    assert np.any(garbage.codes[1, :, : frames[1]])


def test_audio_past_a_length_is_zero_and_codes_there_are_ignored(
    params: Any, encoded: functional.Encoded, decoded: functional.Decoded
) -> None:
    frames = encoded.codes.shape[2]
    lengths = np.array([frames, 3, 0])
    past = np.arange(frames) >= lengths[:, None, None]
    zeros, others = (
        decode(params, TINY, jnp.where(past, value, encoded.codes), lengths) for value in (0, 5)
    )
    np.testing.assert_array_equal(others.audio, zeros.audio)
    samples = [decoded_samples(frames, TINY.codec), decoded_samples(3, TINY.codec), 0]
    assert others.lengths.tolist() == samples
    for item, count in enumerate(samples):
        assert not np.any(others.audio[item, :, count:])
    np.testing.assert_array_equal(others.audio[0], decoded.audio[0])
    assert np.std(others.audio[1, :, : samples[1]]) > 0.001


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, SAMPLES), "shape .batch, 1, samples.; got .1, 17275."),
        ((1, 2, SAMPLES), "shape .batch, 1, samples."),
        ((1, 1, 1, SAMPLES), "shape .batch, 1, samples."),
        ((1, 1, min_samples(TINY.codec) - 1), "too short: 2038 samples .* at least 2039"),
    ],
)
def test_encode_errors_come_at_trace_time(
    params: Any, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        encode.trace(params, TINY, jax.ShapeDtypeStruct(shape, np.float32), None, ROWS)


@pytest.mark.parametrize("n_quantizers", [0, -1, ROWS + 1])
def test_wrong_quantizer_counts_are_refused(params: Any, n_quantizers: int) -> None:
    audio = jax.ShapeDtypeStruct((1, 1, SAMPLES), np.float32)
    with pytest.raises(InputError, match=f"n_quantizers must be 1…4; got {n_quantizers}"):
        encode.trace(params, TINY, audio, None, n_quantizers)


@pytest.mark.parametrize("shape", [(1, ROWS + 1, 4), (1, 0, 4), (1, 4, 0), (4, 4), (1, 1, 4, 4)])
def test_decode_errors_come_at_trace_time(params: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"codes must have shape \[batch, 1…4, frames\]"):
        decode.trace(params, TINY, jax.ShapeDtypeStruct(shape, np.int32))


def test_another_configuration_is_another_compilation(params: Any, audio: np.ndarray) -> None:
    """The precision is part of the static configuration."""
    narrow = dataclasses.replace(TINY, precision="bfloat16")
    audio_shape = jax.ShapeDtypeStruct(audio.shape, np.float32)
    wide_text = encode.trace(params, TINY, audio_shape, None, 1).lower().as_text()
    narrow_text = encode.trace(params, narrow, audio_shape, None, 1).lower().as_text()
    assert "bf16" not in wide_text
    assert "bf16" in narrow_text


def test_semantic_features_are_pooled_and_normalised(
    params: Any, audio: np.ndarray, encoded: functional.Encoded
) -> None:
    run = jax.jit(functional.semantic_features, static_argnames="config")
    features, frames = run(params, TINY, audio[:, 0])
    assert features.shape == (BATCH, encoded.codes.shape[2], TINY.codec.semantic_dim)
    assert features.dtype == jnp.float32
    np.testing.assert_array_equal(frames, encoded.lengths)
    statistics = params["statistics"]
    shifted = {"mean": statistics["mean"] + 1, "var": 4 * statistics["var"]}
    other, _ = run({**params, "statistics": shifted}, TINY, audio[:, 0])
    expected = (features - 1 / jnp.sqrt(statistics["var"])) / 2
    np.testing.assert_allclose(other, expected, atol=1e-5)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_lowers_for_accelerators(params: Any, platform: str) -> None:
    """No operation that only CPUs have, found out without the accelerator."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    lengths = jax.ShapeDtypeStruct((2,), np.int32)
    audio = jax.ShapeDtypeStruct((2, 1, 9 * HOP), np.float32)
    codes = jax.ShapeDtypeStruct((2, ROWS, 8), np.int32)
    to_codes = functools.partial(functional.encode, config=TINY, n_quantizers=ROWS)
    to_audio = functools.partial(functional.decode, config=TINY)
    export = functools.partial(jax.export.export, platforms=[platform])
    encoder = export(jax.jit(to_codes))(shapes, audio=audio, lengths=lengths)
    assert [leaf.shape for leaf in encoder.out_avals] == [(2, ROWS, 8), (2,)]
    assert encoder.platforms == (platform,)
    decoder = export(jax.jit(to_audio))(shapes, codes=codes, lengths=lengths)
    assert decoder.out_avals[0].shape == (2, 1, decoded_samples(8, TINY.codec))


# Every kind of layer: gradients of the tiny preset take half a minute to compile.
SHALLOW = dataclasses.replace(
    TINY.codec,
    encoder_dim=32,
    encoder_rates=(5,),
    decoder_rates=(5,),
    n_codebooks=2,
    convnext_layers=1,
)
FEATURES = np.random.default_rng(0).standard_normal((1, 3, SHALLOW.semantic_dim), np.float32)
WAVE = np.random.default_rng(1).standard_normal((1, 19, 1), np.float32)


@pytest.fixture(scope="module")
def shallow_params() -> Any:
    return random_params(codec_shapes(SHALLOW), seed=0)


def test_gradients_reach_every_parameter(shallow_params: Any) -> None:
    @jax.jit
    @jax.grad
    def gradients(params: Any) -> jax.Array:
        output = DualCodec(SHALLOW).apply({"params": params}, WAVE, FEATURES)
        loss = jnp.mean(jnp.square(output.audio - WAVE))
        loss += jnp.mean(jnp.square(output.semantic_latent - FEATURES))
        for stream in (output.semantic, output.acoustic):
            loss += stream.commitment_loss + stream.codebook_loss
        return loss

    leaves = jax.tree.leaves_with_path(jax.tree.map(np.asarray, gradients(shallow_params)))
    assert any("codebook" in jax.tree_util.keystr(path) for path, _ in leaves)
    for path, leaf in leaves:
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
        assert leaf.any(), jax.tree_util.keystr(path)


@pytest.mark.parametrize(("n_quantizers", "layers"), [(None, 2), (3, 2), (2, 1)])
def test_training_pass_runs_the_first_layers(
    shallow_params: Any, n_quantizers: int | None, layers: int
) -> None:
    output = jax.eval_shape(
        lambda p: DualCodec(SHALLOW).apply({"params": p}, WAVE, FEATURES, n_quantizers),
        shallow_params,
    )
    assert output.audio.shape == WAVE.shape
    assert output.semantic_latent.shape == FEATURES.shape
    assert output.semantic.codes.shape == (1, 1, 3)
    assert output.acoustic.codes.shape == (1, layers, 3)


def test_a_bypass_uses_neither_encoder_nor_quantizer(shallow_params: Any) -> None:
    """Nor would they get a gradient: upstream's optimiser does not touch them on such steps."""
    unused = jax.tree.map(lambda x: np.full_like(x, np.nan), shallow_params["dac"])
    dac = {**unused, "decoder": shallow_params["dac"]["decoder"]}

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def run(params: Any, n_quantizers: int | None, bypass: bool) -> Any:
        return DualCodec(SHALLOW).apply(
            {"params": params}, WAVE, FEATURES, n_quantizers, bypass=bypass
        )

    params = {**shallow_params, "dac": dac}
    output = run(params, None, True)
    assert output.acoustic is None
    # The decoder covers all but the last hop; the rest is zero.
    covered = decoded_samples(3, SHALLOW)
    assert covered < WAVE.shape[1] == output.audio.shape[1]
    assert np.all(output.audio[:, :covered])
    assert not np.any(output.audio[:, covered:])
    one = jax.eval_shape(lambda p: run(p, 1, False), params)
    assert one.acoustic is None


SHARDED = """
import dataclasses
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from dualcodec_jax import config, functional
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.model import random_semantic
from dualcodec_jax.nn.random import random_params

jax.config.update("jax_platforms", "cpu")
tiny = config.PRESETS["tiny"]
codec = dataclasses.replace(
    tiny.codec, encoder_dim=8, encoder_rates=(6, 8, 10), decoder_rates=(10, 8, 6),
    semantic_downsample_factor=1, n_codebooks=1, convnext_layers=1,
)
semantic = dataclasses.replace(tiny.semantic, num_layers=1)
tiny = dataclasses.replace(tiny, codec=codec, semantic=semantic)
assert len(jax.devices()) == 8
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
replicated, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
semantic, statistics = random_semantic(semantic)
params = {
    "codec": random_params(codec_shapes(codec), 0), "semantic": semantic, "statistics": statistics
}
rng = np.random.default_rng(0)
audio = 0.1 * rng.standard_normal((8, 1, 9600), np.float32)
lengths = np.array([9600, 2039, 5000, 7000, 9599, 4000, 8192, 6001], np.int32)


def encode(params, audio, lengths):
    return functional.encode(params, tiny, audio, lengths, 2)


sharded = jax.jit(encode, in_shardings=(replicated, split, split), out_shardings=split)
compiled = sharded.lower(params, audio, lengths).compile()
encoded = compiled(
    jax.device_put(params, replicated), jax.device_put(audio, split), jax.device_put(lengths, split)
)
assert len(encoded.codes.sharding.device_set) == 8
assert encoded.codes.addressable_shards[0].data.shape[0] == 1
assert "all-gather" not in compiled.as_text() and "all-reduce" not in compiled.as_text()
one = jax.jit(encode)(*jax.device_put((params, audio, lengths), jax.devices()[0]))
np.testing.assert_array_equal(encoded.codes, one.codes)
np.testing.assert_array_equal(encoded.lengths, one.lengths)
assert len(np.unique(one.codes[:, 0])) > 20
"""


@pytest.mark.slow
def test_eight_devices_give_the_codes_of_one() -> None:
    """Data parallel without communication. A process of its own: devices are counted once."""
    flags = "--xla_force_host_platform_device_count=8"
    environment = dict(os.environ, XLA_FLAGS=flags)
    result = subprocess.run(
        [sys.executable, "-c", SHARDED],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
