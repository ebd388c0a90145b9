"""What else the training clips are labelled with, which a model can learn to tell beside valence."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

RATINGS = ("arousal", "dominance")
CATEGORIES = ("emotion",)


class SideTasks(nn.Module):
    """A linear reader, of what a model has read of a clip, for each rating and category that the training clips have.

    Tasks that are learned together share what they find in few clips: Caruana (1997), "Multitask learning", Machine Learning 28,
    41-75; of emotions, Parthasarathy and Busso (2017), "Jointly predicting arousal, valence and dominance with multi-task
    learning", Interspeech, 1103-1107. The readers serve in training alone: no prediction needs them.

    Args:
        clips: one row a clip; those of the columns `RATINGS` and `CATEGORIES` that are there, and in which the training
            rows differ, are told.
        training: the rows that are learned from; no other row's labels are looked at.
        size: how many numbers the model has read of a clip.
    """

    def __init__(self, clips: pd.DataFrame, training: NDArray[np.int64], size: int):
        super().__init__()
        labels = {name: _in_deviations(clips[name].iloc[training]) for name in RATINGS if name in clips}
        labels |= {name: _numbered(clips[name].iloc[training]) for name in CATEGORIES if name in clips}
        self._truth: dict[str, Tensor] = {}  # by row; NaN where unknown
        self.readers = nn.ModuleDict()
        for name, values in labels.items():
            known = values[np.isfinite(values)]
            if np.unique(known).size > 1:
                truth = np.full(len(clips), np.nan, np.float32)
                truth[training] = values
                self._truth[name] = torch.from_numpy(truth)
                self.readers[name] = nn.Linear(size, int(known.max()) + 1 if name in CATEGORIES else 1)

    def loss(self, read: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """The sum of the tasks' losses: the squared error of a rating, in training deviations, the cross-entropy of a category.

        Each is the mean over the clips whose label is known; 0 where there is none.

        Args:
            read [shape=(batch, size)]: what the model has read of each clip.
            rows [shape=(batch,)]: which clips these are.
        """
        total = read.new_zeros(())
        for name, reader in self.readers.items():
            truth = self._truth[name][rows]
            known = truth.isfinite()
            if known.any():
                told, truth = reader(read[known.to(read.device)]), truth[known].to(read.device)
                if name in CATEGORIES:
                    total = total + nn.functional.cross_entropy(told, truth.long())
                else:
                    total = total + nn.functional.mse_loss(told[:, 0], truth)
        return total


def _in_deviations(ratings: pd.Series) -> NDArray[np.float64]:
    """Ratings as deviations from their mean; NaN where there is none."""
    given = pd.to_numeric(ratings, errors="coerce").astype(np.float64)
    return ((given - given.mean()) / (given.std(ddof=0) or 1.0)).to_numpy()


def _numbered(categories: pd.Series) -> NDArray[np.float64]:
    """Categories as numbers from 0, in the order of their names; NaN where there is none."""
    codes = pd.Categorical(categories.where(categories != "")).codes
    return np.where(codes < 0, np.nan, codes.astype(np.float64))
