"""``rnnbench cuda-warm``: compile the CUDA kernels that a run needs before there is a GPU, and keep them on disk."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import OK, Progress, names_from
from rnnbench.errors import ArgumentError

if TYPE_CHECKING:
    from rnnbench.suite.case import Case

FIRST_RUN = "first-run"
"""What ``rnnbench gpu`` runs, which is no suite."""


def _known() -> Iterable[str]:
    return FIRST_RUN, *completion.suites()


def cuda_warm(
    wanted: Annotated[
        list[str],
        typer.Option(
            "--for",
            metavar="WHAT",
            help="first-run (what rnnbench gpu runs), a suite or its file; may be given several times.",
            autocompletion=names_from(_known),
        ),
    ],
    capability: Annotated[
        str, typer.Option(metavar="X.Y", help="Compute capability of the GPU; 9.0 is that of an H100.")
    ] = "9.0",
) -> int:
    """Compile the CUDA kernels of a run before there is a GPU.

    They are compiled in parallel and kept on disk.

    Examples:
    $ rnnbench cuda-warm --for first-run
    $ rnnbench cuda-warm --for gpu-quick --capability 8.0
    """
    from rnnbench.impls.numba_cuda import ahead, cubins

    number = _capability(capability)
    cases = [case for name in wanted for case in _cases(name)]
    progress = Progress("compiling")
    ahead.compile_all(cases, number, progress.count)
    progress.clear()
    kept = list(cubins.folder().glob("*.cubin"))
    terminal.show(f"{len(kept)} kernels, {sum(path.stat().st_size for path in kept) / 1e6:.1f} MB: {cubins.folder()}")
    return OK


def _cases(name: str) -> "list[Case]":
    if name == FIRST_RUN:
        from rnnbench.impls.numba_cuda.bringup import cases

        return cases()
    from rnnbench.suite.suite import load_suite

    return list(load_suite(name).cases)


def _capability(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"\d+\.\d", text):
        raise ArgumentError(f"compute capability {text!r}; expected a major and a minor number, e.g. 9.0")
    major, minor = map(int, text.split("."))
    return major, minor
