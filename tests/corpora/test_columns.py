"""What the columns of a table mean."""

import pytest

from valence_lib.corpora.columns import assign_columns, parse_columns
from valence_lib.errors import CorpusError, SettingsError


def assign(header: str, given: str = "", target: str = "valence"):
    return assign_columns(header.split(","), parse_columns(given, target), "labels.csv", target)


@pytest.mark.parametrize(
    ("header", "meanings"),
    [
        ("file,valence,speaker,part", "file rating speaker subset"),
        ("FileName,VALENCE,SpkrID,Split", "file rating speaker subset"),
        ("path,valence,speaker_id,partition,start,end", "file rating speaker subset start end"),
        ("file_name,valence,annotator,Gender,lang", "file rating rater sex language"),
    ],
)
def test_usual_names(header, meanings):
    found = assign(header)
    assert found.of == {meaning: position for position, meaning in enumerate(meanings.split())}
    assert (found.labels, found.notes) == ({}, [])


def test_raters_and_other_columns():
    found = assign("file,valence_a1,Valence_A10,mood,")
    assert found.raters == {"rating_a1": 1, "rating_a10": 2}
    assert found.labels == {"mood": 3}


@pytest.mark.parametrize(
    ("header", "note"),
    [
        (
            "file,valence,Speaker_Name",
            "'Speaker_Name' is not used: did you mean speaker? COLUMNS=speaker=Speaker_Name uses it",
        ),
        ("file,valence,speakr", "'speakr' is not used: did you mean speaker?"),
        ("file,valence,Split_Set", "'Split_Set' is not used: did you mean subset?"),
        ("file,valence,start_time,end_times", "'end_times' is not used: did you mean end?"),
        ("file,valence,offset", "'offset' is not used: did you mean start?"),
        ("file,valence,start_ms", "did you mean start? A column start in seconds uses it"),
        ("file,valence,subject", "'subject' is not used: did you mean speaker?"),
        ("file,path,valence", "The column 'file' is used as file, and not 'path'."),
    ],
)
def test_a_near_miss_is_noted(header, note):
    (found,) = assign(header).notes
    assert note in found


@pytest.mark.parametrize("header", ["file,valence,speaker,speaker_age", "file,valence,valence_mood,profile"])
def test_a_meaning_that_is_there_is_not_asked_for(header):
    assert assign(header).notes == []


def test_given_names_go_before_usual_ones():
    found = assign("file,EmoVal,who,speaker,split", "valence=emoval,speaker=who,subset=")
    assert found.of == {"file": 0, "rating": 1, "speaker": 2}
    assert found.labels == {"speaker": 3, "split": 4}
    assert assign('a,"b', 'file=a,"valence=""b"').of == {"file": 0, "rating": 1}


@pytest.mark.parametrize(
    ("header", "given", "message"),
    [
        ("file,valence,Valence", "", "has the column 'Valence' twice"),
        ("file,valence_r1,valence_r2", "", "Rename the columns of several raters as valence_a1"),
        ("path,filename,valence", "", "'path' and 'filename', each of which may be the file"),
        ("file,EmoVal", "", "expected file and valence .* Did you mean COLUMNS=valence=EmoVal"),
        ("clip,valence", "", r"has the columns clip, valence; expected file .* COLUMNS=file=clip_name"),
        ("file,valence", "speaker=who", "COLUMNS=speaker=who was given. There is no column .* named 'who'"),
        ("file,valence", "file=valence,valence=valence", "one column two meanings"),
    ],
)
def test_what_is_refused(header, given, message):
    with pytest.raises(CorpusError, match=message):
        assign(header, given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("valence", "expected pairs as in COLUMNS=valence=EmoVal"),
        ("valence=a,valence=b", "each meaning once"),
        ("speeker=a", "no meaning of a column 'speeker'. Did you mean 'speaker'"),
    ],
)
def test_mappings_that_cannot_be_understood(text, message):
    with pytest.raises(SettingsError, match=message):
        parse_columns(text)


def test_another_target_has_its_own_columns():
    header = "file,valence,valence_a1,Activation,arousal_a1,arousal_a2"
    found = assign(header, target="arousal")
    assert (found.of, found.raters) == ({"file": 0, "rating": 3}, {"rating_a1": 4, "rating_a2": 5})
    assert (found.labels, found.notes) == ({"valence": 1, "valence_a1": 2}, [])
    assert assign("file,Stress Level,mood", target="stress level").of == {"file": 0, "rating": 1}


def test_given_columns_of_other_targets_are_ignored():
    given = "valence=EmoVal,arousal=EmoAct,speaker=who"
    assert parse_columns(given, "arousal") == {"arousal": "EmoAct", "speaker": "who"}
    assert parse_columns("stress=S1", "stress") == {"stress": "S1"}
    with pytest.raises(SettingsError, match="no meaning of a column 'stress'"):
        parse_columns("stress=S1")


def test_a_table_with_ratings_of_another_dimension_names_the_target():
    with pytest.raises(CorpusError, match=r"expected file and valence .* TARGET=arousal predicts them"):
        assign("file,arousal,dominance")
    with pytest.raises(
        CorpusError, match=r"expected file and stress .* as in COLUMNS=file=clip_name,stress=NAME"
    ):
        assign("file,mood", target="stress")


def test_the_target_itself_is_no_other_target():
    with pytest.raises(CorpusError) as refused:
        assign("clip,valence,arousal")
    assert "TARGET=" not in str(refused.value)


def test_a_column_of_nested_values_is_named():
    with pytest.raises(CorpusError, match="'valence' holds lists or records; write one value into each cell"):
        assign_columns(["file"], {}, "a.parquet", nested=["valence"])
