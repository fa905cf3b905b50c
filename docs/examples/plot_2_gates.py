"""
LSTM and GRU: gates that keep
=============================

The equations of two gated cells, in NumPy and from a backend, and what gates are for: gradients that reach further back.
"""

import matplotlib.pyplot as plt
import numpy as np

import rnnbench
from rnnbench.impls import numba_cpu as rnn
from rnnbench.studies import gradient_flow

# %%
# The LSTM (Hochreiter and Schmidhuber 1997; with a forget gate, Gers et al. 2000) carries a second state c. Gates between 0 and
# 1 decide what is written, kept and shown:
#
# .. math::
#    i, f, o &= \sigma(W x_t + U h_{t-1} + b) \qquad g = \tanh(W x_t + U h_{t-1} + b) \\
#    c_t &= f\, c_{t-1} + i\, g \qquad h_t = o \tanh(c_t)
#
# The GRU (Cho et al. 2014, in the form of torch.nn and cuDNN) has one state and two gates:
#
# .. math::
#    r, z &= \sigma(W x_t + U h_{t-1} + b) \qquad n = \tanh(W x_t + b_n + r\,(U h_{t-1} + b'_n)) \\
#    h_t &= (1 - z)\, n + z\, h_{t-1}
#
# The rows of a weight stand gate after gate, in the orders i, f, g, o and r, z, n.


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def lstm_step(p, x, h, c):
    z = x @ p["weight_ih_l0"].T + p["bias_ih_l0"] + h @ p["weight_hh_l0"].T + p["bias_hh_l0"]
    i, f, g, o = np.split(z, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(p, x, h):
    a = np.split(x @ p["weight_ih_l0"].T + p["bias_ih_l0"], 3, axis=1)
    b = np.split(h @ p["weight_hh_l0"].T + p["bias_hh_l0"], 3, axis=1)
    r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
    return (1 - z) * np.tanh(a[2] + r * b[2]) + z * h


T, B, SIZE = 100, 8, 32
x = np.random.default_rng(0).standard_normal((T, B, SIZE))
for cell in ("lstm", "gru"):
    spec = rnnbench.Spec(cell, SIZE, SIZE, dtype="float64")
    params = rnnbench.init_params(spec, seed=0)
    h = c = np.zeros((B, SIZE))
    for t in range(T):
        if cell == "lstm":
            h, c = lstm_step(params, x[t], h, c)
        else:
            h = gru_step(params, x[t], h)
    y, _ = rnn.load(spec, params).forward(rnn.asarray(x))
    print(f"{cell}: the last outputs differ by at most {abs(y[-1] - h).max():.0e}")

# %%
# ``gradient_flow`` gives the last output a cotangent, and follows it back step by step. A gate near 1 hands the gradient on
# nearly whole: ``forget_bias`` opens the gate f of the LSTM, and the gate z of the GRU, from the start.

KINDS = {
    "elman": ("elman", 0.0),
    "elman, orthogonal weights": ("elman", 0.0),
    "lstm": ("lstm", 0.0),
    "lstm, forget bias 3": ("lstm", 3.0),
    "gru": ("gru", 0.0),
    "gru, bias of z 3": ("gru", 3.0),
}

dy = np.random.default_rng(1).standard_normal((B, SIZE))
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for place, (label, (cell, forget_bias)) in enumerate(KINDS.items()):
    spec = rnnbench.Spec(cell, SIZE, SIZE, dtype="float64")
    scheme = "orthogonal" if forget_bias or "orthogonal" in label else "torch-default"
    net = rnn.load(spec, rnnbench.init_params(spec, 0, scheme, forget_bias))
    norms = gradient_flow(rnn, net, 0.1 * x, dy)
    reached = norms["c"] if cell == "lstm" else norms["h"]
    axes.semilogy(
        range(1, T + 1), reached[1:] / reached[1], "--" if place % 2 == 0 else "-", color=f"C{place // 2}", label=label
    )
axes.set(xlabel="steps back in time", ylabel="norm of the gradient, relative", ylim=(1e-12, 1e3))
axes.set_title("How far gradients reach, before any training")
axes.legend(loc="lower left")
plt.show()

# %%
# After 60 steps the gradient of a plain cell with default weights is gone, and so is that of a gated cell whose gates start
# half open. With open gates it arrives; the LSTM's even grows on the way, which is what gradients are clipped for.
