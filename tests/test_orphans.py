"""What a killed process leaves behind: its workers end with it, and what else there is goes when the next one begins."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers.runs import PATIENCE
from helpers.wrapped_reference import backend_file

from rnnbench.processes.scratch import PREFIX

pytestmark = pytest.mark.usefixtures("no_process_left_behind")

HANGS = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)\n"

ASKS = """
import sys, time
from pathlib import Path
from rnnbench.processes.worker_process import WorkerProcess
from rnnbench.processes.scratch import scratch_folder
from rnnbench.processes.environment import worker_environment

with scratch_folder() as folder:
    (folder / "left").touch()
    worker = WorkerProcess("rnnbench.measure.worker", sys.argv[1], worker_environment())
    if "stopped" in sys.argv:
        worker.greeting(240)
        worker.stop()
    print(worker._process.pid, flush=True)
    time.sleep(600)
"""

NEXT = "from rnnbench.processes.scratch import own_folder; own_folder()"


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_until(true) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def killed(tmp_path):
    """Kill a process that has a worker; gives the worker and the environment in which both ran."""
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()

    def kill(backend: str, *arguments: str, ready=lambda: True) -> tuple[psutil.Process, dict[str, str]]:
        command = [sys.executable, "-c", ASKS, backend, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            worker = psutil.Process(int(process.stdout.readline()))
            wait_until(ready)
            process.kill()
        return worker, environment

    return kill


def test_a_worker_that_hangs_ends_with_the_process_that_started_it(tmp_path, killed):
    (tmp_path / "hangs.py").write_text(f"from pathlib import Path\nPath(__file__ + '.begun').touch()\n{HANGS}")
    worker, _ = killed(str(tmp_path / "hangs.py"), ready=(tmp_path / "hangs.py.begun").exists)
    wait_until(lambda: gone(worker))


def test_a_worker_that_is_stopped_does_too(killed):
    worker, _ = killed("numpy_ref", "stopped")
    wait_until(lambda: gone(worker))


def test_the_folder_and_what_a_worker_started_in_a_session_of_its_own_go_when_the_next_process_begins(tmp_path, killed):
    child = (
        "import subprocess, sys\nfrom pathlib import Path\nchild = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
    )
    (tmp_path / "starts.py").write_text(f"{child}Path(__file__ + '.child').write_text(str(child.pid))\n{HANGS}")
    said = tmp_path / "starts.py.child"
    worker, environment = killed(str(tmp_path / "starts.py"), ready=lambda: said.exists() and said.read_text())
    wait_until(lambda: gone(worker))
    child = psutil.Process(int(said.read_text()))
    (left,) = (tmp_path / "temporary").glob(f"{PREFIX}*")
    assert list(left.glob("*/left"))
    assert not gone(child)
    subprocess.run([sys.executable, "-c", NEXT], env=environment, check=True)
    assert list((tmp_path / "temporary").glob(f"{PREFIX}*")) == []
    wait_until(lambda: gone(child))


def test_the_folder_of_a_process_that_lives_is_left_alone(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    holds = "from rnnbench.processes.scratch import own_folder; print(own_folder(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        folder = Path(process.stdout.readline().strip())
        subprocess.run([sys.executable, "-c", NEXT], env=environment, check=True)
        assert folder.is_dir()
        process.communicate("\n")
    assert list(tmp_path.iterdir()) == []


def test_a_link_of_such_a_name_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "mine")
    subprocess.run([sys.executable, "-c", NEXT], env=os.environ | {"TMPDIR": str(tmp_path)}, check=True)
    assert (tmp_path / "mine" / "file").exists()


def test_what_a_worker_started_in_a_session_of_its_own_ends_with_it(tmp_path):
    """Also what has left its family: it is known by its environment."""
    from rnnbench.processes.environment import worker_environment
    from rnnbench.processes.worker_process import WorkerProcess

    module = """
        import pathlib, subprocess, sys

        started = "import subprocess as s; print(s.Popen(['sleep', '600'], start_new_session=True, stdout=s.DEVNULL).pid)"
        child = subprocess.run([sys.executable, "-c", started], stdout=subprocess.PIPE, start_new_session=True, text=True)
        pathlib.Path(__file__ + ".child").write_text(child.stdout)
    """
    name = backend_file(tmp_path / "starts.py", module=module)
    worker = WorkerProcess("rnnbench.measure.worker", name, worker_environment())
    worker.greeting(PATIENCE)
    child = psutil.Process(int(Path(name + ".child").read_text()))
    assert not gone(child)
    worker.end()
    wait_until(lambda: gone(child))
