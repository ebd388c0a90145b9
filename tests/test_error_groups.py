"""Differences between groups, disagreement and robustness, against hand computation and simulation."""

import doctest

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from valence_lib import error_groups, metrics
from valence_lib.error_groups import (
    REST,
    TOO_SMALL,
    disagreement,
    quartiles,
    rater_disagreement,
    robustness,
    score_differences,
)
from valence_lib.errors import SettingsError

RNG = np.random.default_rng(0)


def clips(speakers=12, each=30, seed=0, extra_noise=0.0, extra_bias=0.0):
    """Speakers S00, S01, ... of two sexes by turns; those of sex M are predicted with more noise, or too high."""
    generator = np.random.default_rng(seed)
    speaker = np.repeat([f"S{i:02d}" for i in range(speakers)], each)
    male = np.repeat(np.arange(speakers) % 2 == 1, each)
    truth = generator.normal(3, 0.8, len(speaker))
    noise = generator.normal(0, 1, len(speaker)) * (0.4 + extra_noise * male)
    return pd.DataFrame(
        {
            "id": [f"c{i}" for i in range(len(speaker))],
            "speaker": speaker,
            "sex": np.where(male, "M", "F"),
            "emotion": generator.choice(["anger", "joy", "rest"], len(speaker)),
            "truth": truth,
            "prediction": 3 + 0.6 * (truth - 3) + noise + extra_bias * male,
        }
    )


def test_doctests():
    assert doctest.testmod(error_groups).failed == 0


def test_scores_and_differences_are_those_of_the_metrics():
    table = clips(extra_noise=0.6, extra_bias=0.3)
    found = score_differences(table, "sex").set_index("metric")
    women, men = table[table["sex"] == "F"], table[table["sex"] == "M"]
    for metric in ("mse", "ccc"):
        expected = [metrics.METRICS[metric](side["truth"], side["prediction"]) for side in (women, men)]
        row = found.loc[metric]
        assert [row["score"], row["other_score"]] == pytest.approx(expected)
        assert row["difference"] == pytest.approx(expected[0] - expected[1])
        assert row["verdict"] == "better"
        assert row["low"] < row["difference"] < row["high"]
    biases = [(side["prediction"] - side["truth"]).mean() for side in (women, men)]
    assert found.loc["bias", "difference"] == pytest.approx(biases[0] - biases[1])
    assert found.loc["bias", "verdict"] == "lower"
    assert set(found["group"]) == {"F"} and set(found["other"]) == {"M"}
    assert (found[["n", "speakers", "other_n", "other_speakers"]] == [180, 6, 180, 6]).all(axis=None)


def test_the_interval_is_that_of_drawing_speakers():
    # Two disjoint groups, so the spread of the difference in bias is that of two independent means over speakers.
    table = clips(speakers=40, each=5, extra_bias=0.2)
    row = score_differences(table, "sex").set_index("metric").loc["bias"]
    by_speaker = (table["prediction"] - table["truth"]).groupby(table["speaker"]).mean()
    sides = by_speaker[::2], by_speaker[1::2]
    expected = stats.ttest_ind(*sides, equal_var=False).confidence_interval()
    assert row["high"] - row["low"] == pytest.approx(expected.high - expected.low, rel=0.1)


def test_a_few_uncertain_speakers_against_many_have_welchs_interval():
    generator = np.random.default_rng(0)
    errors = [generator.normal(0, 2, 10), generator.normal(0, 0.5, 70)]
    table = clips(speakers=80, each=1)
    table["prediction"] = table["truth"] + np.concatenate(errors)
    table["who"] = ["few"] * 10 + ["many"] * 70
    found = score_differences(table, "who").set_index("metric").loc["bias"]
    welch = stats.ttest_ind(*errors, equal_var=False).confidence_interval()
    width = (found["high"] - found["low"]) / (welch.high - welch.low)
    assert 0.97 < width < 1.12  # draws also differ in how many of the few they hold
    assert found["high"] + found["low"] == pytest.approx(welch.high + welch.low)


def test_more_than_two_groups_stand_against_the_rest():
    table = clips()
    found = score_differences(table, "emotion")
    assert list(found["group"].unique()) == ["anger", "joy", "rest"]
    assert set(found["other"]) == {REST}
    assert (found["n"] + found["other_n"] == len(table)).all()
    rest = table[table["emotion"] != "joy"]
    row = found.query("group == 'joy' and metric == 'mse'").iloc[0]
    assert row["other_score"] == pytest.approx(metrics.mse(rest["truth"], rest["prediction"]))


@pytest.mark.parametrize(("speakers", "each"), [(8, 30), (12, 8)])
def test_few_speakers_or_clips_are_too_small_to_say(speakers, each):
    found = score_differences(clips(speakers, each, extra_noise=2), "sex")
    assert set(found["verdict"]) == {TOO_SMALL}


def test_nameless_speakers_are_not_asked_for():
    found = score_differences(clips(extra_noise=1.0).assign(speaker=""), "sex")
    assert set(found["speakers"]) == {0}
    assert found.query("metric == 'mse'")["verdict"].item() == "better"


def test_unlabelled_clips_are_left_out_and_one_group_is_compared_with_nothing():
    table = clips()
    assert score_differences(table.assign(sex="F"), "sex").empty
    part = score_differences(table.assign(sex=table["sex"].where(table.index < 100, "")), "sex")
    assert (part["n"] + part["other_n"] == 100).all()


def test_a_missing_column_is_named():
    with pytest.raises(SettingsError, match="no column age, truth; expected"):
        score_differences(clips().drop(columns="truth"), "age")


def test_quartiles_keep_their_order_and_leave_what_is_unknown():
    values = np.append(RNG.uniform(1, 9, 400), np.nan)
    found = quartiles(values, "s", 2)
    assert found.codes[-1] == -1
    counts = pd.Series(found).value_counts(sort=False)
    assert list(counts.index) == list(found.categories)
    assert counts.between(98, 102).all()
    # The names say exactly who is in.
    edge = float(found.categories[0].split()[2])
    assert values[:-1][found.codes[:-1] == 0].max() <= edge < values[:-1][found.codes[:-1] > 0].min()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([2.3333] * 3 + [3.0], ["up to 2.34", "above 2.34"]),
        ([1.0, 1.0], ["all"]),
        ([np.nan], ["all"]),
        ([-1, 0, 1, 2], ["up to −1.00", "−1.00 to 0.00", "0.00 to 1.00", "above 1.00"]),
    ],
)
def test_quartiles_of_few_values(values, names):
    assert list(quartiles(values, "", 2).categories) == names


def test_quartiles_give_the_groups_their_order():
    table = clips().assign(seconds=RNG.uniform(1, 20, 360))
    quarters = quartiles(table["seconds"], "s")
    found = score_differences(table.assign(bin=quarters), "bin")
    assert list(found["group"].unique()) == list(quarters.categories)


def test_raters_disagree_by_their_standard_deviation():
    table = pd.DataFrame(
        {"valence_a1": [1, 2, 3], "valence_a2": [3, 2, np.nan], "valence_a3": [2, 2, np.nan]}
    )
    np.testing.assert_allclose(rater_disagreement(table), [1, 0, np.nan])
    assert np.isnan(rater_disagreement(pd.DataFrame({"valence": [1.0]}))).all()


def test_disagreement_is_correlated_with_the_error_of_the_mean():
    n = 600
    truth, hard = RNG.normal(3, 1, n), RNG.uniform(0.1, 1.5, n)
    predictions = [truth + hard * RNG.normal(0, 1, n) for _ in range(3)]
    found = disagreement(truth, predictions, np.arange(n) % 30)
    np.testing.assert_allclose(found.spread, np.std(predictions, axis=0, ddof=1))
    np.testing.assert_allclose(found.error, np.abs(np.mean(predictions, axis=0) - truth))
    assert found.spearman_r == pytest.approx(stats.spearmanr(found.spread, found.error).statistic)
    assert 0 < found.low < found.spearman_r < found.high < 1


def test_disagreement_that_says_nothing_has_an_interval_about_0():
    n = 600
    truth = RNG.normal(3, 1, n)
    # The models differ by noise of their own that cancels in their mean.
    shared, own = RNG.normal(0, 0.5, n), RNG.normal(0, 0.3, n)
    found = disagreement(truth, [truth + shared + own, truth + shared - own], np.arange(n))
    assert found.low < 0 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(n), rel=0.15)


def test_disagreement_needs_two_models():
    with pytest.raises(SettingsError, match=r"shape \(1, 3\).*two or more models"):
        disagreement([1, 2, 3], [[1, 2, 3]], [0, 1, 2])


def test_robustness_compares_with_the_first_condition():
    table = clips()
    truth, own = table["truth"].to_numpy(), table["prediction"].to_numpy()
    noisy = own + RNG.normal(0, 0.5, len(own))
    found = robustness(
        truth, {"as recorded": [own], "noise": [noisy], "same": [own.copy()]}, table["speaker"]
    )
    assert list(found["condition"]) == ["as recorded"] * 2 + ["noise"] * 2 + ["same"] * 2
    first, _, noise, noise_ccc, same, _ = found.to_dict("records")
    assert first["score"] == pytest.approx(metrics.mse(truth, own))
    assert first["verdict"] == "" and np.isnan(first["difference"])
    assert noise["difference"] == pytest.approx(metrics.mse(truth, noisy) - metrics.mse(truth, own))
    assert noise["difference_low"] < noise["difference"] < noise["difference_high"]
    assert (noise["verdict"], noise_ccc["verdict"], same["verdict"]) == ("worse", "worse", "tie")
    assert noise_ccc["difference"] < 0
    assert same["difference"] == same["difference_low"] == same["difference_high"] == 0
