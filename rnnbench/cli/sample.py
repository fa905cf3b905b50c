"""``rnnbench sample``: text from a trained language model."""

from typing import Annotated

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import COUNT, NUMBER, OK, SEED, names_from


def sample(
    checkpoint: Annotated[
        str, typer.Argument(metavar="RUN", help="The folder of a run, or one of its checkpoints.", show_default=False)
    ],
    length: Annotated[
        int | None, typer.Option(parser=COUNT, metavar="N", help="Characters or words to draw (default: 400).")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(parser=NUMBER, metavar="X", help="Below 1 for likelier text (default: 1).")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", parser=COUNT, metavar="K", help="Draw from the K likeliest symbols alone.")
    ] = None,
    seed: Annotated[int | None, typer.Option(parser=SEED, metavar="N", help="Of the draws (default: 0).")] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="How the text begins.")] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="B", help="What computes (default: what has trained).", autocompletion=names_from(completion.backends)
        ),
    ] = None,
) -> int:
    """Draw text from a trained language model.

    The folder of a run stands for its best checkpoint.

    Examples:
    $ rnnbench sample training/lm-numba_cpu --temperature 0.7
    $ rnnbench sample training/lm-numba_cpu --prompt "HERMIA" --top-k 5
    """
    from rnnbench.training.lm import sample as drawn

    options = {"temperature": temperature or 1.0, "top_k": top_k, "seed": seed or 0, "prompt": prompt or ""}
    terminal.show(drawn(checkpoint, length or 400, backend=backend, **options))
    return OK
