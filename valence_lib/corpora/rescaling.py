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
