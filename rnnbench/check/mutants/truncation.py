"""Bugs in truncated BPTT: in the loop over windows, and in the network between windows."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rnnbench.check.mutants.hooks import Mutant, Planted, in_network, replaced, zeros
from rnnbench.networks.contract import Gradients, Network, State
from rnnbench.networks.truncation import tbptt


class Loop:
    """Correct truncated BPTT on NumPy arrays, for any network; each bug overrides one of its methods."""

    lengths: tuple[np.ndarray, ...] = ()
    """Those of the sequences, or nothing where all have T steps."""

    def __call__(
        self,
        net: Network,
        x: np.ndarray,
        dy: np.ndarray,
        window: int,
        stride: int | None = None,
        state: State | None = None,
        dstate: State | None = None,
        lengths: np.ndarray | None = None,
    ) -> tuple[np.ndarray, State, Gradients]:
        passes, self.lengths = self.passes(len(x), window, stride or window), () if lengths is None else (lengths,)
        y, final = net.forward(x, state, *self.lengths)
        of_params: list[dict[str, np.ndarray]] = []
        dx, initial = np.zeros_like(x), None
        for start, previous, end in passes:
            tape = net.record(x[start:end], self.state_at(net, x, state, start, previous), *self.within(start, end))[2]
            ending = None if dstate is None else self.of_rows_that_end(dstate, previous, end, len(x))
            grads = net.backward(tape, self.cotangent(dy, start, previous, end), ending)
            of_params.append(grads.params)
            dx[start:end] = self.joined(dx[start:end], grads.x)
            if self.reaches_the_start(start, previous):
                initial = grads.state if initial is None else tuple(a + b for a, b in zip(initial, grads.state, strict=True))
        assert initial is not None, "the first pass starts at step 0"
        return self.result(net, x, y, final, passes), final, Gradients(self.total(of_params), dx, initial)

    def passes(self, steps: int, window: int, stride: int) -> list[tuple[int, int, int]]:
        """Return for each pass its first step, the end of the previous pass, and its own end."""
        ends = [*range(stride, steps, stride), steps]
        return [(max(0, end - window), previous, end) for previous, end in zip([0, *ends], ends, strict=False)]

    def state_at(self, net: Network, x: np.ndarray, state: State | None, start: int, previous: int) -> State | None:
        return net.forward(x[:start], state, *(np.minimum(n, start) for n in self.lengths))[1] if start else state

    def within(self, start: int, end: int) -> tuple[np.ndarray, ...]:
        """The lengths within the steps from start to end."""
        return tuple(np.clip(found - start, 0, end - start) for found in self.lengths)

    def of_rows_that_end(self, dstate: State, previous: int, end: int, steps: int) -> State:
        """The cotangent of the final state, with zeros in the rows that end in another pass."""
        if not self.lengths:
            return dstate if end == steps else zeros(dstate)
        ends = self.ends(*self.lengths)
        others = (ends <= previous) | (ends > end)
        return tuple(replaced(part, np.s_[:, others]) for part in dstate)

    def ends(self, lengths: np.ndarray) -> np.ndarray:
        """The step before which a row ends; a row of no steps belongs to the first pass."""
        return np.maximum(lengths, 1)

    def cotangent(self, dy: np.ndarray, start: int, previous: int, end: int) -> np.ndarray:
        """Return dy of the steps since the previous pass, and zeros before."""
        return np.concatenate([np.zeros_like(dy[start:previous]), dy[previous:end]])

    def joined(self, before: np.ndarray, dx: np.ndarray) -> np.ndarray:
        return before + dx

    def reaches_the_start(self, start: int, previous: int) -> bool:
        """Whether the gradient of a pass's first state contributes to the initial state's."""
        return start == 0

    def result(
        self, net: Network, x: np.ndarray, y: np.ndarray, final: State, passes: list[tuple[int, int, int]]
    ) -> np.ndarray:
        return y

    def total(self, of_params: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: sum(grads[name] for grads in of_params) for name in of_params[0]}  # type: ignore[misc]


def window_moved(by: int) -> Callable[..., Any]:
    def moved(net: Any, x: Any, dy: Any, window: int, stride: int | None = None, *others: Any, **options: Any) -> Any:
        moved_window = max(1, window + by)
        return tbptt(net, x, dy, moved_window, min(stride or window, moved_window), *others, **options)

    return moved


def stride_moved(by: int) -> Callable[..., Any]:
    def moved(net: Any, x: Any, dy: Any, window: int, stride: int | None = None, *others: Any, **options: Any) -> Any:
        return tbptt(net, x, dy, window, min(max(1, (stride or window) + by), window), *others, **options)

    return moved


def never_cut(net: Any, x: Any, dy: Any, window: int, stride: int | None = None, *others: Any, **options: Any) -> Any:
    return tbptt(net, x, dy, len(x) or 1, None, *others, **options)


class WindowFromPassBefore(Loop):
    """Count the window from the end of the previous pass."""

    def passes(self, steps: int, window: int, stride: int) -> list[tuple[int, int, int]]:
        return [(max(0, previous - window), previous, end) for _, previous, end in super().passes(steps, window, stride)]


class NoPartialPass(Loop):
    """Leave out the last, partial pass."""

    def passes(self, steps: int, window: int, stride: int) -> list[tuple[int, int, int]]:
        return [found for found in super().passes(steps, window, stride) if found[2] - found[1] == stride or not found[1]]


class CotangentsOfTheWindow(Loop):
    """Take the cotangents of the whole window in every pass, so that those of overlaps count twice."""

    def cotangent(self, dy: np.ndarray, start: int, previous: int, end: int) -> np.ndarray:
        return dy[start:end]


class CotangentOfTheBoundaryTwice(Loop):
    def cotangent(self, dy: np.ndarray, start: int, previous: int, end: int) -> np.ndarray:
        return super().cotangent(dy, start, max(start, previous - 1), end)


class CotangentOfTheBoundaryMissing(Loop):
    def cotangent(self, dy: np.ndarray, start: int, previous: int, end: int) -> np.ndarray:
        return super().cotangent(dy, start, previous + 1, end) if previous else super().cotangent(dy, start, previous, end)


class CotangentsAtTheStart(Loop):
    """Put the cotangents of the new steps at the first steps of the window."""

    def cotangent(self, dy: np.ndarray, start: int, previous: int, end: int) -> np.ndarray:
        return np.concatenate([dy[previous:end], np.zeros_like(dy[start:previous])])


class MeanOverPasses(Loop):
    def total(self, of_params: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: value / value.dtype.type(len(of_params)) for name, value in super().total(of_params).items()}


class LastPassAlone(Loop):
    def total(self, of_params: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return of_params[-1]


class OverlapOverwritten(Loop):
    def joined(self, before: np.ndarray, dx: np.ndarray) -> np.ndarray:
        return dx


class OverlapKept(Loop):
    """Keep dx of an overlap from the first pass that reached it."""

    def joined(self, before: np.ndarray, dx: np.ndarray) -> np.ndarray:
        return np.where(before == 0, dx, before)


class StartsFromZeros(Loop):
    def state_at(self, net: Network, x: np.ndarray, state: State | None, start: int, previous: int) -> State | None:
        return None if start else state


class StartsFromTheInitialState(Loop):
    def state_at(self, net: Network, x: np.ndarray, state: State | None, start: int, previous: int) -> State | None:
        return state


class StartsFromThePassBefore(Loop):
    """Start every window from the state at the end of the previous pass, even if the window starts earlier."""

    def state_at(self, net: Network, x: np.ndarray, state: State | None, start: int, previous: int) -> State | None:
        return super().state_at(net, x, state, previous, previous)


class StartsOneStepEarly(Loop):
    def state_at(self, net: Network, x: np.ndarray, state: State | None, start: int, previous: int) -> State | None:
        return super().state_at(net, x, state, max(0, start - 1), previous)


class EveryPassReachesTheStart(Loop):
    """Add the gradients of all passes' first states to the initial state's."""

    def reaches_the_start(self, start: int, previous: int) -> bool:
        return True


class FirstPassAloneReachesTheStart(Loop):
    def reaches_the_start(self, start: int, previous: int) -> bool:
        return previous == 0


class OutputsFromZeros(Loop):
    """Compute y of every pass but the first from a zero state."""

    def result(
        self, net: Network, x: np.ndarray, y: np.ndarray, final: State, passes: list[tuple[int, int, int]]
    ) -> np.ndarray:
        later = (net.forward(x[start:end], None, *self.within(start, end))[0] for _, start, end in passes[1:])
        return np.concatenate([y[: passes[0][2]], *later])


_LOOPS: dict[str, Callable[..., Any]] = {
    "window one step too long": window_moved(1),
    "window one step too short": window_moved(-1),
    "stride one step too long": stride_moved(1),
    "stride one step too short": stride_moved(-1),
    "window ignored: full BPTT": never_cut,
    "window counted from the pass before": WindowFromPassBefore(),
    "last partial pass left out": NoPartialPass(),
    "cotangents of overlaps counted twice": CotangentsOfTheWindow(),
    "cotangent before the boundary counted twice": CotangentOfTheBoundaryTwice(),
    "cotangent after the boundary missing": CotangentOfTheBoundaryMissing(),
    "cotangents at the wrong end of the window": CotangentsAtTheStart(),
    "gradients are means over the passes": MeanOverPasses(),
    "gradients of the last pass alone": LastPassAlone(),
    "dx of an overlap overwritten": OverlapOverwritten(),
    "dx of an overlap from the first pass alone": OverlapKept(),
    "windows start from zeros": StartsFromZeros(),
    "windows start from the initial state": StartsFromTheInitialState(),
    "windows start from the end of the pass before": StartsFromThePassBefore(),
    "windows start from the state of one step before": StartsOneStepEarly(),
    "initial state gets the gradients of every window's start": EveryPassReachesTheStart(),
    "initial state gets the gradient of the first pass alone": FirstPassAloneReachesTheStart(),
    "y of later windows from zeros": OutputsFromZeros(),
}


def ones_for_none(right: Any, net: Any, tape: Any, dy: np.ndarray, dstate: State | None = None) -> Any:
    ones = tuple(np.ones(shape, net.spec.dtype) for shape in net.spec.state_shapes(tape.batch))
    return right(tape, dy, ones if dstate is None else dstate)


def zeros_after_the_first(right: Any, net: Any, x: np.ndarray, state: State | None = None, *lengths: Any) -> Any:
    """Start every record but the first from zeros."""
    net.records = getattr(net, "records", 0) + 1
    return right(x, state if net.records == 1 or state is None else zeros(state), *lengths)


MUTANTS = [Mutant(f"lstm: {name}", "truncation", ("lstm",), Planted(), loop) for name, loop in _LOOPS.items()]
MUTANTS += [
    Mutant("gru: backward without dstate takes ones", "truncation", ("gru",), in_network(backward=ones_for_none)),
    Mutant(
        "gru: every record but the first starts from zeros", "truncation", ("gru",), in_network(record=zeros_after_the_first)
    ),
]
