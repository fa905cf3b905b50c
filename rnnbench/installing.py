"""How a library that is missing is installed here; rnnbench is in no registry, so its name alone installs nothing."""

from pathlib import Path


def how_to_install(extra: str) -> str:
    """A command that brings the libraries of one of the extras in pyproject.toml; without paths, as results store it."""
    if (Path(__file__).resolve().parents[1] / "pyproject.toml").is_file():
        return f"pip install -e '.[{extra}]' in the checkout of rnnbench"
    return f"pip install 'SOURCE[{extra}]', where SOURCE is what rnnbench was installed from, a checkout or a wheel"
