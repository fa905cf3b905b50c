"""Predict the time of an unmeasured shape: a fitted sum of costs, corrected by the nearest measured shapes."""

from typing import NamedTuple

import numpy as np

BEYOND = 0.2
"""Extra standard deviation of log time per doubling of a size beyond all measured shapes, for effects that they cannot show,
such as the end of a cache."""

UNVARIED = float(np.log(2)) / 2
"""The same if all shapes share that size: time may grow with it (log 2 per doubling) or not."""

LENGTHS = (1.0, 2.0, 4.0)
"""Candidate correlation lengths of the deviation, in doublings; chosen by leave-one-out."""

AMPLITUDES = (0.03, 0.1, 0.3)
"""Candidate standard deviations of the deviation, in log time; chosen by leave-one-out."""

NEIGHBOURS = 48
"""Number of nearest shapes used."""

_RIDGE = 0.01  # ridge weight, relative to a shape's weight of 1
_QUANTILE = 1.96  # of the normal distribution, for a nominal 95% interval


class Predicted(NamedTuple):
    """Predicted seconds per call, with a nominal 95% interval.

    ``used``: indices of the shapes used, nearest first.  ``inside``: whether the wanted shape lies in their convex hull.
    """

    seconds: float
    low: float
    high: float
    used: list[int]
    inside: bool


def predict(
    shapes: np.ndarray, seconds: np.ndarray, noise: np.ndarray, flops: np.ndarray, wanted: np.ndarray, wanted_flops: float
) -> Predicted:
    """Predict the time at the shape ``wanted`` (4) from those at ``shapes`` (n, 4), n >= 1, all (T, B, H, I).

    ``seconds``, ``flops`` (n): per call.  ``noise`` (n): standard deviation of log(seconds).

    First, a sum of costs >= 0 is fitted to relative errors: per call, per step, per element of a step, per weight read in a
    step, and per operation.  Time per operation then falls as a shape outgrows its overheads, and levels off.  A straight
    line in log space would predict any rate beyond the measured shapes; inverse-distance weighting knows neither effect.
    The fit works even if a size was never varied, or if I follows H.

    Second, the deviations of log time from that sum are interpolated by simple kriging with a Matern 3/2 covariance
    (Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", sections 2.2 and 4.2), a local regression whose
    interval grows with the distance from the shapes.  Length and amplitude maximise the leave-one-out density (equations
    5.10 to 5.12 there) of the errors of the sum fitted without each shape.  The same residuals scale the variance, with two
    of the expected size added, so that few shapes cannot claim to be exact.
    ``BEYOND`` and ``UNVARIED`` add the uncertainty outside the measured range.
    """
    position = np.log2(shapes) - np.log2(wanted)
    used = np.argsort(np.linalg.norm(position, axis=1), kind="stable")[:NEIGHBOURS]
    position, seconds, noise = position[used], seconds[used], noise[used]
    costs = _costs(shapes[used], flops[used])
    coefficients = _fitted(costs, seconds)
    deviation = np.log(seconds / (costs @ coefficients))
    held_out = _leave_one_out(costs, seconds) if len(used) > 1 else deviation
    mean, variance = _kriged(position, noise, deviation, held_out)
    excess = np.maximum(np.maximum(position.min(0), -position.max(0)), 0)
    variance += float(np.sum((excess * np.where(np.ptp(position, 0) > 0, BEYOND, UNVARIED)) ** 2))
    middle = float(_costs(wanted[None], np.array([wanted_flops]))[0] @ coefficients * np.exp(mean))
    factor = float(np.exp(_QUANTILE * np.sqrt(variance)))
    return Predicted(middle, middle / factor, middle * factor, used.tolist(), _inside(position))


def _costs(shapes: np.ndarray, flops: np.ndarray) -> np.ndarray:
    """Return the terms of a call's time, up to factors (n, 5): one call, T steps, T B H elements, weights read, operations."""
    T, B, H, _ = shapes.T  # noqa: N806  # the usual names of the sizes
    return np.stack([np.ones(len(shapes)), T, T * B * H, flops / B, flops], 1)


def _fitted(costs: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Fit factors >= 0 by least squares of relative errors; terms that the shapes cannot separate get equal shares."""
    from scipy.optimize import nnls

    relative = costs / seconds[:, None]
    scale = relative.max(0)  # columns differ by powers of ten
    ridge = _RIDGE * np.eye(len(scale))
    return nnls(np.vstack([relative / scale, ridge]), np.append(np.ones(len(seconds)), np.zeros(len(scale))))[0] / scale


def _leave_one_out(costs: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return the log error of the sum of costs on each shape (n), fitted to the others."""
    kept = ~np.eye(len(seconds), dtype=bool)
    predicted = [costs[i] @ _fitted(costs[rows], seconds[rows]) for i, rows in enumerate(kept)]
    return np.log(seconds / predicted)


def _kriged(position: np.ndarray, noise: np.ndarray, deviation: np.ndarray, held_out: np.ndarray) -> tuple[float, float]:
    """Return mean and variance of the deviation at the origin, given those at ``position`` (n, 4)."""
    between = np.linalg.norm(position[:, None] - position[None], axis=2)
    distance = np.linalg.norm(position, axis=1)
    best = (-np.inf, 0.0, 0.0)
    for length in LENGTHS:
        for amplitude in AMPLITUDES:
            inverse = np.linalg.inv(amplitude**2 * _matern(between / length) + np.diag(noise**2))
            variances = 1 / np.diag(inverse)
            squares = (variances * (inverse @ held_out)) ** 2 / variances
            density = -0.5 * float(np.sum(np.log(variances) + squares))
            if density <= best[0]:
                continue
            to_origin = amplitude**2 * _matern(distance / length)
            variance = amplitude**2 - float(to_origin @ inverse @ to_origin) + float(np.median(noise)) ** 2
            scale = (2 + float(np.sum(squares))) / (2 + len(squares))
            best = (density, float(to_origin @ inverse @ deviation), variance * scale)
    return best[1], best[2]


def _matern(distance: np.ndarray) -> np.ndarray:
    """Return the Matern 3/2 correlation: once differentiable, as times are that change with the size of a cache."""
    scaled = np.sqrt(3) * distance
    return (1 + scaled) * np.exp(-scaled)


def _inside(position: np.ndarray) -> bool:
    """Return whether the origin is a convex combination of the rows; a flat hull, such as that of I = H, counts."""
    from scipy.optimize import nnls

    _, residual = nnls(np.vstack([position.T, np.ones(len(position))]), np.array([0.0] * position.shape[1] + [1.0]))
    return bool(residual < 1e-6)  # log2 of neighbouring sizes up to 2**19 lie farther apart than that
