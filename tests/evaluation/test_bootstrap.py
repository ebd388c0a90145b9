"""The bootstrap: against explicit resampling and scipy's, intervals, comparisons, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from valence_lib.errors import SettingsError
from valence_lib.evaluation.bootstrap import (
    Comparison,
    Resampling,
    compare,
    corrected,
    effective_number,
    groups_of,
    interval,
    score,
    standard_error,
)
from valence_lib.evaluation.metrics import METRICS

every_order = pytest.mark.parametrize("metric", ["mse", "mae", "pearson_r", "ccc", "r2"])


def _clustered(speakers=12, clips=10):
    """Ratings, predictions and speakers; the errors of one speaker's clips are alike."""
    generator = np.random.default_rng(0)
    speaker = np.repeat([f"S{number:02d}" for number in range(speakers)], clips)
    truth = generator.uniform(1, 5, speakers * clips)
    error = np.repeat(generator.normal(0, 0.8, speakers), clips) + generator.normal(0, 0.3, truth.size)
    return truth, 3 + 0.6 * (truth - 3) + error, speaker


TRUTH, PREDICTION, SPEAKER = _clustered()
RESAMPLING = Resampling(SPEAKER)
GENERATOR = np.random.default_rng(9)
GOOD = TRUTH + GENERATOR.normal(0, 0.2, TRUTH.size)
BAD = 3 + 0.3 * (TRUTH - 3) + GENERATOR.normal(0, 0.8, TRUTH.size)


@pytest.mark.parametrize("by", ["speaker", "clip"])
def test_a_resample_scores_as_its_clips_repeated(by):
    # Groups in no order, and of unlike sizes.
    order = np.random.default_rng(1).permutation(TRUTH.size)[:101]
    truth, prediction = TRUTH[order], PREDICTION[order]
    groups = SPEAKER[order] if by == "speaker" else np.arange(101)
    resampling = Resampling(groups, seed=3, resamples=40)
    found = resampling.scores(truth, prediction)
    names = np.unique(groups)
    for number, weights in enumerate(resampling.weights.astype(int)):
        assert weights.sum() == len(names)
        clips = np.concatenate([np.flatnonzero(groups == name) for name in np.repeat(names, weights)])
        for metric, function in METRICS.items():
            assert found[metric][number] == pytest.approx(function(truth[clips], prediction[clips]), abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_the_bootstrap_equals_scipys_on_unclustered_clips(metric):
    generator = np.random.default_rng(5)
    truth = generator.uniform(1, 5, 150)
    prediction = 3 + 0.5 * (truth - 3) + generator.normal(0, 0.6, 150)
    resampled = Resampling(np.arange(150), resamples=8000).scores(truth, prediction)[metric]
    theirs = stats.bootstrap(
        (truth, prediction),
        METRICS[metric],
        paired=True,
        vectorized=False,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    low, high = theirs.confidence_interval
    assert np.quantile(resampled, [0.025, 0.975]) == pytest.approx([low, high], abs=0.06 * (high - low))
    assert standard_error(resampled, 150) == pytest.approx(theirs.standard_error, rel=0.05)
    # With many clips, Student's interval is close to the percentiles.
    ours = interval(METRICS[metric](truth, prediction), resampled, 150, metric)
    assert ours == pytest.approx([low, high], abs=0.12 * (high - low))


def test_interval_by_hand():
    resampled = np.array([1.0, 2.0, 4.0])  # sample variance 7/3
    half = stats.t.ppf(0.975, 4) * np.sqrt(7 / 3) * np.sqrt(5 / 4)
    assert interval(2.0, resampled, 5) == pytest.approx([2 - half, 2 + half])
    # On the logarithms, 0, 1 and 2 times log 2, whose sample deviation is log 2.
    factor = np.exp(stats.t.ppf(0.975, 4) * np.log(2) * np.sqrt(5 / 4))
    assert interval(2.0, resampled, 5, "mse") == pytest.approx([2 / factor, 2 * factor])


@pytest.mark.slow
@pytest.mark.parametrize(("speakers", "unlike"), [(3, 0.1), (12, 0.3), (15, 0.3), (18, 0.3)])
def test_intervals_contain_the_true_value_in_95_percent(speakers, unlike):
    # Speakers differ in number of clips, bias and slope; so do two trainings of one model, a little.
    def draw(generator, n):
        sizes = np.exp(generator.normal(3.7, unlike, n)).astype(int) + 1
        speaker = np.repeat(np.arange(n), sizes)
        truth = generator.normal(0, 0.8, speaker.size) + generator.normal(0, 0.15, n)[speaker]
        slope = 0.45 + generator.normal(0, 0.12, n)[speaker]
        noise = generator.normal(0, 0.25, n)[speaker] + generator.normal(0, 0.3, speaker.size)
        trained = [
            generator.normal(0, 0.08, n)[speaker] + generator.normal(0, 0.25, speaker.size) for _ in range(2)
        ]
        return truth, *(slope * truth + noise + own for own in trained), speaker

    truth, one, _, _ = draw(np.random.default_rng(1), 40_000)
    true = {metric: METRICS[metric](truth, one) for metric in ("mse", "ccc")}
    apart = {metric: true[metric] - METRICS[metric](truth, 0.5 * one) for metric in ("mse", "ccc")}
    inside = {(metric, what): 0 for metric in true for what in ("score", "difference", "tie")}
    for seed in range(1500):
        truth, one, two, speaker = draw(np.random.default_rng([2, seed]), speakers)
        resampling = Resampling(speaker, resamples=1000)
        intervals = score(truth, one, resampling)["intervals"]
        for metric in true:
            low, high = intervals[metric]
            inside[metric, "score"] += low <= true[metric] <= high
            found = compare(truth, one, 0.5 * one, resampling, metric)
            inside[metric, "difference"] += found.low <= apart[metric] <= found.high
            inside[metric, "tie"] += compare(truth, one, two, resampling, metric).verdict == "tie"
    for (_, what), count in inside.items():
        # The difference of models as unlike as these two is skewed.
        assert (0.92 if what == "difference" else 0.93) <= count / 1500 <= 0.97, inside


@pytest.mark.parametrize(
    ("sizes", "expected"),
    # (50 + 50 + 25)^2 / (50^2 + 50^2 + 25^2) = 15625 / 5625
    [([20] * 6, 6), ([50, 50, 25], 15625 / 5625), ([1] * 40, 40), ([1000, 1, 1], 2)],
)
def test_the_effective_number_of_speakers(sizes, expected):
    assert effective_number(sizes) == pytest.approx(expected)


def test_many_groups_are_merged_with_the_same_spread():
    generator = np.random.default_rng(5)
    truth = generator.uniform(1, 5, 9000)
    prediction = truth + generator.normal(0.2, 0.8, 9000)
    resampling = Resampling(np.arange(9000))
    assert resampling.weights.shape == (2000, 2000)
    assert set(np.bincount(resampling.group)) == {4, 5}
    found = resampling.scores(truth, prediction)
    chosen = generator.integers(0, 9000, (1000, 9000))
    for metric, function in METRICS.items():
        one_by_one = np.std([function(truth[rows], prediction[rows]) for rows in chosen])
        assert found[metric].std() == pytest.approx(one_by_one, rel=0.1)


def test_score_averages_over_seeds_with_intervals_of_that_average():
    other = 6 - PREDICTION
    row = score(TRUTH, [PREDICTION, other], RESAMPLING)
    assert list(row) == ["n", *METRICS, "intervals"]
    assert row["n"] == 120
    first, second = RESAMPLING.scores(TRUTH, PREDICTION), RESAMPLING.scores(TRUTH, other)
    single = score(TRUTH, PREDICTION, RESAMPLING)
    for metric, function in METRICS.items():
        assert row[metric] == pytest.approx((function(TRUTH, PREDICTION) + function(TRUTH, other)) / 2)
        averaged = (first[metric] + second[metric]) / 2
        assert row["intervals"][metric] == pytest.approx(interval(row[metric], averaged, 12, metric))
        low, high = single["intervals"][metric]
        assert low < single[metric] == function(TRUTH, PREDICTION) < high


def test_speakers_may_be_given_as_names_or_not_at_all():
    assert score(TRUTH, PREDICTION, SPEAKER) == score(TRUTH, PREDICTION, RESAMPLING)
    assert score(TRUTH, PREDICTION) == score(TRUTH, PREDICTION, Resampling(np.arange(TRUTH.size)))
    assert compare(TRUTH, GOOD, BAD, list(SPEAKER)) == compare(TRUTH, [GOOD, GOOD], [BAD], RESAMPLING)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TRUTH, PREDICTION[1:]), r"truth has the shape \(120,\) and prediction \(119,\)"),
        ((TRUTH, np.where(TRUTH > 4.9, np.nan, 1)), "0 of truth and 4 of prediction are NaN or infinite"),
        ((TRUTH, PREDICTION, SPEAKER[1:]), r"truth has the shape \(120,\) and speakers \(119,\)"),
        ((TRUTH, PREDICTION, [None, *SPEAKER[1:]]), "without NaN"),
        ((TRUTH, PREDICTION, ["A"] * 120), "two speakers or more"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments, message):
    with pytest.raises(SettingsError, match=message):
        score(*arguments)


@every_order
def test_the_nearer_prediction_is_better_and_the_other_worse(metric):
    ahead = compare(TRUTH, GOOD, BAD, RESAMPLING, metric)
    behind = compare(TRUTH, BAD, GOOD, RESAMPLING, metric)
    assert (ahead.verdict, behind.verdict) == ("better", "worse")
    expected = METRICS[metric](TRUTH, GOOD) - METRICS[metric](TRUTH, BAD)
    assert ahead.difference == pytest.approx(expected, rel=1e-12)
    assert ahead.low < ahead.difference < ahead.high
    mirrored = behind.difference, behind.low, behind.high
    assert mirrored == pytest.approx((-ahead.difference, -ahead.high, -ahead.low))


@every_order
def test_identical_predictions_tie_with_no_difference(metric):
    same = compare(TRUTH, GOOD, GOOD.copy(), RESAMPLING, metric)
    assert (same.difference, same.low, same.high, same.p, same.verdict) == (0.0, 0.0, 0.0, 1.0, "tie")


@pytest.mark.parametrize("metric", ["rmse", "sd_ratio"])
def test_compare_refuses_an_unknown_metric(metric):
    with pytest.raises(SettingsError, match=f"'{metric}'; expected one of mse, mae, pearson_r, ccc, r2"):
        compare([1, 2], [1, 2], [1, 2], metric=metric)


def test_p_is_students():
    found = compare(TRUTH, GOOD, 0.9 * GOOD + 0.1 * BAD, RESAMPLING)
    error = (found.high - found.low) / 2 / stats.t.ppf(0.975, 11)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.difference) / error, 11), rel=1e-6)
    assert found.p == found.p_holm


def test_verdicts_are_corrected_as_holm_does():
    made = [Comparison(-0.1, -0.2, 0.0, p, p, "better") for p in (0.03, 0.01, 0.031, 0.5)]
    after = corrected("mse", made)
    # Sorted: 0.01 * 4, 0.03 * 3, then 0.031 * 2, which counts for no less than the one before, and 0.5 * 1.
    assert [one.p_holm for one in after] == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert [one.verdict for one in after] == ["tie", "better", "tie", "tie"]
    assert [one.verdict for one in corrected("ccc", made)] == ["tie", "worse", "tie", "tie"]
    assert [one.p for one in after] == [0.03, 0.01, 0.031, 0.5]
    assert corrected("mse", []) == []


@pytest.mark.parametrize(
    ("speakers", "drawn"),
    [(["A", "B", "A"], "speaker"), (["A", "", "B"], "clip"), (["", "", ""], "clip"), (["A"] * 3, "clip")],
)
def test_speakers_are_drawn_where_all_and_two_are_named(speakers, drawn):
    groups, by = groups_of(pd.DataFrame({"id": ["x", "y", "z"], "speaker": speakers}))
    assert by == drawn
    assert groups.tolist() == (speakers if drawn == "speaker" else ["x", "y", "z"])
