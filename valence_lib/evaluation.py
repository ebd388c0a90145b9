"""Predictions -> scores, their intervals, and what differs from what.

The bootstrap draws whole speakers with replacement where speakers are known, since clips of one speaker are not
independent, and clips where they are not. All scores here are functions of a few sums, so a resample is a weighting of the
speakers' sums, and the same weightings serve every model: that pairs the comparisons.

An interval is Student's, with the bootstrap's standard error and one degree of freedom less than there are
speakers, on a scale on which the score is nearer to normal: the logarithm of errors and ratios, Fisher's z of
correlations (Efron and Tibshirani 1993, chapters 12 and 13; Hesterberg 2015, "What teachers should know about the
bootstrap", The American Statistician 69, 371-386, on why few speakers need it). Speakers with unlike numbers of clips
count as fewer (Kish 1965, Survey Sampling; Carter, Schnepel and Steigerwald 2017, Review of Economics and Statistics
99, 698-709). The p of a difference belongs to its interval: it is below 5 % where the 95 % interval does not hold 0.

Simulations of their coverage are in tests/test_evaluation.py, and in the methods note of benchmarks/README.md.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from valence_lib.errors import SettingsError
from valence_lib.metrics import HIGHER_IS_BETTER, LOWER_IS_BETTER, METRICS, validate

Array = NDArray[np.float64]
RESAMPLES = 2000  # of which intervals need the deviation alone, known to 1.6 % from so many
CONFIDENCE = 0.95
_MOST_GROUPS = 2000  # that are drawn one by one
_SMALLEST_GROUP = 5  # clips
_PERMUTATIONS = 999


@dataclass(frozen=True)
class Comparison:
    """What one predictor's score has beyond another's.

    Args:
        difference: first minus second.
        low, high: the 95 % interval of the difference, resampled in pairs.
        p: the probability of a difference at least as large by luck alone, two-sided.
        p_holm: the same, corrected for how many comparisons were made with it (see `corrected`).
        verdict: "better" or "worse" (of the first) where p_holm is below 5 %, else "tie". Of one comparison alone, that is
            where the interval does not hold 0; among many, a tie's interval may just miss 0.
    """

    difference: float
    low: float
    high: float
    p: float
    p_holm: float
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

    @property
    def n_effective(self) -> float:
        """How many groups of one size would tell as much as these: see `effective_number`."""
        return effective_number(np.bincount(self.group))

    def sums(
        self, truth: ArrayLike, prediction: ArrayLike, chosen: NDArray[np.bool_] | slice = slice(None)
    ) -> Array:
        """The sums that the metrics are functions of, by group [shape=(n_groups, 7)]: see `FROM_SUMS`.

        Args:
            chosen: which clips count; all by default.
        """
        y, p = validate(np.asarray(truth)[chosen], np.asarray(prediction)[chosen])
        y, p = y - y.mean(), p - y.mean()  # no metric changes, and little is lost to rounding in the sums
        per_clip = (np.ones_like(y), y, p, y * y, p * p, y * p, np.abs(p - y))
        return np.stack(
            [np.bincount(self.group[chosen], values, self.n_groups) for values in per_clip], axis=1
        )

    def scores(self, metric: str, truth: ArrayLike, prediction: ArrayLike) -> Array:
        """The metric in every resample [shape=(resamples,)]."""
        return FROM_SUMS[metric](self.weights @ self.sums(truth, prediction))


def effective_number(sizes: ArrayLike) -> float:
    """How many groups of one size would tell as much as groups of these sizes, 2 at least.

    (sum of sizes)^2 / sum of squared sizes: Kish, L. (1965), Survey Sampling, Wiley. Where one speaker has most of the clips,
    that one decides the score, however many others there are.
    """
    clips = np.asarray(sizes, np.float64)
    return max(2.0, float(clips.sum() ** 2 / (clips**2).sum()))


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


def _r2(sums: Array) -> Array:
    _, _, variance_y, _, _ = _moments(sums)
    return 1 - np.divide(_mse(sums), variance_y, out=np.ones_like(variance_y), where=variance_y > 1e-9)


def _sd_ratio(sums: Array) -> Array:
    _, _, variance_y, variance_p, _ = _moments(sums)
    return np.sqrt(np.divide(variance_p, variance_y, out=np.zeros_like(variance_y), where=variance_y > 1e-9))


FROM_SUMS: dict[str, Callable[[Array], Array]] = {
    "mse": _mse,
    "mae": _mae,
    "pearson_r": _pearson_r,
    "ccc": _ccc,
    "r2": _r2,
    "sd_ratio": _sd_ratio,
}

Scale = tuple[Callable[[Any], Any], Callable[[Any], Any]]  # to where a score is nearer to normal, and back
_PLAIN: Scale = (lambda x: x, lambda x: x)
_LOGARITHM: Scale = (lambda x: np.log(np.maximum(x, 1e-12)), np.exp)
_FISHER: Scale = (lambda x: np.arctanh(np.clip(x, -1 + 1e-9, 1 - 1e-9)), np.tanh)
# 1 - R² is a ratio of squared errors.
_UNEXPLAINED: Scale = (lambda x: np.log(np.maximum(1 - x, 1e-12)), lambda x: 1 - np.exp(x))
_SCALES = {"mse": _LOGARITHM, "mae": _LOGARITHM, "sd_ratio": _LOGARITHM, "pearson_r": _FISHER, "ccc": _FISHER}
_SCALES["r2"] = _UNEXPLAINED


def standard_error(resampled: Array, n_effective: float) -> float:
    """Of a statistic, from its resampled values: their deviation, which falls short by n - 1 to n groups (squared)."""
    return float(resampled.std(ddof=1) * math.sqrt(n_effective / (n_effective - 1)))


def interval(
    estimate: float,
    resampled: Array,
    n_effective: float,
    metric: str | None = None,
    confidence: float = CONFIDENCE,
) -> list[float]:
    """Student's interval [low, high] of a statistic, with the bootstrap's standard error.

    Args:
        estimate: its value.
        resampled [shape=(resamples,)]: its values in the resamples.
        n_effective: how many groups were drawn from (see `Resampling.n_effective`).
        metric: of METRICS, which says on what scale it is nearer to normal; None for a difference.
    """
    to, back = _PLAIN if metric is None else _SCALES[metric]
    centre = float(to(estimate))
    half = special.stdtrit(n_effective - 1, (1 + confidence) / 2) * standard_error(to(resampled), n_effective)
    return sorted(float(back(end)) for end in (centre - half, centre + half))


def score(truth: ArrayLike, predictions: Sequence[ArrayLike], resampling: Resampling) -> dict[str, Any]:
    """All metrics of one model, averaged over its seeds, with intervals of that average.

    Args:
        truth [shape=(n,)]
        predictions: one [shape=(n,)] a seed.

    Returns:
        {"n", each of METRICS, "intervals": {"mse": [low, high], ...}}
    """
    row: dict[str, Any] = {"n": int(np.size(truth))}
    intervals = {}
    for name, metric in METRICS.items():
        row[name] = float(np.mean([metric(truth, prediction) for prediction in predictions]))
        resampled = np.mean(
            [resampling.scores(name, truth, prediction) for prediction in predictions], axis=0
        )
        intervals[name] = interval(row[name], resampled, resampling.n_effective, name)
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
        SettingsError: unknown metric, or one by which nothing is better or worse.
    """
    ordered = (*LOWER_IS_BETTER, *HIGHER_IS_BETTER)
    if metric not in ordered:
        raise SettingsError(f"nothing can be compared by {metric!r}; expected one of {', '.join(ordered)}.")
    means = [np.mean([METRICS[metric](truth, p) for p in model]) for model in (first, second)]
    resampled = [
        np.mean([resampling.scores(metric, truth, p) for p in model], axis=0) for model in (first, second)
    ]
    difference = float(means[0] - means[1])
    error = standard_error(resampled[0] - resampled[1], resampling.n_effective)
    low, high = interval(difference, resampled[0] - resampled[1], resampling.n_effective)
    if error > 1e-12:
        p = float(2 * special.stdtr(resampling.n_effective - 1, -abs(difference) / error))
    else:  # the same for every speaker: sure, unless there is none
        p = 0.0 if abs(difference) > 1e-12 else 1.0
    return Comparison(difference, low, high, p, p, _verdict(metric, difference, p))


def _verdict(metric: str, difference: float, p: float) -> str:
    if p >= 1 - CONFIDENCE:
        return "tie"
    return "better" if (difference < 0) == (metric in LOWER_IS_BETTER) else "worse"


def corrected(metric: str, comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons by one metric, their verdicts corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

    The smallest p counts as many times as there are comparisons, the next one once less, and none less than the one before: so
    the chance of a single false verdict among all of them is 5 % at most.
    """
    adjusted, highest = list(comparisons), 0.0
    order = sorted(range(len(comparisons)), key=lambda number: comparisons[number].p)
    for rank, number in enumerate(order):
        one = comparisons[number]
        highest = max(highest, min(1.0, (len(order) - rank) * one.p))
        adjusted[number] = replace(one, p_holm=highest, verdict=_verdict(metric, one.difference, highest))
    return adjusted


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
        mse, bias = METRICS["mse"](truth, prediction), float(np.mean(prediction - truth))
        resampling = Resampling(groups_of(clips)[0])
        resampled = resampling.scores("mse", truth, prediction)
        low, high = interval(mse, resampled, resampling.n_effective, "mse")
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
