"""Support vector regression."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn import svm

from valence_lib.models.contract import Array
from valence_lib.models.fitted import KernelExpansion

# Those that suited EmoTale's validation clips.
_COST = 3.0
_GAMMA = 0.35  # divided by the number of columns
_EPSILON = 0.1  # rating points; smaller errors cost nothing


class SVR(KernelExpansion):
    """Epsilon-support vector regression (Smola and Schölkopf 2004), by scikit-learn; one group of columns."""

    def __init__(self, widths: Sequence[int]):
        super().__init__([sum(widths)])

    def fit(self, vectors: Array, truth: Array, speakers: NDArray[np.str_]) -> None:
        """See `OneStepModel.fit`."""
        machine = svm.SVR(C=_COST, gamma=_GAMMA / vectors.shape[1], epsilon=_EPSILON).fit(vectors, truth)
        weight, bias = machine.dual_coef_[0], machine.intercept_[0]
        self._set(support=machine.support_vectors_, weight=weight, bias=bias, gamma=_GAMMA)
