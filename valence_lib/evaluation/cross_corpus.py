"""Scores within and across corpora: a model that is trained on each corpus and tested on each."""

from __future__ import annotations  # who only reads the results does without the feature store

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from valence_lib.evaluation.bootstrap import Resampling, compare, corrected, groups_of, score
from valence_lib.evaluation.leakage import names_speakers, sampled
from valence_lib.evaluation.metrics import covariance, validate
from valence_lib.preprocess.splits import fold_splits

if TYPE_CHECKING:
    from valence_lib.settings import TrainingSettings
    from valence_lib.training.loop import TrainingData

FEWEST_CLIPS = 10  # that a model is fitted to
_FEWEST_FOLDS = 3
_SEED = 0  # of the folds
_METRICS = "ccc", "pearson_r", "mse"

Rows = NDArray[np.int64]  # of the table of clips


def predict_pairs(
    training_data: TrainingData, settings: TrainingSettings, n_folds: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Predictions of each corpus by models that are trained on the same corpus and on others.

    A corpus is predicted by models of the same corpus in a cross-validation: by speaker where every rated
    clip names one and there are three speakers or more, else at random. It is also predicted by a model that
    is fitted to all rated clips of another corpus, for each of the others, and where there are several
    others, by a model that is fitted to them together. Of more than 2,000 clips of a corpus, and of the
    others together, 2,000 are drawn at random.

    Args:
        training_data: with the column corpus; all ratings are on one scale.
        settings: of a model that is fitted in one step.
        n_folds: of a cross-validation; fewer where a corpus has fewer speakers.

    Returns:
        {"corpora": by corpus name, rated, clips (of the sample), speakers (named ones), unnamed (clips
        without a speaker), by ("speaker" or "random") and folds; "pairs": by pair trained_on (names of
        corpora), tested_on (a name), why (why there is no model, else ""), trained (clips of a fit, mean
        over folds)}; and the predictions, with the columns pair (number in "pairs"), id, speaker, truth, mean
        (rating of the training clips) and prediction.
    """
    from valence_lib.training.one_step import fitted, predict, with_chosen_layer

    clips, truth = training_data.clips, training_data.truth
    content, fits = _plan(clips, n_folds)
    columns = clips[["id", "speaker", "rating"]].rename(columns={"rating": "truth"})
    frames = [columns.iloc[:0].assign(pair=0, mean=0.0, prediction=0.0)]
    for number, (inside, tests) in enumerate(fits, start=1):
        run = fitted(training_data, with_chosen_layer(training_data, settings, inside), inside, inside)
        print(f"fit {number:2d}/{len(fits)}   {len(inside):,} clips", flush=True)
        mean = float(truth[inside].mean())
        for pair, out in tests.items():
            prediction = predict(run, training_data, out)
            frames.append(columns.iloc[out].assign(pair=pair, mean=mean, prediction=prediction))
    return content, pd.concat(frames, ignore_index=True)


def _plan(clips: pd.DataFrame, n_folds: int) -> tuple[dict[str, Any], list[tuple[Rows, dict[int, Rows]]]]:
    """The corpora and pairs of `predict_pairs`, and the fits: rows to fit to, and rows to predict by pair."""
    rows = _rows_of_corpora(clips)
    corpora: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    fits: list[tuple[Rows, dict[int, Rows]]] = []
    tested_by: dict[tuple[str, ...], dict[int, Rows]] = {}  # one fit to these corpora serves several pairs
    for name, own in rows.items():
        table = clips.iloc[own]
        by, folds = _folds(table, n_folds)
        corpora.append(
            {
                "name": name,
                "rated": int((clips["rating"].notna() & (clips["corpus"] == name)).sum()),
                "clips": len(own),
                "speakers": len(set(table["speaker"]) - {""}),
                "unnamed": int((table["speaker"] == "").sum()),
                "by": by,
                "folds": len(folds),
            }
        )
        inside = [own[subsets != "test"] for subsets in folds] or [own]
        pair = _pair([name], name, inside)
        if not pair["why"]:
            tests = [{len(pairs): own[subsets == "test"]} for subsets in folds]
            fits += zip(inside, tests, strict=True)
        pairs.append(pair)
        others = [other for other in rows if other != name]
        for trained_on in [[other] for other in others] + [others] * (len(others) > 1):
            pair = _pair(trained_on, name, [_pool(clips, [rows[other] for other in trained_on])])
            if not pair["why"]:
                tested_by.setdefault(tuple(trained_on), {})[len(pairs)] = own
            pairs.append(pair)
    fits += [(_pool(clips, [rows[name] for name in names]), tests) for names, tests in tested_by.items()]
    return {"corpora": corpora, "pairs": pairs}, fits


def _rows_of_corpora(clips: pd.DataFrame) -> dict[str, Rows]:
    """The sampled rows of the rated clips of each corpus, by its name."""
    corpora = clips["corpus"].to_numpy(dtype=str)
    every = {name: np.flatnonzero(corpora == name) for name in dict.fromkeys(corpora)}
    rated = {name: rows[sampled(clips.iloc[rows])] for name, rows in every.items()}
    return {name: rows for name, rows in rated.items() if len(rows)}


def _pool(clips: pd.DataFrame, rows: Sequence[Rows]) -> Rows:
    together = np.concatenate(rows)
    return together[sampled(clips.iloc[together])]


def _folds(clips: pd.DataFrame, n_folds: int) -> tuple[str, list[NDArray[np.str_]]]:
    """What clips of two folds do not share, and the subsets of each fold; none of very few clips."""
    by_speaker = names_speakers(clips) and clips["speaker"].nunique() >= _FEWEST_FOLDS
    by, n_groups = ("speaker", clips["speaker"].nunique()) if by_speaker else ("random", len(clips))
    if n_groups < _FEWEST_FOLDS:
        return by, []
    return by, fold_splits(clips, by, min(n_folds, n_groups), _SEED)


def _pair(trained_on: Sequence[str], tested_on: str, fits: Sequence[Rows]) -> dict[str, Any]:
    sizes = [len(rows) for rows in fits]
    why = ""
    if min(sizes) < FEWEST_CLIPS:
        why = f"{min(sizes)} rated clips are too few to train on; expected {FEWEST_CLIPS} or more"
    trained = float(np.mean(sizes))
    return {"trained_on": list(trained_on), "tested_on": tested_on, "why": why, "trained": trained}


def measure_pairs(content: Mapping[str, Any], predictions: pd.DataFrame) -> dict[str, Any]:
    """The scores of each pair of corpora, and their comparisons.

    Args:
        content: of cross_corpus.json, with what `predict_pairs` gives.
        predictions: as `predict_pairs` gives them.

    Returns:
        The content. Each pair that has predictions has also n, speakers (0 where clips are resampled), mse,
        ccc, pearson_r, intervals, parts (of the MSE: see `error_parts`), and against: by reference and
        metric, a `bootstrap.Comparison` on the same clips, Holm-adjusted over the pairs. The references are
        training_mean (the mean rating of the training clips), tested_mean (that of the tested clips, which is
        unknown in practice), and, across corpora, within (the models that are trained on the tested corpus).
    """
    rows = [dict(row) for row in content["pairs"]]
    table = predictions.astype({"pair": np.int64, "mean": np.float64}).sort_values("id")  # text in a CSV
    frames = {int(number): frame for number, frame in table.groupby("pair")}
    drawn: dict[str, Resampling] = {}  # by tested corpus, of which all pairs have the same clips
    for number, frame in frames.items():
        row, (groups, resampled) = rows[number], groups_of(frame)
        resampling = drawn.setdefault(row["tested_on"], Resampling(groups))
        scores = score(frame["truth"], frame["prediction"], resampling)
        row |= {name: scores[name] for name in ("n", *_METRICS)}
        row["speakers"] = len(set(groups)) if resampled == "speaker" else 0
        row["intervals"] = {metric: scores["intervals"][metric] for metric in _METRICS}
        row["parts"] = error_parts(frame["truth"], frame["prediction"])
        row["against"] = {}
    within = {rows[number]["tested_on"]: number for number in frames if is_within(rows[number])}
    across = {
        number: frames[within[rows[number]["tested_on"]]]["prediction"]
        for number in frames
        if not is_within(rows[number]) and rows[number]["tested_on"] in within
    }
    training_means = {number: frame["mean"] for number, frame in frames.items()}
    tested_means = {number: np.full(len(frame), frame["truth"].mean()) for number, frame in frames.items()}
    for reference, metric, others in (
        ("training_mean", "mse", training_means),
        ("tested_mean", "mse", tested_means),
        *(("within", metric, across) for metric in _METRICS),
    ):
        made = [
            compare(
                frames[number]["truth"],
                frames[number]["prediction"],
                other,
                drawn[rows[number]["tested_on"]],
                metric,
            )
            for number, other in others.items()
        ]
        for number, comparison in zip(others, corrected(metric, made), strict=True):
            rows[number]["against"].setdefault(reference, {})[metric] = vars(comparison)
    return dict(content) | {"pairs": rows}


def is_within(row: Mapping[str, Any]) -> bool:
    """Whether a pair is trained and tested on one corpus."""
    return row["trained_on"] == [row["tested_on"]]


def error_parts(truth: ArrayLike, prediction: ArrayLike) -> dict[str, float]:
    """The three parts of the mean squared error, in squared rating points; their sum is the MSE.

    MSE = bias^2 + (sd_p - r sd_y)^2 + (1 - r^2) sd_y^2, with the standard deviations of predictions p and
    ratings y and their correlation r (0 where either side is constant): Murphy, A. H. (1988), "Skill scores
    based on the mean square error and their relationships to the correlation coefficient", Monthly Weather
    Review 116, 2417-2424.

    Args:
        truth, prediction [shape=(n,)]

    Returns:
        {"bias", "scale": the first two parts, which the best linear recalibration on these clips removes,
        "rest": the third, which is the MSE after that recalibration}.

    Raises:
        SettingsError: shapes that do not fit, no clip, NaN or infinity.
    """
    y, p = validate(truth, prediction)
    shared = covariance(y, p)
    r = shared / float(y.std() * p.std()) if shared else 0.0
    return {
        "bias": float(np.mean(p - y)) ** 2,
        "scale": float(p.std() - r * y.std()) ** 2,
        "rest": max(0.0, 1 - r**2) * float(y.var()),
    }
