"""Code that torch.compile leaves alone."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function that torch.compile should run as it is, with all that it calls.

    torch.compiler.disable alone would import torch's compiler, which takes seconds.
    """

    disabled = None

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal disabled
        if "torch._dynamo" not in sys.modules:
            return function(*arguments)
        if disabled is None:
            disabled = torch.compiler.disable(function)
        return disabled(*arguments)

    return call
