"""A digest of a third-party backend's source, so that a run resumes only with the same code."""

import hashlib
import sys
from pathlib import Path
from typing import Any

from rnnbench.networks.contract import FILE_PREFIX

INSTALLED = {"site-packages", "dist-packages"}


def code_digest(module: Any) -> str | None:
    """Return a digest of a module's source and of its loaded neighbours; None for a module of rnnbench.

    The neighbours of a file are the modules in its folder and below, except installed packages; those of a package's module
    are the whole package.
    """
    if module.__name__.startswith("rnnbench.") or not module.__file__:
        return None
    digest = hashlib.sha256()
    for name, content in sorted(_sources(module)):
        digest.update(b"%d %d " % (len(name), len(content)) + name + content)
    return digest.hexdigest()[:16]


def _sources(module: Any) -> set[tuple[bytes, bytes]]:
    own = Path(module.__file__).resolve()
    package = "" if module.__name__.startswith(FILE_PREFIX) else module.__name__.partition(".")[0]
    found = {(own.name.encode(), own.read_bytes())}
    for name, other in list(sys.modules.items()):
        file = getattr(other, "__file__", None)
        path = Path(file).resolve() if isinstance(file, str) else None
        if path is None or path.suffix != ".py" or not path.is_file():
            continue
        neighbour = path.is_relative_to(own.parent) and not INSTALLED & set(path.relative_to(own.parent).parts)
        if name.partition(".")[0] == package if package else neighbour:
            found.add((name.encode(), path.read_bytes()))
    return found
