"""
A recurrent network from its equations
======================================

The simplest recurrent network, Elman's of 1990, written down in NumPy: forward, backward by hand, a check of the gradients,
and the same numbers from two backends.
"""

import matplotlib.pyplot as plt
import numpy as np

import rnnbench
from rnnbench.impls import numba_cpu, numpy_ref

# %%
# The network reads a sequence :math:`x_1, \dots, x_T` and keeps a hidden state :math:`h_t`:
#
# .. math:: h_t = \tanh(W x_t + U h_{t-1} + b)
#
# All steps share the weights W, U and b. Arrays are time first: ``x`` is (T, B, I) for B sequences, ``h`` is (T, B, H).

T, B, I, H = 20, 4, 3, 5  # noqa: E741  # the names of the text
rng = np.random.default_rng(0)
x, h0 = rng.standard_normal((T, B, I)), np.zeros((B, H))
w, u, b = rng.uniform(-0.5, 0.5, (H, I)), rng.uniform(-0.5, 0.5, (H, H)), rng.uniform(-0.5, 0.5, H)


def forward(w, u, b):
    h = [h0]
    for t in range(T):
        h.append(np.tanh(x[t] @ w.T + h[-1] @ u.T + b))
    return np.array(h)


# %%
# The loss compares the last state with a target: :math:`L = \frac12 \sum (h_T - d)^2`, so :math:`dL/dh_T = h_T - d`.

target = rng.uniform(-0.5, 0.5, (B, H))


def loss(w, u, b):
    return 0.5 * np.sum((forward(w, u, b)[-1] - target) ** 2)


# %%
# **Backpropagation through time** walks the steps back. With :math:`\tanh' = 1 - \tanh^2`, the cotangent of the sum inside
# step t is :math:`\delta_t = dL/dh_t \,(1 - h_t^2)`. Each step adds its part to the gradients of the shared weights, and passes
# :math:`dL/dh_{t-1} = \delta_t U` on.


def backward(h):
    d_w, d_u, db, dh, norms = np.zeros_like(w), np.zeros_like(u), np.zeros_like(b), h[-1] - target, []
    for t in reversed(range(T)):
        norms.append(np.linalg.norm(dh))
        delta = dh * (1 - h[t + 1] ** 2)
        d_w += delta.T @ x[t]
        d_u += delta.T @ h[t]
        db += delta.sum(0)
        dh = delta @ u
    return d_w, d_u, db, norms


h = forward(w, u, b)
d_w, d_u, db, norms = backward(h)

# %%
# **Is it right?** A central difference, :math:`(L(u + \epsilon) - L(u - \epsilon)) / 2\epsilon`, needs no derivation. It is
# off by :math:`\epsilon^2` where :math:`\epsilon` is large, and by rounding where it is small. In between, both agree.

steps = 10.0 ** np.arange(-11, 0)
errors = []
for epsilon in steps:
    up, down = u.copy(), u.copy()
    up[1, 2] += epsilon
    down[1, 2] -= epsilon
    errors.append(abs((loss(w, up, b) - loss(w, down, b)) / (2 * epsilon) - d_u[1, 2]) / abs(d_u[1, 2]))
print(f"smallest relative difference: {min(errors):.1e}")

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.loglog(steps, errors, "o-")
left.set(xlabel="step of the difference", ylabel="relative difference", title="Gradient check of one weight")
right.semilogy(range(T), norms, "o-")
right.set(xlabel="steps back in time", ylabel="norm of dL/dh", title="The gradient fades")
plt.show()

# %%
# The picture on the right is the vanishing gradient: each step back multiplies by U and by a slope below 1.
#
# **The same from a backend.** The loss stays outside: a backend takes the cotangents of its outputs, ``dy``.

spec = rnnbench.Spec("elman", input_size=I, hidden_size=H, dtype="float64")
params = {"weight_ih_l0": w, "weight_hh_l0": u, "bias_ih_l0": b, "bias_hh_l0": np.zeros(H)}
for rnn in (numpy_ref, numba_cpu):
    net = rnn.load(spec, params)
    y, state, tape = net.record(rnn.asarray(x))
    dy = np.zeros_like(y)
    dy[-1] = y[-1] - target
    grads = net.backward(tape, dy)
    print(rnn.__name__, "differs by at most", f"{abs(grads.params['weight_hh_l0'] - d_u).max():.0e}")
