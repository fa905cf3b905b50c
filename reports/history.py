"""The history page: steps in the time of each backend on each case, by commit, and the timelines."""

import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import altair as alt

from rnnbench.compare.verdicts import CHANGE_BAND
from rnnbench.errors import ArgumentError
from rnnbench.reports import page
from rnnbench.reports.chart import Picture
from rnnbench.reports.encodings import lookup
from rnnbench.reports.rows import Rows, plain
from rnnbench.reports.steps import MAX_STEPS, MIN_POINTS, Step
from rnnbench.reports.text import clipped, count, listed
from rnnbench.reports.timelines import History, Timeline, changes, commits_between, history
from rnnbench.results.reader import results_files

MAX_LISTED = 5
"""Maximum number of steps of one run listed at once; the others unfold."""

DURATION = (
    "datum.value < 9.99e-4 ? format(datum.value * 1e6, '~r') + ' µs'"
    " : datum.value < 0.999 ? format(datum.value * 1e3, '~r') + ' ms' : format(datum.value, '~r') + ' s'"
)


class CommitSteps(NamedTuple):
    """The steps that begin at one run.

    Short commit name, subject and link of its commit; a summary, a sentence per step, and sentences on possible causes.
    """

    code: str
    subject: str
    link: str | None
    text: str
    details: list[str]
    causes: list[str]


def write_history(paths: Sequence[Path | str], output: Path | str, repository: str | None = None) -> Path:
    """Write the history of results files, or of all below folders, as a page that works offline.

    ``repository``: base address of links to commits, ``ADDRESS/commit/HASH``.
    Raises StoreError, ArgumentError for fewer than two commits or an invalid address, and MissingLibrary without ruptures.
    """
    if repository is not None and urlsplit(repository).scheme not in ("http", "https"):
        raise ArgumentError(f"repository is {repository!r}; expected an address that begins with https:// or http://")
    files = list(dict.fromkeys(file for path in paths for file in results_files(path)))
    return page.save(render(history(files), repository), output)


def render(found: History, repository: str | None = None) -> str:
    """The page as HTML."""
    judged = [timeline for timeline in found.timelines if timeline.judged]
    points, levels = _points(found), _levels(found)
    backends = list(dict.fromkeys(timeline.backend for timeline in found.timelines))
    payload = {
        "backends": backends,
        "series": found.series,
        "rows": {"points": page.columns(points + levels), "timelines": page.columns(_timelines(found))},
    }
    picture = _chart(found, backends)
    return page.template("history.html").render(
        **page.page("rnnbench: history", {picture.name: picture}, payload),
        found=found,
        picture=picture,
        steps=commit_steps(found, repository),
        judged=len(judged),
        short=short_sentence(found),
        order=order_sentence(found),
        failing=failing_sentences(found),
        by_chance=f"{len(judged) / 100:.2g}",
        problems=[problem for place in found.places for problem in place.times.problems],
        commits=len({place.commit for place in found.places}),
        fewest=MIN_POINTS,
        most=MAX_STEPS,
        listed=MAX_LISTED,
        band=f"{CHANGE_BAND:.0%}",
    )


# sentences


def commit_steps(found: History, repository: str | None = None) -> list[CommitSteps]:
    """Steps grouped by the run at which they begin, newest run first, largest slowdown first within a run."""
    at: dict[int, list[tuple[Timeline, Step]]] = {}
    for timeline in found.timelines:
        for step in timeline.steps:
            at.setdefault(step.place, []).append((timeline, step))
    result = []
    for place in sorted(at, reverse=True):
        pairs = sorted(at[place], key=lambda pair: -pair[1].ratio)
        slower = sum(step.ratio > 1 for _, step in pairs)
        parts = [f"slower in {slower}"] if slower else []
        parts += [f"faster in {len(pairs) - slower}"] if slower < len(pairs) else []
        own = found.places[place]
        series = {timeline.series for timeline, _ in pairs}
        judged = sum(timeline.judged and timeline.series in series for timeline in found.timelines)
        text = f"{listed(parts)} of {count(judged, 'timeline')}, {_extent(pairs)}"
        earlier = dict.fromkeys(_before(*pair) for pair in pairs)
        causes = list(dict.fromkeys(cause for before in earlier for cause in cause_sentences(found, before, place)))
        link = f"{repository.rstrip('/')}/commit/{own.commit}" if repository and own.named else None
        details = [clipped(step_sentence(found, *pair)) for pair in pairs]
        result.append(CommitSteps(own.code, found.subjects.get(own.commit, ""), link, text, details, causes))
    return result


def _extent(pairs: list[tuple[Timeline, Step]]) -> str:
    """Backends and sizes of the steps: ``of numba_cpu, 1.07 to 1.12 times the time before``."""
    backends = dict.fromkeys(timeline.backend for timeline, _ in pairs)
    ratios = sorted(f"{step.ratio:.2f}" for _, step in pairs)
    span = ratios[0] if ratios[0] == ratios[-1] else f"{ratios[0]} to {ratios[-1]}"
    return clipped(f"of {listed(backends)}, {span} times the time before")


def step_sentence(found: History, timeline: Timeline, step: Step) -> str:
    """Size and interval of a step, as a sentence."""
    word = "slower" if step.ratio > 1 else "faster"
    where = f" on {found.series[timeline.series]}" if len(found.series) > 1 else ""
    runs = sum(point.place >= step.place for point in timeline.points)
    return (
        f"{timeline.case.label()}, {timeline.backend}{where}: {word}, {step.ratio:.3f} times the time before "
        f"(from {step.low:.3f} to {step.high:.3f} with {step.coverage:.0%}; {count(len(timeline.points) - runs, 'run')} "
        f"before it, {runs} since)."
    )


def cause_sentences(found: History, before: int, after: int) -> list[str]:
    """What changed between the two runs around a step: commits, versions, settings."""
    one, other = found.places[before], found.places[after]
    if one.commit == other.commit:
        changed = one.dirty or other.dirty
        sentence = "The run before it is of the same commit" + (", with uncommitted changes." if changed else ".")
    else:
        number = commits_between(one.commit, other.commit)
        sentence = f"The run before it is of {one.code}" + (
            f": any of the {number} commits since may be the cause." if number and number > 1 else "."
        )
    changed_facts = changes(one, other)
    also = [f"Also changed there: {'; '.join(changed_facts)}."] if changed_facts else []
    return [clipped(text) for text in [sentence, *also]]


def _before(timeline: Timeline, step: Step) -> int:
    """The last place before a step."""
    return max(point.place for point in timeline.points if point.place < step.place)


def short_sentence(found: History) -> str | None:
    """A sentence on timelines with too few points to be judged, or None."""
    short = [timeline for timeline in found.timelines if not timeline.judged]
    if not short:
        return None
    most = max(len(timeline.points) for timeline in short)
    return (
        f"{len(short)} of {count(len(found.timelines), 'timeline')} {'has' if len(short) == 1 else 'have'} too few runs to "
        f"judge: at most {most}; telling a step from noise takes {MIN_POINTS}."
    )


def order_sentence(found: History) -> str:
    """How the runs are ordered, and which runs form separate timelines."""
    order = (
        "Commits are in the order of the git repository in this folder."
        if found.by_commit
        else "Runs are ordered by date: the git repository in this folder does not have all of their commits."
    )
    separate = " Runs on different machines, or with different inputs, form separate timelines."
    return order + (separate if len(found.series) > 1 else "")


def failing_sentences(found: History) -> list[str]:
    """A sentence for each timeline that has times, but whose newest run failed."""
    return [
        clipped(f"{one.case.label()}, {one.backend}: {one.failed[max(one.failed)]} in {found.places[max(one.failed)].code}.")
        for one in found.timelines
        if one.failed and max(one.failed) > one.points[-1].place
    ]


# rows


def _points(found: History) -> Rows:
    return [
        {
            "line": number,
            "place": point.place,
            "seconds": plain(point.seconds),
            "low": plain(point.low),
            "high": plain(point.high),
            "end": None,
            "commit": found.places[point.place].code,
            "subject": found.subjects.get(found.places[point.place].commit, ""),
            "started": found.places[point.place].times.run.started,
            "backend": timeline.backend,
        }
        for number, timeline in enumerate(found.timelines)
        for point in timeline.points
    ]


def _levels(found: History) -> Rows:
    """Levels between steps, each from its first place to its last: rows of the chart with an ``end``."""
    rows = []
    for number, timeline in enumerate(found.timelines):
        if not timeline.steps:
            continue
        numbers = [point.place for point in timeline.points]
        cuts = [0, *(numbers.index(step.place) for step in timeline.steps), len(numbers)]
        for first, last in pairwise(cuts):
            level = statistics.median(point.seconds for point in timeline.points[first:last])
            rows.append(
                {
                    "line": number,
                    "place": numbers[first],
                    "seconds": plain(level),
                    "low": None,
                    "high": None,
                    "end": numbers[last - 1],
                    "commit": "",
                    "subject": "",
                    "started": "",
                    "backend": timeline.backend,
                }
            )
    return rows


def _timelines(found: History) -> Rows:
    fields = ("cell", "phase", "dtype", "threads")
    return [
        {
            "line": number,
            "machine": found.series[one.series],
            "label": one.case.label(),
            **{name: getattr(one.case, name) for name in fields},
            "backend": one.backend,
            "runs": len(one.points),
            "seconds": plain(one.points[-1].seconds),
            "whole": plain(one.points[-1].seconds / one.points[0].seconds),
            "steps": ", ".join(f"{step.ratio:.3f} at {found.places[step.place].code}" for step in one.steps),
            "finding": "step" if one.steps else "no step" if one.judged else "too few runs",
            "failed": len(one.failed),
        }
        for number, one in enumerate(found.timelines)
    ]


# the chart


def _chart(found: History, backends: list[str]) -> Picture:
    """Times of the backends on one case and machine over the runs; the page picks the case."""
    axis = alt.Axis(labelExpr="places[datum.value]", labelAngle=-45, labelOverlap=True, labelLimit=110)
    x = alt.X("place:O", title=None, axis=axis)
    scale = alt.Scale(type="log", nice=False, padding=12)
    ticks = alt.Axis(labelExpr=DURATION, labelOverlap="greedy")
    y, low = (alt.Y(f"{name}:Q", title="time per call", scale=scale, axis=ticks) for name in ("seconds", "low"))
    domain = alt.Scale(domain=list(range(len(backends))))
    legend = alt.Legend(orient="top", labelExpr="backends[datum.value]")
    colour = alt.Color("backend_order:N", title=None, scale=domain, legend=legend)
    shape = alt.Shape("backend_order:N", title=None, scale=domain, legend=legend)
    tooltip = [alt.Tooltip(f"{name}:N") for name in ("backend", "commit", "subject", "started")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".4~g") for name in ("seconds", "low", "high")]
    base = alt.Chart().encode(x=x, color=colour)
    points = base.transform_filter("!isValid(datum.end)")
    chart = alt.layer(
        points.mark_rule(strokeWidth=1.2, opacity=0.6).encode(y=low, y2="high:Q"),
        points.mark_line(strokeWidth=1, opacity=0.45).encode(y=y),
        points.mark_point(filled=True, size=45, opacity=1).encode(y=y, shape=shape, tooltip=tooltip),
        base.transform_filter("isValid(datum.end)").mark_rule(strokeWidth=3).encode(x2="end:O", y=y),
        width=560,
        height=320,
        data=alt.NamedData("points"),
    ).add_params(alt.param(name="places", value=[place.code for place in found.places]), lookup("backends", backends))
    caption = (
        "Each point is one run, with the interval over its rounds. Thick lines are the levels between steps. "
        f"{'Commits are in the order of the repository' if found.by_commit else 'Runs are ordered by date'}; "
        "the time axis is logarithmic."
    )
    return Picture("timeline", "Time over commits", caption, "points", chart)
