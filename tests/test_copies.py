"""Networks can be copied, pickled and taken into a forked process; what cannot says so.  Takes 10 s with a filled cache."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import rnnbench
from rnnbench import BackendUnavailable, Spec
from rnnbench.networks.checked import CheckedNetwork

SPEC = Spec("gru", 5, 64)
BACKENDS = ["numpy_ref", "numba_cpu", "torch_nn", "torch_eager", "torch_nn_numpy", "jax_scan", "onnxruntime", "auto"]


def loaded(name, **options):
    try:
        backend = rnnbench.load_backend(name)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    return backend, backend.load(SPEC, rnnbench.init_params(SPEC, 0), **options)


def output(backend, net):
    x = np.random.default_rng(1).standard_normal((40, 16, SPEC.input_size), dtype="f4")
    return np.array(backend.to_numpy(net.forward(backend.asarray(x))[0]))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("name", BACKENDS)
def test_a_copy_has_the_weights_of_its_time_and_nothing_else_in_common(name, copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # auto looks for results here
    backend, net = loaded(name)
    net.update(rnnbench.init_params(SPEC, 7))
    expected = output(backend, net)
    other = copied(net)
    net.update(rnnbench.init_params(SPEC, 8))
    assert type(other) is type(net)
    np.testing.assert_array_equal(output(backend, other), expected)


def test_a_copy_has_the_threads_that_were_asked_for():
    _, net = loaded("numba_cpu", threads=2)
    other = pickle.loads(pickle.dumps(net))
    assert other._layers._workers.threads == 2
    assert other._layers._workers is not net._layers._workers


def test_a_network_that_nothing_can_load_again_refuses_to_be_copied():
    _, net = loaded("numpy_ref")
    bare = type(net)(SPEC, net.params(), net._layers, net.arrays, np.ndarray)
    with pytest.raises(TypeError, match=r"^a rnnbench\.networks\.stacked\.StackedNetwork cannot be copied or pickled; copy"):
        copy.deepcopy(bare)


@pytest.mark.parametrize("name", ["numpy_ref", "numba_cpu"])
def test_a_tape_refuses_to_be_copied(name):
    _, net = loaded(name)
    tape = net.record(np.zeros((2, 1, SPEC.input_size), "f4"))[2]
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"^a tape cannot be copied or pickled"):
            copied(tape)


FORKING = """
import multiprocessing, sys
import numpy as np
import rnnbench

spec = rnnbench.Spec("gru", 5, 64)
backend = rnnbench.load_backend(sys.argv[1])
net = backend.load(spec, rnnbench.init_params(spec, 0), threads=2)
x = np.random.default_rng(1).standard_normal((40, 16, 5), dtype="f4")
expected = net.forward(x)[0]  # starts the threads, which a child does not have
mine, its = multiprocessing.Pipe()
child = multiprocessing.get_context("fork").Process(target=lambda: its.send(net.forward(x)[0]), daemon=True)
child.start()
assert mine.poll(100), "the child hangs"
assert np.array_equal(mine.recv(), expected)
assert np.array_equal(net.forward(x)[0], expected)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process is forked by default, or safely")
@pytest.mark.parametrize("name", ["numpy_ref", "numba_cpu"])
def test_a_forked_child_runs_the_networks_of_its_parent(name):
    done = subprocess.run([sys.executable, "-c", FORKING, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# What says more than its values


class Unit(np.ndarray):
    """An array in some unit of measurement."""


def foreign(array):
    return [np.ma.masked_array(array), array.view(Unit), np.rec.array(array)]


@pytest.mark.parametrize("name", ["numpy_ref", "numba_cpu", "onnxruntime", "torch_nn_numpy", "auto"])
def test_arrays_of_classes_that_say_more_than_values_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backend, net = loaded(name)
    x = np.zeros((2, 1, SPEC.input_size), "f4")
    for array in foreign(x):
        with pytest.raises(rnnbench.ArgumentError, match=r"expected a plain numpy.ndarray"):
            net.forward(array)
        with pytest.raises(rnnbench.ArgumentError, match=r"expected a plain numpy.ndarray"):
            backend.asarray(array)
    params = rnnbench.init_params(SPEC, 0)
    for array in foreign(params["bias_ih_l0"]):
        with pytest.raises(rnnbench.ArgumentError, match=r"^bias_ih_l0 is a .*expected a plain numpy.ndarray"):
            net.update(params | {"bias_ih_l0": array})


@pytest.mark.parametrize("name", ["torch_nn", "jax_scan"])
def test_asarray_refuses_them_too_where_it_copies(name):
    backend, _ = loaded(name)
    for array in foreign(np.zeros((2, 1, SPEC.input_size), "f4")):
        with pytest.raises(rnnbench.ArgumentError, match=r"expected a plain numpy.ndarray"):
            backend.asarray(array)


def test_a_memory_mapped_file_is_a_plain_array(tmp_path):
    _, net = loaded("numba_cpu")
    x = np.random.default_rng(1).standard_normal((2, 1, SPEC.input_size), dtype="f4")
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(net.forward(mapped)[0], net.forward(x)[0])


def test_tensors_that_are_no_plain_dense_ones_are_refused():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    backend, net = loaded("torch_nn")
    x = backend.asarray(np.zeros((2, 1, SPEC.input_size), "f4"))

    class Unit(torch.Tensor):
        pass

    with pytest.raises(rnnbench.ArgumentError, match=r"^x is a .*Unit; expected a plain torch.Tensor$"):
        net.forward(x.as_subclass(Unit))
    with pytest.raises(rnnbench.ArgumentError, match=r"^x has layout torch.sparse_coo; expected torch.strided"):
        net.forward(x.to_sparse())
    net.forward(torch.nn.Parameter(x))


# Arguments of load and init_params


@pytest.mark.parametrize("name", BACKENDS)
def test_load_refuses_what_is_no_spec_and_takes_numpy_s_threads(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backend, net = loaded(name)
    with pytest.raises(rnnbench.SpecError, match=r"^spec is a NoneType; expected a rnnbench\.Spec$"):
        backend.load(None, net.params())
    for threads in (0, -1, 1.0, True, "2"):
        with pytest.raises(rnnbench.ArgumentError, match=r"^threads is .*; expected an integer >= 1, or None"):
            backend.load(SPEC, net.params(), threads=threads)
    if name != "jax_scan":  # whose pool has one size
        assert isinstance(backend.load(SPEC, net.params(), threads=np.int64(1)), CheckedNetwork)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0", None, np.float64(2)])
def test_a_seed_is_an_integer_from_0(seed):
    with pytest.raises(rnnbench.ArgumentError) as caught:
        rnnbench.init_params(SPEC, seed)
    assert str(caught.value) == f"seed is {seed!r}; expected an integer >= 0"


def test_parameters_beyond_this_machine_s_memory_are_refused_before_they_are_drawn():
    with pytest.raises(rnnbench.ArgumentError, match=r"^drawing \d+ parameters takes \d+ GiB; expected at most the \d+ GiB"):
        rnnbench.init_params(Spec("lstm", 1, 1 << 24), 0)
    with pytest.raises(rnnbench.SpecError, match=r"^spec is a NoneType"):
        rnnbench.init_params(None, 0)
