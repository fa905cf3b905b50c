"""The peers on the CPU: each against the reference, and what it promises on phases, threads, precision and waiting.

About 50 s, most of it torch.compile's, which compiles for seconds each of its cases.
"""

import functools
import gc
import json
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

import rnnbench
from rnnbench import Spec
from rnnbench.check import Problem, check, expected, gate, totals
from rnnbench.impls import numpy_ref
from rnnbench.networks.cells import CELLS
from rnnbench.networks.contract import unsupported
from rnnbench.suite.case import Case

STEP = Case("lstm", "step", 7, 3, 4, 5)


@functools.cache
def loaded(name: str):
    """The backend, or a skip that says why it cannot run here."""
    try:
        return rnnbench.load_backend(name)
    except rnnbench.BackendUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def torch_compile():
    return loaded("torch_compile")


@pytest.fixture
def jax_scan():
    return loaded("jax_scan")


@pytest.fixture
def onnxruntime():
    return loaded("onnxruntime")


def case(cell: str, phase: str = "step", **fields) -> Case:
    return msgspec.structs.replace(STEP, cell=cell, phase=phase, output_size=6 if cell == "jordan" else None, **fields)


def assert_passes(backend, of: Case) -> None:
    problem = Problem(of, "orthogonal", seed=3)
    wrong = [str(finding) for finding in gate(backend, problem, expected(problem)) if not finding.passed]
    assert not wrong, f"{of.label()}: {wrong[:3]}"


def drawn(spec: Spec, steps: int = 7, batch: int = 3, seed: int = 0):
    """Weights, x, state, dy and dstate of a spec, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    x, dy = (rng.standard_normal((steps, batch, n)).astype(spec.dtype) for n in (spec.input_size, spec.features))
    state, dstate = (
        tuple(rng.standard_normal(spec.state_shape(batch)).astype(spec.dtype) for _ in spec.kind.states) for _ in range(2)
    )
    return rnnbench.init_params(spec, seed), x, state, dy, dstate


def in_process(code: str, **environment: str) -> dict:
    """What a fresh interpreter prints as JSON, with variables set before it starts."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


# all of them


def test_importing_rnnbench_imports_no_peer():
    found = in_process("import json, sys, rnnbench; print(json.dumps(sorted(sys.modules)))")
    assert {"jax", "jaxlib", "torch", "onnx", "onnxruntime"}.isdisjoint(found)


@pytest.mark.parametrize("name", ["jax_scan", "onnxruntime", "torch_compile"])
@pytest.mark.parametrize("threads", [0, -1, True, 1.5])
def test_bad_threads_are_refused(name, threads):
    spec = Spec("gru", 3, 4)
    with pytest.raises(rnnbench.ArgumentError, match=r"threads is .*; expected an integer >= 1, or None"):
        loaded(name).load(spec, rnnbench.init_params(spec, 0), threads=threads)


@pytest.mark.parametrize("name", ["jax_scan", "onnxruntime"])
def test_a_missing_library_is_named_with_its_extra(name):
    library = {"jax_scan": "jax", "onnxruntime": "onnxruntime"}[name]
    code = f"""
import json, sys, rnnbench
sys.modules[{library!r}] = None
try:
    rnnbench.load_backend({name!r})
except rnnbench.BackendUnavailable as error:
    print(json.dumps(str(error)))
"""
    assert "pip install -e '.[peers]'" in in_process(code)


# phases that a backend lacks


def forward_only():
    names = ("load", "asarray", "to_numpy", "synchronize", "supports", "info")
    ask = SimpleNamespace(**{name: getattr(numpy_ref, name) for name in names})
    ask.supports_phase = lambda spec, phase: None if phase == "forward" else f"no {phase} of {spec.cell}"
    return ask


def test_a_backend_says_which_phases_it_lacks_and_one_that_does_not_say_has_all():
    spec = Spec("lstm", 3, 4)
    assert unsupported(numpy_ref, spec, "step") is None
    assert unsupported(forward_only(), spec, "forward") is None
    assert unsupported(forward_only(), spec, "step") == "no step of lstm"
    narrow = forward_only()
    narrow.supports = lambda _: "not this network"
    assert unsupported(narrow, spec, "forward") == unsupported(narrow, spec, "step") == "not this network"


def test_the_check_skips_the_phases_that_a_backend_lacks_and_says_so():
    report = check(forward_only(), level="smoke", cells=["gru"])
    ran = [outcome.problem.case.phase for outcome in report.outcomes if outcome.skipped is None]
    assert report.passed
    assert set(ran) == {"forward"}
    assert totals([report]) == {"passed": len(ran), "skipped": len(report.outcomes) - len(ran)}
    assert "no step of gru" in report.table()


# onnxruntime


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_onnxruntime_computes_what_the_reference_does(onnxruntime, layers, bidirectional, bias):
    for cell in ("elman", "lstm", "lstm_peephole", "gru", "gru_reset_before"):
        for nonlinearity in CELLS[cell].nonlinearities:
            options = {"nonlinearity": nonlinearity, "bias": bias, "bidirectional": bidirectional, "layers": layers}
            assert_passes(onnxruntime, case(cell, "forward", **options))


def test_onnxruntime_refuses_training_before_and_when_it_is_asked(onnxruntime):
    spec = Spec("lstm", 3, 4)
    net = onnxruntime.load(spec, rnnbench.init_params(spec, 0))
    x = np.zeros((2, 1, 3), np.float32)
    assert onnxruntime.supports_phase(spec, "forward") is None
    for phase in ("step", "tbptt"):
        assert "no gradient" in onnxruntime.supports_phase(spec, phase)
    with pytest.raises(rnnbench.ArgumentError, match=r"cannot record: .* no gradient"):
        net.record(x)
    with pytest.raises(rnnbench.ArgumentError, match=r"cannot run BPTT: .* no gradient"):
        net.backward(None, x)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [(Spec("jordan", 3, 4), "feeds back its output"), (Spec("gru", 3, 4, dtype="float64"), "only in float32")],
)
def test_onnxruntime_says_why_it_cannot(onnxruntime, spec, reason):
    assert reason in onnxruntime.supports(spec)
    with pytest.raises(rnnbench.ArgumentError, match=reason):
        onnxruntime.load(spec, rnnbench.init_params(spec, 0))


def test_onnxruntime_takes_new_weights_and_arrays_of_any_strides(onnxruntime):
    spec = Spec("gru", 4, 5)
    params, x, state, *_ = drawn(spec)
    net = onnxruntime.load(spec, rnnbench.init_params(spec, 9))
    net.update(params)
    wanted = onnxruntime.load(spec, params).forward(x, state)[0]
    np.testing.assert_array_equal(net.forward(np.asfortranarray(x), state)[0], wanted)
    np.testing.assert_array_equal(net.forward(np.ascontiguousarray(x[::-1])[::-1], state)[0], wanted)


def test_onnxruntime_has_the_threads_of_the_call_or_of_the_process(onnxruntime, monkeypatch):
    spec = Spec("gru", 3, 4)
    params = rnnbench.init_params(spec, 0)

    def threads(net) -> int:
        return net._session.get_session_options().intra_op_num_threads

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert onnxruntime.info()["threads"] == threads(onnxruntime.load(spec, params)) == 3
    assert threads(onnxruntime.load(spec, params, threads=2)) == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert onnxruntime.info()["threads"] >= 1


# jax_scan


@pytest.mark.parametrize("cell", CELLS)
def test_jax_computes_what_the_reference_does(jax_scan, cell):
    assert_passes(jax_scan, case(cell, layers=2, bidirectional=True, dtype="float64"))
    for nonlinearity in CELLS[cell].nonlinearities:
        assert_passes(jax_scan, case(cell, nonlinearity=nonlinearity))
    assert_passes(jax_scan, case(cell, bias=False))
    assert_passes(jax_scan, case(cell, "forward", bidirectional=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_jax_truncates_and_takes_empty_sequences(jax_scan, dtype):
    assert_passes(jax_scan, case("lstm", "tbptt", window=3, stride=2, dtype=dtype))
    spec = Spec("lstm", 4, 5, dtype=dtype)
    params, x, state, dy, _ = drawn(spec)
    net = jax_scan.load(spec, params)
    y, final, tape = net.record(jax_scan.asarray(x[:0]), tuple(map(jax_scan.asarray, state)))
    grads = net.backward(tape, jax_scan.asarray(dy[:0]))
    arrays = [y, *final, grads.x, *grads.state, *grads.params.values()]
    assert {str(array.dtype) for array in arrays} == {dtype}
    assert y.shape == (0, 3, 5)
    np.testing.assert_array_equal(jax_scan.to_numpy(final[1]), state[1])


def test_float64_networks_leave_the_precision_of_others_alone(jax_scan):
    import jax

    before = jax.config.jax_enable_x64
    assert jax.numpy.ones(2, "float32").dtype == "float32"
    spec = Spec("gru", 4, 5, dtype="float64")
    params, x, state, dy, _ = drawn(spec)
    net = jax_scan.load(spec, params)
    y, _, tape = net.record(jax_scan.asarray(x), tuple(map(jax_scan.asarray, state)))
    assert y.dtype == net.backward(tape, jax_scan.asarray(dy)).x.dtype == "float64"
    assert jax.config.jax_enable_x64 == before
    assert jax.numpy.arange(3.0).dtype == ("float64" if before else "float32")
    with jax.enable_x64(True):  # nor do others' settings reach float32 networks
        assert_passes(jax_scan, case("gru"))


def test_after_synchronize_every_result_is_ready(jax_scan):
    import jax

    spec = Spec("lstm", 256, 256)  # 30 GFLOP in all: XLA is still at work when the calls have returned
    params, x, state, dy, dstate = drawn(spec, steps=64, batch=32)
    net = jax_scan.load(spec, params)
    x, dy, state, dstate = jax.tree.map(jax_scan.asarray, (x, dy, state, dstate))
    jax.block_until_ready(net.backward(net.record(x, state)[2], dy, dstate))  # compile
    jax_scan.synchronize()
    results = []
    for _ in range(3):
        y, final, tape = net.record(x, state)
        results.append((y, final, net.backward(tape, dy, dstate)))
    waiting = not all(array.is_ready() for array in jax.tree.leaves(results))
    jax_scan.synchronize()
    assert waiting, "calls waited for their results"
    assert all(array.is_ready() for array in jax.tree.leaves(results))


def test_jax_compiles_once_for_all_tapes_of_a_shape(jax_scan):
    spec = Spec("gru", 4, 6)
    params, x, state, dy, dstate = drawn(spec)
    net = jax_scan.load(spec, params)

    def step():
        _, _, tape = net.record(jax_scan.asarray(x), tuple(map(jax_scan.asarray, state)))
        return net.backward(tape, jax_scan.asarray(dy), tuple(map(jax_scan.asarray, dstate)))

    step()
    compiled = (jax_scan._record._cache_size(), jax_scan._backward._cache_size())
    net.update(rnnbench.init_params(spec, 5))
    step()
    assert (jax_scan._record._cache_size(), jax_scan._backward._cache_size()) == compiled


def test_jax_tapes_keep_their_weights_and_are_released(jax_scan):
    spec = Spec("gru", 4, 5, dtype="float64")
    params, x, state, dy, dstate = drawn(spec)
    net = jax_scan.load(spec, params)
    reference = numpy_ref.load(spec, params)
    wanted = reference.backward(reference.record(x, state)[2], dy, dstate)
    _, _, tape = net.record(jax_scan.asarray(x), tuple(map(jax_scan.asarray, state)))
    net.update(rnnbench.init_params(spec, 5))
    kept = weakref.ref(tape.content)
    grads = net.backward(tape, jax_scan.asarray(dy), tuple(map(jax_scan.asarray, dstate)))
    gc.collect()
    assert kept() is None
    # fewer than 1000 roundings on the way of any value, each of half an ulp, in a well-conditioned network of 7 steps
    np.testing.assert_allclose(
        jax_scan.to_numpy(grads.params["weight_hh_l0"]), wanted.params["weight_hh_l0"], rtol=1e-12, atol=1e-13
    )


def test_jax_arrays_share_no_memory_with_numpy(jax_scan):
    array = np.arange(4096.0)
    lent = jax_scan.asarray(array)
    array[:] = -1
    back = jax_scan.to_numpy(lent)
    back[:] = -2
    np.testing.assert_array_equal(jax_scan.to_numpy(lent), np.arange(4096.0))


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize("threads", [1, 3])
def test_jax_has_the_threads_that_it_says_and_refuses_others(threads):
    loaded("jax_scan")
    code = """
import json, pathlib, rnnbench
from rnnbench.impls import jax_scan
spec = rnnbench.Spec("gru", 3, 4)
params = rnnbench.init_params(spec, 0)
names = [file.read_text().strip() for file in pathlib.Path("/proc/self/task").glob("*/comm")]
jax_scan.load(spec, params, threads=jax_scan.THREADS)
try:
    jax_scan.load(spec, params, threads=jax_scan.THREADS + 1)
except rnnbench.ArgumentError as error:
    print(json.dumps([jax_scan.info()["threads"], names.count("tf_XLAEigen"), str(error)]))
"""
    said, counted, refusal = in_process(code, NPROC=str(threads))
    assert said == counted == threads
    assert f"threads is {threads + 1}; expected None or {threads}: " in refusal


# torch_compile


@pytest.mark.parametrize(
    "of",
    [
        case("lstm", T=5, layers=2, bidirectional=True),
        case("gru", T=3, dtype="float64"),
        case("elman", T=3, nonlinearity="relu", bias=False),
        case("gru_reset_before", "tbptt", T=5, window=3),
    ],
    ids=Case.label,
)
def test_torch_compile_computes_what_the_reference_does(torch_compile, monkeypatch, of):
    monkeypatch.setattr(torch_compile, "CHUNK", 2)  # compiles faster; chunks and what is left over occur
    assert_passes(torch_compile, of)


def test_torch_compile_compiles_each_chunk_once_and_never_runs_uncompiled(torch_compile, monkeypatch):
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch_compile, "CHUNK", 2)
    spec = Spec("elman", 3, 4)
    params, x, state, *_ = drawn(spec, steps=5, batch=2)
    x, state = torch_compile.asarray(x), tuple(map(torch_compile.asarray, state))
    net = torch_compile.load(spec, params, threads=1)
    before = counters["stats"]["unique_graphs"]
    y, _ = net.forward(x, state)
    assert counters["stats"]["unique_graphs"] == before + 2  # of two steps and of one
    ran = []
    monkeypatch.setattr("rnnbench.impls.torch_eager.tanh", lambda z: ran.append(z))
    other = torch_compile.load(replace(spec, num_layers=1), params, threads=1)
    assert other.forward(x, state)[0].equal(y)
    assert counters["stats"]["unique_graphs"] == before + 2
    assert not ran


def test_torch_compile_says_what_it_needs(torch_compile, monkeypatch):
    from torch._inductor import cpp_builder, exc

    def none_found() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_found)
    with pytest.raises(rnnbench.BackendUnavailable, match=r"needs a C\+\+ compiler at run time and finds none"):
        rnnbench.load_backend("torch_compile")
    monkeypatch.undo()
    monkeypatch.setattr("rnnbench.impls.torch_compile.sysconfig.get_path", lambda _: "/nowhere")
    with pytest.raises(rnnbench.BackendUnavailable, match=r"finds no Python\.h"):
        rnnbench.load_backend("torch_compile")
