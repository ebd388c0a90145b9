"""What a build prints of its jobs: a line for each that ended, and on a terminal those that run."""

import io
import json
import time

import pytest

from valence_lib.workflow.progress import PROGRESS_FILE, JobProgress, Progress


class Terminal(io.StringIO):
    """A text stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_epochs_and_fits_become_events_and_all_output_is_logged(tmp_path):
    job = JobProgress(tmp_path / "logs", "CNN-0")
    job.emit(begins=True)
    printed = "epoch   1/20   training MSE 1.0\nepoch   2/20   training MSE 0.9\n"
    job.output(printed)
    job.output("fit  7/30   sentence\nno such line\n")
    events = [json.loads(line) for line in (tmp_path / "logs" / PROGRESS_FILE).read_text().splitlines()]
    contents = ({"begins": True}, {"step": "epoch 2/20"}, {"step": "fit 7/30"})
    assert events == [{"job": "CNN-0", **content} for content in contents]
    assert (tmp_path / "logs" / "CNN-0.log").read_text() == printed + "fit  7/30   sentence\nno such line\n"


@pytest.fixture
def progress():
    return Progress({"preprocess": "p", "CNN-0": "e", "CNN-1": "e", "report": "r"}, 2, io.StringIO())


def test_a_job_that_ended_has_a_line(progress):
    progress.take({"job": "preprocess", "begins": True}, 0)
    progress.take({"job": "preprocess", "ended": "executed"}, 3)
    progress.take({"job": "another build's", "ended": "executed"}, 3)
    progress.take({"job": "CNN-0", "begins": True}, 3)
    progress.take({"job": "CNN-0", "ended": "failed", "message": "no\nmemory"}, 4)
    assert progress._out.getvalue() == (
        "[1/4] preprocess  executed\n[2/4] CNN-0       failed\n\n    no\n    memory\n\n"
    )
    assert progress.outcomes == {"preprocess": "executed", "CNN-0": "failed"}


def test_the_remaining_time_is_that_of_jobs_of_the_same_kind(progress):
    assert progress.seconds_left(0) is None
    progress.take({"job": "preprocess", "begins": True}, 0)
    progress.take({"job": "preprocess", "ended": "executed"}, 4)
    # Three are left of 4 s each, by two at a time.
    assert progress.seconds_left(4) == 6
    progress.take({"job": "CNN-0", "begins": True}, 4)
    progress.take({"job": "CNN-0", "ended": "executed"}, 14)
    progress.take({"job": "CNN-1", "begins": True}, 14)
    # CNN-1 takes as long as CNN-0, and 3 s have passed; the report takes the mean of all.
    assert progress.seconds_left(17) == pytest.approx((7 + 7) / 2)
    progress.take({"job": "CNN-1", "ended": "up to date"}, 18)
    assert progress.seconds_left(18) == pytest.approx(7 / 2)


def test_a_terminal_shows_the_running_jobs(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    progress = Progress(dict.fromkeys("abc", "k"), 1, Terminal())
    progress.take({"job": "a", "begins": True}, 0)
    progress.take({"job": "a", "cell": 5, "cells": 9}, 1)
    progress.take({"job": "a", "step": "epoch 7/20"}, 2)
    progress.show(2)
    assert progress._out.getvalue().endswith("\r\x1b[Ka cell 5/9 epoch 7/20; 2 waiting")
    progress.take({"job": "a", "ended": "executed"}, 100)
    progress.show(100)
    assert progress._out.getvalue().endswith(
        "[1/3] a  executed\n\r\x1b[Kstarting; 2 waiting; about 3 min left"
    )
    monkeypatch.setenv("COLUMNS", "12")
    progress.show(100)
    assert progress._out.getvalue().endswith("\x1b[Kstarting; 2")


def test_events_are_followed_to_the_last(tmp_path):
    progress = Progress({"a": "k"}, 1, io.StringIO())
    (tmp_path / PROGRESS_FILE).write_text('{"job": "a", "ended": "failed"}\n')  # of the build before
    with progress.following(tmp_path):
        job = JobProgress(tmp_path, "a")
        job.emit(begins=True)
        with (tmp_path / PROGRESS_FILE).open("a") as file:
            file.write('{"job": "a", {"job": "a"}\n')  # two machines wrote at once
        time.sleep(0.3)
        job.emit(ended="executed")
    assert progress.outcomes == {"a": "executed"}
