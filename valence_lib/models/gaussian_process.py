"""Gaussian process regression on a sum of kernels."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from valence_lib.models.contract import Array
from valence_lib.models.fitted import KernelExpansion

# The grid: the kernel's gamma, and the variance of the noise relative to the signal's.
_GAMMAS = (0.05, 0.1, 0.2, 0.3, 0.4)
_NOISES = (0.03, 0.05, 0.08, 0.12, 0.2)
_CHOOSE_CLIPS = 1000  # to choose by: an eigendecomposition takes cubic time
_EXACT_CLIPS = 7000  # the kernel takes quadratic memory
_LANDMARKS = 4000
_ROWS_PER_BLOCK = 2048


class GaussianProcess(KernelExpansion):
    """The mean of a Gaussian process with the kernel of `KernelExpansion`, which is kernel ridge regression.

    weight = (K + noise I)^-1 (truth - mean): Rasmussen and Williams (2006), Gaussian Processes for Machine
    Learning, ch. 2. Gamma and noise are those of a grid with the lowest leave-one-out error, in closed form
    (ch. 5.4.2).

    With more than 7000 training clips, the kernel is expanded in 4000 random ones, with weights fitted to all
    (subset of regressors: Smola and Bartlett 2001, "Sparse greedy Gaussian process regression", NIPS 13).
    """

    def fit(self, vectors: Array, truth: Array, speakers: NDArray[np.str_]) -> None:
        """See `OneStepModel.fit`."""
        rows, mean = torch.as_tensor(vectors), float(truth.mean())
        ratings = torch.as_tensor(truth - mean, dtype=torch.float64)
        order = torch.as_tensor(np.random.default_rng(0).permutation(len(rows)))
        some = order[:_CHOOSE_CLIPS].sort().values
        gamma, noise = self._choose(rows[some], ratings[some])
        support = rows if len(rows) <= _EXACT_CLIPS else rows[order[:_LANDMARKS].sort().values]
        system, target = self.kernel(support, support, gamma), ratings[:, None]
        if support is not rows:
            system, target = noise * system, torch.zeros(len(support), 1, dtype=torch.float64)
            blocks = zip(rows.split(_ROWS_PER_BLOCK), ratings.split(_ROWS_PER_BLOCK), strict=True)
            for block, of_block in blocks:
                kernel = self.kernel(block, support, gamma)
                system.addmm_(kernel.T, kernel)
                target.addmm_(kernel.T, of_block[:, None])
            noise = 1e-8 * float(system.trace()) / len(support)  # only stabilises the solution
        system.diagonal().add_(noise)
        weight = torch.cholesky_solve(target, torch.linalg.cholesky(system))
        self._set(support=support.numpy(), weight=weight[:, 0].numpy(), bias=mean, gamma=gamma)

    def _choose(self, rows: Tensor, ratings: Tensor) -> tuple[float, float]:
        """Gamma and noise of the grid with the lowest leave-one-out error; the ratings' mean is about 0."""
        errors = {}
        for gamma in _GAMMAS:
            values, directions = torch.linalg.eigh(self.kernel(rows, rows, gamma))
            projected = directions.T @ ratings
            for noise in _NOISES:
                inverse = 1 / (values.clamp(min=0) + noise)
                left_out = (directions @ (inverse * projected)) / (directions**2 @ inverse)
                errors[gamma, noise] = float((left_out**2).mean())
        return min(errors, key=errors.__getitem__)
