"""Time, memory and accuracy of truncated BPTT against the window."""

from rnnbench.suite.case import Case

from .common import (  # noqa: TID251  # asv imports this folder under its bare name
    BACKENDS,
    NetworkBenchmark,
    needs_memory_counter,
    relative_error,
    tracked,
)


class Window(NetworkBenchmark):
    """Truncated BPTT of an LSTM; a window of T = 256 is full BPTT."""

    param_names = ("backend", "window")
    params = (BACKENDS, (4, 32, 256))

    def case(self, value: int) -> Case:
        return Case("lstm", "tbptt", T=256, B=8, I=64, H=64, window=value)

    def time_tbptt(self, backend: str, value: int) -> None:
        self.tbptt()

    def peakmem_tbptt(self, backend: str, value: int) -> None:
        self.tbptt()

    @tracked("bytes", needs_memory_counter)
    def track_extra_memory(self, backend: str, value: int) -> int:
        return self.extra_memory(self.tbptt)

    @tracked("relative error")
    def track_gradient_error(self, backend: str, value: int) -> float:
        """Relative error of the parameters' gradients against full BPTT of the reference in float64."""
        return relative_error(self.gradients(value), self.exact_gradients())
