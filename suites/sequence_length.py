"""How time and memory grow with the sequence length T."""

from rnnbench.store import Case

from .common import BACKENDS, NetworkBenchmark  # noqa: TID251  # asv imports this folder under its bare name


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
