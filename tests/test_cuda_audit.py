"""The machine code of every shipped persistent kernel: no spill, no local memory, no float64, and it fits on the chip.

The proof compiles configurations on all processors, a minute or two of one processor.  Of a cell's kernels at one size it
compiles the recording one or the backward one by turns, so that each two values meet; ``--audit-everything`` compiles both, and
so does ``rnnbench cuda-audit``, a must of the offline proof.  Kernels are kept (``cubins``): where their sources and the
compilers are the same the next time, only their code is read.
"""

import itertools
import json
from collections import Counter

import pytest
from helpers import standin_cases

from rnnbench.cli.main import main
from rnnbench.errors import ArgumentError, BackendUnavailable
from rnnbench.impls.numba_cuda import audit, offline
from rnnbench.impls.numba_cuda.cells import CELLS
from rnnbench.impls.numba_cuda.choosing import choose
from rnnbench.impls.numba_cuda.layout import MESSAGES
from rnnbench.impls.numba_cuda.offline import Binary
from rnnbench.impls.numba_cuda.regimes import CLUSTER, GRID, HOPPER, TENSOR_GRID
from rnnbench.networks.spec import Spec

MISSING = offline.missing_toolchain()
needs_toolchain = pytest.mark.skipif(bool(MISSING), reason=str(MISSING))


def by_turns(todo: list[audit.Configuration]) -> list[audit.Configuration]:
    """One kernel of each pair that differs in ``kind`` alone; both of those that ``test_cuda_standin.py`` loads."""
    loaded = {_kernels_of(network.spec) for network in standin_cases.networks().values()} - {None}
    cells = list(CELLS)
    pairs = Counter[tuple[str, str]]()
    found = []
    for _, same in itertools.groupby(todo, lambda one: one._replace(kind="")):
        kernels = list(same)
        one = kernels[0]
        if len(kernels) == 2 and (one.exchange == MESSAGES or _kernels_of(one.spec) not in loaded):
            kernels = [kernels[(cells.index(one.cell) + pairs[one.cell, one.nonlinearity]) % 2]]
            pairs[one.cell, one.nonlinearity] += 1
        found += kernels
    return found


def _kernels_of(spec: Spec) -> tuple[str, str, int] | None:
    """What tells the kernels of one network from those of others; None in 16 bits, where the audit has others than a network:
    its arrays are of float32."""
    return (spec.cell, spec.nonlinearity, spec.hidden_size) if spec.dtype == "float32" else None


@needs_toolchain
def test_every_shipped_configuration(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default those of ``by_turns``; all of them with ``--audit-everything``."""
    from helpers import kept_kernels  # needs the compilers

    todo = audit.configurations()
    if not request.config.getoption("--audit-everything"):
        todo = by_turns(todo)
        monkeypatch.setattr(audit, "configurations", lambda _: todo)
    monkeypatch.setattr(audit, "examine", kept_kernels.examine)
    code = main(["cuda-audit"])
    table = capsys.readouterr().out
    assert code == 0, table
    assert len(table.splitlines()) == len(todo) + 2
    assert table.splitlines()[-1] == f"{len(todo)} kernels for sm_90a: ok"


def test_by_turns_each_two_values_of_the_shipped_configurations_meet() -> None:
    def named(one: audit.Configuration) -> dict[str, object]:
        """The largest sizes by their regime: they are other numbers in each cell."""
        sizes = {audit.largest_hidden(one.cell, regime): regime for regime in (CLUSTER, GRID)}
        sizes[audit.largest_hidden(one.cell, TENSOR_GRID, "bfloat16")] = TENSOR_GRID
        return one._asdict() | {"hidden": sizes.get(one.hidden, one.hidden)}

    def meeting(todo: list[audit.Configuration]) -> set[object]:
        return {pair for one in todo for pair in itertools.combinations(named(one).items(), 2)}

    todo = audit.configurations()
    assert set(by_turns(todo)) < set(todo)
    assert meeting(by_turns(todo)) == meeting(todo)


@needs_toolchain
def test_json_has_what_the_table_has(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    one = audit.Configuration("elman", "tanh", 32, "record", 1)
    monkeypatch.setattr(audit, "configurations", lambda cells: [one] if cells == ["elman"] else [])
    assert main(["cuda-audit", "--cell", "elman", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["configuration"] == one._asdict()
    assert (found["blocks"], found["threads"], found["spilled"], found["faults"]) == (1, 256, 0, [])
    assert 0 < found["counts"]["FFMA"] < found["loop"] < found["instructions"]


def test_every_cell_nonlinearity_and_kernel_is_among_them() -> None:
    todo = audit.configurations()
    assert {(one.cell, one.nonlinearity) for one in todo} == {(c, n) for c, kind in CELLS.items() for n in kind.nonlinearities}
    for cell in CELLS:
        kinds = {(one.hidden, one.kind) for one in todo if one.cell == cell and one.nonlinearity == "tanh"}
        sizes = (32, 512, *(audit.largest_hidden(cell, regime) for regime in (CLUSTER, GRID)))
        assert kinds >= {(size, kind) for size in sizes for kind in ("record", "backward")} | {
            (32, "forward"),
            (512, "forward"),
        }
        on_tensor_cores = [one for one in todo if one.cell == cell and one.dtype == "bfloat16"]
        assert {choose(one.spec, HOPPER).name for one in on_tensor_cores} == {TENSOR_GRID}
        by_messages = {one.kind for one in todo if one.cell == cell and one.exchange == MESSAGES}
        assert by_messages == {"record", "backward"}
        halves = {(one.hidden, one.kind) for one in on_tensor_cores}
        sizes = (1056, audit.largest_hidden(cell, TENSOR_GRID, "bfloat16"))
        assert halves == {(size, kind) for size in sizes for kind in ("record", "backward")}


RIGHT = Binary("kernel", b"", registers=200, spilled=0, stack=0, shared=0)
FINE = Counter({"LDG.E.128.CONSTANT": 8, "LDS.128": 4, "FFMA": 32})


@pytest.mark.parametrize(
    ("binary", "found", "shared", "words"),
    [
        (RIGHT._replace(spilled=24), FINE, 0, "24 bytes spilled; expected none"),
        (RIGHT, FINE + Counter({"STL.64": 2, "LDL": 1}), 0, "3 accesses to local memory; expected none"),
        (RIGHT._replace(registers=255), FINE, 0, "255 registers in 288 threads; expected at most 65536 in all"),
        (RIGHT, FINE, 227 * 1024 + 4, "232452 bytes of shared memory; expected at most 232448"),
        (RIGHT, FINE + Counter({"DFMA": 1}), 0, "float64 instructions DFMA; expected none"),
        (RIGHT, FINE + Counter({"F2F.F64.F32": 1}), 0, "float64 instructions F2F.F64.F32; expected none"),
        (RIGHT, FINE - Counter({"LDG.E.128.CONSTANT": 1}), 0, "7 loads of four weights; expected 8"),
        (RIGHT, FINE - Counter({"LDS.128": 4}), 0, "no load of four elements from shared memory"),
    ],
)
def test_each_fault_is_named(binary: Binary, found: Counter[str], shared: int, words: str) -> None:
    assert audit.faults(RIGHT, FINE, 288, 0, 8) == []
    assert audit.faults(binary, found, 288, shared, 8) == [words]


TILED = Counter({"LDG.E.128.CONSTANT": 8, "LDS.128": 4, "HMMA.16816.F32.BF16": 24})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (TILED - Counter({"HMMA.16816.F32.BF16": 24}), "0 multiplications on tensor cores; expected 12, once or several times"),
        (TILED - Counter({"HMMA.16816.F32.BF16": 1}), "23 multiplications on tensor cores; expected 12, once or several times"),
        (TILED - Counter({"LDS.128": 4}), "no load of four elements from shared memory"),
    ],
)
def test_each_fault_on_tensor_cores_is_named(found: Counter[str], words: str) -> None:
    assert audit.faults(RIGHT, TILED, 256, 0, 8, 12) == []
    assert audit.faults(RIGHT, found, 256, 0, 8, 12) == [words]


def test_lanes_multiply_without_tensor_cores_and_fragments_in_registers_are_not_in_shared_memory() -> None:
    assert audit.faults(RIGHT, FINE + Counter({"HMMA": 1}), 256, 0, 8) == [
        "1 multiplications on tensor cores; expected 0, once or several times"
    ]
    assert audit.faults(RIGHT, TILED - Counter({"LDS.128": 4}), 256, 0, 8, 8) == []


def test_parameters_that_are_not_as_launched_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "parameters", lambda _: [0, 8, 12])
    assert audit.wrong_parameters(RIGHT, 3) == ["parameters at [0, 8, 12]; expected 3 of 8 bytes"]
    monkeypatch.setattr(audit, "parameters", lambda _: [0, 8, 16])
    assert audit.wrong_parameters(RIGHT, 3) == []


def test_a_call_or_a_needless_fence_in_the_loop_over_time_is_named() -> None:
    loop = FINE + Counter({"CALL.REL.NOINC": 3, "MEMBAR.ALL.GPU": 1})
    assert audit.wrong_in_loop(FINE, may_wait=False) == []
    assert audit.wrong_in_loop(loop, may_wait=True) == ["3 calls in the loop over time; expected none"]
    assert audit.wrong_in_loop(loop, may_wait=False)[1:] == ["1 fences in the loop over time; expected none"]


def test_a_fault_fails_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = audit.Configuration("gru", "tanh", 100, "backward", 1)
    counts = dict.fromkeys(audit.COUNTED, 1)
    spilling = audit.Audited(configuration, CLUSTER, 2, 256, 1, 255, 8, 0, 900, 400, counts, ["8 bytes spilled; expected none"])
    monkeypatch.setattr(audit, "audit", lambda *_: [spilling])
    assert main(["cuda-audit"]) == 1
    *_, fault, summary = capsys.readouterr().out.splitlines()
    assert fault == "FAILED  gru 100 backward: 8 bytes spilled; expected none"
    assert summary == "1 kernels for sm_90a: 1 FAILED"


def test_what_is_asked_for_must_exist_and_be_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match=r"unknown cell 'lst'; expected one of elman, jordan, lstm"):
        audit.configurations(["lst"])
    monkeypatch.setattr(audit, "missing_toolchain", lambda: "no linker")
    with pytest.raises(BackendUnavailable, match="numba_cuda cannot compile here: no linker"):
        audit.audit([], lambda *_: None)
