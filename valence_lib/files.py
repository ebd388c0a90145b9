"""Atomic writes, which survive a kill at any moment, and digests of files."""

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

_LONGEST_TEMPORARY = 60  # characters; a socket's path has some 100, of which names take the rest


@contextmanager
def atomic_write(destination: Path) -> Iterator[Path]:
    """A temporary path beside `destination`, which replaces it when the block succeeds.

    The folder is created. When the block raises, the temporary file is removed and `destination` is
    unchanged. The temporary name holds the machine's name and the process's number: two processes may write
    the same file, and `remove_orphans` finds what a killed process left.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(destination)
    try:
        yield temporary
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(destination: Path) -> Path:
    """A hidden name beside `destination`, unique to this process."""
    owner = f"{platform.node()}.{os.getpid()}"
    return destination.with_name(f".{destination.stem}.{owner}.partial{destination.suffix}")


def temporary_folder() -> TemporaryDirectory:
    """A temporary folder with a short path, as sockets need."""
    place = gettempdir() if len(gettempdir()) <= _LONGEST_TEMPORARY else "/tmp"
    return TemporaryDirectory(prefix=f"valence-{os.getpid()}-", dir=place)


def remove_orphans(folder: Path) -> None:
    """Remove temporary files below a folder, and temporary folders, of processes that have ended."""
    here = re.compile(rf"\.{re.escape(platform.node())}\.(\d+)\.partial")
    for path in folder.rglob(".*.partial*"):
        owner = here.search(path.name)
        if owner and not _is_alive(int(owner[1])):
            _remove(path)
    for path in (path for place in {gettempdir(), "/tmp"} for path in Path(place).glob("valence-*-*")):
        number = path.name.split("-")[1]
        if number.isdigit() and not _is_alive(int(number)):
            _remove(path)


def _is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    # A zombie keeps its number until its parent waits for it.
    try:
        stat = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True  # no /proc on this system, or the process has just ended
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _remove(path: Path) -> None:
    with suppress(OSError):  # another user's, or already removed
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_json(destination: Path, content: Any) -> None:
    """Content as indented JSON, written whole; NaN is refused, since JSON has none."""
    with atomic_write(destination) as path:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        # Lone surrogates, as in names that are not UTF-8, become JSON's own escapes.
        path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_files(paths: Iterable[Path], folder: Path, notes: Path | None = None) -> str:
    """SHA-256 of the names, relative to a folder, and the contents of files. A missing file counts as absent.

    Args:
        notes: a JSON file of digests by name, size and time of change, so that unchanged files are not read
            again; None for none.
    """
    known = {}
    if notes:
        with suppress(OSError, ValueError):
            known = json.loads(notes.read_text(encoding="utf-8"))
    noted = {}
    for path in paths:
        name = os.path.relpath(path, folder)
        if not path.is_file():
            noted[name] = ["", "absent"]
            continue
        stat = path.stat()
        # ctime too: a copy may keep its mtime.
        stamp = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        before = known.get(name, ["", ""])
        noted[name] = [stamp, before[1] if before[0] == stamp else digest_of(path)]
    if notes and noted != known:
        write_json(notes, noted)
    text = "\n".join(f"{name} {digest}" for name, (_, digest) in sorted(noted.items()))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
