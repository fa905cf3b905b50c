"""``rnnbench cuda-audit``: is the machine code of the CUDA kernels what it has to be?  Without a GPU."""

import argparse
import json
from typing import Any

from rnnbench.cli import terminal


def cuda_audit(options: argparse.Namespace, progress: Any) -> int:
    """Print the table of all kernels; returns the exit code."""
    from rnnbench.cli.common import CHECK_FAILED, OK
    from rnnbench.impls.numba_cuda.audit import audit, configurations, table

    found = audit(configurations(options.cell), progress.count)
    progress.clear()
    if options.json:
        rows = [one._asdict() | {"configuration": one.configuration._asdict()} for one in found]
        terminal.show_document(f"{json.dumps(rows, indent=1)}\n".encode())
    else:
        terminal.show(table(found))
    return CHECK_FAILED if any(one.faults for one in found) else OK
