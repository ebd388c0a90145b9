"""Scores within and across corpora: the clips of each fit, the comparisons, and the parts of the MSE."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from toy import make_training_data

from valence_lib.errors import SettingsError
from valence_lib.evaluation import leakage
from valence_lib.evaluation.bootstrap import Resampling, compare
from valence_lib.evaluation.cross_corpus import error_parts, is_within, measure_pairs, predict_pairs
from valence_lib.evaluation.metrics import METRICS, mse
from valence_lib.registry import training_settings
from valence_lib.training import one_step
from valence_lib.training.loop import TrainingData

RIDGE = training_settings("Ridge", "default", 0)

# The parts of the mean squared error


@pytest.mark.parametrize(
    ("prediction", "parts"),
    [
        ([3, 4, 5], (4, 0, 0)),  # shifted by 2
        ([1.5, 2, 2.5], (0, 1 / 6, 0)),  # half the spread: (1 - 1/2)^2 of the variance of 2/3
        ([2, 2, 2], (0, 0, 2 / 3)),
        ([4, 4, 4], (4, 0, 2 / 3)),
        ([1, 2, 3], (0, 0, 0)),
        ([3, 2, 1], (0, 8 / 3, 0)),  # reversed: (sd + sd)^2
        ([2, 1, 3], (0, 1 / 6, 1 / 2)),  # r = 1/2: (1 - 1/2)^2 of 2/3, and (1 - 1/4) of 2/3
    ],
)
def test_the_parts_of_the_error_are_those_of_a_hand_computation(prediction, parts):
    found = error_parts([1, 2, 3], prediction)
    assert list(found) == ["bias", "scale", "rest"]
    assert list(found.values()) == pytest.approx(parts, abs=1e-12)
    assert sum(found.values()) == pytest.approx(mse([1, 2, 3], prediction))


def test_the_parts_add_up_and_the_rest_is_what_the_best_line_leaves():
    generator = np.random.default_rng(1)
    truth = generator.uniform(1, 5, 300)
    for slope, shift, noise in ((0.3, 1.2, 0.4), (1.8, -2.0, 1.0), (-0.5, 0.0, 0.7), (0.0, 3.0, 0.2)):
        prediction = slope * truth + shift + generator.normal(0, noise, 300)
        parts = error_parts(truth, prediction)
        assert sum(parts.values()) == pytest.approx(np.mean((prediction - truth) ** 2))
        assert parts["bias"] == pytest.approx((prediction.mean() - truth.mean()) ** 2)
        line = stats.linregress(prediction, truth)
        residuals = truth - (line.intercept + line.slope * prediction)
        assert parts["rest"] == pytest.approx(np.mean(residuals**2))


def test_parts_of_other_than_two_finite_arrays_of_one_length_are_refused():
    for truth, prediction in (([1, 2], [1]), ([], []), ([1, np.nan], [1, 2])):
        with pytest.raises(SettingsError, match="truth"):
            error_parts(truth, prediction)


# The clips of each fit


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """80 toy clips as three corpora: 40 clips of five speakers, 24 of three, and 16 of two."""
    made = make_training_data(tmp_path_factory.mktemp("features"))
    corpus = np.repeat(["first", "second", "third"], [40, 24, 16])
    number = np.r_[np.arange(40) % 5, np.arange(24) % 3, np.arange(16) % 2]
    speaker = [f"{name}/S{of}" for name, of in zip(corpus, number, strict=True)]
    return TrainingData(made.store, made.clips.assign(corpus=corpus, speaker=speaker))


@pytest.fixture
def fits(monkeypatch):
    """The rows of every fit and prediction; the prediction is the mean rating of the fitted clips."""
    made = []

    def fitted(training_data, settings, rows, known):
        np.testing.assert_array_equal(rows, known)
        return rows

    def predict(run, training_data, rows):
        made.append((run, rows))
        return np.full(len(rows), training_data.truth[run].mean())

    monkeypatch.setattr(one_step, "fitted", fitted)
    monkeypatch.setattr(one_step, "predict", predict)
    return made


def rows_of(clips, names):
    return np.flatnonzero(clips["corpus"].isin(names) & clips["rating"].notna())


def test_each_corpus_is_predicted_by_its_own_folds_by_each_other_and_by_all_others(toy, fits, capsys):
    clips = toy.clips.copy()
    clips.loc[::9, "rating"] = np.nan
    content, predictions = predict_pairs(TrainingData(toy.store, clips), RIDGE, 4)
    assert [(of["name"], of["rated"], of["clips"], of["speakers"]) for of in content["corpora"]] == [
        *(("first", 35, 35, 5), ("second", 21, 21, 3), ("third", 15, 15, 2))
    ]
    # As many folds as the second has speakers; the third has too few of them.
    assert [(of["by"], of["folds"], of["unnamed"]) for of in content["corpora"]] == [
        *(("speaker", 4, 0), ("speaker", 3, 0), ("random", 4, 0))
    ]
    names = ["first", "second", "third"]
    assert [(pair["trained_on"], pair["tested_on"]) for pair in content["pairs"]] == [
        (trained_on, tested_on)
        for tested_on in names
        for others in [[name for name in names if name != tested_on]]
        for trained_on in ([tested_on], *([name] for name in others), others)
    ]
    # One fit to a corpus predicts both others.
    assert f"fit {4 + 3 + 4 + 3 + 3}/17" in capsys.readouterr().out.splitlines()[-1]
    assert len(fits) == 4 + 3 + 4 + 3 * 3
    ratings = clips["rating"].to_numpy()
    for pair, of_pair in predictions.groupby("pair"):
        about = content["pairs"][pair]
        tested = rows_of(clips, [about["tested_on"]])
        assert sorted(of_pair["id"]) == sorted(clips["id"].iloc[tested])
        assert of_pair["prediction"].tolist() == of_pair["mean"].tolist()
        np.testing.assert_array_equal(of_pair["truth"], clips.set_index("id")["rating"].loc[of_pair["id"]])
        if not is_within(about):
            trained = rows_of(clips, about["trained_on"])
            assert about["trained"] == len(trained)
            assert set(of_pair["mean"]) == {ratings[trained].mean()}
    for inside, out in fits:
        assert not set(inside) & set(out)
        shared = set(clips["speaker"].iloc[inside]) & set(clips["speaker"].iloc[out])
        assert all(name.startswith("third/") for name in shared)


def test_a_corpus_without_named_speakers_has_random_folds(toy, fits):
    clips = toy.clips.assign(speaker=toy.clips["speaker"].where(toy.clips["corpus"] != "first", ""))
    content, predictions = predict_pairs(TrainingData(toy.store, clips), RIDGE, 6)
    first = content["corpora"][0]
    assert (first["by"], first["folds"], first["speakers"], first["unnamed"]) == ("random", 6, 0, 40)
    measured = measure_pairs(content, predictions)["pairs"]
    assert [row["speakers"] for row in measured[:4]] == [0] * 4  # clips are resampled
    assert [row["speakers"] for row in measured[4:8]] == [3] * 4


def test_of_a_large_corpus_all_pairs_take_the_same_sample(toy, fits, monkeypatch):
    monkeypatch.setattr(leakage, "MAX_CLIPS", 20)
    content, predictions = predict_pairs(toy, RIDGE, 3)
    assert [(of["rated"], of["clips"]) for of in content["corpora"]] == [(40, 20), (24, 20), (16, 16)]
    assert max(len(inside) for inside, _ in fits) == 20  # also of two corpora together
    tested = {
        (content["pairs"][pair]["tested_on"], tuple(sorted(frame["id"])))
        for pair, frame in predictions.groupby("pair")
    }
    assert len(tested) == 3


def test_a_corpus_with_too_few_clips_is_only_tested(toy, fits):
    clips = toy.clips.copy()
    clips.loc[clips["corpus"] == "second", "rating"] = np.nan  # without ratings it is not compared at all
    clips.loc[np.flatnonzero(clips["corpus"] == "third")[2:], "rating"] = np.nan
    content, predictions = predict_pairs(TrainingData(toy.store, clips), RIDGE, 3)
    assert [of["name"] for of in content["corpora"]] == ["first", "third"]
    why = {(*pair["trained_on"], pair["tested_on"]): pair["why"] for pair in content["pairs"]}
    too_few = "2 rated clips are too few to train on; expected 10 or more"
    assert why == {
        ("first", "first"): "",
        ("third", "first"): too_few,
        ("third", "third"): too_few,
        ("first", "third"): "",
    }
    rows = measure_pairs(content, predictions)["pairs"]
    scored = {(*row["trained_on"], row["tested_on"]): row["n"] for row in rows if not row["why"]}
    assert scored == {("first", "first"): 40, ("first", "third"): 2}
    assert "within" not in rows[-1]["against"]  # nothing is trained on the third


def test_one_corpus_has_its_cross_validation_alone(toy, fits):
    content, predictions = predict_pairs(TrainingData(toy.store, toy.clips.assign(corpus="one")), RIDGE, 4)
    assert [pair["trained_on"] for pair in content["pairs"]] == [["one"]]
    (row,) = measure_pairs(content, predictions)["pairs"]
    assert set(row["against"]) == {"training_mean", "tested_mean"}


def test_a_model_is_fitted_and_predicts(toy):
    content, predictions = predict_pairs(toy, RIDGE, 3)
    rows = measure_pairs(content, predictions)["pairs"]
    assert len(rows) == 12
    # The pitch is the rating in all three corpora.
    assert all(row["pearson_r"] > 0.5 for row in rows)


# Scores and comparisons


def frame_of(pair, truth, prediction, mean, corpus, speakers=8):
    n = len(truth)
    return pd.DataFrame(
        {
            "pair": pair,
            "id": [f"{corpus}/{number:03}" for number in range(n)],
            "speaker": [f"{corpus}/S{number % speakers}" for number in range(n)],
            "truth": truth,
            "mean": mean,
            "prediction": prediction,
        }
    )


@pytest.fixture(scope="module")
def measured():
    """Two corpora; predictions across them have a known shift and scale, and no other error."""
    generator = np.random.default_rng(2)
    first, second = generator.uniform(1, 5, 96), generator.uniform(2, 5, 64)
    frames = [
        frame_of(0, first, first + generator.normal(0, 0.2, 96), 3.0, "a"),
        frame_of(1, first, first + 1.5, 3.5, "a"),
        frame_of(2, second, second + generator.normal(0, 0.2, 64), 3.5, "b"),
        frame_of(3, second, second.mean() + 0.25 * (second - second.mean()), 3.0, "b"),
    ]
    pairs = [
        {"trained_on": [trained], "tested_on": tested, "why": "", "trained": 50.0}
        for tested, trained in ("aa", "ab", "bb", "ba")
    ]
    content = {"model": "Ridge", "corpora": [], "pairs": pairs}
    return content, frames, measure_pairs(content, pd.concat(frames))


def test_each_pair_has_its_scores_with_intervals_and_the_parts_of_its_error(measured):
    content, frames, found = measured
    assert {**found, "pairs": 0} == {**content, "pairs": 0}
    for row, frame in zip(found["pairs"], frames, strict=True):
        assert (row["n"], row["speakers"]) == (len(frame), 8)
        for metric in ("mse", "ccc", "pearson_r"):
            low, high = row["intervals"][metric]
            assert row[metric] == pytest.approx(METRICS[metric](frame["truth"], frame["prediction"]))
            assert low <= row[metric] + 1e-9 and row[metric] - 1e-9 <= high
    shifted, shrunk = found["pairs"][1], found["pairs"][3]
    assert shifted["parts"] == pytest.approx({"bias": 2.25, "scale": 0, "rest": 0}, abs=1e-9)
    variance = frames[3]["truth"].var(ddof=0)
    assert shrunk["parts"] == pytest.approx({"bias": 0, "scale": 0.75**2 * variance, "rest": 0}, abs=1e-9)


def test_each_pair_is_compared_with_both_means_and_with_training_on_the_tested_corpus(measured):
    _, frames, found = measured
    rows = found["pairs"]
    references = {
        "training_mean": [frame["mean"] for frame in frames],
        "tested_mean": [np.full(len(frame), frame["truth"].mean()) for frame in frames],
    }
    for reference, others in references.items():
        made = []
        for row, frame, other in zip(rows, frames, others, strict=True):
            resampling = Resampling(frame["speaker"])
            expected = compare(frame["truth"], frame["prediction"], other, resampling)
            against = row["against"][reference]["mse"]
            assert against["difference"] == pytest.approx(
                mse(frame["truth"], frame["prediction"]) - mse(frame["truth"], other)
            )
            assert against["p"] == pytest.approx(expected.p)
            made.append((expected.p, against["p_holm"]))
        ordered = sorted(made)
        adjusted = np.maximum.accumulate([min(1, (4 - rank) * p) for rank, (p, _) in enumerate(ordered)])
        assert [p_holm for _, p_holm in ordered] == pytest.approx(adjusted.tolist())
    assert "within" not in rows[0]["against"]
    for number, own in ((1, 0), (3, 2)):
        frame, other = frames[number], frames[own]["prediction"]
        for metric in ("ccc", "pearson_r", "mse"):
            expected = compare(
                frame["truth"], frame["prediction"], other, Resampling(frame["speaker"]), metric
            )
            against = rows[number]["against"]["within"][metric]
            assert against["difference"] == pytest.approx(expected.difference)
            assert (against["low"], against["high"]) == pytest.approx((expected.low, expected.high))
    assert rows[1]["against"]["within"]["mse"]["verdict"] == "worse"
    assert rows[1]["against"]["within"]["pearson_r"]["verdict"] == "better"  # r does not count the shift
    assert rows[1]["against"]["tested_mean"]["mse"]["verdict"] == "worse"
    assert rows[3]["against"]["training_mean"]["mse"]["verdict"] == "better"


def test_the_clips_may_come_in_any_order_and_as_the_text_of_a_csv(measured):
    content, frames, found = measured
    shuffled = pd.concat(frames).sample(frac=1, random_state=1).astype({"pair": str, "mean": str})
    restored = json.loads(json.dumps(content))
    again = measure_pairs(restored, shuffled)
    assert again == json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_constant_prediction_has_finite_scores():
    truth = np.random.default_rng(3).uniform(1, 5, 40)
    pairs = [{"trained_on": ["b"], "tested_on": "a", "why": "", "trained": 40.0}]
    found = measure_pairs({"pairs": pairs}, frame_of(0, truth, 4.0, 4.0, "a"))
    (row,) = found["pairs"]
    json.dumps(found, allow_nan=False)
    assert (row["ccc"], row["pearson_r"], row["against"]["training_mean"]["mse"]["verdict"]) == (0, 0, "tie")
    assert row["parts"]["rest"] == pytest.approx(truth.var())
