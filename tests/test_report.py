"""A report's folder: what is saved comes back, and the hand-in file is complete."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from valence_lib import report
from valence_lib.corpora import open_corpus
from valence_lib.errors import RunError
from valence_lib.inspection import QUARANTINE_COLUMNS, inspect_corpus
from valence_lib.protocols import Split, divide
from valence_lib.records import FEATURES_FOLDER
from valence_lib.settings import CorpusSettings, FeatureSettings

NEAR = pd.DataFrame({"first": [], "second": [], "similarity": []})
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory):
    """A report's folder after 1_preprocess, on a few clips of the demo corpus."""
    folder = tmp_path_factory.mktemp("reports") / "tiny"
    corpus, features, admitted = open_corpus("demo"), FeatureSettings(), CorpusSettings(clips_per_speaker=2)
    store = folder.parent / FEATURES_FOLDER
    inspection = inspect_corpus(corpus, admitted, features, store, progress=False)
    given = list(inspection.clips["part"])
    split = divide(inspection.clips, "holdout", 6, seed=0)
    clips = inspection.clips.assign(part=split.part, fold=split.fold)
    report.save_preprocessed(
        folder, corpus, clips, inspection.quarantine, NEAR, given, split, admitted, features
    )
    return folder


def test_the_corpus_file_holds_what_the_report_says_of_the_corpus(preprocessed):
    corpus = report.load_json(preprocessed / "preprocess" / "corpus.json")
    clips = report.load_frame(preprocessed / "preprocess" / "clips.csv")
    assert corpus["label_variance"] == pytest.approx(np.var(clips["valence"]), abs=1e-12)
    assert (corpus["clips"], corpus["speakers"], corpus["quarantined"]) == (30, 15, 0)
    assert corpus["split"]["by"] == "speaker"
    assert corpus["split"]["shared_speakers"] == []
    assert (corpus["split"]["given"], corpus["split"]["unnamed"]) == ([], 0)
    assert corpus["synthetic"] is True
    assert 0 < corpus["lowest_mse"] < corpus["label_variance"]
    assert corpus["encoder"] is None


def test_the_corpus_file_names_given_parts_unnamed_speakers_of_rated_clips_and_the_encoder(
    preprocessed, tmp_path
):
    clips = report.load_frame(preprocessed / "preprocess" / "clips.csv")
    given = ["test", "train", "", "validation", "test"] + [""] * (len(clips) - 5)
    clips.loc[[0, 7, 8], "speaker"] = ""
    clips.loc[[8, 9], "valence"] = math.nan
    parts, quarantine = clips["part"].to_numpy(dtype=str), pd.DataFrame(columns=QUARANTINE_COLUMNS)
    split = Split("holdout", "speaker", {"": parts}, parts, [])
    settings = CorpusSettings(), FeatureSettings(encoder="d1g3st", encoder_layer="3")
    report.save_preprocessed(
        tmp_path, open_corpus("demo"), clips, quarantine, NEAR, given, split, *settings, "own/encoder"
    )
    corpus = report.load_json(tmp_path / "preprocess" / "corpus.json")
    assert corpus["encoder"] == {"name": "own/encoder", "digest": "d1g3st", "layer": "3"}
    # Training clips are what is left over: to name them divides nothing off.
    assert corpus["split"]["given"] == ["test", "validation"]
    assert corpus["split"]["unnamed"] == 2  # 0 and 7; 8 has no rating, and its voice leaks nothing
    sizes = {part: rows["clips"] for part, rows in corpus["split"]["parts"].items()}
    assert sizes == clips["part"].value_counts().to_dict()


def test_text_stays_text_and_numbers_stay_numbers(tmp_path):
    texts = ["NA", "None", "001", "1e3", "nan", "", "null", "TRUE", "-", 'a,"b"\nc', "2.50"]
    frame = pd.DataFrame(
        {
            "index": range(len(texts)),
            "id": texts,
            "speaker": texts[::-1],
            "part": "",
            "emotion": texts,
            "sentence": ["007"] * len(texts),
            "valence": [0.1 + 0.2, math.nan, *[3.0] * (len(texts) - 2)],
            "valence_a1": [math.nan] * len(texts),
            "valence_a12": np.linspace(1, 5, len(texts)),
            "valence_mood": texts,
        }
    )
    report.save_frame(tmp_path / "clips.csv", frame)
    assert ",0.30000000000000004," in (tmp_path / "clips.csv").read_text()
    loaded = report.load_frame(tmp_path / "clips.csv")
    for column in ("id", "emotion", "valence_mood"):
        assert loaded[column].tolist() == texts
    assert loaded["speaker"].tolist() == texts[::-1]
    assert set(loaded["part"]) == {""}
    assert set(loaded["sentence"]) == {"007"}
    assert loaded["index"].tolist() == list(range(len(texts)))
    assert pd.api.types.is_integer_dtype(loaded["index"])
    for column in ("valence", "valence_a1", "valence_a12"):
        assert loaded[column].dtype == np.float64
        np.testing.assert_array_equal(loaded[column], frame[column])


def test_an_empty_table_comes_back_with_its_columns(tmp_path):
    report.save_frame(tmp_path / "quarantine.csv", pd.DataFrame(columns=QUARANTINE_COLUMNS))
    loaded = report.load_frame(tmp_path / "quarantine.csv")
    assert (len(loaded), list(loaded)) == (0, QUARANTINE_COLUMNS)


def test_material_gives_each_row_its_own_frames(preprocessed):
    from valence_lib.features import log_mel

    material = report.load_material(preprocessed)
    demo = open_corpus("demo")
    for row in (0, 13, 29):
        expected = log_mel(demo.read(int(material.clips["index"][row])).waveform, material.store.settings)
        np.testing.assert_array_equal(material.store[row], expected)


def test_labels_named_as_the_run_s_own_columns_do_not_take_their_place(tmp_path):
    clips = pd.DataFrame(
        {
            "index": [0, 1, 2],
            "id": ["a", "b", "c"],
            "part": ["train", "test", "test"],
            "valence": [2.0, 3.0, 4.0],
            "speaker": ["S1", "S2", "S3"],
            "duration_seconds": [1.0, 1.5, 2.0],
            "truth": [9.0, 9.0, 9.0],
            "prediction": [8.0, 8.0, 8.0],
            "emotion": ["joy", "fear", "joy"],
        }
    )
    report.save_frame(tmp_path / "preprocess" / "clips.csv", clips)
    predictions = clips.loc[1:, ["id", "part", "speaker", "duration_seconds"]].assign(
        truth=[3.0, 4.0], prediction=[2.5, 4.5]
    )
    report.save_frame(tmp_path / "runs" / "r" / "predictions.csv", predictions)
    found = report.tested_predictions(tmp_path, "r")
    expected = predictions.assign(emotion=["fear", "joy"])
    assert found[list(expected)].to_dict("list") == expected.to_dict("list")


@pytest.mark.parametrize(("speakers", "shown"), [(1, False), (2, True), (40, True), (41, False)])
def test_labels_of_too_many_values_to_show_are_no_grouping(speakers, shown):
    speaker = [f"S{n}" for n in range(speakers)] + [""]
    predictions = pd.DataFrame({"speaker": speaker, "sex": "", "emotion": ["joy"] + ["fear"] * speakers})
    assert report.groupings(predictions) == (["speaker", "emotion"] if shown else ["emotion"])


def test_course_predictions_have_one_row_a_test_pickle_also_for_quarantined_ones(tmp_path):
    clips = pd.DataFrame(
        {
            "index": [0, 1, 4, 3],
            "id": ["train/0.pkl", "train/1.pkl", "test/11.pkl", "test/10.pkl"],
            "part": ["train", "train", "unlabelled", "unlabelled"],
            "valence": [2.0, 3.0, math.nan, math.nan],
            "speaker": "",
        }
    )
    quarantine = pd.DataFrame(
        [
            (2, "train/7.pkl", "train", "silent", "nothing", ""),
            (5, "test/12.pkl", "test", "duplicate", "the same audio", "test/11.pkl"),
            (6, "test/13.pkl", "test", "silent", "nothing", ""),
        ],
        columns=QUARANTINE_COLUMNS,
    )
    report.save_frame(tmp_path / "preprocess" / "clips.csv", clips)
    report.save_frame(tmp_path / "preprocess" / "quarantine.csv", quarantine)
    predictions = pd.DataFrame(
        {"id": ["test/11.pkl", "test/10.pkl"], "part": "unlabelled", "prediction": [4.5, 1.5]}
    )
    report.save_frame(tmp_path / "runs" / "r" / "predictions.csv", predictions)
    written = report.course_predictions(tmp_path, "r")
    assert list(written.columns) == ["ID", "Label"]
    assert list(written.itertuples(index=False, name=None)) == [
        ("10.pkl", "1.5000"),
        ("11.pkl", "4.5000"),
        ("12.pkl", "4.5000"),
        ("13.pkl", "2.5000"),
    ]


def test_course_predictions_of_one_pickle_stand_in_its_order_and_with_four_decimals(tmp_path):
    ids = [f"test.pkl#{n}" for n in range(12)]
    training = pd.DataFrame({"index": [0], "id": ["train.pkl#0"], "part": "train", "valence": [10 / 3]})
    tested = pd.DataFrame({"index": range(1, 13), "id": ids, "part": "unlabelled", "valence": math.nan})
    clips = pd.concat([training, tested.drop(index=2)])
    quarantine = pd.DataFrame([(3, ids[2], "test", "silent", "nothing", "")], columns=QUARANTINE_COLUMNS)
    report.save_frame(tmp_path / "preprocess" / "clips.csv", clips)
    report.save_frame(tmp_path / "preprocess" / "quarantine.csv", quarantine)
    values = {clip: 1.00004 + n / 10 for n, clip in enumerate(ids) if n != 2}
    predictions = pd.DataFrame(
        {"id": list(values)[::-1], "part": "unlabelled", "prediction": list(values.values())[::-1]}
    )
    report.save_frame(tmp_path / "runs" / "r" / "predictions.csv", predictions)
    written = report.course_predictions(tmp_path, "r")
    assert written["ID"].tolist() == ids  # 10 after 9, and not after 1
    labels = dict(zip(written["ID"], written["Label"], strict=True))
    assert (labels[ids[0]], labels[ids[9]], labels[ids[11]]) == ("1.0000", "1.9000", "2.1000")
    assert labels[ids[2]] == "3.3333"
    report.save_frame(tmp_path / "predictions.csv", written)
    assert (tmp_path / "predictions.csv").read_text().splitlines()[:2] == ["ID,Label", "test.pkl#0,1.0000"]


def test_no_course_predictions_where_all_test_clips_are_rated(preprocessed):
    assert report.course_predictions(preprocessed, "any") is None


def test_references_number_every_entry_and_link_to_it():
    text, cite = report.references(NOTEBOOKS / "references.bib")
    assert {"du2020", "lilhore2023"} <= set(cite)
    for key, mark in cite.items():
        assert f'<a id="ref-{key}"></a>' in text
        assert f"(#ref-{key})" in mark
    with pytest.raises(RunError, match="cannot be read as BibTeX"):
        report.references(NOTEBOOKS / "absent.bib")
