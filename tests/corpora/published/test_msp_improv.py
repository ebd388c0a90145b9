"""MSP-IMPROV: names of videos, the reversed arousal, missing and repeated ratings, whose sentence it is."""

import pytest

from valence_lib.corpora.published.msp_improv import CORPUS
from valence_lib.errors import CorpusError

# Blanks before the semicolon of D, missing numbers, a rater twice, and a class that no list has.
EVALUATION = """\
UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:2.6; V:3.2; D:2.8 ; N:4.2;
ann-p1; Happy; Happy,Excited; A:4.000000; V:4.000000; D:NaN; N:5.000000;
bo_p2; Neutral; Neutral; A:3.000000; V:3.000000; D:3.000000; N:4.000000;
bo_p2; Neutral; Neutral; A:1.000000; V:1.000000; D:1.000000; N:1.000000;

UTD-IMPROV-S01A-F01-T-FM01.avi; A; A:2.0; V:1.5; D:4.0 ; N:4.0;
ann-p1; Angry; ; A:2.000000; V:1.000000; D:4.000000; N:5.000000;
cy-p3; Other-a; b; Angry; A:2.000000; V:2.000000; D:4.000000; N:3.000000;

UTD-IMPROV-S01A-M01-S-FM02.avi; X; A:3.0; V:NaN; D:NaN ; N:4.0;
cy-p3; Sad; Sad; A:3.000000; V:NaN; D:NaN; N:3.000000;

UTD-IMPROV-S01A-F02-R-FF01.avi; S; A:4.0; V:2.0; D:2.0 ; N:3.0;
ann-p1; Sad; Sad; A:4.000000; V:2.000000; D:2.000000; N:3.000000;

UTD-IMPROV-S20H-M06-T-MF01.avi; H; A:1.5; V:4.5; D:3.0 ; N:4.0;
ann-p1; Happy; Happy; A:1.000000; V:5.000000; D:3.000000; N:4.000000;
bo_p2; Happy; Happy; A:2.000000; V:4.000000; D:3.000000; N:4.000000;
"""
NAMES = ["S01A-F01-P-FM01", "S01A-F01-T-FM01", "S01A-M01-S-FM02", "S01A-F02-R-FF01", "S20H-M06-T-MF01"]


def path_of(name):
    scenario, speaker, kind, _ = name.split("-")
    return f"session{int(speaker[1:])}/{scenario}/{kind}/MSP-IMPROV-{name}.wav"


def build(folder, make_wav, audio="", label_file="Evalution.txt"):
    """The release, with the videos beside the recordings, and a recording without labels."""
    for name in [*NAMES, "S02N-F01-S-FM01"]:
        recording = make_wav(folder / audio / path_of(name))
        recording.with_suffix(".avi").write_bytes(b"RIFF")
        recording.with_name(f"._{recording.name}").write_bytes(b"\0\5\x16\7")
    (folder / label_file).write_text(EVALUATION, encoding="utf-8")


@pytest.fixture
def folder(tmp_path, make_wav):
    build(tmp_path, make_wav)
    return tmp_path


def rows_of(folder, target="valence"):
    return {row.file.rpartition("IMPROV-")[2][:-4]: row for row in CORPUS.read(folder, target).rows}


def test_the_folder_is_recognised(folder):
    assert all(any(folder.glob(mark)) for mark in CORPUS.marks)


def test_the_video_names_the_recording(folder):
    labels = CORPUS.read(folder, "valence")
    assert [row.file for row in labels.rows] == sorted(path_of(name) for name in NAMES)
    assert labels.rows[0].place == "line 1 of 'Evalution.txt'"
    assert labels.form == "MSP-IMPROV, with Evalution.txt"
    assert [path.name for path in labels.tables] == ["Evalution.txt"]


def test_the_later_spelling_and_a_folder_of_audio(tmp_path, make_wav):
    build(tmp_path, make_wav, "Audio", "Evaluation.txt")
    assert CORPUS.read(tmp_path, "valence").rows[0].file == f"Audio/{path_of(NAMES[0])}"
    assert all(any(tmp_path.glob(mark)) for mark in CORPUS.marks)


def test_ratings(folder):
    rows = rows_of(folder)
    assert {name: row.rating for name, row in rows.items()} == {
        "S01A-F01-P-FM01": 3.2,
        "S01A-F01-T-FM01": 1.5,
        "S01A-M01-S-FM02": None,
        "S01A-F02-R-FF01": 2.0,
        "S20H-M06-T-MF01": 4.5,
    }
    assert not any(row.problem for row in rows.values())
    assert {row.subset for row in rows.values()} == {""}


def test_a_blank_before_the_semicolon_and_missing_dominance(folder):
    rows = rows_of(folder, "dominance")
    assert rows["S01A-F01-P-FM01"].rating == 2.8
    assert rows["S01A-F01-P-FM01"].by_rater == {"bo_p2": 3}
    assert rows["S01A-M01-S-FM02"].rating is None


def test_a_repeated_rater_counts_once_and_a_missing_number_not_at_all(folder):
    rows = rows_of(folder)
    assert rows["S01A-F01-P-FM01"].by_rater == {"ann-p1": 4, "bo_p2": 3}
    assert rows["S01A-F01-T-FM01"].by_rater == {"ann-p1": 1, "cy-p3": 2}
    assert rows["S01A-M01-S-FM02"].by_rater == {}
    notes = CORPUS.read(folder, "valence").notes
    assert notes == [
        "1 rating repeats one of the same rater for the same clip and is left out: "
        "'MSP-IMPROV-S01A-F01-P-FM01'.",
        "1 clip lacks the rating of one of its raters: 'MSP-IMPROV-S01A-M01-S-FM02'.",
        "1 recording has no labels: 'session1/S02N/S/MSP-IMPROV-S02N-F01-S-FM01.wav'.",
    ]


def test_the_arousal_is_reversed_so_that_higher_is_more_active(folder):
    labels = CORPUS.read(folder, "arousal")
    rows = rows_of(folder, "arousal")
    assert rows["S20H-M06-T-MF01"].rating == 4.5  # stored as 1.5
    assert rows["S20H-M06-T-MF01"].by_rater == {"ann-p1": 5, "bo_p2": 4}  # stored as 1 and 2
    assert rows["S01A-F02-R-FF01"].rating == 2  # stored as 4
    assert "The ratings are 6 minus the stored values" in labels.notes[0]


def test_speakers_kinds_and_sentences(folder):
    labels = {name: row.labels for name, row in rows_of(folder).items()}
    assert labels["S01A-F01-P-FM01"] == {
        "speaker": "F01",
        "sex": "F",
        "language": "en",
        "sentence": "MSP-IMPROV-S01A-F01-P-FM01",
        "emotion": "neutral",
        "acted_emotion": "",
        "kind": "natural",
        "scenario": "S01A",
        "session": "01",
    }
    assert labels["S01A-F01-T-FM01"] == {
        "speaker": "F01",
        "sex": "F",
        "language": "en",
        "sentence": "S01",
        "emotion": "anger",
        "acted_emotion": "anger",
        "kind": "target",
        "scenario": "S01A",
        "session": "01",
    }
    improvised = labels["S01A-M01-S-FM02"]
    assert (improvised["kind"], improvised["sentence"]) == ("improvised", "MSP-IMPROV-S01A-M01-S-FM02")
    assert labels["S01A-M01-S-FM02"]["emotion"] == "no agreement"
    # The same sentence, read in another session, and with another emotion than the perceived one.
    read = labels["S01A-F02-R-FF01"]
    assert (read["kind"], read["sentence"], read["session"]) == ("read", "S01", "02")
    assert (read["emotion"], read["acted_emotion"]) == ("sadness", "anger")
    assert (labels["S20H-M06-T-MF01"]["speaker"], labels["S20H-M06-T-MF01"]["sex"]) == ("M06", "M")


def test_the_clips_alone(folder):
    labels = CORPUS.read(folder, "")
    assert {row.rating for row in labels.rows} == {None}
    assert not any(row.by_rater for row in labels.rows)


def test_a_recording_that_is_absent_keeps_its_row(folder):
    (folder / path_of(NAMES[0])).unlink()
    assert path_of(NAMES[0]) in {row.file for row in CORPUS.read(folder, "valence").rows}


def test_bad_lines_cost_their_own_rating_or_clip(folder):
    text = EVALUATION.replace("V:1.5", "V:6.5").replace("ann-p1; Angry; ; A:2", "ann-p1 Angry, A=2")
    text += "\n\nUTD-IMPROV-S01A-F02-R-FF01.avi; S; A:1; V:1; D:1 ; N:1;\n"
    (folder / "Evalution.txt").write_text(text, encoding="utf-8")
    rows, notes = rows_of(folder), CORPUS.read(folder, "valence").notes
    assert str(rows["S01A-F01-T-FM01"].problem) == (
        "V in line 6 of 'Evalution.txt' is '6.5'; expected a number from 1 to 5."
    )
    assert rows["S01A-F01-T-FM01"].by_rater == {"cy-p3": 2}
    assert any(
        note.startswith(
            "1 rating of a single rater is left out. V in line 7 of 'Evalution.txt' is 'ann-p1 Angry"
        )
        for note in notes
    )
    assert rows["S01A-F02-R-FF01"].rating == 2.0
    repeated = "1 clip has labels in several places; the first count: 'MSP-IMPROV-S01A-F02-R-FF01'."
    assert repeated in notes


def test_a_label_file_of_another_form(folder):
    (folder / "Evalution.txt").write_text("\n<html>\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"'Evalution\.txt' begins with '<html>' and has no line such as"):
        CORPUS.read(folder, "valence")


def test_no_label_file(folder):
    (folder / "Evalution.txt").unlink()
    with pytest.raises(CorpusError, match=r"has no Evalution\.txt or Evaluation\.txt.* Copy it"):
        CORPUS.read(folder, "valence")


@pytest.mark.parametrize("copies", ["session1_denoised/S01A/P", "audio_enhanced/session1/S01A/P"])
def test_processed_copies_are_left_out(folder, make_wav, copies):
    copy = make_wav(folder / copies / f"MSP-IMPROV-{NAMES[0]}.wav").relative_to(folder)

    labels = CORPUS.read(folder, "valence")

    assert rows_of(folder)[NAMES[0]].file == path_of(NAMES[0])
    assert f"1 recording is left out, because another one has its name: '{copy}'." in labels.notes


def test_only_processed_copies(folder, make_wav):
    (folder / path_of(NAMES[0])).unlink()
    for copies in ("a_denoised/session1/S01A", "audio_louder/session1/S01A"):
        make_wav(folder / copies / f"MSP-IMPROV-{NAMES[0]}.wav")
    with pytest.raises(CorpusError) as error:
        CORPUS.read(folder, "valence")
    assert str(error.value) == (
        f"the recordings 'a_denoised/session1/S01A/MSP-IMPROV-{NAMES[0]}.wav' and "
        f"'audio_louder/session1/S01A/MSP-IMPROV-{NAMES[0]}.wav' are of one clip; expected one recording of "
        "each clip. Move the others, such as processed copies, out of the folder of the corpus."
    )

    (folder / "a_denoised").rename(folder.parent / "elsewhere")
    labels = CORPUS.read(folder, "valence")
    assert rows_of(folder)[NAMES[0]].file.startswith("audio_louder/")
    assert (
        "1 recording is in another folder than in the published corpus: "
        f"'audio_louder/session1/S01A/MSP-IMPROV-{NAMES[0]}.wav'." in labels.notes
    )


def test_both_spellings_of_the_label_file(folder):
    (folder / "Evaluation.txt").write_text(EVALUATION, encoding="utf-8")
    assert (
        "The labels are those in 'Evaluation.txt'; 'Evalution.txt' is not read."
        in CORPUS.read(folder, "valence").notes
    )
    (folder / "Evaluation.txt").write_text(EVALUATION.replace("V:3.2", "V:1.0"), encoding="utf-8")
    with pytest.raises(
        CorpusError, match=r"'Evaluation\.txt' and 'Evalution\.txt' differ; expected one of them"
    ):
        CORPUS.read(folder, "valence")


def test_a_label_file_in_utf_16(folder):
    (folder / "Evalution.txt").write_text(EVALUATION, encoding="utf-16")
    assert rows_of(folder)["S01A-F01-P-FM01"].rating == 3.2
    (folder / "Evalution.txt").write_text(EVALUATION, encoding="utf-16-le")
    with pytest.raises(
        CorpusError, match=r"'Evalution\.txt' has zero bytes.*expected UTF-8\. Save it as UTF-8"
    ):
        CORPUS.read(folder, "valence")
