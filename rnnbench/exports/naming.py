"""Names for cases and backends in all export formats, and those without times."""

from collections.abc import Iterator

from rnnbench.errors import StoreError
from rnnbench.results.reader import Contents
from rnnbench.results.rows import Time
from rnnbench.results.valid import reasons, times
from rnnbench.text import printable


def left_out(contents: Contents) -> list[str]:
    """Return a sentence for each case and backend of the run without times that count."""
    measured, excluded = times(contents), reasons(contents)
    names = [name for name, facts in contents.run.backends.items() if "unavailable" not in facts]
    wanted = dict.fromkeys([*((case, name) for case in contents.run.cases for name in names), *excluded])
    return [
        f"{case.label()} {name}: {excluded.get((case, name), 'missing')}"
        for case, name in wanted
        if (case, name) not in measured
    ]


def named_rounds(contents: Contents) -> Iterator[tuple[str, dict[int, Time]]]:
    """Yield a name and the rounds of each case and backend; raises StoreError without times or for duplicate names."""
    measured = times(contents)
    if not measured:
        raise StoreError(f"{contents.path} has no time that counts; expected some to export")
    seen: set[str] = set()
    for (case, backend), rounds in measured.items():
        name = one_line(f"{case.label()} {backend}")
        if name in seen:
            raise StoreError(f"{contents.path} has two cases that are called {name!r}; expected a name for each")
        seen.add(name)
        yield name, rounds


def one_line(value: object) -> str:
    return printable(str(value)).strip()
