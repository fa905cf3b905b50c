"""bfloat16 in NumPy: the type of ml_dtypes, imported on first use because the import takes half a second."""

import functools
from typing import Any

import numpy as np


@functools.cache
def bfloat16() -> np.dtype:
    """Return NumPy's dtype of bfloat16, ``ml_dtypes.bfloat16``."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def dtype_of(name: str) -> np.dtype:
    """Return NumPy's dtype of this name; NumPy itself knows "bfloat16" only once ml_dtypes is imported."""
    return bfloat16() if name == "bfloat16" else np.dtype(name)


def is_bfloat16(dtype: np.dtype) -> bool:
    return dtype.name == "bfloat16"


def finfo(dtype: str | np.dtype) -> Any:
    """Return the limits of a floating-point dtype, as ``np.finfo`` does."""
    name = dtype if isinstance(dtype, str) else dtype.name
    if name != "bfloat16":
        return np.finfo(name)
    import ml_dtypes

    return ml_dtypes.finfo(name)
