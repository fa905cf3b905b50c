"""The names that a shell completes.  No library is imported to find them: each press of the key would wait for it."""

from collections.abc import Iterable

from rnnbench.networks.cells import CELLS
from rnnbench.networks.names import CHOOSERS, DTYPES, GROUP, PEERS


def backends() -> list[str]:
    """Whoever is registered, peers and choosers among them."""
    from importlib.metadata import entry_points

    return sorted({entry.name for group in (GROUP, PEERS, CHOOSERS) for entry in entry_points(group=group)})


def suites() -> list[str]:
    """The suites in the package."""
    from importlib.resources import files

    names = (entry.name for entry in files("rnnbench.suites").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def cells() -> Iterable[str]:
    return CELLS


def dtypes() -> Iterable[str]:
    return DTYPES
