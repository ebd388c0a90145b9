"""Predictions -> scores, their intervals, and what differs from what.

Intervals are percentile bootstraps (Efron and Tibshirani 1993, chapter 13) that draw whole speakers
with replacement where speakers are known, since clips of one speaker are not independent, and clips
where they are not. All scores here are functions of a few sums, so a resample is a weighting of the
speakers' sums, and the same weightings serve every model: that pairs the comparisons.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from valence_lib.corpora import RATER_COLUMN
from valence_lib.errors import SettingsError
from valence_lib.metrics import METRICS, validate

Array = NDArray[np.float64]
RESAMPLES = 2000
CONFIDENCE = 0.95
_MOST_GROUPS = 2000  # that are drawn one by one
_SMALLEST_GROUP = 5  # clips
_PERMUTATIONS = 999
_LOWER_IS_BETTER = {"mse", "mae"}


@dataclass(frozen=True)
class Comparison:
    """What one predictor's score has beyond another's.

    Args:
        difference: first minus second.
        low, high: the 95 % interval of the difference, resampled in pairs.
        verdict: "better" or "worse" (of the first), or "tie" where the interval holds 0.
    """

    difference: float
    low: float
    high: float
    verdict: str


class Resampling:
    """How often each group of clips is drawn in each resample; shared by all that is compared.

    More than some thousand groups are first thrown together at random into so many larger ones, all of like
    size: of independent groups that leaves the spread of a mean as it is, and bounds time and memory.

    Args:
        groups [shape=(n,)]: the speaker of each clip, or a name of its own for each clip.
        seed: of the draws.
    """

    def __init__(self, groups: ArrayLike, seed: int = 0, resamples: int = RESAMPLES):
        _, self.group = np.unique(np.asarray(groups), return_inverse=True)
        self.n_groups = int(self.group.max()) + 1
        generator = np.random.default_rng(seed)
        if self.n_groups > _MOST_GROUPS:
            self.group = (generator.permutation(self.n_groups) % _MOST_GROUPS)[self.group]
            self.n_groups = _MOST_GROUPS
        chances = np.full(self.n_groups, 1 / self.n_groups)
        self.weights = generator.multinomial(self.n_groups, chances, size=resamples).astype(np.float64)

    def scores(self, metric: str, truth: ArrayLike, prediction: ArrayLike) -> Array:
        """The metric in every resample [shape=(resamples,)]."""
        y, p = validate(truth, prediction)
        y, p = y - y.mean(), p - y.mean()  # no metric changes, and little is lost to rounding in the sums
        per_clip = np.stack([np.ones_like(y), y, p, y * y, p * p, y * p, np.abs(p - y)])
        sums = np.stack([np.bincount(self.group, values, self.n_groups) for values in per_clip])
        return _FROM_SUMS[metric](self.weights @ sums.T)


def _moments(sums: Array) -> tuple[Array, Array, Array, Array, Array]:
    n, y, p, yy, pp, yp, _ = sums.T
    mean_y, mean_p = y / n, p / n
    # Rounding may leave a constant's variance a little below 0.
    variance_y, variance_p = np.maximum(yy / n - mean_y**2, 0), np.maximum(pp / n - mean_p**2, 0)
    return mean_y, mean_p, variance_y, variance_p, yp / n - mean_y * mean_p


def _mse(sums: Array) -> Array:
    return (sums[:, 3] + sums[:, 4] - 2 * sums[:, 5]) / sums[:, 0]


def _mae(sums: Array) -> Array:
    return sums[:, 6] / sums[:, 0]


def _pearson_r(sums: Array) -> Array:
    _, _, variance_y, variance_p, covariance = _moments(sums)
    spread = np.sqrt(variance_y * variance_p)
    return np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 1e-9)


def _ccc(sums: Array) -> Array:
    mean_y, mean_p, variance_y, variance_p, covariance = _moments(sums)
    spread = variance_y + variance_p + (mean_y - mean_p) ** 2
    return np.divide(2 * covariance, spread, out=np.zeros_like(spread), where=spread > 1e-9)


_FROM_SUMS: dict[str, Callable[[Array], Array]] = {
    "mse": _mse,
    "mae": _mae,
    "pearson_r": _pearson_r,
    "ccc": _ccc,
}


def interval(values: Array, confidence: float = CONFIDENCE) -> list[float]:
    """The percentile interval [low, high] of a statistic's resampled values."""
    tail = (1 - confidence) / 2
    return [float(value) for value in np.quantile(values, [tail, 1 - tail])]


def score(truth: ArrayLike, predictions: Sequence[ArrayLike], resampling: Resampling) -> dict[str, Any]:
    """All metrics of one model, averaged over its seeds, with intervals of that average.

    Args:
        truth [shape=(n,)]
        predictions: one [shape=(n,)] a seed.

    Returns:
        {"n", "mse", "mae", "pearson_r", "ccc", "intervals": {"mse": [low, high], ...}}
    """
    row: dict[str, Any] = {"n": int(np.size(truth))}
    intervals = {}
    for name, metric in METRICS.items():
        row[name] = float(np.mean([metric(truth, prediction) for prediction in predictions]))
        resampled = np.mean(
            [resampling.scores(name, truth, prediction) for prediction in predictions], axis=0
        )
        intervals[name] = interval(resampled)
    return {**row, "intervals": intervals}


def compare(
    metric: str,
    truth: ArrayLike,
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    resampling: Resampling,
) -> Comparison:
    """The paired comparison of two models, each given as one prediction a seed.

    Raises:
        SettingsError: unknown metric.
    """
    if metric not in METRICS:
        raise SettingsError(f"there is no metric {metric!r}; expected one of {', '.join(METRICS)}.")
    means = [np.mean([METRICS[metric](truth, p) for p in model]) for model in (first, second)]
    resampled = [
        np.mean([resampling.scores(metric, truth, p) for p in model], axis=0) for model in (first, second)
    ]
    low, high = interval(resampled[0] - resampled[1])
    if low <= 0 <= high:
        verdict = "tie"
    else:
        verdict = "better" if (high < 0) == (metric in _LOWER_IS_BETTER) else "worse"
    return Comparison(float(means[0] - means[1]), low, high, verdict)


def raters(clips: pd.DataFrame) -> dict[str, Any] | None:
    """How well single raters agree with the others: the ceiling that a model can be held against.

    Args:
        clips: with one column a rater, valence_a1, valence_a2, ...; NaN where a rater left a clip out.
            Clips with fewer than two ratings are left out.

    Returns:
        None where no clip has two ratings; else {"raters": how many, "clips", "mse" and "ccc": each rater
        against the mean of the others, averaged over raters, "by_rater": {column: {"mse", "ccc"}},
        "noise_variance": the variance of the mean rating's error, about the lowest MSE that can be hoped
        for}. The noise variance is the mean over clips of the sample variance within the clip divided by
        the number of its ratings; a rater's constant bias counts as noise.
    """
    columns = [column for column in map(str, clips) if RATER_COLUMN.fullmatch(column)]
    ratings = clips[columns].to_numpy(np.float64)
    given = ~np.isnan(ratings)
    ratings, given = ratings[given.sum(axis=1) > 1], given[given.sum(axis=1) > 1]
    if not len(ratings):
        return None
    total, count = np.nansum(ratings, axis=1), given.sum(axis=1)
    by_rater = {}
    for position, column in enumerate(columns):
        rated = given[:, position]
        own = ratings[rated, position]
        if len(own):
            others = (total[rated] - own) / (count[rated] - 1)
            by_rater[column] = {name: METRICS[name](others, own) for name in ("mse", "ccc")}
    return {
        "raters": len(by_rater),
        "clips": len(ratings),
        "mse": float(np.mean([scores["mse"] for scores in by_rater.values()])),
        "ccc": float(np.mean([scores["ccc"] for scores in by_rater.values()])),
        "by_rater": by_rater,
        "noise_variance": float((np.nanvar(ratings, axis=1, ddof=1) / count).mean()),
    }


def groups_of(clips: pd.DataFrame) -> tuple[NDArray[np.str_], str]:
    """What the bootstrap draws: speakers where every clip and at least two of them are named, else clips."""
    speakers = clips["speaker"].to_numpy(dtype=str)
    if (speakers != "").all() and len(set(speakers)) > 1:
        return speakers, "speaker"
    return clips["id"].to_numpy(dtype=str), "clip"


def errors_by_group(predictions: pd.DataFrame, column: str) -> tuple[pd.DataFrame, float]:
    """MSE with its interval, mean error (prediction minus truth) and number of clips, by group.

    Whether the groups differ is judged over all of them at once, since the best and the worst of many
    always lie apart: by a permutation test of the variance of the groups' MSEs, weighted by their clips.

    Args:
        predictions: with truth, prediction, id, speaker, and the column to group by; clips with "" there,
            and groups of fewer than five clips, are left out.

    Returns:
        One row a group, the largest MSE first (group, n, mse, low, high, bias), and the probability of
        groups so unlike each other by luck alone (1 where there are fewer than two groups).
    """
    sizes = predictions.groupby(column)["id"].transform("size")
    predictions = predictions[(predictions[column] != "") & (sizes >= _SMALLEST_GROUP)]
    rows = []
    for group, clips in predictions.groupby(column):
        truth, prediction = clips["truth"].to_numpy(), clips["prediction"].to_numpy()
        low, high = interval(Resampling(groups_of(clips)[0]).scores("mse", truth, prediction))
        mse, bias = METRICS["mse"](truth, prediction), float(np.mean(prediction - truth))
        rows.append(
            {"group": str(group), "n": len(clips), "mse": mse, "low": low, "high": high, "bias": bias}
        )
    columns = ["group", "n", "mse", "low", "high", "bias"]
    table = pd.DataFrame(rows, columns=columns).sort_values("mse", ascending=False, ignore_index=True)
    squared_error = ((predictions["prediction"] - predictions["truth"]) ** 2).to_numpy()
    speakers, labels = predictions["speaker"].to_numpy(dtype=str), predictions[column].to_numpy(dtype=str)
    return table, _chance_of_spread(squared_error, labels, speakers)


def _chance_of_spread(values: Array, labels: NDArray[np.str_], speakers: NDArray[np.str_]) -> float:
    """The share of permutations in which the groups' means spread at least as far, weighted by their clips.

    Clips of one speaker err alike. A label that each speaker has but one of (sex, say) is therefore
    permuted over whole speakers; one that varies within speakers, or names them, over clips.
    """
    _, group = np.unique(labels, return_inverse=True)
    if len(values) == 0 or group.max() == 0:
        return 1.0
    _, first, speaker = np.unique(speakers, return_index=True, return_inverse=True)
    label_of_speaker = group[first]
    one_a_speaker = (speakers != "").all() and (label_of_speaker[speaker] == group).all()
    if one_a_speaker and len(first) > group.max() + 1:
        unit, label_of_unit = speaker, label_of_speaker
    else:
        unit, label_of_unit = np.arange(len(values)), group
    generator = np.random.default_rng(0)
    orders = [label_of_unit] + [generator.permutation(label_of_unit) for _ in range(_PERMUTATIONS)]
    deviations = values - values.mean()
    spreads = np.array([_between(deviations, order[unit]) for order in orders])
    return float((spreads >= spreads[0] * (1 - 1e-12)).mean())


def _between(deviations: Array, group: NDArray[np.int64]) -> float:
    """The sum of squares between groups, of values whose mean is 0."""
    sizes = np.bincount(group)
    return float((np.bincount(group, deviations) ** 2 / np.maximum(sizes, 1)).sum())


def errors_at_extremes(predictions: pd.DataFrame) -> dict[str, dict[str, float]]:
    """How the lowest and the highest fifth of the true ratings are predicted.

    Returns:
        {"lowest": ..., "highest": ...}, each {"n", "truth": mean rating, "prediction": mean prediction, "mse"}.
    """
    ordered = predictions.sort_values(["truth", "id"])
    fifth = max(1, len(ordered) // 5)
    found = {}
    for name, clips in (("lowest", ordered.head(fifth)), ("highest", ordered.tail(fifth))):
        error = clips["prediction"] - clips["truth"]
        means = clips[["truth", "prediction"]].mean()
        found[name] = {"n": len(clips), **means.to_dict(), "mse": float((error**2).mean())}
    return found


def results_rows(
    clips: pd.DataFrame,
    predictions: Mapping[tuple[str, str], Mapping[int, pd.Series]],
    parameters: Mapping[tuple[str, str], int],
) -> list[dict[str, Any]]:
    """The rows of results.json: the mean predictor first, then every model and preset, by part.

    Args:
        clips: with id, part, valence, speaker.
        predictions: by (model, preset) and seed, a valence by clip id.
        parameters: how many numbers each (model, preset) adjusts.
    """
    training_mean = float(clips.loc[clips["part"] == "train", "valence"].mean())
    rows: list[dict[str, Any]] = []
    for part in ("validation", "test"):
        held_out = clips[clips["part"] == part]
        truth = held_out["valence"].to_numpy(np.float64)
        resampling = Resampling(groups_of(held_out)[0])
        constant = [np.full(len(truth), training_mean)]
        rows.append(
            {"model": "mean", "preset": None, "part": part, **score(truth, constant, resampling)}
            | {"parameters": 1, "seeds": [], "against_mean": None, "by_seed": {}}
        )
        for (model, preset), by_seed in predictions.items():
            values = {
                seed: series.loc[held_out["id"]].to_numpy(np.float64) for seed, series in by_seed.items()
            }
            against = compare("mse", truth, list(values.values()), constant, resampling)
            rows.append(
                {
                    "model": model,
                    "preset": preset,
                    "part": part,
                    **score(truth, list(values.values()), resampling),
                }
                | {
                    "parameters": parameters[model, preset],
                    "seeds": list(values),
                    "against_mean": vars(against),
                }
                | {
                    "by_seed": {
                        n: {str(s): m(truth, v) for s, v in values.items()} for n, m in METRICS.items()
                    }
                }
            )
    return rows
