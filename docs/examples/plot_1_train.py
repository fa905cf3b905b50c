"""
Train a network, and see what a window costs
============================================

A GRU learns to repeat its input six steps later. It is trained by truncated BPTT twice: with a window of 16 steps, through
which a gradient reaches the input that matters, and with one of 4, through which it does not.
"""

import matplotlib.pyplot as plt
import numpy as np

import rnnbench
from rnnbench.impls import numba_cpu as rnn  # the only line that names a backend

T, B, DELAY = 64, 32, 6
spec = rnnbench.Spec("gru", input_size=1, hidden_size=24)

# %%
# The loss compares outputs with inputs, so the derivative of y is a function: ``rnnbench.tbptt`` calls it with the outputs of
# each window and the index of the first of them.


class Loss:
    """The mean squared error of ``y @ readout`` against the input some steps before, and its derivatives."""

    def __init__(self, x, readout):
        self.target = np.roll(x[:, :, 0], DELAY, axis=0)
        self.target[:DELAY] = 0
        self.readout, self.d_readout, self.value = readout, np.zeros_like(readout), 0.0

    def __call__(self, y, first):
        error = y @ self.readout - self.target[first : first + len(y)]
        self.value += float(np.sum(error**2)) / (T * B)
        error *= 2 / (T * B)
        self.d_readout += np.tensordot(error, y, 2)
        return error[:, :, None] * self.readout


class Adam:
    """Kingma and Ba 2015."""

    def __init__(self, params, rate=0.02):
        self.rate, self.steps = rate, 0
        self.mean = {name: np.zeros_like(value) for name, value in params.items()}
        self.square = {name: np.zeros_like(value) for name, value in params.items()}

    def update(self, params, grads):
        self.steps += 1
        for name, grad in grads.items():
            self.mean[name] = 0.9 * self.mean[name] + 0.1 * grad
            self.square[name] = 0.999 * self.square[name] + 0.001 * grad**2
            mean = self.mean[name] / (1 - 0.9**self.steps)
            square = self.square[name] / (1 - 0.999**self.steps)
            params[name] = np.float32(params[name] - self.rate * mean / (np.sqrt(square) + 1e-8))


# %%
# An update reads a new batch of random signs. ``net.update`` replaces the weights.


def losses(window: int, updates: int = 200) -> list[float]:
    rng = np.random.default_rng(0)
    weights = dict(rnnbench.init_params(spec, seed=0))
    readout = {"readout": np.zeros(spec.hidden_size, np.float32)}
    net, optimisers, found = rnn.load(spec, weights), (Adam(weights), Adam(readout)), []
    for _ in range(updates):
        x = rng.choice(np.float32([-1, 1]), (T, B, 1))
        loss = Loss(x, readout["readout"])
        _, _, grads = rnnbench.tbptt(net, rnn.asarray(x), loss, window)
        optimisers[0].update(weights, grads.params)
        optimisers[1].update(readout, {"readout": loss.d_readout})
        net.update(weights)
        found.append(loss.value)
    return found


# %%
# With a window of 4 the loss stays near that of a network that always answers 0.

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
for window, dash in ((4, "--"), (16, "-")):
    axes.plot(losses(window), dash, label=f"window {window}")
axes.set(xlabel="update", ylabel="squared error", ylim=(0, None))
axes.set_title(f"A GRU repeats its input {DELAY} steps later")
axes.legend()
plt.show()
