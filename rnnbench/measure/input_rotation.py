"""The calls that are timed: each with other inputs than the one before, so that none can be answered from memory.

A call takes one of four inputs in turn, equal in shape and different in values, and as its initial state the final one of
the call before, as in training.  So no call has the arguments of an earlier one.
"""

import itertools
from typing import Any

import numpy as np

from rnnbench.check.laziness import late
from rnnbench.check.problem import Prepared
from rnnbench.suite.inputs import Inputs


class Turns:
    """A prepared problem with four inputs: its own, and these with other signs and the other way round in time."""

    def __init__(self, prepared: Prepared, inputs: Inputs) -> None:
        self._prepared = prepared
        self._states = [f"final {name}" for name in prepared.case.spec().kind.states]
        own = (prepared.x, prepared.dy, prepared.dstate)
        changes = (np.negative, lambda array: array[::-1].copy(), lambda array: -array[::-1])
        others = [inputs.map(change).map(prepared.backend.asarray) for change in changes]
        self._inputs = [own, *((other.x, other.dy, other.dstate) for other in others)]
        self._turn = itertools.cycle(self._inputs)

    def call(self) -> dict[str, Any]:
        """Run the phase once; the results by name, in the backend's own arrays."""
        prepared = self._prepared
        prepared.x, prepared.dy, prepared.dstate = next(self._turn)
        results = prepared.call()
        prepared.state = tuple(results[name] for name in self._states)
        return results

    def fault(self) -> str | None:
        """A sentence where calls are not computed: answered from memory, or not before their results are read."""
        prepared, backend = self._prepared, self._prepared.backend
        outputs = []
        for _ in range(2):  # the same x, and another state
            prepared.x, prepared.dy, prepared.dstate = self._inputs[0]
            results = prepared.call()
            backend.synchronize()
            outputs.append(np.array(backend.to_numpy(results["y"])))
            prepared.state = tuple(results[name] for name in self._states)
        if outputs[0].any() and np.array_equal(*outputs):
            return "the same x gave the same y with another initial state: the call was answered from memory"
        return late(self.call, backend)
