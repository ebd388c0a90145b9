"""What models share that are fitted in one step, to one row of numbers a clip."""

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


class KernelExpansion(Fitted):
    """A constant plus a weighted sum of a clip's kernels with training clips.

    The kernel of two rows is the mean over groups of columns of exp(-gamma / d * |x - x'|^2), where d is the number of columns of
    the group: each group counts alike, whatever its width (Gönen and Alpaydın 2011, "Multiple kernel learning algorithms", JMLR
    12, 2211-2268).

    Args:
        widths: columns of each group.
    """

    support: Tensor
    weight: Tensor
    bias: Tensor
    gamma: Tensor

    def __init__(self, widths: Sequence[int] = (128,)):
        super().__init__()
        self.widths = list(widths)
        self.register_buffer("support", torch.zeros(0, sum(widths)))
        self.register_buffer("weight", torch.zeros(0))
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("gamma", torch.zeros(()))

    def kernel(self, first: Tensor, second: Tensor, gamma: float) -> Tensor:
        """The kernel of all pairs of two sets of rows [shape=(len(first), len(second)), dtype=float64]."""
        total = torch.zeros(len(first), len(second), dtype=torch.float64, device=first.device)
        groups = [rows.double().split(self.widths, dim=1) for rows in (first, second)]
        for a, b in zip(*groups, strict=True):
            # In double precision, the products are exact enough, and many times as fast as differences.
            distances = torch.addmm((a**2).sum(1)[:, None] + (b**2).sum(1), a, b.T, alpha=-2)
            total += torch.exp_(distances.mul_(-gamma / a.shape[1]))
        return total / len(self.widths)

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Valence of each clip, as `valence_lib.models` says; each clip is one row."""
        kernel = self.kernel(self._vectors(rows), self.support, float(self.gamma))
        return (kernel @ self.weight.double()).float() + self.bias


def folds_of(
    speakers: NDArray[np.str_], n_folds: int = _FOLDS
) -> tuple[GroupKFold | KFold, NDArray[np.str_] | None]:
    """Folds among training clips, and the groups that they take: by speaker where every clip names one and there are
    enough, so that what is chosen suits new speakers; else at random."""
    if (speakers != "").all() and len(set(speakers)) >= n_folds:
        return GroupKFold(n_folds), speakers
    return KFold(min(n_folds, len(speakers)), shuffle=True, random_state=0), None


def search(
    estimator: RegressorMixin, grid: Grid, vectors: Array, truth: Array, speakers: NDArray[np.str_]
) -> RegressorMixin:
    """The estimator fitted to all clips, with the hyperparameters of the lowest MSE in a cross-validation among them."""
    rows = np.arange(len(truth))
    if len(rows) > _MOST_CLIPS:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:_MOST_CLIPS])
    folds, groups = folds_of(speakers[rows])
    found = GridSearchCV(estimator, grid, scoring="neg_mean_squared_error", cv=folds, refit=False)
    found.fit(vectors[rows], truth[rows], groups=groups)
    return estimator.set_params(**found.best_params_).fit(vectors, truth)
