"""The CSV of `valence predict`: its columns have the name of the target."""

import io

import pytest

from valence_lib.errors import ClipError
from valence_lib.report.prediction_files import draw_curve, write_csv
from valence_lib.settings import Target
from valence_lib.training.predicting import Prediction

WINDOWS = [
    Prediction("a.wav", 5.25, None, 0.0, 1.0),
    Prediction("=b.wav", None, ClipError("silent", "no sound"), 1.0, 2.0),
]


def test_the_column_of_predictions_has_the_name_of_the_target():
    file = io.StringIO()
    yielded = list(write_csv(WINDOWS, file, "arousal", with_windows=False, half_width=None))
    assert yielded == WINDOWS
    assert file.getvalue() == "file,arousal\na.wav,5.2500\n./=b.wav,error: silent: no sound\n"


def test_windows_have_times_and_intervals_have_bounds():
    file = io.StringIO()
    list(write_csv(WINDOWS, file, "vocal warmth", with_windows=True, half_width=0.5))
    assert file.getvalue().splitlines() == [
        "file,start_seconds,end_seconds,vocal warmth,low,high",
        "a.wav,0.000,1.000,5.2500,4.7500,5.7500",
        "./=b.wav,1.000,2.000,error: silent: no sound,,",
    ]


@pytest.mark.parametrize(("suffix", "begins"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_a_curve_is_drawn_in_the_format_of_the_destination(suffix, begins, tmp_path):
    destination = tmp_path / f"curve{suffix}"
    draw_curve(WINDOWS, destination, Target("arousal", 1, 7))
    assert destination.read_bytes().startswith(begins)
