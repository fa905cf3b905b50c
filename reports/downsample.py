"""Selection of cases for the page of a run that has more results than a browser opens comfortably."""

from rnnbench.reports.frames import Frames
from rnnbench.reports.sweeps import Sweeps

MAX_POINTS = 40_000
"""Maximum number of results and pairwise comparisons on one page, about 35 bytes each."""

WORST = 100
"""Number of cases with the largest errors over tolerance that are always kept."""


def downsampled(data: Frames, groups: Sweeps, most: int = MAX_POINTS) -> Frames:
    """Frames with at most ``most`` results and comparisons; unchanged where they already fit.

    Keeps the cases with the largest errors, then whole sweeps: the largest sweep of each chart first, then the next.
    """
    size = len(data.summary) + len(data.pairs)
    if size <= most:
        return data
    number = most * len(data.cases) // size
    kept = set(_by_priority(data, groups)[:number])
    return data.where("case", kept)


def _by_priority(data: Frames, groups: Sweeps) -> list[str]:
    """All cases, most important first."""
    errors = data.gates.sort_values("error_over_tolerance", ascending=False, na_position="first", kind="stable")
    ordered = dict.fromkeys(errors["case"].drop_duplicates()[:WORST])
    members: dict[tuple[int, str], list[str]] = {}
    for picture, index in groups.index.items():
        for case, number in index.items():
            members.setdefault((number, picture), []).append(case)
    for number in range(max((number for number, _ in members), default=-1) + 1):
        for picture in groups.index:
            ordered |= dict.fromkeys(members.get((number, picture), []))
    return list(ordered | dict.fromkeys(data.cases["case"]))
