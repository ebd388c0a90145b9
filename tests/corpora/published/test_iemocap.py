"""IEMOCAP: who speaks a turn, self-reports, missing dominance, and dialogues that every session repeats."""

import pytest

from valence_lib.corpora.published.iemocap import CORPUS
from valence_lib.errors import CorpusError

HEAD = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"
# Two blanks in "dom  2", a dominance that is absent, a rating by the actress herself, and a Latin-1 dash.
IMPRO = (
    HEAD + "\n[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.0000, 2.0000]\n"
    "C-E2:\tNeutral;\t()\nC-F1:\tNeutral;\t(curious)\n"
    "A-E3:\tval 3; act 2; dom  2;\t()\nA-E4:\tval 2; act 2; dom  ;\t(mildly aggravated \x96 val 1)\n"
    "A-F1:\tval 5; act 5; dom  5;\t()\n"
    "\n[7.5700 - 10.4750]\tSes01F_impro01_M003\txxx\t[5.5000, 3.0000, 3.5000]\n"
    "A-E3:\tval 6; act 3; dom  4;\t()\nA-E4:\tval 5; act 3; dom  3;\t()\nA-M1:\tval 1; act 1; dom  1;\t()\n"
)


def scripted(session, valence):
    """A turn of each actor of a scripted dialogue, with one rater."""
    lines = [HEAD]
    for speaker in "FM":
        lines.append(f"\n[1.0 - 2.5]\tSes{session}_{speaker}000\tang\t[{valence:.4f}, 4.0000, 4.0000]\n")
        lines.append(f"A-E1:\tval {valence}; act 4; dom  4;\t()\n")
    return "".join(lines)


DIALOGUES = {
    "Ses01F_impro01": IMPRO,
    "Ses01F_script01_1": scripted("01F_script01_1", 2),
    "Ses02M_script01_1b": scripted("02M_script01_1b", 1),
    "Ses03M_script02_2": scripted("03M_script02_2", 4),
    "Ses05M_impro05a": scripted("05M_impro05a", 3),
}


def build(folder, make_wav):
    """Turns of four sessions, with what else is in the archive, and what macOS left there."""
    for dialogue, text in DIALOGUES.items():
        session = folder / f"Session{dialogue[4]}"
        labels = session / "dialog" / "EmoEvaluation"
        labels.mkdir(parents=True, exist_ok=True)
        (labels / f"{dialogue}.txt").write_bytes(text.encode("latin-1"))
        (labels / f"._{dialogue}.txt").write_bytes(b"\0\5\x16\7")
        for kind in ("Attribute", "Categorical", "Self-evaluation"):
            (labels / kind).mkdir(exist_ok=True)
            (labels / kind / f"{dialogue}_e1.txt").write_text("[broken\n", encoding="utf-8")
        make_wav(session / "dialog" / "wav" / f"{dialogue}.wav")
        for line in text.splitlines():
            if line.startswith("["):
                turn = line.split("\t")[1]
                recording = make_wav(session / "sentences" / "wav" / dialogue / f"{turn}.wav")
                recording.with_name(f"._{recording.name}").write_bytes(b"\0\5\x16\7")
    make_wav(folder / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F009.wav")


@pytest.fixture
def folder(tmp_path, make_wav):
    build(tmp_path, make_wav)
    return tmp_path


def rows_of(folder, target="valence"):
    return {row.file.rpartition("/")[2][:-4]: row for row in CORPUS.read(folder, target).rows}


def test_the_folder_is_recognised(folder):
    assert all(any(folder.glob(mark)) for mark in CORPUS.marks)


def test_a_row(folder):
    row = rows_of(folder)["Ses01F_impro01_F000"]
    assert row.file == "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    assert row.place == "line 3 of 'Ses01F_impro01.txt'"
    assert (row.rating, row.subset, row.problem) == (2.5, "", None)
    assert (row.start, row.end) == (None, None)  # the times are those of the whole dialogue
    assert row.labels == {
        "speaker": "01F",
        "sex": "F",
        "language": "en",
        "sentence": "Ses01F_impro01_F000",
        "emotion": "neutral",
        "kind": "improvised",
        "session": "01",
    }


def test_the_turn_and_not_the_dialogue_names_the_speaker(folder):
    labels = {name: row.labels for name, row in rows_of(folder).items()}
    speakers = {name: (of["speaker"], of["sex"]) for name, of in labels.items()}
    assert speakers["Ses01F_impro01_M003"] == ("01M", "M")
    assert speakers["Ses02M_script01_1b_F000"] == ("02F", "F")
    assert len(set(speakers.values())) == 8


def test_a_scripted_dialogue_is_one_sentence_in_all_sessions(folder):
    labels = {name: row.labels for name, row in rows_of(folder).items()}
    sentences = {name: (of["kind"], of["sentence"]) for name, of in labels.items() if name.endswith("F000")}
    assert sentences == {
        "Ses01F_impro01_F000": ("improvised", "Ses01F_impro01_F000"),
        "Ses01F_script01_1_F000": ("scripted", "script01_1"),
        "Ses02M_script01_1b_F000": ("scripted", "script01_1"),
        "Ses03M_script02_2_F000": ("scripted", "script02_2"),
        "Ses05M_impro05a_F000": ("improvised", "Ses05M_impro05a_F000"),
    }
    assert labels["Ses01F_impro01_M003"]["emotion"] == "no agreement"


def test_raters_without_self_reports(folder):
    labels = CORPUS.read(folder, "valence")
    assert rows_of(folder)["Ses01F_impro01_F000"].by_rater == {"E3": 3, "E4": 2}
    assert {rater for row in labels.rows for rater in row.by_rater} == {"E1", "E3", "E4"}
    assert "2 ratings of turns by their own actors are left out." in labels.notes


def test_dominance_with_two_blanks_or_absent(folder):
    labels = CORPUS.read(folder, "dominance")
    row = rows_of(folder, "dominance")["Ses01F_impro01_F000"]
    assert (row.rating, row.by_rater) == (2.0, {"E3": 2})
    assert "1 clip lacks the rating of one of its raters: 'Ses01F_impro01_F000'." in labels.notes


def test_arousal(folder):
    row = rows_of(folder, "arousal")["Ses01F_impro01_M003"]
    assert (row.rating, row.by_rater) == (3.0, {"E3": 3, "E4": 3})


def test_a_rating_outside_the_scale_costs_its_own_clip(folder):
    labels = CORPUS.read(folder, "valence")
    row = rows_of(folder)["Ses01F_impro01_M003"]
    assert str(row.problem) == (
        "the valence in line 10 of 'Ses01F_impro01.txt' is '5.5000'; expected a number from 1 to 5."
    )
    assert row.by_rater == {"E4": 5}
    assert any("val in line 11 of 'Ses01F_impro01.txt' is '6'" in note for note in labels.notes)


def test_residue_and_other_folders_are_not_read(folder):
    labels = CORPUS.read(folder, "valence")
    assert len(labels.rows) == 10
    assert [row.file for row in labels.rows] == sorted(row.file for row in labels.rows)
    assert [path.name for path in labels.tables] == [f"{dialogue}.txt" for dialogue in DIALOGUES]
    unlabelled = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F009.wav"
    assert f"1 recording has no labels: '{unlabelled}'." in labels.notes


def test_the_clips_alone(folder):
    labels = CORPUS.read(folder, "")
    assert {row.rating for row in labels.rows} == {None}
    assert not any(row.by_rater or row.problem for row in labels.rows)


def test_a_recording_that_is_absent_keeps_its_row(folder):
    path = "Session3/sentences/wav/Ses03M_script02_2/Ses03M_script02_2_M000.wav"
    (folder / path).unlink()
    assert rows_of(folder)["Ses03M_script02_2_M000"].file == path


def test_a_byte_order_mark_and_windows_line_ends(folder):
    path = folder / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    text = IMPRO.removeprefix(HEAD).lstrip().replace("\n", "\r\n").encode("latin-1")
    path.write_bytes(b"\xef\xbb\xbf" + text)
    row = rows_of(folder)["Ses01F_impro01_F000"]
    assert (row.rating, row.by_rater) == (2.5, {"E3": 3, "E4": 2})


def test_repeated_turns_and_raters_count_once(folder):
    path = folder / "Session1/dialog/EmoEvaluation/Ses01F_script01_1.txt"
    path.write_text(scripted("01F_script01_1", 2) + scripted("01F_script01_1", 5), encoding="latin-1")
    labels = CORPUS.read(folder, "valence")
    row = rows_of(folder)["Ses01F_script01_1_F000"]
    assert (row.rating, row.by_rater) == (2.0, {"E1": 2})
    assert any(
        note.startswith("2 turns have labels in several places; the first count") for note in labels.notes
    )
    assert any(note.startswith("2 ratings repeat one of the same rater") for note in labels.notes)


def test_a_line_of_another_form(folder):
    path = folder / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    text = IMPRO.replace("\tneu\t[2.5000, 2.0000, 2.0000]", "")
    path.write_bytes(text.encode("latin-1"))
    labels = CORPUS.read(folder, "valence")
    assert "Ses01F_impro01_F000" not in rows_of(folder)
    assert "1 line of a turn has another form: line 3 of 'Ses01F_impro01.txt'." in labels.notes
    assert rows_of(folder)["Ses01F_impro01_M003"].by_rater == {"E4": 5}


def test_label_files_without_turns_and_no_label_files(folder):
    paths = list(folder.glob("Session*/dialog/EmoEvaluation/*.txt"))
    for path in paths:
        path.write_text(f"{HEAD}[6.2 - 8.2] neu\n", encoding="latin-1")
    with pytest.raises(CorpusError, match=r"have no line such as '\[6.2901 .* see line 2 of 'Ses01F_impro01"):
        CORPUS.read(folder, "valence")
    for path in paths:
        path.unlink()
    with pytest.raises(CorpusError, match=r"has no label files; expected Session1/dialog.* Copy them"):
        CORPUS.read(folder, "valence")


def test_processed_copies_are_left_out(folder, make_wav):
    name = "Ses01F_impro01_F000"
    copy = f"Session1/sentences/wav/Ses01F_A_denoised/{name}.wav"
    make_wav(folder / copy)

    labels = CORPUS.read(folder, "valence")

    row = next(row for row in labels.rows if row.file.endswith(f"{name}.wav"))
    assert row.file == f"Session1/sentences/wav/Ses01F_impro01/{name}.wav"
    assert f"1 recording is left out, because another one has its name: '{copy}'." in labels.notes
