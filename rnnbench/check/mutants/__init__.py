"""Mutants: correct backends with one planted bug each, which the check must find."""

from rnnbench.check.mutants import (
    arguments,
    calls,
    equations,
    gradients,
    kept_states,
    lengths,
    models,
    peepholes,
    projection,
    sizes,
    streams,
    structure,
    truncation,
    widths,
)
from rnnbench.check.mutants.hooks import AREAS, Mutant, MutantNetwork, Planted

__all__ = ["AREAS", "MUTANTS", "Mutant", "MutantNetwork", "Planted"]

MUTANTS: tuple[Mutant, ...] = tuple(
    mutant
    for module in (
        equations,
        gradients,
        peepholes,
        projection,
        truncation,
        structure,
        sizes,
        widths,
        calls,
        arguments,
        lengths,
        models,
        streams,
        kept_states,
    )
    for mutant in module.MUTANTS
)
