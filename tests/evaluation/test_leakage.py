"""The leakage analysis: its paired scores, and the clips that each fit takes."""

import numpy as np
import pandas as pd
import pytest
from toy import FEATURES, Tones, make_training_data

from valence_lib.evaluation import leakage
from valence_lib.evaluation.bootstrap import Resampling, compare
from valence_lib.evaluation.leakage import MAX_CLIPS, measure, names_speakers, predict_groupings, sampled
from valence_lib.evaluation.metrics import ccc, mse
from valence_lib.preprocess import pseudo_speakers
from valence_lib.preprocess.splits import GROUPINGS
from valence_lib.preprocess.store import store_streams
from valence_lib.registry import training_settings
from valence_lib.training import one_step
from valence_lib.training.loop import TrainingData

WHY = "not every clip names its sentence"
RIDGE = training_settings("Ridge", "default", 0)


def content_of(made, why):
    """The content of leakage.json, where some groupings have predictions and others a reason to have none."""
    rows = [{"grouping": grouping, "why": "", "trained": 60.0} for grouping in made]
    rows += [{"grouping": grouping, "why": reason, "trained": 0.0} for grouping, reason in why.items()]
    return {"model": "Ridge", "clips": 96, "groupings": rows}


@pytest.fixture(scope="module")
def frames():
    """Predictions of 96 clips by eight speakers that are less far off where clips share their speakers."""
    generator = np.random.default_rng(0)
    clips = pd.DataFrame(
        {"id": [f"clip {n:03}" for n in range(96)], "speaker": [f"S{n // 12}" for n in range(96)]}
    )
    clips["truth"] = generator.uniform(1, 5, 96)
    return {
        grouping: clips.assign(
            prediction=clips["truth"] + generator.normal(0, deviation, 96), grouping=grouping
        )
        for grouping, deviation in (("random", 0.3), ("speaker", 0.9))
    }


def test_differences_from_the_reference_are_paired_and_resampled_by_speaker(frames):
    content = content_of(frames, {"sentence": WHY, "both": WHY})
    found = measure(content, pd.concat(frames.values()))
    assert {**found, "groupings": 0} == {**content, "groupings": 0}
    assert [row["grouping"] for row in found["groupings"]] == ["speaker", "random", "sentence", "both"]
    reference, random, sentence, _ = found["groupings"]
    assert sentence == {"grouping": "sentence", "why": WHY, "trained": 0.0}
    assert (reference["n"], reference["trained"], reference["against"]) == (96, 60, None)
    truth, resampling = frames["random"]["truth"], Resampling(frames["random"]["speaker"])
    own, other = frames["random"]["prediction"], frames["speaker"]["prediction"]
    for name, metric in (("mse", mse), ("ccc", ccc)):
        assert reference[name] == pytest.approx(metric(truth, other))
        low, high = reference["intervals"][name]
        assert low < reference[name] < high
        assert random["against"][name] == pytest.approx(vars(compare(truth, own, other, resampling, name)))
        assert random["against"][name]["verdict"] == "better"
    assert random["against"]["mse"]["difference"] < 0 < random["against"]["ccc"]["difference"]


def test_clips_are_paired_by_name_in_any_order(frames):
    shuffled = frames["random"].sample(frac=1, random_state=3)
    content = content_of(frames, {})
    expected = measure(content, pd.concat(frames.values()))
    assert measure(content, pd.concat([frames["speaker"], shuffled])) == expected


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """80 toy clips of eight speakers, each of five sentences twice."""
    training_data = make_training_data(tmp_path_factory.mktemp("features"))
    n = len(training_data.clips)
    sentence = [f"T{row // 8 % 5}" for row in range(n)]
    return TrainingData(training_data.store, training_data.clips.assign(sentence=sentence))


@pytest.fixture
def fits(monkeypatch):
    """The rows of every fit and prediction; the prediction is the mean rating of the fitted clips."""
    made = []

    def fitted(training_data, settings, rows, seen):
        assert set(rows) <= set(seen)
        return rows, seen

    def predict(run, training_data, rows):
        made.append((*run, rows))
        return np.full(len(rows), training_data.clips["rating"].to_numpy()[run[0]].mean())

    monkeypatch.setattr(one_step, "fitted", fitted)
    monkeypatch.setattr(one_step, "predict", predict)
    return made


def shares(clips, first, second, column):
    """Whether two selections of rows have a value of a column in common."""
    values = clips[column].to_numpy(dtype=str)
    return bool(set(values[first]) & set(values[second]))


def test_every_clip_is_predicted_once_by_fits_that_share_what_the_grouping_allows(toy, fits, capsys):
    clips = toy.clips.copy()
    clips.loc[::9, "rating"] = np.nan
    about, predictions = predict_groupings(TrainingData(toy.store, clips), RIDGE, 3)
    rated = np.flatnonzero(clips["rating"].notna())
    assert [row["grouping"] for row in about] == list(GROUPINGS)
    assert {row["why"] for row in about} == {""}
    groupings = [grouping for grouping in GROUPINGS for _ in range(6 if grouping == "both" else 3)]
    assert len(fits) == len(groupings)
    printed = capsys.readouterr().out.splitlines()
    assert (printed[0], printed[-1]) == ("fit  1/15   random", "fit 15/15   both")
    for grouping, (inside, seen, out) in zip(groupings, fits, strict=True):
        np.testing.assert_array_equal(seen, rated)
        assert not set(inside) & set(out)
        assert shares(clips, inside, out, "speaker") == (grouping in ("random", "sentence"))
        assert shares(clips, inside, out, "sentence") == (grouping in ("random", "speaker"))
    valence = clips["rating"].to_numpy()
    for number, grouping in enumerate(GROUPINGS):
        own = [fit for fit, of_fit in zip(fits, groupings, strict=True) if of_fit == grouping]
        assert about[number]["trained"] == pytest.approx(np.mean([len(inside) for inside, _, _ in own]))
        frame = predictions[predictions["grouping"] == grouping].set_index("id")
        assert sorted(frame.index) == sorted(clips["id"].iloc[rated])
        for inside, _, out in own:
            of_fit = frame.loc[clips["id"].iloc[out]]
            assert of_fit["prediction"].to_numpy() == pytest.approx(valence[inside].mean())
            np.testing.assert_array_equal(of_fit["truth"], valence[out])
            assert of_fit["speaker"].tolist() == clips["speaker"].iloc[out].tolist()


def test_of_a_large_corpus_all_groupings_take_the_same_sample(toy, fits, monkeypatch):
    monkeypatch.setattr(leakage, "MAX_CLIPS", 60)
    _, predictions = predict_groupings(toy, RIDGE, 3)
    ids = sorted(toy.clips["id"].iloc[sampled(toy.clips)])
    assert len(ids) == 60
    assert [sorted(frame["id"]) for _, frame in predictions.groupby("grouping")] == [ids] * len(GROUPINGS)


def test_rated_clips_are_sampled():
    rows = sampled(pd.DataFrame({"rating": [np.nan, *[3.0] * 2999]}))
    assert len(set(rows)) == MAX_CLIPS and list(rows) == sorted(rows)
    assert rows.min() > 0  # the clip without a rating is not among them


def test_voices_replace_speakers_that_are_not_named(toy, fits, monkeypatch):
    store_streams(toy.store.folder, Tones(), toy.clips, ["pitch"], FEATURES, progress=False)
    given = []

    def four_voices(log_mels, voices):
        given.append([len(rows) for rows in (log_mels, voices)])
        return np.array([f"V{row % 4}" for row in range(len(log_mels))])

    monkeypatch.setattr(pseudo_speakers, "pseudo_speakers", four_voices)
    clips = toy.clips.assign(speaker="")
    _, predictions = predict_groupings(TrainingData(toy.store, clips), RIDGE, 3)
    assert given == [[80, 80]]
    voices = clips.assign(voice=[f"V{row % 4}" for row in range(len(clips))])
    by_voice = [shares(voices, inside, out, "voice") for inside, _, out in fits]
    assert by_voice == [True] * 3 + [False] * 3 + [True] * 3 + [False] * 6
    assert set(predictions["speaker"]) == {""}  # clips are resampled, not clusters


def test_a_grouping_that_a_corpus_does_not_allow_has_a_reason_and_no_fit(toy, fits):
    unnamed = TrainingData(toy.store, toy.clips.drop(columns="sentence"))
    about, predictions = predict_groupings(unnamed, RIDGE, 9)
    why = {row["grouping"]: row["why"] for row in about}
    assert why["random"] == ""
    assert "8 speakers cannot be dealt to 9 folds" in why["speaker"]
    assert WHY in why["sentence"]
    assert [row["trained"] > 0 for row in about] == [not row["why"] for row in about]
    assert set(predictions["grouping"]) == {"random"}
    assert len(fits) == 9
    about, none = predict_groupings(unnamed, RIDGE, 81)  # more folds than clips
    assert all("cannot be dealt" in row["why"] or WHY in row["why"] for row in about)
    assert (len(none), list(none)) == (0, list(predictions))
    assert set(none) == {"grouping", "id", "speaker", "truth", "prediction"}


def test_speakers_are_named_where_every_rated_clip_names_one():
    clips = pd.DataFrame({"speaker": ["A", "B", ""], "rating": [1.0, 2.0, 3.0]})
    assert not names_speakers(clips)
    clips.loc[2, "rating"] = np.nan
    assert names_speakers(clips)
