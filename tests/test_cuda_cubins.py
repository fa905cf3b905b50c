"""Machine code kept on disk: found again, told from every other kernel's, and made anew where a file is broken.  About 3 s."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnbench.impls.numba_cuda import device

if MISSING := device.missing_compiler():
    pytest.skip(MISSING, allow_module_level=True)

from numba import cuda
from numba.cuda import types as numba_types

from rnnbench.cli.main import main
from rnnbench.impls.numba_cuda import ahead, bringup, cubins, persistent
from rnnbench.impls.numba_cuda.cells import CELLS
from rnnbench.impls.numba_cuda.intrinsics import write_values
from rnnbench.impls.numba_cuda.launching import TeamKernel
from rnnbench.impls.numba_cuda.layout import Shape
from rnnbench.impls.numba_cuda.offline import HOPPER, Binary
from rnnbench.networks.spec import Spec

SHAPE = Shape(1, 8, 8, 1, 0)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(cubins.FOLDER, str(tmp_path / "cubins"))
    return tmp_path / "cubins"


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Any]:
    """What was compiled, by a compiler that takes no time."""
    asked: list[Any] = []

    def compile_kernel(*given: Any) -> Binary:
        asked.append(given)
        return Binary(f"entry{len(asked)}", bytes([len(asked)]) * 100, 32, 0, 0, 0)

    monkeypatch.setattr(cubins, "compile_kernel", compile_kernel)
    return asked


def test_a_kernel_that_is_kept_is_the_one_that_was_compiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled(exchanges(SHAPE))
    monkeypatch.setattr(cubins, "compile_kernel", lambda *_: pytest.fail("compiled again"))
    assert compiled(exchanges(SHAPE)) == made
    assert made.cubin.startswith(b"\x7fELF")
    (described,) = (json.loads(path.read_text()) for path in folder.glob("*.json"))
    assert described["versions"].keys() == {"numba-cuda", "nvvm", "nvjitlink"}


def test_kernels_that_were_brought_serve_where_other_compilers_are(
    folder: Path, compilations: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(kernel())
    (folder / cubins.COMPILERS).write_text(json.dumps(cubins.compilers()))
    monkeypatch.setattr(cubins, "compilers", lambda: {"nvvm": [9, 9], "nvjitlink": [99, 9]})
    compiled(kernel())
    assert len(compilations) == 1
    (folder / cubins.COMPILERS).unlink()
    compiled(kernel())
    assert len(compilations) == 2


def one_array(mail, steps, batch, reverse, first):
    pass


def two_arrays(a, mail, steps, batch, reverse, first):
    pass


def exchanges(shape: Shape) -> TeamKernel:
    return bringup.exchanges(shape)


def kernel(function: Callable[..., None] = one_array, shape: Shape = SHAPE) -> TeamKernel:
    return TeamKernel(function, shape, 1, 1)


def compiled(made: TeamKernel, capability: tuple[Any, ...] = HOPPER) -> Binary:
    return cubins.compiled(made.function, made.signature, made.shape.threads, capability)


OTHERS: dict[str, Callable[[pytest.MonkeyPatch], Any]] = {
    "function": lambda _: compiled(exchanges(SHAPE)),
    "launch bounds": lambda _: compiled(kernel(shape=Shape(1, 16, 8, 1, 0))),
    "arguments": lambda _: compiled(kernel(two_arrays)),
    "device": lambda _: compiled(kernel(), (8, 0)),
    "sources": lambda patch: [patch.setattr(cubins, "sources", lambda: "others"), compiled(kernel())],
    "versions": lambda patch: [patch.setattr(cubins, "versions", lambda: {"nvvm": [9, 9]}), compiled(kernel())],
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_differs_is_not_taken_for_the_same(what: str, compilations: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(kernel())
    compiled(kernel())
    assert len(compilations) == 1
    OTHERS[what](monkeypatch)
    assert len(compilations) == 2


def enclosing(value: Any) -> Callable[..., None]:
    def kernel(a, steps, batch, reverse, first):
        a[0] = value

    return kernel


DEVICE_FUNCTIONS = [cuda.jit(device=True)(enclosing(value)) for value in (1, 2)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1.0, np.float32(1)),
        (np.float32(1), np.float64(1)),
        ((1, 2), [1, 2]),
        (np.dtype("float32"), np.dtype("float16")),
        (numba_types.int64, numba_types.int32),
        (Spec("lstm", 1, 2), Spec("gru", 1, 2)),
        (math.tanh, math.exp),
        (np.int64, np.int32),
        (enclosing(1), enclosing(2)),
        (write_values(1), write_values(2)),
        (None, 0),
        tuple(DEVICE_FUNCTIONS),
    ],
)
def test_functions_that_enclose_other_values_are_others(one: Any, other: Any) -> None:
    """``load_quads(2)`` and ``load_quads(4)`` stand at the same place of the same source."""
    same, another = json.dumps(cubins.identity(enclosing(one))), json.dumps(cubins.identity(enclosing(other)))
    assert json.dumps(cubins.identity(enclosing(one))) == same != another


def test_a_value_without_identity_is_refused() -> None:
    """... instead of taken for all others of its type."""
    with pytest.raises(TypeError, match=r"a kernel encloses a builtins\.object, which has no identity"):
        cubins.identity(enclosing(object()))


def test_persistent_kernels_differ_in_their_identity() -> None:
    """By kind, cell, nonlinearity, dtype and shape."""
    shape = Shape(2, 4, 8, 1, 4)
    specs = [Spec(cell, 1, 8, nonlinearity=n) for cell, kind in CELLS.items() for n in kind.nonlinearities]
    kinds = [
        (kind, spec, s) for kind in ("forward", "record", "backward") for spec in specs for s in (shape, shape._replace(rows=2))
    ]
    found = {json.dumps(cubins.identity(persistent.kernel.__wrapped__(*kind).function)) for kind in kinds}
    assert len(found) == len(kinds)


def _cut_cubin(folder: Path) -> None:
    (path,) = folder.glob("*.cubin")
    path.write_bytes(path.read_bytes()[:-1])


FAULTS: dict[str, Callable[[Path], Any]] = {
    "a cubin that is cut off": _cut_cubin,
    "a cubin that is gone": lambda folder: next(folder.glob("*.cubin")).unlink(),
    "a description that is cut off": lambda folder: next(folder.glob("*.json")).write_text('{"binary": {"en'),
    "a description of nothing": lambda folder: next(folder.glob("*.json")).write_text("[]"),
    "a description without registers": lambda folder: next(folder.glob("*.json")).write_text('{"binary": {"cubin": "x"}}'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_file_is_told_and_compiled_anew(fault: str, folder: Path, compilations: list[Any]) -> None:
    compiled(kernel())
    FAULTS[fault](folder)
    with pytest.warns(UserWarning, match=r"cubins/\w+\.json is broken .*: the kernel is compiled anew"):
        assert compiled(kernel()).entry == "entry2"
    assert compiled(kernel()).entry == "entry2"
    assert len(compilations) == 2


def test_a_folder_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compilations: list[Any]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(cubins.FOLDER, str(tmp_path / "file" / "cubins"))
    with pytest.warns(UserWarning, match="cannot be written .*: the kernel is not kept"):
        assert compiled(kernel()).entry == "entry1"


def test_kernels_are_kept_in_numbas_cache_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(cubins.FOLDER, raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert cubins.folder() == tmp_path / "cubins"
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert cubins.folder().parent.parent == Path(cubins.__file__).parent


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--for", "first-run", "--capability", "9"], "compute capability '9'; expected a major and a minor number, e.g. 9.0"),
        (["--for", "nothing"], "nothing"),
    ],
)
def test_cuda_warm_refuses_what_it_cannot_compile_for(
    arguments: list[str], said: str, compilations: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cuda-warm", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert compilations == []


def test_without_a_compiler_cuda_warm_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ahead, "missing_compiler", lambda: "no nvvm")
    assert main(["cuda-warm", "--for", "first-run"]) == 4
    assert "numba_cuda cannot compile here: no nvvm" in capsys.readouterr().err
