"""Gate reordering and checks shared by all conversions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.networks.spec import Spec, check_spec


def gate_order(spec: Spec, gates: Mapping[str, tuple[str, ...]], library: str) -> tuple[str, ...]:
    check_spec(spec)
    if spec.projection_size is not None:
        raise ArgumentError(f"projection_size is {spec.projection_size}; expected None: {library} has no projection")
    if spec.cell not in gates:
        raise ArgumentError(f"cell is {spec.cell!r}; expected {', '.join(gates)}: {library} has no other")
    return gates[spec.cell]


def layer_suffixes(spec: Spec, layer: int) -> list[str]:
    """Suffixes of one layer's directions."""
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer) or not 0 <= layer < spec.num_layers:
        raise ArgumentError(f"layer is {layer!r}; expected an integer from 0 to {spec.num_layers - 1}")
    return spec.suffixes()[layer * spec.directions : (layer + 1) * spec.directions]


def reordered(array: np.ndarray, stored: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Copy an array with its gates, along the first axis, in the wanted order."""
    blocks = dict(zip(stored, np.split(array, len(stored)), strict=True))
    return np.concatenate([blocks[gate] for gate in wanted])


def check_length(given: Sequence[Any], length: int, what: str, allowed: str) -> None:
    if len(given) != length:
        raise ArgumentError(f"there are {len(given)} {what}; expected {length}: {allowed}")


def check_array(spec: Spec, name: str, array: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray):
        raise ArgumentError(f"{name} is a {type(array).__module__}.{type(array).__name__}; expected a numpy.ndarray")
    if array.shape != shape:
        raise ArgumentError(f"{name} has shape {array.shape}; expected {shape}")
    if array.dtype != spec.numpy_dtype:
        raise ArgumentError(f"{name} has dtype {array.dtype}; expected {spec.dtype}")
