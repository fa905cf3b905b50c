"""First checks and timings on a new GPU, in stages: ``python -m rnnbench.impls.numba_cuda.bringup STAGE``.

Each finding is one JSON object on standard output, written as soon as it is known.  Times are medians of CUDA events on the
stream of the work, in microseconds: ``called`` includes the host's time, ``kernels`` does not (``timing``).  Written without a
GPU: only the gate has been tried, in the simulator.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np

from rnnbench.impls.numba_cuda.cells import CELLS
from rnnbench.impls.numba_cuda.choosing import choose
from rnnbench.impls.numba_cuda.layout import BARRIER, MESSAGES, Product, Shape, mail_size, places
from rnnbench.impls.numba_cuda.regimes import CLUSTER, EXCHANGE, Limits
from rnnbench.networks.spec import NARROW, Spec
from rnnbench.suite.case import Case

EXCHANGES = 1000
"""Number of exchanges in one launch."""

STEPS = 256
"""Number of time steps of timed sequences."""

DEVICE = "cuda"
"""Device of PyTorch's networks."""

HIDDEN, BATCHES = (256, 512, 64, 1024), (1, 16, 64)
DTYPES, CELLS_TIMED = ("float32", "bfloat16"), ("lstm", "gru")
"""Networks that are timed, as calls and as graphs; small batches, the purpose of these kernels, come first."""

GATE_HIDDEN, GATE_STEPS, GATE_BATCH = (32, 256, 512, 1024, 1000, 1500, 64, 128), 8, 17

SANITIZED = """
from rnnbench.check import Problem, expected, gate
from rnnbench.impls import numba_cuda
from rnnbench.impls.numba_cuda.bringup import SMALL_CASES
for case in SMALL_CASES:
    problem = Problem(case)
    if not all(finding.passed for finding in gate(numba_cuda, problem, expected(problem))):
        raise SystemExit(f"{case.label()} is wrong")
"""

SMALL_CASES = [
    Case(cell=cell, phase="step", T=2, B=2, I=3, H=hidden, dtype=dtype)
    for cell, hidden, dtype in (("lstm", 70, "float32"), ("gru_reset_before", 70, "float32"), ("lstm", 520, "bfloat16"))
]
"""Cases for compute-sanitizer: both loops over time, and tensor cores."""


def facts() -> Iterator[dict[str, Any]]:
    """Versions, the device, and how many of the largest clusters fit at once."""
    from numba import cuda

    from rnnbench.impls.numba_cuda.current_device import device_limits, info
    from rnnbench.impls.numba_cuda.launching import clusters_at_once

    device = cuda.get_current_device()
    limits = device_limits()._asdict()
    libraries = {name: version(name) for name in ("cuda-core", "cuda-bindings", "numpy")}
    yield {"what": "device", **info(), **libraries, "capability": list(device.compute_capability), "limits": limits}
    if limits["cluster"]:
        for blocks, shared in ((8, 0), (8, 200_000), (16, 0), (16, 200_000)):
            yield {"what": "clusters at once", "blocks": blocks, "shared": shared, "value": clusters_at_once(blocks, shared)}


def latency() -> Iterator[dict[str, Any]]:
    """Microseconds of one exchange within a block, in a cluster (by barrier and by messages), and in the grid."""
    from rnnbench.impls.numba_cuda.arrays import allocate
    from rnnbench.impls.numba_cuda.current_device import device_limits

    for shape in exchange_shapes(device_limits()):
        kernel = exchanges(shape)
        mail = allocate((max(1, kernel.mail_of(1)),), np.dtype("float32"))
        how = "grid" if shape.grid else shape.exchange if shape.blocks > 1 else "block"
        found = times_of(lambda run=kernel, mail=mail: run(1, mail, EXCHANGES, 1, 0), EXCHANGES)
        yield {"what": f"exchange: {how}", "blocks": shape.blocks, **found}


def peers() -> Iterator[dict[str, Any]]:
    """cuDNN through torch.nn: microseconds per step, forward and forward with BPTT, TF32 off."""
    if reason := missing_peer():
        yield {"what": "no peer", "reason": reason}
        return
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for batch, hidden, cell, dtype in points():
        for phase, call in of_torch(cell, hidden, batch, dtype).items():
            yield timed("torch.nn", cell, phase, hidden, batch, dtype) | times_of(call, STEPS)


def gates() -> Iterator[dict[str, Any]]:
    """Check every cell, dtype and hidden size against the float64 reference, and float32 clusters also by messages."""
    from rnnbench.impls.numba_cuda.current_device import device_limits

    for case in gate_cases():
        yield gated(case)
    before = EXCHANGE.set(MESSAGES)
    for case in gate_cases():
        if sends_messages(case, device_limits()):
            yield gated(case) | {"exchange": MESSAGES}
    EXCHANGE.reset(before)


def gated(case: Case) -> dict[str, Any]:
    from rnnbench.check import Problem, expected, gate
    from rnnbench.impls import numba_cuda

    worst = gate(numba_cuda, Problem(case), expected(Problem(case)))[0]
    found = {"passed": worst.passed, "worst": str(worst), "regime": numba_cuda.info(case.spec(), case.B)["regime"]}
    return {"what": "gate", "cell": case.cell, "H": case.H, "dtype": case.dtype, **found}


def sends_messages(case: Case, limits: Limits) -> bool:
    """Whether to check a case with messages between blocks: float32 clusters are representative."""
    return case.dtype == "float32" and choose(case.spec(), limits, case.B).name == CLUSTER


def sanitizer() -> Iterator[dict[str, Any]]:
    """compute-sanitizer's tools on small networks: both loops over time, and tensor cores."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        yield {"what": "no sanitizer", "reason": "compute-sanitizer is not on the path"}
        return
    for check in ("memcheck", "racecheck", "initcheck", "synccheck"):
        command = [tool, "--tool", check, "--error-exitcode", "1", sys.executable, "-c", SANITIZED]
        done = subprocess.run(command, capture_output=True, text=True)
        yield {"what": check, "passed": done.returncode == 0, "said": (done.stdout + done.stderr)[-2000:]}


def timings() -> Iterator[dict[str, Any]]:
    """numba_cuda: microseconds per step, forward and forward with BPTT, at the sizes of ``peers``."""
    for batch, hidden, cell, dtype in points():
        for phase, call in of_numba_cuda(cell, hidden, batch, dtype).items():
            yield timed("numba_cuda", cell, phase, hidden, batch, dtype) | times_of(call, STEPS)


def graphs() -> Iterator[dict[str, Any]]:
    """cuDNN and numba_cuda, called and replayed as a CUDA graph: microseconds per step of both phases, TF32 off."""
    if reason := missing_peer():
        yield {"what": "no graph", "reason": reason}
        return
    import torch

    from rnnbench.impls.numba_cuda.graphs import captured

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for batch, hidden, cell, dtype in points():
        for who, phases in (("torch.nn", of_torch), ("numba_cuda", of_numba_cuda)):
            for phase, call in phases(cell, hidden, batch, dtype).items():
                replay = times_of(captured(call).replay, STEPS)
                graph = {f"graph {name}": value for name, value in replay.items()}
                yield timed(who, cell, phase, hidden, batch, dtype) | times_of(call, STEPS) | graph


def of_torch(cell: str, hidden: int, batch: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """Phases of cuDNN; a step is forward and all gradients, including the input's."""
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
    """Phases of numba_cuda."""
    import rnnbench
    from rnnbench.impls import numba_cuda

    spec, rng = Spec(cell, hidden, hidden, dtype=dtype), np.random.default_rng(0)
    net = numba_cuda.load(spec, rnnbench.init_params(spec, 0))
    x, dy = (numba_cuda.asarray(rng.standard_normal((STEPS, batch, hidden)).astype(spec.numpy_dtype)) for _ in range(2))
    return {"forward": lambda: net.forward(x), "step": lambda: net.backward(net.record(x)[2], dy)}


STAGES: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "facts": facts,
    "latency": latency,
    "gates": gates,
    "timings": timings,
    "peers": peers,
    "graphs": graphs,
    "sanitizer": sanitizer,
}


def missing_peer() -> str | None:
    """Why PyTorch cannot use cuDNN here, or None."""
    try:
        import torch
    except ImportError as error:
        return str(error)
    return None if torch.cuda.is_available() else "this torch has no CUDA"


def points() -> Iterator[tuple[int, int, str, str]]:
    """(batch, hidden size, cell, dtype) of all timed networks."""
    return itertools.product(BATCHES, HIDDEN, CELLS_TIMED, DTYPES)


def gate_cases() -> list[Case]:
    return [
        Case(cell=cell, phase="step", T=GATE_STEPS, B=GATE_BATCH, I=max(1, hidden // 2), H=hidden, dtype=dtype)
        for hidden, cell, dtype in itertools.product(GATE_HIDDEN, CELLS, ("float32", *NARROW))
    ]


def cases() -> list[Case]:
    """Cases of all stages, whose kernels ``ahead`` compiles beforehand."""
    timed = [Case(cell=c, phase="step", T=STEPS, B=b, I=h, H=h, dtype=d) for b, h, c, d in points()]
    return [*gate_cases(), *timed, *SMALL_CASES]


def exchange_shapes(limits: Limits) -> list[Shape]:
    """Teams whose exchanges are timed."""
    clusters = [blocks for blocks in (2, 4, 8, 16) if blocks <= limits.cluster]
    either = [Shape(blocks, 32, 8, 1, 0, exchange=exchange) for blocks in clusters for exchange in (BARRIER, MESSAGES)]
    grids = [Shape(blocks, 32, 8, 1, 0, grid=True) for blocks in (32, 64, limits.multiprocessors)]
    return [Shape(1, 32, 8, 1, 0), *either, *grids]


def timed(who: str, cell: str, phase: str, hidden: int, batch: int, dtype: str) -> dict[str, Any]:
    return {"what": who, "cell": cell, "phase": phase, "H": hidden, "B": batch, "dtype": dtype}


def times_of(call: Callable[[], Any], parts: int) -> dict[str, float | None]:
    """Microseconds of each of ``parts`` equal parts of a call, as called and of its kernels alone."""
    from rnnbench.impls.numba_cuda.timing import times

    return {name: value and value / parts for name, value in times(call)._asdict().items()}


def exchanges(shape: Shape) -> Any:
    """A kernel that only exchanges one value per unit, in each of its steps."""
    from numba import cuda
    from numba.cuda.types import float32, int64

    from rnnbench.impls.numba_cuda.launching import TeamKernel
    from rnnbench.impls.numba_cuda.sharing import barriers, sharing

    units, lanes = shape.units, shape.lanes
    products = (Product(shape.blocks * units, shape.blocks * units, 1),)
    ((place,), _) = places(products, shape)
    rank, begin, ready, arrive, wait, end = barriers(shape, place)
    _, _, sending, collect = sharing(place, shape, 0)
    send, value = sending(1), (np.float32(1),)

    def kernel(mail, steps, batch, reverse, first):
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

    # without weights: their part of shared memory comes last
    return TeamKernel(kernel, shape, place.weights, mail_size(products, shape))


def main(stage: str) -> None:
    for found in STAGES[stage]():
        print(json.dumps({"stage": stage, **found}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
