"""Files that appear whole or not at all, also when the process is killed while it writes; and digests of files."""

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
def written_whole(destination: Path) -> Iterator[Path]:
    """A temporary path beside `destination`, which takes its place once the block has ended well.

    The folder is made. Where the block raises, the temporary file goes and what stood at `destination` stays.
    The temporary name is hidden and holds the machine's name and the process's number, so that two processes may
    write the same file, and `remove_orphans` knows whose it was.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(destination)
    try:
        yield temporary
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(destination: Path) -> Path:
    """A hidden name beside `destination` for what this process is making there."""
    owner = f"{platform.node()}.{os.getpid()}"
    return destination.with_name(f".{destination.stem}.{owner}.partial{destination.suffix}")


def temporary_folder() -> TemporaryDirectory:
    """A folder of the system's for the time of a block, for sockets and the like, whose paths may not be long."""
    place = gettempdir() if len(gettempdir()) <= _LONGEST_TEMPORARY else "/tmp"
    return TemporaryDirectory(prefix=f"valence-{os.getpid()}-", dir=place)


def remove_orphans(folder: Path) -> None:
    """Remove what processes of this machine that were killed have left half made below a folder and in `temporary_folder`s."""
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
    # One that has ended has its number until its parent takes note.
    try:
        stat = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True  # a system without this folder; or it has gone just now, and next time is found to have
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _remove(path: Path) -> None:
    with suppress(OSError):  # another user's, or gone by now
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_json(destination: Path, content: Any) -> None:
    """Content as indented JSON, written whole; NaN is refused, since JSON has none."""
    with written_whole(destination) as path:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_files(paths: Iterable[Path], folder: Path, notes: Path | None = None) -> str:
    """SHA-256 of the names, seen from a folder, and the contents of files; one that is not there counts as such.

    Args:
        notes: where it is noted what was read, so that a file whose size and time of change have stayed as they
            were is not read again; None notes nothing. A file that was only touched is read, and changes nothing.
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
        # The time of change of the entry too: a copy may bring the time of its content along.
        stamp = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        before = known.get(name, ["", ""])
        noted[name] = [stamp, before[1] if before[0] == stamp else digest_of(path)]
    if notes and noted != known:
        write_json(notes, noted)
    text = "\n".join(f"{name} {digest}" for name, (_, digest) in sorted(noted.items()))
    return hashlib.sha256(text.encode()).hexdigest()
