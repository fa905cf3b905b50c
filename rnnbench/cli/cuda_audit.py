"""``rnnbench cuda-audit``: is the machine code of the CUDA kernels what it has to be?  Without a GPU."""

import json
from typing import Annotated

import typer

from rnnbench.cli import terminal
from rnnbench.cli.common import CHECK_FAILED, OK, Cells, Progress


def cuda_audit(
    cell: Cells = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output instead of the table.")] = False,
) -> int:
    """Compile the CUDA kernels without a GPU, and check their code.

    The check is of registers, spills, memory and instructions.

    Examples:
    $ rnnbench cuda-audit --cell lstm
    """
    from rnnbench.impls.numba_cuda.audit import audit, configurations, table

    progress = Progress("compiling")
    found = audit(configurations(cell), progress.count)
    progress.clear()
    if as_json:
        rows = [one._asdict() | {"configuration": one.configuration._asdict()} for one in found]
        terminal.show_document(f"{json.dumps(rows, indent=1)}\n".encode())
    else:
        terminal.show(table(found))
    return CHECK_FAILED if any(one.faults for one in found) else OK
