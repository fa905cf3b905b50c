"""Runs made up for the tests of reports, and what they read from pages and charts."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

from rnnbench.reports import to_pandas
from rnnbench.reports.summary import summary
from rnnbench.results.rows import End, Row, Run, Time
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

ALL_CHARTS = ["map_T", "length", "hidden", "window_time", "window_error", "window_memory", "roofline", "startup", "gates"]
CASE = Case("lstm", "step", 4, 2, 3, 5)
END = End("2025-01-01T01:00:00Z", 3600.0, 1.0)


def written(
    path: Path,
    rows: Sequence[Row],
    *,
    cases: Sequence[Case] = (CASE,),
    backends: Sequence[str] = ("a", "b"),
    machine: str = "m",
) -> Path:
    """A results file of one run with these rows."""
    info: dict = {name: {} for name in backends}
    run = Run("r", "2025-01-01T00:00:00Z", "own", ["rnnbench", "run"], {"seed": 3}, {"machine": machine}, info, list(cases))
    with Writer(path / "own.jsonl") as writer:
        for row in (run, *rows):
            writer.append(row)
    return path / "own.jsonl"


def times(backend: str, medians: Sequence[float], case: Case = CASE) -> list[Time]:
    """One row per round; the median of its samples is the given number, their mean is not."""
    return [Time(case, backend, i, 0, 1, [0.5 * m, m, 9 * m]) for i, m in enumerate(medians)]


def said(path: Path) -> str:
    return "\n".join(line for answer in summary(to_pandas(path)) for line in (answer.text, *answer.details))


def marks(svg: str) -> dict[str, int]:
    """How many marks of each kind an SVG holds; axes and legends are none."""
    counts: dict[str, int] = {}
    for group in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}g"):
        kind, *roles = group.get("class", "none").split()
        if "role-mark" in roles:
            counts[kind] = counts.get(kind, 0) + len(group)
    return counts


class Elements(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def whole(self) -> str:
        return "".join(self.text)

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        else:
            self.text.append(data)
