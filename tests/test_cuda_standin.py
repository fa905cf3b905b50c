"""numba_cuda's way to a GPU, against a stand-in for the driver that checks launches and runs nothing.

What a simulator of kernels cannot show: that arrays get there and back, that kernels load, and that the limits of an H100
let them start.  About a minute where no kernel is kept on disk (``cubins``) but those of the audit, else 10 s.
"""

import json
from pathlib import Path

import pytest
from helpers import standin, standin_cases

from rnnbench.impls.numba_cuda import launching

CASES = Path(standin_cases.__file__)

WARMED = f"""
name = "warmed"
description = "One of standin_cases."
source = "This test."

[[grid]]
cell = ["elman"]
phase = "step"
T = 64
shapes = [{{ B = {standin_cases.BATCH}, I = {standin_cases.INPUTS}, H = {standin_cases.WARM.hidden_size} }}]
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> standin.StandIn:
    return standin.build(tmp_path_factory.mktemp("standin"))


@pytest.fixture(scope="module")
def ran(driver: standin.StandIn, tmp_path_factory: pytest.TempPathFactory) -> standin.Ran:
    """All cases, once."""
    done = driver.python(CASES, log=tmp_path_factory.mktemp("cases") / "log")
    assert done.code == 0, done.errors
    return done


@pytest.mark.parametrize("case", standin_cases.CASES)
def test_it_runs_up_to_the_numbers(ran: standin.Ran, case: str) -> None:
    assert json.loads(ran.output)[case] == []


def test_the_driver_refuses_nothing(ran: standin.Ran) -> None:
    assert ran.refusals == []


def test_every_kind_of_launch_was_checked(ran: standin.Ran) -> None:
    """Else the limits of clusters, of cooperative launches and of shared memory would not have been."""
    launches = [dict(zip(words[2::2], map(int, words[3::2]), strict=True)) for words in _lines(ran, "launch")]
    assert {launch["cluster"] for launch in launches} >= {1, 8, launching.PORTABLE_CLUSTER * 2}
    assert any(launch["cooperative"] and launch["blocks"] > 100 for launch in launches)
    assert any(launch["shared"] > 48 * 1024 for launch in launches)
    assert all(0 < launch["registers"] <= 255 for launch in launches)


@pytest.mark.parametrize(
    ("fault", "case", "seen"),
    [
        ("attributes of cuda.core", "cluster of 16", "AttributeError"),
        ("NON_PORTABLE_CLUSTER_SIZE_ALLOWED", "cluster of 16", "CUDA_ERROR_INVALID_CLUSTER_SIZE"),
        ("MAX_DYNAMIC_SHARED_SIZE_BYTES", "grid-persistent gru_reset_before float32", "CUDA_ERROR_INVALID_VALUE"),
        ("bfloat16 as it is", "small jordan bfloat16", "cannot include dtype 'E' in a buffer"),
    ],
)
def test_a_planted_fault_is_seen(
    driver: standin.StandIn, ran: standin.Ran, fault: str, case: str, seen: str, tmp_path: Path
) -> None:
    done = driver.python(CASES, fault, case, log=tmp_path / "log")
    assert done.code == 0, done.errors
    (wrong,) = json.loads(done.output)[case]
    assert seen in wrong


def _lines(ran: standin.Ran, first: str) -> list[list[str]]:
    return [words for words in map(str.split, ran.log) if words[0] == first]


def test_what_was_compiled_ahead_is_what_a_run_loads(driver: standin.StandIn, ran: standin.Ran, tmp_path: Path) -> None:
    """``rnnbench cuda-warm`` goes the way that a network goes: nothing is left to compile on a GPU's time."""
    (tmp_path / "case.toml").write_text(WARMED)
    kept = {"RNNBENCH_CUBINS": str(tmp_path / "cubins")}
    warmed = driver.python("-m", "rnnbench", "cuda-warm", "--for", tmp_path / "case.toml", log=tmp_path / "none", **kept)
    assert warmed.code == 0, warmed.errors
    assert "kernels" in warmed.output
    assert warmed.log == []
    kernels = set((tmp_path / "cubins").iterdir())
    done = driver.python(CASES, "", standin_cases.WARMED, log=tmp_path / "log", **kept)
    assert json.loads(done.output) == {standin_cases.WARMED: []}
    assert set((tmp_path / "cubins").iterdir()) == kernels
