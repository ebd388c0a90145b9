"""Support vector regression; see `valence_lib.models` for how a model is called."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn import svm

from valence_lib.models.fitted import Array, KernelExpansion

_COST = 3.0
_GAMMA = 0.35  # over the number of columns: the inverse of a typical squared distance
_INSENSITIVE = 0.1  # rating points, below which an error costs nothing


class SVR(KernelExpansion):
    """Epsilon-support vector regression (Smola and Schölkopf 2004), on one row of numbers a clip; scikit-learn fits it.

    The cost of errors and the kernel's width are those that suited EmoTale's validation clips.

    Args:
        widths: columns of each group; all of them make one group here.
    """

    def __init__(self, widths: Sequence[int] = (128,)):
        super().__init__([sum(widths)])

    def fit(self, vectors: Array, truth: Array, speakers: NDArray[np.str_]) -> None:
        """Fit it to rows [shape=(clips, sum(widths))] that are on like scales, with their ratings."""
        machine = svm.SVR(C=_COST, gamma=_GAMMA / vectors.shape[1], epsilon=_INSENSITIVE).fit(vectors, truth)
        self._keep(
            support=machine.support_vectors_,
            weight=machine.dual_coef_[0],
            bias=machine.intercept_[0],
            gamma=_GAMMA,
        )
