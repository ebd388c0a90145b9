"""What `valence predict` writes: a CSV with a row per clip or window, and the picture of a curve.

Nothing heavy is imported at the top, so that wrong destinations are refused at once.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from valence_lib.corpora.file_kinds import name_text
from valence_lib.errors import SettingsError
from valence_lib.files import atomic_write, temporary_name

if TYPE_CHECKING:
    from valence_lib.settings import Target
    from valence_lib.training.predicting import Prediction

PICTURE_SUFFIXES = (".png", ".pdf", ".svg")
_FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def check_destination(option: str, path: Path, inputs: Sequence[Path]) -> None:
    """Refuse a file that cannot be written, before the work whose results it is to hold.

    Args:
        option: of the command line, for the message.
        path: its folder may be missing, and is created when the file is written.
        inputs: the files to predict, none of which may be overwritten.

    Raises:
        SettingsError: `path` is something else than a file or is one of the inputs, or its folder is not
            writable.
    """
    problem = ""
    try:
        folder = path.parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            problem = f"'{name_text(folder)}' is no folder; give another place"
        elif path.exists() and not path.is_file():
            problem = "this is a folder or a device; give the name of a file"
        elif path.exists() and any(file.exists() and file.samefile(path) for file in inputs):
            problem = "this is one of the files to predict; give another name"
        else:
            temporary = temporary_name(folder / path.name)  # as it is written to
            temporary.touch()
            temporary.unlink()
    except OSError as error:
        problem = f"{error.strerror}; give another place"
    if problem:
        raise SettingsError(f"{option} '{name_text(path)}' cannot be written: {problem}.")


def write_csv(
    predictions: "Iterable[Prediction]",
    file: TextIO,
    target_name: str,
    with_windows: bool,
    half_width: float | None,
) -> "Iterator[Prediction]":
    """Write a header and one row per prediction; yield each prediction after its row.

    A relative path that a spreadsheet would take for a formula, such as "=a.wav", is written as "./=a.wav",
    which leads to the same file. Otherwise paths are as they were given, since programs read them back.

    Args:
        target_name: the name of the column with the predictions.
        with_windows: write the columns start_seconds and end_seconds.
        half_width: of the prediction interval, rating points; None writes no columns low and high.
    """
    writer = csv.writer(file, lineterminator="\n")
    times = ("start_seconds", "end_seconds") if with_windows else ()
    writer.writerow(["file", *times, target_name, *(() if half_width is None else ("low", "high"))])
    for prediction in predictions:
        value, error = prediction.rating, prediction.error
        outcome = "" if value is None else f"{value:.4f}"
        if error is not None:
            outcome = f"error: {error.reason}: {error}"
        seconds = [getattr(prediction, name) for name in times]
        bounds: list[float | None] = []
        if half_width is not None:
            bounds = [None, None] if value is None else [value - half_width, value + half_width]
        path = prediction.file
        writer.writerow(
            [
                f"./{path}" if path.startswith(_FORMULA_BEGINS) else path,
                *("" if second is None else f"{second:.3f}" for second in seconds),
                outcome,
                *("" if bound is None else f"{bound:.4f}" for bound in bounds),
            ]
        )
        yield prediction


def draw_curve(windows: "Sequence[Prediction]", destination: Path, target: "Target") -> None:
    """Draw the predictions along one recording; windows without a prediction are gaps.

    Args:
        target: what is predicted.
    """
    from valence_lib.report.figures.errors import plot_curve

    starts, ends = ([getattr(row, name) for row in windows] for name in ("start_seconds", "end_seconds"))
    values = [math.nan if row.rating is None else row.rating for row in windows]
    with atomic_write(destination) as path:
        plot_curve(starts, ends, values, target).savefig(path)
