"""Which files of tests run first, and which run in one process: so that two processes end at about the same time."""

from pathlib import Path
from typing import Any

KERNELS, AUDIT = "test_numba_cpu.py", "test_cuda_audit.py"

GROUPS = (
    (
        KERNELS,
        "test_auto.py",
        "test_cpu_buffers.py",
        "test_cpu_callers.py",
        "test_cpu_threads.py",
        "test_network.py",
        "test_network_arguments.py",
        "test_promises.py",
        "test_train_command.py",
        "test_training.py",
        "test_truncation.py",
        "test_truncation_calls.py",
    ),
    (AUDIT, "test_cuda_standin.py"),
)
"""Files that one process has, so that no kernel is compiled by two at the same time.  The first of each compiles most kernels:
what others load from a cache then takes a second of their time, and in a new process more than ten without it."""

SECONDS = {
    "test_numba_cpu.py": 110,
    "test_cuda_audit.py": 100,
    "test_cuda_standin.py": 70,
    "test_promises.py": 60,
    "test_self_test.py": 60,
    "test_cuda_peers.py": 40,
    "test_peers.py": 40,
    "test_conformance.py": 30,
    "test_fuzz.py": 30,
    "test_misbehaving.py": 30,
    "test_compare_runs.py": 25,
    "test_cpu_threads.py": 25,
    "test_docs.py": 25,
    "test_pytest_plugin.py": 25,
    "test_report_charts.py": 25,
    "test_report_formats.py": 25,
    "test_ambient_state.py": 20,
    "test_cpu_products.py": 20,
    "test_cuda_tensor_cores.py": 20,
    "test_report_devices.py": 20,
    "test_tolerance.py": 20,
    "test_auto.py": 15,
    "test_cli_check.py": 15,
    "test_cpu_callers.py": 15,
    "test_cuda_kernels.py": 15,
    "test_faults.py": 15,
    "test_jit.py": 15,
    "test_numba_cuda.py": 15,
    "test_planning.py": 15,
    "test_terminal.py": 15,
    "test_cli_lists.py": 10,
    "test_cli_run.py": 10,
    "test_contract.py": 10,
    "test_interrupts.py": 10,
    "test_lengths_peers.py": 10,
    "test_patience.py": 10,
    "test_siblings.py": 10,
    "test_store_faults.py": 10,
}
"""Of a process that has a processor to itself, where caches are empty: rounded, and only of files that take 10 or more."""

LEADER = {name: group[0] for group in GROUPS for name in group}


def seconds(leader: str) -> int:
    """Of a file, or of the group that it leads."""
    return sum(SECONDS.get(name, 0) for name in {leader, *(name for name, first in LEADER.items() if first == leader)})


def order(file: str) -> tuple[int, str, bool, str]:
    """What files are sorted by: the longest first, groups together, and their leaders first among them."""
    leader = LEADER.get(file, file)
    return -seconds(leader), leader, file != leader, file


def scheduler(config: Any, log: Any) -> Any:
    """xdist's for ``--dist loadfile``, with groups together and files in the order of collection."""
    from xdist.scheduler import LoadFileScheduling

    class Grouped(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return LEADER.get(Path(file).name, file)

    config.option.loadscopereorder = False  # that would be by the number of tests
    return Grouped(config, log)
