"""What a worker sees, and what a run knows of the machine."""

import json
import os
import socket
import sys
import tempfile
from pathlib import Path

import msgspec
import psutil
import pytest
from helpers.runs import GOOD, interrupt_at, measured, of, planned
from helpers.wrapped_reference import backend_file

from rnnbench.check import Problem
from rnnbench.machine.facts import environment, machine_name
from rnnbench.measure.client import START_LIMIT, WorkerProcess
from rnnbench.measure.plan import resumed_plan
from rnnbench.processes.environment import PASSED_ON, THREAD_VARIABLES
from rnnbench.results.rows import Startup

pytestmark = pytest.mark.usefixtures("machine_at_rest", "no_process_left_behind")

# what a worker sees


def test_a_worker_sees_the_listed_variables_alone_and_as_many_threads_as_its_case_asks_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "not for workers")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OPENBLAS_VERBOSE", "2")
    module = """
        import json, os, pathlib, sys
        import numba, threadpoolctl

        if "worker" in sys.argv[0]:
            facts = {
                "environment": dict(os.environ),
                "pools": [pool["num_threads"] for pool in threadpoolctl.threadpool_info()],
                "numba": numba.config.NUMBA_NUM_THREADS,
                "stdin": os.fstat(0) == os.stat(os.devnull),
                "session": os.getsid(0) == os.getpid(),
                "cwd first": sys.path[0] in ("", os.getcwd()),
            }
            pathlib.Path(f"{__file__}.{os.environ['OMP_NUM_THREADS']}").write_text(json.dumps(facts))
    """
    name = backend_file(tmp_path / "curious.py", module=module)
    cases = [msgspec.structs.replace(GOOD, threads=threads) for threads in (1, 2)]
    measured(planned(tmp_path, [name], cases))
    for threads in (1, 2):
        facts = json.loads(Path(f"{name}.{threads}").read_text())
        seen = facts["environment"]
        # Python sets LC_CTYPE where the locale is C, threadpoolctl the other
        caches = {"NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR"}
        jax = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "XLA_PYTHON_CLIENT_PREALLOCATE"}
        own = caches | jax | {"RNNBENCH_WORKER", "LC_CTYPE", "KMP_DUPLICATE_LIB_OK"}
        assert set(seen) <= {*PASSED_ON, *THREAD_VARIABLES, *own}
        assert {seen[variable] for variable in THREAD_VARIABLES} == {str(threads)}
        assert all(seen[variable] == os.environ[variable] for variable in ("PATH", "HOME"))
        assert facts["pools"]
        assert set(facts["pools"]) == {threads}
        assert facts["numba"] == threads
        assert facts["session"]
        assert not facts["cwd first"]


def test_a_jax_worker_loads_what_an_earlier_one_of_the_run_compiled(tmp_path):
    pytest.importorskip("jax", reason="jax_scan needs jax")
    compiled = []
    for _ in range(2):
        worker = WorkerProcess("jax_scan", 1, tmp_path)
        try:
            worker.greeting(START_LIMIT)
            worker.ask("prepare", START_LIMIT, problem=msgspec.to_builtins(Problem(GOOD, source="noise")))
        finally:
            worker.end()
        compiled.append({file.name for file in (tmp_path / "jax").glob("*-cache")})
    assert compiled[0] == compiled[1]
    assert any("_record" in name for name in compiled[0])


STARTS_COLD = """
    def load(spec, params, *, threads=None):
        import os, pathlib, time

        cache = pathlib.Path(os.environ["NUMBA_CACHE_DIR"])
        if not (cache / "compiled").exists():
            time.sleep(0.3)
            cache.mkdir(parents=True, exist_ok=True)
            (cache / "compiled").touch()
        return Network(numpy_ref.load(spec, params, threads=threads))
"""
"""A backend that compiles for 0.3 s where the cache of the run is empty."""


def test_a_start_is_cold_only_where_the_cache_of_the_run_was_empty(tmp_path):
    name = backend_file(tmp_path / "compiles.py", module=STARTS_COLD)
    cases = [msgspec.structs.replace(GOOD, threads=threads) for threads in (1, 2)]
    starts = of(Startup, measured(planned(tmp_path, [name], cases, rounds=2)))
    assert [(row.round, row.case.threads) for row in starts] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [row.load_s >= 0.3 for row in starts] == [True, False, False, False]
    assert [row.cold for row in starts] == [True, False, False, False]
    assert all(row.import_s > 0 and row.first_call_s > 0 for row in starts)


def test_a_resumed_run_whose_cache_is_empty_again_starts_cold(tmp_path):
    name = backend_file(tmp_path / "compiles.py", module=STARTS_COLD)
    plan = planned(tmp_path, [name], [GOOD], rounds=2)
    with pytest.raises(KeyboardInterrupt):
        measured(plan, interrupt_at(1))
    contents = measured(resumed_plan(plan.path))
    starts = of(Startup, contents)
    assert [row.round for row in starts] == [0, 1]
    assert [row.load_s >= 0.3 for row in starts] == [True, True]
    assert [row.cold for row in starts] == [True, True]


# facts about the machine


def test_the_environment_names_neither_machine_nor_user_nor_any_place():
    facts = environment()
    assert {"machine", "cpu", "cores", "memory_gib", "os", "python", "versions", "commit", "dirty"} <= set(facts)
    assert facts["versions"]["rnnbench"]
    assert facts["versions"]["numpy"]
    text = json.dumps(facts).lower()
    user = psutil.Process().username().lower()
    words = set("".join(c if c.isalnum() else " " for c in text).split())
    assert socket.gethostname().lower() not in words
    assert user not in words
    places = [Path.home(), Path.cwd(), Path(sys.prefix), Path(__file__).parents[1], Path(tempfile.gettempdir())]
    assert [place for place in places if str(place).lower() in text] == []


def test_the_machine_s_name_is_fit_for_a_folder():
    name = machine_name()
    assert name == "".join(c for c in name if c.isascii() and (c.isalnum() or c == "-"))
    assert name.endswith(f"-{os.cpu_count()}c")
    assert not name.startswith("-")
