"""Holds a finished report against its records: is every artefact what the job left that made it?"""

import json
import os
from pathlib import Path

from valence_lib.errors import RunError, ValenceError
from valence_lib.jobs import REQUEST_FILE, Job, project_root
from valence_lib.records import MEASURED, RECORDS_FOLDER, changed_files, files_left, load_record

# What a report's folder holds beside artefacts: logs, records, what was asked, and what the sweep goes on from.
_NO_ARTEFACTS = ("logs", RECORDS_FOLDER, REQUEST_FILE, "sweep", "corpus")


def verify_report(report: Path) -> int:
    """Recompute the digests of every artefact and say which is not what its record says.

    Where the project has changed since, or a file lies there that no job left, that is said too, but is no fault.

    Returns:
        0 where every artefact is what its record says, else 1.

    Raises:
        RunError: the folder is no report.
    """
    try:
        request = json.loads((report / REQUEST_FILE).read_text(encoding="utf-8"))
        jobs = {name: Job(**job["job"]) for name, job in request["jobs"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{str(report)!r} is no report ({error}); expected a folder such as reports/demo that `make report` made."
        ) from error
    root = project_root()
    faults: list[str] = []
    remarks: list[str] = []
    checked: set[str] = set()
    paths = {path.stem: path for path in sorted((report / RECORDS_FOLDER).glob("*.json"))}
    for name in dict.fromkeys((*jobs, *paths)):
        record = load_record(paths[name]) if name in paths else None
        if record is None:
            faults.append(f"{name}: has no record that can be read; it was not finished")
            continue
        checked |= set(record.leaves)
        if json.loads(paths[name].read_text(encoding="utf-8")).get("key") != record.key:
            faults.append(f"{name}: its record was changed: the key is not the digest of what stands in it")
        for file in record.changed(report):
            what = "is not what it left" if (report / file).is_file() else "is gone"
            faults.append(f"{name}: {file} {what}")
        for file in changed_files(record.reads, root):
            faults.append(f"{name}: read another {file} than the one that is there")
        if name in jobs and _made_of_other_code(jobs[name], record.made_of, root):
            remarks.append(f"{name}: the project has changed since it was made; `make plan` says what")
    left = files_left(report, [path for path in report.iterdir() if path.name not in _NO_ARTEFACTS])
    unknown = [name for name in left if name not in checked and Path(name).name != MEASURED]
    remarks += [f"{name}: no job left it" for name in unknown]
    print("\n".join((*faults, *remarks)) or "every artefact is what its record says")
    print(
        f"{len(checked)} artefacts of {len(paths)} jobs in {os.path.relpath(report)}: {len(faults)} faults, "
        f"{len(remarks)} remarks"
    )
    return 1 if faults else 0


def _made_of_other_code(job: Job, made_of: object, root: Path) -> bool:
    try:
        return job.made_of(root) != made_of
    except (ValenceError, OSError):
        return True  # what it was made of is gone
