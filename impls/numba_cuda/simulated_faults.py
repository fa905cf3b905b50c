"""Errors of the simulated machine, and the kernel line that they name."""

import types
from pathlib import Path

_MACHINERY = [
    str(Path(__file__).with_name(f"{name}.py"))
    for name in (
        "exchange_intrinsics",
        "intrinsics",
        "matrix_intrinsics",
        "messages",
        "simulated_faults",
        "simulated_machine",
        "simulated_messages",
        "simulator",
    )
]
"""Files of the simulator itself; messages name the kernel line that called into them."""


class SimulationError(Exception):
    """A kernel did something that is wrong on a GPU; the message names the thread, the line and the action."""


class Deadlock(SimulationError):
    """All running threads wait for each other; the message says which wait where."""


def line_of(frame: types.FrameType | None) -> str:
    """The line of the kernel or device function that a thread executes."""
    while frame is not None and frame.f_code.co_filename in _MACHINERY:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "line unknown"
