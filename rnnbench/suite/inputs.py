"""Inputs of a case: text or noise for x, standard normal states and cotangents, all from one seed."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.suite.case import Case

SOURCES = ("text", "noise")

SAMPLE = "shakespeare.txt"
"""File name of the sample text in ``rnnbench/data``; ORIGIN.txt there gives its origin."""


class Inputs(NamedTuple):
    """NumPy arrays in the case's dtype.

    x is (T, B, I), dy is (T, B, D*H), or D*O for jordan; the parts of state and dstate have the shapes of
    ``Spec.state_shapes``.
    """

    x: np.ndarray
    state: tuple[np.ndarray, ...]
    dy: np.ndarray
    dstate: tuple[np.ndarray, ...]

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> "Inputs":
        """Apply ``change`` to every array."""
        state, dstate = (tuple(change(array) for array in part) for part in (self.state, self.dstate))
        return Inputs(change(self.x), state, change(self.dy), dstate)


def make_input(case: Case, source: str = "text", seed: int = 0, text_file: Path | str | None = None) -> Inputs:
    """Make the inputs of a case; the same arguments give the same values in every dtype, up to rounding.

    ``source``: "noise", standard normal x; or "text", a text in which each distinct character is a row of a table of
    standard normal values.  The sequences of a batch start at evenly spaced offsets of the text and wrap around at its end.
    ``text_file``: a UTF-8 text file to use instead of the package's sample.
    x, state, dy and dstate come from independent random streams of the seed.  Raises ArgumentError.
    """
    if source not in SOURCES:
        raise ArgumentError(f"source is {source!r}; expected one of {', '.join(SOURCES)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ArgumentError(f"seed is {seed!r}; expected an integer >= 0")
    if text_file is not None and source != "text":
        raise ArgumentError(f"text_file is {str(text_file)!r} for source {source!r}; expected none")
    spec = case.spec()
    x_stream, state_stream, dy_stream, dstate_stream = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)
    )

    def normal(stream: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return stream.standard_normal(shape).astype(spec.numpy_dtype, copy=False)

    if source == "noise":
        x = normal(x_stream, (case.T, case.B, case.I))
    else:
        symbols, stream = encoded(read_text(text_file))
        x = normal(x_stream, (symbols, case.I))[batches(stream, case.T, case.B)]
    state_shapes = spec.state_shapes(case.B)
    return Inputs(
        x=x,
        state=tuple(normal(state_stream, shape) for shape in state_shapes),
        dy=normal(dy_stream, (case.T, case.B, spec.features)),
        dstate=tuple(normal(dstate_stream, shape) for shape in state_shapes),
    )


def read_text(file: Path | str | None = None) -> str:
    """Read a text file, or the package's sample; raises ArgumentError if it is unreadable, not UTF-8 or empty."""
    place = resources.files("rnnbench.data") / SAMPLE if file is None else Path(file)
    try:
        text = place.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ArgumentError(f"cannot read the text {str(file)!r}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{file} is not text in UTF-8: {error.reason} at byte {error.start}") from None
    if not text:
        raise ArgumentError(f"{file} is empty; expected a text of at least one character")
    return text


def encoded(text: str) -> tuple[int, np.ndarray]:
    """Return the number of distinct characters of a text, and the text as indices into them, sorted by code point."""
    symbols, stream = np.unique(np.frombuffer(text.encode("utf-32-le"), np.uint32), return_inverse=True)
    return len(symbols), stream


def batches(stream: np.ndarray, steps: int, batch: int) -> np.ndarray:
    """Return B sequences of T consecutive elements, (T, B), from evenly spaced offsets of a stream that wraps around."""
    offsets = np.arange(batch) * len(stream) // batch
    return stream[(offsets + np.arange(steps)[:, None]) % len(stream)]
