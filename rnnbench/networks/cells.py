"""The elementwise equations of every cell: forward and derivative.

Each gate's pre-activation is the sum of two parts, ``a = W x + b_ih`` and ``b = U h + b_hh``.  They are passed separately
because the GRU multiplies only the second by its reset gate.  Implementations compute the matrix products.  The
elementwise functions work on NumPy arrays, on Numba scalars inside CPU loops, and in CUDA threads:

    forward(a, b, carried)                 -> new, saved
    backward(saved, carried, dnew, dinner) -> da, db, dcarried

All arguments are tuples:

    a, b, da, db   one value per gate
    carried        the state values that the equations read: c for the LSTM, h for the GRU; then a unit's peephole weights
    new            the new hidden value and, for the LSTM, the new cell value
    saved          the values that the derivative needs
    dinner         the cotangent of the operand of the second recurrent product, or an empty tuple

``gru_reset_before`` has a second recurrent product inside the step.  It adds ``inner(a, b, carried)``, which returns the
operand of that product, and ``inner_backward(saved, carried, dnew)``, which returns the cotangents of its results.

The equations have no numeric literals, because in Numba ``1 - f`` would promote float32 to float64.  Each platform
provides its ``Activations``: rounding, saturation and vectorisation depend on it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

Function = Callable[..., Any]


class Activations(NamedTuple):
    """A platform's activation functions; ``relu_slope(y)`` is the derivative of relu at its output y, 0 or 1."""

    tanh: Function
    sigmoid: Function
    relu: Function
    relu_slope: Function


class Equations(NamedTuple):
    """The functions of one cell; ``inner`` and ``inner_backward`` are None for cells with one recurrent product."""

    forward: Function
    backward: Function
    inner: Function | None = None
    inner_backward: Function | None = None


@dataclass(frozen=True)
class Cell:
    """One kind of recurrent cell.

    ``gates``: gate names in storage order, which is torch's.
    ``states``: names of the carried states.
    ``saved``: number of values per unit and step that the derivative needs.
    ``carries``: the state that the elementwise equations read, "h", "c" or None.
    ``inner_gates``: number of gates, the last ones, that read the second recurrent product.
    ``output``: the name of the weights of y = V h + c, which the recurrence reads instead of h: "ho" of Jordan, with a bias;
    "hr" of a projection, without.
    ``peepholes``: names of the gates, in the order of their weights, that also read c, each unit its own.
    ``memory_gate``: the gate whose bias lengthens memory.
    ``projectable``: a network of these cells may project h (``projected``).
    ``reads_sums``: the equations read a and b only as a + b, so both have the same cotangent.
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...]
    saved: int
    equations: Callable[[Activations, str], Equations]
    carries: str | None = None
    inner_gates: int = 0
    output: str | None = None
    peepholes: tuple[str, ...] = ()
    memory_gate: str | None = None
    projectable: bool = False
    reads_sums: bool = True
    nonlinearities: tuple[str, ...] = ("tanh",)

    @property
    def feeds_back_output(self) -> bool:
        """Whether the recurrence reads an output computed from h instead of h."""
        return self.output is not None

    @property
    def outer_gates(self) -> int:
        """Number of gates, the first ones, that read the recurrent product of the previous state."""
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


def lstm_peephole(platform: Activations, nonlinearity: str) -> Equations:
    """lstm whose gates i and f also read c', and o reads c.  Gers and Schmidhuber 2000, "Recurrent nets that time and count";
    ONNX LSTM with input P."""
    tanh, sigmoid = platform.tanh, platform.sigmoid

    def forward(a, b, carried):
        c_before, p_i, p_f, p_o = carried
        i = sigmoid(a[0] + b[0] + p_i * c_before)
        f = sigmoid(a[1] + b[1] + p_f * c_before)
        g = tanh(a[2] + b[2])
        c = f * c_before + i * g
        o = sigmoid(a[3] + b[3] + p_o * c)
        tanh_c = tanh(c)
        return (o * tanh_c, c), (i, f, g, o, tanh_c)

    def backward(saved, carried, dnew, dinner):
        i, f, g, o, tanh_c = saved
        c_before, p_i, p_f, p_o = carried
        dh, dc = dnew
        do = dh * o
        dz_o = do * tanh_c - do * tanh_c * o
        dc = dc + do - do * tanh_c * tanh_c + dz_o * p_o
        dig = dc * i
        df = dc * f
        dz_i = dig * g - dig * g * i
        dz_f = df * c_before - df * c_before * f
        dz = (dz_i, dz_f, dig - dig * g * g, dz_o)
        c = f * c_before + i * g
        return dz, dz, (df + dz_i * p_i + dz_f * p_f, dz_i * c_before, dz_f * c_before, dz_o * c)

    return Equations(forward, backward)


def gru(platform: Activations, nonlinearity: str) -> Equations:
    """n = tanh(a_n + r b_n), h = n + z (h' - n); the reset gate follows the product.  torch.nn.GRU, cuDNN."""
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
        Cell("jordan", ("h",), ("y",), 1, elman, output="ho", nonlinearities=_SIMPLE),
        Cell("lstm", ("i", "f", "g", "o"), ("h", "c"), 5, lstm, carries="c", memory_gate="f", projectable=True),
        Cell(
            "lstm_peephole",
            ("i", "f", "g", "o"),
            ("h", "c"),
            5,
            lstm_peephole,
            carries="c",
            peepholes=("i", "f", "o"),
            memory_gate="f",
            projectable=True,
        ),
        Cell("gru", ("r", "z", "n"), ("h",), 4, gru, carries="h", memory_gate="z", reads_sums=False),
        Cell("gru_reset_before", ("r", "z", "n"), ("h",), 3, gru_reset_before, carries="h", inner_gates=1, memory_gate="z"),
    )
}


PROJECTED: dict[str, Cell] = {name: replace(cell, output="hr") for name, cell in CELLS.items() if cell.projectable}
"""The cells whose recurrence reads a projection of h.  Sak et al. 2014, "Long short-term memory based recurrent neural network
architectures"; torch.nn.LSTM's ``proj_size``."""
