"""What explore.ipynb shows: a clip, a menu of clips, a recording dropped in."""

from datetime import datetime

import numpy as np
import pytest
import soundfile
import torch

from valence_lib import exploring, rendering
from valence_lib.corpora import open_corpus
from valence_lib.features import Standardiser
from valence_lib.models import build_model
from valence_lib.registry import training_settings
from valence_lib.runs import Run
from valence_lib.settings import (
    FeatureSettings,
)


@pytest.fixture(scope="module")
def run():
    torch.manual_seed(0)
    nothing = np.zeros((0, 0), np.float32)
    settings = training_settings("LSTM1", "seed", 0)
    return Run(
        FeatureSettings(), settings, build_model("LSTM1").eval(), Standardiser("none", (), nothing, nothing)
    )


@pytest.fixture
def shown(monkeypatch):
    """All that a notebook would show, as text."""
    outputs = []

    def show(value, **_):
        outputs.append(
            value
            if isinstance(value, dict)
            else {"text/plain": getattr(value, "data", None) or value._repr_html_()}
        )

    monkeypatch.setattr(exploring, "display", show)
    monkeypatch.setattr(rendering, "display", show)
    return outputs


def test_a_clip_is_played_and_shown_beside_its_raters(run, shown):
    demo = open_corpus("demo")
    exploring.show_clip(demo, demo.ids[3], run)
    assert len(shown) == 4
    assert sum("image/png" in output for output in shown) == 2
    table = shown[-1]["text/html"]
    assert all(who in table for who in ("the run", "valence_a1", "valence_a3", "all raters"))
    assert f"{demo[3].valence:.2f}" in table


def test_choosing_a_clip_in_the_menu_shows_it(run, monkeypatch):
    chosen = []
    monkeypatch.setattr(exploring, "show_clip", lambda corpus, clip_id, run: chosen.append(clip_id))
    demo = open_corpus("demo")
    menu, _ = exploring.clip_browser(demo, run).children
    assert chosen == []
    menu.value = demo.ids[5]
    assert chosen == [demo.ids[5]]


def test_a_recording_of_any_rate_is_shown_with_its_prediction(run, shown, tmp_path):
    sound = 0.1 * np.sin(np.arange(44100) / 20)
    soundfile.write(tmp_path / "mine.wav", np.stack([sound, sound], axis=1), 44100)
    exploring.show_recording(tmp_path / "mine.wav", run)
    assert "Predicted valence of `mine.wav`" in shown[-1]["text/plain"]


def test_a_recording_dropped_in_is_kept_in_the_folder_and_a_bad_one_explained(run, shown, tmp_path):
    button, _ = exploring.recording_dropper(run, tmp_path).children
    button.value = (
        {
            "name": "../x.wav",
            "type": "audio/wav",
            "size": 3,
            "content": b"abc",
            "last_modified": datetime(2026, 1, 1),
        },
    )
    assert (tmp_path / "x.wav").read_bytes() == b"abc"
    assert "cannot be used: unreadable" in shown[-1]["text/plain"]
