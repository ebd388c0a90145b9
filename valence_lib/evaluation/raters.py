"""Agreement of raters with each other, and of models with single raters."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valence_lib.corpora.columns import RATER_COLUMN
from valence_lib.evaluation.bootstrap import Resampling, compare, groups_of
from valence_lib.evaluation.metrics import METRICS, Array, ccc, mse


def cronbach_alpha(ratings: Array) -> float:
    """Reliability of the sum of k raters: k / (k - 1) * (1 - sum of their variances / variance of the sum).

    Cronbach, L. J. (1951), "Coefficient alpha and the internal structure of tests", Psychometrika 16,
    297-334. 0 where the sum does not vary.

    Args:
        ratings [shape=(clips, raters)]: complete, of two clips and two raters or more.
    """
    k = ratings.shape[1]
    of_sum = ratings.sum(axis=1).var(ddof=1)
    if of_sum == 0:
        return 0.0
    return float(k / (k - 1) * (1 - ratings.var(axis=0, ddof=1).sum() / of_sum))


def icc_2k(ratings: Array) -> float:
    """Intraclass correlation of the mean of k raters drawn from many, 1 or less: ICC(2,k).

    (between clips - residual) / (between clips + (between raters - residual) / clips), of the mean squares of
    a two-way analysis of variance: Shrout, P. E. and Fleiss, J. L. (1979), "Intraclass correlations: uses in
    assessing rater reliability", Psychological Bulletin 86, 420-428. 0 where nothing varies.

    Args:
        ratings [shape=(clips, raters)]: complete, of two clips and two raters or more.
    """
    n, k = ratings.shape
    mean, of_clip, of_rater = ratings.mean(), ratings.mean(axis=1), ratings.mean(axis=0)
    between_clips = k * np.sum((of_clip - mean) ** 2) / (n - 1)
    between_raters = n * np.sum((of_rater - mean) ** 2) / (k - 1)
    residuals = ratings - of_clip[:, None] - of_rater + mean
    residual = np.sum(residuals**2) / ((n - 1) * (k - 1))
    whole = between_clips + (between_raters - residual) / n
    return float((between_clips - residual) / whole) if whole > 0 else 0.0


def rater_disagreement(clips: pd.DataFrame) -> Array:
    """Standard deviation of each clip's ratings [shape=(clips,)], n - 1 in the denominator; NaN for one."""
    return _ratings(clips).std(axis=1, ddof=1).to_numpy(np.float64)


def _ratings(clips: pd.DataFrame) -> pd.DataFrame:
    return clips[[column for column in map(str, clips) if RATER_COLUMN.fullmatch(column)]].astype(np.float64)


def _by_rater(clips: pd.DataFrame) -> dict[str, tuple[NDArray[np.bool_], Array, Array]]:
    """By rater: the clips that another rated too, the own ratings and the means of the others."""
    table = _ratings(clips)
    total, count = np.nansum(table, axis=1), table.notna().sum(axis=1).to_numpy()
    found = {}
    for column, ratings in table.items():
        rated = (ratings.notna() & (count > 1)).to_numpy()
        if rated.any():
            own = ratings.to_numpy()[rated]
            found[str(column)] = rated, own, (total[rated] - own) / (count[rated] - 1)
    return found


def raters(clips: pd.DataFrame) -> dict[str, Any] | None:
    """How well single raters agree with the others: a ceiling for models.

    Args:
        clips: with one column a rater, rating_a1, rating_a2, ...; NaN where a rating is missing. Clips with
            fewer than two ratings do not count.

    Returns:
        None where no clip has two ratings; else {"raters": how many, "clips", "mse" and "ccc": each rater
        against the mean of the others, averaged over raters, "by_rater": {column: {"mse", "ccc"}}, "alpha":
        Cronbach's and "icc_2k": Shrout and Fleiss's reliability of the mean rating, over the clips that every
        rater rated (None for fewer than two), "noise_variance": variance of the mean rating's error, about
        the lowest possible MSE: the mean over clips of the sample variance of a clip's ratings divided by
        their number}.
    """
    found = _by_rater(clips)
    if not found:
        return None
    by_rater = {
        column: {"mse": mse(others, own), "ccc": ccc(others, own)}
        for column, (_, own, others) in found.items()
    }
    table = _ratings(clips).dropna(thresh=2)
    ratings = table.to_numpy()
    complete = ratings[~np.isnan(ratings).any(axis=1)]
    return {
        "raters": len(by_rater),
        "clips": len(ratings),
        "mse": float(np.mean([scores["mse"] for scores in by_rater.values()])),
        "ccc": float(np.mean([scores["ccc"] for scores in by_rater.values()])),
        "by_rater": by_rater,
        "alpha": cronbach_alpha(complete) if len(complete) > 1 else None,
        "icc_2k": icc_2k(complete) if len(complete) > 1 else None,
        "noise_variance": float((np.nanvar(ratings, axis=1, ddof=1) / table.count(axis=1)).mean()),
    }


def as_raters(clips: pd.DataFrame, models: Mapping[Any, Sequence[Array]]) -> dict[Any, dict[str, Any]]:
    """Scores of models that are judged as single raters are: against the mean of the others, rater by rater.

    The mean of fewer ratings is a noisier truth: these scores do not compare with those against all raters.

    Args:
        clips: as `raters` takes them, with id and speaker.
        models: the predictions of each, one [shape=(clips,)] a seed.

    Returns:
        By model, {"mse" and "ccc": against the mean of the other raters, averaged over raters and seeds,
        "rater": the same two of the raters themselves, "against": the paired comparison of its squared errors
        with theirs}; empty where no clip has two ratings.
    """
    ceiling = raters(clips)
    if ceiling is None:
        return {}
    of_raters = {name: ceiling[name] for name in ("mse", "ccc")}
    rated, own, others = zip(*_by_rater(clips).values(), strict=True)
    drawn = groups_of(clips)[0]
    resampling = Resampling(np.concatenate([drawn[rows] for rows in rated]))
    found = {}
    for model, seeds in models.items():
        pairs = [(truth, p[rows]) for rows, truth in zip(rated, others, strict=True) for p in seeds]
        scores = {name: float(np.mean([METRICS[name](*pair) for pair in pairs])) for name in of_raters}
        pooled = [np.concatenate([p[rows] for rows in rated]) for p in seeds]
        against = compare(np.concatenate(others), pooled, np.concatenate(own), resampling)
        found[model] = scores | {"rater": of_raters, "against": vars(against)}
    return found
