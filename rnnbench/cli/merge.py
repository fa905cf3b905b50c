"""``rnnbench merge``: several results files as one."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnbench.cli import terminal
from rnnbench.cli.common import OK
from rnnbench.errors import ArgumentError, StoreError
from rnnbench.text import count

if TYPE_CHECKING:
    from rnnbench.results.merging import Merged


def merge(
    results: Annotated[list[str], typer.Argument(metavar="RESULTS", help="Results files, or folders of them.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The results file to write, which must not exist.")
    ],
) -> int:
    """Merge results files of the same code, machine and settings.

    Examples:
    $ rnnbench merge monday.jsonl tuesday.jsonl -o both.jsonl
    """
    import msgspec

    from rnnbench.results.disk import create
    from rnnbench.results.merging import merge_contents
    from rnnbench.results.reader import read, results_files

    files = list(dict.fromkeys(file.resolve() for path in results for file in results_files(path)))
    if len(files) < 2:
        raise ArgumentError(f"given is {count(len(files), 'results file')}; expected two or more to merge")
    contents = [read(file) for file in files]
    merged = merge_contents(contents)
    try:
        create(Path(output), (msgspec.json.encode(row) + b"\n" for row in [merged.run, *merged.rows]))
    except OSError as error:
        raise StoreError(f"cannot write {Path(output)}: {error.strerror}") from error
    for line in [*(problem for one in contents for problem in one.problems), *_notes(merged)]:
        terminal.tell(line)
    terminal.show(str(Path(output)))
    return OK


def _notes(merged: "Merged") -> Iterator[str]:
    if merged.duplicates:
        yield f"{count(merged.duplicates, 'row')} of more than one file kept once"
    if merged.conflicts:
        yield f"{count(merged.conflicts, 'row')} left out: a file before has another measurement of the same, which counts"
    if merged.run.environment.get("dirty"):
        yield "all ran with uncommitted changes; whether these were the same is not known"
