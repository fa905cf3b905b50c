"""The time of a shape that was not measured, from those that were: a sum of costs, corrected by the nearest shapes."""

from typing import NamedTuple

import numpy as np

BEYOND = 0.2
"""Standard deviation, in log time, for each doubling of a size by which a shape exceeds all measured ones: what none of them
can tell, as the end of a cache."""

UNVARIED = float(np.log(2)) / 2
"""The same where all shapes share that size: whether time grows with it (log 2 for each doubling) or not is not known."""

LENGTHS = (1.0, 2.0, 4.0)
"""Doublings over which the deviation of one shape tells of another; chosen by leave-one-out."""

AMPLITUDES = (0.03, 0.1, 0.3)
"""Sizes of such deviations, in log time; chosen by leave-one-out."""

NEIGHBOURS = 48
"""So many of the nearest shapes are looked at."""

_SHARING = 0.01  # weight of equal shares, as that of one shape with an error of 100 where theirs is 1
_QUANTILE = 1.96  # of a normal distribution: the interval is meant to hold 95%


class Predicted(NamedTuple):
    """Seconds of a call and the interval meant to hold 95% of what would be measured; ``used``: the indices of the shapes
    that it comes from, nearest first; ``inside``: whether the wanted shape lies in their convex hull."""

    seconds: float
    low: float
    high: float
    used: list[int]
    inside: bool


def predict(
    shapes: np.ndarray, seconds: np.ndarray, noise: np.ndarray, flops: np.ndarray, wanted: np.ndarray, wanted_flops: float
) -> Predicted:
    """Predict the time at ``wanted`` (4) from those at ``shapes`` (n, 4), both sizes (T, B, H, I); n >= 1.

    ``seconds``, ``flops`` (n): of one call; ``noise`` (n): the standard deviation of log(seconds).

    First a sum of costs, each >= 0, fitted to relative errors: of a call, of a step, of an element of a step, of a weight
    read in a step, and of an operation.  So time over operations falls while a shape grows out of its overheads and
    then stays, which a straight line in log space does not: beyond the measured shapes it promises any rate.  Inverse
    distances know neither.  No size has to have been varied for it, and I may follow H.

    Then what the log of the times deviates from that sum is interpolated: simple kriging with Matern 3/2 covariance
    (Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", sections 2.2 and 4.2), a local regression
    whose interval grows with the distance from the shapes.  Its length and amplitude have the highest leave-one-out
    density (equations 5.10 to 5.12 there) over the errors of the sum fitted without each shape; the variance is scaled
    by the same residuals, with two of the expected size added, so that few shapes cannot claim to be exact.
    ``BEYOND`` and ``UNVARIED`` add what the measured range does not cover.
    """
    position = np.log2(shapes) - np.log2(wanted)
    used = np.argsort(np.linalg.norm(position, axis=1), kind="stable")[:NEIGHBOURS]
    position, seconds, noise = position[used], seconds[used], noise[used]
    costs = _costs(shapes[used], flops[used])
    coefficients = _fitted(costs, seconds)
    deviation = np.log(seconds / (costs @ coefficients))
    unseen = _without_each(costs, seconds) if len(used) > 1 else deviation
    mean, variance = _kriged(position, noise, deviation, unseen)
    excess = np.maximum(np.maximum(position.min(0), -position.max(0)), 0)
    variance += float(np.sum((excess * np.where(np.ptp(position, 0) > 0, BEYOND, UNVARIED)) ** 2))
    middle = float(_costs(wanted[None], np.array([wanted_flops]))[0] @ coefficients * np.exp(mean))
    factor = float(np.exp(_QUANTILE * np.sqrt(variance)))
    return Predicted(middle, middle / factor, middle * factor, used.tolist(), _inside(position))


def _costs(shapes: np.ndarray, flops: np.ndarray) -> np.ndarray:
    """What a call's time is a sum of, up to factors (n, 5): one call, T steps, T B H elements, weights read, operations."""
    T, B, H, _ = shapes.T  # noqa: N806  # the field's names of sizes
    return np.stack([np.ones(len(shapes)), T, T * B * H, flops / B, flops], 1)


def _fitted(costs: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Factors >= 0 with the least squares of relative errors; what the shapes cannot tell apart is shared equally."""
    from scipy.optimize import nnls

    relative = costs / seconds[:, None]
    scale = relative.max(0)  # columns differ by powers of ten
    sharing = _SHARING * np.eye(len(scale))
    return nnls(np.vstack([relative / scale, sharing]), np.append(np.ones(len(seconds)), np.zeros(len(scale))))[0] / scale


def _without_each(costs: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """The log error of the sum of costs on each shape (n) when it is fitted to the others."""
    kept = ~np.eye(len(seconds), dtype=bool)
    predicted = [costs[i] @ _fitted(costs[rows], seconds[rows]) for i, rows in enumerate(kept)]
    return np.log(seconds / predicted)


def _kriged(position: np.ndarray, noise: np.ndarray, deviation: np.ndarray, unseen: np.ndarray) -> tuple[float, float]:
    """Mean and variance of the deviation at the origin from those at ``position`` (n, 4)."""
    between = np.linalg.norm(position[:, None] - position[None], axis=2)
    distance = np.linalg.norm(position, axis=1)
    best = (-np.inf, 0.0, 0.0)
    for length in LENGTHS:
        for amplitude in AMPLITUDES:
            inverse = np.linalg.inv(amplitude**2 * _matern(between / length) + np.diag(noise**2))
            variances = 1 / np.diag(inverse)
            squares = (variances * (inverse @ unseen)) ** 2 / variances
            density = -0.5 * float(np.sum(np.log(variances) + squares))
            if density <= best[0]:
                continue
            to_origin = amplitude**2 * _matern(distance / length)
            variance = amplitude**2 - float(to_origin @ inverse @ to_origin) + float(np.median(noise)) ** 2
            scale = (2 + float(np.sum(squares))) / (2 + len(squares))
            best = (density, float(to_origin @ inverse @ deviation), variance * scale)
    return best[1], best[2]


def _matern(distance: np.ndarray) -> np.ndarray:
    """Covariance 1 at distance 0; smooth once, as times are that change with the size of a cache."""
    scaled = np.sqrt(3) * distance
    return (1 + scaled) * np.exp(-scaled)


def _inside(position: np.ndarray) -> bool:
    """Whether the origin is a mean of the rows with weights >= 0; a hull without volume, as that of I = H, is one too."""
    from scipy.optimize import nnls

    _, residual = nnls(np.vstack([position.T, np.ones(len(position))]), np.array([0.0] * position.shape[1] + [1.0]))
    return bool(residual < 1e-6)  # log2 of neighbouring sizes up to 2**19 lie farther apart than that
