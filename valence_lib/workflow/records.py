"""Records of finished jobs, and the cache of earlier results.

reports/<name>/provenance/<job>.json holds a job's fingerprint (`jobs.Job.fingerprint`) and the digests of the
files that it read and made. The digest of fingerprint and inputs is its key; reports/.results/<key>/ holds
copies of its outputs, so that going back to earlier code or parameters computes nothing again.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valence_lib.errors import RunError
from valence_lib.files import atomic_write, digest_of, temporary_name, write_json
from valence_lib.provenance import digest_of_content

RECORDS_FOLDER = "provenance"
CACHE_FOLDER = ".results"  # in reports/
MEASURED = "seconds.json"  # measured times, which no digest covers
_CACHE_BYTES = 4 << 30  # above this size, the entries that are longest unused are removed


@dataclass(frozen=True)
class Record:
    """What one job read and made.

    Args:
        fingerprint: see `jobs.Job.fingerprint`.
        inputs: digests of the files that it read, by path seen from the project's folder.
        outputs: digests of the files that it made, by path seen from the report's folder.
        environment: of the process that ran it; see `provenance.environment`.
    """

    fingerprint: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    environment: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Digest of all that determines the results; the text between a notebook's code cells does not."""
        fingerprint = {name: value for name, value in self.fingerprint.items() if name != "text"}
        return digest_of_content({"fingerprint": fingerprint, "inputs": dict(self.inputs)})

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, {"key": self.key, **vars(self)})


def record_path(report: Path, job: str) -> Path:
    """Path of a job's record."""
    return report / RECORDS_FOLDER / f"{job}.json"


def load_record(path: Path) -> Record | None:
    """A job's record; None where the file is missing or damaged, as for a job that is not finished."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Record(*(content[name] for name in ("fingerprint", "inputs", "outputs", "environment")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_records(report: Path, jobs: Iterable[str]) -> dict[str, Record]:
    """The records of finished jobs of a report, by name of the job.

    Raises:
        RunError: one of them is not finished.
    """
    found = {job: load_record(record_path(report, job)) for job in jobs}
    for job, record in found.items():
        if record is None:
            raise RunError(f"{report} has no record of the job {job!r}; `make report` writes one.")
    return {job: record for job, record in found.items() if record}


def digests_of(report: Path, outputs: Iterable[str]) -> dict[str, str]:
    """Digests of the files among a job's outputs, which are files and folders, without measured times."""
    names = [name for name in _files(report, outputs) if Path(name).name != MEASURED]
    return {name: digest_of(report / name) for name in names}


def changed_files(digests: Mapping[str, str], folder: Path) -> list[str]:
    """Files of a folder that are missing, or have other digests than the given ones."""
    return [
        name
        for name, digest in digests.items()
        if not (folder / name).is_file() or digest_of(folder / name) != digest
    ]


def cache_put(report: Path, record: Record, outputs: Iterable[str]) -> None:
    """Copy the outputs of a job into the cache."""
    entry = report.parent / CACHE_FOLDER / record.key
    if entry.is_dir():
        return
    partial = temporary_name(entry)
    try:
        for name in _files(report, outputs):
            copy = partial / "files" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(report / name, copy)
        record.save(partial / "record.json")
        with suppress(OSError):  # another build has put it there meanwhile
            partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _remove_longest_unused(entry.parent)


def cache_get(report: Path, key: str, outputs: Iterable[str]) -> tuple[Record, bool] | None:
    """Bring the outputs of the job with this key into the report's folder; other files in them are removed.

    Returns:
        The job's record, and whether files were copied; None where the entry is missing or damaged.
    """
    entry = report.parent / CACHE_FOLDER / key
    record = load_record(entry / "record.json")
    if record is None or not changed_files(record.outputs, report):
        return (record, False) if record else None
    if changed_files(record.outputs, entry / "files"):
        _remove_entry(entry)
        return None
    try:
        names = _files(entry / "files", ["."])
        for name in names:
            with atomic_write(report / name) as path:
                shutil.copyfile(entry / "files" / name, path)
        os.utime(entry)
    except FileNotFoundError:  # another build has removed the entry meanwhile
        return None
    for name in set(_files(report, outputs)) - set(names):
        (report / name).unlink()
    return record, True


def _files(report: Path, outputs: Iterable[str]) -> list[str]:
    """Names of the existing files in outputs, without hidden ones and notebooks that failed."""
    found = set()
    for path in (report / output for output in outputs):
        for file in path.rglob("*") if path.is_dir() else [path]:
            name = file.relative_to(report)
            hidden = any(part.startswith(".") for part in name.parts)
            if file.is_file() and not hidden and not name.name.endswith(".failed.ipynb"):
                found.add(name.as_posix())
    return sorted(found)


def _remove_longest_unused(cache: Path) -> None:
    total = 0
    with suppress(FileNotFoundError):  # another build removes entries too
        for entry in sorted(cache.glob("[!.]*"), key=lambda entry: entry.stat().st_mtime, reverse=True):
            total += sum(file.stat().st_size for file in entry.rglob("*") if file.is_file())
            if total > _CACHE_BYTES:
                _remove_entry(entry)


def _remove_entry(entry: Path) -> None:
    """Rename it first, so that a kill leaves no damaged entry."""
    removed = temporary_name(entry)
    with suppress(FileNotFoundError):
        entry.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)
