"""Compares the files of a finished report with its records."""

import json
import os
from pathlib import Path
from typing import Any

from valence_lib.errors import RunError, ValenceError
from valence_lib.workflow.jobs import CORPUS_LINK, REQUEST_FILE, Job, project_root
from valence_lib.workflow.records import RECORDS_FOLDER, changed_files, digests_of, load_record

# What no record covers.
_NOT_RECORDED = ("logs", RECORDS_FOLDER, REQUEST_FILE, "sweep")


def verify_report(report: Path) -> int:
    """Print every file of a report that differs from its record.

    Changes of the project since the build, and files that no job made, are printed as remarks.

    Returns:
        0 where no file differs, else 1.

    Raises:
        RunError: the folder is no report.
    """
    try:
        request = json.loads((report / REQUEST_FILE).read_text(encoding="utf-8"))
        jobs = {name: Job(**job) for name, job in request["jobs"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{str(report)!r} is no report ({error}); expected a folder such as reports/demo."
        ) from error
    root = project_root()
    faults: list[str] = []
    remarks: list[str] = []
    recorded: set[str] = set()
    paths = {path.stem: path for path in sorted((report / RECORDS_FOLDER).glob("*.json"))}
    for name in dict.fromkeys((*jobs, *paths)):
        record = load_record(paths[name]) if name in paths else None
        if record is None:
            faults.append(f"{name}: has no record that can be read; it is not finished")
            continue
        recorded |= set(record.outputs)
        if json.loads(paths[name].read_text(encoding="utf-8")).get("key") != record.key:
            faults.append(f"{name}: its record was changed: the key is not the digest of its content")
        for file in changed_files(record.outputs, report):
            what = "is not what the job made" if (report / file).is_file() else "is missing"
            faults.append(f"{name}: {file} {what}")
        faults += [f"{name}: its input {file} changed" for file in changed_files(record.inputs, root)]
        if name in jobs and _fingerprint(jobs[name], root) != record.fingerprint:
            remarks.append(f"{name}: the project has changed since; see `make plan`")
    names = [path.name for path in report.iterdir() if not path.name.startswith(CORPUS_LINK)]
    files = digests_of(report, [name for name in names if name not in _NOT_RECORDED])
    remarks += [f"{name}: no job made it" for name in files if name not in recorded]
    print("\n".join((*faults, *remarks)) or "every file is as recorded")
    print(
        f"{len(recorded)} files of {len(paths)} jobs in {os.path.relpath(report)}: {len(faults)} faults, "
        f"{len(remarks)} remarks"
    )
    return 1 if faults else 0


def _fingerprint(job: Job, root: Path) -> dict[str, Any]:
    try:
        return job.fingerprint(root)
    except (ValenceError, OSError):  # its program, or a module of it, is gone
        return {}
