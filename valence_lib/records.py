"""What every job of a report left, and what it was made of: the base of what is stale, of restoring, and of verifying.

reports/<name>/provenance/<job>.json holds one record. A job's key is the digest of all that it was made of: its
code, parameters and values (`jobs.Job.made_of`) and the files that it read. reports/.results/<key>/ keeps copies
of what the job of that key left, so that going back to earlier code or parameters restores instead of computing.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valence_lib.errors import RunError
from valence_lib.files import digest_of, temporary_name, write_json, written_whole
from valence_lib.provenance import digest_of_content

RECORDS_FOLDER = "provenance"
# Beside the reports; the features are shared by all that are on the same clips.
ARCHIVE_FOLDER = ".results"
FEATURES_FOLDER = ".features"
MEASURED = "seconds.json"  # what a clock said; kept with what a job leaves, but part of no digest
_ARCHIVE_BYTES = 4 << 30  # what is kept of earlier builds; the longest unused goes first


@dataclass(frozen=True)
class Record:
    """What one job left, and from what.

    Args:
        made_of: see `jobs.Job.made_of`.
        reads: digests of the files that it read, by path seen from the project's folder.
        leaves: digests of the files that it left, by path seen from the report's folder.
        environment: see `provenance.environment`; where it was computed, which may be another machine than this.
    """

    made_of: Mapping[str, Any]
    reads: Mapping[str, str]
    leaves: Mapping[str, str]
    environment: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Digest of what decides over the results."""
        return key_of(self.made_of, self.reads)

    def changed(self, report: Path) -> list[str]:
        """Files that are not there, or not what the job left."""
        return changed_files(self.leaves, report)

    def save(self, path: Path) -> None:
        """Write it as JSON, whole."""
        content = {"key": self.key, **vars(self)}
        write_json(path, content)


def changed_files(digests: Mapping[str, str], folder: Path) -> list[str]:
    """Files of a folder that are not there, or whose content has another digest than the one noted."""
    return [
        name
        for name, digest in digests.items()
        if not (folder / name).is_file() or digest_of(folder / name) != digest
    ]


def key_of(made_of: Mapping[str, Any], reads: Mapping[str, str]) -> str:
    """Digest of what decides over a job's results: all that it is made of but for the text between code cells."""
    return digest_of_content(
        {"made of": {name: value for name, value in made_of.items() if name != "text"}, "reads": dict(reads)}
    )


def record_path(report: Path, job: str) -> Path:
    """Where a job's record lies."""
    return report / RECORDS_FOLDER / f"{job}.json"


def load_record(path: Path) -> Record | None:
    """A job's record; None where it has none that can be read, and so was never finished."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Record(*(content[name] for name in ("made_of", "reads", "leaves", "environment")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_records(report: Path, jobs: Iterable[str]) -> dict[str, Record]:
    """The records of some finished jobs of a report, by job.

    Raises:
        RunError: one of them is not finished.
    """
    found = {}
    for job in jobs:
        record = load_record(record_path(report, job))
        if record is None:
            raise RunError(
                f"{report} has no record of the job {job!r}; `make report` runs it and writes one."
            )
        found[job] = record
    return found


def files_left(report: Path, leaves: Iterable[Path]) -> list[str]:
    """Names, seen from the report's folder, of files and of all files in folders that are there; sorted, none hidden."""
    found = set()
    for leaf in leaves:
        for path in leaf.rglob("*") if leaf.is_dir() else [leaf]:
            hidden = any(part.startswith(".") for part in path.relative_to(report).parts)
            if path.is_file() and not hidden and not path.name.endswith(".failed.ipynb"):
                found.add(path.relative_to(report).as_posix())
    return sorted(found)


def digests_of(report: Path, names: Iterable[str]) -> dict[str, str]:
    """Digests of files in a report's folder by their names, without those that only hold measured seconds."""
    return {name: digest_of(report / name) for name in names if Path(name).name != MEASURED}


def keep(report: Path, record: Record, names: Iterable[str]) -> None:
    """Put copies of what a job left into the archive beside the reports."""
    archive = report.parent / ARCHIVE_FOLDER
    archive.mkdir(exist_ok=True)
    if kept(report, record.key):
        return
    making = temporary_name(archive / record.key)
    making.mkdir()
    try:
        for name in names:
            (making / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(report / name, making / "files" / name)
        record.save(making / "record.json")
        with suppress(OSError):  # another build has put it there meanwhile
            making.rename(archive / record.key)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    with _using(archive, fcntl.LOCK_EX) as alone:
        if alone:
            _forget_longest_unused(archive)


@contextmanager
def _using(archive: Path, how: int) -> Iterator[bool]:
    """Keep others from removing what is read (`LOCK_SH`), or from reading (`LOCK_EX`, which does not wait)."""
    archive.mkdir(exist_ok=True)
    with (archive / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, how | (fcntl.LOCK_NB if how == fcntl.LOCK_EX else 0))
        except BlockingIOError:
            yield False
            return
        yield True


def kept(report: Path, key: str) -> Record | None:
    """The record of the job of that key in the archive; None where it is not there."""
    return load_record(report.parent / ARCHIVE_FOLDER / key / "record.json")


def restore(report: Path, key: str, leaves: Iterable[Path]) -> Record | None:
    """Copy what the job of that key left from the archive into the report's folder; what else is in `leaves` goes.

    Returns:
        Its record; None where the archive does not have it, or has it damaged (which is then removed).
    """
    entry = report.parent / ARCHIVE_FOLDER / key
    with _using(entry.parent, fcntl.LOCK_SH):
        record = kept(report, key)
        if record is None:
            return None
        if record.changed(entry / "files"):
            _remove_entry(entry)
            return None
        names = files_left(entry / "files", [entry / "files"])
        for name in names:
            with written_whole(report / name) as path:
                shutil.copyfile(entry / "files" / name, path)
        for name in set(files_left(report, leaves)) - set(names):
            (report / name).unlink()
        os.utime(entry)
        return record


def _forget_longest_unused(archive: Path) -> None:
    entries = [entry for entry in archive.iterdir() if not entry.name.startswith(".")]
    sizes = {
        entry: sum(file.stat().st_size for file in entry.rglob("*") if file.is_file()) for entry in entries
    }
    excess = sum(sizes.values()) - _ARCHIVE_BYTES
    for entry in sorted(entries, key=lambda entry: entry.stat().st_mtime):
        if excess <= 0:
            return
        excess -= sizes[entry]
        _remove_entry(entry)


def _remove_entry(entry: Path) -> None:
    """Remove it whole: a kill in the middle leaves something that is no entry."""
    going = temporary_name(entry)
    entry.rename(going)
    shutil.rmtree(going, ignore_errors=True)
