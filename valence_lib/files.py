"""Files that appear whole or not at all, also when the process is killed while it writes."""

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
