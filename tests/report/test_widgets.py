"""What explore.ipynb shows: a clip, a menu of clips, a recording dropped in."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
import soundfile
import torch

from valence_lib.corpora.opening import open_corpus
from valence_lib.features.standardise import Standardiser
from valence_lib.models.build import build_model
from valence_lib.registry import training_settings
from valence_lib.report import rendering, widgets
from valence_lib.settings import FeatureSettings, Target
from valence_lib.training.runs import Run


@pytest.fixture(scope="module")
def run():
    torch.manual_seed(0)
    nothing = np.zeros((0, 0), np.float32)
    settings = training_settings("LSTM1", "course", 0)
    return Run(
        FeatureSettings(), settings, build_model("LSTM1").eval(), Standardiser("none", (), nothing, nothing)
    )


@pytest.fixture
def shown(monkeypatch):
    """All that a notebook would show, as text."""
    outputs = []

    def show(value, **_):
        other = {"text/plain": getattr(value, "data", None) or str(value)}
        outputs.append(value if isinstance(value, dict) else other)

    monkeypatch.setattr(widgets, "display", show)
    monkeypatch.setattr(rendering, "display", show)
    return outputs


def test_choosing_a_clip_in_the_menu_plays_it_and_shows_its_raters(run, shown):
    demo = open_corpus("demo")
    menu, _ = widgets.clip_browser(demo, run).children
    assert shown == []
    menu.value = demo.ids[3]
    assert len(shown) == 4
    assert sum("image/png" in output for output in shown) == 2
    table = shown[-1]["text/html"]
    assert all(who in table for who in ("the run", "rater a1", "rater a3", "all raters"))
    assert f"{demo[3].rating:.2f}" in table


def test_a_recording_of_any_rate_is_shown_with_its_prediction(run, shown, tmp_path):
    sound = 0.1 * np.sin(np.arange(44100) / 20)
    soundfile.write(tmp_path / "mine.wav", np.stack([sound, sound], axis=1), 44100)
    widgets.show_recording(tmp_path / "mine.wav", run)
    assert "Predicted valence of `mine.wav`" in shown[-1]["text/plain"]


def test_the_target_is_that_of_the_run(run, shown, tmp_path):
    warmth = replace(run, target=Target("vocal_warmth", 0, 100))
    soundfile.write(tmp_path / "mine.wav", 0.1 * np.sin(np.arange(8000) / 20), 8000)
    widgets.show_recording(tmp_path / "mine.wav", warmth)
    assert r"Predicted vocal_warmth of `mine.wav`" in shown[-1]["text/plain"]
    demo = open_corpus("demo")
    widgets.show_clip(demo, demo.ids[0], warmth)
    assert "Vocal_warmth" in shown[-1]["text/html"] and "alence" not in shown[-1]["text/html"]


def test_the_name_of_a_recording_is_shown_as_it_is(run, shown, tmp_path):
    path = tmp_path / "*a* `b` $c$.wav"
    path.write_bytes(b"abc")
    widgets.show_recording(path, run)
    text = shown[-1]["text/plain"]
    assert text.startswith(
        "\\*a\\* \\`b\\` <span>\\$</span>c<span>\\$</span>.wav cannot be used: unreadable: "
    )


def test_a_recording_dropped_in_is_kept_in_the_folder_and_a_bad_one_explained(run, shown, tmp_path):
    button, _ = widgets.recording_dropper(run, tmp_path).children
    recording = {"name": "../x.wav", "type": "audio/wav", "size": 3, "content": b"abc"}
    button.value = ({**recording, "last_modified": datetime(2026, 1, 1)},)
    assert (tmp_path / "x.wav").read_bytes() == b"abc"
    assert "cannot be used: unreadable" in shown[-1]["text/plain"]
