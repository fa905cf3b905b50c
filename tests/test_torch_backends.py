"""The PyTorch backends: every cell against the reference, and what their networks promise about tensors, tapes and threads."""

import subprocess
import sys
import weakref
from dataclasses import replace
from itertools import product

import msgspec
import numpy as np
import pytest

import rnnbench
from rnnbench import Spec, check
from rnnbench.suite.case import Case

torch = pytest.importorskip("torch", reason="the PyTorch backends need torch")

from rnnbench.impls import numpy_ref, torch_eager, torch_nn  # noqa: E402  # only where torch is

BACKENDS = [torch_nn, torch_eager]
T, B, I, H, O = 6, 3, 5, 4, 2  # noqa: E741  # the field's names

# A value depends on at most 2 layers x 6 steps forward and as many back.  A step of two directions rounds fewer than 50
# times on its way (dot products of 8 and 4 terms, elementwise functions of a few ulp each): 1200 roundings.  Weights lie
# within +-1/sqrt(H) = +-1/2, so a step amplifies errors little; a factor of 8 is left for that and for cancellation.
ROUNDINGS = 1e4  # 1.1e-12 in float64, 6e-4 in float32, relative to the largest value of the tensor

CELLS = {
    "elman-tanh": {"cell": "elman"},
    "elman-relu": {"cell": "elman", "nonlinearity": "relu"},
    "elman-sigmoid": {"cell": "elman", "nonlinearity": "sigmoid"},
    "jordan-tanh": {"cell": "jordan", "output_size": O},
    "jordan-relu": {"cell": "jordan", "output_size": O, "nonlinearity": "relu"},
    "jordan-sigmoid": {"cell": "jordan", "output_size": O, "nonlinearity": "sigmoid"},
    "lstm": {"cell": "lstm"},
    "gru": {"cell": "gru"},
    "gru_reset_before": {"cell": "gru_reset_before"},
}
UNSUPPORTED_BY_NN = {
    "elman-sigmoid": "not sigmoid",
    "jordan-tanh": "feeds back its output",
    "jordan-relu": "feeds back its output",
    "jordan-sigmoid": "feeds back its output",
    "gru_reset_before": "after the recurrent product",
}
PAIRS = [(b, cell) for b in BACKENDS for cell in CELLS if b is torch_eager or cell not in UNSUPPORTED_BY_NN]


def name_of(value: object) -> str:
    return getattr(value, "__name__", str(value)).rsplit(".", 1)[-1]


each_backend = pytest.mark.parametrize("backend", BACKENDS, ids=name_of)
each_pair = pytest.mark.parametrize(("backend", "cell"), PAIRS, ids=name_of)


def spec_of(cell: str, **options) -> Spec:
    return Spec(**{"input_size": I, "hidden_size": H, "dtype": "float64"} | CELLS[cell] | options)


class Problem:
    """Random weights, inputs and cotangents of a spec, in its dtype."""

    def __init__(self, spec: Spec, seed: int = 0, steps: int = T) -> None:
        self.spec, self.params = spec, rnnbench.init_params(spec, seed)
        rng = np.random.default_rng(seed + 1)
        self.x, self.dy = (rng.standard_normal((steps, B, n)).astype(spec.dtype) for n in (I, spec.features))
        self.state, self.dstate = (
            tuple(rng.standard_normal(spec.state_shape(B)).astype(spec.dtype) for _ in spec.kind.states) for _ in range(2)
        )

    def run(self, backend) -> dict[str, np.ndarray]:
        """Every tensor of inference, training forward and BPTT, by name."""
        net = backend.load(self.spec, self.params)
        return self.forward(backend, net) | self.bptt(backend, net)

    def forward(self, backend, net) -> dict[str, np.ndarray]:
        y, final = net.forward(*self.inputs(backend))
        return numpy_tensors(backend, {"inference y": y} | numbered("inference state", final))

    def bptt(self, backend, net) -> dict[str, np.ndarray]:
        y, final, tape = net.record(*self.inputs(backend))
        return numpy_tensors(backend, {"y": y} | numbered("state", final)) | self.gradients(backend, net, tape)

    def gradients(self, backend, net, tape) -> dict[str, np.ndarray]:
        grads = net.backward(tape, backend.asarray(self.dy), tuple(map(backend.asarray, self.dstate)))
        named = {f"d{name}": g for name, g in grads.params.items()}
        return numpy_tensors(backend, named | {"dx": grads.x} | numbered("dstate", grads.state))

    def inputs(self, backend):
        return backend.asarray(self.x), tuple(map(backend.asarray, self.state))

    def in_float64(self) -> "Problem":
        """The same values, exactly."""
        wide = Problem(replace(self.spec, dtype="float64"))
        wide.params = {name: value.astype("float64") for name, value in self.params.items()}
        wide.x, wide.dy = self.x.astype("float64"), self.dy.astype("float64")
        wide.state, wide.dstate = (tuple(p.astype("float64") for p in s) for s in (self.state, self.dstate))
        return wide


def numbered(name: str, parts) -> dict:
    return {f"{name}[{i}]": part for i, part in enumerate(parts)}


def numpy_tensors(backend, tensors) -> dict[str, np.ndarray]:
    return {name: backend.to_numpy(tensor) for name, tensor in tensors.items()}


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], dtype: str) -> None:
    assert list(got) == list(expected)
    for name, reference in expected.items():
        assert (got[name].shape, got[name].dtype) == (reference.shape, np.dtype(dtype)), name
        error = np.abs(got[name] - reference).max() / np.abs(reference).max()
        assert error <= ROUNDINGS * np.finfo(dtype).eps / 2, f"{name} differs by {error:.1e} of its largest value"


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


@each_pair
def test_tapes_keep_the_weights_they_were_recorded_with(backend, cell):
    before, after = Problem(spec_of(cell), seed=0), Problem(spec_of(cell), seed=9)
    net = backend.load(before.spec, before.params)
    _, _, tape = net.record(*before.inputs(backend))
    net.update(after.params)
    assert_same(before.gradients(backend, net, tape), before.gradients(numpy_ref, *reference_tape(before)), "float64")
    assert_same(after.forward(backend, net) | after.bptt(backend, net), after.run(numpy_ref), "float64")
    for name, value in net.params().items():
        np.testing.assert_array_equal(value, after.params[name])


def reference_tape(problem: Problem):
    net = numpy_ref.load(problem.spec, problem.params)
    return net, net.record(*problem.inputs(numpy_ref))[2]


@each_pair
def test_several_tapes_are_alive_at_once(backend, cell):
    first, second = Problem(spec_of(cell)), Problem(spec_of(cell), steps=4)
    net = backend.load(first.spec, first.params)
    tapes = [net.record(*problem.inputs(backend))[2] for problem in (first, second)]
    for problem, tape in zip((first, second), tapes, strict=True):
        assert_same(problem.gradients(backend, net, tape), problem.gradients(numpy_ref, *reference_tape(problem)), "float64")


@each_backend
def test_a_used_tape_has_released_its_graph(backend):
    problem = Problem(spec_of("gru"))
    net = backend.load(problem.spec, problem.params)
    _, _, tape = net.record(*problem.inputs(backend))
    graph = weakref.ref(tape.content.y)
    problem.gradients(backend, net, tape)
    assert graph() is None


@each_pair
def test_results_in_numpy_share_no_memory_with_the_graph(backend, cell):
    problem = Problem(spec_of(cell, dtype="float32"))
    net = backend.load(problem.spec, problem.params)
    expected = problem.bptt(backend, net)
    y, final, tape = net.record(*problem.inputs(backend))
    for tensor in (y, *final):
        backend.to_numpy(tensor)[...] = 7
    got = problem.gradients(backend, net, tape)
    for name, value in got.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@each_pair
def test_changing_results_in_place_is_harmless_or_an_error(backend, cell):
    problem = Problem(spec_of(cell, dtype="float32"))
    net = backend.load(problem.spec, problem.params)
    expected = problem.bptt(backend, net)
    y, final, tape = net.record(*problem.inputs(backend))
    for tensor in (y, *final):
        tensor.fill_(7)
    try:
        got = problem.gradients(backend, net, tape)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return
    for name, value in got.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@each_pair
def test_gradients_are_plain_tensors_of_their_own(backend, cell):
    problem = Problem(spec_of(cell, num_layers=2, dtype="float32"))
    net = backend.load(problem.spec, problem.params)
    _, _, tape = net.record(*problem.inputs(backend))
    dy, dstate = backend.asarray(problem.dy), tuple(map(backend.asarray, problem.dstate))
    grads = net.backward(tape, dy, dstate)
    tensors = [*grads.params.values(), grads.x, *grads.state]
    assert not any(tensor.requires_grad for tensor in tensors)
    memory = [tensor.untyped_storage().data_ptr() for tensor in (*tensors, dy, *dstate)]
    assert len(set(memory)) == len(memory)


@each_pair
def test_results_serve_the_callers_own_autograd(backend, cell):
    problem = Problem(spec_of(cell))
    net = backend.load(problem.spec, problem.params)
    y, final = net.forward(*problem.inputs(backend))
    y_recorded, final_recorded, _ = net.record(*problem.inputs(backend))
    for tensor in (y, *final, y_recorded, *final_recorded):
        assert not tensor.requires_grad
        scale = torch.ones_like(tensor, requires_grad=True)
        (scale * tensor).sum().backward()  # an inference tensor is refused here
        assert torch.equal(scale.grad, tensor)


@each_backend
def test_only_record_builds_a_graph(backend, monkeypatch):
    problem = Problem(spec_of("lstm"))
    net = backend.load(problem.spec, problem.params)
    run, seen = net._run, []

    def watched(x, state):
        seen.append(torch.is_grad_enabled())
        return run(x, state)

    monkeypatch.setattr(net, "_run", watched)
    net.forward(*problem.inputs(backend))
    net.record(*problem.inputs(backend))
    assert seen == [False, True]


@each_pair
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=name_of)
def test_the_callers_gradient_mode_changes_nothing(backend, cell, mode):
    problem = Problem(spec_of(cell))
    with mode():
        got = problem.run(backend)
    for name, value in problem.run(backend).items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@each_backend
def test_load_leaves_torchs_random_numbers_alone(backend):
    problem = Problem(spec_of("lstm"))
    before = torch.random.get_rng_state()
    backend.load(problem.spec, problem.params)
    assert torch.equal(torch.random.get_rng_state(), before)


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
