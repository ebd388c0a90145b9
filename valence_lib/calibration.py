"""Whether predictions are as far apart as the ratings are, and how far off a single one may be."""

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from valence_lib.errors import SettingsError
from valence_lib.evaluation import Resampling, interval
from valence_lib.metrics import METRICS, validate

Array = NDArray[np.float64]
INTERVAL = 0.9  # the share of clips that a prediction interval is to hold
FEWEST_CLIPS = 9  # whose errors an interval of 90 % can be made from
_SCALES = np.linspace(0, 2.5, 51)


def _covariance(y: Array, p: Array) -> float:
    # Of a constant, whose mean rounding may put a little beside it, exactly 0: what is divided by it may be as small.
    return float(np.mean((y - y.mean()) * (p - p.mean()))) if np.ptp(y) > 0 and np.ptp(p) > 0 else 0.0


def calibrate(truth: ArrayLike, prediction: ArrayLike) -> dict[str, float]:
    """How predictions and ratings lie to each other.

    Returns:
        {"slope", "intercept": of the regression of ratings on predictions, 1 and 0 where a predicted difference is worth what
        it says (Mincer and Zarnowitz 1969, "The evaluation of economic forecasts"); "kept": the slope of predictions on
        ratings, the share of the ratings' differences that predictions keep, below 1 where they regress to the mean; "bias":
        mean of prediction minus rating}. The two slopes' product is the square of Pearson's r. Slopes are 0 where there is
        nothing to regress on.
    """
    y, p = validate(truth, prediction)
    covariance = _covariance(y, p)
    slope = covariance / float(p.var()) if np.ptp(p) > 0 else 0.0
    kept = covariance / float(y.var()) if np.ptp(y) > 0 else 0.0
    return {
        "slope": slope,
        "intercept": float(y.mean() - slope * p.mean()),
        "kept": kept,
        "bias": float(np.mean(p - y)),
    }


def slope_interval(truth: ArrayLike, prediction: ArrayLike, resampling: Resampling) -> list[float]:
    """The 95 % interval [low, high] of the slope of `calibrate`, which is Pearson's r over the SD ratio; [0, 0] where it is 0."""
    slope = calibrate(truth, prediction)["slope"]
    if slope == 0:
        return [0.0, 0.0]
    r, ratio = (resampling.scores(name, truth, prediction) for name in ("pearson_r", "sd_ratio"))
    # A resample of predictions that are all alike has no slope.
    slopes = np.divide(r, ratio, out=np.zeros_like(r), where=ratio > 0)
    return interval(slope, slopes, resampling.n_effective)


def frontier(truth: ArrayLike, prediction: ArrayLike) -> pd.DataFrame:
    """MSE and CCC of predictions that are shrunk towards their mean, or stretched from it: mean + scale (prediction - mean).

    Returns:
        Rows scale, mse, ccc: scales from 0 (the mean) to 2.5, 1 being the predictions as they are, and those of `optima`.
    """
    y, p = validate(truth, prediction)
    scales = np.union1d(_SCALES, [best["scale"] for best in optima(y, p).values()])
    moved = [p.mean() + scale * (p - p.mean()) for scale in scales]
    scores = {name: [METRICS[name](y, values) for values in moved] for name in ("mse", "ccc")}
    return pd.DataFrame({"scale": scales, **scores})


def optima(truth: ArrayLike, prediction: ArrayLike) -> dict[str, dict[str, float]]:
    """The scales of `frontier` at which MSE is lowest and CCC highest on these very clips, which no model knows beforehand.

    With bias b, covariance c and variances v, MSE = v_y + s^2 v_p - 2 s c + b^2 is lowest at s = c / v_p, and CCC = 2 s c /
    (v_y + s^2 v_p + b^2) is highest at s = sqrt((v_y + b^2) / v_p), where c is above 0; else both are best at 0.

    Returns:
        {"mse": {"scale", "mse", "ccc"}, "ccc": {"scale", "mse", "ccc"}}.
    """
    y, p = validate(truth, prediction)
    covariance = _covariance(y, p)
    scales = {"mse": 0.0, "ccc": 0.0}
    if covariance > 0:
        of_squares = float(y.var() + (y.mean() - p.mean()) ** 2)
        scales = {"mse": covariance / float(p.var()), "ccc": math.sqrt(of_squares / float(p.var()))}
    found = {}
    for name, scale in scales.items():
        moved = p.mean() + scale * (p - p.mean())
        found[name] = {"scale": scale, "mse": METRICS["mse"](y, moved), "ccc": METRICS["ccc"](y, moved)}
    return found


def half_width(errors: ArrayLike, confidence: float = INTERVAL) -> float:
    """How far a prediction interval reaches to either side, from errors of clips that were held out, in rating points.

    Split-conformal prediction (Lei et al. 2018, "Distribution-free predictive inference for regression", JASA 113,
    1094-1111): the absolute error of rank ceil((n + 1) confidence) among n. That is exact for exchangeable clips, which
    clips of a few speakers are not: it holds clips of new speakers as often as it says on average over speakers only,
    and a single speaker more or less often.

    In simulations where speakers differ in bias, scatter and number of clips, intervals of 90 % from 3, 6, 15 or 18
    speakers held 89 to 90 % of new speakers' clips. From one set of 15 or 18 speakers to another that share has a
    deviation of 2 to 4 points; of 3 speakers, 4 to 7. Weighing all speakers alike, as the pooled distributions of Dunn,
    Wasserman and Ramdas (2023, JASA 118, 2491-2502) do, changed nothing. Ways that promise 90 % for whatever speakers held
    94 to 97 %, in intervals wider by a fifth to two fifths that have no end below 9 speakers: one more speaker of
    unbounded error (Lee, Barber and Willett 2023, "Distribution-free inference with hierarchical data"), and one clip a
    speaker (Dunn et al.; the mean of 50 such draws).

    Args:
        errors [shape=(n,)]: prediction minus rating, finite.

    Raises:
        SettingsError: too few errors for such a share, errors that are no numbers, or a share that is none.
    """
    absolute = np.sort(np.abs(np.asarray(errors, np.float64)))
    if not 0 < confidence < 1:
        raise SettingsError(
            f"an interval of {100 * confidence:g} % was asked for; expected more than 0 and less than 100, such as 90."
        )
    if not np.isfinite(absolute).all():
        raise SettingsError(
            f"{int((~np.isfinite(absolute)).sum())} of {len(absolute)} errors are NaN or infinite; leave those clips out, or "
            "find out why they are."
        )
    # Rounded first: in floating point, 0.9 / (1 - 0.9) is above 9.
    rank = math.ceil(round((len(absolute) + 1) * confidence, 9))
    if rank > len(absolute):
        raise SettingsError(
            f"{len(absolute)} held-out clips are too few for an interval of {100 * confidence:g} %; expected at least "
            f"{math.ceil(round(confidence / (1 - confidence), 9))}. Ask for a smaller share."
        )
    return float(absolute[rank - 1])


def intervals_of_clips(
    truth: ArrayLike, prediction: ArrayLike, groups: ArrayLike, confidence: float = INTERVAL
) -> Array:
    """Half the width of each clip's prediction interval [shape=(n,)], from the errors of all other groups' clips.

    Args:
        groups [shape=(n,)]: the speaker of each clip, or a name of its own for each; two or more.
    """
    y, p = validate(truth, prediction)
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) == len(y):
        # Without the one largest error or another: of many, that changes nothing that could be seen.
        return np.full(len(y), half_width(p - y, confidence))
    by_group = np.array([half_width((p - y)[group != number], confidence) for number in range(len(names))])
    return by_group[group]


def coverage(
    truth: ArrayLike, prediction: ArrayLike, groups: ArrayLike, confidence: float = INTERVAL
) -> dict[str, Any]:
    """How many clips their prediction intervals hold, each made without the clip's own group.

    Returns:
        {"confidence", "coverage": the share held, "interval": its 95 % interval over groups, "lowest" and "highest": the share
        held of the fifth of the clips that is rated lowest and of the one that is rated highest, "width": mean of the
        intervals, rating points, "half_width": of a new clip's, from all errors, "n"}.
    """
    y, p = validate(truth, prediction)
    halves = intervals_of_clips(y, p, groups, confidence)
    held = (np.abs(p - y) <= halves).astype(np.float64)
    resampling = Resampling(groups)
    # The mean of what is held, as the squared error of predicting 0 for it.
    resampled = resampling.scores("mse", held, np.zeros(len(held)))
    share = float(held.mean())
    low, high = interval(share, resampled, resampling.n_effective)
    ordered, fifth = held[np.argsort(y, kind="stable")], max(1, len(y) // 5)
    return {
        "confidence": confidence,
        "coverage": share,
        "interval": [max(0.0, low), min(1.0, high)],
        "lowest": float(ordered[:fifth].mean()),
        "highest": float(ordered[-fifth:].mean()),
        "width": float(2 * halves.mean()),
        "half_width": half_width(p - y, confidence),
        "n": len(y),
    }
