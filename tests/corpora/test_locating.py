"""Files that a table names in the way of another machine."""

import os
import unicodedata
from pathlib import Path

import pytest

from valence_lib.corpora.locating import Files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("audio/c1.wav", "audio/c2.wav", "audio/sub/c3.WAV", "é.wav", "s1/001.wav", "s2/001.wav"):
        path = tmp_path / unicodedata.normalize("NFC", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in ("audio/._c1.wav", "__MACOSX/c9.wav", "audio/c2.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("audio/c1.wav", "audio/c1.wav"),
        ("audio\\c1.wav", "audio/c1.wav"),
        ("C:\\Users\\ann\\data\\audio\\c1.wav", "audio/c1.wav"),
        ("/home/ann/data/c1.wav", "audio/c1.wav"),
        ("c1.wav", "audio/c1.wav"),
        ("c1", "audio/c1.wav"),
        ("Audio/C2", "audio/c2.wav"),
        ("audio/sub/c3.wav", "audio/sub/c3.WAV"),
        (unicodedata.normalize("NFD", "é.wav"), unicodedata.normalize("NFC", "é.wav")),
        ("É.WAV", unicodedata.normalize("NFC", "é.wav")),
        ("data/s1/001.wav", "s1/001.wav"),
    ],
)
def test_the_only_match_is_found(folder, name, found):
    files = Files(folder, [name])
    assert files.paths == {name: folder / found}
    assert files.problems == {}
    assert files.respelled == ({} if name == found else {name: found})


def test_bytes_that_are_not_utf_8_are_compared_as_windows_writes_them(tmp_path):
    (tmp_path / os.fsdecode(b"gl\xfcck.wav")).touch()
    files = Files(tmp_path, ["glück.wav"])
    assert os.fsencode(files.paths["glück.wav"].name) == b"gl\xfcck.wav"
    assert files.respelled == {"glück.wav": "gl\\xfcck.wav"}


def test_several_matches_are_listed(folder):
    files = Files(folder, ["001.wav"])
    assert files.paths == {}
    assert "'001.wav' may be any of 2 files: 's1/001.wav', 's2/001.wav'; give its folder" in str(
        files.problems["001.wav"]
    )


def test_a_speakers_clip_is_not_taken_for_that_of_another(folder):
    (folder / "s1" / "001.wav").unlink()
    files = Files(folder, ["s1/001.wav", "s2/001.wav"])
    assert files.paths == {"s2/001.wav": folder / "s2" / "001.wav"}
    # Alone, too: the folder s1 is here.
    assert Files(folder, ["s1/001.wav"]).paths == {}
    (folder / "s2" / "002.wav").touch()
    files = Files(folder, ["s1/002.wav", "s3/002.wav"])
    assert files.paths == {}


def test_one_file_is_not_given_to_two_names(folder):
    files = Files(folder, ["audio/c1.wav", "c1.wav"])
    assert files.paths == {"audio/c1.wav": folder / "audio" / "c1.wav"}
    assert "'audio/c1.wav' belongs to another row" in str(files.problems["c1.wav"])
    files = Files(folder, ["C1.wav", "c1"])
    assert files.paths == {}
    assert "may be 'C1.wav' or 'c1'; name it exactly" in str(files.problems["C1.wav"])


@pytest.mark.parametrize("name", ["c9.wav", "c4.wav", "audio/none", "x" * 300, "a\0b", "..", "/", "C:\\"])
def test_what_is_not_there_shows_what_was_tried(folder, name):
    files = Files(folder, [name])
    assert files.paths == {}
    assert f"there is no file {name!r}; tried" in str(files.problems[name])


def test_folders_that_link_to_each_other_are_searched_once(folder):
    (folder / "audio" / "again").symlink_to(folder)
    assert Files(folder, ["c1"]).paths == {"c1": folder / "audio" / "c1.wav"}
