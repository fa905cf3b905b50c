"""``rnnbench gpu`` without a GPU: it says so; stages are limited in time, and what they found is kept.  About 5 s.

Stages that need a GPU are not run here; the gate and the barriers are, in the simulator.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="greenlet is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")

from rnnbench.cli import gpu
from rnnbench.cli.main import main
from rnnbench.impls.numba_cuda import bringup, device, offline
from rnnbench.impls.numba_cuda.cells import CELLS
from rnnbench.impls.numba_cuda.layout import MESSAGES, Shape
from rnnbench.impls.numba_cuda.regimes import HOPPER
from rnnbench.networks.spec import NARROW

STAND_IN = """
import json, sys, time
stage = sys.argv[-1]
print(json.dumps({"stage": stage, "what": "cluster barrier", "blocks": 8, "value": 0.125}), flush=True)
if stage == "peers":
    print('{"stage": "peers", "what": "torn', end="", flush=True)
    time.sleep(60)
if stage == "gates":
    sys.exit("the driver | has gone")
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stages that need no GPU: one finds something and hangs, one fails, the others end well."""
    script = tmp_path / "stage.py"
    script.write_text(STAND_IN)
    start = gpu.subprocess.Popen
    monkeypatch.setattr(gpu.subprocess, "Popen", lambda command, **how: start([sys.executable, script, command[-1]], **how))
    monkeypatch.setattr(gpu, "_require_gpu", lambda: None)
    return tmp_path


def test_what_was_found_outlives_a_stage_that_hangs_or_fails(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "SHARES", gpu.SHARES | {"peers": 0.1})
    assert main(["gpu", "--minutes", "0.2", "-o", str(stand_in / "results")]) == 3
    printed = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    rows = [json.loads(line) for line in Path(printed["results"]).read_text().splitlines()]
    ends = {row["stage"]: row["how"] for row in rows if row["what"] == "ended"}
    failed = {"peers": "out of time", "gates": "failed: the driver | has gone"}
    assert ends == dict.fromkeys(gpu.SHARES, "done") | failed
    assert [row["stage"] for row in rows if row["what"] == "cluster barrier"] == list(gpu.SHARES)
    page = Path(printed["page"]).read_text()
    assert "## peers: out of time\n" in page
    assert "| blocks | value |\n| --- | --- | \n| 8 | 0.125 |\n" in page


def test_stages_for_which_no_time_is_left_are_not_begun(stand_in: Path) -> None:
    path = stand_in / "found.jsonl"
    path.touch()
    gpu.run_stages(path, 0.0)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [{"stage": stage, "what": "ended", "how": "not reached"} for stage in gpu.SHARES]


def test_the_page_is_there_before_the_last_stage_is_over(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """... and tells what was found until then, should all of it be cut off."""
    path = stand_in / "found.jsonl"
    path.touch()
    run_stage = gpu._run_stage

    def cut_off(stage: str, *rest: object) -> str:
        if stage == "gates":
            raise KeyboardInterrupt
        return run_stage(stage, *rest)

    monkeypatch.setattr(gpu, "_run_stage", cut_off)
    with pytest.raises(KeyboardInterrupt):
        gpu.run_stages(path, 1.0)
    page = path.with_suffix(".md").read_text()
    assert "## facts: done\n" in page
    assert "## latency: done\n" in page


def test_a_failed_gate_is_a_failed_check(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = json.dumps({"stage": "gates", "what": "gate", "cell": "lstm", "passed": False})
    monkeypatch.setattr(gpu, "run_stages", lambda path, _: path.write_text(row + "\n"))
    assert main(["gpu", "--minutes", "1", "-o", str(stand_in)]) == 1


def test_the_simulator_is_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv(device.SIMULATION, "1")
    assert main(["gpu", "--minutes", "1", "-o", str(tmp_path / "results")]) == 4
    assert "the simulator is no GPU" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_every_stage_has_its_share_of_the_time() -> None:
    assert list(gpu.SHARES) == list(bringup.STAGES)


@pytest.mark.usefixtures("simulated_gpu")
def test_the_gate_covers_every_cell_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"GATE_HIDDEN": (3,), "GATE_STEPS": 2, "GATE_BATCH": 1}.items():
        monkeypatch.setattr(bringup, name, value)
    found = list(bringup.gates())
    assert {(row["cell"], row["dtype"]) for row in found} == {(cell, d) for cell in CELLS for d in ("float32", *NARROW)}
    assert "lstm" in {row["cell"] for row in found if row.get("exchange") == MESSAGES}
    assert all(row["passed"] for row in found), found


@pytest.mark.usefixtures("simulated_gpu")
def test_the_phases_that_are_timed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's on the host; ours also as a graph, which the simulator replays.  Both have all gradients in a step."""
    pytest.importorskip("torch", reason="PyTorch is missing: pip install -e '.[torch]' in the checkout of rnnbench")
    from rnnbench.impls.numba_cuda.graphs import captured

    monkeypatch.setattr(bringup, "STEPS", 2)
    monkeypatch.setattr(bringup, "DEVICE", "cpu")
    for cell in bringup.CELLS_TIMED:
        found = {phase: call() for phase, call in bringup.of_torch(cell, 3, 1, "bfloat16").items()}
        assert tuple(found["forward"][0].shape) == tuple(found["step"][0].shape) == (2, 1, 3)
        assert len(found["step"]) == 1 + 4
    for phase, call in bringup.of_numba_cuda("lstm", 3, 1, "bfloat16").items():
        graph = captured(call)
        graph.replay()
        found = graph.outputs[0] if phase == "forward" else graph.outputs.x
        assert np.isfinite(found.copy_to_host().astype("float32")).all()


EXCHANGES = {
    "within a block": (Shape(1, 8, 8, 1, 0), "BAR.SYNC"),
    "at a cluster barrier": (Shape(3, 8, 8, 1, 0), "UCGABAR_ARV"),
    "by messages": (Shape(3, 8, 8, 1, 0, exchange=MESSAGES), "SYNCS.PHASECHK"),
    "in a grid": (Shape(3, 8, 8, 1, 0, grid=True), "REDG.E.ADD.STRONG.GPU"),
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_the_exchanges_that_are_timed_are_those_of_kernels(name: str) -> None:
    """Simulated, they end; compiled, they are the instructions that kernels use."""
    from rnnbench.impls.numba_cuda import simulator

    shape, instruction = EXCHANGES[name]
    kernel = bringup.exchanges(shape)
    mail = np.zeros(kernel.mail + 1, "float32")
    cluster = 1 if shape.grid else shape.blocks
    given = {"blocks": shape.blocks, "threads": 64, "cluster": cluster, "shared": kernel.shared}
    simulator.run(kernel.function, (mail, 5, 1, 0, 0), **given)
    assert mail[0] == (6 * 3 if shape.grid else 0)
    if reason := offline.missing_toolchain():
        pytest.skip(reason)
    found = offline.longest_loop(offline.compile_kernel(kernel.function, kernel.signature, 64))
    assert sum(count for found_name, count in found.items() if found_name.startswith(instruction))
    assert bool(offline.of_family(found, "MEMBAR")) == (name in ("at a cluster barrier", "in a grid"))


def test_the_exchanges_that_are_timed_fit_into_a_block_of_an_h100():
    for shape in bringup.exchange_shapes(HOPPER):
        assert 4 * bringup.exchanges(shape).shared <= HOPPER.shared, shape
