"""A run in other formats: CSV, JSON and Markdown, and its charts as SVG or PNG files."""

import html
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pandas as pd
import vl_convert
from pandas.api.types import is_numeric_dtype

from rnnbench.errors import ArgumentError
from rnnbench.reports.claims import textbook_claims
from rnnbench.reports.devices import by_device, device_text
from rnnbench.reports.frames import CASE_FIELDS, Frames
from rnnbench.reports.gallery import gallery
from rnnbench.reports.published import beside_published, published_rows
from rnnbench.reports.summary import summary
from rnnbench.reports.text import duration, factor, printable
from rnnbench.reports.winners import winners
from rnnbench.results.disk import save
from rnnbench.text import spreadsheet_safe

CHART_FILES = ("svg", "png")
PNG_SCALE = 2
MARKS = {"same": " ≈", "unclear": " ?"}


def to_csv(data: Frames) -> str:
    """CSV with one row per case and backend: ``Frames.summary`` and further columns.

    Further columns: ``label``, ``flops`` and ``disturbed`` of the case, ``error_over_tolerance`` (largest over the
    tensors), ``relative_error`` of a truncated gradient, and ``message`` of the first failure.  Seconds, bytes and ratios
    have all their digits; missing values are empty.  Control characters are escaped, and text that a spreadsheet would run
    as a formula is prefixed with a quote.
    """
    pair = ["case", "backend"]
    worst = data.gates.groupby(pair, sort=False)["error_over_tolerance"].max().reset_index()
    errors = data.truncation[[*pair, "relative_error"]]
    messages = data.failures.drop_duplicates(pair)[[*pair, "message"]]
    table = data.summary.merge(data.cases[["case", "label", "flops", "disturbed"]], on="case")
    for further in (worst, errors, messages):
        table = table.merge(further, on=pair, how="left")
    for name in table.columns:
        if not is_numeric_dtype(table[name]):
            table[name] = table[name].map(lambda text: spreadsheet_safe(printable(text)), na_action="ignore")
    return table.to_csv(index=False, lineterminator="\n")


def to_json(data: Frames) -> str:
    """All data behind the page as one JSON document; NaN and infinite values are null.

    ``cases`` holds the fields of each case; the rows of ``times``, ``summary``, ``pairs``, ``gates``, ``failures``,
    ``truncation``, ``startup`` (``Frames``) and ``published`` (``beside_published``) name theirs by its key in ``case``.
    """
    run = {name: getattr(data.run, name) for name in data.run.__struct_fields__ if name != "cases"}
    frames = ("times", "summary", "pairs", "gates", "failures", "truncation", "startup")
    document = {
        "run": run,
        "end": data.end,
        "baseline": data.baseline,
        "devices": data.devices,
        "baselines": data.baselines,
        "answers": [answer._asdict() for answer in summary(data)],
        "cases": _rows(data.cases),
        **{name: _rows(getattr(data, name).drop(columns=[*CASE_FIELDS])) for name in frames},
        "published": _rows(beside_published(data)),
        "problems": data.problems,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n"


def _rows(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    whole = frame.astype("object")
    return whole.where(whole.notna(), None).to_dict("records")


def to_markdown(data: Frames) -> str:
    """Markdown with the summary, a table of times and speeds relative to the baseline, failures and provenance."""
    environment = data.run.environment
    machine = [str(environment[name]) for name in ("machine", "cpu", "os") if name in environment]
    lines = [
        f"# rnnbench: {escaped(data.run.suite)}",
        "",
        escaped(", ".join([data.run.started, *machine])),
        "",
        "## Summary",
        "",
    ]
    for answer in summary(data):
        lines += [f"- {escaped(answer.text)}", *(f"  - {escaped(detail)}" for detail in answer.details)]
    lines += ["", "## Times"]
    frames = by_device(data)
    for device, part in frames.items():
        head = ["", f"### On {escaped(device_text(device))}"] if len(frames) > 1 else []
        lines += [*head, "", _legend(part), "", *_times_table(part), *_claims_table(part)]
    lines += ["", "## Failures", "", *_failures_table(data)]
    lines += ["", *_published(data), "## How it was measured", "", *_provenance(data)]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows literally, also in a table cell: no markup, HTML or link takes effect.

    Runs of spaces become one, as HTML shows them; at the start of a line they would make a code block.
    """
    text = html.escape(" ".join(printable(text).split()), quote=False)
    text = re.sub(r"[\\`*_{}\[\]|~$#]", r"\\\g<0>", text)
    text = text.replace("://", "\\://").replace("www.", "www\\.")
    text = re.sub(r"^[-+=]", r"\\\g<0>", text)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", text)


def _legend(data: Frames) -> str:
    if data.baseline is None:
        return "No backend completed a case."
    signs = "≈: the same; ?: unclear; bold: clearly the fastest"
    return f"Time of a call (median over rounds) and speed relative to {escaped(data.baseline)} ({signs})."


def _claims_table(data: Frames) -> list[str]:
    """What textbooks say, and whether it holds; nothing where the run cannot tell."""
    table = textbook_claims(data)
    if table.empty:
        return []
    names = {
        "sentence": "Sentence",
        "backend": "Backend",
        "cell": "Cell",
        "fixed": "With",
        "measured": "Measured",
        "verdict": "It",
    }
    rows = [[escaped(str(value)) for value in row] for row in table[list(names)].itertuples(index=False)]
    lines = [names.values(), ["---"] * len(names), *rows]
    return ["", "### What textbooks say", "", *(f"| {' | '.join(cells)} |" for cells in lines)]


def _times_table(data: Frames) -> list[str]:
    fastest = winners(data)
    best = dict(zip(fastest["case"], fastest["outcome"], strict=True))
    names = [name for name in data.backends if (data.summary["backend"] == name).any()]
    cells = {(row["case"], row["backend"]): _cell(row, best) for row in data.summary.to_dict("records")}
    rows = [[label, *(cells[case, name] for name in names)] for case, label in _labels(data)]
    return _table(["Case", *map(escaped, names)], rows, numbers=True)


def _labels(data: Frames) -> list[tuple[str, str]]:
    return [(str(case), escaped(str(label))) for case, label in zip(data.cases["case"], data.cases["label"], strict=True)]


def _cell(row: dict[Any, Any], best: dict[Any, Any]) -> str:
    if row["status"] != "measured":
        return str(row["status"])
    text = duration(row["seconds"])
    if row["backend"] != row["baseline"] and pd.notna(row["speedup"]):
        text += f", {factor(row['speedup'])}{MARKS.get(row['verdict'], '')}"
    return f"**{text}**" if best.get(row["case"]) == row["backend"] else text


def _failures_table(data: Frames) -> list[str]:
    lines = [
        f"- {escaped(name)} could not run: {escaped(str(facts['unavailable']))}"
        for name, facts in data.run.backends.items()
        if "unavailable" in facts
    ]
    labels = dict(_labels(data))
    rows = [
        [labels[row["case"]], *(escaped(str(row[name])) for name in ("backend", "reason", "stage", "message"))]
        for row in data.failures.to_dict("records")
    ]
    if rows:
        lines += ["", *_table(["Case", "Backend", "Reason", "Stage", "Message"], rows)]
    return lines or ["None."]


def _published(data: Frames) -> list[str]:
    names = ("label", "own", "time", "library", "hardware", "dtype", "source", "note")
    rows = [[*(escaped(str(row[name])) for name in names), f"<{row['url']}>"] for row in published_rows(data)]
    heads = ["Case", "Fastest here", "Published", "Library", "Hardware", "dtype", "Source", "Note", "Link"]
    return ["## Published figures", "", *_table(heads, rows), ""] if rows else []


def _provenance(data: Frames) -> list[str]:
    environment = data.run.environment
    versions = environment.get("versions")
    facts = {
        "Python": environment.get("python"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items())
        if isinstance(versions, dict)
        else None,
        "commit": environment.get("commit"),
        "uncommitted changes": "yes" if environment.get("dirty") else None,
        "run": data.run.run,
    }
    command = printable(shlex.join(data.run.command))  # one line, in which no backticks stand alone: they are quoted
    lines = [f"- {name}: {escaped(str(value))}" for name, value in facts.items() if value is not None]
    lines += [f"- {escaped(problem)}" for problem in data.problems]
    return [*lines, "", "Repeat this run:", "", "```", command, "```"]


def _table(heads: list[str], rows: Iterable[list[str]], *, numbers: bool = False) -> list[str]:
    under = ["---", *(["---:" if numbers else "---"] * (len(heads) - 1))]
    return [f"| {' | '.join(row)} |" for row in (heads, under, *rows)]


class ChartFiles(NamedTuple):
    """The files written, and a sentence for each chart that has nothing to draw."""

    written: list[Path]
    left_out: list[str]


def write_charts(data: Frames, folder: Path | str, kind: str = "svg") -> ChartFiles:
    """Write every chart of the page as ``FOLDER/NAME.svg`` or ``.png``, without a browser.

    A chart with several sweeps becomes one file per sweep.  PNG files have a white background and two pixels per point.
    Raises ArgumentError for another kind, and StoreError.
    """
    if kind not in CHART_FILES:
        raise ArgumentError(f"kind is {kind!r}; expected {' or '.join(CHART_FILES)}")
    charts = gallery(data)
    written = []
    for one in charts.drawn:
        path = Path(folder) / f"{one.name}.{kind}"
        specification = one.specification
        if kind == "svg":
            content = vl_convert.vegalite_to_svg(specification).encode()
        else:
            config = specification["config"] | {"background": "white"}
            content = vl_convert.vegalite_to_png(specification | {"config": config}, scale=PNG_SCALE)
        save(path, [content])
        written.append(path)
    return ChartFiles(written, charts.left_out)
