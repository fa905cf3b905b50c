"""``rnnbench versus``: one backend against the best of its peers, at every point of a run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import COUNT, NUMBER, OK, listed, lists_from, names_from, newest


def _roof(text: str) -> tuple[int, float]:
    threads, _, peak = text.partition("=")
    return COUNT(threads), NUMBER(peak)


def versus(
    results: Annotated[str, typer.Argument(metavar="RESULTS", help="A results file, or a folder: its newest one.")],
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="Whom to judge.", autocompletion=names_from(completion.backends))
    ] = "numba_cpu",
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Against these; default: all others of the run.",
            autocompletion=lists_from(completion.backends),
        ),
    ] = None,
    roof: Annotated[
        list[Any] | None,
        typer.Option(
            parser=_roof,
            metavar="THREADS=GFLOPS",
            help="The float32 peak of that many threads, to show how much of it is reached; may be given several times "
            "(default: what rnnbench machine stored beside the results).",
        ),
    ] = None,
) -> int:
    """Compare one backend with the best of its peers, case by case.

    Examples:
    $ rnnbench versus results
    $ rnnbench versus results --backend numba_cpu --peers torch_nn,onnxruntime
    """
    from rnnbench import reports

    file = newest(results)
    given = {("float32", threads): peak for threads, peak in roof or ()}
    terminal.show(reports.bar_text(reports.to_pandas(file), backend, listed(peers), given or _stored_roofs(file.parent)))
    return OK


def _stored_roofs(folder: Path) -> dict[tuple[str, int], float]:
    """What ``rnnbench machine`` measured and stored beside results, in GFLOP/s."""
    from rnnbench.machine.snapshot import load_roofs

    roofs = load_roofs(folder)
    return {(roof.name, roof.threads): roof.best / 1e9 for roof in roofs.multiply_adds} if roofs else {}
