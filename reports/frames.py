"""Tidy pandas frames from a results file, for notebooks and for the report's charts and sentences."""

import math
import statistics
from collections.abc import Collection, Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from rnnbench.compare.intervals import median_interval
from rnnbench.compare.verdicts import FASTER, SLOWER, ranking
from rnnbench.errors import ArgumentError, SpecError, StoreError
from rnnbench.machine.snapshot import Machine, Roofs, load_machine, load_roofs
from rnnbench.networks.contract import CPU, device_of
from rnnbench.results.reader import Contents, read, results_files
from rnnbench.results.rows import End, Failure, Gate, Memory, Row, Run, Startup, Time, Truncation
from rnnbench.results.valid import invalid_time, log_ratio, valid
from rnnbench.suite.case import Case

CASE_FIELDS = Case.__struct_fields__
_MATHEMATICS = [name for name in CASE_FIELDS if name not in ("dtype", "threads")]

AnyKind = TypeVar("AnyKind", bound=Row)

_Samples = dict[tuple[str, str], dict[int, list[float]]]


class Frames(NamedTuple):
    """All frames of one results file.  Every row starts with ``case`` (the key) and the fields of ``suite.Case``.

    ``cases``: one row per case; ``label`` (readable name), ``flops`` (operations of one call; NaN where the case is no
    valid network, or where a stride shorter than the window computes steps more than once), ``disturbed`` (fraction of
    its rounds that the machine disturbed; they were measured again).

    ``times``: one row per case, backend and round: ``seconds`` (per call, median of the samples), ``device_seconds`` (by
    the clock of the backend's device; NaN where it offers none), ``samples`` (their number), ``loops``, ``position``.

    ``summary``: one row per case and backend, also without a time.  ``device`` (of the backend; None where it could not
    run); ``status`` (measured, or why not: unavailable, unsupported, wrong, error, crashed, timeout, missing);
    ``rounds``; ``seconds`` (per call, median over rounds), ``seconds_low``, ``seconds_high`` (sign-test interval),
    ``step_seconds`` (seconds / T), ``device_seconds`` (per call, median over rounds, by the device's clock), ``gflops``
    (10^9 operations per second), ``peak_bytes`` (memory of one call above the loaded network).  Relative to ``baseline``,
    that of the backend's device: ``speedup`` = baseline's time / backend's time (above 1 the backend is faster; median
    over rounds of the within-round log ratio), ``speedup_low``, ``speedup_high``, ``coverage`` (actual coverage of that
    interval) and ``verdict``: faster, slower, same or unclear (``compare.verdicts``).

    ``pairs``: the same comparison for every two backends on one device that were timed in one case: ``backend`` against
    ``other``.

    ``gates``: one row per case, backend and tensor: ``passed`` (the whole check), ``error``, ``tolerance``,
    ``error_over_tolerance`` (NaN where the error has no number).

    ``failures``: ``backend``, ``stage``, ``reason``, ``message``, ``round``.

    ``truncation``: one row per tbptt case and backend: ``relative_error`` of the gradient against full BPTT, and
    ``seconds``, ``step_seconds``, their intervals and ``peak_bytes`` where measured.

    ``startup``: one row per case, backend, round and ``cold`` (whether the JIT cache was empty): ``import_s``, ``load_s``,
    ``first_call_s``, in seconds.

    ``run`` and ``end``: the first row of the file and its last ``End`` (a resumed run has several; None where the run was
    cut off).  ``problems``: a sentence for every line or row that could not be used.

    ``devices``: device of each backend that could run.  ``baselines``: baseline of each device.  ``baseline``: the one
    asked for, else that of the first device.

    ``samples``: by case and backend, the samples of each round by its number, in seconds per call.

    ``look`` and ``roofs``: the newest findings of ``rnnbench machine`` on the run's machine, stored beside its results;
    None where there are none.  Roofs describe the CPU and are None where no backend computes on it.
    """

    run: Run
    end: End | None
    baseline: str | None
    backends: list[str]
    cases: pd.DataFrame
    times: pd.DataFrame
    summary: pd.DataFrame
    pairs: pd.DataFrame
    gates: pd.DataFrame
    failures: pd.DataFrame
    truncation: pd.DataFrame
    startup: pd.DataFrame
    problems: list[str]
    samples: _Samples
    devices: dict[str, str]
    baselines: dict[str, str]
    look: Machine | None = None
    roofs: Roofs | None = None

    def where(self, column: str, values: Collection[str]) -> "Frames":
        """The rows of all frames that have the column and one of the values in it; other frames stay whole."""
        whole = {name: getattr(self, name) for name in self._fields}
        parts = {
            name: frame[frame[column].isin(values)].reset_index(drop=True)
            for name, frame in whole.items()
            if isinstance(frame, pd.DataFrame) and column in frame
        }
        return self._replace(**parts)


def to_pandas(results: Path | str, baseline: str | None = None) -> Frames:
    """Read a results file, or a folder that holds one, into frames.

    Raises StoreError, and ArgumentError for an unknown baseline.
    """
    return frames(read(one_file(results)), baseline)


def one_file(results: Path | str) -> Path:
    """The results file at a path; raises StoreError for a folder that holds none or several."""
    found = results_files(results)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise StoreError(f"{results} holds {len(found)} results files; expected one of them: {names}")
    return found[0]


def frames(contents: Contents, baseline: str | None = None) -> Frames:
    """Frames of a file's contents; ``baseline`` defaults to the backend that is fastest in the most cases on its device."""
    cases = _all_cases(contents)
    backends = list(dict.fromkeys([*contents.run.backends, *(name for row in contents.rows if (name := _backend(row)))]))
    times, samples, problems = _times(contents)
    devices = _devices(contents, backends)
    pairs = _pairs(times, samples, devices)
    summary = _summary(contents, cases, backends, times)
    summary.insert(list(summary.columns).index("backend") + 1, "device", summary["backend"].map(devices).astype("object"))
    baselines = _default_baselines(summary, backends)
    if baseline is None:
        baseline = next(iter(baselines.values()), None)
    elif baseline not in backends:
        raise ArgumentError(f"baseline is {baseline!r}; expected one of {', '.join(backends)}")
    elif baseline in devices:
        baselines[devices[baseline]] = baseline
    with_fields = _Fields(cases)
    look, roofs = _machine(contents)
    summary = with_fields(_compared(summary, pairs, baselines))
    return Frames(
        run=contents.run,
        end=next(reversed(list(_rows(contents, End))), None),
        baseline=baseline,
        backends=backends,
        cases=with_fields(_case_frame(cases, _disturbed(contents))),
        times=with_fields(times),
        summary=summary,
        pairs=with_fields(pairs),
        gates=with_fields(_gates(contents)),
        failures=with_fields(_failures(contents)),
        truncation=_truncation(contents, summary),
        startup=with_fields(_startup(contents)),
        problems=[*contents.problems, *problems],
        samples=samples,
        devices=devices,
        baselines=baselines,
        look=look,
        roofs=roofs if CPU in devices.values() else None,
    )


def _machine(contents: Contents) -> tuple[Machine | None, Roofs | None]:
    """Findings and roofs stored beside the results, if they belong to the machine of the run."""
    folder = contents.path.parent
    look = load_machine(folder)
    if look is None or look.environment.get("machine") != contents.run.environment.get("machine"):
        return None, None
    return look, load_roofs(folder)


def _devices(contents: Contents, backends: list[str]) -> dict[str, str]:
    """Device of each backend that could run, as the backend reports it."""
    reported = {name: contents.run.backends.get(name, {}) for name in backends}
    return {name: device_of(facts) for name, facts in reported.items() if "unavailable" not in facts}


def _rows(contents: Contents, kind: type[AnyKind]) -> Iterator[AnyKind]:
    return (row for row in contents.rows if isinstance(row, kind))


def _backend(row: Any) -> str | None:
    return getattr(row, "backend", None)


def _all_cases(contents: Contents) -> dict[str, Case]:
    found = [*contents.run.cases, *(row.case for row in contents.rows if not isinstance(row, Run | End))]
    return {case.key(): case for case in dict.fromkeys(found)}


class _Fields:
    """Inserts the fields of each row's case after its key."""

    def __init__(self, cases: dict[str, Case]) -> None:
        values = {name: [getattr(case, name) for case in cases.values()] for name in CASE_FIELDS}
        self._fields = pd.DataFrame({"case": pd.Series(list(cases), dtype="object"), **values})
        for name in ("window", "stride", "output_size"):
            self._fields[name] = self._fields[name].astype("Int64")

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        merged = frame.merge(self._fields, on="case", how="left")
        return merged[["case", *CASE_FIELDS, *(name for name in frame.columns if name != "case")]]


def _frame(rows: Iterable[tuple], columns: dict[str, str]) -> pd.DataFrame:
    """A frame with typed columns, even without rows."""
    return pd.DataFrame(list(rows), columns=list(columns)).astype(columns)


def _case_frame(cases: dict[str, Case], disturbed: dict[str, float]) -> pd.DataFrame:
    rows = ((key, case.label(), _flops(case), disturbed.get(key, 0.0)) for key, case in cases.items())
    return _frame(rows, {"case": "object", "label": "object", "flops": "float64", "disturbed": "float64"})


def _disturbed(contents: Contents) -> dict[str, float]:
    """Fraction of each case's rounds that the machine disturbed, including those measured again."""
    rounds: dict[str, dict[int, bool]] = {}
    for row in _rows(contents, Time):
        seen = rounds.setdefault(row.case.key(), {})
        seen[row.round] = seen.get(row.round, False) or row.disturbed
    return {case: sum(seen.values()) / len(seen) for case, seen in rounds.items()}


def _flops(case: Case) -> float:
    if case.stride is not None and case.window is not None and case.stride < min(case.window, case.T):
        return np.nan
    try:
        spec = case.spec()
    except SpecError:
        return np.nan
    whole = spec.forward_flops(case.T, case.B) if case.phase == "forward" else spec.step_flops(case.T, case.B)
    return float(whole) * case.row_steps() / (case.T * case.B)


def _times(contents: Contents) -> tuple[pd.DataFrame, _Samples, list[str]]:
    rows: dict[tuple[str, str, int], tuple] = {}
    samples: dict[tuple[str, str, int], list[float]] = {}
    disturbed: set[tuple[str, str, int]] = set()
    problems = []
    for row in _rows(contents, Time):
        if not valid(row.samples):
            problems.append(invalid_time(row))
            continue
        key = (row.case.key(), row.backend, row.round)
        if key in rows and key not in disturbed:
            problems.append(f"{_where(row)}: timed twice; the later one counts")
        if row.disturbed:
            disturbed.add(key)
        on_device = statistics.median(row.device_samples) if row.device_samples else math.nan
        rows[key] = (*key, row.position, row.loops, len(row.samples), statistics.median(row.samples), on_device)
        samples[key] = row.samples
    types = {"case": "object", "backend": "object", "round": "int64", "position": "int64", "loops": "int64"}
    by_pair: _Samples = {}
    for (case, backend, number), values in sorted(samples.items()):
        by_pair.setdefault((case, backend), {})[number] = values
    return (
        _frame(rows.values(), types | {"samples": "int64", "seconds": "float64", "device_seconds": "float64"}),
        by_pair,
        problems,
    )


def _where(row: Time) -> str:
    return f"{row.backend} on {row.case.label()}, round {row.round}"


def _pairs(times: pd.DataFrame, samples: _Samples, devices: dict[str, str]) -> pd.DataFrame:
    rows = []
    for case in times["case"].unique():
        for backend, other in combinations([name for name in devices if (case, name) in samples], 2):
            if devices[backend] != devices[other]:
                continue
            own, others = samples[case, backend], samples[case, other]
            logarithms = [log_ratio(own[number], others[number]) for number in own if number in others]
            if logarithms:
                rows.append((case, backend, other, len(logarithms), *median_interval(logarithms)))
    types = {"case": "object", "backend": "object", "other": "object", "rounds": "int64"}
    numbers = ["speedup", "speedup_low", "speedup_high"]
    found = _frame(rows, types | dict.fromkeys([*numbers, "coverage"], "float64"))
    found[numbers] = np.exp(found[numbers])
    bounds = zip(found["speedup_low"], found["speedup_high"], found["rounds"], strict=True)
    return found.assign(verdict=pd.Series([ranking(*bound) for bound in bounds], dtype="object"))


def _summary(contents: Contents, cases: dict[str, Case], backends: list[str], times: pd.DataFrame) -> pd.DataFrame:
    status = _statuses(contents)
    peaks = {(row.case.key(), row.backend): row.peak_bytes for row in _rows(contents, Memory)}
    measured: dict[tuple[str, str], list[float]] = {}
    for case, backend, value in times[["case", "backend", "seconds"]].itertuples(index=False, name=None):
        measured.setdefault((case, backend), []).append(value)
    on_device = times.groupby(["case", "backend"])["device_seconds"].median().to_dict()  # of the rounds that have it
    rows = []
    for key, case in cases.items():
        flops = _flops(case)
        for backend in backends:
            seconds = measured.get((key, backend), [])
            missing = "unavailable" if "unavailable" in contents.run.backends.get(backend, {}) else "missing"
            state = status.get((key, backend), "measured" if len(seconds) else missing)
            middle, low, high, _ = median_interval(seconds)
            peak = peaks.get((key, backend), np.nan)
            step = middle / case.T if case.T > 0 else np.nan
            device = on_device.get((key, backend), np.nan)
            rows.append((key, backend, state, len(seconds), middle, low, high, step, device, flops / middle / 1e9, peak))
    numbers = ("seconds", "seconds_low", "seconds_high", "step_seconds", "device_seconds", "gflops", "peak_bytes")
    types = {"case": "object", "backend": "object", "status": "object", "rounds": "int64"}
    return _frame(rows, types | dict.fromkeys(numbers, "float64"))


def _statuses(contents: Contents) -> dict[tuple[str, str], str]:
    """Why a backend's times on a case do not count; a failure to measure memory does not affect them."""
    found = {(row.case.key(), row.backend): "wrong" for row in _rows(contents, Gate) if not row.passed}
    for row in _rows(contents, Failure):
        if row.stage != "memory":
            found.setdefault((row.case.key(), row.backend), row.reason)
    return found


def _default_baselines(summary: pd.DataFrame, backends: list[str]) -> dict[str, str]:
    """For each device with a time, the backend that is fastest in the most cases."""
    found = {}
    for device in summary["device"].dropna().unique():
        measured = summary[(summary["status"] == "measured") & (summary["device"] == device)]
        if measured.empty:
            continue
        fastest = measured.loc[measured.groupby("case")["seconds"].idxmin(), "backend"].value_counts()
        found[str(device)] = max(fastest.index, key=lambda name: (fastest[name], -backends.index(name)))
    return found


def oriented(pairs: pd.DataFrame) -> pd.DataFrame:
    """Every pair in both directions, so that each backend can be the baseline (``other``)."""
    swapped = pairs.rename(columns={"backend": "other", "other": "backend"})
    swapped["speedup"], swapped["speedup_low"], swapped["speedup_high"] = (
        1 / pairs["speedup"],
        1 / pairs["speedup_high"],
        1 / pairs["speedup_low"],
    )
    swapped["verdict"] = pairs["verdict"].replace({FASTER: SLOWER, SLOWER: FASTER})
    return pd.concat([pairs, swapped], ignore_index=True)


def _compared(summary: pd.DataFrame, pairs: pd.DataFrame, baselines: dict[str, str]) -> pd.DataFrame:
    columns = ["case", "backend", "baseline", "speedup", "speedup_low", "speedup_high", "coverage", "verdict"]
    both = oriented(pairs).rename(columns={"other": "baseline"})
    against = summary.assign(baseline=summary["device"].map(baselines).astype("object"))
    return against.merge(both[columns], on=["case", "backend", "baseline"], how="left")


def _gates(contents: Contents) -> pd.DataFrame:
    rows = []
    for row in _rows(contents, Gate):
        for tensor, (error, tolerance) in row.errors.items():
            ratio = _over(error, tolerance)
            rows.append((row.case.key(), row.backend, tensor, row.passed, error, tolerance, ratio))
    types = {"case": "object", "backend": "object", "tensor": "object", "passed": "bool"}
    return _frame(rows, types | dict.fromkeys(("error", "tolerance", "error_over_tolerance"), "float64"))


def _over(error: float | None, tolerance: float) -> float:
    if error is None:
        return np.nan
    if tolerance == 0:
        return 0.0 if error == 0 else np.inf
    return error / tolerance


def _failures(contents: Contents) -> pd.DataFrame:
    rows = [(r.case.key(), r.backend, r.stage, r.reason, r.message, r.round) for r in _rows(contents, Failure)]
    types = dict.fromkeys(("case", "backend", "stage", "reason", "message"), "object")
    return _frame(rows, types | {"round": "Int64"})


def _truncation(contents: Contents, summary: pd.DataFrame) -> pd.DataFrame:
    """Gradient errors joined to results; one error serves all dtypes and threads, since it is a property of the mathematics."""
    errors = {tuple(getattr(r.case, name) for name in _MATHEMATICS): r.relative_error for r in _rows(contents, Truncation)}
    tbptt = summary[summary["phase"] == "tbptt"]
    keys = (
        tuple(None if value is pd.NA else value for value in row)
        for row in tbptt[_MATHEMATICS].astype("object").itertuples(index=False, name=None)
    )
    values = ["backend", "status", "seconds", "seconds_low", "seconds_high", "step_seconds", "peak_bytes"]
    result = tbptt[["case", *CASE_FIELDS, *values]].reset_index(drop=True)
    result.insert(len(CASE_FIELDS) + 1, "relative_error", pd.Series([errors.get(key, np.nan) for key in keys], dtype="float64"))
    return result


def _startup(contents: Contents) -> pd.DataFrame:
    rows = [(r.case.key(), r.backend, r.round, r.cold, r.import_s, r.load_s, r.first_call_s) for r in _rows(contents, Startup)]
    types = {"case": "object", "backend": "object", "round": "int64", "cold": "bool"}
    return _frame(rows, types | dict.fromkeys(("import_s", "load_s", "first_call_s"), "float64"))
