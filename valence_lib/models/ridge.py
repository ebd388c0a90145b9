"""Ridge regression; see `valence_lib.models` for how a model is called."""

import numpy as np
from numpy.typing import NDArray
from sklearn import linear_model

from valence_lib.models.fitted import Array, Linear, search


class Ridge(Linear):
    """Linear regression with an L2 penalty (Hoerl and Kennard 1970), on one row of numbers a clip; scikit-learn fits it.

    The penalty is chosen by cross-validation among the training clips.
    """

    def fit(self, vectors: Array, truth: Array, speakers: NDArray[np.str_]) -> None:
        """Fit it to rows [shape=(clips, width)] that were brought to like scales, with their ratings."""
        penalties = {"alpha": tuple(10.0**power for power in range(6))}
        self.take(search(linear_model.Ridge(), penalties, vectors, truth, speakers))
