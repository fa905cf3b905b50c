"""A backend that puts everything off: results are computed when they are read, and ``synchronize`` waits for nothing."""

import functools

import numpy as np

from rnnbench.impls import numpy_ref
from rnnbench.impls.numpy_ref import asarray, info, supports, synchronize  # noqa: F401  # a part of the contract
from rnnbench.networks.contract import Gradients


class Later(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that is known by its shape until it is read."""

    def __init__(self, compute, shape, dtype):
        self.compute, self.shape, self.dtype, self.ndim = functools.cache(compute), shape, dtype, len(shape)

    def __array__(self, dtype=None, copy=None):
        return self.compute()

    def __getitem__(self, key):
        return np.asarray(self)[key]

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return getattr(ufunc, method)(*map(np.asarray, inputs), **options)


def to_numpy(array):
    return np.asarray(array)


def read(part):
    if part is None:
        return None
    return tuple(map(np.asarray, part)) if isinstance(part, tuple) else np.asarray(part)


class Network:
    def __init__(self, net):
        self.net = net

    def __getattr__(self, name):
        return getattr(self.net, name)

    def record(self, x, state=None):
        call = functools.cache(lambda: self.net.record(read(x), read(state)))
        spec = self.net.spec
        y = Later(lambda: call()[0], (*x.shape[:2], spec.features), x.dtype)
        return y, self._states(lambda: call()[1], x), call

    def backward(self, tape, dy, dstate=None):
        call = functools.cache(lambda: self.net.backward(tape()[2], read(dy), read(dstate)))
        spec = self.net.spec
        params = {
            name: Later(lambda name=name: call().params[name], shape, dy.dtype) for name, shape in spec.param_shapes().items()
        }
        x = Later(lambda: call().x, (*dy.shape[:2], spec.input_size), dy.dtype)
        return Gradients(params, x, self._states(lambda: call().state, dy))

    def _states(self, compute, like):
        shape = self.net.spec.state_shape(like.shape[1])
        return tuple(Later(lambda n=n: compute()[n], shape, like.dtype) for n in range(len(self.net.spec.kind.states)))


def load(spec, params, *, threads=None):
    return Network(numpy_ref.load(spec, params, threads=threads))
