"""Matrix products of the Numba backend: every tile, ragged sizes, what lies beyond a matrix, and the instructions they are
generated for.  About a minute, most of it to compile.
"""

import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import from_dtype, njit, types

from rnnbench.check import check
from rnnbench.impls.numba_cpu.bfloat16 import computed, storage
from rnnbench.impls.numba_cpu.products import buffer_size, packed, packed_size, products, rounded_up
from rnnbench.jit.target import AVX2, AVX512, MAX_ROWS, NEON, PLAIN, Target, current_target
from rnnbench.networks.bfloat16 import dtype_of, is_bfloat16

TARGETS = [AVX512, AVX2, NEON, PLAIN]

HOST = current_target()
ELEMENTS = HOST._replace(dots=False)  # for the dtypes that have no such products, so that no target is compiled twice
# LLVM makes vectors of any width from the ones that a machine has, so that all of these run everywhere
COMPILED = list(
    dict.fromkeys(
        [
            *[("float32", ELEMENTS), ("float64", ELEMENTS), ("float32", AVX512), ("float64", AVX2), ("float32", PLAIN)],
            *[("bfloat16", HOST), ("bfloat16", AVX2)],
        ]
    )
)

SIZES = [1, 2, 3, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129]

GUARD = 12345.0


class Compiled(NamedTuple):
    """``Products`` of one dtype and target, callable from Python."""

    dtype: np.dtype  # that is computed in
    stored: np.dtype
    target: Target
    product: Callable[..., None]
    pack: Callable[..., None]

    def whole(self, columns: int) -> int:
        return rounded_up(columns, self.target.lanes(self.dtype))

    @property
    def side(self) -> int:
        """Rows that lie side by side."""
        return 2 if is_bfloat16(self.stored) else 1

    def packed(self, matrix: np.ndarray) -> np.ndarray:
        return packed(matrix.astype(self.stored), self.target)

    def nan(self, *shape: int) -> np.ndarray:
        """Stored as packed operands are."""
        return np.full(shape, np.nan, self.stored).view(storage(self.stored))


@functools.cache
def compiled_for(dtype: str, target: Target) -> Compiled:
    stored = dtype_of(dtype)
    plus, add, plus_transposed, add_transposed, pack = products(stored, target)
    real, own = (from_dtype(kind(stored)) for kind in (computed, storage))
    # one signature for all strides: each one more would be compiled again
    matrix, line, operand = types.Array(real, 2, "A"), types.Array(real, 1, "C"), types.Array(own, 1, "C")

    @njit(types.void(types.intp, matrix, types.intp, operand, line, matrix, types.intp, operand))
    def product(which, a, first, w, row, out, terms, buffer):
        if which == 0:
            plus(a, w, row, out, terms, buffer)
        elif which == 1:
            add(a, w, out, terms, buffer)
        elif which == 2:
            plus_transposed(a, first, w, row, out, terms, buffer)
        else:
            add_transposed(a, first, w, out, terms, buffer)

    @njit(types.void(matrix, types.intp, operand))
    def packing(source, columns, out):
        pack(source, columns, out)

    return Compiled(computed(stored), stored, target, product, packing)


@pytest.fixture(params=COMPILED, ids=lambda key: f"{key[0]}-{key[1].name}")
def compiled(request) -> Compiled:
    return compiled_for(*request.param)


class Guarded:
    """An array inside a larger one, at an odd place and with rows apart, whose surroundings must keep their value."""

    def __init__(self, values: np.ndarray) -> None:
        margin = [(2, 1)] * (values.ndim - 1) + [(3, 5)]
        self._around = np.pad(values, margin, constant_values=GUARD)
        self._place = tuple(slice(before, before + size) for (before, _), size in zip(margin, values.shape, strict=True))

    @property
    def inside(self) -> np.ndarray:
        return self._around[self._place]

    def assert_untouched(self) -> None:
        rest = self._around.copy()
        rest[self._place] = GUARD
        assert np.all(rest == GUARD), "written beyond the matrix"


class Operands(NamedTuple):
    """a (rows, terms), w (terms, columns), row (columns,) and c (rows, columns) of one product."""

    a: np.ndarray
    w: np.ndarray
    row: np.ndarray
    c: np.ndarray


def drawn(compiled: Compiled, rows: int, columns: int, terms: int) -> Operands:
    """Numbers that are stored exactly."""
    rng = np.random.default_rng([rows, columns, terms])
    shapes = (rows, terms), (terms, columns), (columns,), (rows, columns)
    return Operands(*(rng.standard_normal(shape).astype(compiled.stored).astype(compiled.dtype) for shape in shapes))


def with_nan_beyond(matrix: np.ndarray, rows: int = 2, columns: int = 3) -> np.ndarray:
    """The same matrix at the beginning of a larger one."""
    return np.pad(np.ascontiguousarray(matrix), ((0, rows), (0, columns)), constant_values=np.nan)


def results(compiled: Compiled, operands: Operands) -> dict[str, np.ndarray]:
    """Each of the four products, by name; ``added`` and its twin start from c, the others from a row.

    What lies beyond an operand is NaN, and so are the columns of ``out`` and ``row`` that only fill its last vector.
    """
    a, w, row, c = operands
    terms, columns = w.shape
    filling = compiled.whole(columns) - columns
    weights = np.concatenate([compiled.packed(w), compiled.nan(5)])
    wide, wide_row = with_nan_beyond(a, rows=0), np.pad(row, (0, filling), constant_values=np.nan)
    first, unset = 3, np.full_like(c, np.nan)
    columns_of_a = np.pad(with_nan_beyond(a.T), ((0, 0), (first, 0)), constant_values=np.nan)
    calls = {
        "plus_row": (wide, unset),
        "added": (wide, c),
        "plus_row_transposed": (columns_of_a, unset),
        "added_transposed": (columns_of_a, c),
    }
    found = {}
    for which, (name, (operand, start)) in enumerate(calls.items()):
        out = Guarded(np.pad(start, ((0, 0), (0, filling)), constant_values=np.nan))
        buffer = Guarded(compiled.nan(buffer_size(compiled.stored, a.shape)))
        compiled.product(which, operand, first, weights, wide_row, out.inside, terms, buffer.inside)
        out.assert_untouched()
        buffer.assert_untouched()
        found[name] = out.inside[:, :columns]
    return found


def assert_right(compiled: Compiled, rows: int, columns: int, terms: int) -> None:
    """A sum of n products and a first value, in any order, fused or not, is within g (|c| + |a| |w|) of the exact one, with
    g = m u / (1 - m u) and m = n + 1: a product rounds once and passes through at most n additions (Higham, "Accuracy and
    Stability of Numerical Algorithms", 3.1).  NumPy's own sum in float64 is as far from it, by its own u.
    """
    operands = drawn(compiled, rows, columns, terms)
    a, w, row, c = (array.astype("float64") for array in operands)
    roundings = (terms + 1) * np.array([np.finfo(dtype).eps / 2 for dtype in (compiled.dtype, "float64")])
    relative = np.sum(roundings / (1 - roundings))
    for name, got in results(compiled, operands).items():
        start = row if name.startswith("plus_row") else c
        error, allowed = abs(got - (start + a @ w)), relative * (abs(start) + abs(a) @ abs(w))
        assert np.all(error <= allowed), f"{name}, {rows} rows, {columns} columns, {terms} terms: {np.max(error):.3g}"


def test_products_are_right_at_ragged_sizes(compiled):
    terms = itertools.cycle([0, *SIZES])  # 14 of them for 13 columns: each number of terms meets each number of columns
    for rows, columns in itertools.product(SIZES, SIZES):
        assert_right(compiled, rows, columns, next(terms))


def test_callers_link_the_compiled_product_and_hold_no_tile(compiled):
    (code,) = compiled.product.inspect_llvm().values()
    assert "@rnnbench_product_" in code
    assert "llvm.prefetch" not in code  # every tile begins with it


def test_products_are_right_with_every_tile(compiled):
    lanes, vectors = compiled.target.lanes(compiled.dtype), compiled.target.vectors
    for rows, count in itertools.product(range(1, 2 * MAX_ROWS + 2), range(1, 2 * vectors + 1)):
        assert_right(compiled, rows, count * lanes, 5)


def test_products_of_no_terms_are_the_initial_values(compiled):
    operands = drawn(compiled, 17, 33, 0)
    found = results(compiled, operands)
    for suffix in ("", "_transposed"):
        np.testing.assert_array_equal(found[f"plus_row{suffix}"], np.tile(operands.row, (17, 1)))
        np.testing.assert_array_equal(found[f"added{suffix}"], operands.c)


@pytest.mark.parametrize(("rows", "columns"), [(7, 0), (0, 17), (0, 0)])
def test_products_without_rows_or_columns_write_nothing(compiled, rows, columns):
    assert {got.size for got in results(compiled, drawn(compiled, rows, columns, 5)).values()} == {0}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_products_let_nan_and_infinity_through_and_keep_them_apart(compiled, value):
    i, j, k = 20, 40, 3
    operands = drawn(compiled, 33, 65, 17)
    healthy = results(compiled, operands)
    reached = {"a": (i, slice(None)), "w": (slice(None), j), "row": (slice(None), j), "c": (i, j)}
    for changed, place in {"a": (i, k), "w": (k, j), "row": j, "c": (i, j)}.items():
        sick = operands._replace(**{changed: getattr(operands, changed).copy()})
        getattr(sick, changed)[place] = value
        a, w, row, c = (array.astype("float64") for array in sick)
        for name, got in results(compiled, sick).items():
            start, unread = (row, "c") if name.startswith("plus_row") else (c, "row")
            expected = healthy[name].copy()
            if changed != unread:
                with np.errstate(invalid="ignore"):
                    expected[reached[changed]] = (start + a @ w)[reached[changed]]
                assert not np.any(np.isfinite(expected[reached[changed]]))
            np.testing.assert_array_equal(got, expected, err_msg=f"{name}, {value} in {changed}")


def test_infinities_of_both_signs_in_one_sum_make_nan(compiled):
    operands = drawn(compiled, 5, 17, 9)
    operands.w[2], operands.w[7] = np.inf, -np.inf
    operands.a[:, [2, 7]] = 1
    for got in results(compiled, operands).values():
        assert np.all(np.isnan(got))


def test_packed_is_the_documented_order(compiled):
    lanes = compiled.target.lanes(compiled.dtype)
    width = compiled.target.vectors * lanes
    for rows, columns in itertools.product([0, 1, 3, 17], [0, *SIZES]):
        w = drawn(compiled, 1, columns, rows).w
        wanted, side = np.zeros(packed_size(compiled.stored, compiled.target, rows, columns), compiled.stored), compiled.side
        for k, j in itertools.product(range(rows), range(columns)):
            first = j // width * width
            own_width = min(width, compiled.whole(columns) - first)
            wanted[first * rounded_up(rows, side) + (k // side * own_width + j - first) * side + k % side] = w[k, j]
        np.testing.assert_array_equal(compiled.packed(w), wanted.view(storage(compiled.stored)), strict=True)


def test_pack_is_packed(compiled):
    for rows, columns in itertools.product([0, *SIZES], repeat=2):
        w = drawn(compiled, 1, columns, rows).w
        out = Guarded(compiled.nan(packed_size(compiled.stored, compiled.target, rows, columns)))
        compiled.pack(with_nan_beyond(w, rows=0), columns, out.inside)
        np.testing.assert_array_equal(out.inside, compiled.packed(w), err_msg=f"{rows} x {columns}")
        out.assert_untouched()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_target_lanes_fill_a_register(target, dtype):
    assert target.lanes(np.dtype(dtype)) * np.dtype(dtype).itemsize == target.bytes


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_target_tiles_fit_the_registers_and_are_as_large_as_they_can_be(target):
    def registers(rows: int, vectors: int) -> int:
        return rows * vectors + vectors + 1  # accumulators, weights and one element of the other operand

    assert target.vectors > 1, "a narrower last panel has at least one vector"
    for vectors in range(1, target.vectors + 1):
        rows = target.rows(vectors)
        assert 1 <= rows <= MAX_ROWS
        assert registers(rows, vectors) <= target.registers
        assert rows == MAX_ROWS or registers(rows + 1, vectors) > target.registers
        # a narrow panel is cut into tiles of at most rows(vectors - 1) rows, which there must be for each of its widths
        assert vectors == target.vectors or rows >= target.rows(target.vectors - 1)


def narrowed(**variables: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")}
    return inherited | {f"NUMBA_CPU_{name}": value for name, value in variables.items()}


def name_in_a_process(environment: dict[str, str]) -> str:
    code = "from rnnbench.jit.target import current_target; print(current_target().name)"
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=1800
    )
    return run.stdout.strip()


@pytest.mark.parametrize(
    ("variables", "target"),
    [
        ({"NAME": "generic"}, PLAIN),
        ({"NAME": "x86-64"}, PLAIN),
        ({"NAME": "haswell", "FEATURES": "+avx,+avx2,+bmi,+fma"}, AVX2),
        ({"NAME": "haswell", "FEATURES": "+avx,+avx2,-fma"}, PLAIN),
        ({"NAME": "skylake-avx512", "FEATURES": "+avx2,+fma,+avx512f,+avx512dq,+avx512vl"}, AVX512),
        ({"NAME": "skylake-avx512", "FEATURES": "+avx2,+fma,+avx512f,-avx512dq,-avx512vl"}, AVX2),
        ({"NAME": "apple-m1", "FEATURES": "+neon"}, NEON),
        ({"FEATURES": ""}, PLAIN),
    ],
)
def test_target_is_what_the_environment_narrows_numba_to(variables, target):
    assert name_in_a_process(narrowed(**variables)) == target.name


def test_target_is_the_hosts_unless_narrowed():
    present = {name for name, there in llvm.get_host_cpu_features().items() if there}
    best = next(
        target
        for target, needed in [
            (AVX512, {"avx512f", "avx512dq", "avx512vl"}), (AVX2, {"avx2", "fma"}), (NEON, {"neon"}), (PLAIN, set()),
        ]
        if needed <= present
    )  # fmt: skip
    assert name_in_a_process(narrowed()) == best.name
    assert name_in_a_process(narrowed(NAME=llvm.get_host_cpu_name())) == best.name


@pytest.mark.parametrize("target", [AVX2, PLAIN], ids=lambda target: target.name)
def test_target_narrowed_networks_are_right(monkeypatch, target):
    features = llvm.get_host_cpu_features()
    if target is AVX2 and not (features.get("avx2") and features.get("fma")):
        pytest.skip("this machine has no AVX2 with FMA to narrow Numba to")
    variables = {"NAME": "haswell", "FEATURES": "+avx,+avx2,+fma"} if target is AVX2 else {"NAME": "generic", "FEATURES": ""}
    for name, value in variables.items():
        monkeypatch.setenv(f"NUMBA_CPU_{name}", value)
    names = [f"NUMBA_CPU_{name}" for name in variables]
    report = check("numba_cpu", level="smoke", cells=["lstm"], time_limit=300, env=names)  # seconds: its first call compiles
    assert report.info["kernels"] == target.name
    assert report.passed, report.table()
