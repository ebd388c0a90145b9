"""Error analysis by group: for whom, and on which clips, a model errs significantly more.

One draw of speakers serves all groups, which pairs those that share speakers.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from valence_lib.evaluation import bootstrap
from valence_lib.evaluation.bootstrap import Resampling, groups_of, interval, score
from valence_lib.evaluation.metrics import Array

TOO_SMALL = "too small to say"
SMALLEST_SPEAKERS = 5
SMALLEST_CLIPS = 50
REST = "the rest"
_SMALLEST_GROUP = 5  # clips
_PERMUTATIONS = 999
_COLUMNS = (
    *("group", "other", "n", "speakers", "other_n", "other_speakers", "metric", "score", "other_score"),
    *("difference", "low", "high", "verdict"),
)


def score_differences(predictions: pd.DataFrame, column: str) -> pd.DataFrame:
    """Differences in MSE, CCC and bias between two groups of clips, or between each of more and the rest.

    MSE and CCC depend on the spread of a group's ratings as well as on the errors. Intervals are not adjusted
    for their number.

    Args:
        predictions: a row a clip, with truth, prediction (rating points), id, speaker, and the column to
            group by; a categorical one gives the groups' order. Clips with "" or nothing there do not count.

    Returns:
        One row a group and metric: group, other, n and speakers of the group, other_n and other_speakers,
        metric, score, other_score, difference (score minus other_score) with low and high (95 %), and
        verdict: "better" or "worse" of the group, for the bias "higher" or "lower", "tie" where the interval
        contains 0, and TOO_SMALL where either side has fewer than SMALLEST_CLIPS clips or, if all are named
        (else they count 0), fewer than SMALLEST_SPEAKERS speakers. No rows for fewer than two groups.
    """
    known = predictions[predictions[column].notna() & (predictions[column].astype(str) != "")]
    labels = known[column]
    if not isinstance(labels.dtype, pd.CategoricalDtype):
        labels = labels.astype(str).astype("category")
    names = list(labels.cat.remove_unused_categories().cat.categories)
    if len(names) < 2:
        return pd.DataFrame(columns=_COLUMNS)
    units, kind = groups_of(known)
    resampling = Resampling(units)
    rows = []
    for name in names if len(names) > 2 else names[:1]:
        own = (labels == name).to_numpy()
        sides = own, ~own
        n, other_n = (int(side.sum()) for side in sides)
        speakers = [len(set(units[side])) if kind == "speaker" else 0 for side in sides]
        small = min(n, other_n) < SMALLEST_CLIPS or (kind == "speaker" and min(speakers) < SMALLEST_SPEAKERS)
        sums = [resampling.sums(known["truth"], known["prediction"], side) for side in sides]
        drawn = [resampling.weights @ of_side for of_side in sums]
        both = (drawn[0][:, 0] > 0) & (drawn[1][:, 0] > 0)  # some draws may miss a small group
        # The scores of all clips, then those of the draws.
        scores = [
            bootstrap.from_sums(np.vstack([of_side.sum(axis=0), of_draws[both]]))
            for of_side, of_draws in zip(sums, drawn, strict=True)
        ]
        for metric in ("mse", "ccc", "bias"):
            first, second = (of_side[metric] for of_side in scores)
            difference = first - second
            n_effective = _n_effective(sums, [first[1:], second[1:]], resampling)
            low, high = interval(difference[0], difference[1:], n_effective)
            verdict = TOO_SMALL if small else bootstrap.verdict(metric, low, not low <= 0 <= high)
            other = str(names[1]) if len(names) == 2 else REST
            row = (str(name), other, n, speakers[0], other_n, speakers[1], metric, first[0], second[0])
            rows.append((*row, difference[0], low, high, verdict))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _n_effective(sums: Sequence[Array], resampled: Sequence[Array], resampling: Resampling) -> float:
    """The effective number of speakers for a difference: one more than its degrees of freedom.

    Where no speaker is on both sides, those of Welch, B. L. (1947), "The generalization of Student's problem
    when several different population variances are involved", Biometrika 34, 28-35.
    """
    sizes = [of_side[:, 0] for of_side in sums]
    variances = [float(np.var(of_side)) for of_side in resampled]
    if np.logical_and(*sizes).any() or sum(variances) == 0:
        return resampling.n_effective
    degrees = [bootstrap.effective_number(of_side) - 1 for of_side in sizes]
    return 1 + sum(variances) ** 2 / sum(v**2 / d for v, d in zip(variances, degrees, strict=True))


def errors_by_group(predictions: pd.DataFrame, column: str) -> tuple[pd.DataFrame, float]:
    """MSE with its interval, mean error (prediction minus truth) and number of clips, by group.

    Args:
        predictions: with truth, prediction, id, speaker, and the column to group by; clips with "" there, and
            groups of fewer than five clips, do not count.

    Returns:
        One row a group, the largest MSE first (group, n, mse, low, high, bias), and the probability by chance
        of groups that differ at least as much: of a permutation test of the variance of the groups' MSEs,
        weighted by their clips (1 for fewer than two groups).
    """
    sizes = predictions.groupby(column)["id"].transform("size")
    predictions = predictions[(predictions[column] != "") & (sizes >= _SMALLEST_GROUP)]
    rows = []
    for group, clips in predictions.groupby(column):
        found = score(clips["truth"], clips["prediction"], Resampling(groups_of(clips)[0]))
        bias = float((clips["prediction"] - clips["truth"]).mean())
        rows.append((str(group), found["n"], found["mse"], *found["intervals"]["mse"], bias))
    columns = ["group", "n", "mse", "low", "high", "bias"]
    table = pd.DataFrame(rows, columns=columns).sort_values("mse", ascending=False, ignore_index=True)
    squared_error = ((predictions["prediction"] - predictions["truth"]) ** 2).to_numpy()
    speakers, labels = predictions["speaker"].to_numpy(dtype=str), predictions[column].to_numpy(dtype=str)
    return table, _chance_of_spread(squared_error, labels, speakers)


def _chance_of_spread(values: Array, labels: NDArray[np.str_], speakers: NDArray[np.str_]) -> float:
    """The share of permutations in which the groups' means spread at least as far, weighted by their clips.

    The errors of one speaker are alike: labels that are constant within speakers are permuted over speakers.
    """
    _, group = np.unique(labels, return_inverse=True)
    if len(values) == 0 or group.max() == 0:
        return 1.0
    _, first, speaker = np.unique(speakers, return_index=True, return_inverse=True)
    one_a_speaker = (speakers != "").all() and (group[first][speaker] == group).all()
    if one_a_speaker and len(first) > group.max() + 1:
        unit, label_of_unit = speaker, group[first]
    else:
        unit, label_of_unit = np.arange(len(values)), group
    generator = np.random.default_rng(0)
    orders = [label_of_unit] + [generator.permutation(label_of_unit) for _ in range(_PERMUTATIONS)]
    deviations = values - values.mean()
    squared_sums = [np.bincount(order[unit], deviations) ** 2 / np.bincount(order[unit]) for order in orders]
    spreads = np.sum(squared_sums, axis=1)  # sums of squares between groups
    return float((spreads >= spreads[0] * (1 - 1e-12)).mean())


def errors_at_extremes(predictions: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Ratings, predictions and errors of the fifths of the clips with the lowest and the highest ratings.

    Returns:
        {"lowest": ..., "highest": ...}, each {"n", "mse", "truth" and "prediction": their means}.
    """
    ordered = predictions.sort_values(["truth", "id"])
    fifth = max(1, len(ordered) // 5)
    found = {}
    for name, clips in (("lowest", ordered.head(fifth)), ("highest", ordered.tail(fifth))):
        error = clips["prediction"] - clips["truth"]
        means = clips[["truth", "prediction"]].mean()
        found[name] = {"n": len(clips), **means.to_dict(), "mse": float((error**2).mean())}
    return found


def quartiles(values: ArrayLike, unit: str = "", digits: int = 1) -> pd.Categorical:
    """The quarter of the clips in which each value lies, named by its edges, the lowest first.

    Edges are rounded up, and a value equal to an edge lies below it. Where many values are equal there are
    fewer than four quarters.

    Args:
        values [shape=(n,)]: numbers; NaN has no quarter.
        unit: of the values, behind their numbers.
        digits: of the edges in the names.

    >>> list(quartiles([1, 2, 3, 4, 5, 6, 7, 8], "s", 0))[::3]
    ['up to 2 s', '2 to 4 s', 'above 6 s']
    """
    numbers = np.asarray(values, np.float64)
    known = numbers[np.isfinite(numbers)]
    quarters = np.quantile(known, [0.25, 0.5, 0.75], method="lower") if len(known) else np.zeros(0)
    edges = np.unique(np.round(np.ceil(quarters * 10**digits - 1e-9) / 10**digits, digits))
    edges = edges[[bool((known > edge).any()) for edge in edges]]  # no empty quarter at the top
    texts, unit = [f"{edge:z.{digits}f}".replace("-", "−") for edge in edges], f" {unit}" if unit else ""
    between = [f"{low} to {high}{unit}" for low, high in pairwise(texts)]
    names = [f"up to {texts[0]}{unit}", *between, f"above {texts[-1]}{unit}"] if texts else ["all"]
    return pd.cut(numbers, [-np.inf, *edges, np.inf], labels=names)


class Disagreement(NamedTuple):
    """How far models disagree on each clip, and how this correlates with the error of their mean.

    Args:
        spread [shape=(n,)]: standard deviation (n - 1) of the models' predictions of a clip.
        error [shape=(n,)]: absolute error of the mean of their predictions.
        spearman_r: rank correlation of the two (Spearman 1904), 0 where either is constant.
        low, high: its 95 % interval, with the ranks among all clips.
    """

    spread: Array
    error: Array
    spearman_r: float
    low: float
    high: float


def disagreement(truth: ArrayLike, predictions: Sequence[ArrayLike], groups: ArrayLike) -> Disagreement:
    """The disagreement of models.

    Args:
        truth, groups [shape=(n,)]: rating points; what the bootstrap draws (see `bootstrap.groups_of`).
        predictions [shape=(models, n)]: of two models or more.
    """
    y, p = np.asarray(truth, np.float64), np.asarray(predictions, np.float64)
    spread, error = p.std(axis=0, ddof=1), np.abs(p.mean(axis=0) - y)
    ranks = (pd.DataFrame({"spread": spread, "error": error}).rank() / len(y)).to_numpy(np.float64).T
    found = score(ranks[0], ranks[1], Resampling(groups))
    return Disagreement(spread, error, found["pearson_r"], *found["intervals"]["pearson_r"])
