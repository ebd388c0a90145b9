"""The progress of a build: jobs append events to a file, which the build reads and prints.

Jobs may run on other machines. An event is a line of JSON: {"job": "CNN-default-0", "step": "epoch 7/20"}.
"""

import json
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, TextIO

PROGRESS_FILE = "progress.jsonl"
_STEP = re.compile(r"(?:epoch|fit) +\d+/\d+")
_TRIAL = re.compile(r"^trial +(\d+) .*", re.MULTILINE)


class JobProgress:
    """Writes the events and the log of one job; a full disk is ignored.

    Args:
        logs: the report's folder for logs, made if it does not exist.
        job: the job's name.
    """

    def __init__(self, logs: Path, job: str):
        logs.mkdir(parents=True, exist_ok=True)
        self._path = logs.resolve() / PROGRESS_FILE  # papermill changes the working folder
        self._job = job
        self._log = (logs / f"{job}.log").open("w", encoding="utf-8", buffering=1)

    def emit(self, **content: Any) -> None:
        """Append an event."""
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"job": self._job, **content}) + "\n")

    def log(self, text: str) -> None:
        """Append a text to the job's log."""
        with suppress(OSError):
            self._log.write(text)

    def output(self, text: str) -> None:
        """Log what a cell prints; counted epochs and fits, and the trials of a sweep, become events."""
        self.log(text)
        for line in _TRIAL.finditer(text):
            self.emit(trial=int(line[1]), line=line[0])
        for step in _STEP.findall(text)[-1:]:
            self.emit(step=" ".join(step.split()))


def failed_for_good(logs: Path, job: str) -> str | None:
    """The message of a job that failed in this build and would fail again; None for any other job.

    A cluster may repeat a failed job, which helps one that lacked memory, but not one with an error.
    """
    with suppress(OSError), (logs / PROGRESS_FILE).open(encoding="utf-8", errors="replace") as file:
        for event in _events(file):
            if event["job"] == job and event.get("for_good"):
                return event["message"]
    return None


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The events of lines; those are damaged that two machines wrote at once."""
    for line in lines:
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "job" in event:
                yield event


class Progress:
    """Shows the events of a build's jobs.

    Args:
        kinds: of the jobs by name; jobs of one kind take about the same time.
        parallel: number of jobs that run at a time.
        out: where to print; on a terminal, the last line shows the running jobs.
    """

    def __init__(self, kinds: Mapping[str, str], parallel: int, out: TextIO = sys.stdout):
        self._kinds, self._parallel, self._out = kinds, parallel, out
        self._erase = "\r\x1b[K" if out.isatty() else ""
        self._began: dict[str, float] = {}
        self._seconds: dict[str, list[float]] = {}  # of ended jobs, by kind
        self._trials: set[int] = set()
        self.running: dict[str, list[str]] = {}  # cell and step of each job without an outcome
        self.outcomes: dict[str, str] = {}

    def take(self, event: Mapping[str, Any], now: float) -> None:
        """Process an event that is read at a time in seconds."""
        job = event["job"]
        if job not in self._kinds:
            return
        if "begins" in event:
            self._began[job], self.running[job] = now, []
        if "cell" in event:
            self.running[job] = [f"cell {event['cell']}/{event['cells']}"]
        if "step" in event:
            self.running.setdefault(job, [])[1:] = [event["step"]]
        # Each worker of a sweep prints the earlier trials too.
        if "trial" in event and event["trial"] not in self._trials:
            self._trials.add(event["trial"])
            self._print(event["line"])
        if outcome := event.get("ended"):
            self.outcomes[job] = outcome
            self.running.pop(job, None)
            if outcome == "executed":
                self._seconds.setdefault(self._kinds[job], []).append(now - self._began.get(job, now))
            count, width = len(self._kinds), max(map(len, self._kinds))
            self._print(f"[{len(self.outcomes):{len(str(count))}d}/{count}] {job:{width}}  {outcome}")
            if message := event.get("message"):
                self._print(f"\n{textwrap.indent(message, '    ')}\n")

    def _print(self, text: str, end: str = "\n") -> None:
        print(f"{self._erase}{text}", end=end, file=self._out, flush=True)

    def seconds_left(self, now: float) -> float | None:
        """Remaining seconds, estimated from the ended jobs, those of the same kind first; None before any."""
        if not self._seconds:
            return None
        means = {kind: fmean(seconds) for kind, seconds in self._seconds.items()}
        mean = fmean(chain.from_iterable(self._seconds.values()))
        waiting = {job: kind for job, kind in self._kinds.items() if job not in self.outcomes}
        spent = {job: now - self._began[job] for job in self.running}
        left = [max(0.0, means.get(kind, mean) - spent.get(job, 0.0)) for job, kind in waiting.items()]
        return sum(left) / self._parallel

    def show(self, now: float) -> None:
        """Renew the last line of a terminal: the running jobs, and the remaining time."""
        if not self._erase:
            return
        running = ", ".join(" ".join((job, *doing)) for job, doing in self.running.items()) or "starting"
        line = f"{running}; {len(self._kinds) - len(self.outcomes) - len(self.running)} waiting"
        if (left := self.seconds_left(now)) is not None:
            line += f"; about {left / 60:.0f} min left" if left >= 90 else f"; about {left:.0f} s left"
        self._print(line[: shutil.get_terminal_size().columns - 1], end="")

    @contextmanager
    def following(self, logs: Path) -> Iterator[None]:
        """Show the events in the folder for logs while the block runs."""
        logs.mkdir(parents=True, exist_ok=True)
        over = threading.Event()
        with (logs / PROGRESS_FILE).open("w+", encoding="utf-8", errors="replace") as file:
            thread = threading.Thread(target=self._follow, args=(file, over), daemon=True)
            thread.start()
            try:
                yield
            finally:
                over.set()
                thread.join()
                self._print("", end="")

    def _follow(self, file: TextIO, over: threading.Event) -> None:
        last, rest = False, ""
        while not last:
            last = over.wait(0.2)  # before the last look, which then misses nothing
            *lines, rest = (rest + file.read()).split("\n")
            for event in _events(lines):
                self.take(event, time.monotonic())
            self.show(time.monotonic())
