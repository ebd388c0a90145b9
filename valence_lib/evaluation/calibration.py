"""Calibration: whether predictions vary as much as ratings do, and prediction intervals of single clips."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from valence_lib.errors import RunError, SettingsError
from valence_lib.evaluation.bootstrap import Resampling, interval
from valence_lib.evaluation.metrics import Array, ccc, covariance, mse, validate

INTERVAL = 0.9  # nominal coverage of a prediction interval
FEWEST_CLIPS = 9  # whose errors give an interval of 90 %
_SCALES = np.linspace(0, 2.5, 51)


def calibrate(truth: ArrayLike, prediction: ArrayLike) -> dict[str, float]:
    """The two regressions between predictions and ratings.

    Returns:
        {"slope", "intercept": of the regression of ratings on predictions, 1 and 0 for calibrated predictions
        (Mincer and Zarnowitz 1969, "The evaluation of economic forecasts"); "kept": slope of predictions on
        ratings, below 1 where predictions regress to the mean; "bias": mean of prediction minus rating}.
        Slopes are 0 where either side is constant.
    """
    y, p = validate(truth, prediction)
    shared = covariance(y, p)
    slope = shared / float(p.var()) if shared else 0.0
    kept = shared / float(y.var()) if shared else 0.0
    intercept = float(y.mean() - slope * p.mean())
    return {"slope": slope, "intercept": intercept, "kept": kept, "bias": float(np.mean(p - y))}


def slope_interval(truth: ArrayLike, prediction: ArrayLike, resampling: Resampling) -> list[float]:
    """The 95 % interval [low, high] of the slope of `calibrate`; [0, 0] where the slope is 0."""
    slope = calibrate(truth, prediction)["slope"]
    if slope == 0:
        return [0.0, 0.0]
    drawn = resampling.scores(truth, prediction)
    r, ratio = drawn["pearson_r"], drawn["sd_ratio"]
    slopes = np.divide(r, ratio, out=np.zeros_like(r), where=ratio > 0)  # 0 for constant predictions
    return interval(slope, slopes, resampling.n_effective)


def frontier(truth: ArrayLike, prediction: ArrayLike) -> pd.DataFrame:
    """MSE and CCC of predictions that are scaled about their mean: mean + scale (prediction - mean).

    Returns:
        Rows scale, mse, ccc: scales from 0 (the mean) to 2.5, and those of `optima`; 1 changes nothing.
    """
    y, p = validate(truth, prediction)
    scales = np.union1d(_SCALES, [best["scale"] for best in optima(y, p).values()])
    return pd.DataFrame([_at_scale(y, p, scale) for scale in scales])


def optima(truth: ArrayLike, prediction: ArrayLike) -> dict[str, dict[str, float]]:
    """The scales of `frontier` with the lowest MSE and the highest CCC on these clips.

    With bias b, covariance c and variances v, MSE = v_y + s^2 v_p - 2 s c + b^2 is lowest at s = c / v_p, and
    CCC = 2 s c / (v_y + s^2 v_p + b^2) is highest at s = sqrt((v_y + b^2) / v_p), if c > 0; else at 0.

    Returns:
        {"mse": {"scale", "mse", "ccc"}, "ccc": {"scale", "mse", "ccc"}}.
    """
    y, p = validate(truth, prediction)
    shared = covariance(y, p)
    scales = {"mse": 0.0, "ccc": 0.0}
    if shared > 0:
        of_squares = float(y.var() + (y.mean() - p.mean()) ** 2)
        scales = {"mse": shared / float(p.var()), "ccc": math.sqrt(of_squares / float(p.var()))}
    return {name: _at_scale(y, p, scale) for name, scale in scales.items()}


def _at_scale(y: Array, p: Array, scale: float) -> dict[str, float]:
    moved = p.mean() + scale * (p - p.mean())
    return {"scale": scale, "mse": mse(y, moved), "ccc": ccc(y, moved)}


def half_width(errors: ArrayLike, confidence: float = INTERVAL) -> float:
    """Half the width of a prediction interval, from errors on held-out clips, in rating points.

    Split-conformal prediction (Lei et al. 2018, "Distribution-free predictive inference for regression", JASA
    113, 1094-1111): the absolute error of rank ceil((n + 1) confidence) among n. Exact for exchangeable
    clips; those of few speakers are not, and the coverage of a single speaker differs.

    Args:
        errors [shape=(n,)]: prediction minus rating, finite.
        confidence: nominal coverage, between 0 and 1.

    Raises:
        SettingsError: too few errors, or a coverage that is not between 0 and 1.
    """
    absolute = np.sort(np.abs(errors))
    if not 0 < confidence < 1:
        raise SettingsError(
            f"an interval of {100 * confidence:g} % was requested; expected more than 0 and less than 100."
        )
    rank = math.ceil(round((len(absolute) + 1) * confidence, 9))  # rounded: 0.9 / (1 - 0.9) is above 9
    if rank > len(absolute):
        raise SettingsError(
            f"{len(absolute)} held-out clips are too few for an interval of {100 * confidence:g} %; expected "
            f"at least {math.ceil(round(confidence / (1 - confidence), 9))}. Request a narrower interval."
        )
    return float(absolute[rank - 1])


def half_width_of_run(run: Path, confidence: float = INTERVAL) -> float:
    """`half_width` from a run's errors on its test clips.

    Raises:
        RunError: the folder has no predictions.csv.
        SettingsError: see `half_width`.
    """
    path = run / "predictions.csv"
    if not path.is_file():
        raise RunError(f"{str(run)!r} has no predictions.csv, expected a run of 2_experiment.ipynb.")
    predictions = pd.read_csv(path)
    tested = predictions[predictions["subset"].isin(["test", "out_of_fold"])]
    return half_width(tested["prediction"] - tested["truth"], confidence)


def intervals_of_clips(
    truth: ArrayLike, prediction: ArrayLike, groups: ArrayLike, confidence: float = INTERVAL
) -> Array:
    """Half the width of each clip's prediction interval [shape=(n,)], from errors of the other groups' clips.

    Args:
        truth, prediction [shape=(n,)]
        groups [shape=(n,)]: the speaker of each clip, or a name of its own for each; two or more.
        confidence: nominal coverage, between 0 and 1.
    """
    y, p = validate(truth, prediction)
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) == len(y):
        # One clip more or less among many changes nothing visible.
        return np.full(len(y), half_width(p - y, confidence))
    by_group = np.array([half_width((p - y)[group != number], confidence) for number in range(len(names))])
    return by_group[group]


def coverage(truth: ArrayLike, prediction: ArrayLike, groups: ArrayLike) -> dict[str, Any]:
    """The share of clips within their prediction intervals: see `intervals_of_clips`.

    Returns:
        {"confidence", "coverage": the share, "interval": its 95 % interval over groups, "lowest" and
        "highest": the share of the fifth of the clips with the lowest and with the highest ratings, "width":
        mean of the intervals, rating points, "half_width": of a new clip's, from all errors, "n"}.
    """
    y, p = validate(truth, prediction)
    halves = intervals_of_clips(y, p, groups)
    inside = (np.abs(p - y) <= halves).astype(np.float64)
    resampling = Resampling(groups)
    # The mean of 0s and 1s is the squared error of predicting 0.
    resampled = resampling.scores(inside, np.zeros(len(inside)))["mse"]
    share = float(inside.mean())
    low, high = interval(share, resampled, resampling.n_effective)
    ordered, fifth = inside[np.argsort(y, kind="stable")], max(1, len(y) // 5)
    return {
        "confidence": INTERVAL,
        "coverage": share,
        "interval": [max(0.0, low), min(1.0, high)],
        "lowest": float(ordered[:fifth].mean()),
        "highest": float(ordered[-fifth:].mean()),
        "width": float(2 * halves.mean()),
        "half_width": half_width(p - y),
        "n": len(y),
    }
