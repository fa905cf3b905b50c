"""What numba_cpu promises beyond the contract: any sizes, its own activations, threads, its cache of kernels, memory.

Takes 15 s once Numba's cache holds the kernels, half of it to compile the activations, which no cache keeps.
"""

import shutil
import tracemalloc
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numba
import numpy as np
import pytest

import rnnbench
from rnnbench import Spec
from rnnbench.check import Problem, expected, gate, outputs
from rnnbench.impls import numba_cpu
from rnnbench.impls.numba_cpu import binding, layer
from rnnbench.impls.numba_cpu import compile as compiling
from rnnbench.impls.numba_cpu.activations import activations
from rnnbench.impls.numba_cpu.bfloat16 import STORED, rows_in_pairs
from rnnbench.jit.target import current_target
from rnnbench.networks.bfloat16 import bfloat16, dtype_of
from rnnbench.networks.cells import CELLS
from rnnbench.networks.spec import DTYPES
from rnnbench.suite.case import Case

VARIANTS = [(name, nonlinearity) for name, cell in CELLS.items() for nonlinearity in cell.nonlinearities]

# (T, B, I, H): each of B, I and H is 1, 2, 3, 15, 16, 17 and 33 somewhere; T is 1, 2, 9 and 40
RAGGED = [(1, 1, 1, 1), (2, 3, 2, 15), (9, 16, 17, 16), (2, 33, 33, 17), (40, 2, 15, 3), (40, 17, 3, 33), (9, 15, 16, 2)]


def assert_right(problem: Problem) -> None:
    """Every output and gradient within the tolerance that the gate derives for this very problem."""
    wrong = [str(finding) for finding in gate(numba_cpu, problem, expected(problem)) if not finding.passed]
    assert not wrong, f"{problem.case.label()}: {wrong}"


def ragged(cell: str, nonlinearity: str, dtype: str, sizes: tuple[int, ...], bidirectional: bool) -> Problem:
    output = 7 if CELLS[cell].feeds_back_output else None
    options = {"nonlinearity": nonlinearity, "dtype": dtype, "bidirectional": bidirectional, "output_size": output}
    return Problem(Case(cell, "step", *sizes, **options), "orthogonal", seed=sum(sizes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("cell", "nonlinearity"), VARIANTS)
def test_float32_is_right_at_ragged_sizes(cell, nonlinearity):
    for number, sizes in enumerate(RAGGED):
        assert_right(ragged(cell, nonlinearity, "float32", sizes, bidirectional=number % 2 == 1))


@pytest.mark.parametrize("cell", CELLS)
def test_float64_is_right_at_ragged_sizes(cell):
    for number, sizes in enumerate(RAGGED):
        assert_right(ragged(cell, "tanh", "float64", sizes, bidirectional=number % 2 == 0))


@pytest.mark.parametrize("cell", ["elman", "jordan", "lstm", "lstm_peephole", "lstm_layer_norm", "gru", "gru_reset_before"])
def test_bfloat16_is_right_at_ragged_sizes(cell):
    for number, sizes in enumerate(RAGGED):
        assert_right(ragged(cell, "tanh", "bfloat16", sizes, bidirectional=number % 2 == 1))


@pytest.mark.parametrize("cell", ["jordan", "lstm"])
def test_float16_is_right_at_ragged_sizes(cell):
    """The loops are those of float32: what is left is that arrays are converted, of one product a step and of two."""
    for number, sizes in enumerate(RAGGED[1:4]):
        assert_right(ragged(cell, "tanh", "float16", sizes, bidirectional=number % 2 == 1))


def test_bfloat16_is_the_nearest_one():
    """As ml_dtypes rounds, over the whole range: halves to even, beyond the largest to infinity, NaN to NaN."""
    patterns = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32)
    halves = (np.arange(2**16, dtype=np.uint32) << 16) | 0x8000
    values = np.concatenate([patterns, halves, halves - 1, halves + 1]).view(np.float32)
    room = np.empty(len(values) + len(values) % 2, STORED)
    rows_in_pairs(values.reshape(1, -1), len(values), room)
    with np.errstate(invalid="ignore"):  # signalling NaN
        got, wanted = room[: len(values)].view(bfloat16()), values.astype(bfloat16())
    np.testing.assert_array_equal(np.isnan(got), np.isnan(values))
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(got.view(STORED)[numbers], wanted.view(STORED)[numbers])


def test_bfloat16_is_more_accurate_than_arithmetic_that_rounds_everything():
    """Between products it is float32 that is computed in, so errors are smaller than the reference's own in bfloat16."""
    problem = ragged("lstm", "tanh", "bfloat16", (40, 5, 33, 64), bidirectional=False)
    wanted = expected(problem)

    def root_mean_square(backend):
        y = np.concatenate([outputs(backend, problem)["y"].astype("float64")[:, :4]])
        return np.sqrt(np.mean((y - wanted.values["y"]) ** 2))

    assert root_mean_square(numba_cpu) < root_mean_square(rnnbench.load_backend("numpy_ref"))


class BlockSpy:
    """Kernels that note into how many steps each forward cuts its sequence."""

    def __init__(self, monkeypatch) -> None:
        self.blocks: list[tuple[int, int]] = []
        original = layer.kernels_for

        def kernels_for(*key):
            kernels = original(*key)

            def forward(*arguments):
                starts, places, room = arguments[11], arguments[12], arguments[-6]  # the room is for so many rows of gates
                self.blocks.append((len(places), len(room) // starts[1]))
                return kernels.forward(*arguments)

            return kernels._replace(forward=forward)

        monkeypatch.setattr(layer, "kernels_for", kernels_for)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_of_several_time_blocks_is_right(monkeypatch, cell, bidirectional):
    spy = BlockSpy(monkeypatch)
    steps, batch, units = 9, 3, 16
    # room for two steps: four blocks and a shorter last one
    monkeypatch.setattr(layer, "_BLOCK_BYTES", 2 * batch * len(CELLS[cell].gates) * units * 4 + 1)
    assert_right(ragged(cell, "tanh", "float32", (steps, batch, 5, units), bidirectional))
    assert set(spy.blocks) == {(9, 2)}


def test_a_sequence_larger_than_the_real_time_block_is_right(monkeypatch):
    spy = BlockSpy(monkeypatch)
    assert_right(ragged("lstm", "tanh", "float32", (40, 33, 3, 33), bidirectional=True))
    for steps, block in spy.blocks:
        assert 1 < block < steps
        assert steps % block


def compiled(function):
    """An activation as a function of an array, compiled with the options of the kernels."""

    @numba.njit(error_model="numpy", fastmath={"contract"})
    def loop(values, results):
        for k in range(values.size):
            results[k] = function(values[k])

    def apply(values: np.ndarray) -> np.ndarray:
        results = np.empty_like(values)
        loop(values, results)
        return results

    return apply


def dense(dtype: str) -> np.ndarray:
    """Values over the whole range of bit patterns (subnormals, infinities, NaN), and closer ones where functions bend."""
    unsigned = {"float32": np.uint32, "float64": np.uint64}[dtype]
    count = 1 << 19
    patterns = np.arange(count, dtype=unsigned) * unsigned((int(np.iinfo(unsigned).max) // count) | 1)
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    exponential = 1.1 * info.maxexp * np.log(2)  # beyond it exp overflows
    close = [rng.uniform(-reach, reach, count).astype(dtype) for reach in (0.1, 1, 20, exponential)]
    special = np.array([0, -0.0, info.tiny, info.smallest_subnormal, -info.smallest_subnormal, info.max, -info.max], dtype)
    return np.concatenate([patterns.view(dtype), *close, special, np.array([np.inf, -np.inf, np.nan], dtype)])


def sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(z, 0)) / (1 + np.exp(-np.abs(z)))


def floor(dtype: str) -> float:
    """What a sigmoid fades out to, instead of subnormal numbers: the smallest normal one, as exact as exp of it can be."""
    info = np.finfo(dtype)
    # exp(y) for a y of up to maxexp has the roundoff of y, maxexp eps, as its relative error
    return float(info.tiny) * (1 + info.maxexp * float(info.eps))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "wide_function"), [("tanh", np.tanh), ("sigmoid", sigmoid)])
def test_activations_are_within_three_and_a_half_units_in_the_last_place(name, wide_function, dtype):
    """With u half a unit of roundoff of 1, relative errors: the polynomial's last sum, its product with r, the series'
    cut and what the coefficients add make 3.7 u in expm1(r); 2^n expm1(r) + (2^n - 1) cancels most at 2x = ln 2 / 2,
    2 * -0.29 + 1 = 0.41, to 6.3 u; e / (e + 2) weighs that by 0.83 and rounds twice, 7.2 u, 5 units in the last place of
    0.17.  The sigmoid, 1 / (2 + expm1(-x)), rounds less.  That is the worst that can be; the largest found here is 2.9
    for tanh (3.0 without FMA) and 2.8 for sigmoid, and 3.5 is allowed so that one lost digit of accuracy shows.
    """
    wide = {"float32": np.float64, "float64": np.longdouble}[dtype]
    if np.finfo(wide).nmant < np.finfo(dtype).nmant + 8:
        pytest.skip("no floating-point type here is wider than float64")
    z = dense(dtype)
    got = compiled(getattr(activations(dtype_of(dtype)), name))(z)
    with np.errstate(invalid="ignore", under="ignore"):
        right = wide_function(z.astype(wide))
    nan = np.isnan(z)
    np.testing.assert_array_equal(np.isnan(got), nan)
    error, size = abs(got[~nan] - right[~nan]), abs(right[~nan])
    info = np.finfo(dtype)
    normal = size >= info.tiny
    last_place = np.exp2(np.floor(np.log2(size[normal])) - info.nmant)
    assert np.max(error[normal] / last_place) <= 3.5
    assert np.max(error[~normal], initial=0) <= floor(dtype)
    assert np.all(abs(got[~nan]) <= 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_at_the_ends_of_the_range(dtype):
    f = activations(dtype_of(dtype))
    info = np.finfo(dtype)
    ends = np.array([-np.inf, -info.max, -1e4, 1e4, info.max, np.inf], dtype)
    np.testing.assert_array_equal(compiled(f.tanh)(ends), [-1, -1, -1, 1, 1, 1])
    np.testing.assert_array_equal(compiled(f.sigmoid)(ends)[3:], [1, 1, 1])
    assert np.all((compiled(f.sigmoid)(ends)[:3] >= 0) & (compiled(f.sigmoid)(ends)[:3] <= floor(dtype)))
    subnormal = np.array([info.smallest_subnormal, -info.tiny / 2, 0], dtype)
    np.testing.assert_array_equal(compiled(f.tanh)(subnormal), subnormal)
    np.testing.assert_array_equal(compiled(f.sigmoid)(subnormal), [0.5, 0.5, 0.5])
    values = np.concatenate([ends, subnormal, np.array([-3, 2, np.nan], dtype)])
    np.testing.assert_array_equal(compiled(f.relu)(values), np.maximum(values, 0))
    outputs = np.array([0, info.smallest_subnormal, 2, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(compiled(f.relu_slope)(outputs), [0, 1, 1, 1, np.nan])


def random_step(spec: Spec, net, steps: int = 6, batch: int = 5, seed: int = 0, change=lambda x: x) -> dict[str, np.ndarray]:
    """Every tensor of a training step on random input, after ``change`` of x."""
    rng = np.random.default_rng(seed)
    x = change(rng.standard_normal((steps, batch, spec.input_size)).astype(spec.dtype))
    dy = rng.standard_normal((steps, batch, spec.features)).astype(spec.dtype)
    state, dstate = (
        tuple(rng.standard_normal(spec.state_shape(batch)).astype(spec.dtype) for _ in spec.kind.states) for _ in range(2)
    )
    y, final, tape = net.record(x, state)
    grads = net.backward(tape, dy, dstate)
    named = {"y": y, "dx": grads.x} | grads.params
    return named | {f"final {k}": p for k, p in enumerate(final)} | {f"dstate {k}": p for k, p in enumerate(grads.state)}


def spec_of(cell: str, nonlinearity: str = "tanh", **options) -> Spec:
    return Spec(cell, 4, 17, nonlinearity=nonlinearity, **options)


def loaded(spec: Spec, threads: int | None = None):
    return numba_cpu.load(spec, rnnbench.init_params(spec, 0), threads=threads)


@pytest.mark.parametrize(("cell", "nonlinearity"), VARIANTS)
def test_nan_in_one_batch_row_stays_in_that_row(cell, nonlinearity):
    spec, sick = spec_of(cell, nonlinearity), 2

    def with_nan(x):
        x[3, sick] = np.nan
        return x

    net = loaded(spec)
    healthy, got = random_step(spec, net), random_step(spec, net, change=with_nan)
    for name in healthy:
        if name in spec.param_shapes():
            continue  # sums over the batch
        others = np.arange(5) != sick
        np.testing.assert_array_equal(got[name][:, others], healthy[name][:, others], strict=True, err_msg=name)
        assert np.all(np.isfinite(healthy[name])), name
    assert np.all(np.isfinite(got["y"][:3]))
    assert np.all(np.isnan(got["y"][3:, sick])), "NaN must not be hidden either"
    assert np.all(np.isnan(got["dx"][:4, sick]))


# relu does not saturate: 1e4 is an ordinary value to it
@pytest.mark.parametrize(("cell", "nonlinearity"), [variant for variant in VARIANTS if variant[1] != "relu"])
def test_saturation_makes_no_nan(cell, nonlinearity):
    spec = spec_of(cell, nonlinearity)
    params = rnnbench.init_params(spec, 0)
    signs = np.where(np.arange(params["bias_ih_l0"].size) % 2, 1, -1).astype(spec.dtype)
    for name in ("bias_ih_l0", "bias_hh_l0"):
        params[name] = 1e4 * signs
    for value in random_step(spec, numba_cpu.load(spec, params)).values():
        assert np.all(np.isfinite(value))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_the_same_call_twice_gives_the_same_bits(cell, threads):
    spec = spec_of(cell, bidirectional=True)
    net = loaded(spec, threads)
    first = random_step(spec, net, steps=20, batch=33)
    for _ in range(3):
        for name, value in random_step(spec, net, steps=20, batch=33).items():
            np.testing.assert_array_equal(value, first[name], strict=True, err_msg=name)


def names_of(cell: str, nonlinearity: str, dtype: str) -> list[str]:
    kernels = compiling.kernels_for.__wrapped__(CELLS[cell], nonlinearity, dtype_of(dtype), current_target())
    return [kernel.py_func.__qualname__ for kernel in kernels]


def test_no_two_kernels_share_a_name_in_numbas_cache():
    compiled = [dtype for dtype in DTYPES if dtype != "float16"]  # whose loops are float32's
    names = [name for variant in VARIANTS for dtype in compiled for name in names_of(*variant, dtype)]
    assert len(set(names)) == len(names) == 3 * len(VARIANTS) * len(compiled)


def test_kernels_are_kept_by_numba_and_shared_within_the_process():
    kernels = compiling.kernels_for(CELLS["lstm"], "tanh", np.dtype("float32"), current_target())
    assert kernels is compiling.kernels_for(CELLS["lstm"], "tanh", np.dtype("float32"), current_target())
    loaded(spec_of("lstm")).forward(np.zeros((1, 1, 4), "float32"))
    assert kernels.forward.stats.cache_hits or kernels.forward.stats.cache_misses, "not compiled for the cache"


def test_a_kernels_name_changes_with_the_digest_of_the_sources(monkeypatch):
    before = names_of("lstm", "tanh", "float32")
    monkeypatch.setattr(binding, "_digest", lambda: "another")
    after = names_of("lstm", "tanh", "float32")
    assert not set(before) & set(after)
    assert all(name.endswith("another") for name in after)


@pytest.mark.parametrize("changed", ["kernels.py", "layer.py", "compile.py", "barrier.py", "cells.py", "equations.py"])
def test_the_digest_changes_with_every_source_that_the_machine_code_depends_on(monkeypatch, tmp_path, changed):
    packages = ("rnnbench.impls.numba_cpu", "rnnbench.jit", "rnnbench.networks", "rnnbench.models")
    folders = {package: tmp_path / package for package in packages}
    for package, folder in folders.items():
        shutil.copytree(Path(str(resources.files(package))), folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(binding.resources, "files", folders.__getitem__)
    before = binding._digest.__wrapped__()
    assert before == binding._digest.__wrapped__()
    (path,) = tmp_path.rglob(changed)
    path.write_text(path.read_text() + "\n")
    assert binding._digest.__wrapped__() != before


def allocated(call) -> int:
    """The most bytes that Python and NumPy held at one time during a call, what it returned among them."""
    tracemalloc.start()
    kept = call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del kept
    return most


SMALL_OBJECTS = 1 << 16
"""Bytes: tuples, views and threads' tasks, whatever the shape."""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("cell", ["lstm", "jordan", "gru_reset_before"])
def test_from_the_second_call_on_nothing_is_allocated_but_what_is_returned(cell, threads):
    spec = replace(spec_of(cell), hidden_size=64, output_size=64 if cell == "jordan" else None)
    net, x = loaded(spec, threads), np.ones((500, 8, 4), "float32")

    def step():
        y, final, tape = net.record(x)
        return y, final, net.backward(tape, y)

    for call in (lambda: net.forward(x), step):
        returned = sum(array.nbytes for array in flat(call()))
        call()
        assert allocated(call) <= returned + SMALL_OBJECTS
    assert allocated(lambda: loaded(spec, threads).record(x)) > 2 * returned, "the measure must see a tape"


def flat(results) -> list[np.ndarray]:
    if isinstance(results, np.ndarray):
        return [results]
    return [array for part in (results.values() if isinstance(results, dict) else results) for array in flat(part)]
