"""Modules with a text replaced, for tests that plant faults."""

import inspect
import types


def patched(module: types.ModuleType, *replaced: tuple[str, str]) -> types.ModuleType:
    """A copy in which each old text, which has to be there, is the new one wherever it stands."""
    source = inspect.getsource(module)
    for old, new in replaced:
        assert old in source, old
        source = source.replace(old, new)
    copy = types.ModuleType(module.__name__)
    copy.__file__ = module.__file__
    exec(compile(source, str(module.__file__), "exec"), copy.__dict__)
    return copy
