"""Classification of sequences of different lengths: accuracy, confusion matrix, and a linear model to beat."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rnnbench.data.forecasting import Scaler
from rnnbench.data.sequences import Sequences, padded, read_sequences, shuffled_batches, stratified
from rnnbench.data.sources import DATASETS
from rnnbench.errors import ArgumentError
from rnnbench.models.model import Evaluation, Model
from rnnbench.models.spec import ModelSpec
from rnnbench.networks.spec import Spec
from rnnbench.text import printable
from rnnbench.training.config import Config, SequenceData
from rnnbench.training.loop import Batch, Batches

HELD_OUT = 5
"""A file without a test part is dealt into this many parts of equal shares of classes; one of them tests."""


class Classification:
    """The task "classify": the class is read off the last real step of each sequence; the loss counts no other.

    ``fold``: which of the folds validates.
    Channels are scaled by mean and spread over all steps of the training part; a missing value becomes its mean.
    """

    def __init__(self, config: Config, fold: int = 0) -> None:
        assert isinstance(config.data, SequenceData)
        data, seed = config.data, config.seed
        whole, test = _parts(data, seed)
        train, validation = list(stratified(whole.labels, data.folds, seed))[fold]
        self.classes, self._batch, self._seed = whole.classes, data.batch, seed
        parts = [subset(whole, train), subset(whole, validation), test]
        scaler = Scaler.fit(np.concatenate(parts[0].arrays))
        self.scaler = scaler
        self._train, self._validation, self._test = (_scaled(part, scaler, config.model.dtype) for part in parts)
        rnn = Spec(
            config.model.cell, whole.channels, config.model.hidden, num_layers=config.model.layers, dtype=config.model.dtype
        )
        self.spec = ModelSpec(rnn, max(len(self.classes), 2), dropout=config.model.dropout)
        self.facts = {"classes": list(self.classes), "scaler": [scaler.mean.tolist(), scaler.spread.tolist()]}

    def batches(self, model: Model) -> Batches:
        number = -(-len(self._train) // self._batch)

        def batch_of(step: int) -> Batch:
            epoch, place = divmod(step, number)
            chosen = shuffled_batches(len(self._train), self._batch, self._seed, epoch)[place]
            return _batch(subset(self._train, chosen), model.takes_lengths)

        return batch_of

    def validate(self, model: Model) -> Evaluation:
        batch = _batch(self._validation, model.takes_lengths)
        return model.evaluate(batch.inputs, batch.targets, batch.mask, lengths=batch.lengths)

    def result(self, model: Model) -> dict[str, Any]:
        """Return the accuracy on the test part, the linear model's, and the confusion matrix with true classes as rows."""
        predicted, labels = classified(model, self._test), self._test.labels
        confusion = np.zeros((len(self.classes),) * 2, int)
        np.add.at(confusion, (labels, predicted), 1)
        linear = linear_classes(self._train, self._test, len(self.classes))
        return {
            "training_sequences": len(self._train),
            "test_sequences": len(labels),
            "lengths": [min(map(len, self._test.arrays)), max(map(len, self._test.arrays))],
            "classes": list(self.classes),
            "accuracy": float((predicted == labels).mean()),
            "linear_accuracy": float((linear == labels).mean()),
            "confusion": confusion.tolist(),
        }

    def summary(self, result: Mapping[str, Any]) -> str:
        shortest, longest = result["lengths"]
        names = [printable(name) for name in result["classes"]]
        width = max([*map(len, names), *(len(str(n)) for row in result["confusion"] for n in row)])
        table = [
            f"{name:>{width}}  " + " ".join(f"{n:>{width}}" for n in row)
            for name, row in zip(names, result["confusion"], strict=True)
        ]
        head = " " * width + "  " + " ".join(f"{name:>{width}}" for name in names)
        lines = [
            f"test part: {result['test_sequences']} sequences of {shortest} to {longest} steps; "
            f"trained on {result['training_sequences']}",
            f"accuracy: {result['accuracy']:.1%}  ({result['linear_accuracy']:.1%} by a linear model of each sequence's mean)",
            "true class by row, predicted by column:",
            head,
            *table,
        ]
        return "\n".join(lines)


def classified(model: Model, sequences: Sequences) -> np.ndarray:
    """The class that a model reads off the last real step of each sequence, (N,)."""
    x, lengths = padded(sequences)
    outputs, _ = model.forward(x.astype(model.spec.numpy_dtype), lengths=lengths if model.takes_lengths else None)
    return outputs[lengths - 1, np.arange(len(lengths))].argmax(axis=1)


def linear_classes(train: Sequences, test: Sequences, classes: int, ridge: float = 1.0) -> np.ndarray:
    """The classes (N,) by ridge regression of the class indicators on each sequence's mean over its steps."""

    def features(sequences: Sequences) -> np.ndarray:
        return np.array([[*array.mean(axis=0), 1.0] for array in sequences.arrays], np.float64)

    x, goals = features(train), np.eye(classes)[train.labels]
    penalty = ridge * np.eye(x.shape[1])
    penalty[-1, -1] = 0  # the constant
    return (features(test) @ np.linalg.solve(x.T @ x + penalty, x.T @ goals)).argmax(axis=1)


def subset(sequences: Sequences, indices: np.ndarray) -> Sequences:
    """The sequences of these indices."""
    return replace(sequences, arrays=tuple(sequences.arrays[i] for i in indices), labels=sequences.labels[indices])


def _parts(data: SequenceData, seed: int) -> tuple[Sequences, Sequences]:
    """What trains and validates, and what tests."""
    if data.name in DATASETS:
        if data.test is not None:
            raise ArgumentError(f"data.test is {data.test!r} for the data set {data.name}; expected none: it has a test part")
        return tuple(read_sequences(data.name, part, data.path) for part in ("train", "test"))  # type: ignore[return-value]
    whole = read_sequences(data.name, path=data.path)
    if data.test is None:
        train, test = next(iter(stratified(whole.labels, HELD_OUT, seed)))
        return subset(whole, train), subset(whole, test)
    test_part = read_sequences(data.test)
    if test_part.classes != whole.classes or test_part.channels != whole.channels:
        raise ArgumentError(
            f"{data.test} has {test_part.channels} channels and classes {', '.join(test_part.classes[:5])}; expected "
            f"{whole.channels} and {', '.join(whole.classes[:5])} as {data.name}"
        )
    return whole, test_part


def _scaled(sequences: Sequences, scaler: Scaler, dtype: str) -> Sequences:
    arrays = (np.nan_to_num(scaler.transform(array), nan=0.0).astype(dtype) for array in sequences.arrays)
    return replace(sequences, arrays=tuple(arrays))


def _batch(sequences: Sequences, with_lengths: bool) -> Batch:
    x, lengths = padded(sequences)
    mask = np.zeros(x.shape[:2])
    mask[lengths - 1, np.arange(len(lengths))] = 1
    targets = np.broadcast_to(sequences.labels, x.shape[:2]).astype(np.int32)
    return Batch(x.astype(sequences.arrays[0].dtype), targets, mask, lengths=lengths if with_lengths else None)
