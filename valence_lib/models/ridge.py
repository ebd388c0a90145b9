"""Ridge regression; see `valence_lib.models` for how a model is called."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import linear_model
from torch import Tensor, nn

from valence_lib.models.fitted import Array, Fitted, search


class Ridge(Fitted):
    """Linear regression with an L2 penalty (Hoerl and Kennard 1970), on one row of numbers a clip; scikit-learn fits it.

    The penalty is chosen by cross-validation among the training clips.

    Args:
        widths: columns of each group.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, widths: Sequence[int] = (128,)):
        super().__init__()
        self.register_buffer("weight", torch.zeros(sum(widths)))
        self.register_buffer("bias", torch.zeros(()))

    def fit(self, vectors: Array, truth: Array, speakers: NDArray[np.str_]) -> None:
        """Fit it to rows [shape=(clips, sum(widths))] that are on like scales, with their ratings."""
        penalties = {"alpha": tuple(10.0**power for power in range(6))}
        fitted = search(linear_model.Ridge(), penalties, vectors, truth, speakers)
        self._keep(weight=fitted.coef_, bias=fitted.intercept_)

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Valence of each clip, as `valence_lib.models` says; each clip is one row."""
        return nn.functional.linear(self._vectors(rows), self.weight[None], self.bias[None])[:, 0]
