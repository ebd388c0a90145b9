"""A report's jobs on a Slurm cluster: named after the report, and none left over when its next build begins.

Whoever kills a build leaves its jobs in the queue and on the nodes, where they would write into the same folders
as those of the next build. Two things prevent it. Before anything else, the next build cancels what is queued or
runs under the report's name, and waits until it is gone. And a job that was still on its way into the queue then
finds that the mark in the report's folder is not that of the build which sent it, and ends before it writes.
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

MARK_FILE = ".on-slurm.json"  # in the report's folder, as long as jobs of one of its builds may be with Slurm
_BUILD = "VALENCE_BUILD"  # tells a job which build sent it
_LOOKS_SECONDS = 2.0
_PATIENCE_SECONDS = 600.0  # clusters give a job some 30 s to end, and then clean up after it


def job_prefix(report: Path) -> str:
    """What the names of all Slurm jobs of a report begin with; of a clone's own, for one user may have several."""
    folder = report.resolve()
    name = re.sub(r"[^A-Za-z0-9]+", "-", folder.name)[:24].strip("-")
    return f"valence-{name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"


def check_path(python: Path) -> None:
    """Refuse a place that Snakemake's Slurm plugin cannot hand on.

    Raises:
        SettingsError: a space, or another character that a shell reads, is in the path of the interpreter.
    """
    if re.search(r"[^\w./+-]", str(python)):
        raise SettingsError(
            f"the project lies in {str(python.parent.parent.parent)!r}; expected a path of letters, digits, '.', '-' and '_' "
            "for PROFILE=slurm, since Snakemake's Slurm plugin hands others on in pieces. Move the project, and make "
            ".venv anew."
        )


@contextmanager
def submitting(report: Path) -> Iterator[dict[str, str]]:
    """Mark the jobs that are submitted while the block runs; however it ends, none of them is left afterwards.

    Yields:
        Variables for the environment of whatever submits them.
    """
    build = uuid.uuid4().hex
    write_json(report / MARK_FILE, {"build": build})
    try:
        yield {_BUILD: build}
    finally:
        try:
            end_jobs(report)
        except RunError as error:  # of less interest than how the block ended; the next build sees to it
            print(f"valence: {error}", file=sys.stderr)


def end_jobs(report: Path) -> None:
    """Cancel what earlier builds of a report have left with Slurm, and wait until it is gone.

    Raises:
        RunError: Slurm cannot be asked here, or does not end them.
    """
    mark = report / MARK_FILE
    if not mark.is_file():
        return
    write_json(mark, {"build": ""})  # from now on, none that starts late begins to write
    prefix, told = job_prefix(report), False
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while jobs := _jobs(prefix):
        if not told:
            told = True
            print(f"Cancelling what is left with Slurm of a build: {' '.join(jobs)}", flush=True)
        if time.monotonic() > deadline:
            raise RunError(
                f"the Slurm jobs {' '.join(jobs)} were cancelled, but do not end, so that what they write could mix "
                "with what a new build writes. See `squeue --me`, and start again once they are gone."
            )
        if running := [number for number, state in jobs.items() if state != "COMPLETING"]:
            # One that has ended meanwhile is no error.
            subprocess.run(["scancel", *running], capture_output=True, check=False)
        time.sleep(_LOOKS_SECONDS)
    mark.unlink()


def _jobs(prefix: str) -> dict[str, str]:
    """This user's jobs that have not ended and whose names begin so: states by number."""
    command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i|%T|%j"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        raise RunError(
            f"an earlier build of this report ran on Slurm and may have left jobs there, but squeue could not be asked "
            f"({said}). Start on the cluster's login node. Where no such jobs can be left, remove {MARK_FILE} "
            "from the report's folder."
        ) from error
    rows = (line.strip().split("|", 2) for line in listed.splitlines() if line.strip())
    return {number: state for number, state, name in rows if name.startswith(f"{prefix}_")}


def check_build(report: Path) -> None:
    """Let a job go on only where the build that sent it to Slurm is still at work, or nobody did.

    Raises:
        RunError: another build is, or none.
    """
    own = os.environ.get(_BUILD)
    if own is None:
        return
    try:
        current = json.loads((report / MARK_FILE).read_text(encoding="utf-8"))["build"]
    except OSError:
        current = ""
    if current != own:
        raise RunError(
            "the build that sent this job to Slurm has ended, so it writes nothing. `make report` sends another."
        )
