"""Checks of a model's arguments; each raises ArgumentError with what is wrong, what was given and what is allowed."""

from collections.abc import Mapping

import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.models.spec import ModelSpec
from rnnbench.networks.arrays import check_plain
from rnnbench.networks.params import Params, check_names


def check_model_params(spec: ModelSpec, params: Mapping[str, np.ndarray]) -> Params:
    """Check names, shapes and dtypes of a model's parameters."""
    shapes = spec.param_shapes()
    check_names(params, shapes, "the model")
    return {name: check_numbers(name, params[name], shape, spec.numpy_dtype) for name, shape in shapes.items()}


def check_numbers(
    name: str, array: np.ndarray, shape: tuple[int | None, ...], dtype: np.dtype, mask: np.ndarray | None = None
) -> np.ndarray:
    """Check shape and dtype; where ``mask`` is 0, an element may be anything, and becomes 0."""
    if not isinstance(array, np.ndarray):
        raise ArgumentError(f"{name} is a {type(array).__module__}.{type(array).__name__}; expected a numpy.ndarray")
    check_plain(name, array)
    if array.ndim != len(shape) or any(e is not None and s != e for s, e in zip(array.shape, shape, strict=True)):
        sizes = ", ".join("_" if size is None else str(size) for size in shape)
        raise ArgumentError(f"{name} has shape {array.shape}; expected ({sizes})")
    if array.dtype != dtype:
        raise ArgumentError(f"{name} has dtype {array.dtype}; expected {dtype}")
    if mask is None or not isinstance(mask, np.ndarray) or mask.shape not in (array.shape, array.shape[:2]):
        return array
    counted = mask if mask.ndim == array.ndim else mask[..., None]
    return np.where(counted == 0, dtype.type(0), array)


def check_indices(name: str, indices: np.ndarray, limit: int, shape: tuple[int, ...] | None = None) -> None:
    """Check that an array (T, B) holds integers from 0 to below ``limit``."""
    if not isinstance(indices, np.ndarray) or indices.dtype.kind not in "iu":
        got = f"an array of {indices.dtype}" if isinstance(indices, np.ndarray) else f"a {type(indices).__name__}"
        raise ArgumentError(f"{name} is {got}; expected a numpy.ndarray of integers")
    check_plain(name, indices)
    if indices.ndim != 2 or (shape is not None and indices.shape != shape) or not all(indices.shape):
        wanted = "(T, B), both at least 1" if shape is None else str(shape)
        raise ArgumentError(f"{name} has shape {indices.shape}; expected {wanted}")
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= limit:
        raise ArgumentError(f"{name} has {low if low < 0 else high}; expected integers from 0 to {limit - 1}")


def check_weights(mask: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, float]:
    """Return the mask in this shape divided by its sum, and the sum."""
    if mask is None:
        count = float(np.prod(shape))
        return np.full(shape, 1 / count, dtype), count
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "fiub":
        got = f"an array of {mask.dtype}" if isinstance(mask, np.ndarray) else f"a {type(mask).__name__}"
        raise ArgumentError(f"mask is {got}; expected a numpy.ndarray of numbers")
    if mask.shape not in (shape, shape[:2]):
        raise ArgumentError(f"mask has shape {mask.shape}; expected {' or '.join(map(str, dict.fromkeys((shape, shape[:2]))))}")
    full = np.broadcast_to(mask if mask.ndim == len(shape) else mask[..., None], shape).astype(np.float64)
    if not np.isfinite(full).all() or full.min() < 0:
        raise ArgumentError("mask has a negative or infinite number; expected numbers from 0 on")
    count = float(full.sum())
    if count == 0:
        raise ArgumentError("mask is 0 everywhere; expected at least one target that counts")
    return (full / count).astype(dtype), count
