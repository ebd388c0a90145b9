"""For whom, on which clips and under which conditions a model errs more, and whether that is more than luck.

Intervals are those of `evaluation`, from a bootstrap that draws whole speakers where they are known. Groups may
share speakers (languages) or not (sexes): one draw of speakers serves all groups, which pairs those that share them.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from valence_lib.corpora import RATER_COLUMN
from valence_lib.errors import SettingsError
from valence_lib.evaluation import (
    FROM_SUMS,
    Resampling,
    compare,
    corrected,
    effective_number,
    groups_of,
    interval,
    score,
)
from valence_lib.metrics import LOWER_IS_BETTER
from valence_lib.tables import rounded

Array = NDArray[np.float64]
TOO_SMALL = "too small to say"
SMALLEST_SPEAKERS = 5
SMALLEST_CLIPS = 50
REST = "the rest"


def score_differences(predictions: pd.DataFrame, column: str) -> pd.DataFrame:
    """How much worse or better each group of clips is predicted: two groups against each other, more against the rest.

    The metrics are MSE, CCC and the bias (mean of prediction minus truth). CCC and MSE depend on how the ratings of
    a group are spread as well as on the errors. Each interval stands alone: of twenty, one excludes 0 by luck.

    Args:
        predictions: a row a clip, with truth, prediction (rating points), id, speaker, and the column to group by; a
            categorical one gives the groups' order. Clips with "" or nothing there are left out.

    Returns:
        One row a group and metric: group, other, n and speakers of the group, other_n and other_speakers, metric,
        score, other_score, difference (score less other_score) with low and high (95 %), and verdict: "better" or
        "worse" of the group, for the bias "higher" or "lower", "tie" where the interval holds 0, and TOO_SMALL where
        either side has fewer than SMALLEST_SPEAKERS speakers or SMALLEST_CLIPS clips. Speakers count 0, and are not
        asked for, where they are not all named. No rows where there are fewer than two groups.

    Raises:
        SettingsError: a column is missing.
    """
    needed = {"truth", "prediction", "id", "speaker", column}
    if missing := sorted(needed - set(predictions)):
        raise SettingsError(
            f"the table of predictions has no column {', '.join(missing)}; expected {', '.join(sorted(needed))}."
        )
    known = predictions[predictions[column].notna() & (predictions[column].astype(str) != "")]
    columns = [
        "group",
        "other",
        "n",
        "speakers",
        "other_n",
        "other_speakers",
        "metric",
        "score",
        "other_score",
    ]
    columns += ["difference", "low", "high", "verdict"]
    labels = known[column].to_numpy(dtype=str)
    if isinstance(known[column].dtype, pd.CategoricalDtype):
        names = [str(name) for name in known[column].cat.categories if str(name) in set(labels)]
    else:
        names = sorted(set(labels))
    if len(names) < 2:
        return pd.DataFrame(columns=columns)
    units, kind = groups_of(known)
    resampling = Resampling(units)
    truth, prediction = known["truth"].to_numpy(np.float64), known["prediction"].to_numpy(np.float64)
    rows = []
    for name in names if len(names) > 2 else names[:1]:
        own = labels == name
        sides = own, ~own
        speakers = [len(set(units[side])) if kind == "speaker" else 0 for side in sides]
        small = min(own.sum(), (~own).sum()) < SMALLEST_CLIPS
        small |= kind == "speaker" and min(speakers) < SMALLEST_SPEAKERS
        sums = [resampling.sums(truth, prediction, side) for side in sides]
        drawn = [resampling.weights @ of_side for of_side in sums]
        both = (drawn[0][:, 0] > 0) & (drawn[1][:, 0] > 0)  # a draw may hold nobody of a small group
        for metric, formula in _METRICS.items():
            scores = [float(formula(of_side.sum(axis=0, keepdims=True))[0]) for of_side in sums]
            resampled = [formula(of_side[both]) for of_side in drawn]
            n_effective = _n_effective(sums, resampled, resampling)
            low, high = interval(scores[0] - scores[1], resampled[0] - resampled[1], n_effective)
            rows.append(
                {
                    "group": name,
                    "other": names[1] if len(names) == 2 else REST,
                    "n": int(own.sum()),
                    "speakers": speakers[0],
                    "other_n": int((~own).sum()),
                    "other_speakers": speakers[1],
                    "metric": metric,
                    "score": scores[0],
                    "other_score": scores[1],
                    "difference": scores[0] - scores[1],
                    "low": low,
                    "high": high,
                    "verdict": TOO_SMALL if small else _verdict(metric, low, high),
                }
            )
    return pd.DataFrame(rows, columns=columns)


def _n_effective(sums: Sequence[Array], resampled: Sequence[Array], resampling: Resampling) -> float:
    """How many speakers' worth of evidence there is for a difference: one more than its degrees of freedom.

    Where no speaker is on both sides, those of Welch, B. L. (1947), "The generalization of Student's problem when several
    different population variances are involved", Biometrika 34, 28-35: the smaller and less certain side has the say.
    """
    sizes = [of_side[:, 0] for of_side in sums]
    variances = [float(np.var(of_side)) for of_side in resampled]
    if np.logical_and(*sizes).any() or sum(variances) == 0:
        return resampling.n_effective
    degrees = [effective_number(of_side) - 1 for of_side in sizes]
    return 1 + sum(variances) ** 2 / sum(v**2 / d for v, d in zip(variances, degrees, strict=True))


def _verdict(metric: str, low: float, high: float) -> str:
    if low <= 0 <= high:
        return "tie"
    if metric == "bias":
        return "higher" if low > 0 else "lower"
    return "worse" if (low > 0) == (metric in LOWER_IS_BETTER) else "better"


def _bias(sums: Array) -> Array:
    n, y, p, *_ = sums.T
    return (p - y) / n


_METRICS = {"mse": FROM_SUMS["mse"], "ccc": FROM_SUMS["ccc"], "bias": _bias}


def quartiles(values: ArrayLike, unit: str = "", digits: int = 1) -> pd.Categorical:
    """The quarter of the clips in which each value lies, named by its edges, the lowest first.

    Edges are rounded up before clips are compared with them, so that the names are exact; a value equal to an edge
    lies below it. Fewer than four where many values are the same.

    Args:
        values [shape=(n,)]: numbers; NaN gets no quarter.
        unit: of the values, behind their numbers.
        digits: of the edges in the names.

    >>> list(quartiles([1, 2, 3, 4, 5, 6, 7, 8], "s", 0))[::3]
    ['up to 2 s', '2 to 4 s', 'above 6 s']
    """
    numbers = np.asarray(values, np.float64)
    known = numbers[np.isfinite(numbers)]
    quarters = np.quantile(known, [0.25, 0.5, 0.75], method="lower") if len(known) else np.zeros(0)
    edges = np.unique(np.round(np.ceil(quarters * 10**digits - 1e-9) / 10**digits, digits))
    edges = edges[[bool((known > edge).any()) for edge in edges]]  # no empty bin at the top
    texts, unit = [rounded(edge, digits) for edge in edges], f" {unit}" if unit else ""
    between = [f"{low} to {high}{unit}" for low, high in pairwise(texts)]
    names = [f"up to {texts[0]}{unit}", *between, f"above {texts[-1]}{unit}"] if texts else ["all"]
    codes = np.where(np.isfinite(numbers), np.searchsorted(edges, numbers), -1)
    return pd.Categorical.from_codes(codes, names, ordered=True)


def rater_disagreement(clips: pd.DataFrame) -> Array:
    """Standard deviation of each clip's ratings, n - 1 in the denominator [shape=(n,)], rating points.

    NaN where a clip has fewer than two, and everywhere where no column is a rater's (valence_a1, valence_a2, ...).
    """
    columns = [column for column in map(str, clips) if RATER_COLUMN.fullmatch(column)]
    if not columns:
        return np.full(len(clips), np.nan)
    return clips[columns].std(axis=1, ddof=1).to_numpy(np.float64)


class Disagreement(NamedTuple):
    """How far models disagree on each clip, and whether their mean errs more where they do.

    Args:
        spread [shape=(n,)]: standard deviation of the models' predictions of a clip, n - 1 in the denominator.
        error [shape=(n,)]: absolute error of the mean of their predictions. Disagreement is no part of it, as it is
            of the models' own errors.
        spearman_r: rank correlation of the two (Spearman 1904), 0 where either is constant.
        low, high: its 95 % interval; the ranks are those among all clips, and are not taken anew in each draw.
    """

    spread: Array
    error: Array
    spearman_r: float
    low: float
    high: float


def disagreement(truth: ArrayLike, predictions: Sequence[ArrayLike], groups: ArrayLike) -> Disagreement:
    """Where models disagree.

    Args:
        truth [shape=(n,)]: rating points.
        predictions: one [shape=(n,)] a model, two or more.
        groups [shape=(n,)]: what the bootstrap draws, as `evaluation.groups_of` says.

    Raises:
        SettingsError: fewer than two models, or arrays of unlike shapes.
    """
    y, p = np.asarray(truth, np.float64), np.asarray(predictions, np.float64)
    if p.ndim != 2 or len(p) < 2 or p.shape[1:] != y.shape or np.shape(groups) != y.shape:
        raise SettingsError(
            f"predictions have the shape {p.shape}, truth {y.shape} and groups {np.shape(groups)}; expected two or "
            "more models, (models, n), (n,) and (n,)."
        )
    spread, error = p.std(axis=0, ddof=1), np.abs(p.mean(axis=0) - y)
    ranks = [pd.Series(values).rank().to_numpy(np.float64) / len(y) for values in (spread, error)]
    resampling = Resampling(groups)
    found = score(ranks[0], [ranks[1]], resampling)
    whole, (low, high) = found["pearson_r"], found["intervals"]["pearson_r"]
    return Disagreement(spread, error, whole, low, high)


def robustness(
    truth: ArrayLike, predictions: Mapping[str, Sequence[ArrayLike]], groups: ArrayLike
) -> pd.DataFrame:
    """Scores by condition, and what each differs by from the first condition, paired.

    Args:
        truth [shape=(n,)]: rating points.
        predictions: by condition, the one to compare with first; one [shape=(n,)] a seed.
        groups [shape=(n,)]: what the bootstrap draws, as `evaluation.groups_of` says.

    Returns:
        One row a condition and metric (mse, ccc): condition, metric, n, score, low, high, difference, difference_low,
        difference_high (NaN for the first condition) and verdict ("better", "worse" or "tie", corrected over the conditions; "" for the first).
    """
    resampling = Resampling(groups)
    reference, *others = predictions
    changes = {
        metric: corrected(
            metric,
            [compare(metric, truth, predictions[o], predictions[reference], resampling) for o in others],
        )
        for metric in ("mse", "ccc")
    }
    rows = []
    for number, (condition, seeds) in enumerate(predictions.items()):
        found = score(truth, seeds, resampling)
        for metric in ("mse", "ccc"):
            low, high = found["intervals"][metric]
            row = {"condition": condition, "metric": metric, "n": found["n"]}
            row |= {"score": found[metric], "low": low, "high": high}
            row |= {"difference": np.nan, "difference_low": np.nan, "difference_high": np.nan, "verdict": ""}
            if number:
                change = changes[metric][number - 1]
                row |= {"difference": change.difference, "verdict": change.verdict}
                row |= {"difference_low": change.low, "difference_high": change.high}
            rows.append(row)
    return pd.DataFrame(rows)
