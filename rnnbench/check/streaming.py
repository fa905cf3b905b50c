"""The promise about streams: steps with a kept state give what forward gives."""

import contextlib
from typing import Any

import numpy as np

from rnnbench.check.comparing import Finding
from rnnbench.check.probe import Probe, compare_with_reference
from rnnbench.check.problem import Problem, named
from rnnbench.check.tolerance import Expected
from rnnbench.networks.params import init_params


def streamed(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Step through the sequence with weights updated after the first step, then again from a state read on the way.

    The first time every y is read after the last step, the second time it is overwritten at once.  A network without
    ``stream`` promises nothing.
    """
    inputs, case, dtype = problem.inputs(), problem.case, problem.case.dtype
    probe = Probe(backend, problem, params=init_params(case.spec(), problem.seed + 1, problem.scheme, problem.forget_bias))
    if not hasattr(probe.net, "stream"):
        return []
    stream, cut = probe.net.stream(case.B), case.T // 2
    stream.step(probe.to_backend(inputs.x[-1]))
    probe.net.update(problem.params())
    stream.state = probe.to_backend(inputs.state)
    first = [stream.step(probe.to_backend(x_t)) for x_t in inputs.x[:cut]]
    middle = stream.state
    ys = first + [stream.step(probe.to_backend(x_t)) for x_t in inputs.x[cut:]]
    got = _results(probe, ys, stream.state)
    stream.state = middle
    second = [_overwritten(probe, stream.step(probe.to_backend(x_t))) for x_t in inputs.x[cut:]]
    again = _results(probe, ys[:cut] + second, stream.state)
    stream.reset()
    zeros = probe.to_numpy(dict(zip(case.spec().kind.states, stream.state, strict=True)))
    findings = compare_with_reference(got, wanted, dtype) + compare_with_reference(again, wanted, dtype)
    return findings + [
        Finding(f"{name} after reset()", float(np.max(np.abs(part))), 0.0, "is not zero" if part.any() else None)
        for name, part in zeros.items()
    ]


def _results(probe: Probe, ys: list[Any], state: Any) -> dict[str, np.ndarray]:
    by_step = probe.to_numpy({str(t): y for t, y in enumerate(ys)})
    finals = named(probe.case, None, state)
    del finals["y"]
    return {"y": np.stack(list(by_step.values()))} | probe.to_numpy(finals)


def _overwritten(probe: Probe, y: Any) -> Any:
    """A copy of y, which is then overwritten where the library allows it: the caller owns it."""
    kept = probe.backend.asarray(probe.to_numpy({"y": y})["y"])
    with contextlib.suppress(Exception):
        y[...] = float("nan")
    return kept
