"""What a build shows of its jobs: lines that stay, a line that is renewed on a terminal, and a guess at what is left."""

import io
import json
import time

import pytest

from valence_lib.progress import PROGRESS_FILE, JobProgress, Progress


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_job_tells_its_cells_epochs_and_fits_and_keeps_a_log(tmp_path):
    job = JobProgress(tmp_path / "logs", "CNN-default-0")
    job.tell(begins=True)
    job.cell_begins(2, 9)
    job.said("epoch   1/20   training MSE 1.0\nepoch   2/20   training MSE 0.9\n")
    job.said("fit  7/30   sentence\nno such line\n")
    job.tell(ended="executed")
    told = [json.loads(line) for line in (tmp_path / "logs" / PROGRESS_FILE).read_text().splitlines()]
    assert [{k: v for k, v in line.items() if k != "job"} for line in told] == [
        {"begins": True},
        {"cell": 2, "cells": 9},
        {"step": "epoch 2/20"},
        {"step": "fit 7/30"},
        {"ended": "executed"},
    ]
    assert {line["job"] for line in told} == {"CNN-default-0"}
    log = (tmp_path / "logs" / "CNN-default-0.log").read_text()
    assert log.startswith("--- code cell 2 of 9\nepoch   1/20")
    assert log.endswith("no such line\n")


@pytest.fixture
def progress():
    return Progress(["preprocess", "CNN-0", "CNN-1", "report"], ["p", "e", "e", "r"], 2, io.StringIO())


def test_an_ended_job_has_a_line_of_its_own(progress):
    progress.take({"job": "preprocess", "begins": True}, 0)
    progress.take({"job": "preprocess", "ended": "executed"}, 3)
    progress.take({"job": "another build's", "ended": "executed"}, 3)
    progress.take({"job": "CNN-0", "begins": True}, 3)
    progress.take({"job": "CNN-0", "ended": "failed", "message": "no\nmemory"}, 4)
    assert progress._out.getvalue() == (
        "[1/4] preprocess  executed\n[2/4] CNN-0       failed\n\n    no\n    memory\n\n"
    )
    assert progress.outcomes == {"preprocess": "executed", "CNN-0": "failed"}


def test_the_time_left_is_told_from_like_jobs(progress):
    assert progress.seconds_left(0) is None
    progress.take({"job": "preprocess", "begins": True}, 0)
    progress.take({"job": "preprocess", "ended": "executed"}, 4)
    # Three are left of 4 s each, by two at a time.
    assert progress.seconds_left(4) == 6
    progress.take({"job": "CNN-0", "begins": True}, 4)
    progress.take({"job": "CNN-0", "ended": "executed"}, 14)
    progress.take({"job": "CNN-1", "begins": True}, 14)
    # CNN-1 as long as CNN-0, of which it has had 3 s; the report as long as all on average.
    assert progress.seconds_left(17) == pytest.approx((7 + 7) / 2)
    progress.take({"job": "CNN-1", "ended": "up to date"}, 18)
    assert progress.seconds_left(18) == pytest.approx(7 / 2)


def test_a_terminal_is_shown_what_runs(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    progress = Progress(["a", "b", "c"], ["k", "k", "k"], 1, Terminal())
    progress.take({"job": "a", "begins": True}, 0)
    progress.take({"job": "a", "cell": 5, "cells": 9}, 1)
    progress.take({"job": "a", "step": "epoch 7/20"}, 2)
    progress.show(2)
    assert progress._out.getvalue().endswith("\ra cell 5/9 epoch 7/20; 2 waiting".replace("\r", "\r\x1b[K"))
    progress.take({"job": "a", "ended": "executed"}, 100)
    progress.show(100)
    assert progress._out.getvalue().endswith(
        "[1/3] a  executed\n\r\x1b[Kstarting; 2 waiting; about 3 min left"
    )
    monkeypatch.setenv("COLUMNS", "12")
    progress.show(100)
    assert progress._out.getvalue().endswith("\x1b[Kstarting; 2")


def test_what_is_told_is_followed_to_the_last_line(tmp_path):
    progress = Progress(["a"], ["k"], 1, io.StringIO())
    (tmp_path / PROGRESS_FILE).write_text('{"job": "a", "ended": "failed"}\n')  # of the build before
    with progress.following(tmp_path):
        job = JobProgress(tmp_path, "a")
        job.tell(begins=True)
        with (tmp_path / PROGRESS_FILE).open("a") as file:
            file.write('{"job": "a", {"job": "a"}\n')  # two machines at once
        time.sleep(0.3)
        job.tell(ended="executed")
    assert progress.outcomes == {"a": "executed"}
