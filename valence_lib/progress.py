"""What a build shows while it runs: jobs tell what they do in a file, the build reads it and prints.

A file, since the jobs are processes of their own and may run on another machine of a cluster. Each line is a
JSON object with the job's name and what happened: {"job": "CNN-default-0", "cell": 5, "cells": 8}.
"""

import json
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

PROGRESS_FILE = "progress.jsonl"
_EPOCH = re.compile(r"epoch +(\d+)/(\d+)")
_TRIAL = re.compile(r"^trial +(\d+) .*", re.MULTILINE)
_SECONDS_BETWEEN_LOOKS = 0.2


class Watcher:
    """Who is told how a notebook that runs comes along; this one does nothing with it."""

    def cell_begins(self, number: int, cells: int) -> None:
        """A code cell is next, the `number`-th of `cells`."""

    def said(self, text: str) -> None:
        """Something was printed."""


class JobProgress(Watcher):
    """Tells how one job comes along, and writes its log.

    Args:
        logs: the report's folder for logs, which is made.
        job: the job's name.
    """

    def __init__(self, logs: Path, job: str):
        logs.mkdir(parents=True, exist_ok=True)
        self._path, self._job = (
            logs.resolve() / PROGRESS_FILE,
            job,
        )  # papermill changes the folder while it runs
        self._log = (logs / f"{job}.log").open("w", encoding="utf-8", buffering=1)

    def tell(self, **what: Any) -> None:
        """Add a line to the build's progress; a full disk is no reason to end here."""
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"job": self._job, **what}) + "\n")

    def log(self, text: str) -> None:
        """Add a line to the job's own log."""
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self._log.write(text)

    def cell_begins(self, number: int, cells: int) -> None:
        """See `Watcher`."""
        self.log(f"--- code cell {number} of {cells}")
        self.tell(cell=number, cells=cells)

    def said(self, text: str) -> None:
        """See `Watcher`; lines that count epochs or tell of a sweep's trials are told to the build too."""
        self._write(text)
        for line in _TRIAL.finditer(text):
            self.tell(trial=int(line[1]), line=line[0])
        for epoch, epochs in _EPOCH.findall(text)[-1:]:
            self.tell(epoch=int(epoch), epochs=int(epochs))


def failed_for_good(logs: Path, job: str) -> str | None:
    """With what message a job has failed in this build so that it would fail again; None where it has not.

    A cluster may be told to try failed jobs again, which helps those that lacked memory, but not a notebook with an error.
    """
    try:
        lines = (logs / PROGRESS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    events = [event for event in map(_read, lines) if event and event["job"] == job and event.get("for_good")]
    return events[-1].get("message", "") if events else None


def _read(line: str) -> dict[str, Any] | None:
    """What a line tells; None where it is damaged, since two machines wrote at once."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "job" in event else None


@dataclass
class _State:
    """What is known of a job that has begun."""

    began: float
    kind: str
    cell: str = ""
    epoch: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.cell, self.epoch)))


class Progress:
    """The build's side: what the jobs told, and how it is shown.

    Args:
        jobs: names of those that may run, in order.
        kinds: of each, so that the time left can be told from like jobs.
        parallel: how many run at a time.
        out: where it is shown; a terminal also gets a line that is renewed.
    """

    def __init__(self, jobs: Sequence[str], kinds: Sequence[str], parallel: int, out: TextIO = sys.stdout):
        self._kinds = dict(zip(jobs, kinds, strict=True))
        self._parallel, self._out, self._live = parallel, out, out.isatty()
        self._running: dict[str, _State] = {}
        self._seconds: dict[str, list[float]] = {}
        self._trials: set[int] = set()
        self.outcomes: dict[str, str] = {}
        self._shown = False

    def take(self, event: dict[str, Any], now: float) -> None:
        """Take in what a job told at a time in seconds."""
        job = event["job"]
        if job not in self._kinds:
            return
        if "begins" in event:
            self._running[job] = _State(now, self._kinds[job])
        state = self._running.get(job)
        if "cell" in event and state:
            state.cell = f"cell {event['cell']}/{event['cells']}"
        if "epoch" in event and state:
            state.epoch = f"epoch {event['epoch']}/{event['epochs']}"
        # Every worker that joins tells again of the trials before it.
        if "trial" in event and event["trial"] not in self._trials:
            self._trials.add(event["trial"])
            self._clear()
            print(event["line"], file=self._out, flush=True)
        if "ended" in event:
            self._running.pop(job, None)
            self.outcomes[job] = event["ended"]
            if state and event["ended"] == "executed":
                self._seconds.setdefault(state.kind, []).append(now - state.began)
            self._print(job, event)

    def _print(self, job: str, event: dict[str, Any]) -> None:
        self._clear()
        width = max(map(len, self._kinds))
        count = f"[{len(self.outcomes):{len(str(len(self._kinds)))}d}/{len(self._kinds)}]"
        print(f"{count} {job:{width}}  {event['ended']}", file=self._out, flush=True)
        if message := event.get("message"):
            print(
                "\n" + "\n".join(f"    {line}" for line in message.splitlines()) + "\n",
                file=self._out,
                flush=True,
            )

    @property
    def silent(self) -> list[str]:
        """Jobs that have begun, and neither ended well nor told why they failed."""
        return list(self._running)

    def seconds_left(self, now: float) -> float | None:
        """A guess from the jobs that have ended; None as long as there is nothing to guess from."""
        if not self._seconds:
            return None
        every = [second for seconds in self._seconds.values() for second in seconds]
        work = 0.0
        for job, kind in self._kinds.items():
            if job not in self.outcomes:
                known = self._seconds.get(kind, every)
                spent = now - self._running[job].began if job in self._running else 0.0
                work += max(0.0, sum(known) / len(known) - spent)
        return work / self._parallel

    def show(self, now: float) -> None:
        """Renew the line on a terminal: what runs, how far it is, and how long it may still take."""
        if not self._live:
            return
        parts = [f"{job} {state}".strip() for job, state in self._running.items()]
        waiting = len(self._kinds) - len(self.outcomes) - len(self._running)
        left = self.seconds_left(now)
        guess = (
            ""
            if left is None
            else f"; about {left / 60:.0f} min left"
            if left >= 90
            else f"; about {left:.0f} s left"
        )
        line = f"{', '.join(parts) or 'starting'}; {waiting} waiting{guess}"
        columns = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{line[:columns]}", end="", file=self._out, flush=True)
        self._shown = True

    def _clear(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=self._out, flush=True)
            self._shown = False

    @contextmanager
    def following(self, logs: Path) -> Iterator[None]:
        """Show what the jobs tell while the block runs."""
        logs.mkdir(parents=True, exist_ok=True)
        path = logs / PROGRESS_FILE
        path.write_text("", encoding="utf-8")
        over = threading.Event()
        thread = threading.Thread(target=self._follow, args=(path, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._clear()

    def _follow(self, path: Path, over: threading.Event) -> None:
        with path.open(encoding="utf-8", errors="replace") as file:
            rest = ""
            while True:
                last = over.is_set()  # seen before the last look, which then misses nothing
                rest += file.read()
                *lines, rest = rest.split("\n")
                for event in filter(None, map(_read, lines)):
                    self.take(event, time.monotonic())
                if last:
                    return
                self.show(time.monotonic())
                over.wait(_SECONDS_BETWEEN_LOOKS)
