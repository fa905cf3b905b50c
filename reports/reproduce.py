"""Python code that runs the case of a row."""

import re
from dataclasses import fields

from rnnbench.networks.spec import Spec
from rnnbench.suite.case import Case

_START = """\
import time

import numpy as np

import rnnbench

rnn = rnnbench.load_backend({backend})
spec = {spec}
net = rnn.load(spec, rnnbench.init_params(spec, seed={seed}), threads={threads})
random = np.random.default_rng({seed})
x = rnn.asarray(random.standard_normal(({T}, {B}, {I})).astype(spec.dtype))
"""
_COTANGENT = "dy = rnn.asarray(random.standard_normal(({T}, {B}, spec.features)).astype(spec.dtype))\n"
_END = """

call()  # compiles and warms up
start = time.perf_counter()
call()
print(time.perf_counter() - start, "s")
"""
TEMPLATES = {
    "forward": _START
    + """

def call():
    y, state = net.forward(x)
    rnn.synchronize()
    return y, state
"""
    + _END,
    "step": _START
    + _COTANGENT
    + """

def call():
    y, state, tape = net.record(x)
    gradients = net.backward(tape, dy)
    rnn.synchronize()
    return y, state, gradients
"""
    + _END,
    "tbptt": _START
    + _COTANGENT
    + """

def call():
    y, state, gradients = rnnbench.tbptt(net, x, dy, window={window}, stride={stride})
    rnn.synchronize()
    return y, state, gradients
"""
    + _END,
}
"""Source per phase; each ``{name}`` is replaced by Python source (a repr), never by raw text."""


def spec_source(case: Case) -> str:
    """The case's network as a Spec expression, without default values."""
    sizes = {"input_size": case.I, "hidden_size": case.H, "num_layers": case.layers}
    values = {f.name: sizes.get(f.name, getattr(case, f.name, None)) for f in fields(Spec) if f.name != "_"}
    parts = [repr(values.pop("cell")), *(f"{name}={values.pop(name)}" for name in ("input_size", "hidden_size"))]
    usual = {f.name: f.default for f in fields(Spec)}
    parts += [f"{name}={value!r}" for name, value in values.items() if value != usual[name]]
    return f"rnnbench.Spec({', '.join(parts)})"


def source(case: Case, backend: str, seed: int = 0) -> str:
    """Python code that runs a case once to warm up and once with timing."""
    values = {name: repr(getattr(case, name)) for name in ("T", "B", "I", "window", "stride", "threads")}
    values |= {"backend": repr(backend), "spec": spec_source(case), "seed": repr(seed)}
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], TEMPLATES[case.phase])
