"""torch_cuda and jax_cuda where there is no GPU: their networks on another device, what they promise, and why they cannot run.

What only a GPU shows, cuDNN's numbers and the events, nothing here sees.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import rnnbench
from rnnbench import Spec
from rnnbench.installing import how_to_install

torch = pytest.importorskip("torch", reason="torch_cuda needs torch")
jax = pytest.importorskip("jax", reason="jax_cuda needs jax")

from rnnbench.impls import jax_cuda, torch_cuda  # noqa: E402  # only where both are

SPEC = Spec("lstm", 3, 4)
ON_THE_CPU = {
    "torch_cuda": """
import torch
from rnnbench.impls import torch_cuda
torch_cuda.DEVICE = torch.device("cpu")
from rnnbench.impls.torch_cuda import asarray, load, supports, to_numpy
def synchronize():
    pass
def info():
    return {"device": "cpu", "threads": 1}
""",
    "jax_cuda": """
import os
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiled in half the time; a GPU's code is another anyway
import jax
from rnnbench.impls import jax_cuda
jax_cuda.device = lambda: jax.devices("cpu")[0]
from rnnbench.impls.jax_cuda import asarray, info, load, supports, synchronize, to_numpy
""",
}


def drawn(spec: Spec, backend):
    """Weights, and x, a state, dy and the cotangent of a state as the backend's arrays."""
    rng = np.random.default_rng(0)
    shapes = [(5, 2, spec.input_size), (5, 2, spec.features), *[spec.state_shape(2)] * 4]
    x, dy, *parts = (backend.asarray(rng.standard_normal(shape).astype(spec.dtype)) for shape in shapes)
    return rnnbench.init_params(spec, 0), x, tuple(parts[:2]), dy, tuple(parts[2:])


def said_by(code: str, **environment: str):
    """What a fresh interpreter prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def on_the_cpu(monkeypatch):
    """torch_cuda's networks on the CPU."""
    monkeypatch.setattr(torch_cuda, "DEVICE", torch.device("cpu"))
    return torch_cuda


# both


@pytest.mark.parametrize("name", list(ON_THE_CPU))
def test_they_are_peers_which_take_part_only_where_they_are_named(name):
    assert name in {entry.name for entry in rnnbench.peers()}
    assert name not in {entry.name for entry in rnnbench.backends()}


@pytest.mark.parametrize("name", list(ON_THE_CPU))
def test_their_networks_pass_the_check_on_another_device(name, tmp_path, command):
    file = tmp_path / f"{name}.py"
    file.write_text(ON_THE_CPU[name])
    code, out, err = command("check", str(file), "--level", "smoke")
    assert code == 0, out + err


@pytest.mark.parametrize("backend", [torch_cuda, jax_cuda])
@pytest.mark.parametrize("threads", [0, True, 1.5])
def test_bad_threads_are_refused_before_the_device_is_asked_for(backend, threads):
    with pytest.raises(rnnbench.ArgumentError, match=r"threads is .*; expected an integer >= 1, or None"):
        backend.load(SPEC, rnnbench.init_params(SPEC, 0), threads=threads)


@pytest.mark.parametrize(("name", "library"), [("torch_cuda", "torch"), ("jax_cuda", "jax")])
def test_a_missing_library_is_named_with_its_extra(name, library):
    code = f"""
import json, sys, rnnbench
sys.modules[{library!r}] = None
print(json.dumps(next(entry.reason for entry in rnnbench.peers() if entry.name == {name!r})))
"""
    said = said_by(code)
    assert said.startswith(f"{name} needs ")
    assert said.endswith(how_to_install("cuda-peers"))


# torch_cuda


def test_torch_cuda_says_in_one_line_that_pytorch_has_no_cuda(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert "is built without CUDA" in (torch_cuda.unavailable() or "")


def test_torch_cuda_says_in_one_line_that_there_is_no_gpu_and_what_pytorch_warned_of(monkeypatch):
    import warnings

    def none_found() -> bool:
        warnings.warn("CUDA initialization: the driver\nis too old", stacklevel=2)
        return False

    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", none_found)
    assert torch_cuda.unavailable() == "PyTorch finds no CUDA device (CUDA initialization: the driver is too old)"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_cuda.unavailable() == "PyTorch finds no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch_cuda.unavailable() is None


def test_a_tensor_on_another_device_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(torch_cuda, "DEVICE", torch.device("meta"))  # the only other one that every PyTorch has
    net = torch_cuda.load(SPEC, rnnbench.init_params(SPEC, 0))
    with pytest.raises(rnnbench.ArgumentError, match="x is on device cpu; expected meta"):
        net.forward(torch.zeros(2, 1, 3))
    state = (torch.zeros(1, 1, 4, device="meta"), torch.zeros(1, 1, 4))
    with pytest.raises(rnnbench.ArgumentError, match="state c is on device cpu; expected meta"):
        net.record(torch.zeros(2, 1, 3, device="meta"), state)
    with pytest.raises(rnnbench.ArgumentError, match=r"x is a numpy\.ndarray; expected a torch\.Tensor"):
        net.forward(np.zeros((2, 1, 3), "float32"))


def test_arrays_and_weights_are_put_on_the_device(monkeypatch):
    monkeypatch.setattr(torch_cuda, "DEVICE", torch.device("meta"))
    assert torch_cuda.asarray(np.zeros(3, "float32")).device.type == "meta"
    y, final = torch_cuda.load(SPEC, rnnbench.init_params(SPEC, 0)).forward(torch.zeros(2, 1, 3, device="meta"))
    assert {y.device.type, *(part.device.type for part in final)} == {"meta"}


FLAGS = (torch.backends.cudnn.rnn, torch.backends.cuda.matmul)


@pytest.mark.parametrize("before", ["tf32", "ieee"])
def test_tf32_is_off_in_every_call_and_afterwards_as_it_was(on_the_cpu, monkeypatch, before):
    kept = [flag.fp32_precision for flag in FLAGS]
    seen = []
    params, x, state, dy, dstate = drawn(SPEC, on_the_cpu)
    net = on_the_cpu.load(SPEC, params)

    def watched(function):
        def call(*args, **options):
            seen.append([flag.fp32_precision for flag in FLAGS])
            return function(*args, **options)

        return call

    monkeypatch.setattr(net, "_run", watched(net._run))
    monkeypatch.setattr(torch.autograd, "grad", watched(torch.autograd.grad))
    try:
        for flag in FLAGS:
            flag.fp32_precision = before
        net.forward(x, state)
        net.backward(net.record(x, state)[2], dy, dstate)
        assert seen == [["ieee", "ieee"]] * 3
        assert [flag.fp32_precision for flag in FLAGS] == [before] * 2
        monkeypatch.setattr(net, "_run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            net.forward(x, state)
        assert [flag.fp32_precision for flag in FLAGS] == [before] * 2
    finally:
        for flag, precision in zip(FLAGS, kept, strict=True):
            flag.fp32_precision = precision


def test_the_default_of_tf32_is_restored_for_the_older_flags_too(on_the_cpu):
    older = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    params, x, *_ = drawn(SPEC, on_the_cpu)
    on_the_cpu.load(SPEC, params).forward(x)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == older


def test_inference_runs_in_the_modules_evaluation_mode_and_training_does_not(on_the_cpu, monkeypatch):
    params, x, state, *_ = drawn(SPEC, on_the_cpu)
    net = on_the_cpu.load(SPEC, params)
    seen = []
    hook = net._module.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    net.forward(x, state)
    net.record(x, state)
    net.forward(x, state)
    hook.remove()
    assert seen == [False, True, False]


def test_info_of_torch_cuda_names_versions_device_and_threads():
    code = """
import json, torch
from rnnbench.impls import torch_cuda
torch.cuda.get_device_name = lambda device: f"name of {device}"
print(json.dumps(torch_cuda.info()))
"""
    facts = said_by(code)
    assert set(facts) == {"torch", "cuda", "cudnn", "tf32", "device", "threads"}
    assert (facts["device"], facts["tf32"], facts["torch"]) == ("name of cuda:0", "off", torch.__version__)


# jax_cuda


def test_jax_cuda_says_in_one_line_that_there_is_no_gpu(monkeypatch):
    def none_found():
        raise RuntimeError("Unknown backend\ncuda")

    monkeypatch.setattr(jax_cuda, "device", none_found)
    assert (jax_cuda.unavailable() or "").startswith("JAX finds no CUDA device (Unknown backend cuda); ")


def test_jax_cuda_keeps_to_its_device_and_refuses_arrays_of_another():
    code = """
import json, jax, numpy as np, rnnbench
from rnnbench.impls import jax_cuda
first, second = jax.devices("cpu")
jax_cuda.device = lambda: second
spec = rnnbench.Spec("gru", 3, 4)
net = jax_cuda.load(spec, rnnbench.init_params(spec, 0))
x, dy = (jax_cuda.asarray(np.ones((2, 1, n), "float32")) for n in (3, 4))
y, final, tape = net.record(x)
grads = net.backward(tape, dy)
places = {str(a.devices()) for a in jax.tree.leaves([x, y, final, grads, net.forward(x), net.forward(x[:0])])}
try:
    net.forward(jax.device_put(x, first))
except rnnbench.ArgumentError as error:
    print(json.dumps([list(places), str({second}), str(error), jax_cuda.info()]))
"""
    places, wanted, refusal, facts = said_by(code, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert places == [wanted]
    assert refusal.startswith("x is on ")
    assert "expected " in refusal
    assert set(facts) == {"jax", "jaxlib", "tf32", "device", "threads"}


def test_products_of_jax_cuda_are_of_the_highest_precision_in_every_phase_and_others_are_left_alone(monkeypatch):
    from rnnbench.impls import jax_scan

    monkeypatch.setattr(jax_cuda, "device", lambda: jax.devices("cpu")[0])
    params, x, state, dy, dstate = drawn(SPEC, jax_cuda)
    net = jax_cuda.load(SPEC, params)
    lowered = []
    for name in ("_forward", "_record", "_backward"):
        compiled = getattr(jax_scan, name)

        def call(*args, compiled=compiled):
            lowered.append(compiled.lower(*args).as_text())
            return compiled(*args)

        monkeypatch.setattr(jax_scan, name, call)
    net.forward(x, state)
    net.backward(net.record(x, state)[2], dy, dstate)
    assert [("HIGHEST" in text, "DEFAULT, DEFAULT" in text) for text in lowered] == [(True, False)] * 3
    lowered.clear()
    assert jax.config.jax_default_matmul_precision is None
    jax_scan.load(SPEC, params).forward(x, state)
    assert "HIGHEST" not in lowered[0]
