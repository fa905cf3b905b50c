"""Suites: named lists of cases in TOML files, validated before anything runs.

A suite file has ``name``, ``description``, ``source``, optional ``[settings]`` and one or more ``[[grid]]`` tables.  The
keys of a grid are the fields of ``Case``, each with a value or a list; the grid is the product of all lists.  ``I = "H"``
sets the input size to the hidden size.  ``shapes``, a list of tables with the same keys, holds values that vary together:

    [[grid]]
    cell = ["lstm", "gru"]
    phase = "step"
    I = "H"
    shapes = [{ H = 512, B = 32, T = 25 }, { H = 256, B = 16, T = 150 }]
"""

import itertools
import math
import re
import reprlib
import tomllib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from rnnbench.errors import SpecError, SuiteError
from rnnbench.suite.case import PHASES, Case
from rnnbench.suite.inputs import SOURCES
from rnnbench.suite.lengths import DISTRIBUTIONS
from rnnbench.suite.limits import Layers, Seed, Size

MAX_CASES = 10_000
"""Largest number of cases in a suite; more are almost certainly a mistake."""

_KEYS: dict[str, Any] = {
    "cell": str,
    "phase": str,
    "T": Size,
    "B": Size,
    "I": Size | str,
    "H": Size,
    "layers": Layers,
    "bidirectional": bool,
    "nonlinearity": str,
    "bias": bool,
    "output_size": Size,
    "window": Size,
    "stride": Size,
    "dtype": str,
    "threads": Size,
    "lengths": str,
    "projection_size": Size,
}
_REQUIRED = ("cell", "phase", "T", "B", "I", "H")


class SuiteSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Default settings of a suite; the command line overrides them, and None means its default.

    ``time_limit``: seconds per case.  ``backends``: the backends to run, which may include peers; default: all but peers.
    """

    rounds: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    input: str | None = None
    seed: Seed | None = None
    time_limit: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None
    backends: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | None = None


class Suite(NamedTuple):
    """A validated suite: every case is a valid network, and no case occurs twice."""

    name: str
    description: str
    source: str
    settings: SuiteSettings
    cases: list[Case]


def suite_names() -> list[str]:
    """List the names of the suites in the package, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load_suite(name_or_path: str | Path) -> Suite:
    """Read a suite by its name in the package, or by the path of a .toml file; raises SuiteError."""
    text = str(name_or_path)
    if text.endswith(".toml"):
        return _suite(text, Path(text))
    names = suite_names()
    if text not in names:
        raise SuiteError(f"unknown suite {text!r}; known are {', '.join(names)}, or give the path of a .toml file")
    return _suite(f"{text}.toml", _folder() / f"{text}.toml")


def _folder() -> Traversable:
    return resources.files("rnnbench.suites")


def _one_or_more(kind: Any) -> Any:
    return Annotated[list[kind], msgspec.Meta(min_length=1)]


_Shape = msgspec.defstruct(
    "Shape", [(key, kind | msgspec.UnsetType, msgspec.UNSET) for key, kind in _KEYS.items()], forbid_unknown_fields=True
)
_Grid = msgspec.defstruct(
    "Grid",
    [
        *((key, kind | _one_or_more(kind) | msgspec.UnsetType, msgspec.UNSET) for key, kind in _KEYS.items()),
        ("shapes", _one_or_more(_Shape) | msgspec.UnsetType, msgspec.UNSET),
    ],
    forbid_unknown_fields=True,
)
_File = msgspec.defstruct(
    "File",
    [
        ("name", Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]{0,63}$")]),
        ("description", Annotated[str, msgspec.Meta(min_length=1)]),
        ("source", Annotated[str, msgspec.Meta(min_length=1)]),
        ("grid", _one_or_more(_Grid)),
        ("settings", SuiteSettings, SuiteSettings()),
    ],
    forbid_unknown_fields=True,
)
_Whole = msgspec.defstruct("Whole", [("file", _File)])  # gives every error a path, even errors about the file itself
_TABLES: dict[str, Any] = {"": _File, "settings": SuiteSettings, "grid": _Grid, "shapes": _Shape}


def _suite(shown: str, file: Traversable) -> Suite:
    data = _data(shown, file)
    try:
        whole: Any = msgspec.convert({"file": data}, _Whole, strict=True)
    except msgspec.ValidationError as error:
        raise SuiteError(f"{shown}: {_explained(str(error), data)}") from None
    content = whole.file
    if content.settings.input not in (None, *SOURCES):
        raise SuiteError(f"{shown}: settings input is {content.settings.input!r}; expected {' or '.join(SOURCES)}")
    places: dict[Case, int] = {}
    for number, grid in enumerate(content.grid, 1):
        try:
            for case in _cases(grid, MAX_CASES - len(places)):
                if case in places:
                    raise SuiteError(f"{case.label()} is already in grid {places[case]}; expected each case once")
                places[case] = number
        except SuiteError as error:
            raise SuiteError(f"{shown}: grid {number}: {error}") from None
    return Suite(content.name, content.description, content.source, content.settings, list(places))


def _data(shown: str, file: Traversable) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise SuiteError(f"cannot read {shown}: {error.strerror}") from None
    except RecursionError:
        raise SuiteError(f"{shown}: not a suite: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, or a number that is too long
        raise SuiteError(f"{shown}: not TOML in UTF-8: {_one_line(error)}") from None


def _cases(grid: Any, limit: int) -> Iterator[Case]:
    """Yield all combinations of a grid's lists; the first key varies slowest, the shapes fastest."""
    fields = _given(grid)
    shapes = [_given(shape) for shape in fields.pop("shapes", [])] or [{}]
    twice = sorted({key for shape in shapes for key in shape if key in fields})
    if twice:
        raise SuiteError(f"{', '.join(twice)} given in the grid and in its shapes; expected only one of them")
    axes = {key: value if isinstance(value, list) else [value] for key, value in fields.items()}
    count = math.prod(map(len, axes.values())) * len(shapes)
    if count > limit:
        raise SuiteError(f"makes {count} cases; expected at most {limit}, for {MAX_CASES} in a suite")
    for values in itertools.product(*axes.values()):
        for shape in shapes:
            yield _case(dict(zip(axes, values, strict=True)) | shape)


def _case(fields: dict[str, Any]) -> Case:
    missing = [key for key in _REQUIRED if key not in fields]
    if missing:
        raise SuiteError(f"{', '.join(missing)} missing; expected at least {', '.join(_REQUIRED)}")
    if fields["phase"] not in PHASES:
        raise SuiteError(f"phase is {fields['phase']!r}; expected one of {', '.join(PHASES)}")
    if isinstance(fields["I"], str):
        if fields["I"] != "H":
            raise SuiteError(f"I is {fields['I']!r}; expected a size or 'H'")
        fields["I"] = fields["H"]
    case = Case(**fields)
    try:
        case.spec()
    except SpecError as error:
        raise SuiteError(str(error)) from None
    _check_window(case)
    _check_lengths(case)
    return case


def _check_lengths(case: Case) -> None:
    if case.lengths not in (None, *DISTRIBUTIONS):
        raise SuiteError(f"lengths is {case.lengths!r}; expected one of {', '.join(DISTRIBUTIONS)}")


def _check_window(case: Case) -> None:
    if case.phase != "tbptt":
        for key in ("window", "stride"):
            value = getattr(case, key)
            if value is not None:
                raise SuiteError(f"{key} is {value} for phase {case.phase}; expected none: only tbptt has a {key}")
        return
    if case.window is None:
        raise SuiteError("window missing; expected one for phase tbptt")
    stride = case.window if case.stride is None else case.stride
    if stride > case.window:
        raise SuiteError(f"stride is {stride}; expected at most window = {case.window}")
    if case.bidirectional and stride < case.T:
        raise SuiteError(
            f"bidirectional is true for stride {stride} and T = {case.T}; expected false: two directions cannot be cut in time"
        )


def _given(struct: Any) -> dict[str, Any]:
    return {key: value for key, value in msgspec.structs.asdict(struct).items() if value is not msgspec.UNSET}


_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")


def _explained(message: str, data: dict[str, Any]) -> str:
    """Rewrite an error of msgspec, as ``Expected `int` >= 1 - at `$.file.grid[1].T```, into place, value and expectation."""
    reason, _, path = message.rpartition(" - at `$.file")
    steps = re.findall(r"\.(\w+)|\[(\d+)\]", path)
    value: Any = data
    words: list[str] = []
    for name, index in steps:
        value = value[name or int(index)]
        words.append(name or str(int(index) + 1))
    place = " ".join(words)
    if unknown := _UNKNOWN.fullmatch(reason):
        names = [name for name, _ in steps if name]
        known = _TABLES[names[-1] if names else ""].__struct_fields__
        return f"{place or 'the file'} has an unknown key {_shown(unknown[1])}; expected one of {', '.join(known)}"
    if missing := _MISSING.fullmatch(reason):
        return f"{' '.join([*words, missing[1]])} is missing"
    expected = reason.replace("`object`", "`table`").replace("Object", "Table")
    return f"{place} is {_shown(value)}; {expected[0].lower()}{expected[1:]}"


def _shown(value: Any) -> str:
    try:
        return _one_line(reprlib.repr(value))
    except ValueError:  # an integer with too many digits for Python to print
        return "a number too long to show"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
