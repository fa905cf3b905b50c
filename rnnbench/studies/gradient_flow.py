"""How far gradients reach: the norm of dL/dh over the number of steps back in time."""

from typing import Any

import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.networks.contract import Network


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
