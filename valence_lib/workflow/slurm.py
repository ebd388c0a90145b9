"""The jobs of a report on a Slurm cluster, none of which outlives its build.

A killed build leaves jobs with Slurm, which would write into the same folders as those of the next build. The
next build cancels them and waits for their end. A job that enters the queue later finds the mark of another
build in the report's folder, and ends before it writes.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valence_lib.errors import RunError, SettingsError
from valence_lib.files import write_json

MARK_FILE = ".on-slurm.json"  # in the report's folder while Slurm may have jobs of a build
_BUILD = "VALENCE_BUILD"  # variable of a job's environment: the build that submitted it
_POLL_SECONDS = 2.0
_PATIENCE_SECONDS = 600.0  # clusters give a job some 30 s to end, and then clean up


def job_prefix(report: Path) -> str:
    """Prefix of the names of all Slurm jobs of a report, another in every clone of the project."""
    folder = report.resolve()
    name = re.sub(r"[^A-Za-z0-9]+", "-", folder.name)[:24].strip("-")
    return f"valence-{name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"


def check_path(python: Path) -> None:
    """Refuse a path that Snakemake's Slurm plugin cannot pass on.

    Raises:
        SettingsError: the path of the interpreter holds a space, or another special character of the shell.
    """
    if re.search(r"[^\w./+-]", str(python)):
        raise SettingsError(
            f"the project is in {str(python.parents[2])!r}; expected a path of letters, digits, '.', '-' and "
            "'_' for PROFILE=slurm. Move the project, and install again."
        )


@contextmanager
def submitting(report: Path) -> Iterator[dict[str, str]]:
    """Mark the jobs that are submitted in the block; afterwards, cancel those that are left.

    Yields:
        Variables for the environment of the submitting process.
    """
    build = uuid.uuid4().hex
    write_json(report / MARK_FILE, {"build": build})
    try:
        yield {_BUILD: build}
    finally:
        try:
            end_jobs(report)
        except RunError as error:  # the next build tries again
            print(f"valence: {error}", file=sys.stderr)


def end_jobs(report: Path) -> None:
    """Cancel the jobs that earlier builds of a report have left with Slurm, and wait for their end.

    Raises:
        RunError: squeue fails, or the jobs do not end.
    """
    mark = report / MARK_FILE
    if not mark.is_file():
        return
    write_json(mark, {"build": ""})  # from now on, no job of an earlier build starts to write
    prefix, printed = job_prefix(report), False
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while jobs := _jobs(prefix):
        if not printed:
            printed = True
            print(f"Cancelling the jobs that a build has left with Slurm: {' '.join(jobs)}", flush=True)
        if time.monotonic() > deadline:
            raise RunError(
                f"the Slurm jobs {' '.join(jobs)} were cancelled, but do not end, and may still write. See "
                "`squeue --me`, and start again once they are gone."
            )
        if running := [number for number, state in jobs.items() if state != "COMPLETING"]:
            # A job that has ended meanwhile is no error.
            subprocess.run(["scancel", *running], capture_output=True, check=False)
        time.sleep(_POLL_SECONDS)
    mark.unlink()


def _jobs(prefix: str) -> dict[str, str]:
    """States of this user's jobs with the prefix that have not ended, by number."""
    command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i|%T|%j"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        message = (getattr(error, "stderr", None) or str(error)).strip()
        raise RunError(
            f"an earlier build may have left jobs with Slurm, but squeue failed ({message}). Start on the "
            f"login node; where no such jobs can be left, remove {MARK_FILE} from the report's folder."
        ) from error
    rows = (line.strip().split("|", 2) for line in listed.splitlines() if line.strip())
    return {number: state for number, state, name in rows if name.startswith(f"{prefix}_")}


def check_build(report: Path) -> None:
    """Refuse to run a job whose build has submitted it to Slurm and has ended since.

    Raises:
        RunError: it has.
    """
    own = os.environ.get(_BUILD)
    if own is None:
        return
    try:
        current = json.loads((report / MARK_FILE).read_text(encoding="utf-8"))["build"]
    except OSError:
        current = ""
    if current != own:
        raise RunError("the build that submitted this job has ended; `make report` submits another.")
