"""The elementwise equations of losses, output activations and optimisers.

They work on NumPy arrays and on Numba scalars.  There are no numeric literals, because in Numba they would promote float32 to
float64: constants come as arguments of the model's dtype.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


def squared_error(output, target, weight):
    """weight (o - d)^2, and its derivative with respect to the output o; without the factor 1/2 of some texts."""
    error = output - target
    weighted = weight * error
    return weighted * error, weighted + weighted


def identity_slope(cotangent, output):
    return cotangent


def tanh_slope(cotangent, output):
    return cotangent - cotangent * output * output


def sigmoid_slope(cotangent, output):
    return cotangent * (output - output * output)


SLOPES: dict[str, Callable[..., Any]] = {"identity": identity_slope, "tanh": tanh_slope, "sigmoid": sigmoid_slope}
"""The cotangent before the activation, from the one after it and the output."""


class SgdConstants(NamedTuple):
    """``rate``: the learning rate; ``momentum``: the part of the velocity that is kept."""

    rate: Any
    momentum: Any


class AdamConstants(NamedTuple):
    """Of one step: decays, what is left of 1 beside them, ``rate`` and ``root`` corrected for bias, and the decay of weights.

    ``rate`` = learning rate / (1 - beta1^t), ``root`` = 1 / sqrt(1 - beta2^t), ``kept`` = 1 - learning rate x weight decay.
    """

    beta1: Any
    beta2: Any
    rest1: Any
    rest2: Any
    rate: Any
    root: Any
    epsilon: Any
    kept: Any


def sgd(parameter, gradient, slots, constants):
    """p - rate g.  Robbins and Monro 1951; torch.optim.SGD."""
    return parameter - constants.rate * gradient, ()


def momentum(parameter, gradient, slots, constants):
    """v = mu v + g, p - rate v.  Sutskever et al. 2013, in the form of torch.optim.SGD."""
    velocity = constants.momentum * slots[0] + gradient
    return parameter - constants.rate * velocity, (velocity,)


def nesterov(parameter, gradient, slots, constants):
    """v = mu v + g, p - rate (g + mu v).  Nesterov 1983, in the form of torch.optim.SGD."""
    velocity = constants.momentum * slots[0] + gradient
    return parameter - constants.rate * (gradient + constants.momentum * velocity), (velocity,)


def adam(parameter, gradient, slots, constants):
    """Adam, and AdamW where ``kept`` is below 1.  Kingma and Ba 2015; Loshchilov and Hutter 2019; torch.optim.AdamW."""
    first = constants.beta1 * slots[0] + constants.rest1 * gradient
    second = constants.beta2 * slots[1] + constants.rest2 * (gradient * gradient)
    step = constants.rate * first / (np.sqrt(second) * constants.root + constants.epsilon)
    return constants.kept * parameter - step, (first, second)


class Rule(NamedTuple):
    """How an optimiser updates one element: ``update(parameter, gradient, slots, constants) -> (parameter, slots)``.

    ``slots``: the number of values kept for each element from step to step, 0 at the start.
    ``sparse``: an element whose gradient is 0 stays as it is.
    """

    name: str
    update: Callable[..., Any]
    slots: int
    sparse: bool = False


RULES = {
    rule.name: rule
    for rule in (
        Rule("sgd", sgd, 0, sparse=True),
        Rule("momentum", momentum, 1),
        Rule("nesterov", nesterov, 1),
        Rule("adam", adam, 2),
    )
}

CONSTANTS: dict[str, type] = {"sgd": SgdConstants, "momentum": SgdConstants, "nesterov": SgdConstants, "adam": AdamConstants}
"""What the update of each rule takes as ``constants``."""
