"""CREMA-D as published, in miniature."""

import pytest

from valence_lib.corpora.published.crema_d import CORPUS
from valence_lib.errors import CorpusError

NAMES = ["1001_IEO_HAP_LO", "1001_IEO_NEU_XX", "1002_TSI_ANG_XX", "1064_IEO_DIS_MD"]
ACTORS = (
    '"ActorID","Age","Sex","Race","Ethnicity"\n'
    '1001,51,"Male","Caucasian","Not Hispanic"\n'
    '1002,21,"Female","Caucasian","Not Hispanic"\n'
)
VOTES = (  # the voice alone, the face alone, both
    '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"\n'
    '"100002",0,0,0,3,6,0,"1001_IEO_HAP_LO",9,0.67,"N"\n'
    '"100074",2,4,0,4,2,0,"1002_TSI_ANG_XX",9,0.44,"D:H"\n'
    '"200002",0,0,0,9,0,0,"1001_IEO_HAP_LO",9,1,"H"\n'
    '"300001",0,0,0,9,0,0,"1001_IEO_NEU_XX",9,1,"H"\n'
)


def build(folder, make_wav):
    """Four clips of three actors, the last without demographics, with the votes of listeners."""
    for name in NAMES:
        make_wav(folder / "AudioWAV" / f"{name}.wav")
    (folder / "VideoDemographics.csv").write_text(ACTORS)
    (folder / "processedResults").mkdir()
    (folder / "processedResults" / "tabulatedVotes.csv").write_text(VOTES)
    return folder


@pytest.fixture
def folder(tmp_path, make_wav):
    return build(tmp_path / "CREMA-D", make_wav)


def test_labels_from_the_names_and_tables(folder):
    labels = CORPUS.read(folder, "")
    first, second, third, last = (row.labels for row in labels.rows)

    assert [row.file for row in labels.rows] == [f"AudioWAV/{name}.wav" for name in NAMES]
    assert first == {
        **{"speaker": "1001", "sex": "M", "age": "51", "language": "en", "sentence": "IEO"},
        **{"emotion": "happiness", "intensity": "low", "perceived_emotion": "neutral"},
    }
    assert (second["emotion"], second["intensity"], second["perceived_emotion"]) == ("neutral", "", "")
    assert (third["emotion"], third["sex"], third["perceived_emotion"]) == ("anger", "F", "no agreement")
    assert (last["speaker"], last["sex"], last["age"]) == ("1064", "", "")
    assert {row.rating for row in labels.rows} == {None}
    assert [path.name for path in labels.tables] == ["VideoDemographics.csv", "tabulatedVotes.csv"]
    assert labels.notes == [
        "1 actor is not in VideoDemographics.csv; the sex and the age are unknown: '1064'.",
        "AudioWAV/1064_IEO_DIS_MD.wav is reported to hold takes of all emotions.",
    ]


def test_optional_tables_and_other_files(folder, make_wav):
    (folder / "VideoDemographics.csv").unlink()
    (folder / "processedResults" / "tabulatedVotes.csv").unlink()
    make_wav(folder / "AudioWAV" / "test.wav")
    make_wav(folder / "AudioWAV" / "noisy" / "1001_IEO_HAP_LO.wav")
    make_wav(folder / "AudioWAV" / "._1001_IEO_HAP_LO.wav")
    make_wav(folder / "AudioMP3" / "1001_IEO_HAP_LO.wav")  # the same clips once more

    labels = CORPUS.read(folder, "")

    assert len(labels.rows) == 4
    assert labels.tables == []
    assert "perceived_emotion" not in labels.rows[0].labels
    assert {row.labels["sex"] for row in labels.rows} == {""}
    assert labels.notes[:2] == [
        "There is no VideoDemographics.csv: the actors' sexes and ages are unknown.",
        "2 recordings are left out: they are in folders below AudioWAV/, or their names are not of the "
        "published form, such as 'AudioWAV/noisy/1001_IEO_HAP_LO.wav'.",
    ]


def test_a_damaged_table(folder):
    (folder / "VideoDemographics.csv").write_text("Actor,Sex\n1001,Male\n")

    with pytest.raises(CorpusError, match=r"columns Actor, Sex; expected ActorID, Age, Sex, of"):
        CORPUS.read(folder, "")


def test_numbers_of_actors_as_pandas_writes_them(folder):
    table = folder / "VideoDemographics.csv"
    table.write_text(ACTORS.replace("1001,51", "1001.0,51"))

    assert CORPUS.read(folder, "").rows[0].labels["sex"] == "M"

    table.write_text(f'{ACTORS}1001.0,52,"Male","Caucasian","Not Hispanic"\n')
    with pytest.raises(CorpusError, match=r"contradict each other about '1001.0': Age is '51' and '52'"):
        CORPUS.read(folder, "")


def test_own_ratings_beside_it_are_mentioned(folder):
    (folder / "my_ratings.csv").write_text("file;valence;speaker\nAudioWAV/1001_IEO_HAP_LO.wav;3,5;1001\n")
    (folder / "SentenceFilenames.csv").write_text("Stimulus_Number,Filename\n1,1001_IEO_HAP_LO\n")

    (note,) = [note for note in CORPUS.read(folder, "").notes if "is not read" in note]
    assert note == (
        "The table 'my_ratings.csv' has ratings and is not read; CORPUS=CREMA-D/my_ratings.csv reads it in "
        "place of the published labels, and so does the name labels.csv."
    )
