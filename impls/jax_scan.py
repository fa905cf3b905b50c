"""JAX on the CPU: jax.lax.scan over time, gradients by jax.vjp, all compiled by XLA.

Arrays are jax.Array on the CPU; ``asarray`` and ``to_numpy`` copy.  The forward equations are those of
``rnnbench.networks.cells``; no derivative is handwritten.  One product computes the inputs of all time steps before the
loop.  Calls return before XLA is done; ``synchronize`` waits.  The first call with a new shape, dtype or phase compiles, and
so does the first with lengths; other lengths of the same shape do not.

float64 needs jax_enable_x64, which is set in the calling thread only while a network runs.  XLA creates one thread pool at
start-up, with NPROC threads or else one per available processor.  Its size is fixed from then on, so ``load`` rejects any
other number.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from rnnbench.errors import ArgumentError, BackendUnavailable
from rnnbench.installing import how_to_install
from rnnbench.networks.arrays import check_plain
from rnnbench.networks.cells import Activations
from rnnbench.networks.checked import CheckedNetwork, checked_load
from rnnbench.networks.contract import Gradients, Network, State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec
from rnnbench.networks.stream import ForwardStream, Stream
from rnnbench.processes.environment import process_threads

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError as error:
    raise BackendUnavailable(f"jax_scan needs JAX: {how_to_install('peers')}") from error

__all__ = ["asarray", "info", "load", "supports", "supports_lengths", "synchronize", "to_numpy"]

Weights = dict[str, jax.Array]

Inputs = tuple[jax.Array, jax.Array | None]
"""The input product (B, G*H) of a time step and, where rows differ in length, which of them have that step (B, 1)."""

Device = Any
"""jax.Device, which pyright mistakes for a variable."""


THREADS = process_threads("NPROC")  # XLA's own rule, evaluated just before XLA applies it
DEVICE = jax.devices("cpu")[0]  # starts XLA, which fixes the size of its thread pool

# the slope is for handwritten derivatives, which are not used here
_ACTIVATIONS = Activations(tanh=jnp.tanh, sigmoid=jax.nn.sigmoid, relu=jax.nn.relu, relu_slope=jnp.sign)


def _step(spec: Spec, w: Weights, a: jax.Array, state: State) -> State:
    """One time step of one layer: a (B, G*H) is the input product, each part of the state (B, H)."""
    cell, H = spec.kind, spec.hidden_size  # noqa: N806  # the field's name
    equations = cell.equations(_ACTIVATIONS, spec.nonlinearity)
    outer = cell.outer_gates * H
    peepholes = tuple(w["weight_ch"].reshape(-1, H)) if cell.peepholes else ()
    carried = {None: (), "h": state[:1], "c": state[1:]}[cell.carries] + peepholes
    inputs, recurrent = _gates(a, H), _gates(_affine(state[0], w["weight_hh"][:outer], w, "bias_hh", slice(outer)), H)
    if equations.inner:
        operand = equations.inner(inputs, recurrent, carried)
        recurrent += _gates(_affine(operand, w["weight_hh"][outer:], w, "bias_hh", slice(outer, None)), H)
    new, _ = equations.forward(inputs, recurrent, carried)
    if cell.output:
        return _affine(new[0], w[f"weight_{cell.output}"], w, f"bias_{cell.output}"), *new[1:]
    return new


def _affine(v: jax.Array, weight: jax.Array, w: Weights, bias: str, rows: slice = slice(None)) -> jax.Array:
    """v W^T + bias, over the last axis of v."""
    product = v @ weight.T
    return product + w[bias][rows] if bias in w else product


def _gates(z: jax.Array, H: int) -> tuple[jax.Array, ...]:  # noqa: N803
    return tuple(jnp.split(z, z.shape[-1] // H, axis=-1))


def _network(
    spec: Spec, weights: Weights, x: jax.Array, state: State, lengths: jax.Array | None = None
) -> tuple[jax.Array, State]:
    """y (T, B, D*H) and the final state of all layers and directions."""
    active = None if lengths is None else jnp.arange(len(x))[:, None, None] < lengths[:, None]
    if active is not None:
        x = jnp.where(active, x, 0)  # the weights' gradients would be NaN where an unread x is
    finals: list[State] = []
    for layer in range(spec.num_layers):
        outputs = []
        for tail in ("", "_reverse")[: spec.directions]:
            w = {name: weights[f"{name}_l{layer}{tail}"] for name in spec.layer_shapes(layer)}
            a = _affine(x, w["weight_ih"], w, "bias_ih")

            def step(state: State, inputs: Inputs, w: Weights = w) -> tuple[State, jax.Array]:
                a_t, active_t = inputs
                new = _step(spec, w, a_t, state)
                if active_t is None:
                    return new, new[0]
                kept = tuple(jnp.where(active_t, after, before) for after, before in zip(new, state, strict=True))
                return kept, jnp.where(active_t, new[0], 0)

            initial = tuple(part[len(finals)] for part in state)
            final, y = jax.lax.scan(step, initial, (a, active), reverse=bool(tail))
            outputs.append(y)
            finals.append(final)
        x = jnp.concatenate(outputs, axis=-1)
    return x, tuple(jnp.stack(parts) for parts in zip(*finals, strict=True))


_forward = functools.partial(jax.jit, static_argnums=0)(_network)


@functools.partial(jax.jit, static_argnums=0)
def _single_step(spec: Spec, weights: Weights, x_t: jax.Array, state: State) -> tuple[jax.Array, State]:
    y, final = _network(spec, weights, x_t[None], state)
    return y[0], final


@functools.partial(jax.jit, static_argnums=0)
def _record(
    spec: Spec, weights: Weights, x: jax.Array, state: State, lengths: jax.Array | None = None
) -> tuple[tuple[jax.Array, State], Any]:
    """The results, and the function for BPTT: a pytree of the residuals that JAX chose to keep."""
    return jax.vjp(functools.partial(_network, spec, lengths=lengths), weights, x, state)


@jax.jit
def _backward(pullback: Any, dy: jax.Array, dstate: State) -> tuple[Weights, jax.Array, State]:
    return pullback((dy, dstate))


class ScanNetwork(CheckedNetwork):
    """A network on ``device`` with one jitted function per phase; calls run within ``precision(dtype)``."""

    array_type = jax.Array
    takes_lengths = True

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray], device: Device, precision: Callable[[Any], Any]) -> None:
        self._device = device
        self.arrays = _Arrays(spec.numpy_dtype, device)
        super().__init__(spec, params, functools.partial(precision, spec.dtype))

    def _set_params(self, params: Params) -> None:
        self._weights = {name: placed(value, self._device) for name, value in params.items()}

    def _forward(self, x: jax.Array, state: State, lengths: np.ndarray | None = None) -> tuple[jax.Array, State]:
        return _submitted(_forward(self.spec, self._weights, x, state, *self._placed(lengths)))

    def _stream(self, batch_size: int, state: State | None) -> Stream:
        return StepStream(self, batch_size, state)

    def _record(self, x: jax.Array, state: State, lengths: np.ndarray | None = None) -> tuple[jax.Array, State, Any]:
        (y, final), pullback = _submitted(_record(self.spec, self._weights, x, state, *self._placed(lengths)))
        return y, final, pullback

    def _placed(self, lengths: np.ndarray | None) -> tuple[jax.Array, ...]:
        """Lengths on the device as the only element, in the dtype that JAX has in all its modes; or nothing."""
        return () if lengths is None else (jnp.array(lengths.astype(np.int32), device=self._device),)

    def _backward(self, content: Any, dy: jax.Array, dstate: State) -> Gradients:
        return Gradients(*_submitted(_backward(content, dy, dstate)))

    def _check_place(self, name: str, array: jax.Array) -> None:
        if array.devices() != {self._device}:
            raise ArgumentError(f"{name} is on {', '.join(map(str, array.devices()))}; expected {self._device}")


class StepStream(ForwardStream):
    """A stream whose steps are one jitted call, without a copy for the axis of time."""

    def _step(self, x_t: jax.Array) -> jax.Array:
        network = self._network
        with network.limits():
            y, self._state = _submitted(_single_step(network.spec, network._weights, x_t, self._state))
        return y


class _Arrays:
    """Array operations for one dtype (``rnnbench.networks.arrays.Arrays``)."""

    def __init__(self, dtype: np.dtype, device: Device) -> None:
        self._dtype, self._device = dtype, device

    def zeros(self, shape: tuple[int, ...]) -> jax.Array:
        with as_it_is(self._dtype):
            return _submitted(jnp.zeros(shape, self._dtype, device=self._device))

    def concat(self, arrays: Sequence[jax.Array], axis: int) -> jax.Array:
        with as_it_is(self._dtype):
            return _submitted(jnp.concatenate(arrays, axis))

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        with as_it_is(self._dtype):
            return _submitted(a + b)


class _Setting(NamedTuple):
    """A setting of JAX: its name, its harmless values, and a context that sets one of them in this thread."""

    name: str
    harmless: tuple[Any, ...]
    context: Callable[[], Any]


_SETTINGS = [
    _Setting("jax_default_matmul_precision", (None, "float32", "highest"), lambda: jax.default_matmul_precision("highest")),
    _Setting("jax_numpy_rank_promotion", ("allow",), lambda: jax.numpy_rank_promotion("allow")),
    _Setting("jax_numpy_dtype_promotion", ("standard",), lambda: jax.numpy_dtype_promotion("standard")),
    _Setting("jax_debug_nans", (False,), lambda: jax.debug_nans(False)),
    _Setting("jax_debug_infs", (False,), lambda: jax.debug_infs(False)),
    _Setting("jax_disable_jit", (False,), lambda: jax.disable_jit(False)),
    _Setting("jax_check_tracer_leaks", (False,), lambda: jax.check_tracer_leaks(False)),
    *(
        _Setting(f"jax_transfer_guard_{way}", (None, "allow"), lambda: jax.transfer_guard("allow"))
        for way in ("host_to_device", "device_to_host", "device_to_device")
    ),
]


@contextlib.contextmanager
def as_it_is(dtype: Any) -> Iterator[None]:
    """Make JAX keep and compute in a dtype, whatever the caller has set; for this thread only."""
    with jax.enable_x64(np.dtype(dtype).itemsize == 8), contextlib.ExitStack() as changed:
        for setting in _SETTINGS:
            if getattr(jax.config, setting.name) not in setting.harmless:
                changed.enter_context(setting.context())
        yield


_unfinished: list[jax.Array] = []


def _submitted(results: Any) -> Any:
    """Register one small result of a call for ``synchronize``; it is ready when all results of the call are."""
    _unfinished[:] = [array for array in _unfinished if not array.is_ready()]  # type: ignore[attr-defined]  # not declared
    _unfinished.append(min(jax.tree.leaves(results), key=lambda array: array.nbytes))
    return results


def synchronize() -> None:
    """Wait for all submitted calls."""
    jax.block_until_ready(_unfinished)
    _unfinished.clear()


@checked_load
def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    """Build the network; raises ArgumentError for ``threads`` other than None or the size of XLA's pool."""
    if threads not in (None, THREADS):
        raise ArgumentError(
            f"threads is {threads}; expected None or {THREADS}: the size of XLA's thread pool is fixed at start-up "
            f"(set NPROC={threads} before Python starts)"
        )
    return ScanNetwork(spec, params, DEVICE, as_it_is)


def asarray(array: np.ndarray) -> jax.Array:
    """Copy a NumPy array into a JAX array of the same dtype on the CPU."""
    return placed(array, DEVICE)


def placed(array: np.ndarray, device: Device) -> jax.Array:
    """Copy a NumPy array into a JAX array of the same dtype on a device."""
    check_plain("the array", array)
    with as_it_is(array.dtype):
        return jnp.array(array, device=device)


def to_numpy(array: jax.Array) -> np.ndarray:
    """Wait for an array, and copy it into a NumPy array of the same dtype."""
    with as_it_is(array.dtype):
        return np.array(array)


def supports(spec: Spec) -> str | None:
    return None


def supports_lengths(spec: Spec) -> str | None:
    return None


def info() -> dict[str, Any]:
    """Versions and device; ``threads`` is the size of XLA's thread pool, shared by all networks of the process."""
    return {"jax": jax.__version__, "jaxlib": version("jaxlib"), "device": str(DEVICE.platform), "threads": THREADS}
