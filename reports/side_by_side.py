"""Two or more results files side by side: how the runs differ, and how their times compare.

The comparisons are those of ``rnnbench compare``, each run against the first.  A run on a different machine, or with
different packages or threads, is compared as well, but its differences are not called regressions.
"""

import math
import shlex
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import msgspec

from rnnbench.compare.comparison import MACHINE, Comparison, Times, compare_runs, facts_of, times, too_few_rounds
from rnnbench.compare.intervals import CONFIDENCE, MIN_ROUNDS
from rnnbench.compare.verdicts import CHANGE_BAND
from rnnbench.errors import ArgumentError
from rnnbench.reports import page
from rnnbench.reports.chart import Picture
from rnnbench.reports.encodings import NUMBER, lookup, row_height
from rnnbench.reports.provenance import flat
from rnnbench.reports.rows import Rows, plain
from rnnbench.reports.text import Answer, clipped, count, listed
from rnnbench.results.reader import read

MAX_FILES = 8
"""Maximum number of runs on one page: the number of colours."""

NEUTRAL = {"regression": "slower", "improvement": "faster"}
"""Verdicts between runs whose machine, packages or threads differ."""

MAX_NAMED = 10
"""Maximum number of changed cases listed per run; the table has them all."""

ABSENT = "not in this run"


class Side(NamedTuple):
    """A run with its letter and its comparisons with the first run.

    ``differing``: facts of the measurement in which it differs from the first run.  If each run used one number of threads,
    and not the same, the cases in ``times`` carry the number of the first run.
    """

    letter: str
    times: Times
    differing: list[str]
    rows: list[Comparison]


def write_side_by_side(files: Sequence[Path | str], output: Path | str) -> Path:
    """Write a page that compares results files with the first of them.

    Raises StoreError, and ArgumentError where a file has nothing in common with the first.
    """
    return page.save(render(sides([Path(file) for file in files])), output)


def sides(files: Sequence[Path]) -> list[Side]:
    """The runs, each compared with the first; raises StoreError and ArgumentError."""
    if not 2 <= len(files) <= MAX_FILES:
        raise ArgumentError(f"{count(len(files), 'results file')} given to compare side by side; expected 2 to {MAX_FILES}")
    again = [file for file, number in Counter(file.resolve() for file in files).items() if number > 1]
    if again:
        raise ArgumentError(f"{again[0].name} is given twice; expected different results files")
    first, *others = (times(read(file)) for file in files)
    found = [Side("A", first, [], [])]
    for letter, other in zip(string.ascii_uppercase[1:], others, strict=False):
        threads = _one_thread_count(first), _one_thread_count(other)
        moved = other if None in threads or threads[0] == threads[1] else _with_threads(other, threads[0])
        common = {backend for case, backend in first.samples if (case, backend) in moved.samples}
        one, another = facts_of(first.run, common), facts_of(other.run, common)
        differing = [name for name in one | another if one.get(name) != another.get(name)]
        differing += ["threads"] if moved is not other else []
        try:
            rows = compare_runs(first, moved, different_machines=True).rows
        except ArgumentError as error:
            raise ArgumentError(f"{first.path} as A and {other.path} as B: {error}") from error
        found.append(Side(letter, moved, differing, rows))
    return found


def render(found: list[Side]) -> str:
    """The page as HTML."""
    rows = _rows(found)
    drawn = {"ratios": _forest(found, rows)}
    payload = {
        "backends": list(dict.fromkeys(row["backend"] for row in rows)),
        "rows": {"ratios": page.columns(rows)},
    }
    return page.template("side_by_side.html").render(
        **page.page(f"rnnbench: {count(len(found), 'run')} side by side", drawn, payload),
        sides=found,
        pictures=drawn,
        differences=difference_sentences(found),
        answers=summary(found),
        facts=fact_table([side.times for side in found]),
        states=states(found),
        threads=[side.letter for side in found if "threads" in side.differing],
        problems=[f"{side.letter}: {problem}" for side in found for problem in side.times.problems],
        band=f"{CHANGE_BAND:.0%}",
        confidence=f"{CONFIDENCE:.0%}",
        fewest=MIN_ROUNDS,
    )


# what differs


def fact_table(runs: Sequence[Times]) -> dict[str, list[tuple]]:
    """Every fact of the runs by subject, as (name, values, whether they differ), differing facts first."""
    subjects: dict[str, list[dict[str, str]]] = {}
    for one in runs:
        environment = dict(one.run.environment)
        versions = environment.pop("versions", {})
        commit, dirty = (environment.pop(name, None) for name in ("commit", "dirty"))
        changed = "unknown" if dirty is None else "yes" if dirty else "no"
        code = {"commit": commit, "uncommitted changes": changed, "rnnbench": versions.get("rnnbench")}
        cases = {"threads": sorted({case.threads for case in one.run.cases})}
        run = {
            "results file": one.path.name,
            "started": one.run.started,
            "suite": one.run.suite,
            "command": shlex.join(one.run.command),
        }
        groups = {
            "Code": code,
            "Machine": environment,
            "Packages": {name: value for name, value in versions.items() if name != "rnnbench"},
            "Threads": cases,
            "Protocol": one.run.settings,
            "Backends": one.run.backends,
            "Run": run,
        }
        for subject, values in groups.items():
            subjects.setdefault(subject, []).append(flat(values))
    table = {}
    for subject, columns in subjects.items():
        lines = [(name, [column.get(name, "") for column in columns]) for name in dict.fromkeys(n for c in columns for n in c)]
        marked = [(name, values, len(set(values)) > 1) for name, values in lines]
        table[subject] = sorted(marked, key=lambda line: not line[2])
    return table


def difference_sentences(found: list[Side]) -> list[str]:
    """A sentence for each run on how it differs from the first, and what that means for the verdicts."""
    first = found[0].times.run
    sentences = []
    for side in found[1:]:
        own = side.times.run
        machine = [name for name in MACHINE if name in side.differing and name not in ("os", "python", "implementation")]
        if machine:
            one, other = (run.environment.get("machine") or "an unnamed machine" for run in (first, own))
            where = f"{other} against {one}" if one != other else f"different {listed(machine)}"
            text = f"{side.letter} was measured on a different machine than A ({where})"
        elif side.differing:
            text = f"{side.letter} was measured on the same machine as A, but with different {listed(side.differing)}"
        else:
            text = (
                f"{side.letter} was measured on the same machine as A, with the same packages; {_code_difference(first, own)}"
            )
        consequence = "" if not side.differing else ": no difference between them is called a regression"
        sentences.append(clipped(f"{text}{consequence}."))
    return sentences


def _code_difference(first: Any, own: Any) -> str:
    one, other = (run.environment.get("commit") for run in (first, own))
    if one == other:
        changed = any(run.environment.get("dirty") for run in (first, own))
        same = f"the code is the same commit ({one[:10]})" if one else "neither run names the commit of its code"
        return same + (", but with uncommitted changes" if one and changed else "")
    names = [
        f"{(run.environment.get('commit') or 'unknown')[:10]}{' with changes' if run.environment.get('dirty') else ''}"
        for run in (own, first)
    ]
    return f"the code differs: commit {names[0]} against {names[1]}"


# how the times compare


def summary(found: list[Side]) -> list[Answer]:
    """One answer per run after the first: how many cases are slower, faster and the same, and which."""
    result = []
    for side in found[1:]:
        verdicts = Counter(verdict_text(side, row) for row in side.rows)
        order = [NEUTRAL.get(name, name) if side.differing else name for name in ("regression", "improvement", "same")]
        counts = ", ".join(
            count(verdicts[name], name) if name in NEUTRAL else f"{verdicts[name]} {name}"
            for name in [*order, "unclear"]
            if verdicts[name]
        )
        text = f"{side.letter} against A, {count(len(side.rows), 'comparison')}: {counts}."
        details = [
            f"{row.case.label()}, {row.backend}: {row.ratio:.3f} times A's time (from {row.low:.3f} to {row.high:.3f})."
            for row in side.rows
            if row.verdict in NEUTRAL
        ]
        more = [f"And {len(details) - MAX_NAMED} more, in the table."] if len(details) > MAX_NAMED else []
        if hint := too_few_rounds(side.rows):
            more.append(f"{hint}.")
        result.append(Answer(text, details[:MAX_NAMED] + more))
    return result


def verdict_text(side: Side, row: Comparison) -> str:
    return NEUTRAL.get(row.verdict, row.verdict) if side.differing else row.verdict


def states(found: list[Side]) -> list[tuple[str, str, list[str]]]:
    """(case, backend, state in each run) of all that failed in a run, or that only some runs measured."""
    keys = dict.fromkeys(key for side in found for key in [*side.times.samples, *side.times.failed])
    result = []
    for case, backend in keys:
        states = [
            "measured" if (case, backend) in side.times.samples else side.times.failed.get((case, backend), ABSENT)
            for side in found
        ]
        if any(state != "measured" for state in states):
            result.append((case.label(), backend, states))
    return sorted(result, key=lambda line: all(state in ("measured", ABSENT) for state in line[2]))


def _rows(found: list[Side]) -> Rows:
    """Comparisons for chart and table; ``line`` numbers the rows of the chart, largest difference first."""
    pairs = [(side, row) for side in found[1:] for row in side.rows]
    order = [*NEUTRAL, "unclear", "same"]
    furthest = sorted(pairs, key=lambda pair: (order.index(pair[1].verdict), -abs(math.log(pair[1].ratio))))
    lines = {key: place for place, key in enumerate(dict.fromkeys((row.case, row.backend) for _, row in furthest))}
    fields = ("cell", "phase", "T", "B", "I", "H", "dtype", "threads")
    return [
        {
            "line": lines[row.case, row.backend],
            "label": row.case.label(),
            **{name: getattr(row.case, name) for name in fields},
            "backend": row.backend,
            "run": side.letter,
            **{name: plain(getattr(row, name)) for name in ("ratio", "low", "high", "coverage", "threshold")},
            "rounds": f"{row.rounds[0]} and {row.rounds[1]}",
            "verdict": verdict_text(side, row),
        }
        for side, row in furthest
    ]


def _forest(found: list[Side], rows: Rows) -> Picture:
    """Forest plot: a line per case and backend, with a point and interval per run."""
    letters = [side.letter for side in found[1:]]
    scale = alt.Scale(domain=letters)
    colour = alt.Color("run:N", title="against A", scale=scale, legend=alt.Legend(orient="top"))
    labels, shared = short_labels([(row["label"], row["backend"]) for row in {row["line"]: row for row in rows}.values()])
    y = alt.Y("line:O", title=None, axis=alt.Axis(grid=True, labelLimit=260, labelExpr="lines[datum.value]"))
    offset = alt.YOffset("run:N", sort=letters)
    logarithmic = alt.Scale(type="log", nice=False, padding=12)
    axis = alt.Axis(labelExpr=NUMBER, labelOverlap="greedy", tickCount=6)
    tooltip = [alt.Tooltip(f"{name}:N") for name in ("label", "backend", "run", "verdict", "rounds")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".4~g") for name in ("ratio", "low", "high")]
    x = alt.X("low:Q", title="time / A's time", scale=logarithmic, axis=axis)
    base = alt.Chart().encode(y=y, yOffset=offset, color=colour)
    chart = alt.layer(
        alt.Chart().transform_aggregate(n="count()").mark_rule(strokeDash=[4, 3], strokeWidth=1.5).encode(x=alt.datum(1)),
        base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q"),
        base.mark_point(filled=True, size=55, opacity=1).encode(
            x=alt.X("ratio:Q", title="time / A's time", scale=logarithmic, axis=axis),
            shape=alt.Shape("run:N", title="against A", scale=scale),
            tooltip=tooltip,
        ),
        width=560,
        height=row_height(max(20, 12 * len(letters))),
        data=alt.NamedData("ratios"),
    ).add_params(lookup("lines", labels))
    caption = (
        "Points right of the dashed line are slower than A, points left of it faster; bars are intervals of the ratio. "
        "Regressions are on top, then improvements; the axis is logarithmic."
        f"{f' All cases share {shared}.' if shared else ''}"
    )
    return Picture("ratios", "Time as a ratio to A's", caption, "ratios", chart)


def short_labels(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], str]:
    """Labels of cases and backends without the terms that all of them share, and those terms."""
    labels = [[*label.split(" "), f"with {backend}"] for label, backend in pairs]
    shared = [term for term in labels[0] if all(term in label for label in labels)] if len(labels) > 1 else []
    return [" ".join(term for term in label if term not in shared) for label in labels], " ".join(shared)


# threads


def _one_thread_count(one: Times) -> int | None:
    """The number of threads of all cases of a run; None where it varies."""
    counts = {case.threads for case, _ in [*one.samples, *one.failed]}
    return counts.pop() if len(counts) == 1 else None


def _with_threads(one: Times, threads: int | None) -> Times:
    """The same times, with cases that carry another number of threads, to match those of a run with that number."""

    def moved(values: dict[Any, Any]) -> dict[Any, Any]:
        return {(msgspec.structs.replace(case, threads=threads), backend): value for (case, backend), value in values.items()}

    return one._replace(samples=moved(one.samples), failed=moved(one.failed))
