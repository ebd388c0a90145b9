"""What a file is: by its suffix, by its name, and, where it cannot be decoded, by its first bytes."""

import re
import stat
from pathlib import Path

PICKLE_SUFFIXES = {".pickle", ".pkl"}

# What only PyAV reads; soundfile reads the others.
PYAV_SUFFIXES = {
    *(".3g2", ".3gp", ".aac", ".ac3", ".adts", ".amr", ".ape", ".asf", ".avi", ".awb", ".f4a", ".flv"),
    *(".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp4", ".mpeg", ".mpg", ".spx", ".tta"),
    *(".weba", ".webm", ".wma", ".wmv", ".wv"),
}
AUDIO_SUFFIXES = PYAV_SUFFIXES | {
    *(".aif", ".aifc", ".aiff", ".au", ".avr", ".caf", ".flac", ".iff", ".mp3", ".nist", ".oga", ".ogg"),
    *(".opus", ".paf", ".pvf", ".rf64", ".sf", ".snd", ".sph", ".svx", ".voc", ".w64", ".wav", ".wave"),
}

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CLUTTER = {"__macosx", ".ds_store", "thumbs.db", "desktop.ini"}
_ANNEX = "/annex/objects/"
_FIRST_BYTES = 4096
_POINTERS = {
    b"version https://git-lfs.github.com/": "a Git LFS pointer (git lfs pull fetches the file)",
    _ANNEX.encode(): "a git-annex pointer (git annex get fetches the file)",
}
_UNPACK = "(unpack it first)"
_KINDS = {
    b"PK\x03\x04": f"a zip archive {_UNPACK}",
    b"\x1f\x8b": f"a gzip archive {_UNPACK}",
    b"BZh": f"a bzip2 archive {_UNPACK}",
    b"\xfd7zXZ\0": f"an xz archive {_UNPACK}",
    b"(\xb5/\xfd": f"a Zstandard archive {_UNPACK}",
    b"7z\xbc\xaf'\x1c": f"a 7z archive {_UNPACK}",
    b"Rar!\x1a\x07": f"a rar archive {_UNPACK}",
    b"\0\x05\x16\x07": "an AppleDouble file, which macOS stores beside the real one",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"MATLAB 5.0": "a MATLAB file",
    b"PAR1": "a Parquet table",
    b"SQLite format 3\0": "an SQLite database",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Microsoft Office file",
    b"%PDF-": "a PDF",
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"L\0\0\0\x01\x14\x02\0": "a Windows shortcut (copy the file that it refers to)",
}
_HTML = re.compile(r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", re.I | re.S)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_LEFT_BY = "such as a failed download leaves behind"


def is_clutter(name: str) -> bool:
    """Whether an operating system or an office program made a file or a folder of this name for itself.

    Args:
        name: one component of a path.
    """
    return name.startswith(("._", "~$")) or name.lower() in _CLUTTER


def name_text(path: str | Path) -> str:
    r"""A path as text that can be written in UTF-8.

    Bytes of a name that are not UTF-8, which Python holds as lone surrogates, are written as \xNN.
    """
    text = str(path)
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte, as in JSON
        return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    r"""Text on one line that can be written in UTF-8: control characters become escapes such as \x07."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), name_text(text))


def describe(path: Path) -> str:
    """What a file is that cannot be decoded, with its article: "an HTML page", "empty (0 bytes)".

    Returns:
        "" where nothing is known about the file.
    """
    try:
        if not path.exists() and path.is_symlink():
            target = str(path.readlink())
            return _POINTERS[_ANNEX.encode()] if _ANNEX in target else "a link to a file that does not exist"
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return "a folder"
        if not stat.S_ISREG(status.st_mode):
            return "a device, a pipe or a socket"
        with path.open("rb") as file:
            begin = file.read(_FIRST_BYTES)
    except OSError:
        return ""
    if not begin:
        return "empty (0 bytes)"
    for kinds in (_POINTERS, _KINDS):
        for magic, kind in kinds.items():
            if begin.startswith(magic):
                return kind
    if begin[257:262] == b"ustar":
        return f"a tar archive {_UNPACK}"
    if not begin.strip(b"\0"):
        return f"filled with zero bytes, {_LEFT_BY}"
    return _describe_text(begin, may_be_pickle=path.suffix.lower() in PICKLE_SUFFIXES)


def _describe_text(begin: bytes, may_be_pickle: bool) -> str:
    if begin.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16, here of plain letters
        begin = begin[2:].replace(b"\0", b"")
    text = begin.decode("utf-8", "replace").lstrip("\ufeff").strip()
    if _HTML.match(text):
        return f"an HTML page, {_LEFT_BY}"
    if text.startswith("<?xml"):
        return f"an XML document, {_LEFT_BY}"
    if may_be_pickle:
        return ""  # which may be text as well
    if _PICKLE.match(begin):
        return "a pickle (its name must end in .pkl)"
    # The last character may be cut.
    if "\ufffd" not in text[:-1] and all(c.isprintable() or c in "\t\n\r" for c in text[:-1]):
        return f"a text file, which begins with {text[:40]!r}"
    return ""
