"""Sequences of different lengths: each row is what it is alone; suites, keys and reports tell such cases apart.  Takes 6 s."""

import json
import re
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers.exported_run import RUN, A, store, time

import rnnbench
from rnnbench import ArgumentError, SuiteError
from rnnbench.choose.choose import Measurements
from rnnbench.exports.asv import write_asv
from rnnbench.exports.bencher import bencher
from rnnbench.exports.pyperf import pyperf
from rnnbench.impls import numpy_ref
from rnnbench.networks.arrays import NumpyArrays
from rnnbench.networks.cells import CELLS
from rnnbench.networks.checked import CheckedNetwork
from rnnbench.networks.contract import unsupported_lengths
from rnnbench.reports import to_pandas, write_html
from rnnbench.reports.published import SHAPE, beside_published, published_figures
from rnnbench.reports.sweeps import shared
from rnnbench.results.reader import read
from rnnbench.suite.case import Case, refusal
from rnnbench.suite.estimate import estimate
from rnnbench.suite.lengths import DISTRIBUTIONS, drawn_lengths
from rnnbench.suite.suite import load_suite

T, B, I, H = 6, 7, 3, 4  # noqa: E741  # the field's name for the input size
LENGTHS = np.array([3, 0, 6, 3, 1, 5, 6])
UNIFORM = msgspec.structs.replace(A, lengths="uniform")
SENTENCES = msgspec.structs.replace(A, lengths="sentences")


class Given:
    """A network of the reference in float64, and the arguments of a call."""

    def __init__(self, cell: str, **options: Any) -> None:
        outputs = {"output_size": 5} if CELLS[cell].feeds_back_output else {}
        self.spec = rnnbench.Spec(cell, I, H, dtype="float64", **outputs, **options)
        self.net = numpy_ref.load(self.spec, rnnbench.init_params(self.spec, seed=1))
        rng = np.random.default_rng(2)
        self.x, self.dy = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, self.spec.features))
        shape = self.spec.state_shape(B)
        self.state = tuple(rng.standard_normal(shape) for _ in self.spec.kind.states)
        self.dstate = tuple(rng.standard_normal(shape) for _ in self.spec.kind.states)

    def of_row(self, state: tuple[np.ndarray, ...], row: int) -> tuple[np.ndarray, ...]:
        return tuple(part[:, row : row + 1] for part in state)


def close(got: Any, wanted: Any) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-13)


def padded(sequence: np.ndarray) -> np.ndarray:
    return np.concatenate([sequence, np.zeros((T - len(sequence), *sequence.shape[1:]))])


@pytest.mark.parametrize("depth", [{}, {"num_layers": 2, "bidirectional": True}], ids=["plain", "deep and both ways"])
@pytest.mark.parametrize("cell", CELLS)
def test_each_row_is_what_it_is_alone_with_as_many_steps(cell, depth):
    p = Given(cell, **depth)
    y, final, tape = p.net.record(p.x, p.state, LENGTHS)
    inferred = p.net.forward(p.x, p.state, LENGTHS)
    grads = p.net.backward(tape, p.dy, p.dstate)
    total = dict.fromkeys(grads.params, 0.0)
    for row, length in enumerate(LENGTHS):
        own = np.s_[:length, row : row + 1]
        y_alone, final_alone, tape = p.net.record(p.x[own], p.of_row(p.state, row))
        alone = p.net.backward(tape, p.dy[own], p.of_row(p.dstate, row))
        for found in (y, inferred[0]):
            close(found[:, row : row + 1], padded(y_alone))
        close(grads.x[:, row : row + 1], padded(alone.x))
        for parts, wanted in ((final, final_alone), (inferred[1], final_alone), (grads.state, alone.state)):
            for part, of_row in zip(p.of_row(parts, row), wanted, strict=True):
                close(part, of_row)
        total = {name: value + alone.params[name] for name, value in total.items()}
    for name, value in grads.params.items():
        close(value, total[name])


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), (4, 1), (6, 6)])
@pytest.mark.parametrize("cell", ["lstm", "jordan"])
def test_truncated_bptt_is_the_sum_over_rows_and_passes(cell, window, stride):
    p = Given(cell, num_layers=2)
    y, final, grads = rnnbench.tbptt(p.net, p.x, p.dy, window, stride, p.state, p.dstate, LENGTHS)
    total = dict.fromkeys(grads.params, 0.0)
    dx, initial = np.zeros_like(p.x), [np.zeros_like(part) for part in p.state]
    for row, length in enumerate(LENGTHS):
        state, rows = p.of_row(p.state, row), np.s_[row : row + 1]
        y_alone, final_alone = p.net.forward(p.x[:length, rows], state)
        close(y[:, rows], padded(y_alone))
        for part, of_row in zip(p.of_row(final, row), final_alone, strict=True):
            close(part, of_row)
        ends = [*range(stride, T, stride), T]
        for previous, end in zip([0, *ends], ends, strict=False):
            start = max(0, end - window)
            stop = max(start, min(end, length))
            before = p.net.forward(p.x[: min(start, length), rows], state)[1]
            dy = p.dy[start:stop, rows].copy()
            dy[: max(0, previous - start)] = 0
            last = previous < max(length, 1) <= end
            tape = p.net.record(p.x[start:stop, rows], before)[2]
            found = p.net.backward(tape, dy, p.of_row(p.dstate, row) if last else None)
            dx[start:stop, rows] += found.x
            total = {name: value + found.params[name] for name, value in total.items()}
            for part, of_row in zip(initial, found.state if start == 0 else (), strict=start == 0):
                part[:, rows] += of_row
    close(grads.x, dx)
    for name, value in grads.params.items():
        close(value, total[name])
    for part, wanted in zip(grads.state, initial, strict=True):
        close(part, wanted)


def test_lengths_of_all_steps_are_those_of_no_lengths_to_the_bit():
    p = Given("gru", bidirectional=True)
    for got, wanted in zip(p.net.forward(p.x, p.state, [T] * B), p.net.forward(p.x, p.state), strict=True):
        np.testing.assert_array_equal(got, wanted)


class OfDevice:
    """An array that NumPy cannot read, as one on a device."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("it is on the device")


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        (LENGTHS[:-1], rf"lengths have shape \(6,\); expected \(B,\) = \({B},\)"),
        (LENGTHS[None], r"lengths have shape \(1, 7\)"),
        (LENGTHS + 0.5, "lengths have dtype float64; expected integers"),
        (LENGTHS > 2, "lengths have dtype bool; expected integers"),
        (np.where(LENGTHS == 1, -1, LENGTHS), rf"lengths\[4\] is -1; expected an integer from 0 to T = {T}"),
        (LENGTHS + (LENGTHS == 5) * 2, r"lengths\[5\] is 7; expected an integer from 0 to T = 6"),
        (OfDevice(), r"OfDevice that NumPy cannot read \(it is on the device\); expected integers on the host"),
    ],
    ids=["too few", "two axes", "fractions", "flags", "negative", "above T", "on a device"],
)
def test_wrong_lengths_are_refused_by_every_call(lengths, said):
    p = Given("elman")
    calls = (p.net.forward, p.net.record, lambda x, state, n: rnnbench.tbptt(p.net, x, p.dy, 2, 1, state, lengths=n))
    for call in calls:
        with pytest.raises(ArgumentError, match=said):
            call(p.x, p.state, lengths)


class Plain(CheckedNetwork):
    """A network that takes no lengths; its y is x."""

    arrays, array_type = NumpyArrays(np.dtype("float32")), np.ndarray

    def _set_params(self, params: Any) -> None: ...

    def _forward(self, x: Any, state: Any) -> Any:  # type: ignore[override]  # no lengths
        return x, state

    def _record(self, x: Any, state: Any) -> Any:  # type: ignore[override]
        return x, state, ()

    def _backward(self, content: Any, dy: Any, dstate: Any) -> Any: ...


def test_a_network_that_takes_none_refuses_lengths_and_runs_without():
    spec = rnnbench.Spec("elman", 2, 2)
    net, x = Plain(spec, rnnbench.init_params(spec, seed=0)), np.ones((3, 2, 2), "float32")
    assert net.forward(x)[0] is x
    for call in (net.forward, net.record):
        with pytest.raises(ArgumentError, match="lengths are given, but this network takes none; expected None"):
            call(x, None, [3, 3])


def test_a_backend_without_the_function_takes_no_lengths():
    class Other:
        supports = staticmethod(lambda _: None)

    assert "takes no lengths: it has no function supports_lengths" in unsupported_lengths(Other, A.spec())
    assert refusal(Other, A) is None
    assert refusal(Other, UNIFORM)
    assert refusal(numpy_ref, UNIFORM) is None
    Other.supports_lengths = staticmethod(lambda _: "not yet")
    assert refusal(Other, UNIFORM) == "not yet"


# where lengths come from


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_drawn_lengths_are_the_same_for_the_same_sizes_and_within_them(name):
    for steps, batch in ((1, 1), (2, 3), (50, 32), (100, 1), (7, 6)):
        found = drawn_lengths(name, steps, batch)
        np.testing.assert_array_equal(found, drawn_lengths(name, steps, batch))
        assert found.shape == (batch,)
        assert found.dtype == np.int64
        assert 0 <= found.min() <= found.max() <= steps
        if name in ("sentences", "utterances"):
            assert found.max() == steps
        if name != "corners":
            assert found.min() >= 1
    assert not np.array_equal(drawn_lengths(name, 100, 32), drawn_lengths(name, 99, 32))


def test_drawn_lengths_are_distributed_as_their_names_say():
    means = {name: drawn_lengths(name, 1000, 5000).mean() / 1000 for name in DISTRIBUTIONS}
    assert means["uniform"] == pytest.approx(0.5, abs=0.02)
    assert means["sentences"] < 0.3  # few sentences are as long as the longest
    assert 0.4 < means["utterances"] < 0.8
    assert set(drawn_lengths("corners", 9, 6)) == {0, 1, 5, 8, 9}
    with pytest.raises(ArgumentError, match="lengths are 'long'; expected one of uniform, sentences, utterances, corners"):
        drawn_lengths("long", 3, 2)


GRID = 'name = "mine"\ndescription = "d"\nsource = "s"\n[[grid]]\ncell = "lstm"\nphase = "step"\nT = 4\nB = 2\nI = 3\nH = 8\n'


def test_a_suite_refuses_an_unknown_name_of_lengths(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(f'{GRID}lengths = ["uniform", "corners"]\n')
    assert [case.lengths for case in load_suite(file).cases] == ["uniform", "corners"]
    file.write_text(f'{GRID}lengths = "long"\n')
    with pytest.raises(SuiteError, match="grid 1: lengths is 'long'; expected one of uniform, sentences, utterances, corners"):
        load_suite(file)


def test_the_suite_of_lengths_has_each_shape_with_and_without():
    cases = load_suite("lengths").cases
    assert len(cases) == 2 * 2 * 2 * 4
    whole = {case for case in cases if case.lengths is None}
    assert {msgspec.structs.replace(case, lengths=None) for case in cases} == whole
    assert {case.lengths for case in cases} == {None, "uniform", "sentences", "utterances"}
    assert {(case.B, case.I, case.H, case.T, case.threads) for case in cases} == {(32, 256, 256, 100, 1), (32, 64, 64, 50, 1)}


# a case with lengths is another case


def test_a_case_without_lengths_keeps_the_key_that_it_had_before_there_were_any():
    assert Case("lstm", "step", 7, 3, 4, 5).key() == "8bc9f471f6e51743"
    assert len({case.key() for case in (A, UNIFORM, SENTENCES)}) == 3
    assert UNIFORM.label() == "lstm step T7 B3 I4 H5 uniform lengths"


def test_an_estimate_counts_the_steps_that_rows_have():
    steps = int(drawn_lengths("uniform", A.T, A.B).sum())
    assert UNIFORM.row_steps() == steps < A.row_steps() == A.T * A.B
    whole, shorter = estimate(A), estimate(UNIFORM)
    share = steps / A.row_steps()
    assert shorter.flops == pytest.approx(share * whole.flops, abs=1)
    assert shorter.recurrent_flops == pytest.approx(share * whole.recurrent_flops, abs=1)
    assert shorter.traffic == pytest.approx(share * whole.traffic, abs=1)
    assert shorter.memory == whole.memory


def test_files_of_earlier_and_of_other_versions_load_alike(tmp_path):
    """Cases are written without default values, which earlier versions read, and load with them, as those versions wrote."""
    path = store(tmp_path / "run.jsonl")
    rows, frame, text = read(path).rows, rnnbench.load_results(path), path.read_text("utf-8")
    assert "lengths" not in text
    assert "bidirectional" not in text
    spelled_out = re.sub(r'("phase":"\w+")', r'\1,"bidirectional":false,"lengths":null', text)
    assert spelled_out != text
    path.write_text(spelled_out, "utf-8")
    again = read(path)
    assert (again.rows, again.problems) == (rows, [])
    assert frame.equals(rnnbench.load_results(path))
    assert set(frame["lengths"].isna()) == {True}


@pytest.fixture
def results(tmp_path):
    """Times of two backends on cases that differ only in their lengths."""
    cases = [A, UNIFORM, SENTENCES]
    seconds = {"one": (0.25, 0.125, 0.5), "two": (0.5, 0.5, 0.25)}
    rows = [
        time(case, backend, number, of_case)
        for number in range(6)
        for backend, of_backend in seconds.items()
        for case, of_case in zip(cases, of_backend, strict=True)
    ]
    return store(tmp_path / "machine" / "run.jsonl", msgspec.structs.replace(RUN, cases=cases), rows)


def test_frames_keep_cases_of_other_lengths_apart(results):
    frame = rnnbench.load_results(results)
    assert frame.groupby(["case", "backend"], observed=True).size().tolist() == [6] * 6
    assert set(frame["lengths"].dropna()) == {"uniform", "sentences"}
    data = to_pandas(results)
    medians = data.summary.merge(data.cases[["case", "label"]], on="case").set_index(["label", "backend"])["seconds"]
    assert medians.to_dict() == {
        ("lstm step T7 B3 I4 H5", "one"): 0.25,
        ("lstm step T7 B3 I4 H5", "two"): 0.5,
        ("lstm step T7 B3 I4 H5 uniform lengths", "one"): 0.125,
        ("lstm step T7 B3 I4 H5 uniform lengths", "two"): 0.5,
        ("lstm step T7 B3 I4 H5 sentences lengths", "one"): 0.5,
        ("lstm step T7 B3 I4 H5 sentences lengths", "two"): 0.25,
    } | dict.fromkeys(((case.label(), "three") for case in (A, UNIFORM, SENTENCES)), pytest.approx(np.nan, nan_ok=True))
    flops = data.cases.set_index("case")["flops"]
    assert flops[UNIFORM.key()] == pytest.approx(flops[A.key()] * UNIFORM.row_steps() / A.row_steps())


def test_the_page_of_a_run_names_lengths(results, tmp_path):
    text = write_html(results, tmp_path / "page.html").read_text("utf-8")
    assert "lstm step T7 B3 I4 H5 uniform lengths" in text
    assert "lstm step T7 B3 I4 H5 sentences lengths" in text


def test_figures_of_full_batches_do_not_stand_beside_cases_with_lengths(tmp_path):
    figure = published_figures().query("cell == 'lstm' and phase == 'step'").iloc[0]
    full = Case(**{name: getattr(figure[name], "item", lambda name=name: figure[name])() for name in SHAPE})
    cases = [full, msgspec.structs.replace(full, lengths="uniform")]
    run = msgspec.structs.replace(RUN, cases=cases)
    path = store(tmp_path / "run.jsonl", run, [time(case, "one", 0, 0.5) for case in cases])
    assert set(beside_published(to_pandas(path))["case"]) == {full.key()}


def test_what_cases_share_is_told_with_their_lengths(results):
    cases = to_pandas(results).cases
    assert shared(cases[cases["lengths"] == "uniform"]).endswith("uniform lengths")
    assert "lengths" not in shared(cases)


def test_the_choice_of_a_backend_rests_on_cases_of_the_same_lengths(results):
    known = Measurements([read(results)])
    assert [known.choose(case).backend for case in (A, UNIFORM, SENTENCES)] == ["one", "one", "two"]
    assert not known.serve(msgspec.structs.replace(A, lengths="utterances"))
    assert known.choose(msgspec.structs.replace(SENTENCES, T=8)).shapes == (SENTENCES,)


def test_exports_name_cases_of_other_lengths_apart(results, tmp_path):
    contents = read(results)
    assert len(bencher(contents)) == 6
    names = [one["metadata"]["name"] for one in pyperf(contents)["benchmarks"]]
    assert len(set(names)) == 6
    (path,) = write_asv([contents], tmp_path / "asv")
    assert len(json.loads(path.read_text("utf-8"))["results"]) == 3
