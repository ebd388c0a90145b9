"""Suffixes, clutter and names of files, and what a file is that is no audio."""

import os
import sys
from pathlib import Path

import pytest
import soundfile

from valence_lib.corpora.file_kinds import (
    AUDIO_SUFFIXES,
    PICKLE_SUFFIXES,
    PYAV_SUFFIXES,
    describe,
    is_clutter,
    name_text,
)


def test_suffixes_are_in_lower_case_and_of_one_kind():
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in AUDIO_SUFFIXES | PICKLE_SUFFIXES)
    assert PYAV_SUFFIXES < AUDIO_SUFFIXES
    assert not AUDIO_SUFFIXES & PICKLE_SUFFIXES
    assert {".wav", ".caf", ".w64", ".aifc", ".snd", ".sph", ".m4a", ".webm", ".amr"} <= AUDIO_SUFFIXES
    # soundfile names a format by its usual suffix. These are no audio, have no header, or are rare.
    rare = {"HTK", "MAT4", "MAT5", "MPC2K", "RAW", "SD2", "SDS", "WVE", "XI"}
    usual = {"AVR": "avr", "IRCAM": "sf", "NIST": "nist", "SVX": "svx", "WAVEX": "wav", "AIFF": "aiff"}
    for name in soundfile.available_formats().keys() - rare:
        assert f".{usual.get(name, name.lower())}" in AUDIO_SUFFIXES


@pytest.mark.parametrize(
    "name",
    ["._a.wav", "._", "__MACOSX", ".DS_Store", "Thumbs.db", "thumbs.DB", "desktop.ini", "~$labels.xlsx"],
)
def test_what_systems_and_programs_leave_is_clutter(name: str):
    assert is_clutter(name)


@pytest.mark.parametrize(
    "name", ["a.wav", "_a.wav", ".a.wav", "MACOSX", "a~$.wav", "desktop.wav", "a._b.wav"]
)
def test_what_users_name_is_no_clutter(name: str):
    assert not is_clutter(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"a.wav", "a.wav"),
        ("ü 文.wav".encode(), "ü 文.wav"),
        (b"gl\xfcck.wav", r"gl\xfcck.wav"),
        (b"\xff/\xc3.wav", r"\xff/\xc3.wav"),
    ],
)
def test_a_name_is_text_that_utf_8_takes(name: bytes, text: str):
    assert name_text(os.fsdecode(name)) == text
    assert name_text(Path(os.fsdecode(name))) == text
    name_text(os.fsdecode(name)).encode()


def test_surrogates_without_a_byte_are_escaped_too():
    assert name_text("a\ud800.wav") == r"a\ud800.wav"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty (0 bytes)"),
        (b"<!DOCTYPE html>\n<html lang='en'>", "an HTML page, such as a failed download leaves behind"),
        (b"\xef\xbb\xbf  \r\n<HTML><head>", "an HTML page, such as a failed download leaves behind"),
        ("<html><body>Fehler für".encode("utf-16"), "an HTML page, such as a failed download leaves behind"),
        (
            b"<?xml version='1.0'?>\n<!-- x -->\n<html>",
            "an HTML page, such as a failed download leaves behind",
        ),
        (b"<?xml version='1.0'?><Error>", "an XML document, such as a failed download leaves behind"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n",
            "a Git LFS pointer (git lfs pull fetches the file)",
        ),
        (
            b"/annex/objects/SHA256E-s7--0.wav\n",
            "a git-annex pointer (git annex get fetches the file)",
        ),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "an AppleDouble file, which macOS stores beside the real one"),
        (b"PK\3\4\x14\0", "a zip archive (unpack it first)"),
        (b"\x1f\x8b\x08\0", "a gzip archive (unpack it first)"),
        (b"x" * 257 + b"ustar\0", "a tar archive (unpack it first)"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
        (b"\x89PNG\r\n\x1a\n\0", "a PNG picture"),
        (b"\x93NUMPY\1\0", "a NumPy array"),
        (b"\x80\4\x95\1", "a pickle (its name must end in .pkl)"),
        (bytes(9000), "filled with zero bytes, such as a failed download leaves behind"),
        (b"404: Not Found", "a text file, which begins with '404: Not Found'"),
        (b'{"error": "rate limit"}', """a text file, which begins with '{"error": "rate limit"}'"""),
        (
            "größer\t".encode()[:-1] * 700,
            "a text file, which begins with 'größergrößergrößergrößergrößergrößergröß'",
        ),
        (b"RIFF\x24\x08\0\0WAVEfmt ", ""),
        (b"\0\1\2\3", ""),
    ],
)
def test_a_file_is_called_what_it_is(tmp_path: Path, content: bytes, kind: str):
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    assert describe(path) == kind


def test_text_may_be_a_pickle_where_its_name_says_so(tmp_path: Path):
    (tmp_path / "a.pkl").write_bytes(b"(lp0\n.")
    assert describe(tmp_path / "a.pkl") == ""
    (tmp_path / "a.pkl").write_bytes(b"<html>")
    assert describe(tmp_path / "a.pkl").startswith("an HTML page")


def test_what_is_no_file_is_described_too(tmp_path: Path):
    assert describe(tmp_path / "absent.wav") == ""
    assert describe(tmp_path) == "a folder"
    link = tmp_path / "link.wav"
    link.symlink_to("nowhere.wav")
    assert describe(link) == "a link to a file that does not exist"
    link.unlink()
    link.symlink_to(".git/annex/objects/aa/SHA256E-s7--0.wav")
    assert describe(link) == "a git-annex pointer (git annex get fetches the file)"
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.wav")
        assert describe(tmp_path / "pipe.wav") == "a device, a pipe or a socket"
