"""nEMO as published, in miniature."""

import pytest

from valence_lib.corpora.published.nemo import CORPUS
from valence_lib.errors import CorpusError

TABLE = (  # with the blanks before the speakers that the published table has
    "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
    "WR0_surprised_64.wav\tsurprised\tUcho, „Ród”.\tucho ród\t        WR0\tmale\t23\n"
    "EB0_neutral_13.wav\tneutral\tInteresuje mnie.\tinteresuje mnie\t        EB0\tfemale\t27\n"
    "EB0_fear_64.wav\tfear\tUcho, „Ród”.\tucho ród\t        EB0\tfemale\t27\n"
)


def build(folder, make_wav):
    """Three clips of two speakers."""
    folder.mkdir(parents=True)
    (folder / "data.tsv").write_text(TABLE, encoding="utf-8")
    for line in TABLE.splitlines()[1:]:
        make_wav(folder / "samples" / line.split("\t")[0], rate=24000)
    return folder


@pytest.fixture
def folder(tmp_path, make_wav):
    return build(tmp_path / "nEMO", make_wav)


def test_labels(folder):
    labels = CORPUS.read(folder, "")

    assert [row.file for row in labels.rows] == [
        "samples/EB0_fear_64.wav",
        "samples/EB0_neutral_13.wav",
        "samples/WR0_surprised_64.wav",
    ]
    assert labels.rows[-1].labels == {
        **{"speaker": "WR0", "sex": "M", "age": "23", "language": "pl", "sentence": "64"},
        "emotion": "surprise",
    }
    assert [row.labels["sex"] for row in labels.rows] == ["F", "F", "M"]
    assert {row.rating for row in labels.rows} == {None}
    assert labels.notes == []
    assert labels.tables == [folder / "data.tsv"]


def test_recordings_without_labels_and_repeated_rows(folder, make_wav):
    make_wav(folder / "samples" / "XX0_fear_1.wav")
    with (folder / "data.tsv").open("a", encoding="utf-8") as file:
        file.write("EB0_fear_64.wav\tfear\t\t\tEB0\tfemale\t27\n")

    labels = CORPUS.read(folder, "")

    assert labels.rows[0].labels["emotion"] == "fear"
    assert labels.notes == [
        "1 row repeats an earlier one and is left out: 'EB0_fear_64.wav'.",
        "1 recording has no labels: 'samples/XX0_fear_1.wav'.",
    ]


def test_a_table_without_a_column(folder):
    (folder / "data.tsv").write_text("file_id\temotion\nEB0_fear_64.wav\tfear\n")

    with pytest.raises(CorpusError, match=r"of which speaker_id, gender, age are absent"):
        CORPUS.read(folder, "")


def test_an_unknown_speaker_is_nobody(folder):
    (folder / "data.tsv").write_text(TABLE.replace("WR0\t", "unknown\t"), encoding="utf-8")

    assert CORPUS.read(folder, "").rows[-1].labels["speaker"] == ""


def test_two_emotions_of_one_clip(folder):
    with (folder / "data.tsv").open("a", encoding="utf-8") as file:
        file.write("EB0_fear_64.wav\tanger\t\t\tEB0\tfemale\t27\n")

    with pytest.raises(CorpusError, match=r"line 4 of .* and line 5 .* about 'EB0_fear_64.wav': emotion is"):
        CORPUS.read(folder, "")
