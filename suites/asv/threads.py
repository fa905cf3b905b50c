"""Time against the number of threads."""

from rnnbench.suite.case import Case

from .common import BACKENDS, NetworkBenchmark  # noqa: TID251  # asv imports this folder under its bare name


class Threads(NetworkBenchmark):
    """An LSTM that is large enough to parallelise; n/a if there are fewer processors than threads."""

    param_names = ("backend", "threads")
    params = (BACKENDS, (1, 2, 4, 8))

    def case(self, value: int) -> Case:
        return Case("lstm", "step", T=32, B=64, I=256, H=256, threads=value)

    def time_forward(self, backend: str, value: int) -> None:
        self.forward()

    def time_step(self, backend: str, value: int) -> None:
        self.step()
