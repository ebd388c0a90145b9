"""Builds a report again in copies of this project, and compares it with the one in reports/.

    python workflow/verify.py OPTIONS
        every byte, under another language, time zone, path and order of jobs
    python workflow/verify.py --across OPTIONS
        the numbers and the committed notebooks, under the instructions of other processors

OPTIONS are those of `valence report`, by which the report in reports/ is built before. `make verify` and
`make verify-across` do both.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from valence_lib.files import digest_of

ROOT = Path(__file__).resolve().parents[1]

SURROUNDINGS = {
    "LC_ALL": "de_DE.UTF-8",
    "LANG": "de_DE.UTF-8",
    "TZ": "Asia/Kathmandu",
    "PYTHONHASHSEED": "2",
    "USER": "two",
    "LOGNAME": "two",
    "COLUMNS": "200",
    "OMP_NUM_THREADS": "2",
}
# The variables by which oneDNN, PyTorch, MKL, OpenBLAS and Numba choose the instructions of other processors.
PROCESSORS = {
    "AVX2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NUMBA_CPU_NAME": "haswell",
    },
    "SSE4.2": {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NUMBA_CPU_NAME": "nehalem",
    },
}
# Processors round differently, and training amplifies that: by up to 0.005 in the small report.
MOST_PREDICTION = 0.02  # rating points
MOST_SCORE = 0.02  # any number in results.json
# These depend on which of two nearly equal numbers is the larger.
MAY_DIFFER = ("/chosen/", "/comparisons/")
NBVAL = ["-p", "nbval_comparison", "--nbval", "--nbval-sanitize-with", "tests/nbval.cfg"]


def copy_project(folder: Path) -> Path:
    """Copy what a clone of the working tree would hold."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def run(project: Path, environment: Mapping[str, str], *command: str) -> None:
    """Run a Python module in a copy of the project, which is also the home folder."""
    own = {"PYTHONPATH": f"{project}:{project / 'tests'}", "HOME": str(project)}
    finished = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env={**os.environ, **own, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if finished.returncode:
        sys.exit(f"{finished.stdout}\n`{' '.join(command)}` failed in {project}")


def artefacts(report: Path) -> dict[str, str]:
    """The digests of all records and of their jobs' outputs, by path."""
    records = sorted((report / "provenance").glob("*.json"))
    names = [name for path in records for name in json.loads(path.read_text(encoding="utf-8"))["outputs"]]
    paths = [*records, *(report / name for name in names)]
    return {str(path.relative_to(report)): digest_of(path) for path in paths}


def compare_bytes(report: Path, options: Sequence[str], folder: Path) -> int:
    """The number of artefacts that differ in a different environment."""
    locale = folder / "de_DE.UTF-8"
    if shutil.which("localedef"):
        subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", locale], capture_output=True)
    if not locale.is_dir():
        print("A German locale cannot be made here (Debian's package locales has its source).")
    project = copy_project(folder / "another folder" / "two")
    environment = {**SURROUNDINGS, "LOCPATH": str(folder)} if locale.is_dir() else SURROUNDINGS
    run(project, environment, "valence_lib", "report", *options, "--jobs", "1")
    first, second = artefacts(report), artefacts(project / "reports" / report.name)
    different = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    for name in different:
        print(f"differs: {name}")
    print(f"{len(first.keys() | second.keys())} artefacts compared byte by byte, {len(different)} differ")
    return len(different)


def computed_with(report: Path) -> list[str]:
    """The instructions that a build used, from a record."""
    record = json.loads((report / "provenance" / "compare.json").read_text(encoding="utf-8"))
    return [value for name, value in record["environment"].items() if name.endswith(("with", "for"))]


def values(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a JSON document that is no mapping or list, with its path."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from values(value, f"{path}/{key}")
    else:
        yield path, content


def largest_differences(report: Path, other: Path) -> tuple[float, float]:
    """The largest differences of predictions and of numbers in results.json; NaN if any number is.

    Raises:
        SystemExit: they differ in more than numbers.
    """
    predictions, scores = [], []
    for path in sorted(report.glob("runs/*/predictions.csv")):
        one, two = pd.read_csv(path), pd.read_csv(other / path.relative_to(report))
        if not one["id"].equals(two["id"]):
            sys.exit(f"{path} holds other clips")
        predictions += list(abs(one["prediction"] - two["prediction"]))
    one, two = (
        dict(values(json.loads((r / "results.json").read_text(encoding="utf-8")))) for r in (report, other)
    )
    if one.keys() != two.keys():
        sys.exit(f"only one results.json holds {sorted(one.keys() ^ two.keys())}")
    for path, value in one.items():
        if isinstance(value, float):
            scores.append(abs(value - two[path]))
        elif value != two[path] and not path.startswith(MAY_DIFFER):
            sys.exit(f"results.json{path}: {value!r} and {two[path]!r}")
    return float(np.max(predictions)), float(np.max(scores))


def compare_processors(report: Path, options: Sequence[str], folder: Path) -> int:
    """The number of processors under which the report differs by more than the tolerances."""

    def check(name: str) -> bool:
        project = copy_project(folder / name)
        run(project, PROCESSORS[name], "valence_lib", "report", *options, "--jobs", "1")
        other = project / "reports" / report.name
        if computed_with(other) == computed_with(report):
            sys.exit(f"{name}: the variables had no effect; both builds used {computed_with(report)}")
        predictions, scores = largest_differences(report, other)
        within = predictions <= MOST_PREDICTION and scores <= MOST_SCORE  # False for NaN, too
        print(
            f"{name}: predictions differ by at most {predictions:.1e} (allowed: {MOST_PREDICTION:g} points), "
            f"results.json by {scores:.1e} (allowed: {MOST_SCORE:g}){'' if within else ': TOO MUCH'}"
        )
        notebooks = sorted(map(str, (project / "notebooks").glob("*.ipynb")))
        run(project, PROCESSORS[name], "pytest", *NBVAL, *notebooks)
        print(f"{name}: the committed notebooks have the same outputs, as nbval compares them")
        return within

    with ThreadPoolExecutor(max_workers=2) as executor:
        return list(executor.map(check, PROCESSORS)).count(False)


def main() -> int:
    """Compare; 0 if all is as it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--across", action="store_true", help="compare processors instead of surroundings")
    parser.add_argument("--name", required=True, help="of the report")
    given, rest = parser.parse_known_args()
    options = ["--name", given.name, *rest]
    compare = compare_processors if given.across else compare_bytes
    with tempfile.TemporaryDirectory(prefix="valence-verify-") as folder:
        return 1 if compare(ROOT / "reports" / given.name, options, Path(folder)) else 0


if __name__ == "__main__":
    sys.exit(main())
