"""Metrics: against hand computation, scipy and scikit-learn; constants; refusals."""

import doctest

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from valence_lib import metrics
from valence_lib.errors import SettingsError
from valence_lib.metrics import (
    HIGHER_IS_BETTER,
    LOWER_IS_BETTER,
    METRICS,
    ccc,
    mae,
    mse,
    pearson_r,
    r2,
    sd_ratio,
    validate,
)

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform(1, 5, 200)
PREDICTION = 0.5 * TRUTH + RNG.normal(1, 0.7, 200)


def test_doctests():
    found = doctest.testmod(metrics)
    assert found.attempted >= 4
    assert found.failed == 0


def test_registry_holds_the_metrics_by_name():
    assert list(METRICS.values()) == [mse, mae, pearson_r, ccc, r2, sd_ratio]
    assert all(function.__name__ == name for name, function in METRICS.items())
    assert set(METRICS) == {*LOWER_IS_BETTER, *HIGHER_IS_BETTER, "sd_ratio"}


def test_r2_equals_scikit_learns_also_where_the_truth_is_constant():
    assert r2(TRUTH, PREDICTION) == pytest.approx(r2_score(TRUTH, PREDICTION), rel=1e-12)
    assert (r2([2, 2], [2, 2]), r2([2, 2], [2, 3])) == (r2_score([2, 2], [2, 2]), r2_score([2, 2], [2, 3]))


def test_sd_ratio_is_that_of_population_deviations():
    assert sd_ratio(TRUTH, PREDICTION) == pytest.approx(np.std(PREDICTION) / np.std(TRUTH), rel=1e-12)
    assert sd_ratio([2, 2], [1, 3]) == 0.0


def test_errors_equal_scikit_learns():
    assert mse(TRUTH, PREDICTION) == pytest.approx(mean_squared_error(TRUTH, PREDICTION), rel=1e-12)
    assert mae(TRUTH, PREDICTION) == pytest.approx(mean_absolute_error(TRUTH, PREDICTION), rel=1e-12)


def test_pearson_r_equals_scipys():
    assert pearson_r(TRUTH, PREDICTION) == pytest.approx(stats.pearsonr(TRUTH, PREDICTION)[0], rel=1e-12)


def test_ccc_by_hand_is_of_the_population_variances():
    # Means 2.5 and 4, variances 5/4 and 5 (sample: 5/3 and 20/3), covariance 5/2 (sample: 10/3), so
    # 2 * 2.5 / (1.25 + 5 + 1.5^2) = 5 / 8.5; with sample moments it were (20/3) / (25/3 + 9/4) = 80/127.
    value = ccc([1, 2, 3, 4], [1, 3, 5, 7])
    assert value == pytest.approx(5 / 8.5, rel=1e-12)
    assert value != pytest.approx(80 / 127, abs=0.01)


def test_ccc_is_pearson_r_times_the_bias_correction():
    # Lin (1989), equation (5): ccc = r * C_b, C_b = 2 / (v + 1/v + u^2), with v the ratio of the standard
    # deviations and u the difference of the means over the root of their product.
    v = TRUTH.std() / PREDICTION.std()
    u = (TRUTH.mean() - PREDICTION.mean()) / np.sqrt(TRUTH.std() * PREDICTION.std())
    expected = stats.pearsonr(TRUTH, PREDICTION)[0] * 2 / (v + 1 / v + u**2)
    assert ccc(TRUTH, PREDICTION) == pytest.approx(expected, rel=1e-12)


def test_ccc_is_symmetric_and_sees_shifts_that_r_does_not():
    assert ccc(TRUTH, PREDICTION) == pytest.approx(ccc(PREDICTION, TRUTH), rel=1e-12)
    assert pearson_r(TRUTH, TRUTH + 1) == pytest.approx(1.0)
    assert ccc(TRUTH, TRUTH + 1) == pytest.approx(2 * TRUTH.var() / (2 * TRUTH.var() + 1), rel=1e-12)
    assert ccc(TRUTH, 6 - TRUTH) < 0


@pytest.mark.parametrize("constant", [3.0, 0.1, 1 / 3])
def test_a_constant_prediction_scores_zero_correlation(constant):
    # The variance of 200 times 0.1 is not exactly 0 in floating point.
    prediction = np.full(200, constant)
    assert pearson_r(TRUTH, prediction) == 0.0
    assert ccc(TRUTH, prediction) == 0.0
    assert pearson_r(prediction, TRUTH) == 0.0
    assert ccc(prediction, TRUTH) == 0.0


def test_ccc_of_constants():
    assert ccc([2, 2, 2], [2, 2, 2]) == 1.0
    assert ccc([2, 2, 2], [3, 3, 3]) == 0.0
    assert ccc([2], [2]) == 1.0
    assert ccc([2], [3]) == 0.0


def test_perfect_and_opposite_predictions_stay_within_bounds():
    values = RNG.normal(0, 1e-3, 1000)
    assert pearson_r(values, 7 * values) <= 1.0
    assert pearson_r(values, 7 * values) == pytest.approx(1.0)
    assert pearson_r(values, -7 * values) >= -1.0
    assert ccc(values, values) == 1.0
    assert (mse(values, values), mae(values, values)) == (0.0, 0.0)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_values_are_plain_floats_also_of_lists_and_float32(metric):
    assert type(metric([1, 2, 3], [1, 2, 4])) is float
    single = metric(TRUTH.astype(np.float32), PREDICTION.astype(np.float32))
    assert type(single) is float
    assert single == pytest.approx(metric(TRUTH, PREDICTION), abs=1e-5)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(
    ("truth", "prediction", "said"),
    [
        ([1, 2, 3], [1, 2], r"truth has the shape \(3,\) and prediction \(2,\)"),
        ([], [], r"expected two arrays of one length, \(n,\), n > 0"),
        ([[1], [2]], [[1], [2]], r"shape \(2, 1\)"),
        (1.0, 1.0, r"shape \(\)"),
        ([1, np.nan, np.nan], [1, 2, 3], "2 of truth and 0 of prediction are NaN or infinite"),
        ([1, 2, 3], [1, np.inf, 3], "0 of truth and 1 of prediction are NaN or infinite"),
    ],
)
def test_what_cannot_be_scored_is_refused(metric, truth, prediction, said):
    with pytest.raises(SettingsError, match=said):
        metric(truth, prediction)


def test_validate_gives_doubles_and_leaves_its_input_alone():
    given = [1, 2, 3]
    y, p = validate(given, np.float32([1, 2, 3]))
    assert (y.dtype, p.dtype) == (np.float64, np.float64)
    assert given == [1, 2, 3]
