"""Studies of what recurrent networks do, on any backend: tables, charts and one sentence each."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnnbench.studies.gaps import study_missing_values
    from rnnbench.studies.gradients import gradient_flow, study_gradient_flow
    from rnnbench.studies.presets import Asked, run_study
    from rnnbench.studies.study import Curve, Study
    from rnnbench.studies.targets import study_time_to_loss
    from rnnbench.studies.windows import study_truncation

__all__ = [
    "Asked",
    "Curve",
    "Study",
    "gradient_flow",
    "run_study",
    "study_gradient_flow",
    "study_missing_values",
    "study_time_to_loss",
    "study_truncation",
]

_HOMES = {
    "gaps": ("study_missing_values",),
    "gradients": ("gradient_flow", "study_gradient_flow"),
    "presets": ("Asked", "run_study"),
    "study": ("Curve", "Study"),
    "targets": ("study_time_to_loss",),
    "windows": ("study_truncation",),
}
"""Modules and their names, imported when they are needed: the command line reads this package's files without NumPy."""

_NAMES = {name: f"rnnbench.studies.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return globals().setdefault(name, getattr(importlib.import_module(_NAMES[name]), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
