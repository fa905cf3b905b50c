"""What the simulated machine raises, and how it names the line of a kernel."""

import types
from pathlib import Path

_MACHINERY = [
    str(Path(__file__).with_name(f"{name}.py"))
    for name in (
        "intrinsics",
        "matrix_intrinsics",
        "messages",
        "simulated_faults",
        "simulated_machine",
        "simulated_messages",
        "simulator",
    )
]
"""Files whose lines no message names: what waits there was called by a kernel."""


class SimulationError(Exception):
    """A kernel did what would be wrong on a GPU; the message names the thread, the line and what it did."""


class Deadlock(SimulationError):
    """All threads that have not ended wait for each other; the message says which wait where."""


def line_of(frame: types.FrameType | None) -> str:
    """The line of the kernel, or of a device function, that brought a thread where it is."""
    while frame is not None and frame.f_code.co_filename in _MACHINERY:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "line unknown"
