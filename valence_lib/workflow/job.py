"""One job of a report: its outputs are up to date, or copied from the cache, or made by running it."""

from __future__ import annotations  # types of signatures are not imported

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence_lib.errors import LackOfMemoryError, RunError, ValenceError, disk_advice
from valence_lib.files import digest_of
from valence_lib.provenance import environment
from valence_lib.workflow import records, slurm
from valence_lib.workflow.jobs import REQUEST_FILE, Job, project_root
from valence_lib.workflow.progress import JobProgress, failed_for_good
from valence_lib.workflow.records import Record, changed_files, record_path
from valence_lib.workflow.stale import differences, lost_features

if TYPE_CHECKING:
    pass

LOGS_FOLDER = "logs"
HELD_BY_JOBS = ".notebooks-at-work"  # in the report's folder: running jobs hold a lock on it
CORPUS_NOTES = ".corpus-digests.json"  # in the report's folder: the digests of corpus files, by size and time


def run_job(folder: Path, name: str) -> None:
    """Run one job of the request in a report's folder, or find its outputs in the cache; write its record.

    Raises:
        ValenceError: the program of the job failed.
    """
    slurm.check_build(folder)
    if message := failed_for_good(folder / LOGS_FOLDER, name):
        raise RunError(f"{name} has failed in this build, and would fail again: {message}")
    request = json.loads((folder / REQUEST_FILE).read_text(encoding="utf-8"))
    job, fingerprint = Job(**request["jobs"][name]), request["fingerprints"][name]
    progress = JobProgress(folder / LOGS_FOLDER, name)
    progress.emit(begins=True)
    try:
        with lock_while_running(folder):
            record, outcome = _make_outputs(folder, job, fingerprint, request, progress)
            (folder / job.outputs[0]).with_suffix(".failed.ipynb").unlink(missing_ok=True)
            record.save(record_path(folder, name))
    except BaseException as error:
        message = str(error) if isinstance(error, ValenceError) else repr(error)
        if isinstance(error, OSError):
            message = f"{error}. {disk_advice(error.errno)}".strip()
        progress.log(f"{message}\n")
        # A job that lacked memory, or space on a disk, may succeed when it is tried again.
        for_good = isinstance(error, ValenceError) and not isinstance(error, LackOfMemoryError)
        progress.emit(ended="failed", message=message, for_good=for_good)
        raise
    progress.emit(ended=outcome)


@contextmanager
def lock_while_running(folder: Path) -> Iterator[None]:
    """Hold the lock for which the next build of a report waits, also when this build is killed."""
    with (folder / HELD_BY_JOBS).open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield


def _make_outputs(
    folder: Path, job: Job, fingerprint: Mapping, request: Mapping, progress: JobProgress
) -> tuple[Record, str]:
    """The record of a job whose outputs are now in the report's folder, and how they came there."""
    root = project_root()
    inputs = {name: digest_of(root / name) for name in job.inputs}
    wanted = Record(fingerprint, inputs, {}, {})
    found = records.cache_get(folder, wanted.key, job.outputs) if job.cacheable else None
    if found and not (job.name == "preprocess" and lost_features(folder)):
        record, copied = found
        if fingerprint["text"] != record.fingerprint["text"]:
            record = _with_updated_text(folder, job, replace(record, fingerprint=fingerprint), root)
        return record, "restored" if copied else "up to date"
    _execute(folder, job, fingerprint["parameters"], progress, request["time_limit"], root)
    outputs = records.digests_of(folder, job.outputs)
    record = replace(wanted, outputs=outputs, environment=environment())
    _check_unchanged(folder, job, record, request, root)
    if job.cacheable:
        records.cache_put(folder, record, job.outputs)
    return record, "executed"


def _execute(
    folder: Path, job: Job, parameters: Any, progress: JobProgress, time_limit: float | None, root: Path
) -> None:
    destination = folder / job.outputs[0]
    if destination.suffix == ".ipynb":
        from valence_lib.workflow.notebooks import run_notebook

        run_notebook(root / job.program, destination, parameters, progress, time_limit)
    else:
        from valence_lib.report.rendering import render_report

        render_report(root / job.inputs[0], destination, folder / job.outputs[1])


def _with_updated_text(folder: Path, job: Job, record: Record, root: Path) -> Record:
    """Bring the text between the code cells of the executed notebook up to date."""
    from valence_lib.workflow.notebooks import read_notebook, with_updated_text, write_notebook

    executed = folder / job.outputs[0]
    write_notebook(executed, with_updated_text(read_notebook(executed), root / job.program))
    return replace(record, outputs={**record.outputs, job.outputs[0]: digest_of(executed)})


def _check_unchanged(folder: Path, job: Job, record: Record, request: Mapping, root: Path) -> None:
    """Refuse outputs of a job whose code or inputs changed meanwhile: the record would be wrong."""
    began = (folder / REQUEST_FILE).stat().st_mtime_ns
    stats = [(root / name).stat() for name in (job.program, *record.fingerprint["modules"])]
    changed = [f"{name} changed" for name in changed_files(record.inputs, root)]
    if any(max(stat.st_mtime_ns, stat.st_ctime_ns) > began for stat in stats):
        changed += differences(record.fingerprint, job.fingerprint(root))
    if "corpus" in job.values:
        from valence_lib.corpora.opening import open_corpus, split_names
        from valence_lib.workflow.corpora import absolute, corpus_digest

        trained, tested = (absolute(request[name], root) for name in ("corpus", "test_corpus"))
        given = {name: request[name] for name in ("columns", "target", "scale")}
        corpus = open_corpus(trained, test_corpus=tested, **given)
        places = [*split_names(trained), *split_names(tested)]
        if corpus_digest(corpus, places, folder / CORPUS_NOTES) != job.values["corpus"]:
            changed.append("the corpus changed")
    if changed:
        raise RunError(
            f"the inputs of {job.name} changed while it ran, so that its outputs are not recorded: "
            f"{'; '.join(changed)}. Run `make report` again."
        )
