"""The leakage analysis: scores where test and training clips share speakers or sentences."""

from __future__ import annotations  # who only reads the results does without the feature store

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from valence_lib.errors import CorpusError
from valence_lib.evaluation.bootstrap import Resampling, compare, groups_of, score
from valence_lib.preprocess.splits import GROUPINGS, fold_splits

if TYPE_CHECKING:
    from valence_lib.settings import TrainingSettings
    from valence_lib.training.loop import TrainingData

REFERENCE = "speaker"  # the grouping whose test speakers are new
MAX_CLIPS = 2000  # of more, a random sample is taken, which bounds the time
_SEED = 0  # of the folds and of the sample
_METRICS = "mse", "ccc"


def sampled(clips: pd.DataFrame) -> np.ndarray:
    """The rows of the rated clips, or of MAX_CLIPS of them at random where there are more."""
    rated = np.flatnonzero(clips["rating"].notna())
    return np.sort(np.random.default_rng(_SEED).permutation(rated)[:MAX_CLIPS])


def predict_groupings(
    training_data: TrainingData, settings: TrainingSettings, n_folds: int
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Predictions of the same clips by fits on folds of every grouping.

    Where the corpus does not name every speaker, clusters of clips by voice take the place of speakers.

    Args:
        settings: of a model that is fitted in one step.

    Returns:
        One mapping a grouping: grouping, why (why there are no such folds, else ""), trained (clips of a fit,
        mean over folds); and the predictions, with the columns grouping, id, speaker, truth and prediction.
    """
    from valence_lib.training.one_step import fitted, predict, with_chosen_layer

    rows = sampled(training_data.clips)
    table = training_data.clips.iloc[rows].reset_index(drop=True)
    if not names_speakers(table):
        from valence_lib.preprocess.pseudo_speakers import pseudo_speakers

        pitches = training_data.store.of(["pitch"])
        table["speaker"] = pseudo_speakers(
            [training_data.store[int(row)] for row in rows], [pitches[int(row)] for row in rows]
        )
    about: list[dict[str, Any]] = []
    fits: list[tuple[str, np.ndarray, np.ndarray]] = []
    for grouping in GROUPINGS:
        why, folds = "", []
        try:
            folds = fold_splits(table, grouping, n_folds, _SEED)
        except CorpusError as error:
            why = str(error)
        known = [rows[np.isin(subsets, ["train", "validation"])] for subsets in folds]
        fits += [(grouping, own, rows[subsets == "test"]) for own, subsets in zip(known, folds, strict=True)]
        trained = float(np.mean([len(own) for own in known] or [0]))
        about.append({"grouping": grouping, "why": why, "trained": trained})
    columns = training_data.clips[["id", "speaker", "rating"]].rename(columns={"rating": "truth"})
    frames = [columns.iloc[:0].assign(grouping="", prediction=0.0)]
    for grouping, inside, out in fits:
        run = fitted(training_data, with_chosen_layer(training_data, settings, inside), inside, rows)
        print(f"fit {len(frames):2d}/{len(fits)}   {grouping}", flush=True)
        prediction = predict(run, training_data, out)
        frames.append(columns.iloc[out].assign(grouping=grouping, prediction=prediction))
    return about, pd.concat(frames, ignore_index=True)


def names_speakers(clips: pd.DataFrame) -> bool:
    """Whether every rated clip has the name of its speaker."""
    return bool((clips.loc[clips["rating"].notna(), "speaker"] != "").all())


def measure(content: Mapping[str, Any], predictions: pd.DataFrame) -> dict[str, Any]:
    """The scores of each grouping, and the differences from folds by speaker.

    Args:
        content: of leakage.json, with "groupings" as `predict_groupings` gives them.
        predictions: as `predict_groupings` gives them.

    Returns:
        The content, its groupings with the reference first. Each that has predictions has also n, mse, ccc,
        intervals, and against: by metric, the difference from the reference, as `bootstrap.Comparison` (None
        for the reference), all on the same clips.
    """
    rows = [dict(row) for row in sorted(content["groupings"], key=lambda row: row["grouping"] != REFERENCE)]
    frames = {str(grouping): frame.set_index("id") for grouping, frame in predictions.groupby("grouping")}
    if REFERENCE in frames:
        clips = frames[REFERENCE].reset_index()
        truth, resampling = clips["truth"].to_numpy(np.float64), Resampling(groups_of(clips)[0])
        for row in (row for row in rows if row["grouping"] in frames):
            prediction = frames[row["grouping"]]["prediction"].loc[clips["id"]]
            scores = score(truth, prediction, resampling)
            row |= {name: scores[name] for name in ("n", *_METRICS)}
            row["intervals"] = {metric: scores["intervals"][metric] for metric in _METRICS}
            row["against"] = {
                metric: vars(compare(truth, prediction, clips["prediction"], resampling, metric))
                for metric in _METRICS
            }
        rows[0]["against"] = None
    return dict(content) | {"groupings": rows}
