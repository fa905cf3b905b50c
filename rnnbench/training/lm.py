"""Language models: the next symbol of a text; bits per symbol, perplexity, and text drawn from a model."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rnnbench.data.text import StatefulBatches, Vocabulary, read_text, split
from rnnbench.errors import ArgumentError
from rnnbench.models.model import Evaluation, Model, load_model
from rnnbench.models.spec import ModelSpec
from rnnbench.networks.spec import Spec
from rnnbench.training.checkpoint import best_of, read_checkpoint
from rnnbench.training.config import Config, ModelConfig, TextData
from rnnbench.training.loop import Batch, Batches


class LanguageModel:
    """The task "lm": a text in parts by position, the vocabulary of its training part, and stateful batches."""

    def __init__(self, config: Config) -> None:
        assert isinstance(config.data, TextData)
        data = config.data
        texts = split(read_text(data.name, data.path), data.parts)
        self.vocabulary = _vocabulary(texts[0], data)
        encoded = [self.vocabulary.encode(text) for text in texts]
        self._train, self._validation, self._test = (ids for ids, _ in encoded)
        self.unknown = encoded[2][1]
        self._batches = StatefulBatches(self._train, data.batch, data.steps)
        self._shape = data.batch, data.steps
        for name, ids in (("validation", self._validation), ("test", self._test)):
            if len(ids) < 2:
                raise ArgumentError(f"the {name} part has {len(ids)} symbols; expected at least 2: give a longer text")
        self.spec = language_spec(config.model, len(self.vocabulary))
        self.facts = {"vocabulary": self.vocabulary.to_dict()}

    def batches(self, model: Model) -> Batches:
        def batch_of(step: int) -> Batch:
            place = step % len(self._batches)
            return Batch(*self._batches[place], fresh=place == 0)

        return batch_of

    def validate(self, model: Model) -> Evaluation:
        return text_loss(model, self._validation, *self._shape)

    def result(self, model: Model) -> dict[str, Any]:
        """Return bits per symbol and perplexity of the test part, beside those of counted frequencies."""
        loss = text_loss(model, self._test, *self._shape).loss
        return {
            "vocabulary": len(self.vocabulary),
            "symbol": "character" if self.vocabulary.kind == "characters" else "word",
            "training_symbols": len(self._train),
            "test_symbols": len(self._test),
            "unknown": self.unknown,
            "bits": loss / math.log(2),
            "perplexity": math.exp(min(loss, 700)),
            "bits_of_frequencies": self._frequencies() / math.log(2),
        }

    def _frequencies(self) -> float:
        """The loss of a model that knows how often each symbol is, with one added to each count."""
        counts = np.bincount(self._train, minlength=len(self.vocabulary)) + 1.0
        return float(-np.log(counts / counts.sum())[self._test].mean())

    def summary(self, result: Mapping[str, Any]) -> str:
        symbol = result["symbol"]
        lines = [
            f"test part: {result['test_symbols']:,} {symbol}s, {result['unknown']:,} of them unknown; "
            f"vocabulary of {result['vocabulary']:,}",
            f"bits per {symbol}: {result['bits']:.3f}  ({result['bits_of_frequencies']:.3f} from frequencies alone)",
            f"perplexity: {result['perplexity']:.2f}",
        ]
        return "\n".join(lines)


def language_spec(model: ModelConfig, vocabulary: int) -> ModelSpec:
    """The model of a config for a vocabulary."""
    rnn = Spec(model.cell, model.embedding, model.hidden, num_layers=model.layers, dtype=model.dtype)
    return ModelSpec(rnn, vocabulary, vocabulary=vocabulary, dropout=model.dropout)


def text_loss(model: Model, ids: np.ndarray, batch: int, steps: int) -> Evaluation:
    """The mean loss over a text, whose state is carried from batch to batch; a short text gets fewer lanes or steps."""
    steps = min(steps, len(ids) - 1)
    batches = StatefulBatches(ids, max(min(batch, (len(ids) - 1) // steps), 1), steps)
    total, count, state = 0.0, 0.0, None
    for place in range(len(batches)):
        found = model.evaluate(*batches[place], state=state)
        total, count, state = total + found.loss * found.count, count + found.count, found.state
    return Evaluation(total / count, count, state or ())


def sample(
    checkpoint: str | Path,
    length: int = 400,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    prompt: str = "",
    backend: Any = None,
    threads: int | None = None,
) -> str:
    """Draw a text from a language model's checkpoint, or the best one of a run's folder; returns the prompt and what follows.

    ``length``: the number of symbols drawn.  ``temperature`` divides the logits: below 1 likely symbols are drawn more often.
    ``top_k``: only the k most likely symbols are drawn.  ``seed`` decides the draws.
    ``backend``: a name or module; None is the one that trained.  An empty prompt stands for a line break.
    Raises ArgumentError, and StoreError for a file that is no such checkpoint.
    """
    _require_draws(length, temperature, top_k)
    model, vocabulary = load_language_model(checkpoint, backend, threads)
    start = _prompt_ids(vocabulary, prompt)
    stream = np.random.default_rng(seed)
    given, state, drawn = start[:, None], None, []
    for _ in range(length):
        outputs, state = model.forward(given, state)
        symbol = _draw(outputs[-1, 0], temperature, top_k, stream)
        drawn.append(symbol)
        given = np.array([[symbol]], np.int32)
    return vocabulary.decode([*(start if prompt else ()), *drawn])


def load_language_model(checkpoint: str | Path, backend: Any = None, threads: int | None = None) -> tuple[Model, Vocabulary]:
    """Return the model and the vocabulary of a checkpoint; raises as ``sample`` does."""
    stored = read_checkpoint(best_of(Path(checkpoint)))
    config = Config.from_dict(stored.facts.get("config", {}), str(checkpoint))
    if config.task != "lm" or "vocabulary" not in stored.facts:
        raise ArgumentError(f"{checkpoint} is a checkpoint of the task {config.task!r}; expected one of 'lm'")
    vocabulary = Vocabulary.from_dict(stored.facts["vocabulary"])
    spec = language_spec(config.model, len(vocabulary))
    return load_model(spec, stored.params, backend or config.backend, threads=threads), vocabulary


def _vocabulary(text: str, data: TextData) -> Vocabulary:
    return Vocabulary.characters(text) if data.vocabulary == "characters" else Vocabulary.words(text, data.words)


def _require_draws(length: int, temperature: float, top_k: int | None) -> None:
    if length < 1:
        raise ArgumentError(f"length is {length}; expected at least 1")
    if not 0 < temperature < math.inf:
        raise ArgumentError(f"temperature is {temperature!r}; expected a finite number above 0")
    if top_k is not None and top_k < 1:
        raise ArgumentError(f"top_k is {top_k}; expected at least 1")


def _prompt_ids(vocabulary: Vocabulary, prompt: str) -> np.ndarray:
    ids, unknown = vocabulary.encode(prompt or "\n")
    if prompt and unknown:
        symbols = "characters" if vocabulary.kind == "characters" else "words"
        raise ArgumentError(
            f"prompt is {prompt!r}, of which {unknown} {symbols} are not in the vocabulary; expected known ones"
        )
    return ids if len(ids) else np.zeros(1, np.int32)


def _draw(probabilities: np.ndarray, temperature: float, top_k: int | None, stream: np.random.Generator) -> int:
    with np.errstate(divide="ignore"):  # a probability of 0 in float32
        logits = np.log(probabilities.astype(np.float64)) / temperature
    order = np.argsort(-logits, kind="stable")[:top_k]
    weights = np.exp(logits[order] - logits[order[0]])
    return int(
        order[np.searchsorted(np.cumsum(weights) / weights.sum(), stream.random(), side="right").clip(max=len(order) - 1)]
    )
