"""Support vector regression; see `valence_lib.models` for how a model is called."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import svm
from torch import Tensor

from valence_lib.models.fitted import Array, Fitted

_COST = 3.0
_GAMMA = 0.35  # over the number of columns: the inverse of a typical squared distance
_INSENSITIVE = 0.1  # rating points, below which an error costs nothing


def kernel_machine(width: int) -> svm.SVR:
    """The machine, not fitted yet, for rows of so many columns that were brought to like scales."""
    return svm.SVR(C=_COST, gamma=_GAMMA / width, epsilon=_INSENSITIVE)


class SVR(Fitted):
    """Epsilon-support vector regression with a Gaussian kernel (Smola and Schölkopf 2004), on one row of numbers a clip.

    scikit-learn fits it. The cost of errors and the kernel's width stay what suited EmoTale's validation clips: chosen anew
    within each corpus's few speakers, they did worse there.
    """

    support: Tensor
    weight: Tensor
    bias: Tensor
    gamma: Tensor

    def __init__(self, width: int = 128):
        super().__init__()
        self.register_buffer("support", torch.zeros(0, width))
        self.register_buffer("weight", torch.zeros(0))
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("gamma", torch.zeros(()))

    def fit(self, vectors: Array, truth: Array, speakers: NDArray[np.str_]) -> None:
        """Fit it to rows [shape=(clips, width)] that were brought to like scales, with their ratings."""
        self.take(kernel_machine(vectors.shape[1]).fit(vectors, truth))

    def take(self, fitted: svm.SVR) -> None:
        """Predict what a fitted machine of scikit-learn's predicts."""
        self._keep(
            support=fitted.support_vectors_,
            weight=fitted.dual_coef_[0],
            bias=fitted.intercept_[0],
            gamma=fitted.gamma,
        )

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Valence of each clip, as `valence_lib.models` says; each clip is one row."""
        vectors = self._vectors(rows)
        distance = torch.cdist(vectors, self.support, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.exp(-self.gamma * distance**2) @ self.weight + self.bias
