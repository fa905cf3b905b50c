"""``rnnbench tune``: choose a model's settings by cross-validation."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import COUNT, SEED, Progress, end_workers_on_sigterm, names_from
from rnnbench.cli.train import Data, Quick, Task, Threads, again, clear_at_end, execute
from rnnbench.errors import ArgumentError

SCORES = "scores.json"


def _part(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None
    if not 0 < value <= 1:
        raise typer.BadParameter(f"{text!r} is out of range; expected more than 0 and at most 1")
    return value


def tune(
    context: typer.Context,
    task: Task,
    over: Annotated[
        list[str] | None,
        typer.Option("--over", metavar="KEY=A,B", help="A key of the file, and values to try; may be given several times."),
    ] = None,
    folds: Annotated[int | None, typer.Option(parser=COUNT, metavar="N", help="Of the cross-validation (default: 3).")] = None,
    seeds: Annotated[int | None, typer.Option(parser=COUNT, metavar="N", help="Trainings per fold (default: 1).")] = None,
    keep: Annotated[
        float | None,
        typer.Option(parser=_part, metavar="X", help="Part that goes on to more steps after a rung (default: 0.5; 1 for all)."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="B", help="What computes.", autocompletion=names_from(completion.backends))
    ] = None,
    data: Data = None,
    steps: Annotated[int | None, typer.Option(parser=COUNT, metavar="N", help="Steps of the last rung.")] = None,
    seed: Annotated[int | None, typer.Option(parser=SEED, metavar="N", help="The first seed.")] = None,
    threads: Threads = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="DIR", help="Train the best candidate there, and test it, once."),
    ] = None,
    quick: Quick = False,
) -> int:
    """Compare hidden sizes, cells, learning rates or windows by cross-validation.

    Each candidate trains on every fold with every seed. The better half goes on to twice the steps, until one is left.
    The test part is not read, unless --out trains the best one.

    Examples:
    $ rnnbench tune classify --over model.hidden=16,32,64 --folds 3
    $ rnnbench tune forecast --over model.cell=lstm,gru --over optimiser.rate=0.002,0.01 --seeds 2 --out best
    """
    from rnnbench.results.disk import save
    from rnnbench.training.config import load_config
    from rnnbench.training.cross_validation import read_values, table, with_values
    from rnnbench.training.cross_validation import tune as compared
    from rnnbench.training.loop import require_new

    config = load_config(task, quick=quick, data=data, backend=backend, steps=steps, seed=seed, threads=threads)
    values: dict[str, list[Any]] = {}
    for text in over or ():
        key, some = read_values(text)
        if key in values:
            raise ArgumentError(f"--over has {key} twice; expected all of its values in one")
        values[key] = some
    if out:
        require_new(Path(out))
    progress = Progress("tuning")
    end_workers_on_sigterm()
    with clear_at_end(progress):
        options = {"folds": folds or 3, "seeds": seeds or 1, "keep": keep or 0.5}
        scores = compared(config, values, **options, report=progress.unit)
    terminal.show(table(scores))
    if not out:
        return 0
    stored = [{"candidate": dict(s.candidate), "steps": s.steps, "losses": list(s.losses)} for s in scores]
    save(Path(out) / SCORES, [json.dumps(stored, indent=1).encode() + b"\n"])
    return execute(with_values(config, scores[0].candidate), Path(out), False, again(context.obj))
