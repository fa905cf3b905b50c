"""The PyTorch backends: every cell against the reference, and what they promise about tensors and threads."""

import subprocess
import sys
from itertools import product

import msgspec
import numpy as np
import pytest

import rnnbench
from rnnbench import check
from rnnbench.suite.case import Case

torch = pytest.importorskip("torch", reason="the PyTorch backends need torch")

from helpers.torch_problems import (  # noqa: E402  # only where torch is
    CELLS,
    UNSUPPORTED_BY_NN,
    B,
    H,
    I,
    Problem,
    T,
    assert_same,
    each_backend,
    each_pair,
    name_of,
    numbered,
    numpy_tensors,
    reference_tape,
    spec_of,
)

from rnnbench.impls import numpy_ref, torch_nn  # noqa: E402  # only where torch is


@each_pair
@pytest.mark.parametrize(("layers", "bidirectional", "bias"), list(product((1, 2), (False, True), (True, False))))
def test_every_tensor_equals_the_reference(backend, cell, layers, bidirectional, bias):
    problem = Problem(spec_of(cell, num_layers=layers, bidirectional=bidirectional, bias=bias))
    assert backend.supports(problem.spec) is None
    assert_same(problem.run(backend), problem.run(numpy_ref), "float64")


@each_pair
@pytest.mark.parametrize("bias", [True, False])
def test_float32_has_its_own_kernels_and_the_same_answers(backend, cell, bias):
    problem = Problem(spec_of(cell, num_layers=2, bias=bias, dtype="float32"))
    assert_same(problem.run(backend), problem.in_float64().run(numpy_ref), "float32")


@each_pair
def test_float16_is_within_the_tolerance_of_the_gate(backend, cell):
    """PyTorch's sums on the CPU are finer than float16, forward and backward."""
    case = Case(phase="step", T=T, B=B, I=I, H=H, layers=2, bidirectional=True, dtype="float16", **CELLS[cell])
    problem = check.Problem(case, "orthogonal")
    assert [str(finding) for finding in check.gate(backend, problem, check.expected(problem)) if not finding.passed] == []


@each_pair
def test_state_none_is_zeros(backend, cell):
    problem = Problem(spec_of(cell))
    net = backend.load(problem.spec, problem.params)
    x, zeros = backend.asarray(problem.x), tuple(map(backend.asarray, map(np.zeros_like, problem.state)))
    y, final, tape = net.record(x)
    y_zeros, final_zeros, tape_zeros = net.record(x, zeros)
    grads = net.backward(tape, backend.asarray(problem.dy))
    grads_zeros = net.backward(tape_zeros, backend.asarray(problem.dy), zeros)
    pairs = [(y, y_zeros), *zip(final, final_zeros, strict=True), (grads.x, grads_zeros.x)]
    pairs += [*zip(grads.params.values(), grads_zeros.params.values(), strict=True)]
    pairs += [*zip(grads.state, grads_zeros.state, strict=True)]
    assert all(torch.equal(a, b) for a, b in pairs)


@each_pair
def test_tensors_of_any_strides(backend, cell):
    problem = Problem(spec_of(cell, dtype="float32"))
    net = backend.load(problem.spec, problem.params)
    expected = problem.run(backend)

    class Strided:
        to_numpy = staticmethod(backend.to_numpy)

        @staticmethod
        def asarray(array):
            return backend.asarray(array.transpose(2, 0, 1)).permute(1, 2, 0)

    assert not Strided.asarray(problem.x).is_contiguous()
    got = problem.forward(Strided, net) | problem.bptt(Strided, net)
    for name, tensor in expected.items():
        np.testing.assert_allclose(got[name], tensor, rtol=1e-4, atol=1e-5, err_msg=name)


@each_pair
def test_truncated_bptt_equals_the_reference(backend, cell):
    problem = Problem(spec_of(cell, num_layers=2), steps=7)
    found = []
    for b in (backend, numpy_ref):
        net = b.load(problem.spec, problem.params)
        x, state = problem.inputs(b)
        y, final, grads = rnnbench.tbptt(net, x, b.asarray(problem.dy), window=4, stride=2, state=state)
        tensors = {"y": y, "dx": grads.x} | grads.params | numbered("state", final) | numbered("dstate", grads.state)
        found.append(numpy_tensors(b, tensors))
    got, expected = found
    assert_same(got, expected, "float64")


@each_backend
def test_an_empty_sequence_gives_tensors(backend):
    problem = Problem(spec_of("lstm"))
    net = backend.load(problem.spec, problem.params)
    empty = torch.empty(0, B, I, dtype=torch.float64)
    y, final, tape = net.record(empty, tuple(map(backend.asarray, problem.state)))
    grads = net.backward(tape, y)
    assert y.shape == (0, B, H)
    assert y.dtype == grads.x.dtype == torch.float64
    np.testing.assert_array_equal(backend.to_numpy(final[1]), problem.state[1])
    assert all(not g.any() for g in grads.params.values())


@pytest.mark.parametrize(("cell", "reason"), UNSUPPORTED_BY_NN.items())
def test_torch_nn_says_why_it_cannot(cell, reason):
    spec = spec_of(cell)
    sentence = torch_nn.supports(spec)
    assert reason in sentence
    with pytest.raises(rnnbench.ArgumentError, match=reason):
        torch_nn.load(spec, rnnbench.init_params(spec, 0))


@each_backend
def test_threads_hold_for_the_calls_and_are_restored(backend, monkeypatch):
    problem = Problem(spec_of("gru"))
    before = torch.get_num_threads()
    wanted = before + 1
    net = backend.load(problem.spec, problem.params, threads=wanted)
    seen = []

    def watched(function):
        def call(*args, **kwargs):
            seen.append(torch.get_num_threads())
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(net, "_run", watched(net._run))
    monkeypatch.setattr(torch.autograd, "grad", watched(torch.autograd.grad))
    problem.forward(backend, net)
    problem.bptt(backend, net)
    assert seen == [wanted] * 3  # forward, record, backward
    assert torch.get_num_threads() == before

    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(net, "_run", broken)
    with pytest.raises(ZeroDivisionError):
        problem.forward(backend, net)
    assert torch.get_num_threads() == before


@each_backend
def test_threads_none_changes_nothing(backend, monkeypatch):
    monkeypatch.delattr(torch, "set_num_threads")
    Problem(spec_of("gru")).run(backend)


@each_backend
@pytest.mark.parametrize("threads", [0, -1, True, 1.0, "2"])
def test_bad_threads_are_refused(backend, threads):
    problem = Problem(spec_of("gru"))
    with pytest.raises(rnnbench.ArgumentError, match=r"threads is .*; expected an integer >= 1, or None"):
        backend.load(problem.spec, problem.params, threads=threads)


@each_backend
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(T, B, I, dtype=torch.float64, device="meta"), "x is on device meta; expected cpu"),
        (torch.zeros(T, B, I, dtype=torch.float32), "x has dtype float32; expected float64"),
        (np.zeros((T, B, I)), r"x is a numpy.ndarray; expected a torch.Tensor \(convert with the backend's asarray\)"),
        (torch.zeros(T, B, I + 1, dtype=torch.float64), r"x has shape \(6, 3, 6\); expected \(T, B, I\) = \(_, _, 5\)"),
    ],
    ids=["device", "dtype", "type", "shape"],
)
def test_unfit_input_is_refused(backend, x, message):
    problem = Problem(spec_of("gru"))
    net = backend.load(problem.spec, problem.params)
    for call in (net.forward, net.record):
        with pytest.raises(rnnbench.ArgumentError, match=message):
            call(x)


@each_backend
def test_a_refused_cotangent_leaves_the_tape_usable(backend):
    problem = Problem(spec_of("gru"))
    net = backend.load(problem.spec, problem.params)
    _, _, tape = net.record(*problem.inputs(backend))
    with pytest.raises(rnnbench.ArgumentError, match="dy is on device meta; expected cpu"):
        net.backward(tape, torch.zeros(T, B, H, dtype=torch.float64, device="meta"))
    assert_same(problem.gradients(backend, net, tape), problem.gradients(numpy_ref, *reference_tape(problem)), "float64")


@each_backend
@pytest.mark.parametrize("form", ["plain", "read-only", "Fortran", "negative strides", "every second", "empty"])
def test_asarray_copies_any_numpy_array(backend, form):
    array = np.arange(24.0).reshape(2, 3, 4)
    array = {"Fortran": np.asfortranarray(array), "negative strides": array[::-1, :, ::-1]}.get(form, array)
    array = {"every second": array[:, ::2], "empty": array[:0]}.get(form, array)
    array.setflags(write=form != "read-only")
    tensor = backend.asarray(array)
    assert tensor.is_contiguous()
    assert tensor.dtype == torch.float64
    expected = array.copy()
    np.testing.assert_array_equal(backend.to_numpy(tensor), expected)
    tensor.fill_(-1)
    np.testing.assert_array_equal(array, expected)


@each_backend
def test_info_can_be_stored(backend):
    info = msgspec.json.decode(msgspec.json.encode(backend.info()))
    assert info["torch"] == torch.__version__
    assert info["device"] == "cpu"
    assert info["threads"] == torch.get_num_threads()
    assert backend.synchronize() is None


@each_backend
def test_a_missing_torch_is_named_with_its_remedy(backend):
    name = name_of(backend)
    code = f"""
import sys
sys.modules["torch"] = None
import rnnbench
print(dict(rnnbench.backends())["{name}"])
try:
    rnnbench.load_backend("{name}")
except rnnbench.BackendUnavailable as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [f"{name} needs PyTorch: pip install -e '.[torch]' in the checkout of rnnbench"] * 2
