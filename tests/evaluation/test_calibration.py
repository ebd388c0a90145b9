"""Calibration: slopes, the frontier and its optima, and prediction intervals."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from valence_lib.errors import RunError, SettingsError
from valence_lib.evaluation.bootstrap import Resampling
from valence_lib.evaluation.calibration import (
    calibrate,
    coverage,
    frontier,
    half_width,
    half_width_of_run,
    intervals_of_clips,
    optima,
    slope_interval,
)

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform(1, 5, 400)
PREDICTION = 2 + 0.4 * (TRUTH - 3) + RNG.normal(0, 0.5, 400)


def test_slopes_are_scipys():
    found = calibrate(TRUTH, PREDICTION)
    fitted = stats.linregress(PREDICTION, TRUTH)
    assert (found["slope"], found["intercept"]) == pytest.approx((fitted.slope, fitted.intercept))
    assert found["kept"] == pytest.approx(stats.linregress(TRUTH, PREDICTION).slope)
    assert found["bias"] == pytest.approx(np.mean(PREDICTION - TRUTH))


def test_the_slopes_interval_is_that_of_least_squares():
    # Errors are alike everywhere here, so that the bootstrap over clips finds what the usual formula does.
    low, high = slope_interval(PREDICTION, TRUTH, Resampling(np.arange(400)))
    fitted = stats.linregress(TRUTH, PREDICTION)
    half = stats.t.ppf(0.975, 399) * fitted.stderr
    assert (low, high) == pytest.approx((fitted.slope - half, fitted.slope + half), abs=0.1 * half)
    assert slope_interval(TRUTH, np.full(400, 2.0), Resampling(np.arange(400))) == [0, 0]


def test_the_optima_are_those_of_the_frontier():
    curve, best = frontier(TRUTH, PREDICTION), optima(TRUTH, PREDICTION)
    assert best["mse"]["mse"] <= curve["mse"].min()
    assert best["ccc"]["ccc"] >= curve["ccc"].max()
    step = curve["scale"][1] - curve["scale"][0]
    assert best["mse"]["scale"] == pytest.approx(curve["scale"][curve["mse"].idxmin()], abs=step)
    assert best["ccc"]["scale"] == pytest.approx(curve["scale"][curve["ccc"].idxmax()], abs=step)


@pytest.mark.parametrize("constant", [0.1, 1 / 3, 2.6])
def test_a_constant_or_a_wrong_direction_is_best_at_its_mean(constant):
    # In floating point, the mean of 400 thirds is not exactly a third.
    prediction = np.full(400, constant)
    for best in (optima(TRUTH, prediction), optima(TRUTH, 6 - TRUTH)):
        assert best["mse"]["scale"] == best["ccc"]["scale"] == 0
    assert calibrate(TRUTH, prediction)["kept"] == calibrate(prediction, TRUTH)["slope"] == 0


def test_the_optima_by_hand():
    # Means 2 and 1, variances 2/3 and 8/3, covariance 4/3.
    best = optima([1, 2, 3], [-1, 1, 3])
    assert best["mse"] == pytest.approx({"scale": 0.5, "mse": 1.0, "ccc": 2 * 2 / 3 / (4 / 3 + 1)})
    assert best["ccc"]["scale"] == pytest.approx(np.sqrt((2 / 3 + 1) / (8 / 3)))


ERRORS = [-4.0, 1.0, 2.0, -3.0, 0.0, 5.0, 6.0, 7.0, 8.0]


def test_the_half_width_by_hand():
    assert half_width(ERRORS, 0.5) == 4.0  # rank 5 of nine
    assert half_width(ERRORS, 0.9) == 8.0  # rank 9
    assert half_width(np.arange(1, 100), 0.55) == 55  # 100 * 0.55 is a little above 55 in floating point


@pytest.mark.parametrize(
    ("errors", "confidence", "message"),
    [
        (ERRORS, 0.95, "9 held-out clips are too few for an interval of 95 %; expected at least 19"),
        (ERRORS[:8], 0.9, "8 held-out clips are too few for an interval of 90 %; expected at least 9"),
        (ERRORS, 9.0, "interval of 900 % was requested"),
    ],
)
def test_a_half_width_that_cannot_be_computed_is_refused(errors, confidence, message):
    with pytest.raises(SettingsError, match=message):
        half_width(errors, confidence)


def test_the_half_width_of_a_run_is_that_of_its_tested_clips(tmp_path):
    with pytest.raises(RunError, match=r"no predictions\.csv"):
        half_width_of_run(tmp_path)
    subsets = ["validation"] * 9 + ["test"] * 9
    table = pd.DataFrame({"subset": subsets, "truth": 3.0, "prediction": [9.0] * 9 + [3 + e for e in ERRORS]})
    table.to_csv(tmp_path / "predictions.csv")
    assert half_width_of_run(tmp_path) == 8.0


def test_the_interval_of_a_speaker_is_not_from_their_own_clips():
    speaker = np.repeat(list("ABCD"), 100)
    before = intervals_of_clips(TRUTH, PREDICTION, speaker)
    worse = np.where(speaker == "A", PREDICTION + 3, PREDICTION)
    after = intervals_of_clips(TRUTH, worse, speaker)
    assert (after[:100] == before[:100]).all()
    assert (after[100:] > before[100:]).all()


def test_coverage_is_the_share_within_the_intervals():
    speaker = np.repeat(list("ABCD"), 100)
    found = coverage(TRUTH, PREDICTION, speaker)
    halves = intervals_of_clips(TRUTH, PREDICTION, speaker)
    assert found["coverage"] == np.mean(np.abs(PREDICTION - TRUTH) <= halves)
    assert found["width"] == pytest.approx(2 * halves.mean())
    assert found["interval"][0] < found["coverage"] < found["interval"][1] <= 1
    inside = (np.abs(PREDICTION - TRUTH) <= halves)[np.argsort(TRUTH)]
    assert (found["lowest"], found["highest"]) == (inside[:80].mean(), inside[-80:].mean())


@pytest.mark.slow
@pytest.mark.parametrize("speakers", [15, 18])
@pytest.mark.parametrize(("bias", "scatter"), [(0.25, 0.2), (0.4, 0.35)])
def test_intervals_cover_new_speakers(speakers, bias, scatter):
    # Speakers differ in bias, scatter and number of clips.
    def errors(generator, speakers):
        speaker = np.repeat(np.arange(speakers), np.exp(generator.normal(3.6, 0.4, speakers)).astype(int) + 1)
        widths = 0.6 * np.exp(generator.normal(0, scatter, speakers))
        return generator.normal(generator.normal(0, bias, speakers)[speaker], widths[speaker]), speaker

    covered, by_others = [], []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        known, speaker = errors(generator, speakers)
        covered.append((np.abs(errors(generator, 40)[0]) <= half_width(known)).mean())
        inside = np.abs(known) <= intervals_of_clips(np.zeros(known.size), known, speaker)
        by_others.append(inside.mean())
    assert 0.87 <= np.mean(covered) <= 0.93
    assert 0.87 <= np.mean(by_others) <= 0.93
