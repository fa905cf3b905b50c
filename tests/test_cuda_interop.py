"""Tensors of PyTorch as arrays of numba_cuda and back: the same memory, every dtype; in the simulator.  About 3 s."""

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="greenlet is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")
pytest.importorskip("torch", reason="PyTorch is missing: pip install -e '.[torch]' in the checkout of rnnbench")

import torch

import rnnbench
from rnnbench.errors import ArgumentError
from rnnbench.impls import numba_cuda
from rnnbench.impls.numba_cuda import interop, launching
from rnnbench.networks.spec import DTYPES, Spec

pytestmark = pytest.mark.usefixtures("simulated_gpu")


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_ways_share_the_memory(dtype: str) -> None:
    tensor = torch.arange(6, dtype=getattr(torch, dtype)).reshape(2, 3)
    array = interop.from_torch(tensor)
    back = interop.to_torch(array)
    tensor[1, 2] = 7
    assert float(array[1, 2]) == float(back[1, 2]) == 7
    assert (array.dtype, back.dtype, array.shape) == (
        np.dtype(Spec("elman", 1, 1, dtype=dtype).numpy_dtype),
        tensor.dtype,
        (2, 3),
    )
    assert back.data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_network_runs_on_tensors(dtype: str) -> None:
    spec = Spec("gru", 3, 4, dtype=dtype)
    net = numba_cuda.load(spec, rnnbench.init_params(spec, 0))
    x = np.random.default_rng(0).standard_normal((2, 1, 3)).astype(spec.numpy_dtype)
    tensor = torch.tensor(x.astype("float64")).to(getattr(torch, dtype)).requires_grad_()
    y, _ = net.forward(interop.from_torch(tensor))
    np.testing.assert_array_equal(numba_cuda.to_numpy(y), numba_cuda.to_numpy(net.forward(numba_cuda.asarray(x))[0]))
    assert interop.to_torch(y).dtype == tensor.dtype


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros(3), "tensor is a numpy.ndarray; expected a torch.Tensor"),
        (torch.zeros(3, device="meta"), "tensor is on meta; expected cpu"),
        (torch.zeros(3, dtype=torch.int32), "tensor has dtype int32; expected one of float32, float64, bfloat16, float16"),
    ],
)
def test_what_cannot_be_shared_is_refused(given: object, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        interop.from_torch(given)


def test_a_stream_is_the_callers_while_it_is_asked_for() -> None:
    with interop.on_stream(12):
        assert launching.STREAM.get() == 12
    assert launching.STREAM.get() == 0
