"""Drop-ins inside models: conversion, copies, processes, and what runs where.  Takes 10 s with a filled cache."""

import copy
import gc
import io
import pickle
import re
import subprocess
import sys
import weakref

import pytest

torch = pytest.importorskip("torch", reason="the drop-ins are for PyTorch")

from helpers.drop_ins import BATCH, HIDDEN, INPUT, STEPS, arguments, outcome, pair, tensors  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import rnnbench.torch  # noqa: E402
from rnnbench.errors import ArgumentError  # noqa: E402

NAMES = ["LSTM", "GRU", "RNN"]
X = torch.ones(STEPS, BATCH, INPUT)


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.LSTM(INPUT, HIDDEN), torch.nn.GRU(HIDDEN, HIDDEN)])
        self.also = self.layers[1]
        self.last = torch.nn.RNN(HIDDEN, 2)

    def forward(self, x):
        for layer in (*self.layers, self.also, self.last):
            x, _ = layer(x)
        return x


def test_a_model_is_converted_in_place_and_back():
    model = Tagger()
    expected, parameters, modules = model(X), list(model.parameters()), list(model.modules())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    assert rnnbench.torch.convert(model) is model
    assert [type(m) for m in (*model.layers, model.last)] == [getattr(rnnbench.torch, name) for name in NAMES]
    assert all(one is other for one, other in zip(model.modules(), modules, strict=True))
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    torch.testing.assert_close(model(X), expected)
    assert model.also.runs_on == "numba_cpu"
    model(X).sum().backward()
    optimiser.step()
    changed = model(X)
    assert not torch.equal(changed, expected)
    assert rnnbench.torch.revert(model) is model
    assert [type(m) for m in (*model.layers, model.last)] == [getattr(torch.nn, name) for name in NAMES]
    torch.testing.assert_close(model(X), changed)


def test_a_module_of_another_class_is_left_alone():
    class Mine(torch.nn.LSTM):
        pass

    model = torch.nn.Sequential(Mine(INPUT, HIDDEN))
    assert type(rnnbench.torch.convert(model)[0]) is Mine
    with pytest.raises(ArgumentError, match=r"model is a builtins.list; expected a torch\.nn\.Module"):
        rnnbench.torch.convert([model])


@pytest.mark.parametrize("name", NAMES)
def test_a_drop_in_is_made_and_shown_as_torchs_module_is(name):
    torch.manual_seed(0)
    own = getattr(torch.nn, name)(2, 3, 2, batch_first=True, bidirectional=True, dtype=torch.float64)
    torch.manual_seed(0)
    drop_in = getattr(rnnbench.torch, name)(2, 3, 2, batch_first=True, bidirectional=True, dtype=torch.float64)
    assert repr(own) == repr(drop_in)
    assert own.state_dict().keys() == drop_in.state_dict().keys()
    assert all(torch.equal(one, other) for one, other in zip(own.parameters(), drop_in.parameters(), strict=True))
    assert isinstance(drop_in, type(own))


def test_copies_and_pickles_have_weights_of_their_own():
    _, drop_in = pair("LSTM")
    given, hx, _ = arguments(drop_in)
    expected = drop_in(given, hx)[0]
    file = io.BytesIO()
    torch.save(drop_in, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    others = [copy.deepcopy(drop_in), copy.copy(drop_in), pickle.loads(pickle.dumps(drop_in)), loaded]
    with torch.no_grad():
        others[0].weight_ih_l0.zero_()
    assert [torch.equal(other(given, hx)[0], expected) for other in others] == [False, True, True, True]
    assert torch.equal(drop_in(given, hx)[0], expected)
    assert all(type(other) is rnnbench.torch.LSTM for other in others)


def test_other_dtypes_and_devices_follow_the_module():
    _, drop_in = pair("LSTM")
    places = []
    for change in (lambda m: m.float(), lambda m: m.bfloat16(), lambda m: m.half(), lambda m: m.to("meta")):
        change(drop_in)
        given = torch.ones(STEPS, BATCH, INPUT, dtype=drop_in.weight_hh_l0.dtype, device=drop_in.weight_hh_l0.device)
        assert drop_in(given)[0].dtype is given.dtype
        places.append(drop_in.runs_on)
    assert places[:2] == ["numba_cpu"] * 2
    assert places[2:] == [
        "torch.nn: a weight is torch.float16; all have to be one of float32, float64, bfloat16",
        "torch.nn: a weight is on meta, not on the CPU",
    ]


class Labelled(torch.Tensor):
    pass


def jvp(drop_in):
    torch.func.functional_call(drop_in, dict(drop_in.named_parameters()), (X,))
    torch.func.grad(lambda x: drop_in(x)[0].sum())(X)


def in_dispatch_mode(drop_in):
    with FlopCounterMode(display=False):
        drop_in(X)


def traced(drop_in):
    torch.jit.trace(drop_in, X, check_trace=False)


def in_float16(drop_in):
    with torch.no_grad(), torch.autocast("cpu", torch.float16):  # oneDNN may have no such backward
        drop_in(X)


ELSEWHERE = {
    "subclass": (lambda drop_in: drop_in(X.as_subclass(Labelled)), "the input is a .*Labelled, not a plain tensor"),
    "empty": (lambda drop_in: drop_in(X[:, :0]), r"the input of shape \(7, 0, 3\) is empty"),
    "transform": (jvp, "torch.func transforms only torch's operations"),
    "mode": (in_dispatch_mode, "a dispatch mode is active, which sees only torch's operations"),
    "float16": (in_float16, "autocast computes in torch.float16; numba_cpu in float32, float64, bfloat16"),
    "trace": (traced, "torch.jit.trace records only torch's operations"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
@pytest.mark.filterwarnings("ignore:.torch.jit.trace(_method)?. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of torch.nn's own forward
def test_what_torch_runs_says_why(case):
    drop_in = rnnbench.torch.LSTM(INPUT, HIDDEN)
    assert drop_in.runs_on == "numba_cpu"
    call, reason = ELSEWHERE[case]
    call(drop_in)
    place, _, why = drop_in.runs_on.partition(": ")
    assert place == "torch.nn"
    assert re.fullmatch(reason, why)
    drop_in(X)
    assert drop_in.runs_on == "numba_cpu"


REFUSED = {
    "dimensions": lambda m: m(torch.ones(1, 2, 3, INPUT)),
    "no steps": lambda m: m(X[:0]),
    "input size": lambda m: m(torch.ones(2, 3, INPUT + 1)),
    "dtype": lambda m: m(X.double()),
    "batch of the state": lambda m: m(X, state_of(m, torch.zeros(1, BATCH + 1, HIDDEN))),
    "dimensions of the state": lambda m: m(X, state_of(m, torch.zeros(1, HIDDEN))),
    "dtype of the state": lambda m: m(X, state_of(m, torch.zeros(1, BATCH, HIDDEN).double())),
}


def state_of(module, part):
    return (part, part) if module.mode == "LSTM" else part


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", NAMES)
def test_invalid_arguments_are_refused_in_torchs_words(name, case):
    errors = []
    for module in pair(name, torch.float32):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            REFUSED[case](module)
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]


REWRITTEN = {
    "weight_norm": lambda module: parametrizations.weight_norm(module, "weight_hh_l0"),
    "prune": lambda module: prune.l1_unstructured(module, "weight_hh_l0", amount=0.5),
}


@pytest.mark.parametrize("case", REWRITTEN)
def test_weights_that_are_computed_train_as_in_torch(case):
    modules = pair("LSTM")
    for module in modules:
        REWRITTEN[case](module)
    for _ in range(2):
        expected, found = (outcome(module) for module in modules)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
        with torch.no_grad():
            for parameter in (parameter for module in modules for parameter in module.parameters()):
                parameter.mul_(0.5)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_a_scripted_drop_in_is_torchs():
    own, drop_in = pair("LSTM")
    given, hx, _ = arguments(own)
    scripted = torch.jit.script(torch.nn.Sequential(drop_in))[0]
    torch.testing.assert_close(tensors(scripted(given, hx)), tensors(own(given, hx)))


def test_a_forked_worker_runs_it():
    script = """
import torch, rnnbench.torch
module = rnnbench.torch.LSTM(3, 5, dtype=torch.float64)
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, k):
        y = module(torch.full((40, 16, 3), float(k), dtype=torch.float64))[0].detach()
        assert module.runs_on == "numba_cpu"
        return y
own = [Data()[k] for k in range(4)]
loader = torch.utils.data.DataLoader(Data(), batch_size=2, num_workers=1, multiprocessing_context="fork")
torch.testing.assert_close(torch.cat(list(loader)), torch.stack(own))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_graphs_and_tapes_are_freed():
    _, drop_in = pair("LSTM")
    y = drop_in(arguments(drop_in)[0])[0]
    _, (_, (tape,)) = y.grad_fn.recorded
    kept = weakref.ref(tape.buffers.kept[0].saved)
    del y, tape
    gc.collect()
    assert kept() is None


def test_importing_rnnbench_imports_no_torch():
    code = "import sys, rnnbench; assert 'torch' not in sys.modules"
    code += "; import rnnbench.torch; assert 'torch._dynamo' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
