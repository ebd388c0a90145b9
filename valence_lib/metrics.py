"""Scores of predictions, as pure functions of two arrays: MSE, MAE, Pearson's r, CCC, R², ratio of deviations.

All take `truth` and `prediction` [shape=(n,)], finite and of one length, and return a float in the
unit that their docstring states.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valence_lib.errors import SettingsError


def validate(truth: ArrayLike, prediction: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64 arrays.

    Raises:
        SettingsError: they are not one-dimensional, differ in length, are empty, or hold NaN or infinity.
    """
    y, p = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    if y.ndim != 1 or y.shape != p.shape or y.size == 0:
        raise SettingsError(
            f"truth has the shape {y.shape} and prediction {p.shape}; expected two arrays of one length, (n,), n > 0."
        )
    if not (np.isfinite(y).all() and np.isfinite(p).all()):
        raise SettingsError(
            f"{int((~np.isfinite(y)).sum())} of truth and {int((~np.isfinite(p)).sum())} of prediction are NaN or "
            "infinite; leave those clips out, or find out why they are."
        )
    return y, p


def mse(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Mean squared error, in squared rating points: mean((prediction - truth)^2).

    >>> mse([1, 2, 3], [1, 2, 5])
    1.3333333333333333
    """
    y, p = validate(truth, prediction)
    return float(np.mean((p - y) ** 2))


def mae(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Mean absolute error, in rating points: mean(|prediction - truth|).

    >>> mae([1, 2, 3], [1, 2, 5])
    0.6666666666666666
    """
    y, p = validate(truth, prediction)
    return float(np.mean(np.abs(p - y)))


def pearson_r(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Pearson's product-moment correlation, in [-1, 1]; 0 where either side is constant.

    A constant prediction carries no information on the order of the clips, so 0 is its score, where
    the formula itself is undefined.

    >>> round(pearson_r([1, 2, 3], [1, 2, 5]), 6)
    0.960769
    """
    y, p = validate(truth, prediction)
    if not (_varies(y) and _varies(p)):
        return 0.0
    covariance = np.mean((y - y.mean()) * (p - p.mean()))
    return float(np.clip(covariance / (y.std() * p.std()), -1.0, 1.0))


def ccc(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Lin's concordance correlation coefficient, in [-1, 1], with population variances.

    2 cov(y, p) / (var y + var p + (mean y - mean p)^2); 1 only where prediction equals truth. Lin, L. I.
    (1989), "A concordance correlation coefficient to evaluate reproducibility", Biometrics 45, 255-268.
    Where both sides are constant and equal it is 1.

    >>> round(ccc([1, 2, 3], [1, 2, 5]), 6)
    0.666667
    """
    y, p = validate(truth, prediction)
    if np.array_equal(y, p):
        return 1.0
    if not (_varies(y) and _varies(p)):
        return 0.0
    covariance = np.mean((y - y.mean()) * (p - p.mean()))
    return float(2 * covariance / (y.var() + p.var() + (y.mean() - p.mean()) ** 2))


def r2(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Coefficient of determination, 1 or less: 1 - sum((truth - prediction)^2) / sum((truth - mean truth)^2).

    0 is what predicting the mean of these very clips would score. Where the truth is constant it is 1 for exact predictions
    and 0 for others, as scikit-learn has it.

    >>> r2([1, 2, 3], [1, 2, 5])
    -1.0
    """
    y, p = validate(truth, prediction)
    if not _varies(y):
        return float(np.array_equal(y, p))
    return float(1 - np.sum((y - p) ** 2) / np.sum((y - y.mean()) ** 2))


def sd_ratio(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Population standard deviation of the predictions over that of the truth, 0 or more; 0 where the truth is constant.

    Below 1, predictions crowd around their mean.

    >>> round(sd_ratio([1, 2, 3], [1, 2, 5]), 6)
    2.081666
    """
    y, p = validate(truth, prediction)
    return float(p.std() / y.std()) if _varies(y) else 0.0


def _varies(values: NDArray[np.float64]) -> bool:
    # Not by the variance, which rounding leaves a little above 0 for a constant.
    return bool(np.ptp(values) > 0)


METRICS = {"mse": mse, "mae": mae, "pearson_r": pearson_r, "ccc": ccc, "r2": r2, "sd_ratio": sd_ratio}
LOWER_IS_BETTER = ("mse", "mae")
HIGHER_IS_BETTER = ("pearson_r", "ccc", "r2")
