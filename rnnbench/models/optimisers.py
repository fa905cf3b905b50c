"""SGD, Adam and AdamW over a model's parameters, with gradients clipped by their norm or by value."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.models.equations import RULES, Rule
from rnnbench.models.model import Model, ModelGradients
from rnnbench.networks.params import Params


class Optimiser(ABC):
    """Updates a model's parameters in place, step by step.

    ``rate``: the learning rate; it may be changed between steps.
    ``clip_norm``: gradients are scaled so that the norm of all of them together is at most this (Pascanu et al. 2013).
    ``clip_value``: each element of a gradient is held within +- this.  Raises ArgumentError.
    """

    rule: Rule

    def __init__(self, model: Model, rate: float, *, clip_norm: float | None = None, clip_value: float | None = None) -> None:
        self.rate = _positive("rate", rate)
        if clip_norm is not None and clip_value is not None:
            raise ArgumentError(f"clip_norm is {clip_norm!r} and clip_value {clip_value!r}; expected at most one of them")
        self._clip_norm = None if clip_norm is None else _positive("clip_norm", clip_norm)
        self._clip_value = math.inf if clip_value is None else _positive("clip_value", clip_value)
        self._model, self._steps = model, 0

    def _start(self) -> None:
        shapes = self._model.spec.param_shapes()
        dtype, asarray = self._model.spec.numpy_dtype, self._model.parts.asarray
        self._slots = {name: [asarray(np.zeros(s, dtype)) for _ in range(self.rule.slots)] for name, s in shapes.items()}

    @property
    def steps(self) -> int:
        """The number of steps taken."""
        return self._steps

    def step(self, gradients: ModelGradients) -> float | None:
        """Clip the gradients and update the parameters; return the norm before clipping, or None without ``clip_norm``."""
        norm, scale = None, 1.0
        if self._clip_norm is not None:
            norm = math.sqrt(self._model.parts.squared_norm(list(gradients.values())))
            if norm > self._clip_norm:
                scale = self._clip_norm / norm
        self._steps += 1
        constants = self._constants()
        for name, parameter in self._model.arrays.items():
            slots = self._slots[name]
            self._model.parts.update(self.rule, parameter, gradients[name], slots, constants, scale, self._clip_value)
        self._model.changed()
        return norm

    def state(self) -> Params:
        """Return copies of the slots and the number of steps as NumPy arrays by name."""
        to_numpy = self._model.parts.to_numpy
        slots = {f"{name}.{i}": np.array(to_numpy(s)) for name, all_ in self._slots.items() for i, s in enumerate(all_)}
        return slots | {"steps": np.array(self._steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what ``state`` returned; raises ArgumentError for the state of another optimiser or model."""
        own = self.state()
        if set(state) != set(own):
            odd = sorted(set(state) ^ set(own))
            raise ArgumentError(
                f"the optimiser's state has other arrays: {', '.join(odd[:5])}; expected {', '.join(sorted(own)[:5])}"
            )
        for name, value in own.items():
            if state[name].shape != value.shape:
                raise ArgumentError(f"{name} of the optimiser's state has shape {state[name].shape}; expected {value.shape}")
        asarray = self._model.parts.asarray
        self._slots = {n: [asarray(state[f"{n}.{i}"]) for i in range(len(all_))] for n, all_ in self._slots.items()}
        self._steps = int(state["steps"])

    @abstractmethod
    def _constants(self) -> tuple[float, ...]:
        """The constants of the rule for the current step."""


class SGD(Optimiser):
    """Stochastic gradient descent: p - rate g; with momentum mu, v = mu v + g and p - rate v, or nesterov's form."""

    def __init__(
        self,
        model: Model,
        rate: float = 0.1,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(model, rate, clip_norm=clip_norm, clip_value=clip_value)
        self._momentum = _decay("momentum", momentum)
        if nesterov and not momentum:
            raise ArgumentError("nesterov is True and momentum 0; expected a momentum above 0")
        self.rule = RULES["nesterov" if nesterov else "momentum" if momentum else "sgd"]
        self._start()

    def _constants(self) -> tuple[float, ...]:
        return self.rate, self._momentum


class Adam(Optimiser):
    """Adam with correction for bias.  Kingma and Ba 2015; the defaults of torch.optim.Adam."""

    rule = RULES["adam"]

    def __init__(
        self,
        model: Model,
        rate: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(model, rate, clip_norm=clip_norm, clip_value=clip_value)
        self._betas = tuple(_decay("a beta", beta) for beta in betas)
        self._epsilon, self._weight_decay = _positive("epsilon", epsilon), 0.0
        self._start()

    def _constants(self) -> tuple[float, ...]:
        first, second = self._betas
        rate = self.rate / (1 - first**self._steps)
        root = 1 / math.sqrt(1 - second**self._steps)
        return first, second, 1 - first, 1 - second, rate, root, self._epsilon, 1 - self.rate * self._weight_decay


class AdamW(Adam):
    """Adam with decoupled weight decay.  Loshchilov and Hutter 2019; the defaults of torch.optim.AdamW."""

    def __init__(self, model: Model, rate: float = 1e-3, *, weight_decay: float = 0.01, **options: Any) -> None:
        super().__init__(model, rate, **options)
        self._weight_decay = _positive("weight_decay", weight_decay)


OPTIMISERS: dict[str, type[Optimiser]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < math.inf:
        raise ArgumentError(f"{name} is {value!r}; expected a finite number above 0")
    return float(value)


def _decay(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < 1:
        raise ArgumentError(f"{name} is {value!r}; expected a number from 0 to below 1")
    return float(value)
