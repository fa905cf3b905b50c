"""Kills training runs at random points of their life, and goes on with them.

Started in ``tests``: ``python -m helpers.killed_training FOLDER POINTS SEED``.

A child is forked for each life, so that all is imported once, and kills itself with SIGKILL at a line of the loop, the
checkpoints, the metrics or the files below them, drawn at random.  The disk takes rows in pieces of random sizes, so that some
lines are torn.  FOLDER/whole then holds a run that nothing ended, and FOLDER/0, 1, ... runs that were killed until one life
ended by itself.
"""

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from helpers import killed_runs
from helpers.killed_runs import Pieces, counted
from helpers.tiny_training import tiny
from rnnbench.results import disk
from rnnbench.training import checkpoint, loop, metrics, run
from rnnbench.training.run import has_checkpoint, train

TRACED = {module.__file__ for module in (checkpoint, loop, metrics, run, disk)}


def is_killed(live: Callable[[], object], limit: int, sizes: int) -> bool:
    """Live in a child that is killed at the line of that number; whether it was."""
    child = os.fork()
    if not child:
        Pieces.sizes.seed(sizes)
        sys.settrace(counted(limit, lambda: os.kill(os.getpid(), signal.SIGKILL))[0])
        live()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a run ended with {code}")
    return code != 0


def main(folder: Path, points: int, seed: int) -> None:
    facts = loop.environment()
    loop.environment = lambda *_: facts  # asks git, which takes longer than a life
    os.fsync = lambda _: None  # a kill leaves to the kernel what was written; power cuts are not tried
    disk.FileIO = Pieces
    killed_runs.TRACED = TRACED
    config, draw = tiny(folder), random.Random(seed)
    trace, lines = counted(0, lambda: None)
    sys.settrace(trace)
    train(config, folder / "whole")
    sys.settrace(None)
    killed = chain = 0
    while killed < points:
        place, ended = folder / str(chain), True
        while ended:
            ended = is_killed(
                lambda: train(config, place, resume=has_checkpoint(place)),  # noqa: B023  # called at once
                draw.randint(1, lines[0]),
                draw.getrandbits(32),
            )
            killed += ended
        chain += 1
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
