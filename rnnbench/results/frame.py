"""Load the times of many runs into one pandas frame, column by column, so that a million rows take seconds."""

import math
import warnings
from array import array
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from rnnbench.errors import MissingLibrary
from rnnbench.installing import how_to_install
from rnnbench.results.reader import UNREADABLE, found_files, scan
from rnnbench.results.rows import End, Failure, Gate, Memory, Row, Run, Startup, Truncation
from rnnbench.suite.case import Case
from rnnbench.suite.lengths import DISTRIBUTIONS
from rnnbench.suite.limits import Count, Number

if TYPE_CHECKING:
    import pandas as pd

SIZES = ("T", "B", "I", "H", "layers", "threads")
OPTIONAL = {"output_size": "Int64", "projection_size": "Int64", "window": "Int64", "stride": "Int64", "dirty": "boolean"}
RUN_COLUMNS = ("run", "started", "suite", "machine", "cpu", "os", "python", "version", "commit", "dirty", "file")


def load_results(path: Path | str) -> "pd.DataFrame":
    """Load the times of a results file, or of all below a folder: one row per file, case, backend and round.

    Columns: ``case`` (its key), the fields of ``Case``, ``backend``, ``round``, ``seconds`` (per call, median of the round's
    samples), ``device_seconds`` (the same by the device's clock; NaN without a device timer), ``samples`` (their number),
    ``loops``, ``position``, ``status`` ("measured", or why the times of this case and backend do not count: wrong, error,
    crashed or timeout, also in a later round), and of the run ``run``, ``started``, ``suite``, ``machine``, ``cpu``, ``os``,
    ``python``, ``version`` (of rnnbench), ``commit``, ``dirty`` and ``file``.  Texts are categories.

    If a disturbed round was repeated, the repeat counts.  Left out are files of a folder that hold no run, lines that hold
    no row, times that are not positive numbers, and all but the last of duplicate rows: a UserWarning tells of them, and
    ``attrs["problems"]`` has a sentence for each.
    Raises StoreError if a file is no results file of this schema, and MissingLibrary without pandas.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise MissingLibrary(f"load_results needs pandas: {how_to_install('report')}") from error

    loader = _Loader()
    found = found_files(path)
    loader.problems += found.left_out
    for file in found.files:
        loader.load(file, file.name if file == Path(path) else str(file.relative_to(path)))
    frame = pd.DataFrame(loader.columns(), copy=False)
    if loader.problems:
        frame.attrs["problems"] = loader.problems
        more = f"; {len(loader.problems) - 1:,} more in attrs['problems']" if len(loader.problems) > 1 else ""
        warnings.warn(loader.problems[0] + more, stacklevel=2)
    return frame


class _Time(Row, frozen=True, tag="time"):
    """``Time`` with its case left undecoded: many rows share few cases."""

    case: msgspec.Raw
    backend: str
    round: Number
    position: Number
    loops: Count
    samples: list[float]
    disturbed: bool = False
    device_samples: list[float] = msgspec.field(default_factory=list)


_DECODER: Any = msgspec.json.Decoder(Run | Gate | Startup | _Time | Memory | Truncation | Failure | End)
_CASE = msgspec.json.Decoder(Case)


class _Codes(dict[Any, int]):
    """Number distinct values in order of appearance."""

    def __missing__(self, value: Hashable) -> int:
        self[value] = len(self)
        return self[value]


class _Loader:
    """The rows of all files so far as numeric columns; texts and cases are stored as codes."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._cases, self._backends, self._statuses = _Codes(), _Codes(), _Codes()
        self._written: dict[bytes, int] = {}  # codes of undecoded cases
        self._runs: list[dict[str, Any]] = []
        self._chunks: list[dict[str, np.ndarray]] = []

    def load(self, file: Path, name: str) -> None:
        names = ("case", "backend", "round", "position", "loops", "samples")
        columns = [array("q") for _ in names]
        add_case, add_backend, add_round, add_position, add_loops, add_samples = (column.append for column in columns)
        values, on_device, backends = array("d"), array("d"), self._backends
        device_counts = array("q")
        disturbed = array("b")
        wrong: set[tuple[int, int]] = set()
        failed: dict[tuple[int, int], str] = {}
        for line in scan(file, _DECODER):
            row = line.row
            if line.problem is not None:
                self.problems.append(line.problem)
            elif type(row) is _Time:
                try:
                    add_case(self._case(row.case))
                except UNREADABLE as error:
                    self.problems.append(f"{file.name}:{line.number}: not a row: {error} - in its case")
                    continue
                add_backend(backends[row.backend])
                add_round(row.round)
                add_position(row.position)
                add_loops(row.loops)
                add_samples(len(row.samples))
                disturbed.append(row.disturbed)
                values.extend(row.samples)
                device_counts.append(len(row.device_samples))
                on_device.extend(row.device_samples)
            elif isinstance(row, Run):
                run = row
            elif isinstance(row, Gate) and not row.passed:
                wrong.add((self._cases[row.case], backends[row.backend]))
            elif isinstance(row, Failure) and row.stage != "memory":
                failed.setdefault((self._cases[row.case], backends[row.backend]), row.reason)
        self._runs.append(_facts(run, name))
        chunk = {name: np.array(column, dtype=np.int64) for name, column in zip(names, columns, strict=True)}
        samples = np.array(values)
        chunk["seconds"] = _medians(samples, chunk["samples"])
        chunk["device_seconds"] = _medians(np.array(on_device), np.array(device_counts, dtype=np.int64))
        chunk["status"] = self._status(chunk, failed | dict.fromkeys(wrong, "wrong"))
        chunk["file"] = np.full(len(chunk["case"]), len(self._runs) - 1)
        self._chunks.append(self._cleaned(chunk, _invalid(samples, chunk["samples"]), np.array(disturbed, dtype=bool), file))

    def columns(self) -> dict[str, Any]:
        """Return the columns of the frame."""
        whole = {name: np.concatenate([chunk.pop(name) for chunk in self._chunks]) for name in list(self._chunks[0])}
        cases, files = list(self._cases), whole.pop("file")
        which = whole.pop("case")
        result = {"case": _texts([case.key() for case in cases], which)}
        for name in Case.__struct_fields__:
            result[name] = _field(name, [getattr(case, name) for case in cases], which)
        result["backend"] = _texts(list(self._backends), whole.pop("backend"))
        result |= {name: whole[name] for name in ("round", "seconds", "device_seconds", "samples", "loops", "position")}
        result["status"] = _texts(list(self._statuses), whole["status"])
        return result | {name: _field(name, [run[name] for run in self._runs], files) for name in RUN_COLUMNS}

    def _case(self, written: msgspec.Raw) -> int:
        content = bytes(written)
        if content not in self._written:
            self._written[content] = self._cases[_CASE.decode(content)]
        return self._written[content]

    def _status(self, chunk: dict[str, np.ndarray], reasons: dict[tuple[int, int], str]) -> np.ndarray:
        pairs, places = np.unique(np.stack([chunk["case"], chunk["backend"]]), axis=1, return_inverse=True)
        codes = [self._statuses[reasons.get((case, backend), "measured")] for case, backend in pairs.T.tolist()]
        return np.array(codes, dtype=np.int64)[places.ravel()]

    def _cleaned(
        self, chunk: dict[str, np.ndarray], invalid: dict[int, float], disturbed: np.ndarray, file: Path
    ) -> dict[str, np.ndarray]:
        """Drop rows without a valid time and duplicates; report each, except duplicates from repeated disturbed rounds."""
        import pandas as pd

        positive = np.ones(len(chunk["case"]), dtype=bool)
        for place, seconds in sorted(invalid.items()):
            self.problems.append(f"{self._where(chunk, place, file)}: a time of {seconds} s was left out")
            positive[place] = False
        keys = pd.DataFrame({name: chunk[name] for name in ("case", "backend", "round")})[positive]
        again = keys.index[keys.duplicated(keep="last")].tolist()
        for place in again:
            if disturbed[place]:
                continue
            self.problems.append(f"{self._where(chunk, place, file)}: timed twice; the later one counts")
        positive[again] = False
        return {name: values[positive] for name, values in chunk.items()} if not positive.all() else chunk

    def _where(self, chunk: dict[str, np.ndarray], place: int, file: Path) -> str:
        case, backend = list(self._cases)[chunk["case"][place]], list(self._backends)[chunk["backend"][place]]
        return f"{file.name}: {backend} on {case.label()}, round {chunk['round'][place]}"


def _facts(run: Run, name: str) -> dict[str, Any]:
    environment = run.environment
    facts = {name: environment.get(name) for name in ("machine", "cpu", "os", "python", "commit")}
    versions = environment.get("versions")
    version = versions.get("rnnbench") if isinstance(versions, dict) else None
    own = {"run": run.run, "started": run.started, "suite": run.suite, "version": version, "file": name}
    texts = {name: value if value is None else str(value) for name, value in (facts | own).items()}
    return texts | {"dirty": dirty if isinstance(dirty := environment.get("dirty"), bool) else None}


def _invalid(samples: np.ndarray, counts: np.ndarray) -> dict[int, float]:
    """Apply ``results.valid.valid`` to many rows; return the invalid ones by position, with their first invalid sample."""
    found = dict.fromkeys(np.flatnonzero(counts == 0).tolist(), math.nan)
    wrong = np.flatnonzero(~(np.isfinite(samples) & (samples > 0)))[::-1]
    rows = np.searchsorted(np.cumsum(counts), wrong, side="right")
    return found | dict(zip(rows.tolist(), samples[wrong].tolist(), strict=True))


def _medians(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the median of each group of ``counts`` consecutive values; NaN for an empty group."""
    starts = np.cumsum(counts) - counts
    result = np.full(len(counts), np.nan)
    for count in np.unique(counts[counts > 0]):
        those = counts == count
        result[those] = np.median(values[starts[those, None] + np.arange(count)], axis=1)
    return result


def _field(name: str, values: list[Any], which: np.ndarray) -> Any:
    """Return a column from the distinct ``values`` and each row's index into them."""
    import pandas as pd

    if name in OPTIONAL:
        return pd.Series(values, dtype=OPTIONAL[name]).array.take(which)
    if name in SIZES or name in ("bidirectional", "bias"):
        return np.array(values, dtype=np.int64 if name in SIZES else bool)[which]
    return _texts(values, which, DISTRIBUTIONS if name == "lengths" else ())


def _texts(values: Sequence[str | None], which: np.ndarray, known: Sequence[str] = ()) -> Any:
    """Return a categorical column from the distinct ``values`` and each row's index into them.

    ``known``: categories to have in any case; Parquet forgets that a column without categories is one of texts.
    """
    import pandas as pd

    found = dict.fromkeys([*known, *(value for value in values if value is not None)])
    places = {text: place for place, text in enumerate(found)}
    codes = np.array([-1 if value is None else places[value] for value in values], dtype=np.int32)
    return pd.Categorical.from_codes(codes[which], categories=pd.Index(list(places), dtype="object"))
