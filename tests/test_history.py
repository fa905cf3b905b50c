"""History: steps that are there are found and others are not, in the order of commits, apart for each machine.

About 12 s, half of it in a browser; those tests are skipped without playwright or Chromium.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import stored_results
from helpers.browser import Opened
from helpers.synthetic_results import HOSTILE
from scipy import stats

from rnnbench.errors import ArgumentError
from rnnbench.reports import write_history
from rnnbench.reports.history import commit_steps, failing_sentences, order_sentence, render, short_sentence
from rnnbench.reports.steps import MIN_POINTS, find_steps
from rnnbench.reports.timelines import History, history
from rnnbench.results.rows import Failure
from rnnbench.suite.case import Case

CASE = Case("lstm", "step", 16, 8, 64, 32)
OTHER = Case("gru", "step", 16, 8, 64, 32)
NOISE = 0.005
"""Standard deviation of a run's time, as a logarithm."""


def noisy(levels: Sequence[float], seed: int = 0, noise: float = NOISE) -> np.ndarray:
    return np.array(levels) * np.random.default_rng(seed).lognormal(0, noise, len(levels))


# steps


def test_a_step_is_found_where_it_is_with_its_size() -> None:
    (step,) = find_steps(noisy([1.0] * 7 + [1.1] * 5))
    assert step.place == 7
    assert step.low <= 1.1 <= step.high
    assert step.ratio == pytest.approx(1.1, abs=4 * NOISE)
    assert step.coverage > 0.95  # 12 places of 5 and 7: the Mann-Whitney test leaves less than 5%


def test_each_of_several_steps_is_found() -> None:
    levels = [1.0] * 8 + [1.2] * 8 + [0.9] * 8
    assert [step.place for step in find_steps(noisy(levels))] == [8, 16]
    (up, down) = (step.ratio for step in find_steps(noisy(levels, noise=1e-9)))
    assert (up, down) == pytest.approx((1.2, 0.75))


@pytest.mark.parametrize(("runs", "timelines"), [(MIN_POINTS, 1500), (MIN_POINTS + 1, 1500), (20, 400)])
def test_of_a_hundred_timelines_without_a_step_about_one_shows_one(runs: int, timelines: int) -> None:
    """Noise of 10%, so that the band of 2% does not help.  Had one in 40 a step, so few found would be unlikely (5%)."""
    random = np.random.default_rng(runs)
    found = sum(bool(find_steps(random.lognormal(0, 0.1, runs))) for _ in range(timelines))
    assert found <= stats.binom.ppf(0.05, timelines, 1 / 40)


def test_times_that_differ_by_less_than_2_percent_or_not_at_all_have_no_step() -> None:
    assert find_steps([1.0] * 12) == []
    assert find_steps([1.0] * 6 + [1.015] * 6) == []
    assert len(find_steps([1.0] * 6 + [1.025] * 6)) == 1


def test_one_noisy_run_is_no_step() -> None:
    assert find_steps(noisy([1.0] * 6 + [3.0] + [1.0] * 6)) == []


def test_fewer_runs_than_a_step_needs_have_none() -> None:
    assert find_steps([1.0, 1.0, 2.0, 2.0, 2.0]) == []
    assert len(find_steps([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])) == 1


# runs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for results, and no git repository around it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def a_run(folder: Path, number: int, times: dict, others: tuple = (), **options: Any) -> Path:
    """The run of day ``number``, of commit ``number`` unless told otherwise, five rounds of each time."""
    rounds = {key: noisy([seconds] * 5, number, 1e-3).tolist() for key, seconds in times.items()}
    started = f"2026-01-{number + 1:02}T00:00:00+00:00"
    options = {"commit": f"{number:040x}", "machine": "some-2c", "started": started} | options
    name = f"{number:02}-{options['machine'][:9]}.jsonl".replace("/", "")
    return stored_results.write(folder / name, rounds, others, **options)


def stepped(folder: Path, levels: Sequence[float], **options: Any) -> list[Path]:
    return [a_run(folder, number, {("x", CASE): level}, **options) for number, level in enumerate(noisy(levels))]


def test_a_step_is_told_with_its_commit_size_interval_and_runs(folder: Path) -> None:
    found = history(stepped(folder, [1.0] * 5 + [1.2] * 4))
    (at,) = commit_steps(found)
    assert (at.code, at.subject, at.link) == (f"{5:040x}"[:10], "", None)
    assert at.text.startswith("slower in 1 of 1 timeline, of x, 1.")
    (said,) = at.details
    assert said.startswith("lstm step T16 B8 I64 H32, x: slower, 1.")
    assert said.endswith("; 5 runs before it, 4 since).")
    assert " times the time before (from 1." in said
    assert at.causes == [f"The run before it is of {4:040x}."[:-31] + "."]


def test_few_runs_are_said_to_be_too_few_to_judge(folder: Path) -> None:
    found = history(stepped(folder, [1.0, 1.0, 2.0, 2.0, 2.0]))
    assert commit_steps(found) == []
    assert short_sentence(found) == ("1 of 1 timeline has too few runs to judge: at most 5; telling a step from noise takes 6.")


def test_other_machines_and_inputs_have_timelines_of_their_own(folder: Path) -> None:
    files = stepped(folder, [1.0] * 4)
    files += [a_run(folder, number, {("x", CASE): 0.5}, machine="other-8c") for number in range(4, 8)]
    files += [a_run(folder, number, {("x", CASE): 2.0}, settings={"input": "noise"}) for number in range(8, 10)]
    found = history(files)
    assert [(found.series[one.series], len(one.points)) for one in found.timelines] == [
        ("some-2c, input None", 4),
        ("other-8c", 4),
        ("some-2c, input noise", 2),
    ]
    assert commit_steps(found) == []  # mixed, they would have two


def test_what_else_changed_where_a_step_is_is_told(folder: Path) -> None:
    files = stepped(folder, [1.0] * 4, environment={"versions": {"numba": "0.61"}}, settings={"samples": 3, "rounds": 5})
    files += [
        a_run(folder, number, {("x", CASE): 1.3}, environment={"versions": {"numba": "0.62"}}, settings={"samples": 5})
        for number in range(4, 8)
    ]
    (at,) = commit_steps(history(files))
    assert at.causes[1] == "Also changed there: numba from 0.61 to 0.62; setting samples from 3 to 5."


def test_a_step_within_one_commit_is_not_laid_on_it(folder: Path) -> None:
    files = [a_run(folder, number, {("x", CASE): 1.0}, commit="a" * 40) for number in range(4)]
    files += [a_run(folder, number, {("x", CASE): 1.3}, commit="a" * 40) for number in range(4, 8)]
    files += [a_run(folder, 8, {("x", CASE): 1.3}, commit="b" * 40)]
    (at,) = commit_steps(history(files))
    assert at.causes == ["The run before it is of the same commit."]


def test_a_run_of_two_commits_counts_for_both_and_a_twin_for_none(folder: Path) -> None:
    names = {"x@one": {"runs": "x", "commit": "1" * 40}, "x@two": {"runs": "x", "commit": "2" * 40}}
    twin = {"x again": {"runs": "x", "slowed_by_percent": 0.0}}
    files = [
        a_run(folder, 1, {("x@one", CASE): 1.0, ("x@two", CASE): 2.0}, about=names),
        a_run(folder, 3, {("x", CASE): 3.0, ("x again", CASE): 9.0}, about=twin, commit="3" * 40),
    ]
    found = history(files)
    (timeline,) = found.timelines
    assert [(found.places[point.place].commit[0], round(point.seconds)) for point in timeline.points] == [
        ("1", 1),
        ("2", 2),
        ("3", 3),
    ]
    assert found.left_out == ["03-some-2c.jsonl: x again, a second measurement of x"]


def test_a_case_that_fails_now_and_was_timed_before_is_told(folder: Path) -> None:
    crashed = Failure(CASE, "x", "time", "crashed", "killed")
    files = [a_run(folder, 0, {("x", CASE): 1.0}), a_run(folder, 1, {("x", OTHER): 1.0}, (crashed,))]
    assert failing_sentences(history(files)) == ["lstm step T16 B8 I64 H32, x: crashed (killed) in 0000000000."]
    assert failing_sentences(history([*files[::-1], a_run(folder, 2, {("x", CASE): 1.0})])) == []


# commits


@pytest.fixture
def commits(folder: Path) -> list[str]:
    """Eight commits of a git repository in the current folder, oldest first."""

    def git(*arguments: str) -> str:
        facts = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *facts, *arguments], capture_output=True, check=True, text=True).stdout.strip()

    git("init", "-q")
    found = []
    for number in range(8):
        git("commit", "-q", "--allow-empty", "-m", f"Change {number} {HOSTILE if number == 5 else ''}")
        found.append(git("rev-parse", "HEAD"))
    return found


def backfilled(folder: Path, commits: list[str], skip: Sequence[int] = ()) -> History:
    """The newest commit was measured first; slower from the sixth commit on."""
    levels = noisy([1.0] * 5 + [1.2] * 3)
    return history(
        [
            a_run(folder, 20 - number, {("x", CASE): levels[number]}, commit=commit)
            for number, commit in enumerate(commits)
            if number not in skip
        ]
    )


def test_commits_stand_in_the_order_of_the_repository_with_their_subjects(folder: Path, commits: list[str]) -> None:
    found = backfilled(folder, commits)
    assert found.by_commit
    assert [place.commit for place in found.places] == commits
    (at,) = commit_steps(found, "https://example.org/x/")
    assert (at.code, at.link) == (commits[5][:10], f"https://example.org/x/commit/{commits[5]}")
    assert at.subject.startswith("Change 5 ")
    assert order_sentence(found) == "Commits are in the order of the git repository in this folder."
    html = render(found)
    assert "&lt;img src=x" in html
    assert "<img src=x" not in html


def test_commits_that_were_not_measured_are_counted_as_possible_causes(folder: Path, commits: list[str]) -> None:
    (at,) = commit_steps(backfilled(folder, commits, skip=[1, 5]), None) or [None]
    assert at is None  # 4 runs and 2: too few
    found = backfilled(folder / "again", commits, skip=[4])
    (at,) = commit_steps(found)
    assert at.causes == [f"The run before it is of {commits[3][:10]}: any of the 2 commits since may be the cause."]


def test_without_the_repository_runs_stand_by_date_and_this_is_said(folder: Path) -> None:
    found = backfilled(folder, [f"{number:040x}" for number in range(8)])
    assert not found.by_commit
    assert [place.commit[-1] for place in found.places] == list("76543210")
    assert order_sentence(found).startswith("Runs are ordered by date: ")


def test_only_hashes_are_handed_to_git_and_linked(folder: Path, commits: list[str]) -> None:
    option = f"--output={folder / 'written'}"
    found = history([a_run(folder, n, {("x", CASE): 1.0 + (n > 3)}, commit=commits[n] if n < 4 else option) for n in range(8)])
    (at,) = commit_steps(found, "https://example.org")
    assert at.link is None
    assert not (folder / "written").exists()


# the command


def test_a_folder_gives_one_page_and_its_path(command, folder: Path) -> None:
    stepped(folder, [1.0] * 3)
    assert command("report", "--history", folder) == (0, "report.html\n", "")
    html = Path("report.html").read_text(encoding="utf-8")
    assert "history of 3 commits" in html
    assert "1 of 1 timeline has too few runs to judge" in html
    assert "No step was found" not in html


@pytest.mark.parametrize(
    ("commits", "arguments", "said"),
    [
        ("aa", "--history results", "2 results files given, all of commit aaaaaaaaaa; expected runs of two commits or more"),
        ("--", "--history results", "2 results files given, none of them of a known commit; expected runs of two commits"),
        ("ab", "--history", "expected either a results file or --asv DIR"),
        ("ab", "--history --asv results", "--history is True with --asv; expected none"),
        ("ab", "--history results --repository javascript:0", "repository is 'javascript:0'; expected an address that"),
    ],
)
def test_a_slip_is_one_line_and_exit_code_2(command, folder: Path, commits: str, arguments: str, said: str) -> None:
    for number, commit in enumerate(commits):
        a_run(folder, number, {("x", CASE): 1.0}, commit=None if commit == "-" else commit * 40)
    code, out, err = command("report", *arguments.split())
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_runs_without_a_time_are_refused(folder: Path) -> None:
    with pytest.raises(ArgumentError, match="2 results files given, none with a time that counts"):
        history([a_run(folder, number, {("x", CASE): -1.0}) for number in range(2)])


def test_without_ruptures_the_command_says_what_to_install(command, folder: Path, monkeypatch) -> None:
    stepped(folder, [1.0] * 3)
    monkeypatch.setitem(sys.modules, "ruptures", None)
    code, out, err = command("report", "--history", folder)
    assert (code, out) == (4, "")
    assert (
        err
        == "rnnbench: a history needs ruptures, for Python below 3.14: pip install -e '.[report]' in the checkout of rnnbench\n"
    )


# the page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two machines, two backends and cases, one of each with a hostile name; a step on one of them."""
    folder = tmp_path_factory.mktemp("results")
    hostile = Case(HOSTILE, "step", 16, 8, 64, 32)
    for number, level in enumerate(noisy([1.0] * 5 + [1.2] * 4)):
        a_run(folder, number, {("x", CASE): level, (HOSTILE, CASE): 1.0, ("x", hostile): 1.0})
    for number in range(9, 12):
        a_run(folder, number, {("x", CASE): 0.1}, machine=HOSTILE, commit=HOSTILE)
    return write_history([folder], folder / "page.html")


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 400)])
def test_the_page_draws_filters_and_shows_a_timeline_in_silence(browser: Any, page: Path, theme: str, width: int) -> None:
    with Opened(browser, page, width=width, theme=theme) as opened:
        assert opened.page.locator("h3 code").first.inner_text() == f"{5:040x}"[:10]
        assert opened.marks(".mark-symbol") == 9 + 9  # the case with the step, of both backends
        levels = 2
        assert opened.marks(".mark-rule") == 9 + 9 + levels
        opened.pick("backend", HOSTILE)
        assert opened.marks(".mark-symbol") == 9
        opened.pick("backend", "")
        opened.page.fill("#find", "too few")
        assert opened.column("runs") == ["3"]
        opened.page.locator("#table tbody button").focus()
        opened.page.keyboard.press("Enter")
        opened.wait()
        assert opened.marks(".mark-symbol") == 3
        opened.page.fill("#find", "")
        opened.page.locator("#table thead button", has_text="runs").click()
        assert opened.column("runs") == ["3", "9", "9", "9"]
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.page.locator("img").count() == 0
        assert opened.nameless_controls() == 0
        assert opened.complaints == []
        assert opened.requests == [page.as_uri()]
