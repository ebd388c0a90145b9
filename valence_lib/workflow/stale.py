"""Which jobs of a report are stale, and why. Only content counts, never the time of a file."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from valence_lib.settings import FEATURES_FOLDER
from valence_lib.workflow.jobs import Job
from valence_lib.workflow.records import changed_files, load_record, record_path

Fingerprint = Mapping[str, Any]
_REASONS = {"code": "its code changed", "text": "its text changed", "lock": "requirements.lock changed"}


def plan(
    folder: Path, jobs: Sequence[Job], fingerprints: Mapping[str, Fingerprint], root: Path
) -> dict[str, list[str]]:
    """Why each job is stale.

    Args:
        folder: the report's.
        jobs: each below those that it starts after.
        fingerprints: by name of the job.
        root: the project's folder.

    Returns:
        Reasons by name of the job, in the jobs' order; none for a job that is up to date.
    """
    reasons: dict[str, list[str]] = {}
    for job in jobs:
        record = load_record(record_path(folder, job.name))
        if record is None:
            reasons[job.name] = ["not finished yet"]
            continue
        found = differences(record.fingerprint, fingerprints[job.name])
        found += [f"{name} is not what the job made" for name in changed_files(record.outputs, folder)]
        if job.name == "preprocess" and not found and (lost := lost_features(folder)):
            found.append(f"{lost} files of the feature store are gone")
        if record.inputs.keys() != set(job.inputs):
            found.append("its inputs are other files")
        found += [f"after {name}" for name in job.after if reasons[name]]
        # Also after jobs that are up to date: a build may have been killed after them, and before this one.
        found += [f"{name} changed" for name in changed_files(record.inputs, root)]
        reasons[job.name] = found
    return reasons


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What differs between two fingerprints of a job, in words."""
    found = []
    for name in now:
        if before.get(name) == now[name]:
            continue
        if name in ("parameters", "modules", "values"):
            old, new = before[name], now[name]
            keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
            if name == "parameters":
                found += [f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in keys]
            else:
                found += [f"{key} changed" for key in keys]
        else:
            found.append(_REASONS.get(name, f"{name}: {before.get(name)} -> {now[name]}"))
    return found


def lost_features(folder: Path) -> int:
    """Number of files of the feature store that a report's clips need and that are missing."""
    with (folder / "preprocess" / "clips.csv").open(encoding="utf-8", newline="") as file:
        shards = {row["shard"] for row in csv.DictReader(file)}
    return sum(not (folder.parent / FEATURES_FOLDER / f"{shard}.npy").is_file() for shard in shards)
