"""Robustness: predictions of perturbed and occluded clips by the run that is tested on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from valence_lib.corpora.sources import Corpus
from valence_lib.corpora.waveforms import Waveform
from valence_lib.evaluation.bootstrap import Resampling, compare, corrected, score
from valence_lib.evaluation.metrics import Array
from valence_lib.evaluation.occlusion import Occlusion, occlude
from valence_lib.evaluation.perturbations import PERTURBATIONS, Perturbation
from valence_lib.features.streams import ClipFeatures
from valence_lib.preprocess.splits import Splits
from valence_lib.training.loop import TrainingData
from valence_lib.training.runs import load_run

MAX_CLIPS = 500  # of more, a random sample is perturbed
CONDITIONS: dict[str, Perturbation] = {"as recorded": lambda waveform, sample_rate, seed: waveform}
CONDITIONS |= PERTURBATIONS


class RobustnessCheck:
    """A run of a report with the clips that it is tested on.

    Args:
        training_data, splits: of the report.
        folder: of the run; it has a trained model for each split.
        corpus: that the clips are read from.
    """

    def __init__(self, training_data: TrainingData, splits: Splits, folder: Path, corpus: Corpus):
        self._clips, self._corpus = training_data.clips, corpus
        self._sample_rate = training_data.store.settings.sample_rate
        self._runs = [
            (np.flatnonzero(subsets == "test"), load_run(folder / name)) for name, subsets in splits.items()
        ]

    def waveform(self, row: int) -> Waveform:
        """A clip as it is in the corpus [shape=(n_samples,)]."""
        return self._corpus.read(int(self._clips["index"].iloc[row])).waveform

    def predict(self, rows: NDArray[np.int64], change: Perturbation) -> Array:
        """Valence of changed clips [shape=(rows,)], by the trained model that is tested on each.

        Args:
            rows: of the table of clips.
            change: takes the waveform of a clip, the sample rate in Hz and, as a seed, the clip's row.
        """
        found = np.empty(len(rows))
        for tested, run in self._runs:
            own = np.flatnonzero(np.isin(rows, tested))
            if len(own):
                waveforms = [change(self.waveform(row), self._sample_rate, row) for row in rows[own].tolist()]
                speakers = self._clips["speaker"].iloc[rows[own]].tolist()
                source = ClipFeatures(waveforms, run.features)
                found[own] = run.adapt(source, speakers).predict_features(source, speakers)
        return found

    def under_conditions(self, rows: NDArray[np.int64]) -> dict[str, Array]:
        """Predictions of some clips [shape=(rows,)] under each of CONDITIONS."""
        return {name: self.predict(rows, change) for name, change in CONDITIONS.items()}

    def occlusion(self, row: int) -> Occlusion:
        """The occlusion map of a clip; the statistics of its speaker stay those of whole clips."""
        (run,) = (run for tested, run in self._runs if row in tested)
        speaker = str(self._clips["speaker"].iloc[row])

        def predict(waveforms: Sequence[Waveform]) -> Array:
            return run.predict_features(ClipFeatures(waveforms, run.features), [speaker] * len(waveforms))

        return occlude(predict, self.waveform(row), self._sample_rate)


def sample(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """All rows, or MAX_CLIPS of them at random where there are more."""
    if len(rows) <= MAX_CLIPS:
        return rows
    return np.sort(np.random.default_rng(0).permutation(rows)[:MAX_CLIPS])


def scores_by_condition(
    truth: ArrayLike, predictions: Mapping[str, ArrayLike], groups: ArrayLike
) -> pd.DataFrame:
    """Scores by condition, and the paired differences from the first condition.

    Args:
        truth, groups [shape=(n,)]: rating points; what the bootstrap draws (see `bootstrap.groups_of`).
        predictions: by condition, the reference first [shape=(n,) or (seeds, n)].

    Returns:
        One row a condition and metric (mse, ccc): condition, metric, n, score, low, high, difference,
        difference_low, difference_high (NaN for the first condition) and verdict ("better", "worse" or "tie",
        Holm-adjusted over the conditions; "" for the first).
    """
    resampling, metrics = Resampling(groups), ("mse", "ccc")
    reference, *others = predictions.values()
    changes = {
        metric: corrected(metric, [compare(truth, one, reference, resampling, metric) for one in others])
        for metric in metrics
    }
    rows = []
    for number, (condition, prediction) in enumerate(predictions.items()):
        found = score(truth, prediction, resampling)
        for metric in metrics:
            low, high = found["intervals"][metric]
            row = {"condition": condition, "metric": metric, "n": found["n"]}
            row |= {"score": found[metric], "low": low, "high": high}
            if number:
                change = changes[metric][number - 1]
                row |= {"difference": change.difference, "difference_low": change.low}
                row |= {"difference_high": change.high, "verdict": change.verdict}
            rows.append(row)
    return pd.DataFrame(rows).fillna({"verdict": ""})
