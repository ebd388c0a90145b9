"""MSP-Podcast: its releases' ways to store labels, unknown speakers, and test sets that share speakers."""

import json

import pytest

from valence_lib.corpora.published.msp_podcast import CORPUS
from valence_lib.errors import CorpusError

# name, class, activation, valence, dominance, speaker, sex, subset
CLIPS = [
    ("0001_0008", "N", "2.2", "4.0", "2.6", "30", "Male", "Test1"),
    ("0001_0009", "A", "3.777778", "3.555556", "3.777778", "39", "Male", "Test1"),
    ("0002_0001", "H", "5.0", "5.5", "4.0", "41", "Female", "Train"),
    ("0002_0002", "X", "4.0", "2.0", "4.5", "41", "Female", "Train"),
    ("0002_0003", "U", "6.0", "4.5", "4.0", "42", "Female", "Train"),
    ("0002_0004", "C", "3.0", "3.0", "5.0", "Unknown", "Unknown", "Train"),
    ("0003_0001", "S", "2.0", "1.5", "2.5", "43", "Male", "Development"),
    ("0003_0002", "O", "3.5", "4.5", "3.0", "44", "Female", "Validation"),
    ("1023_0235", "N", "4.0", "4.0", "4.0", "45", "Male", "Train"),
    ("0004_0001", "F", "5.0", "2.5", "2.0", "30", "Male", "Test2"),
]
# clip, worker, primary and secondary emotions, activation, valence, dominance
SINGLE = [
    ("0001_0008", "WORKER00000001", "Other-confused; Concerned,Confused", "3", "3", "4"),
    ("0001_0008", "WORKER00000018", "Neutral; Neutral", "1", "4", "2"),
    ("0001_0008", "WORKER00000021", "Neutral", "3", "5", "2"),  # without secondary emotions
    ("0001_0008", "WORKER00000021", "Neutral; Neutral", "7", "7", "7"),  # a second time
    ("0001_0009", "WORKER00000001", "Other-so; so; Annoyed", "4", "3", "4"),
    ("0001_0009", "WORKER00000018", "Angry; Angry", "4", "", "4"),
    ("0002_0001", "WORKER00000018", "Happy; Happy,Amused", "5", "9", "4"),
    ("0002_0001", "WORKER00000044", "Happy; Happy", "5", "6", "4"),
    ("0004_0001", "WORKER00000044", "Fear; Fear", "5", "2", "2"),
]
HEAD = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"


def name(number):
    return f"MSP-PODCAST_{number}.wav"


def values(rating):
    return "A:{3}; V:{4}; D:{5};".format(*rating)


def consensus(clips=CLIPS):
    return "\n".join([HEAD, *(",".join([name(number), *cells]) for number, *cells in clips)]) + "\n"


def build(folder, make_wav, audio="Audios", labels="Labels", spelling="consensus"):
    """Release 1.7 to 1.12, with a stereo recording at 44.1 kHz and recordings without labels."""
    for number, *_ in CLIPS:
        make_wav(folder / audio / name(number), rate=44100 if number == "1023_0235" else 16000)
    make_wav(folder / audio / name("0009_0001"))  # of Test3
    (folder / audio / f"._{name('0001_0008')}").write_bytes(b"\0\5\x16\7")
    (folder / labels).mkdir()
    text = "\ufeff" + consensus()
    (folder / labels / f"labels_{spelling}.csv").write_text(text, encoding="utf-8")
    lines = [f'{name(rating[0])},"{rating[1]}; {rating[2]}; {values(rating)}"' for rating in SINGLE]
    detailed = "\n".join(["FileName,EmoDetail", *lines]) + "\n"
    (folder / labels / "labels_detailed.csv").write_text(detailed, encoding="utf-8")
    (folder / "Transcripts").mkdir()
    (folder / "Transcripts" / "MSP-PODCAST_0001_0008.txt").write_text("So.", encoding="utf-8")


def rows_of(folder, target="valence"):
    """The rows by the numbers of their files."""
    return {row.file[-13:-4]: row for row in CORPUS.read(folder, target).rows}


@pytest.fixture
def folder(tmp_path, make_wav):
    build(tmp_path, make_wav)
    return tmp_path


def test_the_folder_is_recognised(folder):
    assert all(any(folder.glob(mark)) for mark in CORPUS.marks)


def test_a_row(folder):
    row = rows_of(folder)["0001_0008"]
    assert (row.file, row.rating, row.subset) == ("Audios/MSP-PODCAST_0001_0008.wav", 4.0, "test")
    assert row.place == "line 2 of 'labels_consensus.csv'"
    labels = {"speaker": "30", "sex": "M", "language": "en", "sentence": "", "emotion": "neutral"}
    assert row.labels == labels
    assert row.problem is None


@pytest.mark.parametrize(("target", "rating"), [("valence", 5.5), ("arousal", 5.0), ("dominance", 4.0)])
def test_each_dimension(folder, target, rating):
    assert rows_of(folder, target)["0002_0001"].rating == rating
    assert CORPUS.scales[target] == (1, 7)


def test_the_clips_alone(folder):
    labels = CORPUS.read(folder, "")
    assert {row.rating for row in labels.rows} == {None}
    assert not any(row.by_rater for row in labels.rows)
    assert len(labels.rows) == len(CLIPS) - 1


def test_subsets_emotions_and_order(folder):
    labels = CORPUS.read(folder, "valence")
    assert [row.file for row in labels.rows] == sorted(row.file for row in labels.rows)
    found = {row.file[-13:-4]: (row.subset, row.labels["emotion"]) for row in labels.rows}
    assert found == {
        "0001_0008": ("test", "neutral"),
        "0001_0009": ("test", "anger"),
        "0002_0001": ("train", "happiness"),
        "0002_0002": ("train", "no agreement"),
        "0002_0003": ("train", "surprise"),
        "0002_0004": ("train", "contempt"),
        "0003_0001": ("validation", "sadness"),
        "0003_0002": ("validation", "other"),
        "1023_0235": ("train", "neutral"),
    }


def test_an_unknown_speaker_is_nobody(folder):
    labels = CORPUS.read(folder, "valence")
    speakers = {row.file[-13:-4]: row.labels["speaker"] for row in labels.rows}
    assert speakers["0002_0004"] == ""
    assert rows_of(folder)["0002_0004"].labels["sex"] == ""
    assert (
        "1 clip is of an unknown speaker, who may also be in another subset: "
        "'Audios/MSP-PODCAST_0002_0004.wav'." in labels.notes
    )


def test_other_test_sets_are_left_out(folder):
    labels = CORPUS.read(folder, "valence")
    assert "0004_0001" not in rows_of(folder)
    assert (
        "1 clip of Test2 or Test3 is left out, because speakers of Test1 may be in them: "
        "'MSP-PODCAST_0004_0001.wav'." in labels.notes
    )
    # Its recording has labels; that of Test3 has none.
    assert "1 recording has no labels: 'Audios/MSP-PODCAST_0009_0001.wav'." in labels.notes


def test_single_raters(folder):
    rows = rows_of(folder)
    workers = {"WORKER00000001": 3, "WORKER00000018": 4, "WORKER00000021": 5}
    assert rows["0001_0008"].by_rater == workers
    assert rows["0001_0009"].by_rater == {"WORKER00000001": 3}
    assert rows["0002_0001"].by_rater == {"WORKER00000044": 6}
    assert rows["0003_0001"].by_rater == {}
    assert rows_of(folder, "arousal")["0001_0008"].by_rater["WORKER00000018"] == 1


def test_notes_about_single_raters(folder):
    notes = CORPUS.read(folder, "valence").notes
    assert (
        "1 rating repeats one of the same rater for the same clip and is left out: "
        "'MSP-PODCAST_0001_0008.wav'." in notes
    )
    assert "1 clip lacks the rating of one of its raters: 'MSP-PODCAST_0001_0009.wav'." in notes
    assert (
        "1 rating of a single rater is left out. V in line 8 of 'labels_detailed.csv' is '9'; expected a "
        "number from 1 to 7." in notes
    )


def test_the_spelling_and_the_folders_of_older_releases(tmp_path, make_wav):
    build(tmp_path, make_wav, audio="Audio", labels="label", spelling="concensus")
    labels = CORPUS.read(tmp_path, "valence")
    assert labels.rows[0].file == "Audio/MSP-PODCAST_0001_0008.wav"
    assert labels.form == "MSP-Podcast, with label/labels_concensus.csv"
    assert [path.name for path in labels.tables] == ["labels_concensus.csv", "labels_detailed.csv"]
    assert all(any(tmp_path.glob(mark)) for mark in CORPUS.marks)


def test_recordings_in_a_folder_below(tmp_path, make_wav):
    build(tmp_path, make_wav, audio="Audios/Audio")
    assert CORPUS.read(tmp_path, "valence").rows[0].file == "Audios/Audio/MSP-PODCAST_0001_0008.wav"
    assert all(any(tmp_path.glob(mark)) for mark in CORPUS.marks)


@pytest.mark.parametrize("worker", ["WorkerID", "Workers"])
def test_single_ratings_with_a_column_each(folder, worker):
    lines = [f"FileName,{worker},EmoClass_Major,EmoClass_Second,EmoAct,EmoVal,EmoDom"]
    lines += [f'{name("0001_0008")},WORKER00000018,Neutral,"Neutral,Sad",1,4,2', ""]
    (folder / "Labels" / "labels_detailed.csv").write_text("\n".join(lines), encoding="utf-8")
    assert rows_of(folder)["0001_0008"].by_rater == {"WORKER00000018": 4}
    assert rows_of(folder, "dominance")["0001_0008"].by_rater == {"WORKER00000018": 2}


def test_json_is_read_where_csv_is_absent(folder):
    expected = rows_of(folder)
    columns = HEAD.split(",")[1:]
    content = {name(number): dict(zip(columns, cells, strict=True)) for number, *cells in CLIPS}
    (folder / "Labels" / "labels_consensus.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "Labels" / "labels_consensus.csv").unlink()
    detailed = {name("0001_0008"): {"WORKER00000018": {"EmoClass_Major": "Neutral", "EmoVal": 4.0}}}
    (folder / "Labels" / "labels_detailed.json").write_text(json.dumps(detailed), encoding="utf-8")
    (folder / "Labels" / "labels_detailed.csv").unlink()
    found = rows_of(folder)
    assert {number: (row.rating, row.subset, row.labels) for number, row in found.items()} == {
        number: (row.rating, row.subset, row.labels) for number, row in expected.items()
    }
    assert found["0001_0008"].by_rater == {"WORKER00000018": 4}


def write_text_labels(folder):
    """labels.txt with the files beside it, in place of the tables."""
    blocks = []
    for number, emotion, *ratings in CLIPS:
        own = [f"{rating[1]}; {rating[2]}; {values(rating)}" for rating in SINGLE if rating[0] == number]
        arousal, valence, dominance, *_ = ratings
        head = f"{name(number)}; {emotion}; A:{arousal}; V:{valence}; D:{dominance};"
        blocks.append("\n".join([head, *own]))
    (folder / "Labels" / "labels.txt").write_text("\n\n".join(blocks), encoding="utf-8")
    for path in (folder / "Labels").glob("*.csv"):
        path.unlink()
    sexes = [f"Speaker_{number}; {sex}" for *_, number, sex, _ in CLIPS if number != "Unknown"]
    speakers = [f"{name(number)}; {clip[4]}" for number, *clip in CLIPS]
    (folder / "Speaker_ids.txt").write_text("\n".join([*sexes, "", *speakers]), encoding="utf-8")
    subsets = "\n".join(f"{clip[-1]}; {name(clip[0])}" for clip in CLIPS)
    (folder / "Partition.txt").write_text(subsets, encoding="utf-8")


def test_labels_txt_alone(folder):
    expected = rows_of(folder)
    write_text_labels(folder)
    labels = CORPUS.read(folder, "valence")
    found = rows_of(folder)
    assert {number: (row.rating, row.subset, row.labels, row.by_rater) for number, row in found.items()} == {
        number: (row.rating, row.subset, row.labels, row.by_rater) for number, row in expected.items()
    }
    assert labels.form == "MSP-Podcast, with Labels/labels.txt"
    assert [path.name for path in labels.tables] == ["labels.txt", "Speaker_ids.txt", "Partition.txt"]


def test_labels_txt_without_speakers_and_without_subsets(folder):
    write_text_labels(folder)
    (folder / "Speaker_ids.txt").unlink()
    labels = CORPUS.read(folder, "valence")
    assert {row.labels["speaker"] for row in labels.rows} == {""}
    assert "The speakers are unknown: Speaker_ids.txt is absent or does not name them." in labels.notes
    (folder / "Partition.txt").unlink()
    with pytest.raises(CorpusError, match=r"has no subsets: Partition\.txt is absent .* Copy it"):
        CORPUS.read(folder, "valence")


def test_a_recording_that_is_absent_keeps_its_row(folder):
    (folder / "Audios" / name("0002_0001")).unlink()
    assert rows_of(folder)["0002_0001"].file == "Audios/MSP-PODCAST_0002_0001.wav"


def test_one_bad_row_costs_its_own_clip(folder):
    clips = [*CLIPS, ("0005_0001", "N", "4", "high", "4", "50", "Male", "Train")]
    clips += [("0005_0002", "N", "4", "8", "4", "50", "Male", "Train")]
    clips += [("0005_0003", "N", "4", "", "4", "50", "Male", "Train")]
    clips += [("0005_0004", "N", "4", "4", "4", "50", "Male", "Test9"), CLIPS[0]]
    (folder / "Labels" / "labels_consensus.csv").write_text(consensus(clips), encoding="utf-8")
    rows = rows_of(folder)
    assert str(rows["0005_0001"].problem) == (
        "EmoVal in line 12 of 'labels_consensus.csv' is 'high'; expected a number from 1 to 7."
    )
    assert rows["0005_0002"].problem.reason == "label outside its scale"
    assert (rows["0005_0003"].rating, rows["0005_0003"].problem) == (None, None)
    assert str(rows["0005_0004"].problem) == (
        "Split_Set in line 15 of 'labels_consensus.csv' is 'Test9'; expected Train, Validation, Development, "
        "Test1, Test2 or Test3."
    )
    assert rows["0001_0008"].rating == 4.0
    assert any(
        note.startswith("1 row repeats an earlier one") for note in CORPUS.read(folder, "valence").notes
    )


def test_without_single_ratings(folder):
    (folder / "Labels" / "labels_detailed.csv").unlink()
    labels = CORPUS.read(folder, "valence")
    assert not any(row.by_rater for row in labels.rows)
    assert "There are no ratings of single raters: Labels/labels_detailed.csv is absent." in labels.notes


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("labels_consensus.csv", "FileName,EmoVal\nx.wav,3\n", "emoclass.* are absent. Restore the table"),
        ("labels_detailed.csv", "a,b,c\n", "has the columns a, b, c; expected FileName and EmoDetail"),
        ("labels_detailed.csv", "", "expected FileName and EmoDetail, or FileName, WorkerID"),
        ("labels_consensus.json", "{", r"'labels_consensus\.json' cannot be read as JSON"),
        ("labels_consensus.json", "[1]", "expected an object that maps each file to its labels"),
        ("labels_consensus.json", '{"x.wav": {"EmoVal": 3}}', "lacks emoclass, .* for 'x.wav'"),
        ("labels.txt", "<html>", "begins with '<html>' and has no line such as 'NAME; EMOTION; A:2.4"),
    ],
)
def test_a_label_file_of_another_form(folder, file, content, message):
    (folder / "Labels" / file).write_text(content, encoding="utf-8")
    if not file.endswith(".csv"):
        (folder / "Labels" / "labels_consensus.csv").unlink()
    if file == "labels.txt":
        (folder / "Partition.txt").write_text(f"Train; {name('0001_0008')}", encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        CORPUS.read(folder, "valence")


def test_no_labels_at_all(folder):
    for path in (folder / "Labels").iterdir():
        path.unlink()
    with pytest.raises(
        CorpusError, match=r"has no labels; expected Labels/labels_consensus\.csv.* Copy them"
    ):
        CORPUS.read(folder, "valence")


def test_processed_copies_beside_the_recordings(folder, make_wav):
    make_wav(folder / "Audios_denoised" / name("0001_0008"))
    labels = CORPUS.read(folder, "valence")
    assert rows_of(folder)["0001_0008"].file == f"Audios/{name('0001_0008')}"
    assert (
        "1 recording is left out, because another one has its name: "
        f"'Audios_denoised/{name('0001_0008')}'." in labels.notes
    )


@pytest.mark.parametrize("backup", ["Labels/backup", "Label_old", "Labels/1.9"])
def test_backups_of_the_labels(folder, backup):
    (folder / backup).mkdir()
    old = consensus([(*CLIPS[2][:3], "1.5", *CLIPS[2][4:])])
    (folder / backup / "labels_consensus.csv").write_text(old, encoding="utf-8")
    (folder / backup / "labels_detailed.csv").write_text("a,b,c\n", encoding="utf-8")
    labels = CORPUS.read(folder, "valence")
    assert rows_of(folder)["0002_0001"].rating == 5.5
    assert (
        "The labels are those in 'Labels/labels_consensus.csv'; "
        f"'{backup}/labels_consensus.csv' is not read." in labels.notes
    )


def test_two_releases_of_the_labels(folder):
    for release in ("1.9", "1.10"):
        (folder / "Labels" / release).mkdir()
        content = consensus([(*CLIPS[2][:3], release, *CLIPS[2][4:])])
        (folder / "Labels" / release / "labels_consensus.csv").write_text(content, encoding="utf-8")
    (folder / "Labels" / "labels_consensus.csv").unlink()
    with pytest.raises(
        CorpusError,
        match=r"'Labels/1\.10/labels_consensus\.csv' and 'Labels/1\.9/labels_consensus\.csv' differ; expect",
    ):
        CORPUS.read(folder, "valence")


def test_names_in_another_case_or_without_a_suffix(folder):
    expected = {number: row.by_rater for number, row in rows_of(folder).items()}
    table = folder / "Labels" / "labels_consensus.csv"
    for suffix in (".WAV", ""):
        table.write_text(consensus().replace(".wav", suffix), encoding="utf-8")
        labels = CORPUS.read(folder, "valence")
        assert {row.file[-13:-4]: row.by_rater for row in labels.rows} == expected
        assert f"1 recording has no labels: 'Audios/{name('0009_0001')}'." in labels.notes


def test_a_speaker_in_two_spellings_is_one(folder):
    table = folder / "Labels" / "labels_consensus.csv"
    table.write_text(consensus().replace(",41,", ",41.0,", 1), encoding="utf-8")
    rows = rows_of(folder)
    assert rows["0002_0001"].labels["speaker"] == rows["0002_0002"].labels["speaker"] == "41"


def test_rows_that_contradict_each_other(folder):
    table = folder / "Labels" / "labels_consensus.csv"
    table.write_text(consensus([*CLIPS, (*CLIPS[0][:-1], "Train")]), encoding="utf-8")
    with pytest.raises(
        CorpusError, match=r"line 2 of .* and line 12 .* split_set is 'Test1' and 'Train'\. Remove"
    ):
        CORPUS.read(folder, "valence")


def test_lines_of_the_partition_that_contradict_each_other(folder):
    write_text_labels(folder)
    with (folder / "Partition.txt").open("a", encoding="utf-8") as file:
        file.write(f"\nTest1; {name('0001_0008')}\nTrain; {name('0001_0008')}\n")
    with pytest.raises(CorpusError) as error:
        CORPUS.read(folder, "valence")
    assert str(error.value) == (
        "line 1 of 'Partition.txt' and line 12 of 'Partition.txt' contradict each other about "
        f"'{name('0001_0008')}': 'Test1' and 'Train'. Remove the wrong line."
    )


def test_a_fault_of_the_partition_is_reported_there(folder):
    write_text_labels(folder)
    path = folder / "Partition.txt"
    lines = path.read_text(encoding="utf-8").replace("Train;", "Tarin;", 1).splitlines()
    path.write_text("\n".join(lines[:-2]), encoding="utf-8")
    rows = rows_of(folder)
    expected = "expected Train, Validation, Development, Test1, Test2 or Test3."
    assert str(rows["0002_0001"].problem) == f"the subset in line 3 of 'Partition.txt' is 'Tarin'; {expected}"
    assert str(rows["1023_0235"].problem) == (
        f"the subset in 'Partition.txt', which lacks the clip, is ''; {expected}"
    )


def test_a_key_twice(folder):
    (folder / "Labels" / "labels_consensus.csv").unlink()
    content = '{"x.wav": {"EmoVal": 3, "EmoVal": 4}}'
    (folder / "Labels" / "labels_consensus.json").write_text(content, encoding="utf-8")
    with pytest.raises(
        CorpusError, match=r"has the key 'EmoVal' twice in one object; expected each key once"
    ):
        CORPUS.read(folder, "valence")


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8"), (",", "utf-16"), ("\t", "utf-16")])
def test_single_ratings_in_other_forms_of_csv(folder, separator, encoding):
    lines = [["FileName", "WorkerID", "EmoAct", "EmoVal", "EmoDom"], [name("0001_0008"), "W1", "1", "4", "2"]]
    text = "\n".join(separator.join(cells) for cells in lines)
    (folder / "Labels" / "labels_detailed.csv").write_text(text, encoding=encoding)
    assert rows_of(folder)["0001_0008"].by_rater == {"W1": 4}


def test_single_ratings_with_a_column_twice(folder):
    text = f"FileName,WorkerID,EmoVal,EmoAct,EmoVal\n{name('0001_0008')},W1,1,4,2\n"
    (folder / "Labels" / "labels_detailed.csv").write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"'labels_detailed\.csv' has the column 'emoval' twice"):
        CORPUS.read(folder, "valence")
