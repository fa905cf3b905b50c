"""Time against the batch size B."""

from rnnbench.suite.case import Case

from .common import BACKENDS, NetworkBenchmark  # noqa: TID251  # asv imports this folder under its bare name


class Batch(NetworkBenchmark):
    """An LSTM on B sequences."""

    param_names = ("backend", "B")
    params = (BACKENDS, (1, 16, 128))

    def case(self, value: int) -> Case:
        return Case("lstm", "step", T=32, B=value, I=64, H=64)

    def time_forward(self, backend: str, value: int) -> None:
        self.forward()

    def time_step(self, backend: str, value: int) -> None:
        self.step()
