"""A backend to start from: one-layer, one-direction LSTM and GRU in plain NumPy, with hand-written gradients.

    rnnbench template > mine.py
    rnnbench check mine.py --level smoke    # takes seconds; then run it without --level, then with --level full

It keeps every promise of docs/contract.md.  Replace the four functions at the end with your own, one at a time.
"""

from typing import Any, NamedTuple

import numpy as np

# A backend has six functions.  It may use its own array type; asarray and to_numpy convert.


def load(spec: Any, params: Any, *, threads: int | None = None) -> "Network":
    """Return a network with these weights.  ``threads`` is ignored: NumPy uses its own number of threads."""
    return Network(spec, params)


def asarray(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array)


def to_numpy(array: np.ndarray) -> np.ndarray:
    return array


def synchronize() -> None:
    """Return when all submitted work is done; NumPy has no pending work."""


def supports(spec: Any) -> str | None:
    """Return None, or the reason why not; rnnbench never loads an unsupported network."""
    if spec.cell not in CELLS:
        return "only lstm and gru are implemented"
    if spec.projection_size is not None:
        return "a projection is not implemented"
    if spec.num_layers > 1 or spec.bidirectional:
        return "only one layer in one direction is implemented"
    return None if spec.dtype in ("float32", "float64") else "only float32 and float64 are implemented"


def info() -> dict[str, Any]:
    """Return the facts to store with the times."""
    return {"device": "cpu", "numpy": np.__version__}


# A network has five methods: forward, record, backward, params and update.
# x is (T, B, I), y is (T, B, H), each part of a state is (1, B, H).


class Gradients(NamedTuple):
    params: dict[str, np.ndarray]
    x: np.ndarray
    state: tuple[np.ndarray, ...]


class Tape:
    """The values of one call that backward needs; the network keeps none of them, so several tapes may be alive."""

    def __init__(self, network: "Network", weights: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
        self.network, self.weights, self.shape, self.used = network, weights, shape, False
        self.steps: list[Any] = []


class Network:
    def __init__(self, spec: Any, params: Any) -> None:
        self.spec, self.dtype = spec, np.dtype(spec.dtype)
        self.step, self.step_back, self.state_parts = CELLS[spec.cell]
        self.update(params)

    def params(self) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self.weights.items()}

    def update(self, params: Any) -> None:
        shapes = self.spec.param_shapes()
        for name, shape in shapes.items():
            if name not in params or np.shape(params[name]) != shape:
                raise ValueError(f"{name} is missing or has another shape; expected {shape}")
        self.weights = {name: np.array(params[name], self.dtype) for name in shapes}  # copies; tapes keep the old dict

    def forward(self, x: np.ndarray, state: Any = None) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        y, final, _ = self.record(x, state)
        return y, final

    def record(self, x: np.ndarray, state: Any = None) -> tuple[np.ndarray, tuple[np.ndarray, ...], Tape]:
        self.check("x", x, (None, None, self.spec.input_size))
        steps, batch, _ = x.shape
        carried = self.split_state("state", state, batch)
        tape = Tape(self, self.weights, x.shape)
        y = np.empty((steps, batch, self.spec.hidden_size), self.dtype)
        for t in range(steps):
            new, saved = self.step(self.weights, x[t], carried)
            tape.steps.append((x[t], carried, saved))
            carried, y[t] = new, new[0]
        return y, tuple(part[None].copy() for part in carried), tape  # copies, because the caller may overwrite them

    def backward(self, tape: Tape, dy: np.ndarray, dstate: Any = None) -> Gradients:
        if not isinstance(tape, Tape) or tape.network is not self or tape.used:
            raise ValueError("the tape is used, or of another network; expected an unused tape of this network")
        steps, batch, _ = tape.shape
        self.check("dy", dy, (steps, batch, self.spec.hidden_size))
        dcarried = self.split_state("dstate", dstate, batch)
        tape.used = True
        weights = tape.weights
        grads = {name: np.zeros_like(array) for name, array in weights.items()}
        dx = np.empty(tape.shape, self.dtype)
        for t in reversed(range(steps)):
            x, carried, saved = tape.steps[t]
            dnew = (dcarried[0] + dy[t], *dcarried[1:])
            da, db, dcarried = self.step_back(carried, saved, dnew)  # da, db: cotangents of the products with x and with h
            dcarried = (dcarried[0] + db @ weights["weight_hh_l0"], *dcarried[1:])
            dx[t] = da @ weights["weight_ih_l0"]
            grads["weight_ih_l0"] += da.T @ x
            grads["weight_hh_l0"] += db.T @ carried[0]
            if self.spec.bias:
                grads["bias_ih_l0"] += da.sum(0)
                grads["bias_hh_l0"] += db.sum(0)
        tape.steps.clear()
        return Gradients(grads, dx, tuple(part[None] for part in dcarried))

    def split_state(self, name: str, state: Any, batch: int) -> tuple[np.ndarray, ...]:
        """Copy the parts of a state into (B, H) arrays; None means zeros."""
        shape = (1, batch, self.spec.hidden_size)
        parts = [np.zeros(shape, self.dtype)] * self.state_parts if state is None else list(state)
        if len(parts) != self.state_parts:
            raise ValueError(f"{name} has {len(parts)} parts; expected {self.state_parts}")
        for part in parts:
            self.check(name, part, shape)
        return tuple(part[0].copy() for part in parts)

    def check(self, name: str, array: np.ndarray, shape: tuple[int | None, ...]) -> None:
        fits = array.ndim == len(shape) and all(e in (None, s) for s, e in zip(array.shape, shape, strict=True))
        if not fits or array.dtype != self.dtype:
            raise ValueError(f"{name} is {array.dtype} {array.shape}; expected {self.dtype} {shape}")


# A cell has two functions: one step forward and one step back.  The rows of the weights are grouped by gate: i, f, g, o for
# lstm and r, z, n for gru.


def sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(z, 0)) / (1 + np.exp(-np.abs(z)))  # exp of non-positive numbers cannot overflow


def preactivations(w: dict[str, np.ndarray], x: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = x @ w["weight_ih_l0"].T, h @ w["weight_hh_l0"].T
    return (a + w["bias_ih_l0"], b + w["bias_hh_l0"]) if "bias_ih_l0" in w else (a, b)


def lstm(w: dict[str, np.ndarray], x: np.ndarray, carried: tuple[np.ndarray, ...]) -> tuple[Any, Any]:
    h, c = carried
    a, b = preactivations(w, x, h)
    zi, zf, zg, zo = np.split(a + b, 4, 1)
    i, f, g, o = sigmoid(zi), sigmoid(zf), np.tanh(zg), sigmoid(zo)
    new_c = f * c + i * g
    tanh_c = np.tanh(new_c)
    return (o * tanh_c, new_c), (i, f, g, o, tanh_c)


def lstm_back(carried: tuple[np.ndarray, ...], saved: Any, dnew: tuple[np.ndarray, ...]) -> tuple[Any, Any, Any]:
    (_, c), (i, f, g, o, tanh_c), (dh, dc) = carried, saved, dnew
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    dz = np.concatenate(
        [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)], 1
    )  # fmt: skip
    return dz, dz, (np.zeros_like(dh), dc * f)


def gru(w: dict[str, np.ndarray], x: np.ndarray, carried: tuple[np.ndarray, ...]) -> tuple[Any, Any]:
    (h,) = carried
    a, b = preactivations(w, x, h)
    (ar, az, an), (br, bz, bn) = np.split(a, 3, 1), np.split(b, 3, 1)
    r, z = sigmoid(ar + br), sigmoid(az + bz)
    n = np.tanh(an + r * bn)
    return (n + z * (h - n),), (r, z, n, bn)


def gru_back(carried: tuple[np.ndarray, ...], saved: Any, dnew: tuple[np.ndarray, ...]) -> tuple[Any, Any, Any]:
    (h,), (r, z, n, bn), (dh,) = carried, saved, dnew
    dn = dh * (1 - z) * (1 - n * n)
    dr, dz = dn * bn * r * (1 - r), dh * (h - n) * z * (1 - z)
    return np.concatenate([dr, dz, dn], 1), np.concatenate([dr, dz, dn * r], 1), (dh * z,)


CELLS = {"lstm": (lstm, lstm_back, 2), "gru": (gru, gru_back, 1)}
"""Each cell's step forward, step back and number of state parts: h and c for lstm, h for gru."""
