"""The progress of a build: jobs append events to a file, which the build reads and prints.

Jobs are processes of their own and may run on another machine of a cluster. An event is a line of JSON with
the job's name: {"job": "CNN-default-0", "cell": 5, "cells": 8}.
"""

import json
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean
from typing import Any, TextIO

PROGRESS_FILE = "progress.jsonl"
_STEP = re.compile(r"(?:epoch|fit) +\d+/\d+")
_TRIAL = re.compile(r"^trial +(\d+) .*", re.MULTILINE)


class Watcher:
    """Receives what happens in a running notebook; this one ignores it."""

    def cell_begins(self, number: int, cells: int) -> None:
        """Receive that the `number`-th of `cells` code cells begins."""

    def said(self, text: str) -> None:
        """Receive what a cell prints."""


class JobProgress(Watcher):
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

    def tell(self, **what: Any) -> None:
        """Append an event with this content."""
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"job": self._job, **what}) + "\n")

    def log(self, text: str, end: str = "\n") -> None:
        """Append a text and its end to the job's log."""
        with suppress(OSError):
            self._log.write(text + end)

    def cell_begins(self, number: int, cells: int) -> None:
        """See `Watcher`."""
        self.log(f"--- code cell {number} of {cells}")
        self.tell(cell=number, cells=cells)

    def said(self, text: str) -> None:
        """See `Watcher`; lines that count epochs or fits, or report a sweep's trials, become events."""
        self.log(text, end="")
        for line in _TRIAL.finditer(text):
            self.tell(trial=int(line[1]), line=line[0])
        for step in _STEP.findall(text)[-1:]:
            self.tell(step=" ".join(step.split()))


def failed_for_good(logs: Path, job: str) -> str | None:
    """Return why a job has failed in this build, if it would fail again.

    Clusters may repeat failed jobs, which helps those that lacked memory, but not a notebook with an error.

    Args:
        logs: the report's folder for logs.
        job: the job's name.

    Returns:
        The message of the error; None where there is none.
    """
    with suppress(OSError), (logs / PROGRESS_FILE).open(encoding="utf-8", errors="replace") as file:
        for event in _events(file):
            if event["job"] == job and event.get("for_good"):
                return event.get("message", "")
    return None


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The events of lines, without those that are damaged since two machines wrote at once."""
    for line in lines:
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "job" in event:
                yield event


class Progress:
    """Shows the events of a build's jobs.

    Args:
        jobs: the names of those that may run, in order.
        kinds: of each; jobs of one kind take about as long as each other.
        parallel: how many run at a time.
        out: where to print; on a terminal, the last line shows what runs.
    """

    def __init__(self, jobs: Sequence[str], kinds: Sequence[str], parallel: int, out: TextIO = sys.stdout):
        self._kinds = dict(zip(jobs, kinds, strict=True))
        self._parallel, self._out = parallel, out
        self._erase = "\r\x1b[K" if out.isatty() else ""
        self._began: dict[str, float] = {}  # of each job that runs
        self._doing: dict[str, list[str]] = {}  # its cell and its step
        self._seconds: dict[str, list[float]] = {}  # of ended jobs, by kind
        self._trials: set[int] = set()
        self.outcomes: dict[str, str] = {}

    def take(self, event: dict[str, Any], now: float) -> None:
        """Process an event that is read at a time in seconds."""
        job = event["job"]
        if job not in self._kinds:
            return
        if "begins" in event:
            self._began[job], self._doing[job] = now, []
        if "cell" in event:
            self._doing[job] = [f"cell {event['cell']}/{event['cells']}"]
        if "step" in event:
            self._doing.setdefault(job, [])[1:] = [event["step"]]
        # Each worker of a sweep prints the earlier trials too.
        if "trial" in event and event["trial"] not in self._trials:
            self._trials.add(event["trial"])
            self._print(event["line"])
        if "ended" in event:
            self.outcomes[job] = event["ended"]
            began = self._began.pop(job, None)
            if began is not None and event["ended"] == "executed":
                self._seconds.setdefault(self._kinds[job], []).append(now - began)
            jobs, width = len(self._kinds), max(map(len, self._kinds))
            self._print(f"[{len(self.outcomes):{len(str(jobs))}d}/{jobs}] {job:{width}}  {event['ended']}")
            if message := event.get("message"):
                self._print(f"\n{textwrap.indent(message, '    ')}\n")

    def _print(self, text: str, end: str = "\n") -> None:
        print(f"{self._erase}{text}", end=end, file=self._out, flush=True)

    @property
    def silent(self) -> list[str]:
        """The jobs that have begun and have no outcome."""
        return list(self._began)

    def seconds_left(self, now: float) -> float | None:
        """Estimate the remaining seconds from the ended jobs, those of one kind first; None before any."""
        if not self._seconds:
            return None
        every = [second for seconds in self._seconds.values() for second in seconds]
        work = 0.0
        for job, kind in self._kinds.items():
            if job not in self.outcomes:
                spent = now - self._began.get(job, now)
                work += max(0.0, fmean(self._seconds.get(kind, every)) - spent)
        return work / self._parallel

    def show(self, now: float) -> None:
        """Renew the last line of a terminal: what runs, and how long the build may still take."""
        if not self._erase:
            return
        running = ", ".join(" ".join((job, *self._doing[job])) for job in self._began) or "starting"
        line = f"{running}; {len(self._kinds) - len(self.outcomes) - len(self._began)} waiting"
        if (left := self.seconds_left(now)) is not None:
            line += f"; about {left / 60:.0f} min left" if left >= 90 else f"; about {left:.0f} s left"
        self._print(line[: shutil.get_terminal_size().columns - 1], end="")

    @contextmanager
    def following(self, logs: Path) -> Iterator[None]:
        """Show the events that are written below the folder for logs while the block runs."""
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
