"""EmoTale as published, in miniature; where the converted copy is at hand, the two give the same clips."""

import csv
import math
from pathlib import Path

import pytest
import soundfile

from valence_lib.corpora.labels import read_labels
from valence_lib.corpora.published.emotale import CORPUS
from valence_lib.errors import CorpusError

SHARED = Path(__file__).parents[4] / "shared" / "data" / "emotale"
HEADER = "file,a1_A,a1_V,a1_D,a1_cat,a2_A,a2_V,a2_D,a2_cat,a3_A,a3_V,a3_D,a3_cat,gt_emotion"
RATED = [
    "EN_014_H_5.wav,4.0,4.5,3.5,H,4.0,,3.0,H,4.5,4.0,3.5,N,H",
    "DK_001_A_1.wav,4.0,1.5,4.5,A,4.0,2.5,5.0,A,5.0,1.0,4.5,S,A",
    "DK_001_B_2.wav,3.0,3.5,3.0,B,2.0,2.5,1.5,N,2.5,3.0,3.0,N,B",
    "EN_001_A_1.wav,4.0,2.0,4.0,A,4.0,2.5,5.0,A,5.0,1.5,4.5,A,A",
]
SPEAKERS = "speaker_id,gender,age\n001,Female,22\n14,m,9\n"


def build(folder, make_wav):
    """Four clips of two speakers; one of them speaks both languages."""
    (folder / "wav").mkdir(parents=True)
    (folder / "annotations.csv").write_text("\n".join([HEADER, *RATED]) + "\n")
    (folder / "speaker_info.csv").write_text(SPEAKERS)
    for line in RATED:
        make_wav(folder / "wav" / line.split(",")[0], rate=48000)
    return folder


def publish(shared_emotale: Path, folder: Path, n_clips: int | None) -> Path:
    """Write the converted copy in the published form.

    Args:
        shared_emotale: with labels.csv and audio/.
        folder: to write.
        n_clips: how many, spread over the corpus; None for all.
    """
    with (shared_emotale / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = rows if n_clips is None else rows[:: max(1, len(rows) // n_clips)][:n_clips]
    (folder / "wav").mkdir(parents=True)
    lines, speakers = [HEADER], {}
    for row in chosen:
        name = f"{Path(row['file']).stem}.wav"
        samples, rate = soundfile.read(shared_emotale / row["file"], dtype="int16")
        soundfile.write(folder / "wav" / name, samples, rate, subtype="PCM_16")
        cells = [name]
        for rater in ("a1", "a2", "a3"):
            cells += [row[f"{dimension}_{rater}"] for dimension in ("arousal", "valence", "dominance")]
            cells.append(row[f"emotion_{rater}"][0].upper())
        lines.append(",".join([*cells, row["emotion"][0].upper()]))
        speakers[row["speaker"]] = f"{row['speaker']},{row['sex']},{row['age']}"
    (folder / "annotations.csv").write_text("\n".join(lines) + "\n")
    (folder / "speaker_info.csv").write_text("\n".join(["speaker,sex,age", *speakers.values()]) + "\n")
    return folder


@pytest.fixture
def folder(tmp_path, make_wav):
    return build(tmp_path / "EmoTale", make_wav)


def test_clips_speakers_and_raters(folder):
    labels = CORPUS.read(folder, "valence")

    assert [row.file for row in labels.rows] == [
        "wav/DK_001_A_1.wav",
        "wav/DK_001_B_2.wav",
        "wav/EN_001_A_1.wav",
        "wav/EN_014_H_5.wav",
    ]
    first, last = labels.rows[0], labels.rows[-1]
    assert first.by_rater == {"a1": 1.5, "a2": 2.5, "a3": 1.0}
    assert first.rating == pytest.approx(5 / 3)
    assert first.labels == {
        **{"speaker": "001", "sex": "F", "age": "22", "language": "da", "sentence": "1"},
        **{"emotion": "anger", "emotion_a1": "anger", "emotion_a2": "anger", "emotion_a3": "sadness"},
    }
    assert first.place == "line 3 of 'annotations.csv'"
    # One rating is missing: the mean of the other two.
    assert (last.rating, math.isnan(last.by_rater["a2"]), last.problem) == (4.25, True, None)
    assert (last.labels["speaker"], last.labels["sex"], last.labels["language"]) == ("014", "M", "en")
    assert labels.rows[2].labels["speaker"] == "001"  # one person in both languages
    assert {row.subset for row in labels.rows} == {""}
    assert labels.notes == []
    assert labels.tables == [folder / "annotations.csv", folder / "speaker_info.csv"]


@pytest.mark.parametrize(("target", "rating"), [("arousal", 13 / 3), ("dominance", 14 / 3), ("", None)])
def test_other_dimensions_and_the_clips_alone(folder, target, rating):
    first = CORPUS.read(folder, target).rows[0]

    assert first.rating == (pytest.approx(rating) if rating else None)
    assert bool(first.by_rater) == bool(target)


def test_a_rating_that_is_none_makes_its_own_clip_unusable(folder):
    table = folder / "annotations.csv"
    table.write_text(table.read_text().replace("4.0,1.5,4.5,A", "4.0,x,4.5,A").replace("3.0,3.5", "3.0,35"))

    problems = [row.problem for row in CORPUS.read(folder, "valence").rows]

    assert [str(problem or "") for problem in problems] == [
        "a1_V in line 3 of 'annotations.csv' is 'x'; expected a number from 1 to 5.",
        "a1_V in line 4 of 'annotations.csv' is '35'; expected a number from 1 to 5.",
        "",
        "",
    ]
    assert problems[0].reason == "label not a number"
    assert problems[1].reason == "label outside its scale"


def test_missing_and_superfluous_recordings_and_repeated_rows(folder, make_wav):
    (folder / "wav" / "DK_001_A_1.wav").unlink()
    make_wav(folder / "wav" / "EN_019_N_1.wav")
    make_wav(folder / "wav" / "._DK_001_A_1.wav")
    with (folder / "annotations.csv").open("a") as file:
        file.write(f"{RATED[2].replace('3.0', '3')}\n")

    labels = CORPUS.read(folder, "valence")

    assert len(labels.rows) == 4
    assert labels.rows[1].rating == 3.0
    assert labels.notes == [
        "1 row repeats an earlier one and is left out: 'DK_001_B_2.wav'.",
        "1 recording has no labels: 'wav/EN_019_N_1.wav'.",
    ]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (None, "there is no speaker_info.csv."),
        ("who,gender\nAnn,F\n", "speaker_info.csv has the columns who, gender, none of which names them."),
        ('id,sex\n"001,F\n', "the table 'speaker_info.csv' cannot be read from line 2 on"),
    ],
)
def test_speakers_without_a_table_that_describes_them(folder, content, note):
    path = folder / "speaker_info.csv"
    path.unlink() if content is None else path.write_text(content)

    labels = CORPUS.read(folder, "valence")

    assert [row.labels["speaker"] for row in labels.rows] == ["001", "001", "001", "014"]
    assert {row.labels["sex"] + row.labels["age"] for row in labels.rows} == {""}
    assert labels.notes[0].startswith(f"The sexes and ages of the speakers are unknown: {note}")


def test_annotations_without_a_column(folder):
    (folder / "annotations.csv").write_text("file,a1_V,a1_cat\nDK_001_A_1.wav,1,A\n")

    with pytest.raises(CorpusError, match=r"has the columns file, a1_V, a1_cat; expected .* a2_V, a3_V, "):
        CORPUS.read(folder, "valence")


def test_rows_that_contradict_each_other(folder):
    with (folder / "annotations.csv").open("a") as file:
        file.write("DK_001_B_2.wav,3.0,1.0,3.0,B,2.0,2.5,1.5,N,2.5,3.0,3.0,N,B\n")

    with pytest.raises(CorpusError) as error:
        CORPUS.read(folder, "valence")
    assert str(error.value) == (
        "line 4 of 'annotations.csv' and line 6 of 'annotations.csv' contradict each other about "
        "'DK_001_B_2.wav': a1_V is '3.5' and '1.0'. Remove the wrong row."
    )


def test_a_column_twice(folder):
    table = folder / "annotations.csv"
    table.write_text(table.read_text().replace("gt_emotion", "A1_V"))

    with pytest.raises(
        CorpusError, match=r"'annotations\.csv' has the column 'a1_V' twice; expected each col"
    ):
        CORPUS.read(folder, "valence")


def test_a_row_in_another_case_keeps_its_speaker_and_its_recording(folder):
    table = folder / "annotations.csv"
    table.write_text(table.read_text().replace("DK_001_A_1.wav", "dk_001_a_1.wav"))

    labels = CORPUS.read(folder, "valence")

    row = next(row for row in labels.rows if row.file == "wav/dk_001_a_1.wav")
    assert (row.labels["speaker"], row.labels["emotion"], row.labels["language"]) == ("001", "anger", "da")
    assert labels.notes == []


def test_speakers_as_pandas_writes_them(folder):
    table = folder / "speaker_info.csv"
    table.write_text("speaker,sex,age\n1.0,Female,22\n10.0,Male,30\n")

    labels = CORPUS.read(folder, "valence")

    assert [row.labels["sex"] for row in labels.rows] == ["F", "F", "F", ""]
    assert labels.notes == ["1 speaker is not in speaker_info.csv; the sex and the age are unknown: '014'."]
    table.write_text("speaker,sex,age\n1,Female,22\n001,Male,22\n14,m,9\n")
    (note,) = CORPUS.read(folder, "valence").notes
    assert note == (
        "The sexes and ages of the speakers are unknown: line 2 of 'speaker_info.csv' and line 3 of "
        "'speaker_info.csv' contradict each other about '001': sex is 'Female' and 'Male'. Remove the "
        "wrong row."
    )


def test_a_decimal_comma_is_named(folder):
    table = folder / "annotations.csv"
    table.write_text(table.read_text().replace(",", ";").replace(".0", ",0").replace(".5", ",5"))

    problem = CORPUS.read(folder, "valence").rows[0].problem

    assert str(problem) == (
        "a1_V in line 3 of 'annotations.csv' is '1,5'; expected a number from 1 to 5. Its decimal mark is a "
        "comma; write a point."
    )


@pytest.mark.skipif(not SHARED.is_dir(), reason="the EmoTale corpus (../shared/data) is not here")
@pytest.mark.parametrize("target", ["valence", "arousal", "dominance"])
def test_the_same_clips_as_in_the_converted_copy(tmp_path, target):
    published = CORPUS.read(publish(SHARED, tmp_path / "EmoTale", 60), target)
    converted = {Path(row.file).stem: row for row in read_labels(SHARED / "labels.csv", {}, target).rows}

    assert len(published.rows) == 60
    assert published.notes == []
    for row in published.rows:
        same = converted[Path(row.file).stem]
        assert row.rating == pytest.approx(same.rating, abs=5.1e-5)  # which has four decimals
        assert list(row.by_rater.values()) == list(same.by_rater.values())
        assert row.labels.items() <= same.labels.items()
    speakers = {row.labels["speaker"] for row in published.rows}
    assert len(speakers) > 10


def test_what_is_stated():
    assert CORPUS.scales == dict.fromkeys(("valence", "arousal", "dominance"), (1.0, 5.0))
    assert "ASRU 2025" in CORPUS.citation
