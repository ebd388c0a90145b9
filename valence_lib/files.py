"""Files that appear whole or not at all, also when the process is killed while it writes; and digests of files."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_whole(destination: Path) -> Iterator[Path]:
    """A temporary path beside `destination`, which takes its place once the block has ended well.

    The folder is made. Where the block raises, the temporary file goes and what stood at `destination` stays.
    The temporary name is hidden and holds the process's number, so that two processes may write the same file.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.stem}.{os.getpid()}{destination.suffix}")
    try:
        yield temporary
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(destination: Path, content: Any) -> None:
    """Content as indented JSON, written whole; NaN is refused, since JSON has none."""
    with written_whole(destination) as path:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")


def source_digest() -> str:
    """SHA-256 of this package's own code: what was made by other code is stale."""
    content = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        content.update(path.name.encode() + b"\0" + path.read_bytes())
    return content.hexdigest()


def stamp_of(path: Path) -> str:
    """SHA-256 of the names, sizes and times of change of a file, or of all files below a folder.

    It changes whenever a file does, and costs no reading.
    """
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stamps = [(str(file.relative_to(path)), file.stat()) for file in files if file.is_file()]
    text = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stamps)
    return hashlib.sha256(text.encode()).hexdigest()
