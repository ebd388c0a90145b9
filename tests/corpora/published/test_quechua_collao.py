"""Quechua Collao as published, in miniature, with its faults."""

import math

import openpyxl
import pytest

from valence_lib.corpora.published.quechua_collao import CORPUS
from valence_lib.errors import CorpusError

CLIPS = [  # Audio, Emotion, Actor, File
    (10006, "happy", "a4", "a4_H001.wav"),
    (10007, "happy", "a4", "a4_H001.wav"),  # in truth of a5
    (10008, "angry", "a5", "a5_A003.wav"),
    (10009, "anger", "a1", "a1_A003.wav"),
    (14197, "neutral", "6-", "6-N093..wav"),
    (20888, "neutral", "2_", "2_N 089.wav"),
    (22210, "sleepy", "a2", "a2_To43.wav"),
    (22415, "bored", "a3", "a3_B010.wav"),
    (11817, "boredom", "b9", "?"),
]
CONSENSUS = {22210: "4442.6", 22415: "4.75"}  # the first is a mean that includes the number of the recording
VALENCE = {10006: "4,5,4,4", 22210: "1,2,2,2", 22415: "3,3,11,2", 10008: "1,,2,1"}


def build(folder, make_wav):
    """Nine clips of six actors, with the faults of the published tables."""
    for name in ("Data/Data", "Labels/Labels"):
        (folder / name).mkdir(parents=True)
    book = openpyxl.Workbook()
    book.active.title = "summary"
    book.active.append(["Emotion", "Total"])
    book.active.append(["happy", 1380])
    sheet = book.create_sheet("map")
    sheet.append(["Audio", "Emotion", "Actor", "File", "Duration (s)"])
    for clip in CLIPS:
        sheet.append([*clip, 1.5])
        make_wav(folder / "Audios" / f"{clip[0]}.wav", rate=44100)
    book.save(folder / "Data" / "Data" / "Data.xlsx")
    numbers = [clip[0] for clip in CLIPS]
    tables = folder / "Labels" / "Labels"
    lines = ["Audio,Valence,Arousal,Dominance", *(f"{n},{CONSENSUS.get(n, '2.5')},3,3.25" for n in numbers)]
    (tables / "Labels.csv").write_text("\n".join(lines) + "\n")
    lines = ["Audio,N1,N2,N3,N4", *(f"{n},{VALENCE.get(n, '2,2,3,3')}" for n in numbers)]
    (tables / "Valence.csv").write_text("\n".join(lines) + "\n")
    (tables / "Arousal.csv").write_text("\n".join(["Audio,N1,N2,N3,N4", *(f"{n},3,3,3,3" for n in numbers)]))
    return folder


@pytest.fixture
def folder(tmp_path, make_wav):
    return build(tmp_path / "Quechua", make_wav)


def _by_number(labels):
    return {int(row.file.removeprefix("Audios/").removesuffix(".wav")): row for row in labels.rows}


def test_clips_ratings_and_raters(folder):
    labels = CORPUS.read(folder, "valence")
    rows = _by_number(labels)

    assert [row.file for row in labels.rows] == sorted(f"Audios/{clip[0]}.wav" for clip in CLIPS)
    assert rows[10006].rating == 2.5  # as stored, though the mean of the annotators is 4.25
    assert rows[10006].by_rater == {"N1": 4, "N2": 5, "N3": 4, "N4": 4}
    assert math.isnan(rows[10008].by_rater["N2"])
    assert rows[10006].labels == {
        **{"speaker": "a4", "sex": "", "language": "qu", "sentence": "H001", "emotion": "happiness"},
    }
    assert {rows[10008].labels["emotion"], rows[10009].labels["emotion"]} == {"anger"}
    assert {rows[11817].labels["emotion"], rows[22415].labels["emotion"]} == {"boredom"}
    assert all(row.problem is None for row in labels.rows)
    assert [path.name for path in labels.tables] == ["Data.xlsx", "Labels.csv", "Valence.csv"]


def test_ratings_outside_the_scale_do_not_count(folder):
    labels = CORPUS.read(folder, "valence")
    rows = _by_number(labels)

    assert rows[22210].rating == 1.75  # of 1, 2, 2, 2
    assert rows[22415].rating == pytest.approx(8 / 3)  # of 3, 3, 2
    assert math.isnan(rows[22415].by_rater["N3"])
    (note,) = [note for note in labels.notes if "outside" in note]
    assert note == (
        "2 clips have a valence outside the scale of 1 to 5; their ratings are the means of those within, "
        "such as 'Audios/22210.wav'."
    )
    assert not any("outside" in note for note in CORPUS.read(folder, "arousal").notes)


def test_actors_and_items(folder):
    labels = CORPUS.read(folder, "valence")
    rows = _by_number(labels)

    assert [rows[n].labels["speaker"] for n in (14197, 20888, 11817)] == ["a6", "a2", ""]
    assert [rows[n].labels["sentence"] for n in (14197, 20888, 22210, 11817)] == ["N093", "N089", "T043", ""]
    assert "2 recordings have an actor without the letter a; it is added, such as '14197'." in labels.notes
    assert (
        "1 recording has an actor other than a1 to a6; its speaker counts as unknown: '11817'."
        in labels.notes
    )


def test_an_actor_who_has_items_twice_is_noted_and_not_repaired(folder):
    labels = CORPUS.read(folder, "valence")

    assert {_by_number(labels)[n].labels["speaker"] for n in (10006, 10007)} == {"a4"}
    (note,) = [note for note in labels.notes if "twice" in note]
    assert note.startswith("1 item occurs twice under the actor a4, such as 'H001', and never under a1 or a2")
    assert "a5" in note and "a split by speaker may not keep these actors apart" in note


def test_dimensions_without_single_ratings_and_the_clips_alone(folder):
    dominance = CORPUS.read(folder, "dominance")
    clips = CORPUS.read(folder, "")

    assert {row.rating for row in dominance.rows} == {3.25}
    assert all(row.by_rater == {} for row in dominance.rows)
    assert dominance.notes[0] == "There is no Dominance.csv: the single annotators' ratings are unknown."
    assert {row.rating for row in clips.rows} == {None}
    assert [row.labels for row in clips.rows] == [row.labels for row in dominance.rows]


def test_the_mean_of_the_annotators_where_no_consensus_is_stored(folder):
    (folder / "Labels" / "Labels" / "Labels.csv").unlink()

    assert _by_number(CORPUS.read(folder, "valence"))[10006].rating == 4.25


def test_recordings_without_labels(folder, make_wav):
    make_wav(folder / "Audios" / "99999.wav")
    make_wav(folder / "Audios" / "._10006.wav")

    assert "1 recording has no labels: 'Audios/99999.wav'." in CORPUS.read(folder, "valence").notes


def test_a_text_instead_of_a_rating(folder):
    table = folder / "Labels" / "Labels" / "Valence.csv"
    table.write_text(table.read_text().replace("10006,4", "10006,four"))

    problem = _by_number(CORPUS.read(folder, "valence"))[10006].problem

    assert problem.reason == "label not a number"
    assert str(problem) == "N1 in line 2 of 'Valence.csv' is 'four'; expected a number from 1 to 5."


def test_tables_that_are_absent_or_of_another_form(folder):
    tables = folder / "Labels" / "Labels"
    (tables / "Valence.csv").write_text("Audio,Ann,Bo\n10006,4,5\n")
    with pytest.raises(CorpusError, match=r"'Valence.csv' has the columns Audio, Ann, Bo; expected Audio"):
        CORPUS.read(folder, "valence")
    (tables / "Labels.csv").write_text("Audio,V\n10006,4\n")
    with pytest.raises(CorpusError, match=r"'Labels.csv' has the columns Audio, V; expected Audio, Valence"):
        CORPUS.read(folder, "valence")
    for path in tables.iterdir():
        path.unlink()
    with pytest.raises(CorpusError, match=r"has data.xlsx in Data/ and Labels/; expected Labels.csv"):
        CORPUS.read(folder, "valence")
    workbook = folder / "Data" / "Data" / "Data.xlsx"
    workbook.rename(workbook.with_name("map.xlsx"))
    with pytest.raises(CorpusError, match=r"has map.xlsx in Data/ and Labels/; expected Data.xlsx"):
        CORPUS.read(folder, "valence")


@pytest.mark.parametrize("backup", ["Labels/Backup", "Data"])
def test_backups_of_the_labels(folder, backup):
    (folder / backup).mkdir(exist_ok=True)
    (folder / backup / "Labels.csv").write_text("Audio,Valence,Arousal,Dominance\n10006,1,1,1\n")

    labels = CORPUS.read(folder, "valence")

    assert _by_number(labels)[10006].rating == 2.5
    assert (
        f"The labels are those in 'Labels/Labels/Labels.csv'; '{backup}/Labels.csv' is not read."
        in labels.notes
    )


def test_rows_without_a_clip_and_clips_without_a_row(folder):
    table = folder / "Labels" / "Labels" / "Labels.csv"
    table.write_text(table.read_text().replace("10006,", "10005,"))

    notes = CORPUS.read(folder, "valence").notes

    assert "1 row of Labels.csv is left out, because Data.xlsx does not have its recording: '10005'." in notes
    assert "1 recording has no row in Labels.csv: '10006'." in notes


def test_an_absent_consensus_is_noted(folder):
    (folder / "Labels" / "Labels" / "Labels.csv").unlink()

    notes = CORPUS.read(folder, "valence").notes

    assert notes[0] == "There is no Labels.csv: the ratings are the means of the annotators."


def test_no_rating_within_the_scale(folder):
    table = folder / "Labels" / "Labels" / "Valence.csv"
    table.write_text(table.read_text().replace("22210,1,2,2,2", "22210,9,,,"))

    labels = CORPUS.read(folder, "valence")

    assert _by_number(labels)[22210].rating is None
    assert (
        "1 clip has a valence outside the scale of 1 to 5 and none within; it is not rated: "
        "'Audios/22210.wav'." in labels.notes
    )
