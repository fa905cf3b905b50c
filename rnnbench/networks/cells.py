"""The equations of every cell, once, elementwise: forward and derivative.

A cell sees its gate pre-activations in two parts, ``a = W x + b_ih`` and ``b = U h + b_hh``, one value per gate
and hidden unit.  They are kept apart because the GRU multiplies only the second by its reset gate.
The matrix products belong to the implementations; what is elementwise stands here, and the same functions serve
NumPy arrays, Numba scalars inside CPU loops and CUDA threads:

    forward(a, b, carried)                -> new, saved
    backward(saved, carried, dnew, dinner) -> da, db, dcarried

All arguments are tuples: ``a``, ``b`` and their cotangents one value per gate, ``carried`` the state values that the
equations read (the LSTM's c, the GRU's h), ``new`` the new hidden value and, for the LSTM, the new cell value,
``saved`` what the derivative needs.  A cell with a second recurrent product inside the step (``gru_reset_before``)
adds ``inner(a, b, carried)``, the operand of that product, and ``inner_backward(saved, carried, dnew)``, the cotangents
of its results; ``dinner`` is then the cotangent of the operand, otherwise an empty tuple.

There are no numeric literals: in Numba ``1 - f`` would promote float32 to float64.  The activations come from the
platform (``Activations``), because only it knows how to round, saturate and vectorise them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

Function = Callable[..., Any]


class Activations(NamedTuple):
    """A platform's elementwise functions; ``relu_slope(y)`` is the derivative of relu, 0 or 1, at its output y."""

    tanh: Function
    sigmoid: Function
    relu: Function
    relu_slope: Function


class Equations(NamedTuple):
    """What ``Cell.equations`` returns; ``inner`` and ``inner_backward`` are None for cells with one recurrent product."""

    forward: Function
    backward: Function
    inner: Function | None = None
    inner_backward: Function | None = None


@dataclass(frozen=True)
class Cell:
    """One kind of recurrent cell.

    ``gates``: names in storage order (torch's); ``states``: names of the carried states; ``saved``: how many values
    per unit and step the derivative needs; ``carries``: which state the elementwise equations read, "h", "c" or None;
    ``inner_gates``: how many gates, the last ones, read the second recurrent product; ``feeds_back_output``: the
    recurrence reads y = V h + c instead of h (Jordan); ``memory_gate``: the gate whose bias lengthens memory;
    ``reads_sums``: the equations read a and b only through a + b, so that their cotangents are the same.
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...]
    saved: int
    equations: Callable[[Activations, str], Equations]
    carries: str | None = None
    inner_gates: int = 0
    feeds_back_output: bool = False
    memory_gate: str | None = None
    reads_sums: bool = True
    nonlinearities: tuple[str, ...] = ("tanh",)

    @property
    def outer_gates(self) -> int:
        """How many gates, the first ones, read the recurrent product of the previous state."""
        return len(self.gates) - self.inner_gates


def elman(platform: Activations, nonlinearity: str) -> Equations:
    """h = f(a + b).  Elman 1990, "Finding structure in time"; torch.nn.RNN."""
    activation = getattr(platform, nonlinearity)
    slope = platform.relu_slope

    def forward(a, b, carried):
        h = activation(a[0] + b[0])
        return (h,), (h,)

    def tanh_backward(saved, carried, dnew, dinner):
        dz = dnew[0] - dnew[0] * saved[0] * saved[0]
        return (dz,), (dz,), ()

    def sigmoid_backward(saved, carried, dnew, dinner):
        dz = dnew[0] * (saved[0] - saved[0] * saved[0])
        return (dz,), (dz,), ()

    def relu_backward(saved, carried, dnew, dinner):
        dz = dnew[0] * slope(saved[0])
        return (dz,), (dz,), ()

    return Equations(forward, {"tanh": tanh_backward, "sigmoid": sigmoid_backward, "relu": relu_backward}[nonlinearity])


def lstm(platform: Activations, nonlinearity: str) -> Equations:
    """c = f c' + i g, h = o tanh(c).  Gers et al. 2000, "Learning to forget"; torch.nn.LSTM."""
    tanh, sigmoid = platform.tanh, platform.sigmoid

    def forward(a, b, carried):
        i = sigmoid(a[0] + b[0])
        f = sigmoid(a[1] + b[1])
        g = tanh(a[2] + b[2])
        o = sigmoid(a[3] + b[3])
        c = f * carried[0] + i * g
        tanh_c = tanh(c)
        return (o * tanh_c, c), (i, f, g, o, tanh_c)

    def backward(saved, carried, dnew, dinner):
        i, f, g, o, tanh_c = saved
        dh, dc = dnew
        do = dh * o
        dc = dc + do - do * tanh_c * tanh_c
        df = dc * f
        dig = dc * i
        dz = (dig * g - dig * g * i, df * carried[0] - df * carried[0] * f, dig - dig * g * g, do * tanh_c - do * tanh_c * o)
        return dz, dz, (df,)

    return Equations(forward, backward)


def gru(platform: Activations, nonlinearity: str) -> Equations:
    """n = tanh(a_n + r b_n), h = n + z (h' - n): the reset gate acts after the product.  torch.nn.GRU, cuDNN."""
    tanh, sigmoid = platform.tanh, platform.sigmoid

    def forward(a, b, carried):
        r = sigmoid(a[0] + b[0])
        z = sigmoid(a[1] + b[1])
        n = tanh(a[2] + r * b[2])
        return (n + z * (carried[0] - n),), (r, z, n, b[2])

    def backward(saved, carried, dnew, dinner):
        r, z, n, b_n = saved
        dh = dnew[0]
        dh_kept = dh * z
        dn = dh - dh_kept
        da_n = dn - dn * n * n
        da_r = da_n * b_n * (r - r * r)
        da_z = (carried[0] - n) * (dh_kept - dh_kept * z)
        return (da_r, da_z, da_n), (da_r, da_z, da_n * r), (dh_kept,)

    return Equations(forward, backward)


def gru_reset_before(platform: Activations, nonlinearity: str) -> Equations:
    """n = tanh(a_n + U_n (r h') + b_hn), h = n + z (h' - n).  Cho et al. 2014; ONNX ``linear_before_reset=0``."""
    tanh, sigmoid = platform.tanh, platform.sigmoid

    def inner(a, b, carried):
        return sigmoid(a[0] + b[0]) * carried[0]

    def forward(a, b, carried):
        r = sigmoid(a[0] + b[0])
        z = sigmoid(a[1] + b[1])
        n = tanh(a[2] + b[2])
        return (n + z * (carried[0] - n),), (r, z, n)

    def inner_backward(saved, carried, dnew):
        _, z, n = saved
        dn = dnew[0] - dnew[0] * z
        return (dn - dn * n * n,)

    def backward(saved, carried, dnew, dinner):
        r, z, n = saved
        dh = dnew[0]
        dh_kept = dh * z
        dn = dh - dh_kept
        dz_n = dn - dn * n * n
        dz_z = (carried[0] - n) * (dh_kept - dh_kept * z)
        dz_r = dinner[0] * carried[0] * (r - r * r)
        return (dz_r, dz_z, dz_n), (dz_r, dz_z, dz_n), (dh_kept + dinner[0] * r,)

    return Equations(forward, backward, inner, inner_backward)


_SIMPLE = ("tanh", "relu", "sigmoid")

CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in (
        Cell("elman", ("h",), ("h",), 1, elman, nonlinearities=_SIMPLE),
        Cell("jordan", ("h",), ("y",), 1, elman, feeds_back_output=True, nonlinearities=_SIMPLE),
        Cell("lstm", ("i", "f", "g", "o"), ("h", "c"), 5, lstm, carries="c", memory_gate="f"),
        Cell("gru", ("r", "z", "n"), ("h",), 4, gru, carries="h", memory_gate="z", reads_sums=False),
        Cell("gru_reset_before", ("r", "z", "n"), ("h",), 3, gru_reset_before, carries="h", inner_gates=1, memory_gate="z"),
    )
}
