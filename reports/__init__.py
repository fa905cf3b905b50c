"""From results to pictures: pandas frames, charts and one HTML page that opens from disk with no network."""

try:
    from rnnbench.reports.answers import summary_text
    from rnnbench.reports.asv import read_asv, write_asv_html
    from rnnbench.reports.bars import bar_points, bar_table, bar_text
    from rnnbench.reports.frames import Frames, to_pandas
    from rnnbench.reports.history import write_history
    from rnnbench.reports.page import write_html, write_svg
    from rnnbench.reports.side_by_side import write_side_by_side
except ModuleNotFoundError as error:
    if error.name and error.name.startswith("rnnbench"):
        raise
    raise ModuleNotFoundError(f"reports need {error.name}: pip install 'rnnbench[report]'", name=error.name) from error

__all__ = [
    "Frames",
    "bar_points",
    "bar_table",
    "bar_text",
    "read_asv",
    "summary_text",
    "to_pandas",
    "write_asv_html",
    "write_history",
    "write_html",
    "write_side_by_side",
    "write_svg",
]
