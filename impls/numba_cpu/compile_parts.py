"""Kernels of a model's parts: the functions of ``output_kernels`` and ``parameter_kernels``, compiled for one dtype, target and
loss, activation or rule; each on its first call, or loaded from Numba's cache (``compile``)."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable

from rnnbench.impls.numba_cpu import output_kernels, parameter_kernels
from rnnbench.impls.numba_cpu.activations import activations, exponential
from rnnbench.impls.numba_cpu.binding import bound, named, variant
from rnnbench.impls.numba_cpu.compile import compiled
from rnnbench.impls.numba_cpu.products import products
from rnnbench.jit.target import Target
from rnnbench.models.equations import RULES, SLOPES, squared_error

Function = Callable[..., Any]

CHUNK = 512
"""Number of columns of cotangents that are multiplied at a time."""


@functools.cache
def loss_gradients(loss: str, activation: str, dtype: np.dtype, target: Target) -> Function:
    """``output_kernels.gradients`` for "cross_entropy" or "squared_errors"."""
    names, key = _loss_names(loss, activation, dtype, target)
    names["cotangents"] = register_jitable(bound(getattr(output_kernels, loss), key, names))
    return compiled(bound(output_kernels.gradients, key, names))


@functools.cache
def losses(loss: str, activation: str, dtype: np.dtype, target: Target) -> Function:
    """``output_kernels.losses`` for "cross_entropy" or "squared_errors"."""
    names, key = _loss_names(loss, activation, dtype, target)
    names["loss_of"] = register_jitable(bound(getattr(output_kernels, f"{loss}_loss"), key, names))
    return compiled(bound(output_kernels.losses, key, names))


@functools.cache
def outputs(activation: str, dtype: np.dtype, target: Target) -> Function:
    """``output_kernels.outputs`` for one activation."""
    names, key = _output_names(activation, dtype, target), f"{activation}_{variant(dtype, target)}"
    function = output_kernels.softmax_of if activation == "softmax" else output_kernels.activations_of
    names["activated"] = register_jitable(bound(function, key, names))
    return compiled(bound(output_kernels.outputs, key, names))


class Packings(NamedTuple):
    """``output_kernels.packing`` for results and gradients, and ``packing_forward`` for results alone."""

    training: Function
    forward: Function


@functools.cache
def packings(dtype: np.dtype, target: Target) -> Packings:
    names, key = {"pack": products(dtype, target).pack, "CHUNK": CHUNK}, variant(dtype, target)
    forward = bound(output_kernels.packing_forward, key, names)
    names["packing_forward"] = register_jitable(forward)
    return Packings(compiled(bound(output_kernels.packing, key, names)), compiled(forward))


def _loss_names(loss: str, activation: str, dtype: np.dtype, target: Target) -> tuple[dict[str, Any], str]:
    names, key = _output_names(activation, dtype, target), f"{loss}_{activation}_{variant(dtype, target)}"
    if loss == "cross_entropy":
        names["row_loss"] = register_jitable(bound(output_kernels.row_loss, key, names))
    return names, key


def _output_names(activation: str, dtype: np.dtype, target: Target) -> dict[str, Any]:
    names = {"ZERO": dtype.type(0), "CHUNK": CHUNK, **products(dtype, target)._asdict()}
    if activation == "softmax":
        return names | {"exp": exponential(dtype), "log": math.log}
    found = activations(dtype)
    activate = _same if activation == "identity" else getattr(found, activation)
    inlined = {"squared_error": squared_error, "slope": SLOPES[activation]}
    return names | {"activate": activate} | {n: register_jitable(forceinline=True)(f) for n, f in inlined.items()}


class Passes(NamedTuple):
    """Passes over parameters that do not depend on a rule."""

    embedding_rows: Function
    embedding_gradient: Function
    squared_norm: Function


@functools.cache
def passes(dtype: np.dtype, target: Target) -> Passes:
    names, key = {"ZERO": dtype.type(0)}, variant(dtype, target)
    return Passes(*(compiled(bound(getattr(parameter_kernels, name), key, names)) for name in Passes._fields))


class Updates(NamedTuple):
    """The updates of one rule: of a vector, and of a matrix whose gradient has few rows."""

    dense: Function
    rows: Function


@functools.cache
def updates(rule: str, dtype: np.dtype, target: Target) -> Updates:
    found, key = RULES[rule], f"{rule}_{variant(dtype, target)}"
    names: dict[str, Any] = {
        "rule": register_jitable(forceinline=True)(found.update),
        "load_slots": _loader(found.slots),
        "store_slots": _storer(found.slots),
        "SPARSE": found.sparse,
    }
    names["update_elements"] = register_jitable(bound(parameter_kernels.update_elements, key, names))
    return Updates(*(compiled(bound(f, key, names)) for f in (parameter_kernels.update, parameter_kernels.update_rows)))


@register_jitable(forceinline=True)
def _same(x):
    return x


@register_jitable
def _nothing(slots, u):
    return ()


def _loader(count: int) -> Function:
    """``f(slots, u)``: element u of each of ``count`` vectors, or row u of each of so many matrices."""
    if count == 0:
        return _nothing
    before, last = _loader(count - 1), count - 1

    @register_jitable
    def load(slots, u):
        return (*before(slots, u), slots[last][u])

    return named(load, str(count))


def _storer(count: int) -> Function:
    """``f(slots, u, values)``: the inverse of ``_loader``'s function."""
    if count == 0:

        @register_jitable
        def nothing(slots, u, values):
            pass

        return nothing
    before, last = _storer(count - 1), count - 1

    @register_jitable
    def store(slots, u, values):
        before(slots, u, values)
        slots[last][u] = values[last]

    return named(store, str(count))
