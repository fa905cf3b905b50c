"""Rotate the inputs of timed calls, so that no call repeats earlier arguments and none can be answered from a cache.

Successive calls take one of four inputs, equal in shape and different in values.  The initial state of a call is the final
state of the one before, as in training.
"""

import itertools
from typing import Any

import numpy as np

from rnnbench.check.laziness import late
from rnnbench.check.problem import Prepared
from rnnbench.suite.inputs import Inputs


class InputRotation:
    """A prepared problem with four inputs: its own, and variants that are negated, reversed in time, or both."""

    def __init__(self, prepared: Prepared, inputs: Inputs) -> None:
        self._prepared = prepared
        self._states = [f"final {name}" for name in prepared.case.spec().kind.states]
        own = (prepared.x, prepared.dy, prepared.dstate)
        variants = (np.negative, lambda array: array[::-1].copy(), lambda array: -array[::-1])
        others = [inputs.map(variant).map(prepared.backend.asarray) for variant in variants]
        self._inputs = [own, *((other.x, other.dy, other.dstate) for other in others)]
        self._next_inputs = itertools.cycle(self._inputs)

    def call(self) -> dict[str, Any]:
        """Run the phase once; return the results by name, in the backend's own arrays."""
        prepared = self._prepared
        prepared.x, prepared.dy, prepared.dstate = next(self._next_inputs)
        results = prepared.call()
        prepared.state = tuple(results[name] for name in self._states)
        return results

    def fault(self) -> str | None:
        """Return a sentence if calls are answered from memory, or computed only when their results are read."""
        prepared, backend = self._prepared, self._prepared.backend
        outputs = []
        for _ in range(2):  # same x, different state
            prepared.x, prepared.dy, prepared.dstate = self._inputs[0]
            results = prepared.call()
            backend.synchronize()
            outputs.append(np.array(backend.to_numpy(results["y"])))
            prepared.state = tuple(results[name] for name in self._states)
        if outputs[0].any() and np.array_equal(*outputs):
            return "the same x gave the same y with another initial state: the call was answered from memory"
        return late(self.call, backend)
