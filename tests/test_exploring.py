"""What explore.ipynb shows: a clip, a menu of clips, a recording dropped in."""

import numpy as np
import pytest
import soundfile
import torch
from IPython.utils.capture import capture_output

from valence_lib import exploring
from valence_lib.corpora import open_corpus
from valence_lib.features import Standardiser
from valence_lib.models import build_model
from valence_lib.runs import Run
from valence_lib.settings import FeatureSettings, training_settings


@pytest.fixture(scope="module")
def run():
    torch.manual_seed(0)
    nothing = np.zeros((0, 0), np.float32)
    settings = training_settings("LSTM1", "seed", 0)
    return Run(
        FeatureSettings(), settings, build_model("LSTM1").eval(), Standardiser("none", (), nothing, nothing)
    )


def test_a_clip_is_heard_and_seen_beside_its_raters(run):
    demo = open_corpus("demo")
    with capture_output() as captured:
        exploring.show_clip(demo, demo.ids[3], run)
    assert len(captured.outputs) == 4
    assert any("audio" in output.data.get("text/html", "") for output in captured.outputs)
    assert sum("image/png" in output.data for output in captured.outputs) == 2
    table = captured.outputs[-1].data["text/html"]
    assert all(who in table for who in ("the run", "valence_a1", "valence_a3", "all raters"))
    assert f"{demo[3].valence:.2f}" in table


def test_choosing_a_clip_in_the_menu_shows_it(run, monkeypatch):
    shown = []
    monkeypatch.setattr(exploring, "show_clip", lambda corpus, clip_id, run: shown.append(clip_id))
    demo = open_corpus("demo")
    menu, _ = exploring.clip_browser(demo, run).children
    assert shown == []
    menu.value = demo.ids[5]
    assert shown == [demo.ids[5]]


def test_a_recording_of_any_rate_is_dropped_in_and_a_bad_one_is_explained(run, tmp_path, monkeypatch):
    sound = 0.1 * np.sin(np.arange(44100) / 20)
    soundfile.write(tmp_path / "mine.wav", np.stack([sound, sound], axis=1), 44100)
    with capture_output() as captured:
        exploring.show_recording(tmp_path / "mine.wav", run)
    assert "Predicted valence of `mine.wav`" in captured.outputs[-1].data["text/markdown"]
    dropped = []
    monkeypatch.setattr(exploring, "show_recording", lambda path, run: dropped.append(path.read_bytes()))
    (tmp_path / "folder").mkdir()
    button, _ = exploring.recording_dropper(run, tmp_path / "folder").children
    button.value = ({"name": "../x.wav", "type": "audio/wav", "size": 3, "content": b"abc"},)
    assert dropped == [b"abc"]
    assert (tmp_path / "folder" / "x.wav").is_file()
    monkeypatch.undo()
    with capture_output() as captured:
        exploring.show_recording(tmp_path / "folder" / "x.wav", run)
    assert "cannot be used: unreadable" in captured.outputs[-1].data["text/markdown"]
