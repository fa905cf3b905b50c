"""Installation hints for optional libraries; rnnbench is not on a package index, so the hints name its source."""

from pathlib import Path


def how_to_install(extra: str) -> str:
    """The command that installs an extra of pyproject.toml; without local paths, because results store it."""
    if (Path(__file__).resolve().parents[1] / "pyproject.toml").is_file():
        return f"pip install -e '.[{extra}]' in the checkout of rnnbench"
    return f"pip install 'SOURCE[{extra}]', where SOURCE is what rnnbench was installed from, a checkout or a wheel"
