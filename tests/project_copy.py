"""A copy of the project with a tiny corpus, for tests that build whole reports, edit code, kill and fill disks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import soundfile
from toy import tone

from valence_lib.registry import missing_packages

ROOT = Path(__file__).parent.parent
SEEDED = {f"{model}-{preset}-0" for model in ("LSTM1", "CNN", "LSTM2") for preset in ("default", "seed")}
FITTED = {"Ridge-default-0", "SVR-default-0"}
if not missing_packages(["speaker_encoder"]):
    FITTED |= {"GaussianProcess-default-0", "GaussianProcess-speaker-0"}
RUNS = {*SEEDED, *FITTED}
ALL = {"preprocess", *RUNS, "leakage", "compare", "error_analysis", "report", "render"}


def make_corpus(folder: Path) -> Path:
    """Forty tones by eight speakers, with their manifest."""
    folder.mkdir()
    rows = ["file,valence,speaker"]
    for number in range(40):
        valence = 1 + number % 5
        soundfile.write(folder / f"{number:02}.wav", tone(valence, 0.5 + 0.01 * number, number), 8000)
        rows.append(f"{number:02}.wav,{valence},S{number % 8}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


class Project:
    """A copy of the project with a tiny corpus beside it."""

    def __init__(self, folder: Path, corpus: Path):
        self.folder, self.corpus = folder, corpus
        # With compiled kernels and their times, so that nothing is compiled again.
        for name in ("valence_lib", "notebooks", "workflow"):
            shutil.copytree(ROOT / name, folder / name)
        shutil.copy2(ROOT / "requirements.lock", folder)
        self.report = folder / "reports" / "tiny"

    @property
    def environment(self) -> dict[str, str]:
        """In which Python takes this copy for the package."""
        return {**os.environ, "PYTHONPATH": str(self.folder)}

    def command(self, command: str, *options: str) -> list[str]:
        """What builds or plans the tiny report."""
        asked = ["--corpus", str(self.corpus), "--name", "tiny", "--seeds", "1", "--epochs", "2", *options]
        return [sys.executable, "-m", "valence_lib", command, *asked]

    def valence(self, command: str, *options: str) -> subprocess.CompletedProcess:
        """Run it to its end."""
        return subprocess.run(
            self.command(command, *options),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )

    def build(self, *options: str) -> dict[str, set[str]]:
        """Build the report; the jobs by how they ended."""
        finished = self.valence("report", "--jobs", "2", *options)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        outcomes: dict[str, set[str]] = {}
        for job, outcome in re.findall(r"^\[ *\d+/\d+\] (\S+) +(.+)$", finished.stdout, re.M):
            outcomes.setdefault(outcome, set()).add(job)
        return outcomes

    def plan(self, *options: str) -> dict[str, str]:
        """The jobs that would run, each with the reason."""
        said = self.valence("plan", *options).stdout.splitlines()
        return {job: why for job, why in (line.split(maxsplit=1) for line in said) if why != "up to date"}

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace what stands just once in a file of the copy."""
        path = self.folder / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def artefacts(self) -> dict[str, bytes]:
        """Everything that a build leaves, but for logs, what was measured, and the request."""
        return {
            path.relative_to(self.report).as_posix(): path.read_bytes()
            for path in sorted(self.report.rglob("*"))
            if path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(self.report).parts)
            and "logs" not in path.relative_to(self.report).parts
            and path.name not in ("seconds.json", "request.json")
        }
