"""What a new GPU is asked first, stage by stage: ``python -m rnnbench.impls.numba_cuda.first_run STAGE``.

Each finding is one JSON object on standard output, written as soon as it is known.  Times are medians of CUDA events on
the stream of the work, in microseconds.  Written without a GPU: only the gate has been tried, in the simulator.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from rnnbench.cells import CELLS
from rnnbench.impls.numba_cuda.layout import BARRIER, MESSAGES, Product, Shape, mail_size, places
from rnnbench.impls.numba_cuda.regimes import CLUSTER, EXCHANGE, choose
from rnnbench.spec import NARROW, Spec
from rnnbench.store import Case

MEETINGS = 1000
"""Exchanges of one launch."""

HIDDEN = (64, 128, 256, 512, 1024, 1000, 1500)
BATCHES = (1, 2, 4, 8, 16, 17, 32, 64)
STEPS = 256
DTYPES, CELLS_TIMED = ("float32", *NARROW), ("lstm", "gru", "elman")
DEVICE = "cuda"
"""Of PyTorch's networks."""

GRAPH_HIDDEN, GRAPH_BATCHES = (64, 256, 512, 1024), (1, 16, 64)
"""Enough to see what launches cost."""

SANITIZED = """
from rnnbench.check import Problem, expected, gate
from rnnbench.impls import numba_cuda
from rnnbench.store import Case
for cell, hidden, dtype in (("lstm", 70, "float32"), ("gru_reset_before", 70, "float32"), ("lstm", 520, "bfloat16")):
    problem = Problem(Case(cell=cell, phase="step", T=2, B=2, I=3, H=hidden, dtype=dtype))
    assert all(finding.passed for finding in gate(numba_cuda, problem, expected(problem))), cell
"""


def facts() -> Iterator[dict[str, Any]]:
    """Versions, the device, and how many of the largest clusters it runs at once."""
    from numba import cuda

    from rnnbench.impls.numba_cuda.device import device_limits, info

    device = cuda.get_current_device()
    limits = device_limits()._asdict()
    libraries = {name: version(name) for name in ("cuda-core", "cuda-bindings", "numpy")}
    yield {"what": "device", **info(), **libraries, "capability": list(device.compute_capability), "limits": limits}
    if limits["cluster"]:
        for blocks, shared in ((8, 1), (8, 50_000), (16, 1), (16, 50_000)):
            kernel = exchanges(Shape(blocks, 32, 8, 1, 0), shared)
            yield {"what": "clusters at once", "blocks": blocks, "shared": 4 * shared, "value": kernel.clusters_at_once()}


def latency() -> Iterator[dict[str, Any]]:
    """Of an exchange within a block, in a cluster either way, and in the grid; microseconds each."""
    from rnnbench.impls.numba_cuda.arrays import DeviceArrays
    from rnnbench.impls.numba_cuda.device import device_limits

    limits, zeros = device_limits(), DeviceArrays(np.dtype("float32")).zeros
    nothing = zeros((1,))
    clusters = [blocks for blocks in (2, 4, 8, 16) if blocks <= limits.cluster]
    shapes = [Shape(1, 32, 8, 1, 0)]
    shapes += [Shape(blocks, 32, 8, 1, 0, exchange=exchange) for blocks in clusters for exchange in (BARRIER, MESSAGES)]
    shapes += [Shape(blocks, 32, 8, 1, 0, grid=True) for blocks in (32, 64, limits.multiprocessors)]
    for shape in shapes:
        kernel = exchanges(shape, 0)
        time = microseconds(lambda run=kernel: run(1, zeros, nothing, MEETINGS, 1, 0)) / MEETINGS
        how = "grid" if shape.grid else shape.exchange if shape.blocks > 1 else "block"
        yield {"what": f"exchange: {how}", "blocks": shape.blocks, "value": time}


def peers() -> Iterator[dict[str, Any]]:
    """cuDNN through torch.nn: microseconds a step of forward and of forward with BPTT, TF32 off."""
    if reason := missing_peer():
        yield {"what": "no peer", "reason": reason}
        return
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for dtype, cell, (hidden, batch) in itertools.product(DTYPES, CELLS_TIMED, sizes()):
        for phase, call in of_torch(cell, hidden, batch, dtype).items():
            yield timing("torch.nn", cell, phase, hidden, batch, dtype, microseconds(call) / STEPS)


def gates(hidden: Sequence[int] = (32, *HIDDEN), steps: int = 8, batch: int = 17) -> Iterator[dict[str, Any]]:
    """Every cell, dtype and hidden size against the float64 reference; at the end the clusters of float32 by messages, too."""
    from rnnbench.impls.numba_cuda.device import device_limits

    for size, cell, dtype in itertools.product(hidden, CELLS, DTYPES):
        yield gated(size, cell, dtype, steps, batch)
    before = EXCHANGE.set(MESSAGES)
    for size, cell in itertools.product(hidden, CELLS):
        if choose(Spec(cell, 1, size), device_limits()).name == CLUSTER:
            yield gated(size, cell, "float32", steps, batch) | {"exchange": MESSAGES}
    EXCHANGE.reset(before)


def gated(size: int, cell: str, dtype: str, steps: int, batch: int) -> dict[str, Any]:
    from rnnbench.check import Problem, expected, gate
    from rnnbench.impls import numba_cuda

    case = Case(cell=cell, phase="step", T=steps, B=batch, I=max(1, size // 2), H=size, dtype=dtype)
    worst = gate(numba_cuda, Problem(case), expected(Problem(case)))[0]
    found = {"passed": worst.passed, "worst": str(worst), "regime": numba_cuda.info(case.spec())["regime"]}
    return {"what": "gate", "cell": cell, "H": size, "dtype": dtype, **found}


def sanitizer() -> Iterator[dict[str, Any]]:
    """compute-sanitizer's tools on small networks of both loops over time, and on one for tensor cores."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        yield {"what": "no sanitizer", "reason": "compute-sanitizer is not on the path"}
        return
    for check in ("memcheck", "racecheck", "initcheck", "synccheck"):
        command = [tool, "--tool", check, "--error-exitcode", "1", sys.executable, "-c", SANITIZED]
        done = subprocess.run(command, capture_output=True, text=True)
        yield {"what": check, "passed": done.returncode == 0, "said": (done.stdout + done.stderr)[-2000:]}


def timings() -> Iterator[dict[str, Any]]:
    """numba_cuda: microseconds a step of forward and of forward with BPTT, at the sizes of the peers."""
    for dtype, cell, (hidden, batch) in itertools.product(DTYPES, CELLS_TIMED, sizes()):
        for phase, call in of_numba_cuda(cell, hidden, batch, dtype).items():
            yield timing("numba_cuda", cell, phase, hidden, batch, dtype, microseconds(call) / STEPS)


def graphs() -> Iterator[dict[str, Any]]:
    """cuDNN and numba_cuda, called and replayed as a CUDA graph: microseconds a step of both phases, TF32 off."""
    if reason := missing_peer():
        yield {"what": "no graph", "reason": reason}
        return
    import torch

    from rnnbench.impls.numba_cuda.graphs import captured

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for batch, hidden, cell, dtype in itertools.product(GRAPH_BATCHES, GRAPH_HIDDEN, CELLS_TIMED[:2], DTYPES):
        for who, phases in (("torch.nn", of_torch), ("numba_cuda", of_numba_cuda)):
            for phase, call in phases(cell, hidden, batch, dtype).items():
                found = timing(who, cell, phase, hidden, batch, dtype, microseconds(call) / STEPS)
                yield found | {"graph": microseconds(captured(call).replay) / STEPS}


def of_torch(cell: str, hidden: int, batch: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """The phases of cuDNN; a step is forward and all gradients, of the input's too."""
    import torch

    of_dtype = {"device": DEVICE, "dtype": getattr(torch, dtype)}
    module = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}[cell]
    net = module(hidden, hidden).to(**of_dtype)
    x, dy = (torch.randn(STEPS, batch, hidden, **of_dtype) for _ in range(2))
    wanted = (x.requires_grad_(), *net.parameters())

    def forward() -> Any:
        with torch.no_grad():
            return net(x)

    return {"forward": forward, "step": lambda: torch.autograd.grad(net(x)[0], wanted, dy)}


def of_numba_cuda(cell: str, hidden: int, batch: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """The same of numba_cuda."""
    import rnnbench
    from rnnbench.impls import numba_cuda

    spec, rng = Spec(cell, hidden, hidden, dtype=dtype), np.random.default_rng(0)
    net = numba_cuda.load(spec, rnnbench.init_params(spec, 0))
    x, dy = (numba_cuda.asarray(rng.standard_normal((STEPS, batch, hidden)).astype(spec.numpy_dtype)) for _ in range(2))
    return {"forward": lambda: net.forward(x), "step": lambda: net.backward(net.record(x)[2], dy)}


STAGES: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "facts": facts,
    "latency": latency,
    "peers": peers,
    "gates": gates,
    "sanitizer": sanitizer,
    "timings": timings,
    "graphs": graphs,
}


def missing_peer() -> str | None:
    """Why there is no cuDNN through PyTorch here, or None."""
    try:
        import torch
    except ImportError as error:
        return str(error)
    return None if torch.cuda.is_available() else "this torch has no CUDA"


def sizes() -> list[tuple[int, int]]:
    """Hidden size and batch; small batches, for which these kernels are, come first."""
    return [(hidden, batch) for batch in BATCHES for hidden in HIDDEN]


def timing(who: str, cell: str, phase: str, hidden: int, batch: int, dtype: str, value: float) -> dict[str, Any]:
    return {"what": who, "cell": cell, "phase": phase, "H": hidden, "B": batch, "dtype": dtype, "value": value}


def exchanges(shape: Shape, shared: int) -> Any:
    """A kernel that does nothing but exchange a value of each unit, as often as it is told steps; with so much memory."""
    from numba import cuda
    from numba.cuda.types import float32, int64

    from rnnbench.impls.numba_cuda.launching import TeamKernel
    from rnnbench.impls.numba_cuda.sharing import meeting, sharing

    units, lanes = shape.units, shape.lanes
    products = (Product(shape.blocks * units, shape.blocks * units, 1),)
    (place,), used = places(products, shape)
    rank, begin, ready, arrive, wait, end = meeting(shape, place)
    _, _, sending, collect = sharing(place, shape, 0)
    send, value = sending(1), (np.float32(1),)

    def kernel(nothing, mail, steps, batch, reverse, first):
        shared = cuda.shared.array(0, float32, 16)
        unit = rank() * units + int64(cuda.threadIdx.x) // lanes
        begin(shared, mail)
        for s in range(steps):
            ready()
            send(shared, mail, s, s & 1, unit, True, value)
            arrive(shared, mail, s)
            wait(shared, mail, s)
            collect(shared, mail, s & 1)
        end()

    return TeamKernel(kernel, shape, max(shared, used), mail_size(products, shape))


def microseconds(call: Callable[[], Any], least: float = 0.2) -> float:
    """The median time of a call, of ten calls or as many as fill ``least`` seconds, after three to warm up."""
    from numba import cuda

    for _ in range(3):
        call()
    times: list[float] = []
    while len(times) < 10 or sum(times) < least * 1e6:
        start, end = cuda.event(), cuda.event()
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(1e3 * cuda.event_elapsed_time(start, end))
    return float(np.median(times))


def main(stage: str) -> None:
    for found in STAGES[stage]():
        print(json.dumps({"stage": stage, **found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
