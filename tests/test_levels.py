"""What is examined at each level of a conformance run.  Takes 1 s."""

import pytest

import rnnbench
from rnnbench.check import LEVELS, PROMISES, TINY, Trial, problems, random_trials, trials
from rnnbench.check.levels import LONG_MEMORY_BIAS, MAX_RANDOM_SIZES, networks, simulator_trials
from rnnbench.networks.cells import CELLS
from rnnbench.networks.spec import DTYPES


def test_each_level_holds_more_than_the_one_below():
    found = [trials(level) for level in LEVELS]
    sizes = [len(of_level) for of_level in found]
    assert sizes == sorted(sizes)
    assert sizes[0] * 10 < sizes[1] < sizes[2]
    for of_level in found:
        assert {trial.problem.case.cell for trial in of_level} == set(CELLS)
    assert {network(trial) for trial in found[1]} == {network(trial) for trial in found[2]} == set(networks(CELLS))


def network(trial: Trial) -> tuple[str, str, str]:
    return (trial.problem.case.cell, trial.problem.case.nonlinearity, trial.problem.case.dtype)


@pytest.mark.parametrize("level", ["standard", "full"])
def test_every_network_sees_every_promise_that_concerns_it(level):
    by_network: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials(level):
        by_network.setdefault(network(trial), []).append(trial)
        assert all(PROMISES[name].concerns(trial.problem.case) for name in trial.promises)
    for found in by_network.values():
        concerning = {name for trial in found for name in PROMISES if PROMISES[name].concerns(trial.problem.case)}
        assert {name for trial in found for name in trial.promises} == concerning


def test_the_standard_level_holds_every_phase_dtype_depth_direction_and_both_memory_regimes():
    found = [trial.problem for trial in trials("standard", ["lstm"])]
    cases = [problem.case for problem in found]
    assert {case.phase for case in cases} == {"forward", "step", "tbptt"}
    assert {(case.dtype, case.layers, case.bidirectional) for case in cases if case.phase == "step"} >= {
        (dtype, layers, bidirectional) for dtype in DTYPES for layers in (1, 2) for bidirectional in (False, True)
    }
    assert {(problem.scheme, problem.forget_bias) for problem in found} >= {
        ("torch-default", 0.0),
        ("orthogonal", LONG_MEMORY_BIAS),
    }
    assert {case.bias for case in cases} == {True, False}
    assert all(case.T % case.window and case.stride < case.window < case.T for case in cases if case.phase == "tbptt")
    assert len({problem.seed for problem in found}) == len(found)
    assert any(case.H == case.B == case.T == case.I == 1 for case in cases)
    assert any(case.I > case.H > 32 and case.B > 64 for case in cases)


def test_the_full_level_reaches_far():
    cases = [trial.problem.case for trial in trials("full")]
    assert max(case.T for case in cases) == 4096
    assert max(case.H for case in cases) == 1024
    for name in ("H", "B", "I"):
        assert {1, 2, 3, 5, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129} <= {getattr(case, name) for case in cases}


def test_random_trials_are_the_same_for_the_same_seed_and_valid_for_each():
    found = random_trials(300, 7)
    assert random_trials(20, 7) == found[:20]
    assert random_trials(20, 8) != found[:20]
    cases = [trial.problem.case for trial in found]
    for case in cases:
        case.spec()
        assert all(1 <= getattr(case, name) <= limit for name, limit in MAX_RANDOM_SIZES.items())
    for name, limit in MAX_RANDOM_SIZES.items():
        assert max(getattr(case, name) for case in cases) > 0.8 * limit
        assert sorted(getattr(case, name) for case in cases)[150] < 0.1 * limit
    for name in ("cell", "phase", "layers", "bidirectional", "bias", "dtype", "nonlinearity"):
        assert len({getattr(case, name) for case in cases}) > 1, name
    assert {trial.problem.scheme for trial in found} == {"torch-default", "xavier", "orthogonal"}
    assert all(trial.problem.case.cell == "gru" for trial in random_trials(20, 7, ["gru"]))


def test_dtypes_may_be_chosen_and_those_of_smoke_are_float32_alone_if_not():
    def dtypes(found: list[Trial]) -> set[str]:
        return {trial.problem.case.dtype for trial in found}

    assert dtypes(trials("smoke")) == dtypes(simulator_trials("smoke")) == {"float32"}
    for level in LEVELS:
        assert dtypes(trials(level, ["gru"], dtypes=["float16"])) == {"float16"}
    assert dtypes(simulator_trials("standard", ["gru"], ["float16", "float64"])) == {"float16", "float64"}
    assert dtypes(random_trials(20, 0, dtypes=["float16"])) == {"float16"}
    assert len(trials("smoke", ["gru"], dtypes=DTYPES)) == len(DTYPES) * len(trials("smoke", ["gru"]))
    for level in ("smoke", "standard"):
        with pytest.raises(rnnbench.ArgumentError, match=r"^unknown dtype 'half'; expected float32, .*, float16$"):
            trials(level, dtypes=["half"])


def test_the_simulator_gets_little():
    assert 0 < len(simulator_trials("smoke")) < len(simulator_trials("standard")) == len(problems())
    assert {trial.problem.case.T for trial in simulator_trials("standard")} == {TINY.T}
    with pytest.raises(rnnbench.ArgumentError, match=r"^level is 'full' for the simulator; expected smoke or standard"):
        simulator_trials("full")


@pytest.mark.parametrize("dtypes", [None, ["float64"]])
def test_the_standard_level_reaches_every_edge_of_every_usual_width_along_every_axis(dtypes):
    edges = {width + by for width in (4, 8, 16, 32, 64, 128, 256) for by in (-1, 0, 1)}
    for cell in CELLS:
        found = trials("standard", [cell], dtypes=dtypes)
        first = [trial.problem.case for trial in found if trial.problem.case.dtype == (dtypes or DTYPES)[0]]
        for axis in ("T", "B", "I", "H"):
            assert edges <= {getattr(case, axis) for case in first}, (cell, axis)
        if CELLS[cell].feeds_back_output:
            assert edges <= {case.output_size for case in first}
        for dtype in dtypes or DTYPES:
            cases = [trial.problem.case for trial in found if trial.problem.case.dtype == dtype]
            for axis in ("B", "I", "H"):
                assert {65, 129, 257} <= {getattr(case, axis) for case in cases}


def test_a_backend_of_one_dtype_or_nonlinearity_sees_every_edge_too():
    for trial in trials("standard", ["elman"]):
        if trial.problem.case.H == 257 and trial.problem.case.dtype == "float32":
            offered = [(p.case.dtype, p.case.nonlinearity) for p in (trial.problem, *trial.fallbacks)]
            assert offered == [(dtype, kind) for dtype in DTYPES for kind in CELLS["elman"].nonlinearities]
            break
    else:
        pytest.fail("no problem with H = 257")
