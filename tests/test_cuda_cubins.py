"""Machine code kept on disk: found again, told from every other kernel's, and made anew where a file is broken.  About 3 s."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rnnbench.impls.numba_cuda import device

if MISSING := device.missing_compiler():
    pytest.skip(MISSING, allow_module_level=True)

from rnnbench.impls.numba_cuda import cubins
from rnnbench.impls.numba_cuda.first_run import barriers
from rnnbench.impls.numba_cuda.launching import TeamKernel
from rnnbench.impls.numba_cuda.layout import Shape
from rnnbench.impls.numba_cuda.offline import HOPPER, Binary

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
    made = barriers(SHAPE, 1).compiled(HOPPER)
    monkeypatch.setattr(cubins, "compile_kernel", lambda *_: pytest.fail("compiled again"))
    assert barriers(SHAPE, 1).compiled(HOPPER) == made
    assert made.cubin.startswith(b"\x7fELF")
    (described,) = (json.loads(path.read_text()) for path in folder.glob("*.json"))
    assert described["versions"].keys() == {"numba-cuda", "nvvm", "nvjitlink"}


def one_array(mail, steps, batch, reverse, first):
    pass


def two_arrays(a, mail, steps, batch, reverse, first):
    pass


def kernel(name: str = "one", shape: Shape = SHAPE, function: Callable[..., None] = one_array) -> TeamKernel:
    return TeamKernel(name, function, shape, 1, 1)


OTHERS: dict[str, Callable[[pytest.MonkeyPatch], Any]] = {
    "name": lambda _: kernel("another").compiled(HOPPER),
    "launch bounds": lambda _: kernel(shape=Shape(1, 16, 8, 1, 0)).compiled(HOPPER),
    "arguments": lambda _: kernel(function=two_arrays).compiled(HOPPER),
    "device": lambda _: kernel().compiled((8, 0)),
    "sources": lambda patch: [patch.setattr(cubins, "sources", lambda: "others"), kernel().compiled(HOPPER)],
    "versions": lambda patch: [patch.setattr(cubins, "versions", lambda: {"nvvm": [9, 9]}), kernel().compiled(HOPPER)],
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_differs_is_not_taken_for_the_same(what: str, compilations: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel().compiled(HOPPER)
    kernel().compiled(HOPPER)
    assert len(compilations) == 1
    OTHERS[what](monkeypatch)
    assert len(compilations) == 2


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
    kernel().compiled(HOPPER)
    FAULTS[fault](folder)
    with pytest.warns(UserWarning, match=r"cubins/\w+\.json is broken .*: the kernel is compiled anew"):
        assert kernel().compiled(HOPPER).entry == "entry2"
    assert kernel().compiled(HOPPER).entry == "entry2"
    assert len(compilations) == 2


def test_a_folder_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compilations: list[Any]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(cubins.FOLDER, str(tmp_path / "file" / "cubins"))
    with pytest.warns(UserWarning, match="cannot be written .*: the kernel is not kept"):
        assert kernel().compiled(HOPPER).entry == "entry1"


def test_kernels_are_kept_in_numbas_cache_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(cubins.FOLDER, raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert cubins.folder() == tmp_path / "cubins"
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert cubins.folder().parent.parent == Path(cubins.__file__).parent
