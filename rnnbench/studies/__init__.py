"""Studies of what recurrent networks do, on any backend: tables, charts and one sentence each."""

from typing import TYPE_CHECKING

from rnnbench.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
