"""RAVDESS as published, in miniature: the labels are in the names of the files."""

from pathlib import Path

import pytest

from valence_lib.corpora.published.ravdess import CORPUS

SHARED = Path(__file__).parents[4] / "shared" / "data" / "ravdess"
NAMES = [
    "Actor_07/03-01-03-01-02-01-07.wav",
    "Actor_07/03-01-08-02-01-02-07.wav",
    "Actor_12/03-01-01-01-01-01-12.wav",
    "Actor_12/03-01-06-02-02-01-12.wav",
]


def build(folder, make_wav):
    """Four clips of two actors."""
    for name in NAMES:
        make_wav(folder / name, rate=48000)
    return folder


@pytest.fixture
def folder(tmp_path, make_wav):
    return build(tmp_path / "RAVDESS", make_wav)


def test_labels_from_the_names(folder):
    labels = CORPUS.read(folder, "")

    assert [row.file for row in labels.rows] == NAMES
    assert {(row.rating, row.problem, len(row.by_rater)) for row in labels.rows} == {(None, None, 0)}
    assert [row.labels["emotion"] for row in labels.rows] == ["happiness", "surprise", "neutral", "fear"]
    assert [row.labels["sex"] for row in labels.rows] == ["M", "M", "F", "F"]
    assert labels.rows[-1].labels == {
        **{"speaker": "12", "sex": "F", "language": "en", "sentence": "02", "emotion": "fear"},
        **{"intensity": "strong", "repetition": "01"},
    }
    assert labels.notes == []
    assert CORPUS.scales == {}


def test_song_video_and_other_files_are_left_out(folder, make_wav):
    make_wav(folder / "Actor_12" / "03-02-06-02-02-01-12.wav")
    (folder / "Actor_12" / "01-01-06-02-02-01-12.mp4").touch()
    make_wav(folder / "audio_speech_actors_01-24" / NAMES[0])  # one distribution holds the corpus twice
    make_wav(folder / "Actor_12" / "note.wav")
    make_wav(folder / "Actor_12" / "._03-01-06-02-02-01-12.wav")

    labels = CORPUS.read(folder, "")

    assert [row.file for row in labels.rows] == NAMES
    assert labels.notes == [
        "2 recordings are video or song and are left out, such as 'Actor_12/01-01-06-02-02-01-12.mp4'.",
        "2 recordings are left out: they are not in Actor_01 to Actor_24, or their names are not of the "
        "published form, such as 'Actor_12/note.wav'.",
    ]


def test_each_archive_in_its_own_folder(tmp_path, make_wav):
    for name in NAMES:
        make_wav(tmp_path / "Audio_Speech_Actors_01-24" / name)
    make_wav(tmp_path / "Audio_Song_Actors_01-24" / "Actor_12" / "03-02-06-02-02-01-12.wav")

    labels = CORPUS.read(tmp_path, "")

    assert CORPUS.is_in(tmp_path)
    assert [row.file for row in labels.rows] == [f"Audio_Speech_Actors_01-24/{name}" for name in NAMES]
    assert [row.labels["speaker"] for row in labels.rows] == ["07", "07", "12", "12"]
    assert labels.notes == [
        "1 recording is video or song and is left out: "
        "'Audio_Song_Actors_01-24/Actor_12/03-02-06-02-02-01-12.wav'."
    ]


def test_two_names_of_one_recording_are_noted(folder, make_wav):
    make_wav(folder / "Actor_07" / "03-01-03-01-02-02-07.wav")

    assert CORPUS.read(folder, "").notes == [
        "03-01-03-01-02-01-07.wav and 03-01-03-01-02-02-07.wav carry the same audio in the published corpus."
    ]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the RAVDESS corpus (../shared/data) is not here")
def test_the_names_of_the_whole_corpus(tmp_path):
    for path in (SHARED / "audio").iterdir():
        actor = tmp_path / f"Actor_{path.stem[-2:]}"
        actor.mkdir(exist_ok=True)
        (actor / f"{path.stem}.wav").touch()

    labels = CORPUS.read(tmp_path, "")

    assert len(labels.rows) == 1440
    assert len({row.labels["speaker"] for row in labels.rows}) == 24
    assert sum(row.labels["emotion"] == "calm" for row in labels.rows) == 192
    assert sum(row.labels["intensity"] == "normal" for row in labels.rows) == 768
    assert sum(row.labels["sex"] == "M" for row in labels.rows) == 720
