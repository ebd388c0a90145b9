"""Errors by group, differences between groups, and disagreement, by hand, by scipy and by simulation."""

import doctest
import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from valence_lib.evaluation import groups, metrics
from valence_lib.evaluation.groups import (
    REST,
    TOO_SMALL,
    disagreement,
    errors_at_extremes,
    errors_by_group,
    quartiles,
    score_differences,
)

RNG = np.random.default_rng(0)


def clips(speakers=12, each=30, seed=0, extra_noise=0.0, extra_bias=0.0):
    """Speakers of two sexes by turns; those of sex M are predicted with more noise, or too high."""
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
    assert doctest.testmod(groups).failed == 0


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


def test_a_few_uncertain_speakers_against_many_have_welchs_interval():
    generator = np.random.default_rng(0)
    errors = [generator.normal(0, 2, 10), generator.normal(0, 0.5, 70)]
    table = clips(speakers=80, each=1)
    table["prediction"] = table["truth"] + np.concatenate(errors)
    table["who"] = ["few"] * 10 + ["many"] * 70
    found = score_differences(table, "who").set_index("metric").loc["bias"]
    welch = stats.ttest_ind(*errors, equal_var=False).confidence_interval()
    width = (found["high"] - found["low"]) / (welch.high - welch.low)
    assert 0.97 < width < 1.12  # draws differ in how many of the few they contain
    assert found["high"] + found["low"] == pytest.approx(welch.high + welch.low)


def test_each_of_more_than_two_groups_is_compared_with_the_rest():
    table = clips()
    found = score_differences(table, "emotion")
    assert list(found["group"].unique()) == ["anger", "joy", "rest"]
    assert set(found["other"]) == {REST}
    assert (found["n"] + found["other_n"] == len(table)).all()
    rest = table[table["emotion"] != "joy"]
    row = found.query("group == 'joy' and metric == 'mse'").iloc[0]
    assert row["other_score"] == pytest.approx(metrics.mse(rest["truth"], rest["prediction"]))


@pytest.mark.parametrize(
    ("speakers", "each", "named", "too_small"), [(8, 30, 1, True), (12, 8, 1, True), (8, 30, 0, False)]
)
def test_few_clips_or_few_named_speakers_are_too_small(speakers, each, named, too_small):
    table = clips(speakers, each, extra_noise=2)
    found = score_differences(table.assign(speaker=table["speaker"] * named), "sex")
    assert (set(found["verdict"]) == {TOO_SMALL}) == too_small
    assert set(found["speakers"]) == {named * speakers // 2}


def test_unlabelled_clips_are_left_out_and_one_group_is_compared_with_nothing():
    table = clips()
    assert score_differences(table.assign(sex="F"), "sex").empty
    part = score_differences(table.assign(sex=table["sex"].where(table.index < 100, "")), "sex")
    assert (part["n"] + part["other_n"] == 100).all()


def test_quartiles_are_ordered_and_named_by_their_edges():
    values = np.append(RNG.uniform(1, 9, 400), np.nan)
    found = quartiles(values, "s", 2)
    assert found.codes[-1] == -1
    counts = pd.Series(found).value_counts(sort=False)
    assert list(counts.index) == list(found.categories)
    assert counts.between(98, 102).all()
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


def test_disagreement_is_correlated_with_the_error_of_the_mean():
    n = 600
    truth, hard = RNG.normal(3, 1, n), RNG.uniform(0.1, 1.5, n)
    predictions = [truth + hard * RNG.normal(0, 1, n) for _ in range(3)]
    found = disagreement(truth, predictions, np.arange(n) % 30)
    np.testing.assert_allclose(found.spread, np.std(predictions, axis=0, ddof=1))
    np.testing.assert_allclose(found.error, np.abs(np.mean(predictions, axis=0) - truth))
    assert found.spearman_r == pytest.approx(stats.spearmanr(found.spread, found.error).statistic)
    assert 0 < found.low < found.spearman_r < found.high < 1


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
    # The largest error first; "" does not count, and X has too few clips.
    assert found["group"].tolist() == ["M", "F"]
    assert found["n"].tolist() == [5, 6]
    assert found["mse"].tolist() == pytest.approx([(4 + 1 + 0 + 1 + 4) / 5, (0.25 + 3) / 6])
    assert found["bias"].tolist() == pytest.approx([-6 / 5, 3.5 / 6])
    assert (found["low"] < found["mse"]).all() and (found["mse"] < found["high"]).all()
    assert 0 < chance <= 1


def _noisy(seed, sizes):
    """Speakers with these numbers of clips, whose errors all come from one distribution."""
    generator = np.random.default_rng(seed)
    speaker = np.repeat(list(sizes), list(sizes.values()))
    truth = generator.uniform(1, 5, speaker.size)
    names = [f"clip {number}" for number in range(speaker.size)]
    prediction = truth + generator.normal(0, 0.5, speaker.size)
    return pd.DataFrame({"id": names, "speaker": speaker, "truth": truth, "prediction": prediction})


def test_the_probability_is_that_of_the_exhaustive_test():
    # 999 draws are a sample of all 1287 ways to choose five of thirteen clips.
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


@pytest.mark.parametrize(("sizes", "n"), [({"": 30}, 0), ({"A": 30}, 1), ({"A": 30, "B": 4}, 1)])
def test_fewer_than_two_groups_do_not_differ(sizes, n):
    found, chance = errors_by_group(_noisy(0, sizes), "speaker")
    assert (len(found), list(found), chance) == (n, ["group", "n", "mse", "low", "high", "bias"], 1.0)


def test_errors_at_extremes():
    truth = np.array([3.0, 1, 5, 2, 4, 3, 3, 2, 4, 3])
    predictions = pd.DataFrame({"id": [*"abcdefghij"], "truth": truth, "prediction": 3 + 0.5 * (truth - 3)})
    found = errors_at_extremes(predictions)
    assert found["lowest"] == pytest.approx({"n": 2, "truth": 1.5, "prediction": 2.25, "mse": 1.25 / 2})
    assert found["highest"] == pytest.approx({"n": 2, "truth": 4.5, "prediction": 3.75, "mse": 1.25 / 2})
    # Equal ratings are ordered by the id.
    assert errors_at_extremes(predictions.sample(frac=1, random_state=0)) == found
    assert errors_at_extremes(predictions.head(2))["lowest"]["n"] == 1


@pytest.mark.slow
def test_labels_that_are_constant_within_speakers_are_permuted_over_speakers():
    # Speakers differ, sexes do not: permuted over clips, the sexes would differ far too often.
    alarms = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        speaker = np.repeat(np.arange(10), 20)
        errors = generator.normal(0, 0.4, 10)[speaker] + generator.normal(0, 0.6, 200)
        table = pd.DataFrame({"id": np.arange(200).astype(str), "speaker": [f"s{n}" for n in speaker]})
        table = table.assign(sex=np.where(speaker % 2, "F", "M"), truth=3.0, prediction=3.0 + errors)
        alarms += errors_by_group(table, "sex")[1] < 0.05
    assert alarms <= 11  # 5 expected; 99 % of the time at most 11
