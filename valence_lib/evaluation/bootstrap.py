"""Predictions -> scores, their intervals, and significant differences.

The bootstrap draws speakers where they are known, since the clips of one speaker are not independent, and
else clips. The same draws serve every model: comparisons are paired.

An interval is Student's, with the bootstrap's standard error and one degree of freedom less than there are
speakers, on a scale on which the score is nearer to normal (Efron and Tibshirani 1993, An Introduction to the
Bootstrap, chapters 12 and 13; Hesterberg 2015, The American Statistician 69, 371-386). Speakers with unlike
numbers of clips count as fewer (Carter, Schnepel and Steigerwald 2017, Review of Economics and Statistics 99,
698-709). The p of a difference is below 5 % where its 95 % interval does not contain 0.
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
from valence_lib.evaluation.metrics import LOWER_IS_BETTER, METRICS, Array, concordance, validate

RESAMPLES = 2000  # give the standard error to within 1.6 %
CONFIDENCE = 0.95
_MAX_GROUPS = 2000  # bounds the time and memory of the draws
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Comparison:
    """The difference of two models' scores.

    Args:
        difference: first minus second.
        low, high: its 95 % interval, resampled in pairs.
        p: two-sided probability of a difference at least as large by chance.
        p_holm: p adjusted for the number of comparisons (see `corrected`).
        verdict: "better" or "worse" (of the first) where p_holm is below 5 %, else "tie".
    """

    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    verdict: str


class Resampling:
    """How often each group of clips is drawn in each resample; shared by all that is compared.

    More than 2,000 groups are first merged at random into 2,000 of like size; the spread of a mean over
    independent groups stays the same.

    Args:
        groups [shape=(n,)]: the speaker of each clip, or a name of its own for each clip.
    """

    def __init__(self, groups: ArrayLike, seed: int = 0, resamples: int = RESAMPLES):
        _, self.group = np.unique(np.asarray(groups), return_inverse=True)
        self.n_groups = int(self.group.max()) + 1
        generator = np.random.default_rng(seed)
        if self.n_groups > _MAX_GROUPS:
            self.group = (generator.permutation(self.n_groups) % _MAX_GROUPS)[self.group]
            self.n_groups = _MAX_GROUPS
        chances = np.full(self.n_groups, 1 / self.n_groups)
        self.weights = generator.multinomial(self.n_groups, chances, size=resamples).astype(np.float64)
        self.n_effective = effective_number(np.bincount(self.group))

    def sums(
        self, truth: ArrayLike, prediction: ArrayLike, chosen: NDArray[np.bool_] | slice = slice(None)
    ) -> Array:
        """The sums that `from_sums` takes, by group [shape=(n_groups, 7)], over the chosen clips."""
        y, p = validate(np.asarray(truth)[chosen], np.asarray(prediction)[chosen])
        y, p = y - y.mean(), p - y.mean()  # changes no metric, and limits rounding errors of the sums
        per_clip = (np.ones_like(y), y, p, y * y, p * p, y * p, np.abs(p - y))
        group = self.group[chosen]
        return np.stack([np.bincount(group, values, self.n_groups) for values in per_clip], axis=1)

    def scores(self, truth: ArrayLike, prediction: ArrayLike) -> dict[str, Array]:
        """Each metric in every resample [shape=(resamples,)]."""
        return from_sums(self.weights @ self.sums(truth, prediction))


def from_sums(sums: Array) -> dict[str, Array]:
    """Each of METRICS, and "bias" (mean of prediction minus truth), of each row of sums [shape=(rows,)].

    Args:
        sums [shape=(rows, 7)]: over clips, of 1, y, p, y^2, p^2, y p and |p - y|; y is the truth, p the
            prediction.
    """
    n, y, p, yy, pp, yp, absolute = sums.T
    mean_y, mean_p = y / n, p / n
    # Rounding may make the variance of a constant a little less than 0.
    variance_y, variance_p = np.maximum(yy / n - mean_y**2, 0), np.maximum(pp / n - mean_p**2, 0)
    covariance, mse = yp / n - mean_y * mean_p, (yy + pp - 2 * yp) / n
    return {
        "mse": mse,
        "mae": absolute / n,
        "pearson_r": _ratio(covariance, np.sqrt(variance_y * variance_p)),
        "ccc": concordance(covariance, variance_y, variance_p, mean_y - mean_p, _NEGLIGIBLE),
        "r2": 1 - _ratio(mse, variance_y, otherwise=1.0),
        "sd_ratio": np.sqrt(_ratio(variance_p, variance_y)),
        "bias": (p - y) / n,
    }


def _ratio(numerator: Array, denominator: Array, otherwise: float = 0.0) -> Array:
    out = np.full_like(denominator, otherwise)
    return np.divide(numerator, denominator, out=out, where=denominator > _NEGLIGIBLE)


def effective_number(sizes: ArrayLike) -> float:
    """The number of groups of equal size that are as informative as groups of these sizes, at least 2.

    (sum of sizes)^2 / sum of squared sizes: Kish, L. (1965), Survey Sampling, Wiley.
    """
    clips = np.asarray(sizes, np.float64)
    return max(2.0, float(clips.sum() ** 2 / (clips**2).sum()))


# By metric (None: a difference): to a scale on which it is nearer to normal, and back.
_LOGARITHM = (lambda x: np.log(np.maximum(x, 1e-12)), np.exp)
_FISHER = (lambda x: np.arctanh(np.clip(x, -1 + 1e-9, 1 - 1e-9)), np.tanh)
_ERROR_RATIO = (lambda x: np.log(np.maximum(1 - x, 1e-12)), lambda x: 1 - np.exp(x))  # 1 - R² is one
_SCALES: dict[str | None, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    None: (lambda x: x, lambda x: x),
    **dict.fromkeys(["mse", "mae", "sd_ratio"], _LOGARITHM),
    **dict.fromkeys(["pearson_r", "ccc"], _FISHER),
    "r2": _ERROR_RATIO,
}


def standard_error(resampled: Array, n_effective: float) -> float:
    """Standard error of a statistic: the deviation of its resampled values, times sqrt(n / (n - 1))."""
    return float(resampled.std(ddof=1) * math.sqrt(n_effective / (n_effective - 1)))


def interval(estimate: float, resampled: Array, n_effective: float, metric: str | None = None) -> list[float]:
    """Student's 95 % interval [low, high] of a statistic, with the bootstrap's standard error.

    Args:
        resampled [shape=(resamples,)]: its values in the resamples.
        n_effective: effective number of groups that are drawn.
        metric: of METRICS, which sets the scale on which the interval is symmetric; None for a difference.
    """
    to, back = _SCALES[metric]
    centre = float(to(estimate))
    half = special.stdtrit(n_effective - 1, (1 + CONFIDENCE) / 2) * standard_error(to(resampled), n_effective)
    return sorted(float(back(end)) for end in (centre - half, centre + half))


def score(
    truth: ArrayLike, prediction: ArrayLike, speakers: ArrayLike | Resampling | None = None
) -> dict[str, Any]:
    """All metrics of one model, each with its 95 % interval.

    Args:
        truth [shape=(n,)]: ratings.
        prediction [shape=(n,) or (seeds, n)]: the scores of several seeds are averaged.
        speakers [shape=(n,)]: the speaker of each clip, two or more, who are resampled; None resamples clips.
            A `Resampling` shares its draws.

    Returns:
        {"n", each of METRICS, "intervals": {"mse": [low, high], ...}}

    Raises:
        SettingsError: shapes that do not fit, NaN or infinity, or fewer than two speakers.
    """
    resampling = _resampling(truth, speakers)
    means, drawn = _averaged(truth, prediction, resampling)
    n_effective = resampling.n_effective
    intervals = {name: interval(means[name], drawn[name], n_effective, name) for name in METRICS}
    return {"n": int(np.size(truth)), **means, "intervals": intervals}


def compare(
    truth: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    speakers: ArrayLike | Resampling | None = None,
    metric: str = "mse",
) -> Comparison:
    """The paired comparison of two models on the same clips.

    Args:
        truth, speakers: as `score` takes them.
        first, second [shape=(n,) or (seeds, n)]: predictions.
        metric: "mse", "mae", "pearson_r", "ccc" or "r2".

    Raises:
        SettingsError: an unknown metric, or what `score` refuses.
    """
    if metric not in METRICS or metric == "sd_ratio":
        expected = ", ".join(name for name in METRICS if name != "sd_ratio")
        raise SettingsError(f"models cannot be compared by {metric!r}; expected one of {expected}.")
    resampling = _resampling(truth, speakers)
    (own, drawn), (other, other_drawn) = (_averaged(truth, model, resampling) for model in (first, second))
    difference, resampled = own[metric] - other[metric], drawn[metric] - other_drawn[metric]
    error = standard_error(resampled, resampling.n_effective)
    low, high = interval(difference, resampled, resampling.n_effective)
    if error > 1e-12:
        p = float(2 * special.stdtr(resampling.n_effective - 1, -abs(difference) / error))
    else:  # the same for every speaker: certain, unless it is 0
        p = 0.0 if abs(difference) > 1e-12 else 1.0
    return Comparison(difference, low, high, p, p, verdict(metric, difference, p < 1 - CONFIDENCE))


def _resampling(truth: ArrayLike, speakers: ArrayLike | Resampling | None) -> Resampling:
    if isinstance(speakers, Resampling):
        return speakers
    y, _ = validate(truth, truth)
    names = np.asarray(np.arange(len(y)) if speakers is None else speakers, dtype=object)
    if names.shape != y.shape or pd.isna(names).any() or len(set(names)) < 2:
        raise SettingsError(
            f"truth has the shape {y.shape} and speakers {names.shape} with {len(set(names.flat))} names; "
            "expected the name of each clip's speaker, without NaN, and two speakers or more."
        )
    return Resampling(names)


def _averaged(
    truth: ArrayLike, prediction: ArrayLike, resampling: Resampling
) -> tuple[dict[str, float], dict[str, Array]]:
    """Each metric and its values in the resamples, averaged over seeds."""
    seeds = np.atleast_2d(np.asarray(prediction, np.float64))
    drawn = [resampling.scores(truth, values) for values in seeds]
    means = {name: float(np.mean([metric(truth, p) for p in seeds])) for name, metric in METRICS.items()}
    return means, {name: np.mean([scores[name] for scores in drawn], axis=0) for name in METRICS}


def verdict(metric: str, difference: float, significant: bool) -> str:
    """ "better" or "worse" by the sign of a difference ("higher" or "lower" for the bias), or "tie"."""
    if not significant:
        return "tie"
    if metric == "bias":
        return "higher" if difference > 0 else "lower"
    return "better" if (difference < 0) == (metric in LOWER_IS_BETTER) else "worse"


def corrected(metric: str, comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons by one metric with p adjusted for their number, and the verdicts that follow.

    Holm, S. (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 65-70: the chance of any false verdict among them is at most 5 %.
    """
    p = np.array([one.p for one in comparisons])
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    return [
        replace(one, p_holm=p_holm, verdict=verdict(metric, one.difference, p_holm < 1 - CONFIDENCE))
        for one, p_holm in zip(comparisons, adjusted.tolist(), strict=True)
    ]


def groups_of(clips: pd.DataFrame) -> tuple[NDArray[np.str_], str]:
    """What the bootstrap draws: speakers where every clip and at least two of them are named, else clips.

    Returns:
        The group of each clip (a row with id and speaker) [shape=(n,)], and "speaker" or "clip".
    """
    speakers = clips["speaker"].to_numpy(dtype=str)
    if (speakers != "").all() and len(set(speakers)) > 1:
        return speakers, "speaker"
    return clips["id"].to_numpy(dtype=str), "clip"
