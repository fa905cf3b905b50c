"""``rnnbench report``: results as a page."""

import argparse
from pathlib import Path
from typing import Any

from rnnbench.errors import ArgumentError
from rnnbench.store import results_files


def report(options: argparse.Namespace, reports: Any) -> int:
    """Write the page and print its path; ``reports`` is the report package.  Returns the exit code."""
    if (options.results is None) == (options.asv is None):
        raise ArgumentError("expected either a results file or --asv DIR")
    output = Path(options.output)
    if options.asv:
        written = reports.write_asv_html(Path(options.asv), output)
    else:
        written = reports.write_html(results_files(Path(options.results))[-1], output)
    print(written)
    return 0
