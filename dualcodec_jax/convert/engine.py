"""Strict, total, two-way conversion of named tensors.

A model's table is a list of :class:`Rule`, one per tensor: PyTorch key, parameter path,
layout transform. The same table runs in both directions. Nothing is skipped in silence:
missing and unexpected keys, wrong shapes and wrong dtypes are reported together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dualcodec_jax.errors import WeightsError

Tensors = Mapping[str, np.ndarray]
Path = tuple[str, ...]
Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Transform:
    """A change of layout and its inverse."""

    to_jax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


def permutation(*axes: int) -> Transform:
    """Transpose to ``axes``."""
    inverse = tuple(int(axis) for axis in np.argsort(axes))
    return Transform(lambda x: np.transpose(x, axes), lambda x: np.transpose(x, inverse))


def _split_phases(x: np.ndarray) -> np.ndarray:
    inputs, outputs, taps = x.shape
    return x.reshape(inputs, outputs, 2, taps // 2).transpose(2, 0, 3, 1)[::-1]


def _join_phases(x: np.ndarray) -> np.ndarray:
    _, inputs, stride, outputs = x.shape
    return x[::-1].transpose(1, 3, 0, 2).reshape(inputs, outputs, 2 * stride)


IDENTITY = Transform(lambda x: x, lambda x: x)
LINEAR = permutation(1, 0)
"""``[O, I] ↔ [I, O]``."""
CONV1D = permutation(2, 1, 0)
"""``[O, I, k] ↔ [k, I, O]``; gains ``[O, 1, 1] ↔ [1, 1, O]`` as well."""
CONV2D = permutation(2, 3, 1, 0)
"""``[O, I, kh, kw] ↔ [kh, kw, I, O]``; gains as well."""
CONV_TRANSPOSE1D = Transform(_split_phases, _join_phases)
"""``[I, O, 2s] ↔ [2, I, s, O]``: later taps first, see ``nn.conv.conv_transpose1d``."""
GAIN_TRANSPOSE1D = Transform(lambda x: x[None, :, :, :], lambda x: x[0])
"""``[I, 1, 1] ↔ [1, I, 1, 1]``."""
CHANNELS = Transform(lambda x: x[0, :, 0], lambda x: x[None, :, None])
"""``[1, C, 1] ↔ [C]``."""
DEPTHWISE = Transform(lambda x: x[:, 0, :].T, lambda x: x.T[:, None, :])
"""``[C, 1, k] ↔ [k, C]``."""
POINTWISE = Transform(lambda x: x[:, :, 0].T, lambda x: x.T[:, :, None])
"""``[O, I, 1] ↔ [I, O]``."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor: its PyTorch key, its parameter path, and the change of layout between them."""

    torch_key: str
    path: Path
    transform: Transform = IDENTITY


def weight_norm_rules(
    torch_prefix: str, path: Path, weight: Transform = CONV1D, gain: Transform | None = None
) -> list[Rule]:
    """Rules of a weight-normalised layer: ``weight_v``, ``weight_g``, ``bias``."""
    return [
        Rule(f"{torch_prefix}.weight_v", (*path, "weight_v"), weight),
        Rule(f"{torch_prefix}.weight_g", (*path, "weight_g"), gain or weight),
        Rule(f"{torch_prefix}.bias", (*path, "bias")),
    ]


def to_jax(tensors: Tensors, rules: list[Rule], shapes: Params, *, what: str) -> Params:
    """Convert PyTorch tensors to a parameter tree.

    Args:
        tensors: name → float32 array, in any of the spellings that
            :func:`normalize_names` knows.
        rules: the model's table.
        shapes: the target tree (leaves with a ``shape``), as from ``jax.eval_shape``.
        what: name of the model, for messages.

    Raises:
        WeightsError: listing every missing, unexpected, misshapen or mistyped tensor, and
            every parameter that no rule fills.
    """
    wanted = flatten(shapes)
    tensors = normalize_names(tensors, {rule.torch_key for rule in rules})
    keys = {rule.torch_key for rule in rules}
    problems = [f"missing tensor {key}" for key in sorted(keys - set(tensors))]
    problems += [f"unexpected tensor {key}" for key in sorted(set(tensors) - keys)]
    unfilled = sorted(set(wanted) - {rule.path for rule in rules})
    problems += [f"no rule fills parameter {'/'.join(path)}" for path in unfilled]
    filled: dict[Path, np.ndarray] = {}
    for rule in rules:
        if rule.torch_key not in tensors:
            continue
        source = tensors[rule.torch_key]
        if source.dtype != np.float32:
            problems.append(f"{rule.torch_key} is {source.dtype}, not float32")
            continue
        expected = tuple(wanted[rule.path].shape)
        # Not the shape after the change of layout: some changes drop axes, whatever their size.
        zeros = np.broadcast_to(np.float32(0), expected)
        if source.shape != rule.transform.to_torch(zeros).shape:
            problems.append(
                f"{rule.torch_key} has shape {list(source.shape)}, which does not fit parameter "
                f"{'/'.join(rule.path)} {list(expected)}"
            )
            continue
        filled[rule.path] = np.ascontiguousarray(rule.transform.to_jax(source))
    raise_problems(problems, what)
    return unflatten(filled)


def to_torch(params: Params, rules: list[Rule], *, what: str) -> dict[str, np.ndarray]:
    """The inverse of :func:`to_jax`, bit-exact: parameter tree → PyTorch-named arrays."""
    leaves = flatten(params)
    paths = {rule.path for rule in rules}
    problems = [f"missing parameter {'/'.join(path)}" for path in sorted(paths - set(leaves))]
    problems += [f"unexpected parameter {'/'.join(path)}" for path in sorted(set(leaves) - paths)]
    raise_problems(problems, what)
    return {
        rule.torch_key: np.ascontiguousarray(rule.transform.to_torch(np.asarray(leaves[rule.path])))
        for rule in rules
    }


def normalize_names(tensors: Tensors, expected: set[str]) -> dict[str, np.ndarray]:
    """Rename known spellings of the same tensors to those in ``expected``.

    A common ``module.``, ``model.`` or ``wav2vec2_bert.`` prefix is dropped;
    ``parametrizations.weight.original0/1`` become ``weight_g``/``weight_v``; a folded
    ``weight`` becomes v = weight with g = its norm, so that g · v / ‖v‖ is the weight again.
    """
    renamed = dict(tensors)
    for prefix in ("module.", "model.", "wav2vec2_bert."):
        if renamed and all(key.startswith(prefix) for key in renamed):
            renamed = {key[len(prefix) :]: value for key, value in renamed.items()}
    result: dict[str, np.ndarray] = {}
    for key, value in renamed.items():
        for spelling, name in (("original0", "weight_g"), ("original1", "weight_v")):
            key = key.replace(f"parametrizations.weight.{spelling}", name)
        base, _, last = key.rpartition(".")
        if last == "weight" and key not in expected and f"{base}.weight_v" in expected:
            axes = tuple(range(1, value.ndim))
            norm = np.sqrt(np.sum(np.square(value.astype(np.float64)), axis=axes, keepdims=True))
            result[f"{base}.weight_g"] = norm.astype(value.dtype)
            key = f"{base}.weight_v"
        result[key] = value
    return result


def raise_problems(problems: list[str], what: str, limit: int = 12) -> None:
    """Raise :class:`WeightsError` with all ``problems``, unless there are none."""
    if not problems:
        return
    shown = "\n  ".join(problems[:limit])
    rest = f"\n  … and {len(problems) - limit} more" if len(problems) > limit else ""
    raise WeightsError(f"these weights do not fit {what}:\n  {shown}{rest}")


def flatten(tree: Mapping[str, Any], prefix: Path = ()) -> dict[Path, Any]:
    """Nested dicts → {path: leaf}."""
    leaves: dict[Path, Any] = {}
    for name, value in tree.items():
        path = (*prefix, name)
        leaves.update(flatten(value, path) if isinstance(value, Mapping) else {path: value})
    return leaves


def unflatten(leaves: Mapping[Path, Any]) -> Params:
    """The inverse of :func:`flatten`."""
    tree: Params = {}
    for path, value in leaves.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = value
    return tree
