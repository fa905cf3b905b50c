"""
A character model that writes
=============================

From a text to a model that continues it: vocabulary, batches that carry a state, training, evaluation, and sampling.
"""

import matplotlib.pyplot as plt
import numpy as np

import rnnbench
from rnnbench.data import StatefulBatches, Vocabulary, read_text, split
from rnnbench.models import Adam, ModelSpec, init_model_params, load_model
from rnnbench.training import cosine, fit

# %%
# **Data.** The package holds 90,000 characters of Shakespeare. The text is cut by position: the model trains on the first nine
# tenths. The vocabulary is what occurs in them; a character becomes its index.

train_text, validation_text, _ = split(read_text("shakespeare-sample"))
vocabulary = Vocabulary.characters(train_text)
train_ids, _ = vocabulary.encode(train_text)
validation_ids, unknown = vocabulary.encode(validation_text)
print(len(train_ids), "characters,", len(vocabulary), "different ones;", unknown, "unknown in the validation part")

# %%
# **Batches.** The text is laid out in 32 lanes. A batch holds the next 64 characters of each, and as targets the same moved by
# one. The final state of a batch is the initial state of the next: the model reads each lane from end to end.

batches = StatefulBatches(train_ids, batch=32, steps=64)
inputs, targets = batches[0]
print(repr(vocabulary.decode(inputs[:20, 0])), "->", repr(vocabulary.decode(targets[:20, 0])))

# %%
# **The model.** Each character has a row of an embedding. An LSTM reads the rows. A linear layer and softmax give each
# character a probability of being the next. The loss is the negative logarithm of the right one's: cross-entropy.

spec = ModelSpec(rnnbench.Spec("lstm", input_size=32, hidden_size=128), outputs=len(vocabulary), vocabulary=len(vocabulary))
model = load_model(spec, init_model_params(spec, seed=0), "numba_cpu")  # the only line that names a backend
optimiser = Adam(model, rate=0.005, clip_norm=1.0)
STEPS = 250
fitted = fit(model, optimiser, batches, STEPS, schedule=cosine(0.005, STEPS))

# %%
# **How good is it?** In bits per character: a model that knows nothing needs the logarithm of the vocabulary, one that knows
# the frequencies of characters less.

counts = np.bincount(train_ids, minlength=len(vocabulary)) + 1
frequencies = -np.log2(counts / counts.sum())[validation_ids].mean()
held_out = StatefulBatches(validation_ids, batch=8, steps=64)
losses, state = [], None
for k in range(len(held_out)):
    found = model.evaluate(*held_out[k], state=state)
    losses.append(found.loss)
    state = found.state
bits = np.mean(losses) / np.log(2)
print(f"validation: {bits:.2f} bits per character; frequencies alone: {frequencies:.2f}")

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.plot(np.array(fitted.losses) / np.log(2), label="training batches")
axes.axhline(np.log2(len(vocabulary)), color="0.5", linestyle=":", label="no knowledge")
axes.axhline(frequencies, color="C1", linestyle="--", label="frequencies")
axes.axhline(bits, color="C2", label="validation, at the end")
axes.set(xlabel="update", ylabel="bits per character", ylim=(0, None), title="A character model learns")
axes.legend()
plt.show()

# %%
# **It writes.** Each character is drawn from the model's probabilities and becomes its next input. A temperature below 1 makes
# likely characters likelier.


def write(start: str, length: int, temperature: float) -> str:
    rng, ids, state = np.random.default_rng(0), list(vocabulary.encode(start)[0]), None
    given = np.array(ids)[:, None]
    for _ in range(length):
        outputs, state = model.forward(given, state)
        weights = outputs[-1, 0].astype(float) ** (1 / temperature)
        ids.append(int(rng.choice(len(vocabulary), p=weights / weights.sum())))
        given = np.array([[ids[-1]]])
    return vocabulary.decode(np.array(ids))


print(write("First", 300, temperature=0.7))

# %%
# So much from 80,000 characters and half a minute. ``rnnbench train lm --data shakespeare`` reads all plays, and
# ``rnnbench sample`` writes from its checkpoint.
