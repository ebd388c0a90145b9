"""What models that are fitted in one step share: a kernel, and folds by which they choose hyperparameters."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold
from torch import Tensor

from valence_lib.models.contract import OneStepModel


class KernelExpansion(OneStepModel):
    """A constant plus a weighted sum of a clip's kernels with training clips.

    The kernel of two rows is the mean over groups of columns of exp(-gamma / d * |x - x'|^2), where d is the
    number of columns of the group (Gönen and Alpaydın 2011, "Multiple kernel learning algorithms", JMLR 12,
    2211-2268).
    """

    support: Tensor
    weight: Tensor
    bias: Tensor
    gamma: Tensor

    def __init__(self, widths: Sequence[int]):
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
            # In double precision, products are exact enough, and much faster than differences.
            distances = torch.addmm((a**2).sum(1)[:, None] + (b**2).sum(1), a, b.T, alpha=-2)
            total += torch.exp_(distances.mul_(-gamma / a.shape[1]))
        return total / len(self.widths)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See `ValenceModel.forward`; each clip has one frame."""
        kernel = self.kernel(frames[:, 0], self.support, float(self.gamma))
        return (kernel @ self.weight.double()).float() + self.bias


def folds_of(speakers: NDArray[np.str_], n_folds: int) -> tuple[GroupKFold | KFold, NDArray[np.str_] | None]:
    """Folds among training clips, and their groups: by speaker where all are named and enough, else random.

    Args:
        speakers [shape=(clips,)]: "" where unknown.
    """
    if (speakers != "").all() and len(set(speakers)) >= n_folds:
        return GroupKFold(n_folds), speakers
    return KFold(min(n_folds, len(speakers)), shuffle=True, random_state=0), None
