"""Initial parameters, and the check that parameters fit a Spec."""

from collections.abc import Collection, Mapping

import numpy as np
import psutil

from rnnbench.errors import ArgumentError
from rnnbench.networks.arrays import check_plain, numpy_errors
from rnnbench.networks.spec import Spec, check_spec

SCHEMES = ("torch-default", "xavier", "orthogonal")

Params = dict[str, np.ndarray]


def init_params(spec: Spec, seed: int, scheme: str = "torch-default", forget_bias: float = 0.0) -> Params:
    """Draw initial parameters: a dict of NumPy arrays of spec.dtype with torch.nn's names and layout.

    ``seed``: the same seed gives the same values in every dtype, up to rounding.
    ``scheme``: one of

    - "torch-default": all parameters uniform in +-1/sqrt(H), as torch.nn draws them;
    - "xavier": weights uniform in +-sqrt(6 / (fan_in + fan_out)) per gate, biases zero (Glorot and Bengio 2010); peephole
      weights as the diagonal of a matrix (H, H);
    - "orthogonal": as xavier, but each gate's recurrent matrix is orthogonal (Saxe et al. 2014); if it is not square, its
      rows or columns are orthonormal.

    ``forget_bias``: a value added to bias_ih of the memory gate, f of the LSTMs and z of gru (Jozefowicz et al. 2015).
    Raises SpecError, or ArgumentError for invalid arguments and for more parameters than this machine's memory holds.
    """
    check_spec(spec)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ArgumentError(f"seed is {seed!r}; expected an integer >= 0")
    if scheme not in SCHEMES:
        raise ArgumentError(f"scheme is {scheme!r}; expected one of {', '.join(SCHEMES)}")
    gate = spec.kind.memory_gate
    if forget_bias and (gate is None or not spec.bias):
        raise ArgumentError(f"forget_bias is {forget_bias!r}; expected 0: {spec.cell} has no memory gate with a bias")
    _check_memory(spec)
    rng = np.random.default_rng(seed)
    params = {name: _draw(rng, spec, name, shape, scheme) for name, shape in spec.param_shapes().items()}
    if forget_bias and gate is not None:
        first = spec.kind.gates.index(gate) * spec.hidden_size
        for suffix in spec.suffixes():
            params["bias_ih" + suffix][first : first + spec.hidden_size] += forget_bias
    with numpy_errors():  # the smallest values underflow in float16
        return {name: np.ascontiguousarray(value, dtype=spec.numpy_dtype) for name, value in params.items()}


def check_params(spec: Spec, params: Mapping[str, np.ndarray]) -> Params:
    """Check names, shapes and dtypes of ``params`` and copy them into C-contiguous arrays; raises ArgumentError."""
    check_spec(spec)
    shapes = spec.param_shapes()
    check_names(params, shapes, spec.cell)
    for name, shape in shapes.items():
        value = params[name]
        if not isinstance(value, np.ndarray):
            raise ArgumentError(f"{name} is a {type(value).__module__}.{type(value).__name__}; expected a numpy.ndarray")
        check_plain(name, value)
        if value.shape != shape:
            raise ArgumentError(f"{name} has shape {value.shape}; expected {shape}")
        if value.dtype != spec.numpy_dtype:
            raise ArgumentError(f"{name} has dtype {value.dtype}; expected {spec.dtype}")
    return {name: np.array(params[name], order="C") for name in shapes}


def check_names(params: Mapping[str, np.ndarray], names: Collection[str], owner: str) -> None:
    """Check that ``params`` is a mapping with exactly these names; ``owner`` is what it has to fit.  Raises ArgumentError."""
    if not isinstance(params, Mapping):
        raise ArgumentError(f"parameters are a {type(params).__name__}; expected a mapping from name to numpy.ndarray")
    missing, extra = [n for n in names if n not in params], [n for n in params if n not in names]
    if missing or extra:
        found = [f"missing {', '.join(missing)}"] * bool(missing) + [f"extra {', '.join(map(str, extra))}"] * bool(extra)
        raise ArgumentError(f"parameters do not fit {owner}: {'; '.join(found)}; expected {', '.join(names)}")


def _check_memory(spec: Spec) -> None:
    needed, total = spec.parameter_count() * np.dtype("float64").itemsize, psutil.virtual_memory().total  # drawn in float64
    if needed > total:
        raise ArgumentError(
            f"drawing {spec.parameter_count()} parameters takes {needed / 2**30:.0f} GiB; expected at most the "
            f"{total / 2**30:.0f} GiB of this machine"
        )


def _draw(rng: np.random.Generator, spec: Spec, name: str, shape: tuple[int, ...], scheme: str) -> np.ndarray:
    if scheme == "torch-default":
        return rng.uniform(-1, 1, shape) / np.sqrt(spec.hidden_size)
    if name.startswith("bias"):
        return np.zeros(shape)
    rows = shape[0] if name.startswith(("weight_ho", "weight_hr")) else spec.hidden_size
    gate_shape = (rows, spec.hidden_size if name.startswith("weight_ch") else shape[1])
    gates = shape[0] // rows
    if scheme == "orthogonal" and name.startswith("weight_hh"):
        return np.concatenate([_orthogonal(rng, gate_shape) for _ in range(gates)])
    bound = np.sqrt(6 / (gate_shape[0] + gate_shape[1]))
    return rng.uniform(-bound, bound, shape)


def _orthogonal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q = q * np.sign(np.diag(r))  # makes the distribution uniform over orthogonal matrices (Mezzadri 2007)
    return q if shape[0] >= shape[1] else q.T
