"""The leakage meter: what it reads of its folds, in pairs and with the right sign, and the folds that it asks for."""

import numpy as np
import pandas as pd
import pytest

from valence_lib import report
from valence_lib.corpora import open_corpus
from valence_lib.divisions import DESIGNS
from valence_lib.errors import CorpusError, RunError
from valence_lib.files import write_json
from valence_lib.inspection import inspect_corpus
from valence_lib.leakage import designed_divisions, measure, names_speakers, try_designed_divisions
from valence_lib.metrics import ccc, mse
from valence_lib.settings import CorpusSettings, FeatureSettings
from valence_lib.store import FeatureStore, store_streams

SPEAKERS, SENTENCES, TAKES = 8, 6, 2
WHY = "not every clip names its sentence"


@pytest.fixture
def clips():
    """96 rated clips: every speaker says every sentence twice."""
    rng = np.random.default_rng(0)
    who, what, _ = (grid.ravel() for grid in np.indices((SPEAKERS, SENTENCES, TAKES)))
    return pd.DataFrame(
        {
            "index": np.arange(len(who)),
            "id": [f"clip {number:03}" for number in range(len(who))],
            "speaker": [f"S{number}" for number in who],
            "sentence": [f"T{number}" for number in what],
            "valence": rng.uniform(1, 5, len(who)).round(2),
        }
    )


# What was measured


def predicted(clips, deviation, seed):
    """What a model says that is off by a deviation."""
    error = np.random.default_rng(seed).normal(0, deviation, len(clips))
    return clips[["id", "speaker"]].assign(
        part="out_of_fold", truth=clips["valence"], prediction=clips["valence"] + error
    )


def write_design(folder, design, frame, trained=60.0, pseudo=False, why=""):
    """What a job of the meter leaves."""
    write_json(folder / design / "design.json", {"why": why, "pseudo": pseudo, "trained": trained})
    if frame is not None:
        report.save_frame(folder / design / "predictions.csv", frame)


@pytest.fixture
def measured(tmp_path, clips):
    """The meter's folder for a corpus with speakers whose clips name no sentence, and the predictions in it."""
    frames = {"random": predicted(clips, 0.3, 1), "speaker": predicted(clips, 0.9, 2)}
    write_design(tmp_path, "random", frames["random"], 70.5)
    write_design(tmp_path, "speaker", frames["speaker"])
    write_design(tmp_path, "sentence", None, why=WHY)
    return tmp_path, frames


def test_the_reference_comes_first_and_is_held_against_nothing(measured):
    folder, frames = measured
    rows = measure(folder, ("random", "speaker", "sentence"), None)
    assert [row["design"] for row in rows] == ["speaker", "random", "sentence"]
    reference = rows[0]
    assert reference["against"] is None
    assert (reference["n"], reference["trained"], reference["pseudo"]) == (96, 60, False)
    for name, metric in (("mse", mse), ("ccc", ccc)):
        assert reference[name] == pytest.approx(
            metric(frames["speaker"]["truth"], frames["speaker"]["prediction"])
        )
        low, high = reference["intervals"][name]
        assert low < reference[name] < high


def test_differences_are_those_of_the_scores_and_tell_what_is_better(measured):
    folder, _ = measured
    reference, random, _ = measure(folder, ("random", "speaker", "sentence"), None)
    for metric in ("mse", "ccc"):
        against = random["against"][metric]
        assert against["difference"] == pytest.approx(random[metric] - reference[metric])
        assert against["low"] < against["difference"] < against["high"]
        assert against["verdict"] == "better"
    assert random["against"]["mse"]["difference"] < 0 < random["against"]["ccc"]["difference"]


def test_clips_are_paired_by_name_in_whatever_order_they_stand(measured):
    folder, frames = measured
    expected = measure(folder, ("random", "speaker"), None)
    report.save_frame(folder / "random" / "predictions.csv", frames["random"].sample(frac=1, random_state=3))
    assert measure(folder, ("random", "speaker"), None) == expected


def test_the_same_predictions_differ_by_nothing(tmp_path, clips):
    for design in ("random", "speaker"):
        write_design(tmp_path, design, predicted(clips, 0.5, 4))
    against = measure(tmp_path, ("random", "speaker"), None)[1]["against"]
    assert [against[metric]["difference"] for metric in ("mse", "ccc")] == [0, 0]
    assert [against[metric]["verdict"] for metric in ("mse", "ccc")] == ["tie", "tie"]


def test_a_design_that_there_is_not_says_why_and_has_no_scores(measured):
    folder, _ = measured
    (row,) = (row for row in measure(folder, ("speaker", "sentence"), None) if row["design"] == "sentence")
    assert row["why"] == WHY
    assert not {"n", "mse", "ccc", "against"} & set(row)


def test_the_reports_own_folds_are_the_reference_where_they_are_by_speaker(measured, clips):
    folder, _ = measured
    reference = predicted(clips, 1.2, 5)
    reference.attrs["trained"] = np.float64(80.0)
    rows = measure(folder, ("random", "sentence"), reference)
    assert [row["design"] for row in rows] == ["speaker", "random", "sentence"]
    assert (rows[0]["trained"], rows[0]["pseudo"], rows[0]["why"]) == (80, False, "")
    assert rows[0]["mse"] == pytest.approx(mse(reference["truth"], reference["prediction"]))


def test_clusters_in_the_place_of_speakers_are_told(tmp_path, clips):
    unnamed = clips.assign(speaker="")
    write_design(tmp_path, "random", predicted(unnamed, 0.3, 1))
    write_design(tmp_path, "speaker", predicted(unnamed, 0.9, 2), pseudo=True)
    rows = measure(tmp_path, ("random", "speaker"), None)
    assert [(row["design"], row["pseudo"]) for row in rows] == [("speaker", True), ("random", False)]


def test_without_the_reference_nothing_is_held_against_it(tmp_path, clips):
    write_design(tmp_path, "random", predicted(clips, 0.3, 1))
    write_design(tmp_path, "speaker", None, why="too few")
    rows = measure(tmp_path, ("random", "speaker"), None)
    assert [(row["design"], row["why"], "mse" in row) for row in rows] == [
        ("random", "", False),
        ("speaker", "too few", False),
    ]


def test_without_designs_there_is_no_row_but_the_reference(tmp_path, clips):
    assert measure(tmp_path, (), None) == []
    reference = predicted(clips, 1.2, 5)
    reference.attrs["trained"] = 80
    assert [row["design"] for row in measure(tmp_path, (), reference)] == ["speaker"]


def test_a_design_that_was_not_trained_is_named(tmp_path):
    with pytest.raises(RunError, match="random"):
        measure(tmp_path, ("random",), None)


# The folds


def shared(clips, parts, column):
    """What is heard on both sides of a division."""
    train = np.isin(parts, ["train", "validation"])
    return set(clips.loc[train, column]) & set(clips.loc[parts == "test", column])


@pytest.mark.parametrize("design", DESIGNS)
def test_every_rated_clip_is_tested_once_by_who_shares_nothing_with_it(clips, design):
    clips.loc[::9, "valence"] = np.nan
    divisions = designed_divisions(clips, None, design, 3)  # named speakers need no store
    rated = clips["valence"].notna().to_numpy()
    assert list(divisions)[:3] == ["fold-0", "fold-1", "fold-2"]
    tested = sum((parts == "test").astype(int) for parts in divisions.values())
    np.testing.assert_array_equal(tested, rated.astype(int))
    for parts in divisions.values():
        assert set(parts[~rated]) == {"unused"}
        assert {"train", "validation", "test"} <= set(parts)
        assert bool(shared(clips, parts, "speaker")) == (design in ("random", "sentence"))
        assert bool(shared(clips, parts, "sentence")) == (design in ("random", "speaker"))


def test_speakers_are_named_where_every_rated_clip_names_one(clips):
    assert names_speakers(clips)
    clips.loc[3, "speaker"] = ""
    assert not names_speakers(clips)
    clips.loc[3, "valence"] = np.nan
    assert names_speakers(clips)


def test_a_design_without_folds_says_why(clips):
    divisions, why = try_designed_divisions(clips.drop(columns="sentence"), None, "sentence", 3)
    assert divisions == {}
    assert "not every clip names its sentence" in why
    with pytest.raises(CorpusError, match="not every clip names its sentence"):
        designed_divisions(clips.drop(columns="sentence"), None, "both", 3)
    divisions, why = try_designed_divisions(clips, None, "speaker", 9)
    assert divisions == {}
    assert "8 speakers cannot be dealt to 9 folds" in why


@pytest.fixture(scope="module")
def unnamed(tmp_path_factory):
    """Clips of the demo corpus, its speakers' names kept apart, and a store that holds the stream of voices."""
    folder, features = tmp_path_factory.mktemp("features"), FeatureSettings()
    corpus = open_corpus("demo")
    found = inspect_corpus(
        corpus, CorpusSettings(clips_per_speaker=8), features, folder, progress=False
    ).clips
    clips = found.assign(speaker="", valence=found["valence"].where(np.arange(len(found)) % 10 > 0))
    store_streams(folder, corpus, clips, ["voice"], features, progress=False)
    return clips, found["speaker"], FeatureStore(folder, clips, features)


@pytest.mark.parametrize("design", ["speaker", "both"])
def test_voices_stand_in_for_speakers_that_are_not_named(unnamed, design):
    clips, speakers, store = unnamed
    divisions = designed_divisions(clips, store, design, 3)
    rated = clips["valence"].notna().to_numpy()
    tested = sum((parts == "test").astype(int) for parts in divisions.values())
    np.testing.assert_array_equal(tested, rated.astype(int))
    assert all(set(parts[~rated]) == {"unused"} for parts in divisions.values())
    assert (clips["speaker"] == "").all()  # the corpus's own table is left as it was
    # Clusters are not the speakers, but fewer clips meet theirs in training than where clips are dealt one by one.
    named = clips.assign(speaker=speakers, sentence=clips["language"] + clips["sentence"])
    met = [
        named.loc[parts == "test", "speaker"].isin(shared(named, parts, "speaker"))
        for parts in divisions.values()
    ]
    assert pd.concat(met).mean() < 0.9
    assert any(shared(named, parts, "sentence") for parts in divisions.values()) == (design == "speaker")
    again = designed_divisions(clips, store, design, 3)
    assert all((again[name] == parts).all() for name, parts in divisions.items())


def test_what_needs_no_speaker_needs_no_voices(unnamed):
    clips, _, _ = unnamed
    assert len(designed_divisions(clips, None, "random", 4)) == 4
