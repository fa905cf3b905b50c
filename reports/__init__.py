"""Tables, charts and self-contained HTML pages from results files, for notebooks and the command line.

``to_pandas`` reads a results file into ``Frames``, the pandas frames that all other functions take.  Each name is imported on
first use together with the libraries it needs; MissingLibrary says what to install where one is absent.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rnnbench.errors import MissingLibrary
from rnnbench.installing import how_to_install

if TYPE_CHECKING:
    from rnnbench.reports.asv import read_asv, write_asv_html
    from rnnbench.reports.claims import textbook_claims
    from rnnbench.reports.devices import by_device, of_device
    from rnnbench.reports.formats import to_csv, to_json, to_markdown, write_charts
    from rnnbench.reports.frames import Frames, to_pandas
    from rnnbench.reports.gallery import (
        all_charts,
        error_over_window,
        errors_over_tolerances,
        memory_over_window,
        speed_map,
        speed_under_roofs,
        startup_times,
        time_over_hidden_size,
        time_over_length,
        time_over_window,
    )
    from rnnbench.reports.history import write_history
    from rnnbench.reports.latency import latency_chart, write_latency_chart
    from rnnbench.reports.page import write_html
    from rnnbench.reports.published import beside_published, published_figures
    from rnnbench.reports.side_by_side import write_side_by_side
    from rnnbench.reports.study import write_study
    from rnnbench.reports.summary import summary_text
    from rnnbench.reports.tables import fastest, scaling_exponents
    from rnnbench.reports.versus import bar_points, bar_table, bar_text

_HOMES = {
    "asv": ("read_asv", "write_asv_html"),
    "claims": ("textbook_claims",),
    "devices": ("by_device", "of_device"),
    "formats": ("to_csv", "to_json", "to_markdown", "write_charts"),
    "frames": ("Frames", "to_pandas"),
    "gallery": (
        "all_charts",
        "error_over_window",
        "errors_over_tolerances",
        "memory_over_window",
        "speed_map",
        "speed_under_roofs",
        "startup_times",
        "time_over_hidden_size",
        "time_over_length",
        "time_over_window",
    ),
    "history": ("write_history",),
    "latency": ("latency_chart", "write_latency_chart"),
    "page": ("write_html",),
    "published": ("beside_published", "published_figures"),
    "side_by_side": ("write_side_by_side",),
    "study": ("write_study",),
    "summary": ("summary_text",),
    "tables": ("fastest", "scaling_exponents"),
    "versus": ("bar_points", "bar_table", "bar_text"),
}
"""Public names by module."""

__all__ = [
    "Frames",
    "all_charts",
    "bar_points",
    "bar_table",
    "bar_text",
    "beside_published",
    "by_device",
    "error_over_window",
    "errors_over_tolerances",
    "fastest",
    "latency_chart",
    "memory_over_window",
    "of_device",
    "published_figures",
    "read_asv",
    "scaling_exponents",
    "speed_map",
    "speed_under_roofs",
    "startup_times",
    "summary_text",
    "textbook_claims",
    "time_over_hidden_size",
    "time_over_length",
    "time_over_window",
    "to_csv",
    "to_json",
    "to_markdown",
    "to_pandas",
    "write_asv_html",
    "write_charts",
    "write_history",
    "write_html",
    "write_latency_chart",
    "write_side_by_side",
    "write_study",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            try:
                return getattr(import_module(f"{__name__}.{home}"), name)
            except ModuleNotFoundError as error:
                if error.name and error.name.startswith("rnnbench"):
                    raise
                raise MissingLibrary(f"reports need {error.name}: {how_to_install('report')}") from error
            except AttributeError as error:
                if sys.flags.optimize < 2:
                    raise
                raise MissingLibrary(
                    "this report needs Altair, which reads its own docstrings: run Python without -OO"
                ) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
