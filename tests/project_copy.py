"""A copy of the project with a tiny corpus, for tests of whole reports."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import soundfile
from toy import tone

from valence_lib.registry import missing_packages

ROOT = Path(__file__).parents[1]
TINY = ["--corpus", "clips", "--name", "tiny", "--preset", "course", "--seeds", "1", "--epochs", "2"]
NETWORKS = {f"{model}-course-0" for model in ("LSTM1", "CNN", "LSTM2")}
RUNS = {*NETWORKS, "Ridge-default-0", "SVR-default-0"}
if not missing_packages(["speaker_encoder"]):
    RUNS |= {"GaussianProcess-default-0", "GaussianProcess-speaker-0"}
ALL = {"preprocess", *RUNS, "leakage", "compare", "error_analysis", "report", "render"}


class Project:
    """A copy of the project, and the options of its report.

    Args:
        folder: of the copy.
        options: which report to build.
        environment: of the commands.
    """

    def __init__(
        self, folder: Path, options: Sequence[str] = TINY, environment: Mapping[str, str] = os.environ
    ):
        self.folder, self.options = folder, options
        self.report = folder / "reports" / options[options.index("--name") + 1]
        self.corpus = folder / "clips"
        self.environment = {**environment, "PYTHONPATH": str(folder)}
        self.seconds = 0.0  # of the last build

    def create(self) -> "Project":
        """Copy the project, with compiled kernels, and make a corpus: forty tones by eight speakers."""
        for name in ("valence_lib", "notebooks", "workflow"):
            shutil.copytree(ROOT / name, self.folder / name)
        shutil.copy2(ROOT / "requirements.lock", self.folder)
        self.corpus.mkdir()
        rows = ["file,valence,speaker"]
        for number in range(40):
            valence = 1 + number % 5
            clip = tone(valence, 0.5 + 0.01 * number, number)
            soundfile.write(self.corpus / f"{number:02}.wav", clip, 8000)
            rows.append(f"{number:02}.wav,{valence},S{number % 8}")
        (self.corpus / "labels.csv").write_text("\n".join(rows) + "\n")
        return self

    def copy(self, folder: Path) -> "Project":
        """This project with its reports, in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder, self.options)

    def start(
        self, *options: str, command: str = "report", output: int = subprocess.PIPE
    ) -> subprocess.Popen:
        """Start a command in a session of its own, so that all its processes can be killed at once."""
        return subprocess.Popen(
            [sys.executable, "-m", "valence_lib", command, *self.options, *options],
            cwd=self.folder,
            env=self.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A shell starts commands in the background with interrupts ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def run(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its output and messages are in `stdout`."""
        process = self.start(*options, command=command)
        printed, _ = process.communicate(timeout=900)
        return subprocess.CompletedProcess(process.args, process.returncode, printed)

    def build(self, *options: str) -> dict[str, set[str]]:
        """Build the report; the jobs by how they ended."""
        began = time.monotonic()
        finished = self.run("report", "--jobs", "2", *options)
        self.seconds = time.monotonic() - began
        assert finished.returncode == 0, finished.stdout
        outcomes: dict[str, set[str]] = {}
        for job, outcome in re.findall(r"^\[ *\d+/\d+\] (\S+) +(.+)$", finished.stdout, re.M):
            outcomes.setdefault(outcome, set()).add(job)
        return outcomes

    def plan(self, *options: str) -> dict[str, str]:
        """The jobs that would run, each with the reason."""
        lines = (line.split(maxsplit=1) for line in self.run("plan", *options).stdout.splitlines())
        return {job: reason for job, reason in lines if reason != "up to date"}

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text that occurs exactly once in a file of the copy."""
        path = self.folder / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def artefacts(self) -> dict[str, bytes]:
        """Every file of the report, except for logs, measured times and the request."""
        found = {}
        for path in sorted(self.report.rglob("*")):
            parts = path.relative_to(self.report).parts
            hidden = any(part.startswith(".") for part in parts)
            if path.is_file() and not hidden and parts[0] not in ("logs", "corpus", "request.json"):
                found["/".join(parts)] = path.read_bytes()
        return {name: content for name, content in found.items() if not name.endswith("seconds.json")}


def wait_until(condition: Callable[[], bool], seconds: float = 240) -> None:
    """Fail if the condition does not become true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
