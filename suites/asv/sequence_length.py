"""Time, memory and rounding errors against the sequence length T."""

from rnnbench.suite.case import Case

from .common import (  # noqa: TID251  # asv imports this folder under its bare name
    BACKENDS,
    NetworkBenchmark,
    needs_memory_counter,
    relative_error,
    tracked,
)


class SequenceLength(NetworkBenchmark):
    """An LSTM over T time steps."""

    param_names = ("backend", "T")
    params = (BACKENDS, (16, 64, 256))

    def case(self, value: int) -> Case:
        return Case("lstm", "step", T=value, B=16, I=64, H=64)

    def time_forward(self, backend: str, value: int) -> None:
        self.forward()

    def time_step(self, backend: str, value: int) -> None:
        self.step()

    def peakmem_step(self, backend: str, value: int) -> None:
        self.step()

    @tracked("bytes", needs_memory_counter)
    def track_extra_memory(self, backend: str, value: int) -> int:
        return self.extra_memory(self.step)

    @tracked("relative error")
    def track_rounding(self, backend: str, value: int) -> float:
        """Relative error of the parameters' gradients against the reference in float64."""
        return relative_error(self.gradients(value), self.exact_gradients())
