"""A report's folder: what is saved is loaded unchanged, and the course file is complete."""

import math

import numpy as np
import pandas as pd
import pytest
from hostile import NAMES

from valence_lib.corpora.opening import open_corpus
from valence_lib.errors import RunError
from valence_lib.evaluation.occlusion import Occlusion
from valence_lib.features.log_mel import log_mel
from valence_lib.files import write_json
from valence_lib.preprocess.inspection import QUARANTINE_COLUMNS, inspect_corpus
from valence_lib.preprocess.splits import SplitResult, make_splits
from valence_lib.report.course import course_predictions
from valence_lib.report.folder import (
    groupings,
    held_out_predictions,
    load_clips,
    load_frame,
    load_json,
    load_training_data,
    load_worst,
    save_frame,
    save_preprocessed,
    save_worst,
)
from valence_lib.settings import FEATURES_FOLDER, CorpusSettings, FeatureSettings

NEAR = pd.DataFrame({"first": [], "second": [], "similarity": []})


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory):
    """A report's folder after 1_preprocess, on a few clips of the demo corpus."""
    folder = tmp_path_factory.mktemp("reports") / "tiny"
    corpus, features, admitted = open_corpus("demo"), FeatureSettings(), CorpusSettings(clips_per_speaker=2)
    inspection = inspect_corpus(corpus, admitted, features, folder.parent / FEATURES_FOLDER, progress=False)
    given = list(inspection.clips["subset"])
    split = make_splits(inspection.clips, "holdout", 6, seed=0)
    clips = inspection.clips.assign(subset=split.subset, fold=split.fold)
    save_preprocessed(folder, corpus, clips, inspection.quarantine, NEAR, given, split, features)
    return folder


def test_corpus_json_describes_the_corpus(preprocessed):
    corpus = load_json(preprocessed / "preprocess" / "corpus.json")
    clips = load_clips(preprocessed)
    assert corpus["label_variance"] == pytest.approx(np.var(clips["rating"]), abs=1e-12)
    assert (corpus["clips"], corpus["speakers"], corpus["quarantined"]) == (30, 15, 0)
    assert 0 < corpus["lowest_mse"] < corpus["label_variance"]
    assert corpus["encoder"] is None


def test_corpus_json_has_given_subsets_unnamed_speakers_and_the_encoder(preprocessed, tmp_path):
    clips = load_clips(preprocessed)
    given = ["test", "train", "", "validation", "test"] + [""] * (len(clips) - 5)
    clips.loc[[0, 7, 8], "speaker"] = ""
    clips.loc[[8, 9], "rating"] = math.nan
    subsets, quarantine = clips["subset"].to_numpy(dtype=str), pd.DataFrame(columns=QUARANTINE_COLUMNS)
    split = SplitResult("holdout", "speaker", {"": subsets}, subsets, [])
    corpus, features = open_corpus("demo"), FeatureSettings(encoder="d1g3st", encoder_layer="3")
    save_preprocessed(tmp_path, corpus, clips, quarantine, NEAR, given, split, features, "own/encoder")
    content = load_json(tmp_path / "preprocess" / "corpus.json")
    assert content["encoder"] == {"name": "own/encoder", "digest": "d1g3st", "layer": "3"}
    assert content["split"]["given"] == ["test", "validation"]  # training clips are the remaining ones
    assert content["split"]["unnamed"] == 2  # 0 and 7; 8 has no rating
    sizes = {subset: rows["clips"] for subset, rows in content["split"]["subsets"].items()}
    assert sizes == clips["subset"].value_counts().to_dict()


def test_corpus_json_names_the_corpora_that_are_tested_as_a_whole(tmp_path, manifest_folder):
    corpus = open_corpus("demo", test_corpus=str(manifest_folder))
    features, admitted = FeatureSettings(), CorpusSettings(clips_per_speaker=1)
    inspection = inspect_corpus(corpus, admitted, features, tmp_path / FEATURES_FOLDER, progress=False)
    given = list(inspection.clips["subset"])
    split = make_splits(inspection.clips, "holdout", 6, seed=0)
    clips = inspection.clips.assign(subset=split.subset, fold=split.fold)
    save_preprocessed(tmp_path, corpus, clips, inspection.quarantine, NEAR, given, split, features)
    content = load_json(tmp_path / "preprocess" / "corpus.json")
    assert content["split"]["tested_alone"] == ["spoken"]
    assert [part["name"] for part in content["corpora"]] == ["demo", "spoken"]


def write_clips(folder, clips, target="valence"):
    """clips.csv of a report, with its target in corpus.json."""
    save_frame(folder / "preprocess" / "clips.csv", clips)
    write_json(folder / "preprocess" / "corpus.json", {"target": target})


def test_text_stays_text_and_numbers_stay_numbers(tmp_path):
    texts = ["NA", "None", "001", "1e3", "nan", "", "null", "TRUE", "-", 'a,"b"\nc', "2.50"]
    frame = pd.DataFrame(
        {
            "index": range(len(texts)),
            "id": texts,
            "emotion": texts,
            "arousal": [0.1 + 0.2, math.nan, *[3.0] * (len(texts) - 2)],
            "arousal_a1": [math.nan] * len(texts),
            "arousal_a12": np.linspace(1, 5, len(texts)),
            "arousal_mood": texts,
            "valence_a1": texts,  # not of the target
        }
    )
    write_clips(tmp_path, frame, "arousal")
    assert ",0.30000000000000004," in (tmp_path / "preprocess" / "clips.csv").read_text()
    loaded = load_clips(tmp_path)
    assert list(loaded)[3:6] == ["rating", "rating_a1", "rating_a12"]
    for column in ("index", "id", "emotion", "arousal_mood", "valence_a1"):
        assert loaded[column].tolist() == frame[column].tolist()
    for column in ("rating", "rating_a1", "rating_a12"):
        assert loaded[column].dtype == np.float64
        np.testing.assert_array_equal(loaded[column], frame[column.replace("rating", "arousal")])


@pytest.mark.parametrize("name", [*NAMES.values(), "a\rb", "a\r\nb", "a\x00b", '"', " a ", "a\u2028b"])
def test_a_table_keeps_the_exact_text_of_names(name, tmp_path):
    frame = pd.DataFrame({"id": [name, "z"], "speaker": ["y", name], "rating": [1.5, math.nan]})
    save_frame(tmp_path / "clips.csv", frame)
    pd.testing.assert_frame_equal(load_frame(tmp_path / "clips.csv"), frame)
    # Any other reader too.
    assert pd.read_csv(tmp_path / "clips.csv")["rating"].tolist() == pytest.approx(
        [1.5, math.nan], nan_ok=True
    )


@pytest.mark.parametrize("load", [load_frame, load_json])
def test_an_absent_file_is_an_error_with_the_remedy(tmp_path, load):
    with pytest.raises(RunError, match=r"there is no '.*absent'; first run the notebook that writes it"):
        load(tmp_path / "absent")


def test_training_data_has_the_frames_of_each_clip(preprocessed):
    training_data = load_training_data(preprocessed)
    demo = open_corpus("demo")
    for row in (0, 13, 29):
        waveform = demo.read(int(training_data.clips["index"][row])).waveform
        expected = log_mel(waveform, training_data.store.settings)
        np.testing.assert_array_equal(training_data.store[row], expected)


def test_labels_of_the_corpus_do_not_replace_the_columns_of_the_run(tmp_path):
    clips = pd.DataFrame({"id": list("abc"), "subset": ["train", "test", "test"], "truth": 9.0})
    clips = clips.assign(valence=[2.0, 3.0, 4.0], emotion=["joy", "fear", "joy"])
    write_clips(tmp_path, clips)
    predictions = clips.loc[1:, ["id", "subset"]].assign(truth=[3.0, 4.0], prediction=[2.5, 4.5])
    save_frame(tmp_path / "runs" / "r" / "predictions.csv", predictions)
    found = held_out_predictions(tmp_path, "r")
    expected = predictions.assign(emotion=["fear", "joy"])
    assert found[list(expected)].to_dict("list") == expected.to_dict("list")


def test_the_worst_clips_are_loaded_as_they_were_saved(tmp_path):
    rng = np.random.default_rng(0)
    waveforms = [rng.normal(size=n).astype(np.float32) for n in (5, 7)]
    occlusions = [
        Occlusion(rng.normal(size=(2, 3)), np.arange(3.0), np.arange(4.0), 2.5 + n) for n in range(2)
    ]
    save_worst(tmp_path, waveforms, occlusions)
    loaded = load_worst(tmp_path)
    for (waveform, occlusion), own, expected in zip(loaded, waveforms, occlusions, strict=True):
        np.testing.assert_array_equal(waveform, own)
        for values, own_values in zip(occlusion, expected, strict=True):
            np.testing.assert_array_equal(values, own_values)


@pytest.mark.parametrize(("speakers", "shown"), [(1, False), (2, True), (40, True), (41, False)])
def test_a_label_with_too_few_or_too_many_values_is_not_a_grouping(speakers, shown):
    speaker = [f"S{n}" for n in range(speakers)] + [""]
    predictions = pd.DataFrame({"speaker": speaker, "sex": "", "emotion": ["joy"] + ["fear"] * speakers})
    assert groupings(predictions) == (["speaker", "emotion"] if shown else ["emotion"])


def test_several_corpora_are_a_grouping_and_one_is_not():
    predictions = pd.DataFrame({"corpus": "a", "speaker": ["a/1", "b/1"]})
    assert groupings(predictions) == ["speaker"]
    assert groupings(predictions.assign(corpus=["a", "b"])) == ["corpus", "speaker"]


# The course file


def test_the_course_file_has_a_row_for_each_test_pickle(tmp_path):
    clips = pd.DataFrame(
        {
            "index": [0, 1, 4, 3],
            "id": ["train/0.pkl", "train/1.pkl", "test/11.pkl", "test/10.pkl"],
            "subset": ["train", "train", "unlabelled", "unlabelled"],
            "valence": [2.0, 3.0, math.nan, math.nan],
        }
    )
    quarantine = [
        (2, "train/7.pkl", "train", "silent", "nothing", ""),
        (5, "test/12.pkl", "test", "duplicate", "the same audio", "test/11.pkl"),
        (6, "test/=13.pkl", "test", "silent", "nothing", ""),
    ]
    predictions = pd.DataFrame({"id": ["test/11.pkl", "test/10.pkl"], "prediction": [4.5, 1.50004]})
    write_clips(tmp_path, clips)
    quarantined = pd.DataFrame(quarantine, columns=QUARANTINE_COLUMNS)
    save_frame(tmp_path / "preprocess" / "quarantine.csv", quarantined)
    save_frame(tmp_path / "runs" / "r" / "predictions.csv", predictions)
    written = course_predictions(tmp_path, "r")
    assert list(written.columns) == ["ID", "Label"]
    assert list(written.itertuples(index=False, name=None)) == [
        ("10.pkl", "1.5000"),
        ("11.pkl", "4.5000"),
        ("12.pkl", "4.5000"),
        ("'=13.pkl", "2.5000"),  # no formula
    ]


def test_there_is_no_course_file_if_all_test_clips_are_rated(preprocessed):
    assert course_predictions(preprocessed, "any") is None
