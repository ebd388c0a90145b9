"""Evaluation: the bootstrap against explicit resampling and scipy's, comparisons, raters, groups, rows."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from valence_lib.errors import SettingsError
from valence_lib.evaluation import (
    Comparison,
    Resampling,
    compare,
    corrected,
    errors_at_extremes,
    errors_by_group,
    groups_of,
    interval,
    score,
    standard_error,
)
from valence_lib.metrics import HIGHER_IS_BETTER, LOWER_IS_BETTER, METRICS

every_metric = pytest.mark.parametrize("metric", METRICS)
every_order = pytest.mark.parametrize("metric", [*LOWER_IS_BETTER, *HIGHER_IS_BETTER])


def _clustered(seed, speakers=12, clips=10):
    """Ratings, predictions and speakers; a speaker's clips err alike."""
    generator = np.random.default_rng(seed)
    speaker = np.repeat([f"S{number:02d}" for number in range(speakers)], clips)
    truth = generator.uniform(1, 5, speakers * clips)
    error = np.repeat(generator.normal(0, 0.8, speakers), clips) + generator.normal(0, 0.3, truth.size)
    return truth, 3 + 0.6 * (truth - 3) + error, speaker


@every_metric
@pytest.mark.parametrize("by", ["speaker", "clip"])
def test_a_resample_scores_as_its_clips_repeated(metric, by):
    truth, prediction, speaker = _clustered(0)
    # Groups in no order, and of unlike sizes.
    order = np.random.default_rng(1).permutation(truth.size)[:101]
    truth, prediction, speaker = truth[order], prediction[order], speaker[order]
    groups = speaker if by == "speaker" else np.array([f"clip {number}" for number in range(101)])
    resampling = Resampling(groups, seed=3, resamples=40)
    found = resampling.scores(metric, truth, prediction)
    assert found.shape == (40,)
    names = np.unique(groups)
    for value, weights in zip(found, resampling.weights.astype(int), strict=True):
        assert weights.sum() == len(names)
        times = dict(zip(names, weights, strict=True))
        clips = np.concatenate([np.flatnonzero(groups == name) for name in names for _ in range(times[name])])
        assert value == pytest.approx(METRICS[metric](truth[clips], prediction[clips]), abs=1e-9)


@every_metric
def test_the_bootstrap_is_scipys_on_unclustered_clips(metric):
    generator = np.random.default_rng(5)
    truth = generator.uniform(1, 5, 150)
    prediction = 3 + 0.5 * (truth - 3) + generator.normal(0, 0.6, 150)
    resampled = Resampling(np.arange(150), seed=0, resamples=8000).scores(metric, truth, prediction)
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
    # With many clips, Student's interval and the percentiles are nearly one.
    ours = interval(METRICS[metric](truth, prediction), resampled, 150, metric)
    assert ours == pytest.approx([low, high], abs=0.12 * (high - low))


def test_interval_by_hand():
    resampled = np.array([1.0, 2.0, 4.0])  # sample variance 7/3
    half = stats.t.ppf(0.975, 4) * np.sqrt(7 / 3) * np.sqrt(5 / 4)
    assert interval(2.0, resampled, 5) == pytest.approx([2 - half, 2 + half])
    # On the logarithms, 0, 1 and 2 times log 2, whose sample deviation is log 2.
    factor = np.exp(stats.t.ppf(0.975, 4) * np.log(2) * np.sqrt(5 / 4))
    assert interval(2.0, resampled, 5, "mse") == pytest.approx([2 / factor, 2 * factor])
    assert all(type(end) is float for end in interval(2.0, resampled, 5))


@pytest.mark.slow
@pytest.mark.parametrize(("speakers", "unlike"), [(3, 0.1), (12, 0.3), (15, 0.3), (18, 0.3)])
def test_intervals_hold_the_true_value_as_often_as_they_say(speakers, unlike):
    # Speakers differ in how many clips they have, in what they are off by, and in how far they are told apart; so do two
    # trainings of one model, a little.
    def draw(generator, n):
        sizes = np.exp(generator.normal(3.7, unlike, n)).astype(int) + 1
        speaker = np.repeat(np.arange(n), sizes)
        truth = generator.normal(0, 0.8, speaker.size) + generator.normal(0, 0.15, n)[speaker]
        slope = 0.45 + generator.normal(0, 0.12, n)[speaker]
        heard = slope * truth + generator.normal(0, 0.25, n)[speaker] + generator.normal(0, 0.3, speaker.size)
        one, two = (
            heard + generator.normal(0, 0.08, n)[speaker] + generator.normal(0, 0.25, speaker.size)
            for _ in range(2)
        )
        return truth, one, two, speaker

    truth, one, _, _ = draw(np.random.default_rng(1), 40_000)
    true = {metric: METRICS[metric](truth, one) for metric in ("mse", "ccc")}
    apart = {metric: true[metric] - METRICS[metric](truth, 0.5 * one) for metric in ("mse", "ccc")}
    held = {(metric, what): 0 for metric in true for what in ("score", "difference", "tie")}
    for seed in range(1500):
        truth, one, two, speaker = draw(np.random.default_rng([2, seed]), speakers)
        resampling = Resampling(speaker, resamples=1000)
        intervals = score(truth, [one], resampling)["intervals"]
        for metric in true:
            low, high = intervals[metric]
            held[metric, "score"] += low <= true[metric] <= high
            found = compare(metric, truth, [one], [0.5 * one], resampling)
            held[metric, "difference"] += found.low <= apart[metric] <= found.high
            held[metric, "tie"] += compare(metric, truth, [one], [two], resampling).verdict == "tie"
    shares = {name: count / 1500 for name, count in held.items()}
    print(speakers, shares)
    for (_, what), share in shares.items():
        # The difference of models as unlike as these two is skewed: a little less is held than is said.
        assert (0.92 if what == "difference" else 0.93) <= share <= 0.97, shares


def test_speakers_with_unlike_numbers_of_clips_tell_less_than_as_many_with_like_ones():
    assert Resampling(np.repeat(list("ABCDEF"), 20)).n_effective == pytest.approx(6)
    # (50 + 50 + 25)^2 / (50^2 + 50^2 + 25^2)
    assert Resampling(np.repeat(list("ABC"), [50, 50, 25])).n_effective == pytest.approx(15625 / 5625)
    assert Resampling(np.arange(40)).n_effective == pytest.approx(40)
    # Never so few that an interval has no end.
    assert Resampling(np.repeat(list("ABC"), [1000, 1, 1])).n_effective == 2
    assert Resampling(["A", "A"]).n_effective == 2


def test_resampling_is_by_its_seed():
    groups = np.arange(30)
    assert np.array_equal(Resampling(groups).weights, Resampling(groups).weights)
    assert not np.array_equal(Resampling(groups).weights, Resampling(groups, seed=1).weights)


@every_metric
def test_many_groups_are_drawn_in_larger_ones_with_the_same_spread(metric):
    generator = np.random.default_rng(5)
    truth = generator.uniform(1, 5, 9000)
    prediction = truth + generator.normal(0.2, 0.8, 9000)
    resampling = Resampling(np.arange(9000))
    assert resampling.weights.shape == (2000, 2000)
    sizes = np.bincount(resampling.group)
    assert (sizes.min(), sizes.max()) == (4, 5)
    spread = resampling.scores(metric, truth, prediction).std()
    chosen = generator.integers(0, 9000, (1000, 9000))
    one_by_one = np.std([METRICS[metric](truth[rows], prediction[rows]) for rows in chosen])
    assert spread == pytest.approx(one_by_one, rel=0.1)


@every_metric
def test_a_constant_prediction_has_finite_scores_in_every_resample(metric):
    truth, _, speaker = _clustered(0)
    found = Resampling(speaker).scores(metric, truth, np.full(truth.size, 3.1))
    assert np.isfinite(found).all()
    if metric in ("pearson_r", "ccc"):
        assert np.abs(found).max() < 1e-6


def test_scores_refuse_what_metrics_refuse():
    with pytest.raises(SettingsError, match="1 of prediction are NaN"):
        Resampling(np.arange(3)).scores("mse", [1, 2, 3], [1, 2, np.nan])


def test_score_averages_over_seeds_and_holds_its_intervals():
    truth, prediction, speaker = _clustered(0)
    other = 6 - prediction
    resampling = Resampling(speaker)
    row = score(truth, [prediction, other], resampling)
    assert list(row) == ["n", *METRICS, "intervals"]
    assert row["n"] == 120
    for metric, function in METRICS.items():
        mean = (function(truth, prediction) + function(truth, other)) / 2
        assert row[metric] == pytest.approx(mean, rel=1e-12)
        averaged = (
            resampling.scores(metric, truth, prediction) + resampling.scores(metric, truth, other)
        ) / 2
        assert row["intervals"][metric] == pytest.approx(interval(row[metric], averaged, 12, metric))
    single = score(truth, [prediction], resampling)
    for metric in METRICS:
        low, high = single["intervals"][metric]
        assert low < single[metric] < high


def _good_and_bad():
    truth, _, speaker = _clustered(0)
    generator = np.random.default_rng(9)
    good = truth + generator.normal(0, 0.2, truth.size)
    bad = 3 + 0.3 * (truth - 3) + generator.normal(0, 0.8, truth.size)
    return truth, good, bad, Resampling(speaker)


@every_order
def test_the_nearer_prediction_is_better_and_the_other_worse(metric):
    truth, good, bad, resampling = _good_and_bad()
    ahead, behind = (
        compare(metric, truth, [good], [bad], resampling),
        compare(metric, truth, [bad], [good], resampling),
    )
    assert (ahead.verdict, behind.verdict) == ("better", "worse")
    expected = METRICS[metric](truth, good) - METRICS[metric](truth, bad)
    assert ahead.difference == pytest.approx(expected, rel=1e-12)
    assert ahead.low < ahead.difference < ahead.high
    assert (behind.difference, behind.low, behind.high) == pytest.approx(
        (-ahead.difference, -ahead.high, -ahead.low)
    )


@every_order
def test_identical_predictions_tie_with_no_difference(metric):
    truth, good, _, resampling = _good_and_bad()
    same = compare(metric, truth, [good], [good.copy()], resampling)
    assert (same.difference, same.low, same.high, same.p, same.verdict) == (0.0, 0.0, 0.0, 1.0, "tie")


def test_pairing_finds_what_separate_intervals_cannot():
    # A small steady gain on every clip is sure, though both scores' own intervals overlap widely.
    truth, _, bad, resampling = _good_and_bad()
    slightly = bad + 0.05 * (truth - bad)
    assert compare("mse", truth, [slightly], [bad], resampling).verdict == "better"
    own = [score(truth, [p], resampling)["intervals"]["mse"] for p in (slightly, bad)]
    assert own[0][1] > own[1][0]


def test_compare_averages_over_seeds_also_of_unlike_number():
    truth, good, bad, resampling = _good_and_bad()
    found = compare("mse", truth, [good, bad], [bad], resampling)
    mse = METRICS["mse"]
    assert found.difference == pytest.approx((mse(truth, good) - mse(truth, bad)) / 2)


def test_compare_refuses_an_unknown_metric():
    for metric in ("rmse", "sd_ratio"):
        with pytest.raises(
            SettingsError, match=f"compared by '{metric}'; expected one of mse, mae, pearson_r, ccc, r2"
        ):
            compare(metric, [1, 2], [[1, 2]], [[1, 2]], Resampling([0, 1]))


def test_p_is_students():
    truth, good, bad, resampling = _good_and_bad()
    found = compare("mse", truth, [good], [0.9 * good + 0.1 * bad], resampling)
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
    clips = pd.DataFrame({"id": ["x", "y", "z"], "speaker": speakers})
    groups, by = groups_of(clips)
    assert by == drawn
    assert groups.tolist() == (speakers if drawn == "speaker" else ["x", "y", "z"])


def test_errors_by_group():
    predictions = pd.DataFrame(
        {
            "id": [f"clip {n}" for n in range(20)],
            "speaker": [*"AAABBB", *"CCCCC", *"DDDDD", *"EEEE"],
            "sex": [*"FFFFFF", *"MMMMM", *[""] * 5, *"XXXX"],
            "truth": [1.0, 2, 3, 4, 3, 2, 5, 4, 3, 4, 5, 3, 2, 1, 2, 3, 1, 1, 1, 1],
            "prediction": [1.5, 2, 3, 5, 4, 3, 3, 3, 3, 3, 3, 9, 9, 9, 9, 9, 5, 5, 5, 5],
        }
    )
    found, chance = errors_by_group(predictions, "sex")
    assert list(found) == ["group", "n", "mse", "low", "high", "bias"]
    # The largest error first; "" is left out, and X, whose four clips are too few to say anything.
    assert found["group"].tolist() == ["M", "F"]
    assert found["n"].tolist() == [5, 6]
    assert found["mse"].tolist() == pytest.approx([(4 + 1 + 0 + 1 + 4) / 5, (0.25 + 3) / 6])
    assert found["bias"].tolist() == pytest.approx([-6 / 5, 3.5 / 6])
    assert (found["low"] < found["mse"]).all()
    assert (found["mse"] < found["high"]).all()
    assert 0 < chance <= 1


def _noisy(seed, sizes):
    """Groups of the asked sizes whose errors all come from one distribution."""
    generator = np.random.default_rng(seed)
    speaker = np.repeat(list(sizes), list(sizes.values()))
    truth = generator.uniform(1, 5, speaker.size)
    names = [f"clip {number}" for number in range(speaker.size)]
    prediction = truth + generator.normal(0, 0.5, speaker.size)
    return pd.DataFrame({"id": names, "speaker": speaker, "truth": truth, "prediction": prediction})


def test_of_groups_that_differ_by_luck_alone_one_in_twenty_is_called_different():
    draws = [errors_by_group(_noisy(seed, {"A": 8, "B": 12, "C": 9}), "speaker")[1] for seed in range(200)]
    assert 0.01 <= np.mean(np.array(draws) < 0.05) <= 0.10
    # Under luck every probability is as likely as every other.
    assert stats.kstest(draws, "uniform").pvalue > 0.01


def test_one_clearly_worse_group_is_found_with_the_smallest_probability_there_is():
    predictions = _noisy(0, dict.fromkeys("ABCDEF", 20))
    worse = predictions["speaker"] == "D"
    predictions.loc[worse, "prediction"] += 3
    found, chance = errors_by_group(predictions, "speaker")
    assert found.loc[0, "group"] == "D"
    assert chance == 0.001  # no permutation of 999 comes near
    assert type(chance) is float  # as JSON takes it


def test_the_chance_is_that_of_the_exhaustive_test():
    # All 1287 divisions into five and eight can be made, and 999 draws of them are a sample.
    import itertools

    predictions = _noisy(3, {"A": 5, "B": 8})
    squared = ((predictions["prediction"] - predictions["truth"]) ** 2).to_numpy()
    found = errors_by_group(predictions, "speaker")[1]
    gaps = [
        abs(squared[list(first)].mean() - np.delete(squared, first).mean())
        for first in itertools.combinations(range(13), 5)
    ]
    expected = np.mean(np.array(gaps) >= gaps[0] - 1e-12)
    assert 0.02 < expected < 0.98
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 999))


def test_one_group_alone_differs_from_nothing_and_none_is_an_empty_table():
    found, chance = errors_by_group(_noisy(0, {"A": 30}).assign(sex=""), "sex")
    assert (len(found), list(found), chance) == (0, ["group", "n", "mse", "low", "high", "bias"], 1.0)
    found, chance = errors_by_group(_noisy(0, {"A": 30}), "speaker")
    assert (len(found), chance) == (1, 1.0)
    assert errors_by_group(_noisy(0, {"A": 30, "B": 4}), "speaker")[1] == 1.0


def test_errors_at_extremes():
    truth = np.array([3.0, 1, 5, 2, 4, 3, 3, 2, 4, 3])
    predictions = pd.DataFrame(
        {"id": [f"{n}" for n in range(10)], "truth": truth, "prediction": 3 + 0.5 * (truth - 3)}
    )
    found = errors_at_extremes(predictions)
    assert found["lowest"] == pytest.approx({"n": 2, "truth": 1.5, "prediction": 2.25, "mse": (1 + 0.25) / 2})
    assert found["highest"] == pytest.approx(
        {"n": 2, "truth": 4.5, "prediction": 3.75, "mse": (1 + 0.25) / 2}
    )
    # Ties are broken by the id, not by the order of the rows.
    assert errors_at_extremes(predictions.sample(frac=1, random_state=0)) == found
    assert errors_at_extremes(predictions.head(2))["lowest"]["n"] == 1


def test_a_label_that_speakers_have_but_one_of_is_judged_over_speakers():
    """Speakers differ, sexes do not: over clips, the sexes would seem to differ far too often."""
    alarms = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        speaker = np.repeat(np.arange(10), 20)
        errors = generator.normal(0, 0.4, 10)[speaker] + generator.normal(0, 0.6, 200)
        clips = pd.DataFrame({"id": np.arange(200).astype(str), "speaker": [f"s{n}" for n in speaker]})
        clips = clips.assign(sex=np.where(speaker % 2, "F", "M"), truth=3.0, prediction=3.0 + errors)
        alarms += errors_by_group(clips, "sex")[1] < 0.05
    assert alarms <= 11  # 5 expected; 99 % of the time at most 11
