"""Where a run starts: random networks, released ones, or those of another run."""

from __future__ import annotations

from dualcodec_jax import hub
from dualcodec_jax.config import SemanticConfig, semantic_model_of
from dualcodec_jax.convert.files import codec_shapes, discriminator_shapes
from dualcodec_jax.errors import ConfigError
from dualcodec_jax.loading import load
from dualcodec_jax.model import load_semantic, random_semantic
from dualcodec_jax.train.export import DISCRIMINATOR, GENERATOR
from dualcodec_jax.train.run_config import InitConfig, RunConfig, SemanticSource
from dualcodec_jax.train.state import Params, TrainState, new_state
from dualcodec_jax.weights import check_tree


def initial_state(run: RunConfig) -> TrainState:
    """The state before the first step, on the default device or the host.

    Raises:
        HubError, WeightsError, ConfigError: if the weights to start from cannot be used.
    """
    if run.init is None:
        return new_state(run.objective)
    generator, discriminator = load_networks(run.init, run)
    return new_state(run.objective, generator, discriminator)


def load_networks(init: InitConfig, run: RunConfig) -> tuple[Params, Params | None]:
    """Generator and discriminators of ``init``; None for those it does not name."""
    model, location = run.objective.model, hub.codec_location(init.location)
    names = (init.generator,) if init.generator else (GENERATOR,)
    weights = load("codec", location, names, model.model_id)
    if not model.codec.same_model(weights.config):
        raise ConfigError(
            f"{location}: the generator there has other sizes than the configured model; choose "
            "the model= that it was trained as"
        )
    check_tree(weights.params, codec_shapes(model.codec), what="the generator")
    if init.generator and not init.discriminator:
        return weights.params, None
    names = (init.discriminator,) if init.discriminator else (DISCRIMINATOR,)
    judges = load("discriminator", location, names)
    shapes = discriminator_shapes(run.objective.discriminator)
    check_tree(judges.params, shapes, what="the discriminators")
    return weights.params, judges.params


def load_frozen(source: SemanticSource, config: SemanticConfig) -> Params:
    """``semantic`` and ``statistics``, as :func:`dualcodec_jax.encode` takes them.

    Raises:
        HubError, WeightsError: see :func:`dualcodec_jax.model.load_semantic`.
        ConfigError: if the model there has other sizes than the configured one.
    """
    if source.random:
        params, statistics = random_semantic(config)
        return {"semantic": params, "statistics": statistics}
    found, params, statistics = load_semantic(
        source.statistics, source.w2v_path, semantic_model_of(config)
    )
    if found != config:
        raise ConfigError(
            f"the semantic model at {source.w2v_path} has sizes {found}, not {config}"
        )
    return {"semantic": params, "statistics": statistics}
