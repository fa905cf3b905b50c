"""rnnbench versus: numbers against hand-computed ones, and nothing left out in silence.  About 3 s."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from helpers import synthetic_results

from rnnbench.cli.main import main
from rnnbench.errors import ArgumentError
from rnnbench.machine.snapshot import Machine, Roof, Roofs, write_machine
from rnnbench.reports import bar_points, bar_table, bar_text, to_pandas
from rnnbench.reports.frames import Frames
from rnnbench.results.rows import Failure, Gate, Run, Time
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

SMALL, LARGE, LARGER = (Case("lstm", "step", 32, B, H, H) for B, H in ((1, 32), (32, 256), (64, 512)))
ROUNDS = 6


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_results.write(tmp_path_factory.mktemp("results") / "grid.jsonl", hostile=False)


@pytest.fixture
def frames(tmp_path: Path):
    """Make frames from seconds by case and backend, and further rows."""

    def frames(seconds: dict[Case, dict[str, float]], rows: Sequence = (), cases: Sequence[Case] = ()) -> Frames:
        names = dict.fromkeys(name for found in seconds.values() for name in found)
        info = {name: {"device": "cpu"} for name in names}
        with Writer(tmp_path / "own.jsonl") as writer:
            writer.append(Run("r", "2025-01-01T00:00:00Z", "own", [], {}, {}, info, [*seconds, *cases]))
            for case, found in seconds.items():
                for name, one in found.items():
                    for number in range(ROUNDS):
                        drift = 1 + number / 10  # of the machine: the same for all backends of a round
                        writer.append(Time(case, name, number, 0, 1, [one * drift]))
            for row in rows:
                writer.append(row)
        return to_pandas(tmp_path / "own.jsonl")

    return frames


def test_each_point_is_judged_against_its_fastest_peer(frames):
    data = frames({SMALL: {"mine": 1.0, "a": 2.0, "b": 4.0}, LARGE: {"mine": 1.0, "a": 3.0, "b": 0.5}})
    points = bar_points(data, "mine")
    assert list(points["peer"]) == ["a", "b"]
    assert list(points["peers"]) == [2, 2]
    assert list(points["ratio"]) == pytest.approx([2.0, 0.5])
    assert list(points["verdict"]) == ["faster", "slower"]
    (row,) = bar_table(points).to_dict("records")
    assert (row["cell"], row["phase"], row["threads"]) == ("lstm", "step", 1)
    assert (row["points"], row["missing"], row["fewest_peers"], row["below"], row["slower"]) == (2, 0, 2, 1, 1)
    assert (row["worst"], row["worst_peer"]) == (pytest.approx(0.5), "b")
    assert row["worst_at"] == "T32 B32 I256 H256"
    assert row["geometric_mean"] == pytest.approx(1.0)
    assert list(bar_points(data, "mine", ["a"])["ratio"]) == pytest.approx([2.0, 3.0])


def test_cells_phases_and_threads_have_rows_of_their_own(frames):
    cases = [
        Case(cell, phase, 4, 2, 3, 5, threads=n) for cell in ("gru", "lstm") for phase in ("step", "forward") for n in (1, 2)
    ]
    table = bar_table(bar_points(frames({case: {"mine": 1.0, "a": 2.0} for case in cases}), "mine"))
    found = list(table[["cell", "phase", "dtype", "threads"]].itertuples(index=False, name=None))
    assert found == [(case.cell, case.phase, case.dtype, case.threads) for case in cases]


def test_the_part_of_the_roof_uses_the_counts_of_spec_and_the_roof_of_its_threads(frames):
    wide = Case("lstm", "step", 32, 32, 256, 256, threads=2)
    cases = (SMALL, LARGE, LARGER, wide)
    data = frames({case: {"mine": 1.0, "a": 2.0} for case in cases})
    seconds = float(np.median([1 + number / 10 for number in range(ROUNDS)]))
    flops = {case: 3 * 8 * case.B * case.T * case.H * (case.I + case.H) for case in cases}
    peaks = bar_points(data, "mine", roofs={("float32", 1): 50.0})["peak"]
    assert list(peaks[:3]) == pytest.approx([flops[case] / seconds / 50e9 for case in cases[:3]])
    assert np.isnan(peaks[3])
    one, two = bar_table(bar_points(data, "mine", roofs={("float32", 1): 50.0})).to_dict("records")
    assert one["peak_best"] == pytest.approx(flops[LARGER] / seconds / 50e9)
    assert one["peak_large"] == pytest.approx(flops[LARGE] / seconds / 50e9)  # SMALL is less, but no large case
    assert one["peak_large_at"] == "T32 B32 I256 H256"
    assert np.isnan(two["peak_best"])
    assert "peak" in bar_text(data, "mine", roofs={("float32", 1): 50.0})
    assert "peak" not in bar_text(data, "mine")


def test_the_command_takes_the_roofs_that_were_stored_beside_the_results(synthetic, capsys):
    roof = Roof("float32", 1, best=60e9, median=59e9, repeats=5)
    roofs = Roofs("AVX2", [roof], [], [], Roof("empty call", 1, 1e-7, 1e-7, 5), 1e-9, [])
    write_machine(Machine("2026-01-02T03:04:05+00:00", {}, None, None, [], [], roofs), synthetic.parent)
    assert main(["versus", str(synthetic)]) == 0
    stored = capsys.readouterr().out
    assert main(["versus", str(synthetic), "--roof", "1=60"]) == 0
    assert capsys.readouterr().out == stored
    assert "peak" in stored


def test_dtypes_are_judged_apart(frames):
    narrow = msgspec.structs.replace(LARGE, dtype="bfloat16")
    data = frames({LARGE: {"mine": 1.0, "a": 2.0}, narrow: {"mine": 1.0, "a": 4.0}})
    rows = bar_table(bar_points(data, "mine")).to_dict("records")
    assert [(row["dtype"], row["points"]) for row in rows] == [("float32", 1), ("bfloat16", 1)]
    assert [row["worst"] for row in rows] == pytest.approx([2.0, 4.0])


def test_what_did_not_complete_is_counted_and_what_is_wrong_does_not_count(frames):
    rows = [
        Gate(LARGE, "a", False, {"y": (1.0, 0.1)}, 0.1),
        Failure(LARGE, "a", "gate", "wrong", "y: error 1"),
        Failure(LARGER, "mine", "time", "timeout", "no answer"),
    ]
    data = frames(
        {
            SMALL: {"mine": 1.0, "a": 2.0, "b": 8.0},
            LARGE: {"mine": 1.0, "a": 0.1, "b": 4.0},
            LARGER: {"mine": 1.0, "a": 2.0, "b": 2.0},
        },
        rows,
        cases=[Case("lstm", "step", 1, 1, 1, 1)],
    )
    points = bar_points(data, "mine")
    assert list(points["ratio"][:2]) == pytest.approx([2.0, 4.0])
    assert points["ratio"][2:].isna().all()
    (row,) = bar_table(points).to_dict("records")
    assert (row["points"], row["missing"], row["fewest_peers"], row["below"]) == (2, 2, 1, 0)


def test_a_group_without_any_ratio_is_shown_as_one(frames):
    data = frames({SMALL: {"mine": 1.0}, LARGE: {"a": 1.0}})
    (row,) = bar_table(bar_points(data, "mine")).to_dict("records")
    assert (row["points"], row["missing"], row["below"], row["worst_at"]) == (0, 2, 0, None)
    assert bar_text(data, "mine").splitlines()[-1].split() == ["lstm", "step", "float32", "1", "0", "2", "0", "0", "0", *"----"]


@pytest.mark.parametrize(("backend", "peers"), [("nobody", None), ("a", ["nobody"]), ("a", ["a"]), ("a", [])])
def test_unknown_names_are_refused(frames, backend, peers):
    with pytest.raises(ArgumentError, match=r"this run has mine, a$|expected one or more backends other than a$"):
        bar_points(frames({SMALL: {"mine": 1.0, "a": 2.0}}), backend, peers)


def test_the_command_prints_a_line_for_each_cell_and_phase(synthetic, capsys):
    assert main(["versus", str(synthetic), "--roof", "1=60", "--peers", "torch_nn,torch_eager"]) == 0
    head, names, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("numba_cpu against the best of torch_nn, torch_eager at each point")
    assert names.split()[:4] == ["cell", "phase", "dtype", "threads"]
    assert len(lines) == len(synthetic_results.CELLS) * 3
    # numba_cpu has 0.62 of 45 GFLOP/s where H = 256, torch_nn 40: 0.70 and the noise of 1%
    worst = [float(line.split()[9]) for line in lines if "I64 H256" in line]
    assert len(worst) == 6
    assert all(0.65 < ratio < 0.78 for ratio in worst)


@pytest.mark.parametrize("roof", ["1", "x=1", "1=x", "0=5", "1=-5", "1=nan"])
def test_a_roof_that_is_none_is_refused(synthetic, capsys, roof):
    assert main(["versus", str(synthetic), "--roof", roof]) == 2
    assert "--roof" in capsys.readouterr().err
