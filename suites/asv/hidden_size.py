"""Time against the hidden size H."""

from rnnbench.suite.case import Case

from .common import BACKENDS, NetworkBenchmark  # noqa: TID251  # asv imports this folder under its bare name


class HiddenSize(NetworkBenchmark):
    """An LSTM with input size = hidden size."""

    param_names = ("backend", "H")
    params = (BACKENDS, (32, 128, 512))

    def case(self, value: int) -> Case:
        return Case("lstm", "step", T=32, B=16, I=value, H=value)

    def time_forward(self, backend: str, value: int) -> None:
        self.forward()

    def time_step(self, backend: str, value: int) -> None:
        self.step()
