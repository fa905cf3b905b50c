"""Choice of the regime for a batch: the first that holds the network, or separate steps where these should be faster."""

from rnnbench.impls.numba_cuda.estimates import persistent_step, separate_step
from rnnbench.impls.numba_cuda.regimes import PER_STEP, Limits, Regime, by_size
from rnnbench.networks.spec import Spec


def choose(spec: Spec, limits: Limits, batch: int = 1) -> Regime:
    """The regime of a network's layers for a batch, by its size and by ``estimates``."""
    first = by_size(spec, limits)
    if first.name == PER_STEP or persistent_step(spec, first, batch, limits) <= separate_step(spec, batch, limits):
        return first
    return Regime(PER_STEP, None, None)
