"""Backend numba_cuda: right on every cell in the simulator (or on a GPU), honest where neither is there, pure in float32.

Numba chooses between simulator and GPU when it is imported, so that the networks run in a process of their own: this
file run as a script, once for all cases.  About 20 s, nearly all of it in the simulator.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

import rnnbench
from rnnbench.errors import ArgumentError, BackendUnavailable
from rnnbench.impls import numba_cuda, numpy_ref
from rnnbench.impls.numba_cuda import device, ptx
from rnnbench.impls.numba_cuda.cells import CELLS
from rnnbench.installing import how_to_install
from rnnbench.networks.spec import Spec

STEPS, BATCH, INPUTS, HIDDEN, OUTPUTS = 3, 2, 3, 5, 4

# A result hangs on at most this many roundings in a row: forward and back through 2 layers of 3 steps, each with a sum
# of up to 6 products and a score of elementwise operations; then a sum over 6 rows.  Each is at most eps / 2 of the
# largest value.  That they cancel more than they add leaves room for how weights below 1/2 let them grow.
ROUNDINGS = 2 * 2 * 3 * (6 + 20) + 6

DTYPES = ("float32", "float64")
"""Of its kernels."""

DEVICES = {"simulator": {"RNNBENCH_SIMULATE_CUDA": "1"}, "gpu": {}}


def specs() -> dict[str, Spec]:
    """Every cell x layers x directions x dtype x bias, and every nonlinearity, by name."""
    found = {}
    for cell, layers, bidirectional, dtype, bias in itertools.product(CELLS, (1, 2), (False, True), DTYPES, (True, False)):
        name = f"{cell}-{layers}-{'bi' if bidirectional else 'uni'}-{dtype}-{'bias' if bias else 'nobias'}"
        found[name] = _spec(cell, dtype, num_layers=layers, bidirectional=bidirectional, bias=bias)
    for cell, kind in CELLS.items():
        for nonlinearity in kind.nonlinearities[1:]:
            found[f"{cell}-{nonlinearity}"] = _spec(cell, "float32", nonlinearity=nonlinearity)
    return found


def _spec(cell: str, dtype: str, **options: Any) -> Spec:
    if CELLS[cell].feeds_back_output:
        options["output_size"] = OUTPUTS
    return Spec(cell, INPUTS, HIDDEN, dtype=dtype, **options)


class Data(NamedTuple):
    """A network's weights, inputs and cotangents, as NumPy arrays."""

    params: dict[str, np.ndarray]
    x: np.ndarray
    state: tuple[np.ndarray, ...]
    dy: np.ndarray
    dstate: tuple[np.ndarray, ...]


def data(spec: Spec, steps: int = STEPS) -> Data:
    rng = np.random.default_rng(7)

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(spec.dtype)

    def state() -> tuple[np.ndarray, ...]:
        return tuple(drawn(*spec.state_shape(BATCH)) for _ in spec.kind.states)

    params = rnnbench.init_params(spec, seed=3)
    return Data(params, drawn(steps, BATCH, INPUTS), state(), drawn(steps, BATCH, spec.features), state())


def results(backend: ModuleType, spec: Spec, given: Data) -> dict[str, np.ndarray]:
    """Outputs of forward and record, and all gradients, by name."""
    net = backend.load(spec, given.params)
    x, dy = backend.asarray(given.x), backend.asarray(given.dy)
    state, dstate = (tuple(map(backend.asarray, parts)) for parts in (given.state, given.dstate))
    y, final = net.forward(x, state)
    found = {"forward y": y, **_named("forward state", final)}
    y, final, tape = net.record(x, state)
    found |= {"record y": y, **_named("record state", final)}
    return {name: backend.to_numpy(value) for name, value in (found | _gradients(net.backward(tape, dy, dstate))).items()}


def tbptt_results(backend: ModuleType, spec: Spec, given: Data, window: int, stride: int) -> dict[str, np.ndarray]:
    state = tuple(map(backend.asarray, given.state))
    net = backend.load(spec, given.params)
    y, final, grads = rnnbench.tbptt(net, backend.asarray(given.x), backend.asarray(given.dy), window, stride, state)
    return {name: backend.to_numpy(v) for name, v in ({"y": y, **_named("state", final)} | _gradients(grads)).items()}


def _named(name: str, parts: tuple[Any, ...]) -> dict[str, Any]:
    return {f"{name} {index}": part for index, part in enumerate(parts)}


def _gradients(grads: rnnbench.Gradients) -> dict[str, Any]:
    return {**{f"d {name}": value for name, value in grads.params.items()}, "d x": grads.x, **_named("d state", grads.state)}


def in_float64(spec: Spec, given: Data) -> tuple[Spec, Data]:
    exact = Spec(
        spec.cell,
        spec.input_size,
        spec.hidden_size,
        num_layers=spec.num_layers,
        bidirectional=spec.bidirectional,
        nonlinearity=spec.nonlinearity,
        bias=spec.bias,
        output_size=spec.output_size,
        dtype="float64",
    )
    params = {name: value.astype("float64") for name, value in given.params.items()}
    x, dy = given.x.astype("float64"), given.dy.astype("float64")
    state, dstate = (tuple(part.astype("float64") for part in parts) for parts in (given.state, given.dstate))
    return exact, Data(params, x, state, dy, dstate)


def differences(spec: Spec, got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
    """What is wrong, in words: shape, dtype, NaN where there is none (or none where there is), or too large an error."""
    wrong = [f"results {sorted(got)}; expected {sorted(expected)}"] if got.keys() != expected.keys() else []
    for name, reference in expected.items():
        value = got[name]
        if value.shape != reference.shape or value.dtype != spec.numpy_dtype:
            wrong.append(f"{name} is {value.dtype} {value.shape}; expected {spec.dtype} {reference.shape}")
            continue
        if (np.isnan(value) != np.isnan(reference)).any():
            wrong.append(f"{name} is NaN at {np.isnan(value).sum()} places; expected {np.isnan(reference).sum()}")
        largest = np.nanmax(np.abs(reference), initial=0)
        error = np.nanmax(np.abs(value - reference), initial=0)
        if not error <= ROUNDINGS * np.finfo(spec.dtype).eps / 2 * largest:
            wrong.append(f"{name} is off by {error:.2e}; the largest value is {largest:.2e}")
    return wrong


# What runs in the process with simulator or GPU: each case returns what is wrong.


def agrees(spec: Spec) -> list[str]:
    given = data(spec)
    return differences(spec, results(numba_cuda, spec, given), results(numpy_ref, *in_float64(spec, given)))


def tbptt_agrees(cell: str) -> list[str]:
    spec = _spec(cell, "float64", num_layers=2)
    given = data(spec, steps=7)
    got, expected = (tbptt_results(backend, spec, given, window=4, stride=3) for backend in (numba_cuda, numpy_ref))
    return differences(spec, got, expected)


def empty_sequence_agrees() -> list[str]:
    spec = _spec("lstm", "float32", bidirectional=True)
    given = data(spec, steps=0)
    return differences(spec, results(numba_cuda, spec, given), results(numpy_ref, spec, given))


def saturates_and_passes_nan(cell: str, nonlinearity: str = "tanh") -> list[str]:
    """Pre-activations of +-1e4 and NaN: no NaN arises, and none is lost on the way forward or back."""
    spec = _spec(cell, "float32", nonlinearity=nonlinearity)
    given = data(spec)
    for name, value in given.params.items():
        if name.startswith("bias_ih"):
            value[:] = np.where(np.arange(value.size) % 2, 1e4, -1e4)
    given.x[1, 1, 0] = np.nan
    return differences(spec, results(numba_cuda, spec, given), results(numpy_ref, *in_float64(spec, given)))


def strided_arguments_are_read_right() -> list[str]:
    spec = _spec("lstm", "float64", bidirectional=True)
    given = data(spec)
    net = numba_cuda.load(spec, given.params)

    def strided(array: np.ndarray) -> Any:
        return numba_cuda.asarray(np.repeat(array, 2, axis=2))[:, :, ::2]

    x, dy = strided(given.x), strided(given.dy)
    state, dstate = (tuple(map(strided, parts)) for parts in (given.state, given.dstate))
    y, final = net.forward(x, state)
    found = {"forward y": y, **_named("forward state", final)}
    y, final, tape = net.record(x, state)
    found |= {"record y": y, **_named("record state", final)} | _gradients(net.backward(tape, dy, dstate))
    got = {name: numba_cuda.to_numpy(value) for name, value in found.items()}
    return differences(spec, got, results(numpy_ref, spec, given))


def results_are_not_shared() -> list[str]:
    """Tapes outlive each other, an update and a caller who overwrites what record gave."""
    spec = _spec("gru", "float64")
    given = data(spec)
    net = numba_cuda.load(spec, given.params)
    x, dy = numba_cuda.asarray(given.x), numba_cuda.asarray(given.dy)
    state, dstate = (tuple(map(numba_cuda.asarray, parts)) for parts in (given.state, given.dstate))
    y, (final,), first = net.record(x, state)
    second = net.record(x, state)[2]
    y[:], final[:] = np.zeros_like(given.dy), np.zeros_like(given.state[0])
    net.update({name: 2 * value for name, value in given.params.items()})
    expected = {name: v for name, v in results(numpy_ref, spec, given).items() if name.startswith("d ")}
    wrong = []
    for tape in (second, first):
        grads = _gradients(net.backward(tape, dy, dstate))
        wrong += differences(spec, {name: numba_cuda.to_numpy(value) for name, value in grads.items()}, expected)
    return wrong


def refuses_wrong_arrays() -> list[str]:
    spec = _spec("elman", "float32")
    given = data(spec)
    net = numba_cuda.load(spec, given.params)
    offered = {
        "x is a numpy.ndarray": given.x,
        "x has dtype float64": numba_cuda.asarray(given.x.astype("float64")),
        "x has shape (2, 3)": numba_cuda.asarray(given.x[0]),
    }
    wrong = []
    for words, x in offered.items():
        try:
            net.forward(x)
            wrong.append(f"accepted: {words}")
        except ArgumentError as error:
            if words not in str(error):
                wrong.append(f"said {str(error)!r}; expected {words!r}")
    return wrong


def tells_its_device() -> list[str]:
    info = numba_cuda.info()
    wrong = [f"info lacks {name}" for name in ("numba", "numba_cuda") if not info.get(name)]
    if (info["device"] == "simulator") != ("RNNBENCH_SIMULATE_CUDA" in os.environ):
        wrong.append(f"info says {info['device']}")
    return wrong


CASES: dict[str, Callable[[], list[str]]] = {
    **{name: (lambda spec=spec: agrees(spec)) for name, spec in specs().items()},
    **{f"tbptt-{cell}": (lambda cell=cell: tbptt_agrees(cell)) for cell in CELLS},
    "saturation-lstm": lambda: saturates_and_passes_nan("lstm"),
    "saturation-gru_reset_before": lambda: saturates_and_passes_nan("gru_reset_before"),
    "saturation-elman-relu": lambda: saturates_and_passes_nan("elman", "relu"),
    "saturation-elman-sigmoid": lambda: saturates_and_passes_nan("elman", "sigmoid"),
    "empty-sequence": empty_sequence_agrees,
    "strided-arguments": strided_arguments_are_read_right,
    "unshared-results": results_are_not_shared,
    "wrong-arrays": refuses_wrong_arrays,
    "info": tells_its_device,
}


def main() -> None:
    """Run all cases; print one JSON object of what is wrong by case."""
    found = {}
    for name, case in CASES.items():
        try:
            found[name] = case()
        except Exception:
            found[name] = [traceback.format_exc()]
    print(json.dumps(found))


# What pytest runs.


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "RNNBENCH_"))}
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, env=inherited | environment, capture_output=True, text=True, timeout=1800)


@pytest.fixture(scope="module", params=list(DEVICES))
def verdicts(request: pytest.FixtureRequest) -> Iterator[dict[str, list[str]]]:
    if request.param == "gpu" and (reason := numba_cuda.unavailable()):
        pytest.skip(reason)
    done = run_python(__file__, **DEVICES[request.param])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_reference(verdicts: dict[str, list[str]], case: str) -> None:
    assert verdicts[case] == []


def test_without_gpu_it_says_so_and_nothing_else() -> None:
    """Importing needs nothing; listing gives one sentence; load and asarray raise BackendUnavailable with it."""
    script = """
import sys
from rnnbench.impls import numba_cuda
print("numba" in sys.modules)
import numpy, rnnbench
print(numba_cuda.unavailable())
print({listing.name: listing.reason for listing in rnnbench.backends()}["numba_cuda"])
spec = rnnbench.Spec("elman", 1, 1)
print(numba_cuda.supports(spec))
for call in (lambda: numba_cuda.load(spec, rnnbench.init_params(spec, 0)), lambda: numba_cuda.asarray(numpy.zeros(1)),
             lambda: numba_cuda.to_numpy(None), numba_cuda.synchronize, numba_cuda.info):
    try:
        call()
    except rnnbench.BackendUnavailable as error:
        print(error)
"""
    done = run_python("-c", script, NUMBA_DISABLE_CUDA="1")
    assert (done.returncode, done.stderr) == (0, "")
    imported, reason, listed, supported, *errors = done.stdout.splitlines()
    assert imported == "False"
    assert "a GPU is needed" in reason
    assert listed == f"numba_cuda cannot run here: {reason}"
    assert supported == "None"
    assert errors == [f"numba_cuda cannot run here: {reason}"] * 5


def test_without_numba_cuda_it_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """numba alone, which may carry an old numba.cuda, is not enough."""
    monkeypatch.setattr(device.importlib.util, "find_spec", {"numba": ...}.get)
    assert numba_cuda.unavailable() == f"numba-cuda is missing: {how_to_install('cuda')}"
    with pytest.raises(BackendUnavailable, match="numba-cuda is missing"):
        ptx.compile_ptx(_spec("lstm", "float32"))


def test_a_package_of_another_version_is_named_with_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """... where numba-cuda would fail in the middle of its first compilation: NumPy 2.5 has no ``row_stack``."""
    found = device.version
    monkeypatch.setattr(device, "version", lambda name: "2.5.2" if name == "numpy" else found(name))
    assert numba_cuda.unavailable() == "numpy 2.5.2 is installed; expected <2.5: " + how_to_install("cuda")


def test_a_bounded_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = device.version

    def version(name: str) -> str:
        if name == "cuda-core":
            raise PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(device, "version", version)
    assert numba_cuda.unavailable() == f"cuda-core is missing: {how_to_install('cuda')}"


def test_without_greenlet_there_is_no_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    found = device.importlib.util.find_spec
    monkeypatch.setenv(device.SIMULATION, "1")
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None if name == "greenlet" else found(name))
    assert (
        numba_cuda.unavailable() == "the simulator needs greenlet: pip install -e '.[cuda-offline]' in the checkout of rnnbench"
    )


def test_numbas_own_simulator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    reason = numba_cuda.unavailable()
    assert reason is not None
    assert reason.startswith("NUMBA_ENABLE_CUDASIM is 1, and Numba's own simulator knows no clusters: unset it")


def test_without_compiler_ptx_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptx, "missing_compiler", lambda: "no nvvm")
    with pytest.raises(BackendUnavailable, match="numba_cuda cannot compile here: no nvvm"):
        ptx.compile_ptx(_spec("lstm", "float32"))


needs_compiler = pytest.mark.skipif(bool(device.missing_compiler()), reason=str(device.missing_compiler()))


@needs_compiler
@pytest.mark.parametrize(("cell", "nonlinearity"), [(c, n) for c, kind in CELLS.items() for n in kind.nonlinearities])
def test_float32_kernels_hold_no_float64_instruction(cell: str, nonlinearity: str) -> None:
    """A GPU for graphics does float64 at 1/64 of the speed, and one untyped literal is enough to fall into it."""
    kernels = ptx.compile_ptx(_spec(cell, "float32", nonlinearity=nonlinearity))
    expected = {"product", "plus", "copy", "cell_forward", "cell_backward"}
    if CELLS[cell].inner_gates:
        expected |= {"cell_inner", "cell_inner_backward"}
    assert kernels.keys() == expected
    for name, code in kernels.items():
        assert ".visible .entry" in code, name
        assert ".target sm_90" in code, name
        assert re.findall(r".*\.f64\b.*", code) == [], name


@needs_compiler
def test_float64_kernels_compute_in_float64() -> None:
    """... so that the search for float64 instructions finds them where they are."""
    for name, code in ptx.compile_ptx(_spec("lstm", "float64"), compute_capability=(8, 0)).items():
        assert re.search(r"\.f64\b", code), name
        assert ".target sm_80" in code, name


if __name__ == "__main__":
    main()
