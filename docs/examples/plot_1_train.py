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
# The loss is computed from the outputs of the network, so its derivative ``dy`` is a function: ``rnnbench.tbptt`` calls it
# with the outputs of each window and the index of the first of them.


def losses(window: int, updates: int = 200) -> list[float]:
    """The loss of each update, a mean over sequences and steps."""
    rng = np.random.default_rng(0)
    params = dict(rnnbench.init_params(spec, seed=0))
    net = rnn.load(spec, params)
    params["readout"] = np.zeros(spec.hidden_size, np.float32)
    optimiser, found = Adam(params), []
    for _ in range(updates):
        x = rng.choice(np.float32([-1, 1]), (T, B, 1))
        target = np.roll(x[:, :, 0], DELAY, axis=0)
        target[:DELAY] = 0
        loss, d_readout = 0.0, np.zeros_like(params["readout"])

        def dy(y, first):
            nonlocal loss, d_readout
            error = (y @ params["readout"] - target[first : first + len(y)]) / (T * B)  # noqa: B023  # called at once
            loss += float(np.sum(error**2)) * T * B
            d_readout += np.tensordot(error, y, 2)
            return error[:, :, None] * params["readout"]

        _, _, grads = rnnbench.tbptt(net, rnn.asarray(x), dy, window)
        optimiser.update(params, {**grads.params, "readout": d_readout})
        net.update({name: value for name, value in params.items() if name != "readout"})
        found.append(loss)
    return found


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
            mean, square = self.mean[name] / (1 - 0.9**self.steps), self.square[name] / (1 - 0.999**self.steps)
            params[name] = (params[name] - self.rate * mean / (np.sqrt(square) + 1e-8)).astype(np.float32)


# %%
# With a window of 4 the loss stays near that of a network that always answers 0.

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
for window, dash in ((4, "--"), (16, "-")):
    axes.plot(losses(window), dash, label=f"window {window}")
axes.set(xlabel="update", ylabel="squared error", ylim=(0, None), title=f"A GRU repeats its input {DELAY} steps later")
axes.legend()
plt.show()
