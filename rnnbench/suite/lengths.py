"""Named distributions of the lengths of a batch's sequences."""

import functools
import re
from importlib import resources

import numpy as np

from rnnbench.data.sequences import read_sequences
from rnnbench.errors import ArgumentError

DISTRIBUTIONS = ("uniform", "sentences", "utterances", "corners")


def drawn_lengths(distribution: str, steps: int, batch: int) -> np.ndarray:
    """Draw the lengths (B,) of a batch, in no order; the same arguments give the same lengths.

    ``distribution``: one of

    - "uniform": uniform from 1 to T, which is half of T in the mean;
    - "sentences": the words of sentences of the package's text, A Midsummer Night's Dream;
    - "utterances": the frames of the package's utterances, two Japanese vowels;
    - "corners": no step at all, all T, 1, and two equal ones in the middle, over and over.

    Sentences and utterances are scaled so that the longest of the batch has T steps, as padding would have it; each has one
    step at least.  Raises ArgumentError for an unknown distribution.
    """
    rng = np.random.default_rng([steps, batch])
    if distribution == "uniform":
        return rng.integers(1, steps + 1, batch)
    if distribution == "corners":
        return np.resize([steps - steps // 2, 0, steps, steps - steps // 2, 1, max(0, steps - 1)], batch)
    if distribution not in DISTRIBUTIONS:
        raise ArgumentError(f"lengths are {distribution!r}; expected one of {', '.join(DISTRIBUTIONS)}")
    found = rng.choice(_sentences() if distribution == "sentences" else _utterances(), batch)
    return np.maximum(1, np.rint(found * steps / found.max())).astype(np.int64)


@functools.cache
def _sentences() -> np.ndarray:
    text = (resources.files("rnnbench.data") / "shakespeare.txt").read_text("utf-8-sig")
    return np.array([len(words) for sentence in re.split(r"(?<=[.!?])\s+", text) if (words := sentence.split())])


@functools.cache
def _utterances() -> np.ndarray:
    return np.array([len(sequence) for part in ("train", "test") for sequence in read_sequences("vowels-sample", part).arrays])
