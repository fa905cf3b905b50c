"""The report of asv's results: what each value is, what a commit changed, and charts of both.  About 3 s."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from rnnbench.cli.main import main
from rnnbench.errors import StoreError
from rnnbench.reports import read_asv, write_asv_html
from rnnbench.reports.asv import changes

BACKENDS, STEPS = ["'numba_cpu'", "'torch_nn'"], ["16", "64"]
STEP, START = "sequence_length.SequenceLength.time_step", "start_up.StartUp.timeraw_import"


@pytest.fixture(autouse=True)
def no_libraries(monkeypatch):
    """The page without what draws it, which takes 2 s to bundle and which nothing here runs."""
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda _: "")


def write(folder: Path, commit: str, values: dict[str, list], *, day: int = 1, machine: str = "m", width: float = 0.01) -> None:
    """Results as asv writes them; each interval reaches ``width`` of the value to both sides."""
    results: dict[str, Any] = {}
    for name, numbers in values.items():
        params = [BACKENDS, STEPS] if name == STEP else [BACKENDS]
        low, high = ([value and value * (1 + sign * width) for value in numbers] for sign in (-1, 1))
        results[name] = [numbers, params, low, high]
    columns = ["result", "params", "stats_ci_99_a", "stats_ci_99_b"]
    content = {"commit_hash": commit * 40, "date": day * 86_400_000, "env_name": "env", "result_columns": columns}
    (folder / machine).mkdir(exist_ok=True)
    (folder / machine / f"{commit * 8}-env.json").write_text(json.dumps(content | {"version": 2, "results": results}))
    about = {STEP: (["backend", "T"], "seconds"), START: (["backend"], "seconds")}
    described = {name: {"param_names": names, "unit": unit} for name, (names, unit) in about.items()}
    (folder / "benchmarks.json").write_text(json.dumps(described | {"version": 2}))


def test_each_value_has_a_state_a_unit_and_named_parameters(tmp_path):
    write(tmp_path, "a", {STEP: [1.0, None, math.nan, 4.0]})
    frame = read_asv(tmp_path)
    assert frame["state"].tolist() == ["measured", "failed", "n/a", "measured"]
    assert set(frame["unit"]) == {"seconds"}
    assert frame["names"].tolist() == [("backend", "T")] * 4
    assert frame["arguments"].tolist() == [(backend, steps) for backend in BACKENDS for steps in STEPS]


def test_results_without_a_description_are_read(tmp_path):
    write(tmp_path, "a", {STEP: [1.0] * 4})
    (tmp_path / "benchmarks.json").unlink()
    frame = read_asv(tmp_path)
    assert (set(frame["unit"]), set(frame["names"])) == ({""}, {()})


@pytest.mark.parametrize("content", ["[", "[]", '{"a": 1}'])
def test_a_description_that_does_not_read_is_refused(tmp_path, content):
    write(tmp_path, "a", {STEP: [1.0] * 4})
    (tmp_path / "benchmarks.json").write_text(content)
    with pytest.raises(StoreError, match="describes no benchmarks of asv"):
        read_asv(tmp_path)


def test_a_change_is_one_where_the_intervals_do_not_meet(tmp_path):
    write(tmp_path, "b", {STEP: [1.0, 1.0, 1.0, None]}, day=1)
    write(tmp_path, "a", {STEP: [1.5, 0.5, 1.015, 1.0]}, day=2)
    frame = changes(read_asv(tmp_path)).sort_values("date", kind="stable")
    assert frame["ratio"].tolist() == pytest.approx([*[math.nan] * 4, 1.5, 0.5, 1.015, math.nan], nan_ok=True)
    assert frame["change"].tolist() == [*[None] * 4, "worse", "better", "unclear", None]


def test_a_value_is_compared_with_the_same_machine_alone(tmp_path):
    write(tmp_path, "a", {STEP: [1.0] * 4}, day=1, machine="m")
    write(tmp_path, "b", {STEP: [9.0] * 4}, day=2, machine="other")
    write(tmp_path, "c", {STEP: [2.0] * 4}, day=3, machine="m")
    frame = changes(read_asv(tmp_path))
    assert frame.loc[frame["commit"] == "c" * 40, "ratio"].tolist() == [2.0] * 4
    assert frame.loc[frame["machine"] == "other", "ratio"].isna().all()


def test_without_intervals_no_change_is_known(tmp_path):
    write(tmp_path, "a", {STEP: [1.0] * 4}, day=1, width=math.inf)
    write(tmp_path, "b", {STEP: [2.0] * 4}, day=2, width=math.inf)
    frame = changes(read_asv(tmp_path))
    assert frame["change"].tolist() == [None] * 8
    text = write_asv_html(tmp_path, tmp_path / "asv.html").read_text("utf-8")
    assert "Commit bbbbbbbb: 4 values to compare with the commit before, none of them with an interval" in text


def payload(page: Path) -> dict[str, Any]:
    text = page.read_text("utf-8")
    return json.loads(text.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])


def rows(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The inverse of ``page.columns``."""
    stored = found["rows"][name]
    columns = {
        key: values if isinstance(values, list) else [values["names"][place] for place in values["index"]]
        for key, values in stored["columns"].items()
    }
    return [stored["same"] | {key: values[i] for key, values in columns.items()} for i in range(stored["length"])]


def test_the_page_draws_the_newest_commit_over_what_varies_and_all_over_commits(tmp_path, capsys):
    values = {STEP: [1.0, 2.0, 3.0, math.nan], START: [0.5, None]}
    write(tmp_path, "b", values, day=1)
    page = tmp_path / "asv.html"
    assert main(["report", "--asv", str(tmp_path), "-o", str(page)]) == 0
    assert list(payload(page)["charts"]) == ["asv_parameter"]
    assert "6 values of 1 commit, 1 failed, 1 not available here, from m" in page.read_text("utf-8")

    write(tmp_path, "a", {STEP: [1.5, 2.0, 1.0, math.nan]}, day=2)
    main(["report", "--asv", str(tmp_path), "-o", str(page)])
    found = payload(page)
    assert list(found["charts"]) == ["asv_parameter", "asv"]
    newest = [(row["commit"], row["series"], row["x"], row["value"]) for row in rows(found, "newest")]
    assert newest == [(8 * "a", "numba_cpu", 16, 1.5), (8 * "a", "numba_cpu", 64, 2.0), (8 * "a", "torch_nn", 16, 1.0)]
    assert {row["params"] for row in rows(found, "asv")} >= {"backend numba_cpu, T 16", "backend torch_nn"}
    changed = "of 3 values with intervals: 1 worse than at the commit before, 1 better, 1 unclear."
    assert f"Commit aaaaaaaa, {changed}" in page.read_text("utf-8")
    for name, dataset, marks in (("asv_parameter", "newest", 3), ("asv", "asv", 4 + 3)):
        chart = found["charts"][name]
        assert chart["dataset"] == dataset
        drawn = vl_convert.vegalite_to_svg(chart["spec"] | {"datasets": {dataset: rows(found, dataset)}})
        points = drawn.split('class="mark-symbol role-mark')[1:]
        assert sum(part.partition("</g>")[0].count("<path") for part in points) == marks
