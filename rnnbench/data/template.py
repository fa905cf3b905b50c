"""A backend to start from: LSTM and GRU of one layer in one direction, plain NumPy, gradients by hand.

    rnnbench template > mine.py
    rnnbench check mine.py --level smoke    # in seconds; then without --level, then --level full

It keeps every promise of docs/contract.md.  Put your own in place of the four functions at the end, one at a time.
"""

from typing import Any, NamedTuple

import numpy as np

# What a backend is: six functions.  Arrays may be of your own kind, if asarray and to_numpy convert them.


def load(spec: Any, params: Any, *, threads: int | None = None) -> "Network":
    """A network with these weights; ``threads`` is ignored here, where NumPy decides."""
    return Network(spec, params)


def asarray(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array)


def to_numpy(array: np.ndarray) -> np.ndarray:
    return array


def synchronize() -> None:
    """Return when all submitted work is done: NumPy's always is."""


def supports(spec: Any) -> str | None:
    """None, or why not: what is refused here is never asked for."""
    if spec.cell not in CELLS:
        return "only lstm and gru are written yet"
    if spec.num_layers > 1 or spec.bidirectional:
        return "only one layer in one direction is written yet"
    return None if spec.dtype in ("float32", "float64") else "only float32 and float64 are written yet"


def info() -> dict[str, Any]:
    """What is to stand beside the times."""
    return {"device": "cpu", "numpy": np.__version__}


# What a network is: forward, record, backward, params, update.  x is (T, B, I), y (T, B, H), each part of a state (1, B, H).


class Gradients(NamedTuple):
    params: dict[str, np.ndarray]
    x: np.ndarray
    state: tuple[np.ndarray, ...]


class Tape:
    """What backward needs of one call: nothing of it is kept in the network, so that several tapes may be alive."""

    def __init__(self, network: "Network", weights: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
        self.network, self.weights, self.shape, self.used = network, weights, shape, False
        self.steps: list[Any] = []


class Network:
    def __init__(self, spec: Any, params: Any) -> None:
        self.spec, self.dtype = spec, np.dtype(spec.dtype)
        self.step, self.step_back, self.parts = CELLS[spec.cell]
        self.update(params)

    def params(self) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self.weights.items()}

    def update(self, params: Any) -> None:
        shapes = self.spec.param_shapes()
        for name, shape in shapes.items():
            if name not in params or np.shape(params[name]) != shape:
                raise ValueError(f"{name} is missing or has another shape; expected {shape}")
        self.weights = {name: np.array(params[name], self.dtype) for name in shapes}  # copies; tapes keep the old ones

    def forward(self, x: np.ndarray, state: Any = None) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        y, final, _ = self.record(x, state)
        return y, final

    def record(self, x: np.ndarray, state: Any = None) -> tuple[np.ndarray, tuple[np.ndarray, ...], Tape]:
        self.check("x", x, (None, None, self.spec.input_size))
        steps, batch, _ = x.shape
        carried = self.unpacked("state", state, batch)
        tape = Tape(self, self.weights, x.shape)
        y = np.empty((steps, batch, self.spec.hidden_size), self.dtype)
        for t in range(steps):
            new, kept = self.step(self.weights, x[t], carried)
            tape.steps.append((x[t], carried, kept))
            carried, y[t] = new, new[0]
        return y, tuple(part[None].copy() for part in carried), tape  # copies: what a caller does with them is its affair

    def backward(self, tape: Tape, dy: np.ndarray, dstate: Any = None) -> Gradients:
        if not isinstance(tape, Tape) or tape.network is not self or tape.used:
            raise ValueError("expected a tape of this network that was not used yet")
        steps, batch, _ = tape.shape
        self.check("dy", dy, (steps, batch, self.spec.hidden_size))
        dcarried = self.unpacked("dstate", dstate, batch)
        tape.used = True
        weights = tape.weights
        grads = {name: np.zeros_like(array) for name, array in weights.items()}
        dx = np.empty(tape.shape, self.dtype)
        for t in reversed(range(steps)):
            x, carried, kept = tape.steps[t]
            dnew = (dcarried[0] + dy[t], *dcarried[1:])
            da, db, dcarried = self.step_back(carried, kept, dnew)  # of the sums with x and with h, and past both
            dcarried = (dcarried[0] + db @ weights["weight_hh_l0"], *dcarried[1:])
            dx[t] = da @ weights["weight_ih_l0"]
            grads["weight_ih_l0"] += da.T @ x
            grads["weight_hh_l0"] += db.T @ carried[0]
            if self.spec.bias:
                grads["bias_ih_l0"] += da.sum(0)
                grads["bias_hh_l0"] += db.sum(0)
        tape.steps.clear()
        return Gradients(grads, dx, tuple(part[None] for part in dcarried))

    def unpacked(self, name: str, state: Any, batch: int) -> tuple[np.ndarray, ...]:
        """The parts of a state as (B, H) arrays of our own; zeros for None."""
        shape = (1, batch, self.spec.hidden_size)
        given = [np.zeros(shape, self.dtype)] * self.parts if state is None else list(state)
        if len(given) != self.parts:
            raise ValueError(f"{name} has {len(given)} parts; expected {self.parts}")
        for part in given:
            self.check(name, part, shape)
        return tuple(part[0].copy() for part in given)

    def check(self, name: str, array: np.ndarray, shape: tuple[int | None, ...]) -> None:
        fits = array.ndim == len(shape) and all(e in (None, s) for s, e in zip(array.shape, shape, strict=True))
        if not fits or array.dtype != self.dtype:
            raise ValueError(f"{name} is {array.dtype} {array.shape}; expected {self.dtype} {shape}")


# What a cell is: one step, and one step back.  Weights hold the rows of gate after gate: i, f, g, o, or r, z, n.


def sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(z, 0)) / (1 + np.exp(-np.abs(z)))  # exp of no positive number: it cannot overflow


def sums(w: dict[str, np.ndarray], x: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = x @ w["weight_ih_l0"].T, h @ w["weight_hh_l0"].T
    return (a + w["bias_ih_l0"], b + w["bias_hh_l0"]) if "bias_ih_l0" in w else (a, b)


def lstm(w: dict[str, np.ndarray], x: np.ndarray, carried: tuple[np.ndarray, ...]) -> tuple[Any, Any]:
    h, c = carried
    a, b = sums(w, x, h)
    zi, zf, zg, zo = np.split(a + b, 4, 1)
    i, f, g, o = sigmoid(zi), sigmoid(zf), np.tanh(zg), sigmoid(zo)
    new_c = f * c + i * g
    tanh_c = np.tanh(new_c)
    return (o * tanh_c, new_c), (i, f, g, o, tanh_c)


def lstm_back(carried: tuple[np.ndarray, ...], kept: Any, dnew: tuple[np.ndarray, ...]) -> tuple[Any, Any, Any]:
    (_, c), (i, f, g, o, tanh_c), (dh, dc) = carried, kept, dnew
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    dz = np.concatenate(
        [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)], 1
    )  # fmt: skip
    return dz, dz, (np.zeros_like(dh), dc * f)


def gru(w: dict[str, np.ndarray], x: np.ndarray, carried: tuple[np.ndarray, ...]) -> tuple[Any, Any]:
    (h,) = carried
    a, b = sums(w, x, h)
    (ar, az, an), (br, bz, bn) = np.split(a, 3, 1), np.split(b, 3, 1)
    r, z = sigmoid(ar + br), sigmoid(az + bz)
    n = np.tanh(an + r * bn)
    return (n + z * (h - n),), (r, z, n, bn)


def gru_back(carried: tuple[np.ndarray, ...], kept: Any, dnew: tuple[np.ndarray, ...]) -> tuple[Any, Any, Any]:
    (h,), (r, z, n, bn), (dh,) = carried, kept, dnew
    dn = dh * (1 - z) * (1 - n * n)
    dr, dz = dn * bn * r * (1 - r), dh * (h - n) * z * (1 - z)
    return np.concatenate([dr, dz, dn], 1), np.concatenate([dr, dz, dn * r], 1), (dh * z,)


CELLS = {"lstm": (lstm, lstm_back, 2), "gru": (gru, gru_back, 1)}
"""A step, a step back, and how many parts the state has: h, and c for lstm."""
