"""Published figures: each is sound and traceable, stands beside the same shape alone, and is in no ratio.

About 5 s, most of it imports and two pages.
"""

import json
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from rnnbench.reports import beside_published, page, published_figures, to_json, to_markdown, to_pandas
from rnnbench.reports.published import SHAPE
from rnnbench.results.rows import Failure, Run, Time
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case
from rnnbench.suite.estimate import estimate
from rnnbench.suite.suite import load_suite, suite_names

GLAMPLE = Case("lstm", "step", 30, 32, 512, 512)


def written(folder: Path, cases: list[Case], *rows: Failure) -> Path:
    """Two backends that time every case but those with a failure: ``slow`` takes 2 s a call, ``quick`` 1 s."""
    path = folder / "own.jsonl"
    failed = {(row.case, row.backend) for row in rows}
    with Writer(path) as writer:
        writer.append(Run("r", "2025-01-01", "own", ["rnnbench"], {}, {"machine": "m"}, {"slow": {}, "quick": {}}, cases))
        for row in rows:
            writer.append(row)
        for case in cases:
            for number in range(12):
                for name, seconds in (("slow", 2.0), ("quick", 1.0)):
                    if (case, name) not in failed:
                        writer.append(Time(case, name, number, 0, 1, [seconds]))
    return path


def cases_of_figures() -> list[Case]:
    rows = published_figures()[[*SHAPE, "dtype"]].to_dict("records")
    return [msgspec.convert({**row, "dtype": "float32"}, Case) for row in rows]


def test_every_figure_is_of_a_network_that_exists_and_says_where_it_is_from() -> None:
    figures = published_figures()
    assert len(figures) > 100
    assert all(case.spec() for case in cases_of_figures())
    assert set(figures["dtype"]) <= {"float32", "float16"}
    for name in ("source", "hardware", "library", "dtype"):
        assert figures[name].str.strip().ne("").all(), name
    assert (
        figures["url"].str.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(blob/[0-9a-f]{40}/\S+|pull/\d+|issues/\d+)").all()
    )
    assert not figures.duplicated(["source", "hardware", "library", *SHAPE, "dtype"]).any()


def test_no_figure_has_slipped_by_its_unit() -> None:
    """A wrong prefix is a factor of 1000; on one machine small shapes and slow libraries are within 100 of the median.

    All lie between the slowest told (1.7e8 operations a second) and a V100's peak in float16 (1.25e14, NVIDIA's data sheet).
    """
    figures = published_figures()
    speeds = pd.Series([estimate(case).flops for case in cases_of_figures()], index=figures.index) / figures["seconds"]
    assert speeds.between(1e8, 1.25e14).all()
    ratios = speeds / speeds.groupby(figures["hardware"]).transform("median")
    assert ratios.between(0.01, 100).all()


def test_training_takes_longer_than_inference_in_every_source() -> None:
    figures = published_figures()
    key = ["source", "hardware", "library", "version", "dtype", *(name for name in SHAPE if name != "phase")]
    both = figures.pivot(index=key, columns="phase", values="seconds").dropna()
    assert len(both) > 30
    assert (both["step"] > both["forward"]).all()


@pytest.mark.parametrize(
    ("case", "library", "seconds"),
    [
        (Case("gru", "step", 1500, 32, 2816, 2816), "cuDNN", [0.38004, 1.79075]),
        (Case("lstm", "step", 25, 128, 1024, 1024), "cuDNN", [0.00556, 0.00976]),
        (Case("lstm", "forward", 30, 128, 1024, 1024), "Torch", [112.4e-6 * 128]),
        (Case("lstm", "step", 200, 128, 512, 512, layers=3), "Theano, cuDNN", [1436.3e-6 * 128]),
        (Case("lstm", "forward", 2000, 8, 256, 256, layers=2), "PyTorch nn.LSTM", [0.75, 200.0]),
        (Case("gru", "step", 300, 20, 800, 800), "MXNet fused GRU", [0.106]),
        (Case("lstm", "step", 1000, 25, 123, 320, layers=4, bidirectional=True), "PyTorch cuDNN", [1.05]),
    ],
)
def test_figures_are_those_of_their_sources(case: Case, library: str, seconds: list[float]) -> None:
    figures = published_figures()
    wanted = msgspec.structs.asdict(case)
    same = figures[(figures[SHAPE] == [wanted[name] for name in SHAPE]).all(axis=1) & (figures["library"] == library)]
    assert sorted(same["seconds"]) == pytest.approx(seconds, rel=1e-5)  # the file has six digits


def test_every_public_suite_with_figures_holds_their_shapes() -> None:
    shapes = {tuple(msgspec.structs.asdict(case)[name] for name in SHAPE) for case in cases_of_figures()}
    holding = {
        name
        for name in suite_names()
        if any(tuple(msgspec.structs.asdict(case)[field] for field in SHAPE) in shapes for case in load_suite(name).cases)
    }
    assert holding >= {"deepbench-train", "deepbench-infer", "glample", "fastrnns", "issue-81634", "pytorch-cpu"}


def test_a_figure_stands_beside_exactly_the_same_shape(tmp_path: Path) -> None:
    others = [
        msgspec.structs.replace(GLAMPLE, **{field: value})
        for field, value in {"T": 31, "B": 33, "I": 511, "H": 511, "layers": 2, "bidirectional": True, "bias": False}.items()
    ]
    tbptt = msgspec.structs.replace(GLAMPLE, phase="tbptt", window=30)
    shown = beside_published(to_pandas(written(tmp_path, [GLAMPLE, *others, tbptt])))
    assert set(shown["label"]) == {GLAMPLE.label()}
    assert set(shown["library"]) == {"Theano", "Torch", "TensorFlow", "Theano, cuDNN"}
    assert set(shown["own_backend"]) == {"quick"}
    assert set(shown["own_seconds"]) == {1.0}


def test_other_dtypes_and_threads_are_shown_each_and_a_case_without_a_time_is_not(tmp_path: Path) -> None:
    double = msgspec.structs.replace(GLAMPLE, dtype="float64", threads=2)
    failed = msgspec.structs.replace(GLAMPLE, phase="forward")
    failures = [Failure(failed, name, "time", "timeout", "too slow") for name in ("slow", "quick")]
    data = to_pandas(written(tmp_path, [GLAMPLE, double, failed], *failures))
    assert set(beside_published(data)["label"]) == {GLAMPLE.label(), double.label()}


def test_the_page_shows_them_with_their_source_and_is_otherwise_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = to_pandas(written(tmp_path, [GLAMPLE]))
    shown = page.render(data)
    monkeypatch.setattr(page, "published_rows", lambda _: [])
    without = page.render(data)
    start = shown.index('<section aria-labelledby="published">')
    end = shown.index("</section>", start) + len("</section>")
    section = shown[start:end]
    assert "".join((shown[:start] + shown[end:]).split()) == "".join(without.split())
    assert 'href="https://github.com/nicholas-leonard/rnn-benchmarks/blob/' in section
    assert "19.5 ms" in section  # 610.7 microseconds per sequence, 32 of them
    assert "quick, 1 s" in section
    assert "no ratio on this page uses them" in section
    (line, *_) = [line for line in to_markdown(data).splitlines() if "| Torch |" in line]
    assert line.startswith("| lstm step T30 B32 I512 H512 | quick, 1 s | 19.5 ms |")
    assert len(json.loads(to_json(data))["published"]) == len(beside_published(data)) == 5  # of two sources
