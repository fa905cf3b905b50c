"""
An LSTM of one unit that learns to count
========================================

Keras's textbook example: the series 0, 1, ... 99, an LSTM of a single unit, and the number that follows five others. Here it
runs on every backend of the CPU, from the same weights.
"""

import matplotlib.pyplot as plt
import numpy as np

import rnnbench
from rnnbench.models import Adam, ModelSpec, init_model_params, load_model

# %%
# **Data.** 95 windows of five numbers, divided by 100, time first: (T, B, I) = (5, 95, 1). The target is the number after the
# last one. The mask lets the last step count alone, as ``return_sequences=False`` does in Keras.

windows = np.lib.stride_tricks.sliding_window_view(np.arange(100, dtype=np.float32) / 100, 6).T[..., None]
x, after = windows[:5].copy(), np.broadcast_to(windows[5], (5, 95, 1)).copy()
mask = np.zeros((5, 95))
mask[-1] = 1

# %%
# **The model** has eight weights in the LSTM, two biases of four numbers each, and a linear layer of two: in Keras
# ``Sequential([Input((5, 1)), LSTM(1), Dense(1)])`` with ``loss="mse"``, which has one bias of four numbers in place of two.
# The backend is the only thing that changes.

spec = ModelSpec(rnnbench.Spec("lstm", input_size=1, hidden_size=1), outputs=1, loss="mse")
params = init_model_params(spec, seed=3)
BATCH, EPOCHS = 19, 40


def train(backend: str) -> tuple[list[float], np.ndarray]:
    """The loss of each epoch, and what the model says at the end."""
    model = load_model(spec, params, backend)
    optimiser, losses = Adam(model, rate=0.05), []
    for _ in range(EPOCHS):
        parts = [slice(first, first + BATCH) for first in range(0, 95, BATCH)]
        passes = []
        for part in parts:
            passes.append(model.gradients(x[:, part], after[:, part], mask[:, part]))
            optimiser.step(passes[-1].gradients)
        losses.append(float(np.mean([one.loss for one in passes])))
    return losses, model.forward(x)[0][-1, :, 0]


found = {}
for backend in ("numpy_ref", "numba_cpu", "torch_nn", "torch_eager", "jax_scan"):
    try:
        found[backend] = train(backend)
    except rnnbench.BackendUnavailable as reason:
        print(reason)

# %%
# **All of them learn the same.** The curves lie on each other: the largest difference between two losses of one epoch is a few
# roundings of float32 at most.

curves = np.array([losses for losses, _ in found.values()])
print(f"loss of the first epoch {curves[0, 0]:.4f}, of the last {curves[0, -1]:.6f}")
print(f"largest difference between backends {np.ptp(curves, axis=0).max():.1e}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for (name, (losses, _)), width in zip(found.items(), (7, 5, 3.5, 2, 1), strict=False):
    left.semilogy(range(1, EPOCHS + 1), losses, linewidth=width, label=name)
left.set(xlabel="epoch", ylabel="mean squared error", title="Loss")
left.legend()
right.plot(np.arange(5, 100), np.arange(5, 100), color="0.6", label="the number after")
right.plot(np.arange(5, 100), 100 * found["numpy_ref"][1], ".", markersize=3, label="the model")
right.set(xlabel="number", ylabel="forecast", title="What it has learnt")
right.legend()
plt.show()

# %%
# A unit's output lies between -1 and 1 and bends towards its ends, so one unit counts well in the middle and less well at the
# ends. A test of rnnbench runs Keras itself from the same weights with the same Adam, and finds the same losses in every epoch.
