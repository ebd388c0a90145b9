"""Holds a finished report against its records: is every artefact what the job left that made it?"""

import json
import os
from pathlib import Path

from valence_lib.errors import RunError
from valence_lib.files import digest_of
from valence_lib.jobs import REQUEST_FILE
from valence_lib.records import load_record, record_path


def verify_report(report: Path) -> int:
    """Recompute the digests of every artefact and say which is not what its record says.

    That the project's code has changed since is said, but is no fault of the artefacts.

    Returns:
        0 where every artefact is what its record says, else 1.

    Raises:
        RunError: the folder is no report.
    """
    try:
        request = json.loads((report / REQUEST_FILE).read_text(encoding="utf-8"))
        jobs = {name: job["made_of"] for name, job in request["jobs"].items()}
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{str(report)!r} is no report ({error}); expected a folder such as reports/demo that `make report` made."
        ) from error
    root = report.resolve().parent.parent
    faults: list[str] = []
    checked: set[str] = set()
    for name, made_of in jobs.items():
        record = load_record(record_path(report, name))
        if record is None:
            faults.append(f"{name}: has no record; it was not finished")
            continue
        checked |= set(record.leaves)
        if json.loads(record_path(report, name).read_text(encoding="utf-8"))["key"] != record.key:
            faults.append(f"{name}: its record was changed: the key is not the digest of what stands in it")
        for file in record.changed(report):
            what = "is not what it left" if (report / file).is_file() else "is gone"
            faults.append(f"{name}: {file} {what}")
        for file, digest in record.reads.items():
            path = root / file
            if not path.is_file() or digest_of(path) != digest:
                faults.append(f"{name}: read another {file} than the one that is there")
        if dict(record.made_of) != made_of:
            faults.append(f"{name}: was made from something else than the last build asked for")
    print("\n".join(faults) or "every artefact is what its record says")
    print(f"{len(checked)} artefacts of {len(jobs)} jobs in {os.path.relpath(report)}: {len(faults)} faults")
    return 1 if faults else 0
