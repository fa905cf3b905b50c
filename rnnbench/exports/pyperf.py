"""Export results as a suite for pyperf."""

from typing import Any

from rnnbench.exports.naming import named_rounds, one_line
from rnnbench.results.reader import Contents


def pyperf(contents: Contents) -> dict[str, Any]:
    """Return a run as a pyperf suite (JSON format 1.0): a benchmark per case and backend, with a pyperf run per round.

    As in pyperf, each run is one process, and values are seconds per call.  Raises StoreError without times.
    """
    run, environment = contents.run, contents.run.environment
    facts = {
        "unit": "second",
        "cpu_model_name": environment.get("cpu"),
        "cpu_count": environment.get("cores"),
        "platform": environment.get("os"),
        "python_version": environment.get("python"),
        "python_implementation": environment.get("implementation"),
        "rnnbench_run": run.run,
        "rnnbench_machine": environment.get("machine"),
        "rnnbench_commit": environment.get("commit"),
    }
    metadata = {
        name: value if isinstance(value, int) else one_line(value) for name, value in facts.items() if value is not None
    }
    benchmarks = [
        {
            "metadata": {"name": name},
            "runs": [{"metadata": {"loops": row.loops}, "values": row.samples} for _, row in sorted(rounds.items())],
        }
        for name, rounds in named_rounds(contents)
    ]
    return {
        "version": "1.0",
        "metadata": {name: value for name, value in metadata.items() if value != ""},
        "benchmarks": benchmarks,
    }
