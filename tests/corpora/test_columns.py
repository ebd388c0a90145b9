"""What the columns of a table mean."""

import pytest

from valence_lib.corpora.columns import assign_columns, parse_columns
from valence_lib.errors import CorpusError, SettingsError


def assign(header: str, given: str = ""):
    return assign_columns(header.split(","), parse_columns(given), "labels.csv")


@pytest.mark.parametrize(
    ("header", "meanings"),
    [
        ("file,valence,speaker,part", "file valence speaker subset"),
        ("FileName,VALENCE,SpkrID,Split", "file valence speaker subset"),
        ("path,valence,speaker_id,partition,start,end", "file valence speaker subset start end"),
        ("file_name,valence,annotator,Gender,lang", "file valence rater sex language"),
    ],
)
def test_usual_names(header, meanings):
    found = assign(header)
    assert found.of == {meaning: position for position, meaning in enumerate(meanings.split())}
    assert (found.labels, found.notes) == ({}, [])


def test_raters_and_other_columns():
    found = assign("file,valence_a1,Valence_A10,mood,")
    assert found.raters == {"valence_a1": 1, "valence_a10": 2}
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
    assert found.of == {"file": 0, "valence": 1, "speaker": 2}
    assert found.labels == {"speaker": 3, "split": 4}
    assert assign('a,"b', 'file=a,"valence=""b"').of == {"file": 0, "valence": 1}


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
