"""Lasso or support vector regression; see `valence_lib.models` for how a model is called."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Lasso
from sklearn.pipeline import Pipeline
from torch import Tensor, nn

from valence_lib.models.fitted import Array, Grid, Linear, search
from valence_lib.models.svr import SVR, kernel_machine

_PENALTIES = np.geomspace(0.003, 0.1, 10)  # on the absolute weights, over the ratings' standard deviation


class LassoOrSVR(nn.Module):
    """A few numbers of a clip's row added up, or its likeness to all training clips: whichever suits the corpus.

    The Lasso (Tibshirani 1996) sees through hundreds of columns where valence goes along with a handful of them, and `SVR`
    where it hangs on how many go together. A cross-validation among the training clips chooses one, by the lower MSE, and
    the Lasso's penalty; scikit-learn fits both.
    """

    def __init__(self, width: int = 128):
        super().__init__()
        self.lasso = Linear(width)
        self.svr = SVR(width)

    def fit(self, vectors: Array, truth: Array, speakers: NDArray[np.str_]) -> None:
        """Fit it to rows [shape=(clips, width)] that were brought to like scales, with their ratings."""
        penalties = _PENALTIES * (truth.std() or 1.0)
        choice: list[Grid] = [
            {"model": [Lasso(max_iter=10_000)], "model__alpha": penalties},
            {"model": [kernel_machine(vectors.shape[1])]},
        ]
        fitted = search(Pipeline([("model", Lasso())]), choice, vectors, truth, speakers)["model"]
        (self.lasso if isinstance(fitted, Lasso) else self.svr).take(fitted)

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Valence of each clip, as `valence_lib.models` says; each clip is one row."""
        # The one that was not chosen is 0 for every clip.
        return self.lasso(rows, lengths) + self.svr(rows, lengths)
