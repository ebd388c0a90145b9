"""Builds a small report twice, from two copies of this project, and compares every artefact.

    python workflow/verify.py           byte by byte, under unlike names, places, languages, times and orders
    python workflow/verify.py --across  the numbers, under the instruction sets of other processors

`make verify` and `make verify-across` call it.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from valence_lib.files import digest_of

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    "--corpus",
    "demo",
    "--name",
    "verified",
    "--clips-per-speaker",
    "12",
    "--epochs",
    "4",
    "--seeds",
    "1",
]

# Whatever a build might take from its surroundings, the other way round the second time.
SURROUNDINGS = [
    {
        "LC_ALL": "C",
        "LANG": "C",
        "TZ": "UTC",
        "PYTHONHASHSEED": "1",
        "USER": "one",
        "LOGNAME": "one",
        "COLUMNS": "80",
    },
    {
        **{"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "2"},
        **{"USER": "two", "LOGNAME": "two", "COLUMNS": "200", "OMP_NUM_THREADS": "2"},
    },
]
# How other processors would compute: oneDNN's, torch's, MKL's, numpy's, OpenBLAS's and numba's own switches.
PROCESSORS = {
    "as here": {},
    "AVX2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NUMBA_CPU_NAME": "haswell",
    },
    "the least": {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NUMBA_CPU_NAME": "nehalem",
    },
}
# How far results may lie apart between processors. Rounding differs in the last digit of a number, and training
# multiplies that: after the small profile's four epochs, predictions were found up to 0.005 rating points apart and
# numbers of results.json up to 0.004. These are four times as much, and a two-hundredth of the rating scale.
MOST_PREDICTION = 0.02  # rating points
MOST_SCORE = 0.02  # of any number in results.json

# What follows from which of two nearly equal numbers is the larger.
MAY_DIFFER = ("/chosen/", "/comparisons/")

NOT_COMPARED = ("seconds.json", "request.json")


def copy_project(destination: Path) -> None:
    """What a clone of the working tree would hold."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, destination / name)


def german_locale(folder: Path) -> dict[str, str]:
    """Variables that give a process German numbers and dates, where the system has the sources of locales."""
    made = (
        subprocess.run(
            ["localedef", "-i", "de_DE", "-f", "UTF-8", str(folder / "de_DE.UTF-8")],
            capture_output=True,
            check=False,
        )
        if shutil.which("localedef")
        else None
    )
    if not (folder / "de_DE.UTF-8").is_dir():
        print("no German locale could be made; its variables are set all the same")
    return {"LOCPATH": str(folder)} if made else {}


def build(project: Path, surroundings: dict[str, str], jobs: int) -> Path:
    """Build the small report in a copy of the project; give the report's folder."""
    environment = {**os.environ, **surroundings, "PYTHONPATH": str(project), "HOME": str(project)}
    finished = subprocess.run(
        [sys.executable, "-m", "valence_lib", "report", *SMALL, "--jobs", str(jobs)],
        cwd=project,
        env=environment,
    )
    if finished.returncode:
        sys.exit(f"the build in {project} failed")
    return project / "reports" / "verified"


def artefacts(report: Path) -> dict[str, Path]:
    """Every file that a build leaves, but for logs, what a clock measured, and the request."""
    found = {}
    for path in sorted(report.rglob("*")):
        parts = path.relative_to(report).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.is_file() and not hidden and parts[0] != "logs" and path.name not in NOT_COMPARED:
            found["/".join(parts)] = path
    return found


def compare_bytes(folder: Path) -> int:
    """Two builds under unlike surroundings; how many artefacts differ."""
    projects = [folder / "one", folder / "another folder" / "two"]
    for project in projects:
        copy_project(project)
    (folder / "locales").mkdir()
    SURROUNDINGS[1].update(german_locale(folder / "locales"))
    first, second = (
        artefacts(build(project, surroundings, jobs))
        for project, surroundings, jobs in zip(projects, SURROUNDINGS, (1, 2), strict=True)
    )
    different = sorted(set(first) ^ set(second))
    different += [
        name for name in first.keys() & second.keys() if digest_of(first[name]) != digest_of(second[name])
    ]
    for name in sorted(different):
        print(f"differs: {name}")
    print(f"{len(first.keys() | second.keys())} artefacts compared byte by byte, {len(different)} differ")
    return len(different)


def computed_with(report: Path) -> list[str]:
    """The ways of computing that a build's records name."""
    record = json.loads((report / "provenance" / "compare.json").read_text(encoding="utf-8"))
    return [
        f"{name} {value}" for name, value in record["environment"].items() if name.endswith(("with", "for"))
    ]


def numbers(content: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a JSON document with its place."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from numbers(value, f"{where}/{key}")
    elif isinstance(content, list):
        for position, value in enumerate(content):
            yield from numbers(value, f"{where}/{position}")
    else:
        yield where, content


def furthest(report: Path, other: Path) -> tuple[float, float]:
    """How far the predictions and the numbers of results.json of two reports lie apart at most.

    Raises:
        SystemExit: they differ in more than numbers.
    """
    predictions = 0.0
    for path in sorted(report.glob("runs/*/predictions.csv")):
        rows = [
            list(csv.DictReader(p.open(encoding="utf-8"))) for p in (path, other / path.relative_to(report))
        ]
        for one, two in zip(*rows, strict=True):
            if one["id"] != two["id"]:
                sys.exit(f"{path} holds other clips")
            apart = abs(float(one["prediction"]) - float(two["prediction"]))
            predictions = apart if not apart <= predictions else predictions  # also where it is no number
    contents = [
        dict(numbers(json.loads((r / "results.json").read_text(encoding="utf-8")))) for r in (report, other)
    ]
    if contents[0].keys() != contents[1].keys():
        sys.exit("results.json holds other things")
    scores = 0.0
    for where, value in contents[0].items():
        if isinstance(value, float):
            apart = abs(value - contents[1][where])
            scores = apart if not apart <= scores else scores
        elif value != contents[1][where] and not where.startswith(MAY_DIFFER):
            sys.exit(f"results.json{where}: {value!r} and {contents[1][where]!r}")
    return predictions, scores


def compare_processors(folder: Path) -> int:
    """Builds under the instruction sets of other processors; how many lie too far from the one of this."""
    projects = {name: folder / re.sub(r"\W", "-", name) for name in PROCESSORS}
    for project in projects.values():
        copy_project(project)
    reports = {
        name: build(project, {"PYTHONHASHSEED": "0", **PROCESSORS[name]}, os.cpu_count() or 1)
        for name, project in projects.items()
    }
    failed = 0
    here = reports.pop("as here")
    for name, report in reports.items():
        predictions, scores = furthest(here, report)
        too_far = not (predictions <= MOST_PREDICTION and scores <= MOST_SCORE)
        if computed_with(report) == computed_with(here):
            sys.exit(f"{name}: the switches had no effect; both builds computed with {computed_with(here)}")
        failed += too_far
        print(
            f"{name}: predictions at most {predictions:.1e} apart (allowed {MOST_PREDICTION:g} rating points), "
            f"results.json at most {scores:.1e} (allowed {MOST_SCORE:g}){': TOO FAR' if too_far else ''}"
        )
    return failed


def main() -> int:
    """Compare; 0 where all is as it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--across", action="store_true", help="compare processors instead of surroundings")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="valence-verify-") as folder:
        return 1 if (compare_processors if options.across else compare_bytes)(Path(folder)) else 0


if __name__ == "__main__":
    sys.exit(main())
