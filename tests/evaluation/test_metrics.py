"""Metrics: against hand computation, scipy and scikit-learn; constants; refusals."""

import doctest

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from valence_lib.errors import SettingsError
from valence_lib.evaluation import metrics
from valence_lib.evaluation.metrics import METRICS, ccc, mae, mse, pearson_r, r2, sd_ratio

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform(1, 5, 200)
PREDICTION = 0.5 * TRUTH + RNG.normal(1, 0.7, 200)


def test_doctests():
    assert doctest.testmod(metrics) == (0, 2)  # failed and attempted


@pytest.mark.parametrize(
    ("metric", "theirs"),
    [
        (mse, mean_squared_error),
        (mae, mean_absolute_error),
        (r2, r2_score),
        (pearson_r, lambda y, p: stats.pearsonr(y, p)[0]),
        (sd_ratio, lambda y, p: np.std(p) / np.std(y)),
    ],
)
def test_values_equal_scikit_learns_scipys_and_numpys(metric, theirs):
    assert metric(TRUTH, PREDICTION) == pytest.approx(theirs(TRUTH, PREDICTION), rel=1e-12)


def test_a_constant_truth():
    assert (r2([2, 2], [2, 2]), r2([2, 2], [2, 3]), sd_ratio([2, 2], [1, 3])) == (1, 0, 0)


def test_ccc_by_hand_is_of_the_population_variances():
    # Means 2.5 and 4, variances 5/4 and 5, covariance 5/2.
    assert ccc([1, 2, 3, 4], [1, 3, 5, 7]) == pytest.approx(5 / 8.5, rel=1e-12)


def test_ccc_is_symmetric_and_depends_on_shifts_unlike_r():
    assert ccc(TRUTH, PREDICTION) == pytest.approx(ccc(PREDICTION, TRUTH), rel=1e-12)
    assert pearson_r(TRUTH, TRUTH + 1) == pytest.approx(1.0)
    assert ccc(TRUTH, TRUTH + 1) == pytest.approx(2 * TRUTH.var() / (2 * TRUTH.var() + 1), rel=1e-12)
    assert ccc(TRUTH, 6 - TRUTH) < 0


@pytest.mark.parametrize("constant", [3.0, 0.1, 1 / 3])
def test_a_constant_prediction_scores_zero_correlation(constant):
    # The variance of 200 times 0.1 is not exactly 0 in floating point.
    prediction = np.full(200, constant)
    for metric in (pearson_r, ccc):
        assert metric(TRUTH, prediction) == metric(prediction, TRUTH) == 0.0


def test_ccc_of_constants():
    assert ccc([2, 2, 2], [2, 2, 2]) == ccc([2], [2]) == 1.0
    assert ccc([2, 2, 2], [3, 3, 3]) == ccc([2], [3]) == 0.0


def test_perfect_and_opposite_predictions_stay_within_bounds():
    values = RNG.normal(0, 1e-3, 1000)
    assert 1 - 1e-9 < pearson_r(values, 7 * values) <= 1.0
    assert -1.0 <= pearson_r(values, -7 * values) < 1e-9 - 1


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_values_are_plain_floats_also_of_lists_and_float32(metric):
    assert type(metric([1, 2, 3], [1, 2, 4])) is float
    single = metric(TRUTH.astype(np.float32), PREDICTION.astype(np.float32))
    assert type(single) is float
    assert single == pytest.approx(metric(TRUTH, PREDICTION), abs=1e-5)


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([1, 2, 3], [1, 2], r"truth has the shape \(3,\) and prediction \(2,\)"),
        ([], [], r"expected two arrays of one length, \(n,\), n > 0"),
        ([[1], [2]], [[1], [2]], r"shape \(2, 1\)"),
        (1.0, 1.0, r"shape \(\)"),
        ([1, np.nan, np.nan], [1, 2, 3], "2 of truth and 0 of prediction are NaN or infinite"),
        ([1, 2, 3], [1, np.inf, 3], "0 of truth and 1 of prediction are NaN or infinite"),
    ],
)
def test_what_cannot_be_scored_is_refused(truth, prediction, message):
    for metric in METRICS.values():
        with pytest.raises(SettingsError, match=message):
            metric(truth, prediction)
