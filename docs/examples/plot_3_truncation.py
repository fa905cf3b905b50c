"""
Truncated BPTT: what a window costs, and what it misses
=======================================================

A GRU learns to repeat its input six steps later. It is trained by truncated BPTT twice: with a window of 16 steps, through
which a gradient reaches the input that matters, and with one of 4, through which it does not.
"""

import matplotlib.pyplot as plt
import numpy as np

import rnnbench
from rnnbench.models import Adam, ModelSpec, init_model_params, load_model

T, B, DELAY = 64, 32, 6

# %%
# Full BPTT keeps what all T steps have computed, until the backward pass has come back to the first. Truncated BPTT keeps a
# window: every so many steps a backward pass runs, through at most ``window`` steps. The state is carried on, as a constant.
#
# A model is a network with an output layer and a loss, here one number per step and the mean squared error. The first DELAY
# targets of a sequence cannot be known; the mask leaves them out.

spec = ModelSpec(rnnbench.Spec("gru", input_size=1, hidden_size=24), outputs=1, loss="mse")
mask = np.ones((T, B), np.float32)
mask[:DELAY] = 0


def losses(window: int, updates: int = 200) -> list[float]:
    rng = np.random.default_rng(0)
    model = load_model(spec, init_model_params(spec, seed=0), "numba_cpu")  # the only line that names a backend
    optimiser, found = Adam(model, rate=0.02), []
    for _ in range(updates):
        x = rng.choice(np.float32([-1, 1]), (T, B, 1))
        result = model.gradients(x, np.roll(x, DELAY, axis=0), mask, window=window)
        optimiser.step(result.gradients)
        found.append(result.loss)
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

# %%
# How wrong are the gradients of a window? Against those of full BPTT, the error falls as the window grows; how fast depends on
# how far gradients reach in this network.

model = load_model(spec, init_model_params(spec, seed=0), "numba_cpu")
x = np.random.default_rng(1).choice(np.float32([-1, 1]), (T, B, 1))
windows = [1, 2, 4, 8, 16, 32, 64]
gradients = [
    np.concatenate(
        [
            value.ravel()
            for value in model.gradients_to_numpy(
                model.gradients(x, np.roll(x, DELAY, axis=0), mask, window=w).gradients
            ).values()
        ]
    )
    for w in windows
]
errors = [np.linalg.norm(g - gradients[-1]) / np.linalg.norm(gradients[-1]) for g in gradients[:-1]]
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.loglog(windows[:-1], errors, "o-", base=2)
axes.set(xlabel="window", ylabel="relative error of the gradient", title="Truncated against full BPTT, before training")
plt.show()
