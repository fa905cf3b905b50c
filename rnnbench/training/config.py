"""What a training run is to do: TOML files as frozen dataclasses, with every key checked."""

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from rnnbench.data.forecasting import FILLS
from rnnbench.errors import ArgumentError
from rnnbench.models.optimisers import OPTIMISERS
from rnnbench.models.spec import DTYPES
from rnnbench.networks.cells import CELLS
from rnnbench.training.names import TASKS

SCHEDULES = ("constant", "cosine")
VOCABULARIES = ("characters", "words")

QUICK: dict[str, dict[str, Any]] = {
    "lm": {"data": {"batch": 16, "steps": 32}, "model": {"hidden": 64}, "training": {"steps": 100, "evaluate": 50}},
    "forecast": {"data": {"steps": 52}, "model": {"hidden": 16}, "training": {"steps": 100, "evaluate": 25}},
    "classify": {"model": {"hidden": 32}, "training": {"steps": 60, "evaluate": 10}},
}
"""What a quick run changes; it uses one thread, since so small a model gains nothing from more."""

WHOLE = {"shakespeare-sample": "shakespeare", "co2-sample": "co2", "vowels-sample": "japanese-vowels"}
"""The data set that each sample is a part of."""

Check = Callable[[Any], str | None]
"""Returns what is expected instead of a value, None where the value is right."""


def _key(check: Check, default: Any) -> Any:
    return field(default=default, metadata={"check": check})


def _integer(least: int) -> Check:
    def check(value: Any) -> str | None:
        right = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return None if right else f"an integer from {least} on"

    return check


def _number(low: float, high: float = math.inf, *, above: bool = False) -> Check:
    def check(value: Any) -> str | None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and low <= value < high and not (above and value == low):
            return None
        return f"a number {'above' if above else 'from'} {low:g}{'' if high == math.inf else f' to below {high:g}'}"

    return check


def _one_of(*names: str) -> Check:
    return lambda value: None if value in names else f"one of {', '.join(names)}"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "a text in quotes"


def _columns(value: Any) -> str | None:
    right = isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value)
    return None if right else 'a list of names, as in ["co2"]'


def _yes_or_no(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _parts(value: Any) -> str | None:
    numbers = isinstance(value, list | tuple) and len(value) == 3 and not any(_number(0, 1, above=True)(part) for part in value)
    return None if numbers and math.isclose(sum(value), 1) else "3 numbers above 0 that sum to 1"


class _Section:
    """Checks each field by the function in its metadata; None passes where it is the default.  Raises ArgumentError."""

    _place = ""

    def __post_init__(self) -> None:
        for entry in fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            check, value = entry.metadata.get("check"), getattr(self, entry.name)
            if check is None or (value is None and entry.default is None):
                continue
            if expected := check(value):
                raise ArgumentError(f"{self._place}{entry.name} is {value!r}; expected {expected}")
            if isinstance(value, list):
                object.__setattr__(self, entry.name, tuple(value))


@dataclass(frozen=True)
class TextData(_Section):
    """A text: ``name`` of a data set or file, ``path`` of its package; symbols, parts by position, B lanes of T steps."""

    name: str = _key(_text, "shakespeare-sample")
    path: str | None = _key(_text, None)
    vocabulary: str = _key(_one_of(*VOCABULARIES), "characters")
    words: int = _key(_integer(2), 10_000)
    parts: tuple[float, ...] = _key(_parts, (0.9, 0.05, 0.05))
    batch: int = _key(_integer(1), 32)
    steps: int = _key(_integer(1), 64)
    _place = "data."


@dataclass(frozen=True)
class SeriesData(_Section):
    """A series: channels, season, gaps, parts by position, B windows of T steps, and forecasts of 1 to ``horizon`` rows.

    ``relative``: windows begin at 0, and a model predicts the change from the last value; else levels.
    """

    name: str = _key(_text, "co2-sample")
    path: str | None = _key(_text, None)
    columns: tuple[str, ...] | None = _key(_columns, None)
    period: int | None = _key(_integer(1), None)
    missing: str = _key(_one_of(*FILLS), "mask")
    relative: bool = _key(_yes_or_no, True)
    horizon: int = _key(_integer(1), 13)
    parts: tuple[float, ...] = _key(_parts, (0.7, 0.15, 0.15))
    batch: int = _key(_integer(1), 32)
    steps: int = _key(_integer(1), 104)
    _place = "data."


@dataclass(frozen=True)
class SequenceData(_Section):
    """Labelled sequences: ``test`` is the file of the test part, without which a fifth of a file is held out."""

    name: str = _key(_text, "vowels-sample")
    path: str | None = _key(_text, None)
    test: str | None = _key(_text, None)
    folds: int = _key(_integer(2), 4)
    batch: int = _key(_integer(1), 16)
    _place = "data."


@dataclass(frozen=True)
class ModelConfig(_Section):
    """The network; ``embedding`` is for texts alone."""

    cell: str = _key(_one_of(*CELLS), "lstm")
    hidden: int = _key(_integer(1), 64)
    layers: int = _key(_integer(1), 1)
    embedding: int = _key(_integer(1), 32)
    dropout: float = _key(_number(0, 1), 0.0)
    dtype: str = _key(_one_of(*DTYPES), "float32")
    _place = "model."


@dataclass(frozen=True)
class Truncation(_Section):
    """Window and stride of truncated BPTT in steps; None is the whole batch."""

    window: int | None = _key(_integer(1), None)
    stride: int | None = _key(_integer(1), None)
    _place = "truncation."


@dataclass(frozen=True)
class OptimiserConfig(_Section):
    """The optimiser, its learning rate with a schedule, and clipping by norm."""

    name: str = _key(_one_of(*OPTIMISERS), "adam")
    rate: float = _key(_number(0, above=True), 0.003)
    schedule: str = _key(_one_of(*SCHEDULES), "constant")
    clip_norm: float | None = _key(_number(0, above=True), None)
    _place = "optimiser."


@dataclass(frozen=True)
class TrainingConfig(_Section):
    """Steps in all, between evaluations and between checkpoints; ``patience`` evaluations without a better loss end it."""

    steps: int = _key(_integer(1), 1000)
    evaluate: int = _key(_integer(1), 100)
    checkpoint: int = _key(_integer(1), 100)
    patience: int | None = _key(_integer(1), None)
    _place = "training."


DATA: dict[str, type] = {"lm": TextData, "forecast": SeriesData, "classify": SequenceData}
"""What each task reads."""

SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "truncation": Truncation,
    "optimiser": OptimiserConfig,
    "training": TrainingConfig,
}


@dataclass(frozen=True)
class Config(_Section):
    """A training run.  Raises ArgumentError, which names the key, what it is and what it may be."""

    task: str = _key(_one_of(*TASKS), "lm")
    backend: str = _key(_text, "numba_cpu")
    seed: int = _key(_integer(0), 0)
    threads: int | None = _key(_integer(1), None)
    data: TextData | SeriesData | SequenceData = TextData()
    model: ModelConfig = ModelConfig()
    truncation: Truncation = Truncation()
    optimiser: OptimiserConfig = OptimiserConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        window, stride, dropout = self.truncation.window, self.truncation.stride, self.model.dropout
        if stride is None:
            return
        if window is None or stride > window:
            raise ArgumentError(f"truncation.stride is {stride}; expected at most truncation.window, {window}")
        if dropout and stride < window:
            raise ArgumentError(
                f"truncation.stride is {stride} and model.dropout {dropout}; expected the stride to be truncation.window, "
                f"{window}: dropout draws one mask a step"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; ``from_dict`` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], name: str = "config") -> "Config":
        """Check keys and values; ``name`` stands before errors.  Raises ArgumentError."""
        try:
            return _config(given)
        except ArgumentError as error:
            raise ArgumentError(f"{name}: {error}") from None


def _config(given: Mapping[str, Any]) -> Config:
    _require_known("", given, Config)
    if "task" not in given:
        raise ArgumentError(f"task is missing; expected one of {', '.join(TASKS)}")
    plain = {key: value for key, value in given.items() if key != "data" and key not in SECTIONS}
    Config(**plain)
    kinds = {"data": DATA[given["task"]], **SECTIONS}
    sections = {}
    for key, kind in kinds.items():
        section = given.get(key, {})
        if not isinstance(section, Mapping):
            raise ArgumentError(f"{key} is {section!r}; expected a section [{key}]")
        _require_known(f"{key}.", section, kind)
        sections[key] = kind(**section)
    return Config(**plain, **sections)


def _require_known(place: str, given: Mapping[str, Any], kind: type) -> None:
    allowed = [entry.name for entry in fields(kind)]
    for key in given:
        if key not in allowed:
            raise ArgumentError(f"unknown key {place}{key}; expected one of {', '.join(allowed)}")


def load_config(name_or_path: str | Path, *, quick: bool = False, data: str | None = None, **options: Any) -> Config:
    """Read "lm", "forecast" or "classify", which come with rnnbench, or a TOML file.

    ``quick``: a small model and few steps.  ``data``: the name of a data set or a file, or the wheel that holds the data set.
    ``options``: ``backend``, ``seed``, ``threads`` and ``steps`` replace what the file says; None leaves it.
    Raises ArgumentError.
    """
    name, given = _read(name_or_path)
    Config.from_dict(given, name)  # what the file itself says has to be right
    if quick:
        for section, changes in QUICK[given["task"]].items():
            given[section] = {**given.get(section, {}), **changes}
        given.setdefault("threads", 1)
    if data is not None:
        given["data"] = _other_data(given.get("data", {}), data)
    if options.get("steps") is not None:
        given["training"] = {**given.get("training", {}), "steps": options["steps"]}
    given |= {key: value for key, value in options.items() if key != "steps" and value is not None}
    return Config.from_dict(given, name)


def _read(name_or_path: str | Path) -> tuple[str, dict[str, Any]]:
    if name_or_path in TASKS:
        name = f"{name_or_path}.toml"
        return name, tomllib.loads((files("rnnbench.training") / name).read_text("utf-8"))
    path = Path(name_or_path)
    try:
        return path.name, tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise ArgumentError(
            f"{str(path)!r} is neither a task nor a file; expected a path or one of {', '.join(TASKS)}"
        ) from None
    except OSError as error:
        raise ArgumentError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ArgumentError(f"{path.name} is no TOML: {error}") from None


def _other_data(section: Mapping[str, Any], data: str) -> dict[str, Any]:
    changed = dict(section)
    if data.endswith(".whl"):
        name = changed.get("name", "")
        return changed | {"name": WHOLE.get(name, name), "path": data}
    for key in ("path", "columns", "period", "test"):
        changed.pop(key, None)
    return changed | {"name": data}
