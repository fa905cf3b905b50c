"""Sequences of different lengths in the peers: each against the reference, and PyTorch's packed sequences against it too.

About 25 s, most of it what JAX and torch.compile compile.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import stored_results

import rnnbench
from rnnbench import Spec
from rnnbench.impls import auto, numpy_ref
from rnnbench.networks.contract import unsupported_lengths
from rnnbench.suite.case import Case

T, I, H = 5, 3, 4  # noqa: E741  # the field's names
MIXED = (3, 0, T, 1, 3)
WITH_GRADIENTS = ["torch_nn", "torch_nn_numpy", "torch_eager", "jax_scan"]
GPU = ["torch_cuda", "jax_cuda"]
CELLS = ["lstm", "gru", "elman"]

# A value depends on at most 2 layers x 6 steps forward and as many back, fewer than 50 roundings each: 1200 roundings of
# 1.1e-16 or 6e-8.  Float32 gets 8 times that, as in torch_problems.  Float64 gets 1e-10, 1e6 roundings, because whatever a
# finished row does wrong is as large as the values themselves.
TOLERANCE = {"float64": 1e-10, "float32": 1e4 * 2.0**-24}


@functools.cache
def loaded(name: str) -> Any:
    """The backend, or a skip that says why it cannot run here."""
    try:
        return rnnbench.load_backend(name)
    except rnnbench.BackendUnavailable as reason:
        pytest.skip(str(reason))


class Problem(NamedTuple):
    """Weights, inputs and cotangents; x and dy are NaN beyond a row's length."""

    spec: Spec
    params: dict[str, np.ndarray]
    x: np.ndarray
    state: tuple[np.ndarray, ...]
    dy: np.ndarray
    dstate: tuple[np.ndarray, ...]
    lengths: np.ndarray

    def in_float64(self) -> "Problem":
        def wide(array: np.ndarray) -> np.ndarray:
            return array.astype("float64")

        return Problem(
            replace(self.spec, dtype="float64"),
            {name: wide(value) for name, value in self.params.items()},
            wide(self.x),
            tuple(map(wide, self.state)),
            wide(self.dy),
            tuple(map(wide, self.dstate)),
            self.lengths,
        )

    def forward(self, backend: Any, lengths: Any = None) -> dict[str, np.ndarray]:
        net = backend.load(self.spec, self.params)
        lengths = self.lengths if lengths is None else lengths
        y, final = net.forward(backend.asarray(self.x), tuple(map(backend.asarray, self.state)), lengths)
        return in_numpy(backend, {"inference y": y} | numbered("inference state", final))

    def bptt(self, backend: Any) -> dict[str, np.ndarray]:
        net, convert = backend.load(self.spec, self.params), backend.asarray
        y, final, tape = net.record(convert(self.x), tuple(map(convert, self.state)), self.lengths)
        grads = net.backward(tape, convert(self.dy), tuple(map(convert, self.dstate)))
        named = {f"d {name}": grads.params[name] for name in self.params}
        return in_numpy(backend, {"y": y, "dx": grads.x} | named | numbered("state", final) | numbered("dstate", grads.state))

    def run(self, backend: Any) -> dict[str, np.ndarray]:
        return self.forward(backend) | self.bptt(backend)


def problem(spec: Spec, lengths: Any = MIXED, seed: int = 0, steps: int = T) -> Problem:
    rng = np.random.default_rng(seed)
    batch = len(lengths)
    x, dy = (rng.standard_normal((steps, batch, n)).astype(spec.dtype) for n in (spec.input_size, spec.features))
    for row, length in enumerate(lengths):
        x[length:, row] = dy[length:, row] = np.nan
    state, dstate = (
        tuple(rng.standard_normal(spec.state_shape(batch)).astype(spec.dtype) for _ in spec.kind.states) for _ in range(2)
    )
    return Problem(spec, rnnbench.init_params(spec, seed), x, state, dy, dstate, np.array(lengths))


def spec_of(cell: str, layers: int = 1, directions: int = 1, dtype: str = "float64", **options: Any) -> Spec:
    output_size = 3 if cell == "jordan" else None
    return Spec(cell, I, H, num_layers=layers, bidirectional=directions == 2, dtype=dtype, output_size=output_size, **options)


def numbered(name: str, parts: Any) -> dict[str, Any]:
    return {f"{name}[{i}]": part for i, part in enumerate(parts)}


def in_numpy(backend: Any, tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: backend.to_numpy(tensor) for name, tensor in tensors.items()}


def assert_close(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray], dtype: str) -> None:
    assert set(got) == set(wanted)
    for name, reference in wanted.items():
        assert (got[name].shape, got[name].dtype) == (reference.shape, np.dtype(dtype)), name
        error = np.abs(got[name] - reference).max()
        assert error <= TOLERANCE[dtype] * np.abs(reference).max(), f"{name} differs by {error:.1e}"


def assert_zero_beyond(of: Problem, got: dict[str, np.ndarray]) -> None:
    for name in {"y", "inference y", "dx"} & set(got):
        for row, length in enumerate(of.lengths):
            assert not got[name][length:, row].any(), f"{name} beyond the length of row {row}"


def assert_is_the_reference(backend: Any, of: Problem, run: Callable[..., Any] = Problem.run) -> None:
    got = run(of, backend)
    assert_close(got, run(of, numpy_ref), of.spec.dtype)
    assert_zero_beyond(of, got)


# each against the reference


@pytest.fixture(scope="module", autouse=True)
def jax_compiles_quickly():
    """Without most optimisations of XLA, a third of the time."""
    try:
        import jax
    except ModuleNotFoundError:
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_rows_of_any_length_give_what_the_reference_gives(name, cell, layers, directions):
    of = problem(spec_of(cell, layers, directions))
    run = Problem.run if layers == directions == 2 else Problem.bptt  # JAX compiles inference for a second
    assert_is_the_reference(loaded(name), of, run)


@pytest.mark.parametrize(
    ("name", "cell"), [("torch_eager", "gru_reset_before"), ("torch_eager", "jordan"), ("jax_scan", "jordan")]
)
def test_so_do_the_cells_that_torch_nn_lacks(name, cell):
    assert_is_the_reference(loaded(name), problem(spec_of(cell, directions=2)), Problem.bptt)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", GPU)
def test_so_do_the_peers_on_a_gpu(name, cell):
    assert_is_the_reference(loaded(name), problem(spec_of(cell, 2, 2)))


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", [*CELLS, "gru_reset_before"])
def test_onnxruntime_gives_what_the_reference_gives_for_rows_of_any_length(cell, layers, directions):
    of = problem(spec_of(cell, layers, directions, "float32"))
    got = of.forward(loaded("onnxruntime"))
    assert_close(got, of.in_float64().forward(numpy_ref), "float32")
    assert_zero_beyond(of, got)


@pytest.mark.parametrize("lengths", [(0, 0, 0, 0, 0), (2, 1, 3, 3, 2), (1, 0, 4, 0, 2)])
@pytest.mark.parametrize("name", ["torch_nn", "torch_eager", "jax_scan"])
def test_no_row_needs_to_reach_the_last_step_or_the_first(name, lengths):
    of = problem(spec_of("elman", directions=2), lengths)
    got, wanted = of.bptt(loaded(name)), of.bptt(numpy_ref)
    assert_close(got, wanted, "float64")
    for row in np.flatnonzero(of.lengths == 0):
        np.testing.assert_array_equal(got["state[0]"][:, row], of.state[0][:, row])
        np.testing.assert_array_equal(got["dstate[0]"][:, row], of.dstate[0][:, row])


@pytest.mark.parametrize("lengths", [(0, 0), (0, 2)])
@pytest.mark.parametrize("name", ["torch_nn", "torch_eager"])
def test_a_state_that_stays_is_copied(name, lengths):
    backend, of = loaded(name), problem(spec_of("lstm"), lengths, steps=2)
    state = tuple(map(backend.asarray, of.state))
    for part in backend.load(of.spec, of.params).forward(backend.asarray(of.x), state, of.lengths)[1]:
        part.zero_()
    for part, given in zip(state, of.state, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(part), given)


def test_truncated_bptt_of_torch_nn_takes_lengths():
    torch_nn, of = loaded("torch_nn"), problem(spec_of("lstm", 2))

    def truncated(backend: Any) -> dict[str, np.ndarray]:
        net, convert = backend.load(of.spec, of.params), backend.asarray
        state, dstate = tuple(map(convert, of.state)), tuple(map(convert, of.dstate))
        y, final, grads = rnnbench.tbptt(
            net, convert(of.x), convert(of.dy), 3, 2, state=state, dstate=dstate, lengths=of.lengths
        )
        return in_numpy(backend, {"y": y, "dx": grads.x} | grads.params | numbered("state", final))

    assert_close(truncated(torch_nn), truncated(numpy_ref), "float64")


@pytest.mark.parametrize("name", [*WITH_GRADIENTS, "torch_compile", "onnxruntime"])
def test_a_peer_says_that_it_takes_lengths(name):
    assert unsupported_lengths(loaded(name), Spec("lstm", I, H)) is None


# PyTorch's packed sequences, written as its users write them


def packed_in_torch(of: Problem, enforce_sorted: bool) -> dict[str, np.ndarray]:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    spec = of.spec
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}[spec.cell]
    sizes = spec.input_size, spec.hidden_size, spec.num_layers
    module = kind(*sizes, bias=spec.bias, bidirectional=spec.bidirectional, dtype=torch.float64)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in of.params.items()})
    x, *state = (torch.from_numpy(array).requires_grad_() for array in (of.x, *of.state))
    packed = pack_padded_sequence(x, torch.from_numpy(of.lengths), enforce_sorted=enforce_sorted)
    y, final = module(packed, tuple(state) if spec.cell == "lstm" else state[0])
    y, _ = pad_packed_sequence(y, total_length=len(of.x))
    final = final if spec.cell == "lstm" else (final,)
    torch.autograd.backward((y, *final), tuple(map(torch.from_numpy, (of.dy, *of.dstate))))
    grads = {f"d {name}": weight.grad for name, weight in module.named_parameters()}
    tensors = {"y": y, "dx": x.grad} | grads | numbered("state", final)
    tensors |= numbered("dstate", [part.grad for part in state])
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def random_problem(seed: int) -> tuple[Problem, bool]:
    """A problem, and whether its rows are sorted by length, the longest first; no row is empty, because PyTorch packs none."""
    rng = np.random.default_rng(seed)
    steps, batch, inputs, hidden = (int(rng.integers(1, most)) for most in (7, 6, 5, 5))
    options = {"num_layers": int(rng.integers(1, 3)), "bidirectional": bool(rng.integers(2)), "bias": bool(rng.integers(2))}
    spec = Spec(CELLS[rng.integers(3)], inputs, hidden, dtype="float64", **options)
    lengths, is_sorted = rng.integers(1, steps + 1, batch), bool(rng.integers(2))
    return problem(spec, np.sort(lengths)[::-1].copy() if is_sorted else lengths, seed, steps), is_sorted


def test_the_reference_computes_what_packed_sequences_of_torch_compute():
    for seed in range(200):
        of, is_sorted = random_problem(seed)
        try:
            assert_close(of.bptt(numpy_ref), packed_in_torch(of, is_sorted), "float64")
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {of.spec}, lengths {of.lengths}") from error


# what is compiled


def test_torch_compile_compiles_once_for_all_lengths_of_a_shape(monkeypatch):
    torch_compile = loaded("torch_compile")
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch_compile, "CHUNK", 2)
    spec = spec_of("elman")
    assert_is_the_reference(torch_compile, problem(spec, (3, 0, 4), steps=4), Problem.bptt)
    compiled = counters["stats"]["unique_graphs"]
    assert_is_the_reference(torch_compile, problem(spec, (1, 4, 2), steps=4), Problem.bptt)
    assert counters["stats"]["unique_graphs"] == compiled


@pytest.fixture
def loops(monkeypatch):
    """The loops that torch_compile would compile, which run as they are."""
    used = []

    def as_it_is(loop: Callable[..., Any], *graph: Any) -> Callable[..., Any]:
        used.append(loop.__name__)
        return loop

    monkeypatch.setattr(loaded("torch_compile"), "_compiled", as_it_is)
    return used


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_what_torch_compile_compiles_gives_what_the_reference_gives(loops, monkeypatch, cell, layers, directions):
    monkeypatch.setattr(loaded("torch_compile"), "CHUNK", 2)
    assert_is_the_reference(loaded("torch_compile"), problem(spec_of(cell, layers, directions)))
    assert set(loops) == {"over_lengths"}


def test_torch_compile_masks_nothing_in_full_batches(loops):
    problem(spec_of("lstm", directions=2), (T, T)).run(loaded("torch_compile"))
    assert set(loops) == {"over_time"}


def test_jax_compiles_once_for_all_lengths_of_a_shape():
    jax_scan = loaded("jax_scan")

    def compiled() -> list[int]:
        return [function._cache_size() for function in (jax_scan._forward, jax_scan._record, jax_scan._backward)]

    spec = spec_of("lstm", 2, 2)  # other tests have compiled it, in this process
    problem(spec).run(jax_scan)
    before = compiled()
    problem(spec, (1, T, 2, 0, 4)).run(jax_scan)
    assert compiled() == before


def test_jax_masks_nothing_in_full_batches():
    jax_scan = loaded("jax_scan")
    import jax

    of = problem(spec_of("lstm", directions=2, dtype="float32"), (T, T))
    net = jax_scan.load(of.spec, of.params)
    arguments = net._weights, jax_scan.asarray(of.x), tuple(map(jax_scan.asarray, of.state))
    network = functools.partial(jax_scan._network, of.spec)
    assert "select_n" not in str(jax.make_jaxpr(network)(*arguments))
    assert "select_n" in str(jax.make_jaxpr(network)(*arguments, of.lengths))
    net.forward(*arguments[1:])
    before = jax_scan._forward._cache_size()
    net.forward(*arguments[1:], lengths=of.lengths)
    assert jax_scan._forward._cache_size() == before


# onnxruntime


def test_new_weights_reach_both_sessions_of_onnxruntime():
    onnxruntime, of = loaded("onnxruntime"), problem(spec_of("gru", dtype="float32"))
    net = onnxruntime.load(of.spec, rnnbench.init_params(of.spec, 9))
    net.forward(of.x, of.state, of.lengths)
    net.update(of.params)
    np.testing.assert_array_equal(net.forward(of.x, of.state, of.lengths)[0], of.forward(onnxruntime)["inference y"])
    full = problem(of.spec, (T, T))
    np.testing.assert_array_equal(net.forward(full.x, full.state)[0], full.forward(onnxruntime)["inference y"])


def test_onnxruntime_makes_no_second_session_for_full_batches():
    onnxruntime, full = loaded("onnxruntime"), problem(spec_of("gru", dtype="float32"), (T, T))
    net = onnxruntime.load(full.spec, full.params)
    net.forward(full.x, full.state, full.lengths)
    assert net._session_of_lengths is None


# auto


@pytest.fixture
def reference_is_fastest(tmp_path, monkeypatch):
    """Results after which numpy_ref is picked for five rows of ``T`` steps."""
    monkeypatch.setenv("RNNBENCH_RESULTS", str(tmp_path))
    network = {"dtype": "float64", "threads": auto.info()["threads"]}
    cases = [Case("lstm", phase, T, 5, I, H, **network) for phase in ("forward", "step")]
    stored_results.write(
        tmp_path / "run.jsonl",
        {(name, case): seconds for name, seconds in {"numpy_ref": 1.0, "numba_cpu": 2.0}.items() for case in cases},
    )


def test_auto_gives_lengths_to_the_backend_that_it_picks(reference_is_fastest):
    of = problem(spec_of("lstm"))
    for got, wanted in zip(of.run(auto).values(), of.run(numpy_ref).values(), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_auto_replaces_a_backend_without_lengths_only_where_rows_differ(reference_is_fastest, monkeypatch):
    loaded("torch_nn_numpy")
    monkeypatch.delattr(numpy_ref, "supports_lengths")
    monkeypatch.setattr(auto, "DEFAULT", "torch_nn_numpy")
    of = problem(spec_of("lstm"))
    net = auto.load(of.spec, of.params)
    net.forward(of.x, of.state, of.lengths)
    net.forward(np.nan_to_num(of.x), of.state, [T] * 5)
    choice = net.picked["forward with lengths", T, 5]
    assert choice.backend == "torch_nn_numpy"
    assert choice.why == (
        "torch_nn_numpy replaces numpy_ref, which cannot run rows of different lengths: "
        "numpy_ref takes no lengths: it has no function supports_lengths."
    )
    assert choice.why.endswith(choice.excluded["numpy_ref"])
    assert net.picked["forward", T, 5].backend == "numpy_ref"


def test_auto_takes_lengths_where_its_default_does(monkeypatch):
    spec = Spec("lstm", I, H)
    monkeypatch.setattr(auto, "DEFAULT", "numpy_ref")
    assert unsupported_lengths(auto, spec) is None
    monkeypatch.delattr(numpy_ref, "supports_lengths")
    assert "numpy_ref takes no lengths" in unsupported_lengths(auto, spec)
