"""What ``test_cuda_standin.py`` runs against the stand-in for the driver, as a script: prints what is wrong, by case."""

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import rnnbench
from rnnbench.errors import CaptureError
from rnnbench.impls import numba_cuda
from rnnbench.impls.numba_cuda import arrays, capture, interop, launching
from rnnbench.impls.numba_cuda.cells import CELLS
from rnnbench.networks.spec import Spec

STEPS, BATCH, INPUTS = 2, 3, 4

WARM = Spec("elman", INPUTS, 32)


class Network(NamedTuple):
    """With the batches of a training step and of inference."""

    regime: str
    spec: Spec
    trained: int
    inferred: int = 1


SIZES = {
    "small": (32, 1024),
    "cluster-persistent": (512, 48),
    "grid-persistent": (1024, 17),
    "tensor-core grid": (1056, 17),
    "per step": (16, BATCH),
}
"""Hidden size and batch.  Where they can be, they are such that the audit has most of the same kernels, which are then compiled
once: teams have as many rows as they can, and one where nothing is recorded."""

DTYPES = {
    "small": ("float32", "bfloat16", "float16", "float32", "float32"),
    "cluster-persistent": ("float32", "float32", "float32", "bfloat16", "float16"),
    "grid-persistent": ("float32",),
    "tensor-core grid": ("bfloat16", "float16"),
    "per step": ("float64",),
}
"""A cell's kernels take a second or two to compile, so that each cell of a regime has one dtype, each dtype some cell.  Where
float32 is among them most cells have it: the audit's kernels are of float32 arrays, and so are those that both have."""

WARMED = "compiled ahead"
"""The case whose kernels a test compiles beforehand."""


def networks() -> dict[str, Network]:
    """By name: every regime with every cell, a cluster that has to be allowed, and one whose calls all have one batch."""
    found = {}
    for regime, dtypes in DTYPES.items():
        hidden, batch = SIZES[regime]
        for number, cell in enumerate(CELLS):
            dtype = dtypes[number % len(dtypes)]
            larger = 76 if (regime, cell) == ("grid-persistent", "elman") else 0  # 1024 of its units fit into a cluster
            found[f"{regime} {cell} {dtype}"] = Network(regime, Spec(cell, INPUTS, hidden + larger, dtype=dtype), batch)
    return found | {
        "cluster of 16": Network("cluster-persistent", Spec("lstm", INPUTS, 512), SIZES["cluster-persistent"][1]),
        WARMED: Network("small", WARM, BATCH, BATCH),
    }


def runs(regime: str, spec: Spec, trained: int, inferred: int) -> list[str]:
    """All calls of a network, and that what they give has shape and dtype; no value is computed."""
    rng = np.random.default_rng(0)
    net: Any = numba_cuda.load(spec, rnnbench.init_params(spec, 0))

    def drawn(batch: int) -> Any:
        return numba_cuda.asarray(rng.standard_normal((STEPS, batch, INPUTS)).astype(spec.numpy_dtype))

    def zeros(batch: int) -> Any:
        return tuple(numba_cuda.asarray(np.zeros(spec.state_shape(batch), spec.numpy_dtype)) for _ in spec.kind.states)

    x, state = drawn(trained), zeros(trained)
    y, _ = net.forward(drawn(inferred), zeros(inferred))
    recorded, final, tape = net.record(x[:, ::1], state)
    grads = net.backward(tape, recorded, final)
    rnnbench.tbptt(net, x, recorded, 1, 1, state)
    wanted = {
        "y": (y, (STEPS, inferred, spec.features)),
        "recorded y": (recorded, (STEPS, trained, spec.features)),
        "final state": (final[0], spec.state_shape(trained)),
        "d x": (grads.x, x.shape),
        "d weight": (grads.params["weight_hh_l0"], net.params()["weight_hh_l0"].shape),
    }
    chosen = {net.regime_of(batch) for batch in (trained, inferred)}
    wrong = [] if chosen == {regime} else [f"regimes {chosen}; expected {regime}"]
    for name, (array, shape) in wanted.items():
        got = numba_cuda.to_numpy(array)
        if (got.shape, got.dtype) != (tuple(shape), spec.numpy_dtype):
            wrong.append(f"{name} is {got.dtype} {got.shape}; expected {spec.dtype} {tuple(shape)}")
    return wrong


def stages() -> list[str]:
    """Those of ``rnnbench gpu`` at small sizes, which share their kernels with the networks above: no number is computed."""
    from rnnbench.impls.numba_cuda import bringup

    (hidden, batch), (small, rows) = SIZES["cluster-persistent"], SIZES["small"]
    bringup.HIDDEN, bringup.BATCHES, bringup.STEPS = (hidden,), (batch,), STEPS
    bringup.DTYPES, bringup.CELLS_TIMED = ("float32",), ("elman",)
    bringup.GATE_HIDDEN, bringup.GATE_STEPS, bringup.GATE_BATCH = (small,), STEPS, rows
    wrong = []
    for name, stage in bringup.STAGES.items():
        found = [json.loads(json.dumps(row)) for row in stage()]
        if not found:
            wrong.append(f"{name} finds nothing")
        wrong += [f"{name}: {row}" for row in found if row["what"] == "gate" and "is not finite" not in row["worst"]]
    return wrong


def somebody_elses_capture_is_refused() -> list[str]:
    net, x = _warm()
    with _Captured() as stream, interop.on_stream(stream):
        return _refused(lambda: net.forward(x), "one of rnnbench.impls.numba_cuda.graphs.captured")


def a_capture_of_ours_neither_waits_nor_allocates() -> list[str]:
    """A call that was made before: forward, and a step."""
    net, x = _warm()
    stream = _new_stream()
    with interop.on_stream(stream):
        for _ in range(3):
            _step(net, x)
    with _Captured(stream), interop.on_stream(stream), capture.into([]):
        _step(net, x)
    return []


def what_a_capture_cannot_hold_is_refused() -> list[str]:
    """... before the driver would end the capture."""
    net, x = _warm()
    stream = _new_stream()
    longer = numba_cuda.asarray(np.zeros((STEPS + 1, BATCH, INPUTS), "float32"))
    with _Captured(stream), interop.on_stream(stream), capture.into([]):
        return [
            *_refused(lambda: net.forward(longer), "allocate"),
            *_refused(lambda: numba_cuda.to_numpy(x), "copy to the host"),
            *_refused(lambda: numba_cuda.asarray(np.zeros(1, "float32")), "copy from the host"),
            *_refused(numba_cuda.synchronize, "wait for the device"),
        ]


def _warm() -> tuple[Any, Any]:
    net = numba_cuda.load(WARM, rnnbench.init_params(WARM, 0))
    x = numba_cuda.asarray(np.zeros((STEPS, BATCH, INPUTS), "float32"))
    _step(net, x)
    return net, x


def _step(net: Any, x: Any) -> None:
    net.forward(x)
    y, _, tape = net.record(x)
    net.backward(tape, y)


def _refused(call: Callable[[], Any], words: str) -> list[str]:
    try:
        call()
    except CaptureError as error:
        return [] if words in str(error) else [f"refused with {error}; expected {words}"]
    return [f"not refused; expected {words}"]


def _new_stream() -> int:
    from cuda.bindings import driver

    error, stream = driver.cuStreamCreate(0)
    assert error == driver.CUresult.CUDA_SUCCESS
    return int(stream)


class _Captured:
    """A stream of the driver's in capture, which has to end well."""

    def __init__(self, stream: int | None = None) -> None:
        self.stream = _new_stream() if stream is None else stream

    def __enter__(self) -> int:
        from cuda.bindings import driver

        (error,) = driver.cuStreamBeginCapture(self.stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL)
        assert error == driver.CUresult.CUDA_SUCCESS, error
        return self.stream

    def __exit__(self, *_: object) -> None:
        from cuda.bindings import driver

        error, _graph = driver.cuStreamEndCapture(self.stream)
        assert error == driver.CUresult.CUDA_SUCCESS, f"the capture ended with {error.name}"


def attributes_set_as_cuda_core_would(kernel: Any, device: Any, attribute: str, value: int) -> None:
    setattr(kernel.attributes, attribute.lower(), value)


def without(forgotten: str) -> Callable[..., None]:
    """Kernels whose attribute is not set."""
    allow = launching._allow

    def most(kernel: Any, device: Any, attribute: str, value: int) -> None:
        if attribute != forgotten:
            allow(kernel, device, attribute, value)

    return most


def plant(fault: str) -> None:
    """A fault that was once there."""
    if fault == "attributes of cuda.core":
        launching._allow = attributes_set_as_cuda_core_would
    elif fault == "bfloat16 as it is":
        arrays.is_bfloat16 = lambda _: False
    else:
        launching._allow = without(fault)


CASES: dict[str, Callable[[], list[str]]] = {
    **{name: lambda network=network: runs(*network) for name, network in networks().items()},
    "stages": stages,
    "somebody else's capture": somebody_elses_capture_is_refused,
    "a capture of ours": a_capture_of_ours_neither_waits_nor_allocates,
    "refusals in a capture": what_a_capture_cannot_hold_is_refused,
}


def verdict(case: Callable[[], list[str]]) -> list[str]:
    try:
        return case()
    except Exception:
        return [traceback.format_exc()]


def main(fault: str | None = None, *names: str) -> None:
    if fault:
        plant(fault)
    print(json.dumps({name: verdict(CASES[name]) for name in names or CASES}))


if __name__ == "__main__":
    main(*sys.argv[1:])
