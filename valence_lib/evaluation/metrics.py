"""Scores of predictions: MSE, MAE, Pearson's r, CCC, R², and the ratio of standard deviations.

Every metric takes `truth` and `prediction` [shape=(n,)], finite and of one length, and returns a float.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from valence_lib.errors import SettingsError

Array = NDArray[np.float64]


def validate(truth: ArrayLike, prediction: ArrayLike) -> tuple[Array, Array]:
    """Both as float64 arrays.

    Raises:
        SettingsError: they are not one-dimensional, differ in length, are empty, or hold NaN or infinity.
    """
    y, p = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    if y.ndim != 1 or y.shape != p.shape or y.size == 0:
        raise SettingsError(
            f"truth has the shape {y.shape} and prediction {p.shape}; expected two arrays of one length, "
            "(n,), n > 0."
        )
    bad_y, bad_p = int((~np.isfinite(y)).sum()), int((~np.isfinite(p)).sum())
    if bad_y or bad_p:
        raise SettingsError(
            f"{bad_y} of truth and {bad_p} of prediction are NaN or infinite; remove those clips, or find "
            "out why they are."
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
    """Mean absolute error, in rating points: mean(|prediction - truth|)."""
    y, p = validate(truth, prediction)
    return float(np.mean(np.abs(p - y)))


def pearson_r(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Pearson's product-moment correlation, in [-1, 1]; 0 where either side is constant."""
    y, p = validate(truth, prediction)
    shared = covariance(y, p)
    return float(np.clip(shared / (y.std() * p.std()), -1.0, 1.0)) if shared else 0.0


def ccc(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Lin's concordance correlation coefficient, in [-1, 1], from population moments: see `concordance`.

    1 only where prediction equals truth; 0 where either side is constant, unless both are equal.

    >>> round(ccc([1, 2, 3], [1, 2, 5]), 6)
    0.666667
    """
    y, p = validate(truth, prediction)
    if np.array_equal(y, p):
        return 1.0
    return float(concordance(covariance(y, p), y.var(), p.var(), y.mean() - p.mean()))


def r2(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Coefficient of determination, 1 or less: 1 - sum((truth - prediction)^2) / sum((truth - mean truth)^2).

    Where the truth is constant it is 1 for exact predictions and 0 for others, as in scikit-learn.
    """
    y, p = validate(truth, prediction)
    if not _varies(y):
        return float(np.array_equal(y, p))
    return float(1 - np.sum((y - p) ** 2) / np.sum((y - y.mean()) ** 2))


def sd_ratio(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Standard deviation of the predictions over that of the truth; 0 where the truth is constant."""
    y, p = validate(truth, prediction)
    return float(p.std() / y.std()) if _varies(y) else 0.0


def covariance(y: Array, p: Array) -> float:
    """Population covariance, exactly 0 where either side is constant."""
    return float(np.mean((y - y.mean()) * (p - p.mean()))) if _varies(y) and _varies(p) else 0.0


def concordance(
    covariance: Any, variance_y: Any, variance_p: Any, bias: Any, negligible: float = 0.0
) -> Array:
    """Lin's CCC, elementwise: 2 covariance / (variance_y + variance_p + bias^2).

    Lin, L. I. (1989), "A concordance correlation coefficient to evaluate reproducibility", Biometrics 45,
    255-268. 0 where the denominator is `negligible` or less.
    """
    spread = np.asarray(variance_y + variance_p + bias**2)
    return np.divide(2 * covariance, spread, out=np.zeros_like(spread), where=spread > negligible)


def _varies(values: Array) -> bool:
    # Not by the variance: rounding makes that of a constant a little more than 0.
    return bool(np.ptp(values) > 0)


METRICS = {"mse": mse, "mae": mae, "pearson_r": pearson_r, "ccc": ccc, "r2": r2, "sd_ratio": sd_ratio}
LOWER_IS_BETTER = ("mse", "mae")
