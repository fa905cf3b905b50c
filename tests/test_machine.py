"""`rnnbench machine` says what a machine is, and stores it; what it cannot know it says so.  Takes 2 s."""

import json
import os
import re
import socket
import sys
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from helpers.fake_machine import some_roofs, tree, two_cores

from rnnbench.cli import machine as command
from rnnbench.cli import main
from rnnbench.errors import StoreError
from rnnbench.machine import facts, health, topology
from rnnbench.machine import roofs as roofs_module
from rnnbench.machine.snapshot import HealthCheck, Machine, Roofs, document, load_machine, load_roofs, write_machine
from rnnbench.machine.topology import Cache

KIB, MIB = 2**10, 2**20

# the processor


def test_caches_are_read_with_their_sizes_and_how_many_share_them(tmp_path):
    assert topology.caches(two_cores(tmp_path)) == [
        Cache(1, "data", 48 * KIB, 1),
        Cache(1, "instruction", 32 * KIB, 1),
        Cache(3, "unified", 32 * MIB, 4),
    ]


def test_logical_processors_of_one_core_are_found(tmp_path):
    assert topology.siblings(two_cores(tmp_path)) == [{0, 2}, {1, 3}]


@pytest.mark.parametrize(("text", "numbers"), [("0", {0}), ("0-2,5", {0, 1, 2, 5}), ("", set()), ("3,1", {1, 3})])
def test_lists_of_processors_are_read_in_the_kernel_s_notation(text, numbers):
    assert topology.cpu_list(text) == numbers


def test_a_virtual_machine_and_vector_instructions_are_told_by_the_flags():
    virtual = "processor\t: 0\nflags\t\t: fpu avx2 fma hypervisor avx512f\n"
    assert topology.hypervisor(virtual) is True
    assert topology.hypervisor("flags\t: fpu avx2\n") is False
    assert topology.vector_instructions(virtual) == ["avx2", "fma", "avx512f"]
    arm = "Features\t: fp asimd sve\n"
    assert topology.hypervisor(arm) is None  # no such flag there, whatever it runs on
    assert topology.vector_instructions(arm) == ["asimd", "sve"]


def test_what_the_system_does_not_tell_is_none(tmp_path):
    for ask in (topology.caches, topology.siblings, topology.governors, topology.boost, topology.online):
        assert ask(tmp_path / "nothing") is None
    assert topology.hypervisor("") is None
    assert topology.vector_instructions("") is None


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({"cpufreq/boost": "1"}, True),
        ({"cpufreq/boost": "0"}, False),
        ({"intel_pstate/no_turbo": "0"}, True),
        ({"intel_pstate/no_turbo": "1"}, False),
    ],
)
def test_boost_is_read_from_both_drivers_of_which_one_says_no(tmp_path, files, allowed):
    assert topology.boost(tree(tmp_path, files)) is allowed


# GPUs, as nvidia-smi tells them


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program of this name where it is found first."""

    def install(script: str) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    facts.gpus.cache_clear()
    yield install
    facts.gpus.cache_clear()


def test_gpus_come_with_driver_and_memory(nvidia_smi):
    nvidia_smi('echo "Some, GPU, 580.1, 143771 MiB"; echo "Other, 580.1, 40960 MiB"')
    assert facts.gpus() == [
        {"name": "Some, GPU", "driver_version": "580.1", "memory": "143771 MiB"},
        {"name": "Other", "driver_version": "580.1", "memory": "40960 MiB"},
    ]


def test_a_failing_nvidia_smi_says_so_in_the_place_of_gpus(nvidia_smi):
    nvidia_smi('echo "Failed to initialize NVML: Driver/library version mismatch"; exit 18')
    assert facts.gpus() == [{"error": "Failed to initialize NVML: Driver/library version mismatch"}]


def test_without_nvidia_smi_gpus_are_none(nvidia_smi, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert facts.gpus() is None


# the environment that every run stores


def test_the_environment_is_the_same_at_every_look_and_after_storing():
    first = facts.environment()
    sum(range(10**6))
    np.ones(10**6)
    assert facts.environment() == first
    assert msgspec.json.decode(msgspec.json.encode(first)) == first


def test_thread_pools_name_the_blas_that_numpy_has_loaded():
    pools = facts.thread_pools()
    assert any(pool["api"] == "blas" and pool["threads"] >= 1 and pool["version"] for pool in pools)
    assert all(set(pool) == {"api", "library", "version", "threads", "kernels"} for pool in pools)  # no path


# what is stored
def look(recorded: str, roofs: Roofs | None = None) -> Machine:
    findings = [HealthCheck("swap", "wrong", "4 MiB in use", "Turn it off."), HealthCheck("battery", "unknown", "not told")]
    return Machine(recorded, facts.environment(), ["powersave"], None, facts.thread_pools(), findings, roofs)


def test_a_look_reads_back_as_it_was_written(tmp_path):
    written = look("2026-01-02T03:04:05.000006+00:00", some_roofs())
    path = write_machine(written, tmp_path)
    assert path.name == "machine-20260102T030405.000006.json"
    assert load_machine(tmp_path) == written
    assert json.loads(path.read_text())["schema"] == 1


def test_the_newest_look_is_read_and_the_newest_roofs_also_from_an_older_one(tmp_path):
    with_roofs = look("2026-01-02T03:04:05+00:00", some_roofs())
    newer = look("2026-01-02T03:04:05.000001+00:00")
    for one in (newer, with_roofs, look("2025-12-31T23:59:59+00:00", some_roofs(1.0))):
        write_machine(one, tmp_path)
    assert load_machine(tmp_path) == newer
    assert load_roofs(tmp_path) == with_roofs.roofs


def test_without_a_look_there_is_none(tmp_path):
    assert load_machine(tmp_path) is None
    assert load_machine(tmp_path / "nothing") is None
    assert load_roofs(tmp_path) is None


def test_a_look_is_never_written_over(tmp_path):
    write_machine(look("2026-01-02T03:04:05+00:00"), tmp_path)
    with pytest.raises(StoreError, match="machine-20260102T030405"):
        write_machine(look("2026-01-02T03:04:05+00:00"), tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "does not read"), ('{"schema": 99}', "has schema 99; this version reads schema 1"), ('{"schema": 1}', "recorded")],
)
def test_a_file_that_is_no_look_is_refused_in_words(tmp_path, content, said):
    (tmp_path / "machine-1.json").write_text(content)
    with pytest.raises(StoreError, match=said):
        load_machine(tmp_path)


# the command


@pytest.fixture
def at_once(monkeypatch):
    """The command without waits, and with roofs that were measured before."""
    monkeypatch.setattr(command, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(roofs_module, "measure_roofs", lambda *_: some_roofs())


def test_the_text_tells_facts_roofs_and_findings_and_stores_them(at_once, tmp_path, capsys):
    assert main.main(["machine", "-o", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    facts_now = facts.environment()
    for words in (facts_now["cpu"], f"numpy {np.__version__}", "float32 multiply-adds", "reads from L3: a reason"):
        assert words in said
    stored = load_machine(tmp_path / facts_now["machine"])
    assert stored is not None
    assert stored.roofs == some_roofs()
    for finding in stored.findings:
        assert finding.check in said
    assert said.splitlines()[-1].startswith("stored: ")
    assert max(map(len, said.splitlines()[:-1])) <= command._WIDTH


def test_wrong_findings_come_with_what_mends_them(capsys):
    said = command.text(look("2026-01-02T03:04:05+00:00"))
    assert "wrong for measuring\n  swap                4 MiB in use. Turn it off.\nnot known\n  battery" in said
    assert "governor: powersave; boost: not known" in said
    assert "--no-roofs" in said


def test_the_peaks_are_given_as_options_unless_something_held_the_threads_up():
    """A roof that is too low makes every result look better than it is."""
    roofs = some_roofs(2.5e11)
    measured = look("2026-01-02T03:04:05+00:00", msgspec.structs.replace(roofs, multiply_adds=roofs.multiply_adds[1:]))
    assert "for rnnbench versus: --roof 2=250\n" in command.text(measured)
    held_up = msgspec.structs.replace(
        look("2026-01-02T03:04:05+00:00", some_roofs()), findings=[health.all_threads(some_roofs(90.0))]
    )
    assert "for rnnbench versus: --roof 1=1e-07\n" in command.text(held_up)


def test_rates_that_scatter_are_said_to_be_disturbed():
    assert "disturbed: in 1 of 3 rates" in command.text(look("2026-01-02T03:04:05+00:00", some_roofs()))


def test_json_is_one_document_and_the_same_as_what_is_stored(at_once, tmp_path, capsys):
    assert main.main(["machine", "--json", "--no-roofs", "-o", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert answer["roofs"] is None
    (path,) = tmp_path.rglob("machine-*.json")
    assert path.read_bytes() == printed.out.encode()
    assert str(path) in printed.err


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "look_at_machine", lambda **_: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    assert main.main(["machine", "-o", str(tmp_path / "file")]) == main.ENVIRONMENT
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "cannot write" in printed.err


def test_what_is_stored_names_neither_host_nor_user_nor_any_place():
    text = document(look("2026-01-02T03:04:05+00:00", some_roofs())).decode().lower()
    words = set(re.split(r"[^\w-]+", text))
    assert socket.gethostname().lower() not in words
    assert psutil.Process().username().lower() not in words
    places = [Path.home(), Path.cwd(), Path(sys.prefix), Path(np.__file__).parent]
    assert [place for place in places if str(place).lower() in text] == []
