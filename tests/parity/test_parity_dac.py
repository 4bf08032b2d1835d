"""The DAC baselines of the paper's tables against upstream's ``DAC``, at full size."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import torch
import upstream

from dualcodec_jax import functional
from dualcodec_jax.config import Config, DualCodecConfig
from dualcodec_jax.convert.codec import codec_rules
from dualcodec_jax.convert.engine import to_jax, to_torch
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.lengths import code_length, decoded_samples
from dualcodec_jax.nn.codec import DacCodec
from dualcodec_jax.train.options import compose

ROWS = ("b2", "c1", "f2")
"""With distillation; with a larger first codebook; at 12.5 Hz."""
SAMPLES = 24_000 + 123


def row_config(row: str) -> DualCodecConfig:
    return compose(f"ablation/{row}", ["data.locations=recordings"]).objective.model.codec


def numpy_state(module: Any) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


@pytest.fixture(scope="module", params=ROWS)
def twin(request: pytest.FixtureRequest) -> tuple[DualCodecConfig, Any, Any]:
    """A configuration, upstream's module with random weights that suit speech, and ours."""
    codec = row_config(request.param)
    theirs = upstream.bare_dac(codec).eval()
    upstream.randomize_codec(theirs, 0)
    audio = torch.from_numpy(upstream.clip("librivox_0880", 2 * SAMPLES))
    upstream.calibrate(list(theirs.quantizer.quantizers), theirs, lambda: theirs(audio))
    rules, shapes = codec_rules(codec), codec_shapes(codec)
    return codec, theirs, to_jax(numpy_state(theirs), rules, shapes, what="the generator")


def test_every_tensor_has_a_place(twin: tuple[DualCodecConfig, Any, Any]) -> None:
    """Conversion is strict in both directions."""
    codec, theirs, params = twin
    back = to_torch(params, codec_rules(codec), what="the generator")
    state = numpy_state(theirs)
    assert back.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value)


def test_training_pass(report: Any, twin: tuple[DualCodecConfig, Any, Any]) -> None:
    """Codes, audio, both losses and the prediction of the features, with quantizer dropout."""
    codec, theirs, params = twin
    audio = np.stack([upstream.clip("librivox", SAMPLES, start)[0, 0] for start in (9000, 30_000)])
    active = np.array([2, len(codec.codebook_sizes)])
    theirs.train()
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "randint", lambda *_: torch.from_numpy(active))
        expected = theirs(torch.from_numpy(audio[:, None]))
    theirs.eval()
    output: Any = jax.jit(DacCodec(codec).apply)(
        {"params": params}, audio[..., None], active=active
    )
    codes = expected.codes.numpy()
    assert [len(np.unique(row)) > 5 for row in codes.swapaxes(0, 1)] == [True] * codes.shape[1]
    np.testing.assert_array_equal(output.codes, codes)
    what = f"DAC, {codec.encoding}"
    report.error(f"{what}: audio", output.audio[..., 0], expected.x.numpy()[:, 0], 1e-4)
    pairs = {
        "commitment": (output.acoustic.commitment_loss, expected.penalty),
        "codebook": (output.acoustic.codebook_loss, expected["vq/codebook_loss"]),
    }
    for name, (actual, loss) in pairs.items():
        report.value(f"{what}: {name} loss", abs(float(actual) / float(loss) - 1), 1e-5)
    assert (output.semantic_latent is None) == (codec.encoding == "dac")
    if output.semantic_latent is not None:
        predicted = upstream.channels_last(expected.first_layer_quantized)
        report.error(f"{what}: predicted features", output.semantic_latent, predicted, 1e-5)


def test_encode_and_decode(report: Any, twin: tuple[DualCodecConfig, Any, Any]) -> None:
    """Through the public functions: no semantic model, and no frame is dropped."""
    codec, theirs, params = twin
    config = Config(model_id="baseline", codec=codec)
    audio = upstream.clip("librivox", SAMPLES)
    encode = jax.jit(functional.encode, static_argnames=("config", "n_quantizers"))
    decode = jax.jit(functional.decode, static_argnames=("config",))
    with torch.no_grad():
        expected = theirs.encode(torch.from_numpy(audio), 24_000)[1]
    result = encode({"codec": params}, config, audio, n_quantizers=codec.n_quantizers)
    what = f"DAC, {codec.encoding}: "
    np.testing.assert_array_equal(result.codes, expected.numpy())
    assert result.codes.shape[2] == code_length(SAMPLES, codec) == -(-SAMPLES // codec.hop_length)
    for count in (1, codec.n_quantizers):
        with torch.no_grad():
            sound = theirs.decode_from_codes(expected[:, :count], 0.0).numpy()
        ours = decode({"codec": params}, config, result.codes[:, :count])
        assert ours.audio.shape[2] == decoded_samples(result.codes.shape[2], codec)
        report.error(f"{what}audio", ours.audio, sound, 1e-4)


def test_configurations_differ_in_the_encoding_alone() -> None:
    """Rows B1 and B3 (= G1), C1 and C3 (= G2), F2 and G3: one column of the table apart."""
    for baseline, dual in (("b1", "g1"), ("c1", "g2"), ("f2", "g3")):
        with_semantics = row_config(dual)
        assert dataclasses.replace(row_config(baseline), encoding="dual") == with_semantics
