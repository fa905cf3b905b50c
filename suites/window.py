"""What the truncation window costs in time and saves in memory."""

from rnnbench.store import Case

from .common import BACKENDS, NetworkBenchmark  # noqa: TID251  # asv imports this folder under its bare name


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
