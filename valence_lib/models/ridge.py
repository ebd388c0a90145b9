"""Ridge regression."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import linear_model
from torch import Tensor, nn

from valence_lib.models.contract import Array, OneStepModel
from valence_lib.models.fitted import folds_of

_PENALTIES = tuple(10.0**power for power in range(6))
_FOLDS = 5
_MOST_CLIPS = 2000  # to choose the penalty by


class Ridge(OneStepModel):
    """Linear regression with an L2 penalty (Hoerl and Kennard 1970), by scikit-learn.

    The penalty is the one with the lowest MSE in a cross-validation among the training clips.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.register_buffer("weight", torch.zeros(sum(widths)))
        self.register_buffer("bias", torch.zeros(()))

    def fit(self, vectors: Array, truth: Array, speakers: NDArray[np.str_]) -> None:
        """See `OneStepModel.fit`."""
        some = np.sort(np.random.default_rng(0).permutation(len(truth))[:_MOST_CLIPS])
        folds, groups = folds_of(speakers[some], _FOLDS)
        splits = list(folds.split(some, groups=groups))
        search = linear_model.RidgeCV(_PENALTIES, scoring="neg_mean_squared_error", cv=splits)
        penalty = search.fit(vectors[some], truth[some]).alpha_
        fitted = linear_model.Ridge(penalty).fit(vectors, truth)
        self._set(weight=fitted.coef_, bias=fitted.intercept_)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See `ValenceModel.forward`; each clip has one frame."""
        return nn.functional.linear(frames[:, 0], self.weight[None], self.bias[None])[:, 0]
