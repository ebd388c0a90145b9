"""What models share that are fitted in one step instead of epochs, on one row of numbers a clip."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from torch import Tensor, nn

Array = NDArray[np.float64]
Grid = Mapping[str, Any]  # of each hyperparameter, the values to try
_FOLDS = 5  # within the training clips
_MOST_CLIPS = 2000  # to choose hyperparameters by: a support vector machine's time grows with their square


class Fitted(nn.Module):
    """A model whose buffers are filled by `fit`, and take whatever sizes they have on disk."""

    def _load_from_state_dict(self, state, prefix, *rest):  # type: ignore[no-untyped-def]
        for name, _ in list(self.named_buffers(recurse=False)):
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name]))
        super()._load_from_state_dict(state, prefix, *rest)

    def _keep(self, **values: Array | float) -> None:
        """Fill buffers, in single precision."""
        for name, value in values.items():
            setattr(self, name, torch.as_tensor(np.asarray(value, np.float32)))

    @staticmethod
    def _vectors(rows: Tensor) -> Tensor:
        """The one row of each clip [shape=(batch, width)]."""
        return rows[:, 0]


class Linear(Fitted):
    """A weighted sum of a clip's row of numbers and a constant, as the linear models of scikit-learn find them."""

    weight: Tensor
    bias: Tensor

    def __init__(self, width: int = 128):
        super().__init__()
        self.register_buffer("weight", torch.zeros(width))
        self.register_buffer("bias", torch.zeros(()))

    def take(self, fitted: RegressorMixin) -> None:
        """Predict what a fitted model of scikit-learn's predicts."""
        self._keep(weight=fitted.coef_, bias=fitted.intercept_)

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Valence of each clip, as `valence_lib.models` says; each clip is one row."""
        return nn.functional.linear(self._vectors(rows), self.weight[None], self.bias[None])[:, 0]


def search(
    estimator: RegressorMixin,
    grid: Grid | Sequence[Grid],
    vectors: Array,
    truth: Array,
    speakers: NDArray[np.str_],
) -> RegressorMixin:
    """The estimator fitted on all clips, with the hyperparameters of the lowest MSE in a cross-validation among them.

    Folds go by speaker where every clip names one and there are enough, so that what is chosen is what suits new speakers.
    """
    rows = np.arange(len(truth))
    if len(rows) > _MOST_CLIPS:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:_MOST_CLIPS])
    by_speaker = (speakers != "").all() and len(set(speakers[rows])) >= _FOLDS
    n_folds = min(_FOLDS, len(rows))
    folds = GroupKFold(n_folds) if by_speaker else KFold(n_folds, shuffle=True, random_state=0)
    found = GridSearchCV(estimator, grid, scoring="neg_mean_squared_error", cv=folds, refit=False)
    found.fit(vectors[rows], truth[rows], groups=speakers[rows] if by_speaker else None)
    return estimator.set_params(**found.best_params_).fit(vectors, truth)
