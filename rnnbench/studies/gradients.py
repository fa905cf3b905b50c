"""How far gradients reach: the norm of dL/dh over the number of steps back in time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.networks.contract import Network
from rnnbench.networks.params import init_params
from rnnbench.networks.registry import load_backend
from rnnbench.networks.spec import Spec
from rnnbench.studies.study import Curve, Report, Study, frame, require_seeds, settings_of, summarised

if TYPE_CHECKING:
    import pandas as pd


def gradient_flow(backend: Any, net: Network, x: np.ndarray, dy: np.ndarray) -> dict[str, np.ndarray]:
    """Return for each state the norms of its gradient at each lag, from the last step back to the initial state.

    ``x``: the input (T, B, I) as a NumPy array.
    ``dy``: the cotangent (B, D*H) of the last output; no other output has one.
    Each result has T + 1 norms, over all layers and rows; the one at lag 0 is that of the final state, whose gradient is
    that of the last output, or 0 for other states.  At lag k it is that of the state k steps before.
    Raises ArgumentError for a bidirectional network.  Bengio, Simard and Frasconi 1994; Pascanu et al. 2013.
    """
    spec: Any = getattr(net, "spec")  # noqa: B009  # the contract of networks has none
    if spec.bidirectional:
        raise ArgumentError("the network is bidirectional; expected one direction: time runs both ways in it")
    if x.ndim != 3 or not len(x):
        raise ArgumentError(f"x has shape {x.shape}; expected (T, B, I) with at least one step")
    steps, state, tapes = len(x), None, []
    for t in range(steps):
        _, state, tape = net.record(backend.asarray(x[t : t + 1]), state)
        tapes.append(tape)
    top = spec.num_layers - 1
    zeros = [np.zeros(shape, x.dtype) for shape in spec.state_shapes(x.shape[1])]
    last = [part.copy() for part in zeros]
    last[0][top] = dy
    norms = [[float(np.linalg.norm(part)) for part in last]]
    # the cotangent of the last output is given as that of the state that it is equal to
    of_state, nothing = tuple(backend.asarray(part) for part in last), np.zeros((1, x.shape[1], spec.features), x.dtype)
    while tapes:
        grads = net.backward(tapes.pop(), backend.asarray(nothing), of_state)
        of_state = grads.state
        norms.append([float(np.linalg.norm(backend.to_numpy(part).astype(np.float64))) for part in of_state])
    return {name: np.array([row[place] for row in norms]) for place, name in enumerate(spec.kind.states)}


def study_gradient_flow(
    backend: str = "numba_cpu",
    *,
    cells: Sequence[str] = ("elman", "gru", "lstm"),
    schemes: Sequence[str] = ("torch-default", "orthogonal"),
    steps: int = 100,
    hidden: int = 64,
    batch: int = 16,
    seeds: int = 6,
    seed: int = 0,
    threads: int | None = None,
    report: Report | None = None,
) -> Study:
    """Measure ``gradient_flow`` of new networks in float64 on noise, for cells and initialisations (``init_params``).

    Columns: ``network`` (cell and scheme); ``lag``; ``norm`` (of dL/dh, divided by that of the last step, with its interval
    over ``seeds`` seeds from ``seed`` on).  Raises ArgumentError, BackendUnavailable and MissingLibrary.
    """
    frame(())
    module, rows, done = load_backend(backend), [], 0
    for cell in cells:
        spec = Spec(cell, hidden, hidden, dtype="float64")
        for scheme in schemes:
            for place in range(seed, seed + require_seeds(seeds)):
                rng = np.random.default_rng([place, 13])
                x, dy = rng.standard_normal((steps, batch, hidden)), rng.standard_normal((batch, hidden))
                net = module.load(spec, init_params(spec, place, scheme), threads=threads)
                norms = gradient_flow(module, net, x, dy)["h"]
                network = f"{cell}, {scheme}"
                rows += [
                    {"network": network, "lag": lag, "seed": place, "norm": float(norm / norms[0])}
                    for lag, norm in enumerate(norms)
                ]
                done += 1
                if report is not None:
                    report(done, len(cells) * len(schemes) * seeds, network)
    runs = frame(rows)
    table = summarised(runs, ("network", "lag"), "norm")
    own = {"cells": list(cells), "schemes": list(schemes), "steps": steps, "hidden": hidden, "batch": batch}
    settings = settings_of(backend=backend, seeds=seeds, seed=seed, threads=threads, **own)
    return Study("gradient-flow", "How far gradients reach", conclusion(table), runs, table, CURVES, settings)


def conclusion(table: "pd.DataFrame") -> str:
    """Where gradients fall slowest and fastest."""
    last = table[table["lag"] == table["lag"].max()].sort_values("norm", ascending=False)
    steps = int(last["lag"].iloc[0])

    def said(row: Any) -> str:
        return f"{row['network']} to {row['norm']:.1e} of its norm ({row['norm'] ** (1 / steps):.2f} times a step)"

    text = f"Over {steps} steps back, the gradient of the last output comes down slowest in {said(last.iloc[0])}"
    return f"{text}." if len(last) == 1 else f"{text}, and fastest in {said(last.iloc[-1])}."


CURVES = (
    Curve(
        "Norm of the gradient over the number of steps back",
        "Median over seeds of the norm of dL/dh, divided by that of the last step. A straight line falls by a factor a step.",
        *("lag", "norm", "network"),
        log_y=True,
    ),
)
