"""Persistent CUDA kernels on tensor cores, simulated: fragments, the instruction itself, every cell forward and BPTT within
the tolerance derived for their dtype; planted faults are caught.

Planted faults are text that is replaced in a copy of a module.  About 20 s, all of it the simulator's and the reference's.
"""

import functools
import types
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers.patched_source import patched

pytest.importorskip("greenlet", reason="greenlet is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")

from numba import cuda
from numba.cuda.types import float32, int64

import rnnbench
from rnnbench.check import Expected, Problem, expected, gate
from rnnbench.impls import numba_cuda, numpy_ref
from rnnbench.impls.numba_cuda import (
    fragments,
    layout,
    network,
    offline,
    persistent_forward,
    sharing,
    simulator,
    tensor_cores,
)
from rnnbench.impls.numba_cuda.cells import CELLS
from rnnbench.impls.numba_cuda.fragments import HALVES, as_fragments, operand_index, operand_words
from rnnbench.impls.numba_cuda.intrinsics import load_quads
from rnnbench.impls.numba_cuda.layout import backward_products, forward_products
from rnnbench.impls.numba_cuda.matrix_intrinsics import collect_sums, leave_sums, post_half, tile_product
from rnnbench.impls.numba_cuda.regimes import TENSOR_GRID, Limits, Regime, tensor_grid_of
from rnnbench.impls.numba_cuda.simulated_faults import Deadlock, SimulationError
from rnnbench.networks.spec import Spec
from rnnbench.suite.case import Case

ROOMY = Limits(threads=64, resident=128, shared=1 << 20, cluster=0, multiprocessors=5, tensor_cores=True)
TIGHT = ROOMY._replace(resident=8)
"""So few registers that most weights lie in shared memory."""

ORDERS = ("ascending", "descending", 7)

both_dtypes = pytest.mark.parametrize("dtype", HALVES)


pytestmark = pytest.mark.usefixtures("simulated_gpu")


# Fragments, and one instruction.


@both_dtypes
def test_a_lane_has_the_elements_that_the_manual_gives_it(dtype: str) -> None:
    """PTX ISA, "Matrix Fragments for mma.m16n8k16": lane 5 has group 1 and is member 1 of it, lane 31 has 7 and is 3."""
    a = 16 * np.arange(16)[:, None] + np.arange(16)
    held = as_fragments(a[None], 1, 1, 1, dtype).view(HALVES[dtype].numpy).reshape(32, 8).astype(int)
    for lane, rows, columns in (
        (5, [1, 1, 9, 9] * 2, [2, 3, 2, 3, 10, 11, 10, 11]),
        (31, [7, 7, 15, 15] * 2, [6, 7, 6, 7, 14, 15, 14, 15]),
    ):
        np.testing.assert_array_equal(held[lane], a[rows, columns])
    assert [operand_index(k, 1, 1) for k in (2, 3, 10, 11)] == [4 * 5 + i for i in range(4)]
    assert [operand_index(k, 7, 1) for k in (6, 7, 14, 15)] == [4 * 31 + i for i in range(4)]


@both_dtypes
@pytest.mark.parametrize("order", ORDERS)
def test_weights_times_operand_is_their_product(dtype: str, order: str | int) -> None:
    """Three warps, two tiles of rows, three deep, of which some are in shared memory; small integers: no bit is lost."""
    high, warps, deep, resident, rows, length, columns = 2, 3, 3, 4, 20, 130, 11
    rng = np.random.default_rng(0)
    weights = rng.integers(-4, 5, (1, rows, length)).astype("float32")
    operand = rng.integers(-4, 5, (length, columns)).astype("float32")
    packed = as_fragments(weights, high, warps, deep, dtype)
    mail = np.zeros(operand_words(columns, warps * deep), "float32")
    threads, parts, apart, depth = 32 * warps, 2, high * 128, warps * deep
    load, post = load_quads(resident, 4 * threads), post_half(dtype)
    product = tile_product(dtype, high, deep, resident, 4 * threads)
    leave, total = leave_sums(high), collect_sums(1, 0, warps, parts * apart)
    index = cuda.jit(device=True)(operand_index)

    def kernel(packed, operand, mail, out):
        shared = cuda.shared.array(0, float32, 16)
        tid = int64(cuda.threadIdx.x)
        for i in range(tid, length * columns, threads):
            post(mail, index(i // columns, i % columns, depth), operand[i])
        for i in range(tid, 4 * threads * (high * deep - resident), threads):
            shared[warps * parts * apart + i] = packed[4 * threads * resident + i]
        kept = load(packed, 4 * tid)
        cuda.syncthreads()
        for part in range(parts):
            first = ((part * warps + tid // 32) * deep * 32 + tid % 32) * 2
            sums = product(kept, shared, mail, first, warps * parts * apart + 4 * tid)
            leave(shared, (tid // 32 * parts + part) * apart + tid % 32 * 2, sums)
        cuda.syncthreads()
        for i in range(tid, rows * columns, threads):
            column = i % columns
            out[i] = total(shared, column // 8 * apart + i // columns * 8 + column % 8)[0]

    out = np.full(rows * columns, np.nan, "float32")
    size = warps * parts * apart + 4 * threads * (high * deep - resident)
    simulator.run(kernel, (packed, operand.reshape(-1), mail, out), blocks=1, threads=threads, shared=size, order=order)
    np.testing.assert_array_equal(out.reshape(rows, columns), weights[0] @ operand)


@both_dtypes
def test_what_is_posted_is_rounded_to_nearest(dtype: str) -> None:
    """A number halfway between two goes to the one whose last bit is 0; infinity and NaN stay."""
    half = HALVES[dtype].numpy
    step = np.float32(ml_dtypes.finfo(half).eps)
    values = np.array([1 + step / 2, 1 + 3 * step / 2, -1 - step, 0.1, np.inf, np.nan], "float32")
    post = post_half(dtype)

    def kernel(mail, values):
        for i in range(6):
            post(mail, i, values[i])

    mail = np.full(3, np.nan, "float32")
    simulator.run(kernel, (mail, values), blocks=1, threads=1)
    wanted = np.array([1, 1 + 2 * step, -1 - step, values[3].astype(half), np.inf, np.nan], "float32")
    np.testing.assert_array_equal(mail.view(half).astype("float32"), wanted)


one_tile = tile_product("bfloat16", 1, 1, 1, 4)


def not_all_lanes(mail):
    tid = cuda.threadIdx.x
    if tid != 3:
        one_tile((mail[0],) * 4, None, mail, 2 * tid, 0)


def lanes_at_something_else(mail):
    tid = cuda.threadIdx.x
    if tid < 4:
        cuda.shfl_xor_sync(0xFFFFFFFF, tid, 1)
    else:
        one_tile((mail[0],) * 4, None, mail, 2 * tid, 0)


def lanes_at_a_barrier(mail):
    tid = cuda.threadIdx.x
    if tid < 4:
        cuda.syncthreads()
    one_tile((mail[0],) * 4, None, mail, 2 * tid, 0)


def between_pairs(mail):
    one_tile((mail[0],) * 4, None, mail, 2 * cuda.threadIdx.x + 1, 0)


def beyond_the_mail(mail):
    one_tile((mail[0],) * 4, None, mail, 2 * cuda.threadIdx.x + 2, 0)


@pytest.mark.parametrize(
    ("kernel", "threads", "error", "words"),
    [
        (not_all_lanes, 32, SimulationError, r"takes part in an mma of bfloat16 without lanes \[3\]; expected the whole warp"),
        (not_all_lanes, 40, SimulationError, r"without lanes \[3\]; expected the whole warp"),
        (between_pairs, 16, SimulationError, r"reads two elements from \d+ on; expected a multiple of 2"),
        (lanes_at_something_else, 32, SimulationError, r"without lanes \[0, 1, 2, 3\]; expected the whole warp"),
        (lanes_at_a_barrier, 32, Deadlock, "threads 0-3 wait at the barrier of the block"),
        (beyond_the_mail, 32, SimulationError, "uses element 64 of argument 0, which has 64"),
    ],
)
def test_a_wrong_use_of_the_instruction_is_a_fault(kernel: Any, threads: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        simulator.run(kernel, (np.zeros(64, "float32"),), blocks=1, threads=threads)


def test_a_warp_of_less_than_32_threads_cannot_multiply() -> None:
    def kernel(mail):
        one_tile((mail[0],) * 4, None, mail, 2 * cuda.threadIdx.x, 0)

    with pytest.raises(SimulationError, match=r"without lanes \[30, 31\]; expected the whole warp"):
        simulator.run(kernel, (np.zeros(64, "float32"),), blocks=1, threads=30)


MISSING = offline.missing_toolchain()


@pytest.mark.skipif(bool(MISSING), reason=str(MISSING))
@pytest.mark.parametrize("capability", [(8, 0), offline.HOPPER])
def test_kernels_of_both_dtypes_become_the_instructions_that_are_meant(capability: tuple[Any, ...]) -> None:
    """... on the oldest GPU that the regime is for, too."""
    found = {dtype: compiled(dtype, capability) for dtype in HALVES}
    for counts in found.values():
        assert offline.of_family(counts, "HMMA") == 3
        assert counts["LDG.E.64.STRONG.GPU"] == 3
        assert counts["LDG.E.128.CONSTANT"] == 2
        assert counts["LDS.128"] == 1
        assert counts["STS.64"] == 2
        assert counts["STG.E.U16"] == 1
        assert not offline.double_precision(counts)
    assert found["bfloat16"]["HMMA.16816.F32.BF16"] == found["float16"]["HMMA.16816.F32"] == 3


def compiled(dtype: str, capability: tuple[Any, ...]) -> Counter[str]:
    """Instructions of three multiplications, of which one has its weights in shared memory."""
    load, post, product = load_quads(2, 128), post_half(dtype), tile_product(dtype, 1, 3, 2, 128)
    leave, total = leave_sums(1), collect_sums(1, 0, 1, 0)

    def kernel(x, mail):
        shared = cuda.shared.array(0, float32, 16)
        tid = int64(cuda.threadIdx.x)
        leave(shared, 2 * tid, product(load(x, 4 * tid), shared, mail, 2 * tid, 4 * tid))
        post(mail, tid, total(shared, tid)[0])

    signature = cuda.types.void(*[cuda.types.CPointer(float32)] * 2)
    return offline.instructions(offline.compile_kernel(kernel, signature, 32, capability))


# Whole networks.


def run_in(monkeypatch: pytest.MonkeyPatch, limits: Limits) -> None:
    """Every network runs on tensor cores in a grid of up to five blocks."""

    def choose(spec: Spec, _: Limits, batch: int) -> Regime:
        shapes = (tensor_grid_of(products(spec), spec.dtype, limits) for products in (forward_products, backward_products))
        return Regime(TENSOR_GRID, *shapes)

    monkeypatch.setattr(network, "choose", choose)
    monkeypatch.setattr(network, "device_limits", lambda: limits)


@functools.cache
def problem(cell: str, hidden: int, batch: int, bidirectional: bool = False, dtype: str = "bfloat16") -> Problem:
    size = hidden - 2 if CELLS[cell].feeds_back_output else None
    case = Case(
        phase="step", cell=cell, T=3, B=batch, I=2, H=hidden, output_size=size, bidirectional=bidirectional, dtype=dtype
    )
    return Problem(case)


@functools.cache
def wanted(given: Problem) -> Expected:
    return expected(given)


@both_dtypes
@pytest.mark.parametrize("cell", CELLS)
def test_ragged_sizes(monkeypatch: pytest.MonkeyPatch, cell: str, dtype: str) -> None:
    """Neither blocks nor tiles come out even; 11 rows are a tile of columns and a part of one."""
    check_at("ascending", monkeypatch, ROOMY, problem(cell, 19, 11, dtype=dtype))


@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_with_weights_in_shared_memory(monkeypatch: pytest.MonkeyPatch, cell: str) -> None:
    """... at a random order of the threads; one direction runs time backwards."""
    check_at(7, monkeypatch, TIGHT, problem(cell, 10, 2, bidirectional=True))


def check_at(order: str | int, monkeypatch: pytest.MonkeyPatch, limits: Limits, given: Problem) -> None:
    run_in(monkeypatch, limits)
    monkeypatch.setattr(simulator, "run", functools.partial(simulator.run, order=order))
    assert [str(finding) for finding in gate(numba_cuda, given, wanted(given)) if not finding.passed] == []


@pytest.mark.parametrize("cell", ["elman", "jordan"])
def test_small_integers_come_out_to_the_last_bit(monkeypatch: pytest.MonkeyPatch, cell: str) -> None:
    """With relu and weights of -1, 0 and 1 nothing that travels is rounded, forward or back: no tolerance hides anything."""
    run_in(monkeypatch, ROOMY)
    size = 17 if cell == "jordan" else None
    spec = Spec(cell, 2, 19, nonlinearity="relu", output_size=size, dtype="bfloat16")
    rng = np.random.default_rng(1)

    def drawn(shape: tuple[int, ...], zeros: float) -> np.ndarray:
        return (rng.integers(-1, 2, shape) * (rng.random(shape) > zeros)).astype(spec.numpy_dtype)

    params = {name: drawn(shape, 0.8) for name, shape in spec.param_shapes().items()}
    given = [drawn(shape, 0) for shape in ((4, 11, 2), (1, 11, spec.state_size), (4, 11, spec.state_size))]

    def results(backend: Any, spec: Spec, dtype: Any) -> dict[str, np.ndarray]:
        net = backend.load(spec, {name: value.astype(dtype) for name, value in params.items()})
        x, state, dy = (backend.asarray(array.astype(dtype)) for array in given)
        y, final, tape = net.record(x, (state,))
        grads = net.backward(tape, dy)
        found = {"y": y, "final": final[0], "dx": grads.x, "dstate": grads.state[0], **grads.params}
        return {name: backend.to_numpy(value) for name, value in found.items()}

    exact = results(numpy_ref, replace(spec, dtype="float64"), np.float64)
    assert max(np.abs(exact[name]).max() for name in ("y", "dx", "dstate")) > 3
    for name, value in results(numba_cuda, spec, spec.numpy_dtype).items():
        np.testing.assert_array_equal(value, exact[name].astype(spec.numpy_dtype), name)


def test_a_network_says_that_tensor_cores_run_it() -> None:
    spec = Spec("lstm", 2, 20, dtype="bfloat16")
    assert numba_cuda.load(spec, rnnbench.init_params(spec, 0)).regime == TENSOR_GRID
    assert numba_cuda.info(spec)["regime"] == TENSOR_GRID


@dataclass(frozen=True)
class Fault:
    """In a module, a text is replaced by another, wherever it stands; ``names`` are used from there."""

    module: types.ModuleType
    old: str
    new: str
    cell: str = "lstm"

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = patched(self.module, (self.old, self.new))
        monkeypatch.setattr(layout, "as_fragments", getattr(wrong, "as_fragments", layout.as_fragments))
        if self.module is fragments:
            monkeypatch.setattr(tensor_cores, "_index", cuda.jit(device=True)(wrong.operand_index))
        for user, name in ((sharing, "multiplying"), (sharing, "through_mail"), (persistent_forward, "beginning")):
            monkeypatch.setattr(user, name, getattr(wrong, name, getattr(user, name)))


FAULTS = {
    "two words of a fragment of weights changed places": Fault(
        fragments, "(0, 5, 1, 4, 3, 7, 6, 2, 8)", "(0, 5, 1, 4, 3, 7, 2, 6, 8)"
    ),
    "the halves of a word changed places": Fault(fragments, ") * 2 + k % 2", ") * 2 + 1 - k % 2"),
    "members of a group are one off": Fault(fragments, "k % 8 // 2", "(k % 8 // 2 + 1) % 4"),
    "the words of a lane's operand changed places": Fault(fragments, "k % DEPTH // 8", "1 - k % DEPTH // 8"),
    "columns are stored as rows": Fault(fragments, "column % COLUMNS * 4 + k % 8 // 2", "column % COLUMNS + k % 8 // 2 * 8"),
    "sums are left where another lane's belong": Fault(tensor_cores, "* apart + 2 * lane", "* apart + 2 * (lane ^ 4)"),
    "sums are read before all warps left them": Fault(tensor_cores, "        cuda.syncthreads()\n", ""),
    "sums of another column": Fault(tensor_cores, "+ row % COLUMNS)", "+ (row + 1) % COLUMNS)"),
    "the second tile of columns is the first": Fault(tensor_cores, "(part * warps + warp)", "warp"),
    "the gates of the next unit": Fault(tensor_cores, "own * COLUMNS", "(own + 1) % units * COLUMNS"),
    "always one buffer of mail": Fault(tensor_cores, "buffer * size", "0"),
    "each warp reads the first warp's operand": Fault(tensor_cores, "(part * warps + warp) * deep", "part * warps * deep"),
    "the initial state is not posted": Fault(tensor_cores, "k < size and", "k < 0 and"),
    "a second product reads the mail of the first": Fault(tensor_cores, "place.mail", "32", "jordan"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By the simulator or the gate, at one of the orders at which all cells are right.

    The results themselves are about as large as ten times the tolerance of bfloat16, and no error is much larger.
    """
    fault = FAULTS[name]
    run_in(monkeypatch, ROOMY)
    fault.plant(monkeypatch)
    given, run = problem(fault.cell, 19, 11), simulator.run

    def caught_at(order: str | int) -> str | None:
        monkeypatch.setattr(simulator, "run", functools.partial(run, order=order))
        return caught(given)

    assert any(caught_at(order) for order in ORDERS)


def caught(given: Problem) -> str | None:
    """What was found."""
    try:
        worst: Any = gate(numba_cuda, given, wanted(given))[0]
    except SimulationError as error:
        return str(error)
    return None if worst.passed else str(worst)
