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
    "test_cuda_audit.py": 100,
    "test_numba_cpu.py": 90,
    "test_cpu_products.py": 50,
    "test_cuda_standin.py": 50,
    "test_peers.py": 50,
    "test_fuzz.py": 40,
    "test_misbehaving.py": 40,
    "test_self_test.py": 40,
    "test_conformance.py": 30,
    "test_cuda_kernels.py": 30,
    "test_promises.py": 30,
    "test_compare_runs.py": 25,
    "test_cuda_peers.py": 25,
    "test_report_page.py": 25,
    "test_auto.py": 20,
    "test_contract.py": 20,
    "test_cpu_callers.py": 20,
    "test_cpu_threads.py": 20,
    "test_cuda_tensor_cores.py": 20,
    "test_faults.py": 20,
    "test_numba_cuda.py": 20,
    "test_patience.py": 20,
    "test_report_formats.py": 20,
    "test_store_faults.py": 20,
    "test_training.py": 20,
    "test_asv.py": 15,
    "test_asv_page.py": 15,
    "test_pytest_plugin.py": 15,
    "test_best_command.py": 10,
    "test_copies.py": 10,
    "test_cuda_products.py": 10,
    "test_cuda_regimes.py": 10,
    "test_history.py": 10,
    "test_kills.py": 10,
    "test_one_layer.py": 10,
    "test_protocol.py": 10,
    "test_report_charts.py": 10,
    "test_report_html.py": 10,
    "test_shrinking.py": 10,
    "test_side_by_side.py": 10,
    "test_tolerance.py": 10,
    "test_train_command.py": 10,
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
