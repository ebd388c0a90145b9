"""Gaussian process regression on a sum of kernels; see `valence_lib.models` for how a model is called."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from valence_lib.models.fitted import Array, KernelExpansion

# The grid: of the kernel's gamma, and of the noise's variance over the signal's.
_GAMMAS = (0.05, 0.1, 0.2, 0.3, 0.4)
_NOISES = (0.03, 0.05, 0.08, 0.12, 0.2)
_CHOOSE_CLIPS = 1000  # at most, to choose by: an eigendecomposition takes time with the cube of their number
_EXACT_CLIPS = 7000  # at most; the memory of the kernel grows with their square
_LANDMARKS = 4000  # clips that the kernel is expanded in where there are more
_ROWS_AT_ONCE = 2048


class GaussianProcess(KernelExpansion):
    """The mean of a Gaussian process with the kernel of `KernelExpansion`, which is kernel ridge regression.

    weight = (K + noise I)^-1 (truth - mean): Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, chapter 2.
    The kernel's gamma and the noise are those of a grid with the lowest mean squared error of leaving one training clip out, which
    has a closed form (chapter 5.4.2).

    With more than 7000 training clips, 4000 are drawn at random, and the weights of the kernels with these are fitted to all
    clips (subset of regressors: Smola and Bartlett 2001, "Sparse greedy Gaussian process regression", NIPS 13).
    """

    def fit(self, vectors: Array, truth: Array, speakers: NDArray[np.str_]) -> None:
        """Fit it to rows [shape=(clips, sum(widths))] that are on like scales, with their ratings."""
        rows, centre = torch.as_tensor(vectors), float(truth.mean())
        ratings = torch.as_tensor(truth - centre, dtype=torch.float64)
        order = torch.as_tensor(np.random.default_rng(0).permutation(len(rows)))
        some = order[:_CHOOSE_CLIPS].sort().values
        gamma, noise = self._choose(rows[some], ratings[some])
        if len(rows) <= _EXACT_CLIPS:
            system, target = self.kernel(rows, rows, gamma), ratings[:, None]
        else:
            every, rows = rows, rows[order[:_LANDMARKS].sort().values]
            system, target = (
                noise * self.kernel(rows, rows, gamma),
                torch.zeros(len(rows), 1, dtype=torch.float64),
            )
            for block, of_block in zip(every.split(_ROWS_AT_ONCE), ratings.split(_ROWS_AT_ONCE), strict=True):
                kernel = self.kernel(block, rows, gamma)
                system.addmm_(kernel.T, kernel)
                target.addmm_(kernel.T, of_block[:, None])
            noise = 1e-8 * float(system.trace()) / len(rows)  # so little that it only steadies the solution
        system.diagonal().add_(noise)
        weight = torch.cholesky_solve(target, torch.linalg.cholesky(system))
        self._keep(support=rows.numpy(), weight=weight[:, 0].numpy(), bias=centre, gamma=gamma)

    def _choose(self, rows: Tensor, ratings: Tensor) -> tuple[float, float]:
        """Gamma and noise of the grid with the lowest error of leaving one out; the mean of the ratings is about 0."""
        errors = {}
        for gamma in _GAMMAS:
            values, directions = torch.linalg.eigh(self.kernel(rows, rows, gamma))
            along = directions.T @ ratings
            for noise in _NOISES:
                inverse = 1 / (values.clamp(min=0) + noise)
                left_out = (directions @ (inverse * along)) / (directions**2 @ inverse)
                errors[gamma, noise] = float((left_out**2).mean())
        return min(errors, key=errors.__getitem__)
