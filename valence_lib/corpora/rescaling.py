"""From one rating scale to another."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Rating = TypeVar("Rating", float, NDArray[np.float64])


def rescaled(rating: Rating, scale: tuple[float, float], other: tuple[float, float]) -> Rating:
    """A rating, or many, mapped linearly from one scale to another, of each of which the ends are given.

    >>> rescaled(4.0, (1, 7), (1, 5))
    3.0
    """
    if scale == other:  # exactly the same numbers
        return rating
    share = (rating - scale[0]) / (scale[1] - scale[0])
    return other[0] + share * (other[1] - other[0])


def lone_end(values: NDArray[np.float64], fewest: int = 2) -> tuple[float, float, float] | None:
    """A lowest or highest value that is at least as far from all others as these are from each other.

    Such a value often marks a missing rating.

    Args:
        values: NaN among them does not count.
        fewest: other values that there have to be; with fewer, nothing is known of their distances.

    Returns:
        The value, and the lowest and the highest of the others; None where there is none.

    >>> lone_end(np.array([-99.0, 1.0, 2.0, 5.0]))
    (-99.0, 1.0, 5.0)
    """
    values = np.unique(values[np.isfinite(values)])
    for outer, others in ((values[:1], values[1:]), (values[-1:], values[:-1])):
        if len(others) >= fewest and np.abs(others - outer).min() >= np.ptp(others):
            return float(outer[0]), float(others[0]), float(others[-1])
    return None
