"""Evaluation: the bootstrap against explicit resampling and scipy's, comparisons, raters, groups, rows."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from valence_lib.errors import SettingsError
from valence_lib.evaluation import (
    Resampling,
    compare,
    errors_at_extremes,
    errors_by_group,
    groups_of,
    interval,
    raters,
    results_rows,
    score,
)
from valence_lib.metrics import METRICS

every_metric = pytest.mark.parametrize("metric", METRICS)


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
def test_the_interval_is_scipys_percentile_interval_on_unclustered_clips(metric):
    generator = np.random.default_rng(5)
    truth = generator.uniform(1, 5, 150)
    prediction = 3 + 0.5 * (truth - 3) + generator.normal(0, 0.6, 150)
    ours = interval(Resampling(np.arange(150), seed=0, resamples=8000).scores(metric, truth, prediction))
    theirs = stats.bootstrap(
        (truth, prediction),
        METRICS[metric],
        paired=True,
        vectorized=False,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours == pytest.approx([theirs.low, theirs.high], abs=0.06 * width)


def test_interval_is_of_the_asked_confidence():
    values = np.arange(1001, dtype=float)
    assert interval(values) == pytest.approx([25, 975])
    assert interval(values, confidence=0.5) == pytest.approx([250, 750])
    assert all(type(end) is float for end in interval(values))


@pytest.mark.parametrize("metric", ["mse", "mae", "ccc"])
def test_drawing_whole_speakers_widens_intervals_where_their_clips_err_alike(metric):
    truth, prediction, speaker = _clustered(2)
    by_speaker = np.ptp(interval(Resampling(speaker).scores(metric, truth, prediction)))
    by_clip = np.ptp(interval(Resampling(np.arange(truth.size)).scores(metric, truth, prediction)))
    assert by_speaker > 1.3 * by_clip


def test_resampling_is_by_its_seed():
    groups = np.arange(30)
    assert np.array_equal(Resampling(groups).weights, Resampling(groups).weights)
    assert not np.array_equal(Resampling(groups).weights, Resampling(groups, seed=1).weights)
    assert Resampling(groups).weights.shape == (2000, 30)


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
    assert list(row) == ["n", "mse", "mae", "pearson_r", "ccc", "intervals"]
    assert row["n"] == 120
    for metric, function in METRICS.items():
        mean = (function(truth, prediction) + function(truth, other)) / 2
        assert row[metric] == pytest.approx(mean, rel=1e-12)
        averaged = (
            resampling.scores(metric, truth, prediction) + resampling.scores(metric, truth, other)
        ) / 2
        assert row["intervals"][metric] == pytest.approx(np.quantile(averaged, [0.025, 0.975]))
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


@every_metric
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


@every_metric
def test_identical_predictions_tie_with_no_difference(metric):
    truth, good, _, resampling = _good_and_bad()
    same = compare(metric, truth, [good], [good.copy()], resampling)
    assert (same.difference, same.low, same.high, same.verdict) == (0.0, 0.0, 0.0, "tie")


@every_metric
def test_like_predictions_tie(metric):
    truth, _, _, resampling = _good_and_bad()
    noise = np.random.default_rng(4).normal(0, 0.5, truth.size)
    found = compare(metric, truth, [truth + noise], [truth - noise], resampling)
    assert found.verdict == "tie"
    assert found.low < 0 < found.high


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
    with pytest.raises(SettingsError, match="no metric 'rmse'; expected one of mse, mae, pearson_r, ccc"):
        compare("rmse", [1, 2], [[1, 2]], [[1, 2]], Resampling([0, 1]))


def test_raters_by_hand():
    clips = pd.DataFrame(
        {
            "id": list("abcd"),
            "valence_a1": [1.0, 2.0, 3.0, 5.0],
            "valence_a2": [2.0, 2.0, 5.0, np.nan],
            "valence_a3": [3.0, 2.0, 4.0, 1.0],
            "valence": [2.0, 2.0, 4.0, 3.0],
            "valence_average": [9.0] * 4,
        }
    )
    found = raters(clips)
    assert (found["raters"], found["clips"]) == (3, 4)
    # a1 (1, 2, 3, 5) against (2.5, 2, 4.5, 1); a2 (2, 2, 5) against (2, 2, 3.5), as d has no second rating;
    # a3 (3, 2, 4, 1) against (1.5, 2, 4, 5).
    by_rater = {name: scores["mse"] for name, scores in found["by_rater"].items()}
    assert by_rater == pytest.approx(
        {"valence_a1": 20.5 / 4, "valence_a2": 2.25 / 3, "valence_a3": 18.25 / 4}
    )
    assert found["mse"] == pytest.approx((20.5 / 4 + 2.25 / 3 + 18.25 / 4) / 3)
    # Lin's for a2: covariance 1, variances 2 and 1/2, means 3 and 2.5.
    assert found["by_rater"]["valence_a2"]["ccc"] == pytest.approx(2 / (2 + 1 / 2 + 1 / 4))
    values = [scores["ccc"] for scores in found["by_rater"].values()]
    assert found["ccc"] == pytest.approx(np.mean(values))
    # Sample variances within the clips: 1, 0 and 1 of three ratings, 8 of two.
    assert found["noise_variance"] == pytest.approx((1 / 3 + 0 + 1 / 3 + 8 / 2) / 4)


def test_sparse_raters_by_hand():
    clips = pd.DataFrame(
        {
            "id": list("abcdefg"),
            "valence_a1": [1.0, 3.0, np.nan, 4.0, 2.0, np.nan, 5.0],
            "valence_a2": [2.0, np.nan, 3.0, 4.0, np.nan, 1.0, np.nan],
            "valence_a3": [np.nan, 5.0, 2.0, np.nan, 4.0, 2.0, np.nan],
        }
    )
    found = raters(clips)
    # Each clip by two of three, and g by one alone, who agrees with nobody.
    assert (found["raters"], found["clips"]) == (3, 6)
    # a1 (1, 3, 4, 2) against (2, 5, 4, 4); a2 (2, 3, 4, 1) against (1, 2, 4, 2); a3 (5, 2, 4, 2) against (3, 3, 2, 1).
    by_rater = {name: scores["mse"] for name, scores in found["by_rater"].items()}
    assert by_rater == pytest.approx({"valence_a1": 9 / 4, "valence_a2": 3 / 4, "valence_a3": 10 / 4})
    assert found["mse"] == pytest.approx(22 / 12)
    # Lin's for a1: covariance 3.5/4, variances 5/4 and 4.75/4, means 2.5 and 3.75.
    assert found["by_rater"]["valence_a1"]["ccc"] == pytest.approx(1.75 / (5 / 4 + 4.75 / 4 + 1.25**2))
    # Half the squared difference within each clip (1, 4, 1, 0, 4, 1), halved again for the mean of two.
    assert found["noise_variance"] == pytest.approx(11 / 2 / 6 / 2)


def test_a_rater_who_is_always_alone_counts_for_nothing():
    clips = pd.DataFrame(
        {
            "valence_a1": [1.0, 3.0, np.nan],
            "valence_a2": [2.0, 4.0, np.nan],
            "valence_a3": [np.nan, np.nan, 5.0],
        }
    )
    found = raters(clips)
    assert (found["raters"], found["clips"], list(found["by_rater"])) == (2, 2, ["valence_a1", "valence_a2"])
    assert found["mse"] == 1.0


@pytest.mark.parametrize("given", [2, 3, 4])
def test_the_noise_variance_holds_also_where_raters_left_clips_out(given):
    generator = np.random.default_rng(1)
    true = generator.uniform(1, 5, 20000)
    ratings = true[:, None] + generator.normal(0, 0.6, (20000, 4))
    left_out = generator.permuted(np.tile(np.arange(4) >= given, (20000, 1)), axis=1)
    ratings[left_out] = np.nan
    clips = pd.DataFrame(ratings, columns=[f"valence_a{rater}" for rater in range(1, 5)])
    assert raters(clips)["noise_variance"] == pytest.approx(0.36 / given, rel=0.03)


def test_the_noise_variance_estimates_the_error_of_the_mean_rating():
    generator = np.random.default_rng(0)
    true = generator.uniform(1, 5, 20000)
    ratings = true[:, None] + generator.normal(0, 0.6, (20000, 3))
    clips = pd.DataFrame(ratings, columns=["valence_a1", "valence_a2", "valence_a3"])
    error = np.mean((ratings.mean(axis=1) - true) ** 2)
    assert raters(clips)["noise_variance"] == pytest.approx(error, rel=0.03)


@pytest.mark.parametrize(
    "clips",
    [
        pd.DataFrame({"valence": [1.0, 2.0]}),
        pd.DataFrame({"valence_a1": [1.0, 2.0]}),
        pd.DataFrame({"valence_a1": [1.0, np.nan], "valence_a2": [np.nan, 2.0]}),
    ],
)
def test_no_ceiling_without_two_raters_of_one_clip(clips):
    assert raters(clips) is None


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
    # Drawing two of F's two speakers gives 1/12, 3.25/6 or 1; M's one speaker is drawn by clip.
    assert found.loc[1, ["low", "high"]].tolist() == pytest.approx([0.25 / 3, 1.0])
    assert 0 <= found.loc[0, "low"] < 2 < found.loc[0, "high"] <= 4
    assert 0 < chance <= 1


def test_five_clips_are_a_group_and_four_are_none():
    predictions = _noisy(0, sizes={"A": 5, "B": 4, "C": 6})
    found, _ = errors_by_group(predictions, "speaker")
    assert dict(zip(found["group"], found["n"], strict=True)) == {"A": 5, "C": 6}


def test_errors_by_group_of_nothing_is_an_empty_table():
    predictions = pd.DataFrame(
        {"id": ["a"], "speaker": ["A"], "sex": [""], "truth": [1.0], "prediction": [2.0]}
    )
    found, chance = errors_by_group(predictions, "sex")
    assert (len(found), list(found)) == (0, ["group", "n", "mse", "low", "high", "bias"])
    assert chance == 1.0


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


def test_one_group_alone_differs_from_nothing():
    found, chance = errors_by_group(_noisy(0, {"A": 30}), "speaker")
    assert (len(found), chance) == (1, 1.0)
    assert errors_by_group(_noisy(0, {"A": 30, "B": 4}), "speaker")[1] == 1.0


def test_the_chance_is_the_same_every_time():
    predictions = _noisy(5, {"A": 20, "B": 10, "C": 15})
    table, chance = errors_by_group(predictions, "speaker")
    again, same = errors_by_group(predictions.copy(), "speaker")
    pd.testing.assert_frame_equal(table, again)
    assert chance == same
    assert type(chance) is float  # as JSON takes it


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


def _results():
    generator = np.random.default_rng(0)
    clips = pd.DataFrame(
        {
            "id": [f"clip {n}" for n in range(90)],
            "part": ["train"] * 30 + ["validation"] * 30 + ["test"] * 25 + ["unlabelled"] * 5,
            "valence": [*generator.uniform(1, 4, 30), *generator.uniform(1, 5, 55), *[np.nan] * 5],
            "speaker": [f"S{n % 9}" for n in range(90)],
        }
    )
    truth = clips["valence"].fillna(3).to_numpy()

    def one(noise):
        # In another order than the clips, as a file of predictions may be.
        values = pd.Series(truth + generator.normal(0, noise, 90), index=clips["id"])
        return values.sample(frac=1, random_state=0)

    predictions = {("LSTM2", "default"): {0: one(0.2), 1: one(0.4)}, ("CNN", "seed"): {0: one(3)}}
    parameters = {("LSTM2", "default"): 659713, ("CNN", "seed"): 3297}
    return clips, predictions, results_rows(clips, predictions, parameters)


CONTRACT = {
    "model", "preset", "part", "n", "mse", "mae", "pearson_r", "ccc", "intervals", "parameters", "seeds",
}  # fmt: skip


def test_rows_of_results_keep_the_contract():
    _, _, rows = _results()
    assert all(row.keys() >= CONTRACT for row in rows)
    assert [(row["model"], row["preset"], row["part"]) for row in rows] == [
        (*model, part)
        for part in ("validation", "test")
        for model in (("mean", None), ("LSTM2", "default"), ("CNN", "seed"))
    ]
    for row in rows:
        assert set(row["intervals"]) == set(METRICS)
        assert all(low <= high for low, high in row["intervals"].values())
    assert [row["n"] for row in rows] == [30] * 3 + [25] * 3
    assert [row["parameters"] for row in rows[:3]] == [1, 659713, 3297]
    assert [row["seeds"] for row in rows[:3]] == [[], [0, 1], [0]]


def test_rows_are_json():
    import json

    _, _, rows = _results()
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_intervals_of_a_row_draw_the_speakers_of_its_part():
    clips, predictions, rows = _results()
    held_out = clips[clips["part"] == "test"]
    resampling = Resampling(held_out["speaker"])
    values = [series.loc[held_out["id"]] for series in predictions["LSTM2", "default"].values()]
    assert rows[4]["intervals"] == score(held_out["valence"], values, resampling)["intervals"]


def test_the_mean_predictor_knows_the_training_mean_alone():
    clips, _, rows = _results()
    mean = clips.loc[clips["part"] == "train", "valence"].mean()
    for row in (rows[0], rows[3]):
        truth = clips.loc[clips["part"] == row["part"], "valence"]
        assert row["mse"] == pytest.approx(np.mean((truth - mean) ** 2), rel=1e-12)
        assert row["mae"] == pytest.approx(np.mean(np.abs(truth - mean)), rel=1e-12)
        assert (row["pearson_r"], row["ccc"]) == (0.0, 0.0)
        assert row["intervals"]["ccc"] == pytest.approx([0, 0], abs=1e-6)
        assert row["intervals"]["pearson_r"] == pytest.approx([0, 0], abs=1e-6)


def test_scores_of_a_row_are_of_its_part_by_clip_id():
    clips, predictions, rows = _results()
    held_out = clips[clips["part"] == "test"]
    truth = held_out["valence"].to_numpy()
    row = rows[4]
    by_seed = {
        str(seed): METRICS["mse"](truth, [series[clip] for clip in held_out["id"]])
        for seed, series in predictions["LSTM2", "default"].items()
    }
    assert row["by_seed"]["mse"] == pytest.approx(by_seed)
    assert row["mse"] == pytest.approx(np.mean(list(by_seed.values())))
    assert rows[4]["against_mean"]["verdict"] == "better"
    assert rows[5]["against_mean"]["verdict"] == "worse"
    assert rows[4]["against_mean"]["difference"] == pytest.approx(row["mse"] - rows[3]["mse"])


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
