"""How far raters agree with each other: what a model can be held against."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valence_lib.corpora import RATER_COLUMN
from valence_lib.evaluation import Resampling, compare, groups_of
from valence_lib.metrics import METRICS

Array = NDArray[np.float64]
Model = TypeVar("Model", bound=Hashable)


def cronbach_alpha(ratings: Array) -> float:
    """Reliability of the raters' sum, 1 or less: k / (k - 1) * (1 - sum of the raters' variances / variance of the sum).

    Cronbach, L. J. (1951), "Coefficient alpha and the internal structure of tests", Psychometrika 16, 297-334. 0 where the
    sum does not vary.

    Args:
        ratings [shape=(clips, raters)]: complete, of two clips and two raters or more.
    """
    k = ratings.shape[1]
    of_sum = ratings.sum(axis=1).var(ddof=1)
    if of_sum == 0:
        return 0.0
    return float(k / (k - 1) * (1 - ratings.var(axis=0, ddof=1).sum() / of_sum))


def icc_2k(ratings: Array) -> float:
    """Intraclass correlation of the mean of k raters, who stand for all raters, 1 or less: ICC(2,k).

    (between clips - residual) / (between clips + (between raters - residual) / clips), of the mean squares of a two-way analysis of
    variance. Unlike Cronbach's alpha it counts a rater's constant bias as error. Shrout, P. E. and Fleiss, J. L. (1979),
    "Intraclass correlations: uses in assessing rater reliability", Psychological Bulletin 86, 420-428. 0 where nothing varies.

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


def _by_rater(clips: pd.DataFrame) -> tuple[Array, dict[str, tuple[NDArray[np.bool_], Array, Array]]]:
    """Ratings [shape=(clips, raters)] and, by rater, the clips that another rated too, the own rating and the others' mean."""
    columns = [column for column in map(str, clips) if RATER_COLUMN.fullmatch(column)]
    ratings = clips[columns].to_numpy(np.float64)
    given = ~np.isnan(ratings)
    total, count = np.nansum(ratings, axis=1), given.sum(axis=1)
    found = {}
    for position, column in enumerate(columns):
        rated = given[:, position] & (count > 1)
        if rated.any():
            own = ratings[rated, position]
            found[column] = rated, own, (total[rated] - own) / (count[rated] - 1)
    return ratings, found


def raters(clips: pd.DataFrame) -> dict[str, Any] | None:
    """How well single raters agree with the others: the ceiling that a model can be held against.

    Args:
        clips: with one column a rater, valence_a1, valence_a2, ...; NaN where a rater left a clip out.
            Clips with fewer than two ratings are left out.

    Returns:
        None where no clip has two ratings; else {"raters": how many, "clips", "mse" and "ccc": each rater
        against the mean of the others, averaged over raters, "by_rater": {column: {"mse", "ccc"}},
        "alpha": Cronbach's and "icc_2k": Shrout and Fleiss's reliability of the mean rating, over the clips that
        every rater rated (None where there are fewer than two), "noise_variance": the variance of the mean
        rating's error, about the lowest MSE that can be hoped for}. The noise variance is the mean over clips of the sample variance within the clip divided by
        the number of its ratings; a rater's constant bias counts as noise.
    """
    ratings, found = _by_rater(clips)
    if not found:
        return None
    by_rater = {
        column: {name: METRICS[name](others, own) for name in ("mse", "ccc")}
        for column, (_, own, others) in found.items()
    }
    given = ~np.isnan(ratings)
    ratings, given = ratings[given.sum(axis=1) > 1], given[given.sum(axis=1) > 1]
    count = given.sum(axis=1)
    complete = ratings[given.all(axis=1)]
    return {
        "raters": len(by_rater),
        "clips": len(ratings),
        "mse": float(np.mean([scores["mse"] for scores in by_rater.values()])),
        "ccc": float(np.mean([scores["ccc"] for scores in by_rater.values()])),
        "by_rater": by_rater,
        "alpha": cronbach_alpha(complete) if len(complete) > 1 else None,
        "icc_2k": icc_2k(complete) if len(complete) > 1 else None,
        "noise_variance": float((np.nanvar(ratings, axis=1, ddof=1) / count).mean()),
    }


def as_raters(clips: pd.DataFrame, models: Mapping[Model, Sequence[Array]]) -> dict[Model, dict[str, Any]]:
    """How well models do what a single rater does: meet the mean of the others, rater by rater.

    That truth is less steady than the mean of all raters, so that scores against the one and the other cannot be compared.

    Args:
        clips: as `raters` takes them, with id and speaker.
        models: of each what it predicts, one [shape=(clips,)] a seed.

    Returns:
        By model, {"mse" and "ccc": against the mean of the raters but one, averaged over raters and seeds, "rater": the same
        two of the raters themselves on these clips, "against": the paired comparison of its squared errors with theirs};
        empty where no clip has two ratings.
    """
    ceiling = raters(clips)
    if ceiling is None:
        return {}
    of_raters = {name: ceiling[name] for name in ("mse", "ccc")}
    rated, own, others = zip(*_by_rater(clips)[1].values(), strict=True)
    drawn = groups_of(clips)[0]
    resampling = Resampling(np.concatenate([drawn[rows] for rows in rated]))
    judged = list(zip(rated, others, strict=True))
    found = {}
    for model, seeds in models.items():
        scores = {
            name: float(np.mean([METRICS[name](truth, p[rows]) for rows, truth in judged for p in seeds]))
            for name in of_raters
        }
        pooled = [np.concatenate([p[rows] for rows in rated]) for p in seeds]
        against = compare("mse", np.concatenate(others), pooled, [np.concatenate(own)], resampling)
        found[model] = scores | {"rater": of_raters, "against": vars(against)}
    return found
