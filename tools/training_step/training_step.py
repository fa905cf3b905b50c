"""Compare whole training steps of a rnnbench model and of PyTorch, alternately in one process.

    python tools/training_step/training_step.py --threads 1 --seconds 6

A step reads a batch of symbols and updates all parameters: embedding, recurrent network, output layer, cross entropy, clipping
by norm, Adam.  Both start from the same parameters and see the same batch; after the same number of steps their losses must
agree to five digits.  A round is one step of each, in alternating order.  Printed are the medians, the median of the rounds'
ratios (above 1: rnnbench is faster) with a 95% interval of that median by order statistics, and, with --parts, the time that
each part of rnnbench's step takes.
"""

import argparse
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple


class Shape(NamedTuple):
    batch: int
    steps: int
    hidden: int
    embedding: int
    vocabulary: int


SHAPES = {"char": Shape(32, 64, 256, 64, 81), "tiny": Shape(1, 64, 64, 32, 81), "words": Shape(32, 64, 256, 128, 10000)}
CELLS = ("lstm", "gru")
WARM_UP = 3
RATE, CLIP = 1e-3, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5, help="time to measure each shape and cell")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--backend", default="numba_cpu")
    parser.add_argument("--parts", action="store_true", help="also time the parts of rnnbench's step")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(options.threads)  # read when the libraries are imported
    failed = False
    for shape in options.shapes:
        for cell in options.cells:
            failed |= not compare(cell, shape, options)
    sys.exit(1 if failed else 0)


def compare(cell: str, name: str, options: argparse.Namespace) -> bool:
    """Measure one cell and shape, print a line, and return whether the losses agree."""
    import numpy as np

    shape, rng = SHAPES[name], np.random.default_rng(0)
    inputs, targets = (rng.integers(0, shape.vocabulary, (shape.steps, shape.batch)) for _ in range(2))
    torch_step, params = torch_loop(cell, shape, inputs, targets, options.threads)
    own_step, parts = own_loop(cell, shape, params, inputs, targets, options)
    for _ in range(WARM_UP):
        torch_loss, own_loss = torch_step(), own_step()
    agree = math.isclose(torch_loss, own_loss, rel_tol=1e-5)
    parts.clear()
    torch_times, own_times = [], []
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end or len(own_times) < 10:
        pair = [(torch_step, torch_times), (own_step, own_times)]
        for step, times in pair if len(own_times) % 2 else reversed(pair):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    ratios = [t / o for t, o in zip(torch_times, own_times, strict=True)]
    low, high = interval(ratios)
    print(
        f"{name:5} {cell:4} threads {options.threads}: "
        f"losses {torch_loss:.6f} {own_loss:.6f}{'' if agree else ' DIFFER'}; torch "
        f"{1e3 * median(torch_times):.2f} ms, {options.backend} {1e3 * median(own_times):.2f} ms; ratio {median(ratios):.3f} "
        f"[{low:.3f}, {high:.3f}], {len(ratios)} rounds",
        flush=True,
    )
    for part, times in parts.items():
        mean, calls = 1e3 * sum(times) / len(own_times), len(times) // len(own_times)
        print(f"      {part:24} {mean:8.3f} ms a step, {calls} calls", flush=True)
    return agree


def torch_loop(cell: str, shape: Shape, inputs: Any, targets: Any, threads: int) -> tuple[Callable[[], float], dict[str, Any]]:
    """PyTorch's step, and the parameters it starts from, by rnnbench's names."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    modules = {
        "embedding": torch.nn.Embedding(shape.vocabulary, shape.embedding),
        "rnn": {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](shape.embedding, shape.hidden),
        "output": torch.nn.Linear(shape.hidden, shape.vocabulary),
    }
    model = torch.nn.ModuleDict(modules)
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    x, classes = torch.from_numpy(inputs), torch.from_numpy(targets).reshape(-1)

    def step() -> float:
        y, _ = modules["rnn"](modules["embedding"](x))
        loss = torch.nn.functional.cross_entropy(modules["output"](y).reshape(-1, shape.vocabulary), classes)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        return loss.item()

    return step, {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def own_loop(
    cell: str, shape: Shape, params: dict[str, Any], inputs: Any, targets: Any, options: argparse.Namespace
) -> tuple[Callable[[], float], dict[str, list[float]]]:
    """rnnbench's step, and the times of its parts, where they are wanted."""
    import rnnbench
    from rnnbench.models import Adam, ModelSpec, load_model

    rnn = rnnbench.Spec(cell, shape.embedding, shape.hidden)
    spec = ModelSpec(rnn, shape.vocabulary, vocabulary=shape.vocabulary)
    model = load_model(spec, params, options.backend, threads=options.threads)
    optimiser = Adam(model, RATE, clip_norm=CLIP)
    parts: dict[str, list[float]] = defaultdict(list)
    if options.parts:
        for name in ("embedded", "cross_entropy", "embedding_gradient", "squared_norm", "update"):
            timed(model.parts, name, f"parts.{name}", parts)
        for name in ("record", "backward", "update"):
            timed(model._networks[0], name, f"network.{name}", parts)
        for name in ("gradients", "changed"):
            timed(model, name, f"model.{name}", parts)

    def step() -> float:
        found = model.gradients(inputs, targets)
        optimiser.step(found.gradients)
        return found.loss

    return step, parts


def timed(owner: Any, name: str, label: str, times: dict[str, list[float]]) -> None:
    """Let a method of one object note how long each call takes."""
    method = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*arguments, **options)
        finally:
            times[label].append(time.perf_counter() - start)

    setattr(owner, name, call)


def median(values: list[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def interval(values: list[float]) -> tuple[float, float]:
    """A 95% interval of the median, from the normal approximation to the binomial ranks around it."""
    ordered, count = sorted(values), len(values)
    reach = 0.98 * math.sqrt(count)
    return ordered[max(0, math.floor(count / 2 - reach))], ordered[min(count - 1, math.ceil(count / 2 + reach))]


if __name__ == "__main__":
    main()
