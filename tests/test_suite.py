"""Suites: those in the package hold what was published, and a bad file is one line that names its key.  About 4 s."""

import inspect
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnnbench
from rnnbench import SuiteError
from rnnbench.impls import numpy_ref
from rnnbench.networks.cells import CELLS
from rnnbench.suite.case import Case
from rnnbench.suite.estimate import estimate
from rnnbench.suite.inputs import make_input
from rnnbench.suite.suite import _KEYS, MAX_CASES, SuiteSettings, load_suite, suite_names

HEAD = 'name = "mine"\ndescription = "d"\nsource = "s"\n'
GRID = '[[grid]]\ncell = "lstm"\nphase = "step"\nT = 4\nB = 2\nI = 3\nH = 8\n'
TBPTT = GRID.replace('"step"', '"tbptt"')

PUBLISHED = {  # shapes x phases, counted by hand from the published lists
    "deepbench-train": 12 + 16 + 3 + 3 + 16 + 3,
    "deepbench-infer": 5 * 3 + (4 * 4 + 2) * 3,
    "deepbench-device": 3,
    "flashrnn": (6 + 2 * 6 + 2 * 3) * 2,
    "fastrnns": 2,
    "haste": 5 * 9 * 4 * 2 * 2,
    "keras-layer": 4 * 2,
    "pytorch-cpu": 2 * 2 * 2 * 2,
    "stefbraun": 3,
    "glample": 2 * 2 * 3 * 2,
    "issue-81634": 1,
}
OWN = {
    "quick",
    "sequence-length",
    "hidden-size",
    "truncation",
    "lengths",
    "claims",
    "batch",
    "threads",
    "startup",
    "cpu-grid",
    "cpu-corners",
    "cpu-bfloat16",
    "gpu-grid",
    "gpu-quick",
    "latency",
    "cells",
    "projection",
}


@pytest.fixture
def load(tmp_path):
    def load(content: str | bytes):
        file = tmp_path / "mine.toml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_suite(file)

    return load


def shapes(name: str) -> set[tuple[str, int, int, int]]:
    """(cell, H, B, T) of a suite's cases."""
    return {(case.cell, case.H, case.B, case.T) for case in load_suite(name).cases}


def test_the_package_has_the_documented_suites():
    assert set(suite_names()) == OWN | set(PUBLISHED)


@pytest.mark.parametrize("name", suite_names())
def test_each_suite_loads_and_describes_itself(name):
    suite = load_suite(name)
    assert suite.name == name
    assert suite.description.endswith(".")
    assert len(suite.source) > 20
    assert len({case.key() for case in suite.cases}) == len(suite.cases) > 0


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_a_published_suite_has_exactly_the_published_cases(name, count):
    suite = load_suite(name)
    assert len(suite.cases) == count
    assert {case.dtype for case in suite.cases} == {"float32"}


def test_zipped_shapes_are_not_multiplied_out():
    assert shapes("deepbench-device") == {("elman", 32, 1, 672), ("elman", 64, 1, 96), ("lstm", 256, 1, 150)}
    train = shapes("deepbench-train")
    assert {s for s in train if s[0] == "gru" and s[1] in (512, 1024)} == {
        ("gru", 512, 32, 1),
        ("gru", 1024, 32, 1500),
        ("gru", 1024, 64, 1500),
    }


def test_vanilla_of_deepbench_is_relu():
    kinds = {case.nonlinearity for name in ("train", "device") for case in load_suite(f"deepbench-{name}").cases}
    assert kinds == {"relu", "tanh"}
    assert all(case.nonlinearity == "relu" for case in load_suite("deepbench-train").cases if case.cell == "elman")


def test_the_input_is_as_wide_as_published():
    assert all(case.I == case.H for case in load_suite("deepbench-train").cases)
    assert {case.I for case in load_suite("stefbraun").cases} == {123}
    assert {case.I for case in load_suite("keras-layer").cases} == {256}


def test_cells_and_startup_have_every_cell_and_projection_each_case_with_one():
    for name in ("cells", "startup"):
        assert {case.cell for case in load_suite(name).cases} == set(CELLS)
    assert {case.projection_size for case in load_suite("projection").cases} == {None, 256, 512, 640}


def test_quick_is_small_enough_for_its_promise():
    suite = load_suite("quick")
    assert suite.settings == SuiteSettings(rounds=5)
    assert 25 <= len(suite.cases) <= 30
    assert {case.phase for case in suite.cases} == {"forward", "step", "tbptt"}
    assert {case.cell for case in suite.cases} == {"elman", "jordan", "lstm", "gru", "gru_reset_before"}
    # 3 s of the slowest case's arithmetic at 1 GFLOP/s, a hundredth of what two cores do
    assert max(estimate(case).flops for case in suite.cases) < 3e9


def test_a_grid_can_set_every_field_of_a_case():
    assert set(_KEYS) == set(Case.__struct_fields__)


def test_a_grid_is_the_product_of_its_lists_and_shapes(load):
    grid = GRID.replace("T = 4\nB = 2\n", "T = [4, 5]\nshapes = [{ B = 2, layers = 1 }, { B = 3, layers = 2 }]\n")
    cases = load(HEAD + grid.replace("I = 3", 'I = "H"')).cases
    assert [(c.T, c.B, c.layers, c.I, c.H) for c in cases] == [
        (4, 2, 1, 8, 8),
        (4, 3, 2, 8, 8),
        (5, 2, 1, 8, 8),
        (5, 3, 2, 8, 8),
    ]


def test_settings_are_read(load):
    asked = load(HEAD + '[settings]\nrounds = 7\ninput = "noise"\nseed = 3\ntime_limit = 2.5\n' + GRID).settings
    assert asked == SuiteSettings(rounds=7, input="noise", seed=3, time_limit=2.5)


BAD = {  # what is wrong -> the message, after the file's name
    HEAD + GRID + "Q = 1": "grid 1 has an unknown key 'Q'; expected one of cell, phase, T, B, I, H, layers",
    "Q = 1\n" + HEAD + GRID: "the file has an unknown key 'Q'; expected one of name, description, source, grid, settings",
    HEAD
    + "[settings]\nround = 5\n"
    + GRID: "settings has an unknown key 'round'; expected one of rounds, input, seed, time_limit",
    HEAD + GRID + "shapes = [{ layers = 2, q = 1 }]": "grid 1 shapes 1 has an unknown key 'q'; expected one of cell",
    "'a - at `$.file.b' = 1\n" + HEAD + GRID: "the file has an unknown key 'a - at `$.file.b'; expected one of name",
    HEAD + GRID + "'a - at `$.file.b' = 1": "grid 1 has an unknown key 'a - at `$.file.b'; expected one of cell",
    GRID: "name is missing",
    HEAD: "grid is missing",
    HEAD + GRID + '[[grid]]\ncell = "lstm"\nT = 3': "grid 2: phase, B, I, H missing; expected at least cell, phase, T, B, I, H",
    HEAD.replace("mine", "Mine!") + GRID: "name is 'Mine!'; expected `str` matching regex",
    HEAD
    + GRID.replace("[[", "[").replace(
        "]]", "]"
    ): "grid is {'B': 2, 'H': 8, 'I': 3, 'T': 4, ...}; expected `array`, got `table`",
    HEAD + GRID + "layers = -3": "grid 1 layers is -3; expected `int` >= 1",
    HEAD + GRID + "layers = 0": "grid 1 layers is 0; expected `int` >= 1",
    HEAD + GRID + "layers = 99999999": "grid 1 layers is 99999999; expected `int` <= 1024",
    HEAD + GRID + "layers = 0x" + 5000 * "f": "grid 1 layers is a number too long to show; expected `int` <= 1024",
    HEAD + GRID + "layers = [1, nan]": "grid 1 layers 2 is nan; expected `int`, got `float`",
    HEAD + GRID + "layers = inf": "grid 1 layers is inf; expected `int | array`, got `float`",
    HEAD + GRID + "layers = 1.0": "grid 1 layers is 1.0; expected `int | array`, got `float`",
    HEAD + GRID + 'layers = "1"': "grid 1 layers is '1'; expected `int | array`, got `str`",
    HEAD + GRID + "layers = true": "grid 1 layers is True; expected `int | array`, got `bool`",
    HEAD + GRID + "layers = []": "grid 1 layers is []; expected `array` of length >= 1",
    HEAD + GRID + "layers = 2024-01-01": "grid 1 layers is datetime.date(2024, 1, 1); expected `int | array`, got `date`",
    HEAD + GRID + "bidirectional = 1": "grid 1 bidirectional is 1; expected `bool | array`, got `int`",
    HEAD + GRID + "shapes = [{ layers = 1 }, { layers = 0 }]": "grid 1 shapes 2 layers is 0; expected `int` >= 1",
    HEAD + GRID + "shapes = [{ T = 1 }]": "grid 1: T given in the grid and in its shapes; expected only one of them",
    HEAD + GRID.replace('"lstm"', '"lstn"'): f"grid 1: cell is 'lstn'; expected one of {', '.join(CELLS)}",
    HEAD + GRID.replace('"step"', '"stop"'): "grid 1: phase is 'stop'; expected one of forward, step, tbptt",
    HEAD + GRID.replace("I = 3", 'I = "B"'): "grid 1: I is 'B'; expected a size or 'H'",
    HEAD + GRID + 'dtype = "half"': "grid 1: dtype is 'half'; expected one of float32, float64, bfloat16, float16",
    HEAD + GRID + 'nonlinearity = "relu"': "grid 1: nonlinearity is 'relu'; expected tanh for lstm",
    HEAD + GRID + "output_size = 3": "grid 1: output_size is 3; expected None: only jordan has an output layer",
    HEAD + GRID + "window = 4": "grid 1: window is 4 for phase step; expected none: only tbptt has a window",
    HEAD + GRID + "stride = 4": "grid 1: stride is 4 for phase step; expected none: only tbptt has a stride",
    HEAD + TBPTT: "grid 1: window missing; expected one for phase tbptt",
    HEAD + TBPTT + "window = 2\nstride = 3": "grid 1: stride is 3; expected at most window = 2",
    HEAD + TBPTT + "window = 2\nbidirectional = true": "grid 1: bidirectional is true for stride 2 and T = 4; expected false",
    HEAD + GRID + GRID: "grid 2: lstm step T4 B2 I3 H8 is already in grid 1; expected each case once",
    HEAD + GRID + "layers = [2, 2]": "grid 1: lstm step T4 B2 I3 H8 layers2 is already in grid 1; expected each case once",
    HEAD
    + GRID
    + f"threads = {list(range(1, MAX_CASES + 2))}": f"grid 1: makes {MAX_CASES + 1} cases; expected at most {MAX_CASES}",
    HEAD + '[settings]\ninput = "speech"\n' + GRID: "settings input is 'speech'; expected text or noise",
    HEAD + "[settings]\ntime_limit = nan\n" + GRID: "settings time_limit is nan; expected `float` > 0.0",
    HEAD + "[settings]\nseed = -1\n" + GRID: "settings seed is -1; expected `int` >= 0",
    HEAD + "grid = [": "not TOML in UTF-8: Invalid value",
    HEAD + "grid = " + 5000 * "[": "not a suite: nested too deeply",
    HEAD + GRID + "layers = " + 5000 * "9": "not TOML in UTF-8: Exceeds the limit",
    "": "name is missing",
}


@pytest.mark.parametrize(("content", "message"), BAD.items(), ids=range(len(BAD)))
def test_a_bad_file_is_one_line_with_file_key_and_what_is_allowed(load, content, message):
    with pytest.raises(SuiteError) as caught:
        load(content)
    text = str(caught.value)
    file, _, rest = text.partition(": ")
    assert file.endswith("mine.toml")
    assert rest.startswith(message)
    assert "\n" not in text
    assert caught.value.__cause__ is None


def test_bytes_that_are_no_text_are_refused(load):
    with pytest.raises(SuiteError, match=r"mine\.toml: not TOML in UTF-8: .* byte 0xff"):
        load(HEAD.encode() + b"\xff")


def test_a_missing_file_and_an_unknown_name_are_refused(tmp_path):
    with pytest.raises(SuiteError, match=r"cannot read .*none\.toml: No such file"):
        load_suite(tmp_path / "none.toml")
    with pytest.raises(SuiteError, match=re.escape(f"unknown suite 'quik'; known are {', '.join(suite_names())}, or give")):
        load_suite("quik")


def test_estimates_follow_the_stated_counts():
    T, B, I, H = 10, 4, 3, 8  # noqa: N806, E741  # the field's names
    forward = estimate(Case("lstm", "forward", T, B, I, H))
    step = estimate(Case("lstm", "step", T, B, I, H))
    assert forward.flops == 8 * B * T * H * (I + H)
    assert forward.recurrent_flops == 8 * B * T * H * H
    assert (step.flops, step.recurrent_flops) == (3 * forward.flops, 3 * forward.recurrent_flops)
    parameters = 4 * H * (I + H + 2)
    assert forward.traffic == forward.memory == 4 * (parameters + T * B * (I + H))
    assert step.traffic == 2 * forward.traffic
    assert step.memory == 2 * forward.memory + 4 * T * B * (5 * H + 2 * H)  # the tape: 5 saved values, h and c


@pytest.mark.parametrize(("window", "stride"), [(4, None), (5, None), (4, 2), (10, None), (20, 3), (1, None)])
def test_the_estimate_of_truncation_counts_what_tbptt_records(window, stride):
    case = Case("gru", "tbptt", 10, 4, 3, 8, window=window, stride=stride)
    net, recorded = numpy_ref.load(case.spec(), rnnbench.init_params(case.spec(), seed=0)), []

    class Counting:
        spec = net.spec
        backward, forward = net.backward, net.forward

        @staticmethod
        def record(x, state):
            recorded.append(len(x))
            return net.record(x, state)

    inputs = make_input(case)
    rnnbench.tbptt(Counting, inputs.x, inputs.dy, window, stride)
    full, cut = estimate(Case("gru", "step", 10, 4, 3, 8)), estimate(case)
    assert cut.flops * 10 == full.flops * sum(recorded)
    assert full.memory - cut.memory == 4 * 4 * (4 * 8 + 8) * (10 - max(recorded))


VALUES = st.recursive(
    st.none().map(lambda _: "nan")
    | st.sampled_from(["inf", "true", "1", "4", '"H"', '"lstm"', '"gru"', '"step"', '"tbptt"', '"forward"', "1e9", "07:32:00"])
    | st.integers(-(2**70), 2**70).map(str)
    | st.text(alphabet=st.characters(exclude_characters="'", exclude_categories=("Cc", "Cs")), max_size=6).map("'{}'".format),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]") | inner.map(lambda item: f"{{ T = {item} }}")
    ),
    max_leaves=4,
)
LINES = st.tuples(
    st.sampled_from([*_KEYS, "shapes", "name", "grid", "settings", "rounds", "a.b", "'a - at `$.file.b'"]), VALUES
)
TABLES = st.tuples(
    st.sampled_from(["[[grid]]", "[settings]", "[grid]", ""]), st.dictionaries(LINES.map(lambda x: x[0]), VALUES)
)


@settings(max_examples=300, deadline=None)
@given(
    valid=st.sampled_from(["", HEAD, HEAD + GRID]),
    tables=st.lists(TABLES, max_size=3),
    tail=st.just(b"") | st.binary(max_size=4),
)
def test_a_malformed_file_gives_nothing_but_a_suite_error(tmp_path_factory, valid, tables, tail):
    lines = "\n".join(f"{header}\n" + "\n".join(f"{k} = {v}" for k, v in table.items()) for header, table in tables)
    file = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    file.write_bytes((valid + lines).encode() + b"\n" + tail)
    try:
        cases, message = load_suite(file).cases, ""
    except SuiteError as error:
        cases, message = [], str(error)
    assert "\n" not in message
    assert all(case.spec() for case in cases)


@pytest.mark.parametrize("name", suite_names())
def test_suite_files_stay_readable(name):
    file = Path(inspect.getfile(load_suite)).parents[2] / "suites" / f"{name}.toml"
    assert all(len(line) <= 128 for line in file.read_text("utf-8").splitlines())


# who takes part


def test_a_suite_names_the_backends_that_take_part_by_default(load):
    assert load(HEAD + '[settings]\nbackends = ["jax_scan", "numpy_ref"]\n' + GRID).settings.backends == (
        "jax_scan",
        "numpy_ref",
    )
    assert load(HEAD + GRID).settings.backends is None


@pytest.mark.parametrize("value", ["[]", '"numba_cpu"', "[1]"])
def test_a_list_of_backends_that_is_none_is_refused_by_its_key(load, value):
    with pytest.raises(SuiteError, match="settings backends"):
        load(HEAD + f"[settings]\nbackends = {value}\n" + GRID)


def test_the_suites_of_a_gpu_have_the_sizes_that_they_are_for():
    grid = load_suite("gpu-grid").cases
    assert len(grid) == 3 * 2 * 4 * 2 * 6 * 2
    assert {case.cell for case in grid} == {"lstm", "gru", "elman"}
    assert ({case.B for case in grid}, {case.T for case in grid}) == ({1, 4, 16, 64}, {64, 256})
    assert {case.H for case in grid} == {64, 128, 256, 512, 1024, 2048}
    quick = load_suite("gpu-quick").cases
    assert set(quick) <= set(grid)
    assert ({case.B for case in quick}, {case.H for case in quick}) == ({1, 16, 64}, {64, 256, 512, 1024})
    assert {(case.cell, case.dtype) for case in quick} == {(c, d) for c in ("lstm", "gru") for d in ("float32", "bfloat16")}
    for name in ("gpu-grid", "gpu-quick"):
        assert load_suite(name).settings.backends == ("numba_cuda", "torch_cuda", "jax_cuda")
