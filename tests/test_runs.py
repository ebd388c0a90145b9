"""Runs: they predict as their weights do by hand; damaged folders and absent devices are refused."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import FEATURES, Given, make_material, tone

from valence_lib import runs
from valence_lib.batches import Batch, pad
from valence_lib.errors import RunError, SettingsError
from valence_lib.features import Standardiser, log_mel
from valence_lib.models import build_model, count_parameters
from valence_lib.registry import NETWORKS, training_settings
from valence_lib.runs import (
    Ensemble,
    Run,
    load_run,
    pick_device,
    predict_batches,
    save_members,
)
from valence_lib.settings import TrainingSettings
from valence_lib.streams import ClipFeatures
from valence_lib.training import train

WAVEFORMS = [tone(1 + n / 40, 0.05 + n / 400, n) for n in range(150)]  # more clips than a batch takes
NEW_CLIPS = [log_mel(waveform, FEATURES) for waveform in WAVEFORMS]
SPEAKERS = [f"S{n % 3}" for n in range(150)]


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("features"))


def _train(material, folder, model="CNN", **changes):
    settings = training_settings(model, "default", 0, epochs=1, **changes)
    train(material, settings, folder, torch.device("cpu"), progress=False)
    return folder


@pytest.fixture(scope="module")
def finished(material, tmp_path_factory):
    """The folder of a finished run."""
    return _train(material, tmp_path_factory.mktemp("runs") / "CNN-default-0")


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(finished, tmp_path / "CNN-default-0")


@pytest.mark.parametrize("model", NETWORKS)
def test_predictions_are_those_of_a_model_built_by_hand(material, tmp_path, model, monkeypatch):
    monkeypatch.setattr(runs, "_FRAMES_PER_RECURRENT_BATCH", 1024)
    run = Run.load(_train(material, tmp_path, model))
    frames = np.concatenate([material.store[row] for row in material.rows("train")]).astype(np.float64)
    weights = load_file(tmp_path / "best.safetensors")
    by_hand = build_model(model, [FEATURES.n_mels]).eval()
    by_hand.load_state_dict({key[6:]: value for key, value in weights.items() if key.startswith("model.")})
    expected = []
    with torch.no_grad():
        for clip in NEW_CLIPS:
            standardised = torch.from_numpy(((clip - frames.mean(0)) / frames.std(0)).astype(np.float32))
            expected.append(by_hand(standardised[None], torch.tensor([len(clip)])).item())
    found = run.predict(ClipFeatures(WAVEFORMS, FEATURES), [""] * 150)
    assert (found.shape, found.dtype) == ((150,), np.float64)
    assert found == pytest.approx(np.array(expected), abs=1e-4)
    assert np.std(expected) > 1e-3


@pytest.mark.parametrize(("model", "most_frames"), [("CNN", 512), ("LSTM1", 8192), ("LSTM2", 8192)])
def test_a_batch_is_large_for_recurrent_layers_and_small_for_maps(model, most_frames):
    nothing = np.zeros((0, 0), np.float32)
    built = build_model(model, [FEATURES.n_mels])
    run = Run(FEATURES, TrainingSettings(), built, Standardiser("none", (), nothing, nothing))
    shapes = []
    built.register_forward_pre_hook(lambda _, arguments: shapes.append(arguments[0].shape[:2]))
    clip = np.zeros((100, FEATURES.n_mels), np.float32)
    run.predict(Given([clip] * 200), [""] * 200)
    assert sum(clips for clips, _ in shapes) == 200
    assert max(clips for clips, _ in shapes) == most_frames // 100


def test_a_run_that_standardises_by_speaker_takes_the_given_clips_statistics(material, tmp_path):
    run = Run.load(_train(material, tmp_path, standardise="speaker"))
    expected = []
    for clip, speaker in zip(NEW_CLIPS, SPEAKERS, strict=True):
        own = [other for other, who in zip(NEW_CLIPS, SPEAKERS, strict=True) if who == speaker]
        frames = np.concatenate(own).astype(np.float64)
        standardised = ((clip - frames.mean(0)) / frames.std(0)).astype(np.float32)
        with torch.no_grad():
            expected.append(run.model(torch.from_numpy(standardised)[None], torch.tensor([len(clip)])).item())
    source = Given(NEW_CLIPS)
    adapted = run.adapt(source, SPEAKERS)
    assert adapted.predict(source, SPEAKERS) == pytest.approx(np.array(expected), abs=1e-4)
    # What it is adapted to stays, whatever is predicted, and a speaker that it was not adapted to is refused.
    alone = adapted.predict(Given(NEW_CLIPS[7:8]), SPEAKERS[7:8])
    assert alone == pytest.approx(np.array(expected[7:8]), abs=1e-4)
    with pytest.raises(SettingsError, match="speaker 'S9' has no statistics; known: S0, S1, S2"):
        adapted.predict(Given(NEW_CLIPS[7:8]), ["S9"])
    with pytest.raises(SettingsError, match="does not name the speaker of every clip"):
        run.adapt(Given(NEW_CLIPS[:1]), [""])


def test_a_run_that_needs_no_speakers_is_not_adapted(finished):
    run = Run.load(finished)
    assert not run.by_speaker
    assert run.adapt(None, SPEAKERS) is run  # no feature is asked for


@pytest.mark.parametrize("standardise", ["train", "speaker"])
def test_folds_predict_their_mean(material, tmp_path, standardise):
    models = {"fold-0": "CNN", "fold-1": "LSTM1"}
    for fold, model in models.items():
        _train(material, tmp_path / fold, model, standardise=standardise)
    settings = training_settings("CNN", "default", 0, standardise=standardise)
    save_members(tmp_path, settings, list(models))
    run, source = load_run(tmp_path), ClipFeatures(WAVEFORMS, FEATURES)
    assert isinstance(run, Ensemble)
    assert (run.features, run.streams, run.by_speaker) == (FEATURES, ("log_mel",), standardise == "speaker")
    folds = [Run.load(tmp_path / fold) for fold in models]
    expected = np.mean([fold.adapt(source, SPEAKERS).predict(source, SPEAKERS) for fold in folds], axis=0)
    np.testing.assert_array_equal(run.adapt(source, SPEAKERS).predict(source, SPEAKERS), expected)
    content = json.loads((tmp_path / "settings.json").read_text())
    assert content["members"] == list(models)
    assert content["parameters"] == max(count_parameters(fold.model) for fold in folds)
    (tmp_path / "fold-1" / "best.safetensors").unlink()
    with pytest.raises(RunError, match="fold-1' is not a run that can be used"):
        load_run(tmp_path)


def test_no_settings_hold_a_path_of_this_machine(finished, tmp_path):
    for name in ("settings.json", "best.safetensors", "finished.json", "history.csv"):
        assert str(finished.parent).encode() not in (finished / name).read_bytes()


def _rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


DAMAGES = {
    "no such folder": lambda folder: shutil.rmtree(folder),
    "no weights": lambda folder: (folder / "best.safetensors").unlink(),
    "no settings": lambda folder: (folder / "settings.json").unlink(),
    "cut weights": lambda folder: os.truncate(folder / "best.safetensors", 1000),
    "settings not UTF-8": lambda folder: (folder / "settings.json").write_bytes(b'{"\xff": 1}'),
    "settings empty": lambda folder: (folder / "settings.json").write_text("{}"),
    "an unknown setting": lambda folder: _rewrite(
        folder / "settings.json", lambda content: content["training"].update(dropuot=0.5)
    ),
    "another model's weights": lambda folder: _rewrite(
        folder / "settings.json", lambda content: content["training"].update(model="LSTM1")
    ),
    "no standardiser": lambda folder: save_file(
        {
            key: value
            for key, value in load_file(folder / "best.safetensors").items()
            if not key.startswith("standardiser")
        },
        folder / "best.safetensors",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_no_finished_run_is_refused_by_name(folder, damage):
    damage(folder)
    with pytest.raises(RunError, match=re.escape(f"{str(folder)!r} is not a run that can be used")) as raised:
        Run.load(folder)
    assert "settings.json and best.safetensors" in str(raised.value)


def test_predict_batches_takes_dropout_out_and_keeps_the_rows():
    model = build_model("LSTM2", [FEATURES.n_mels]).train()
    batch = Batch(np.array([5, 2]), *pad(NEW_CLIPS[:2]))
    found = predict_batches(model, [batch])
    assert list(found) == [5, 2]
    assert found == predict_batches(model, [batch])
    assert not model.training


def _machine(monkeypatch, cuda, mps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "picked"), [(True, True, "cuda"), (False, True, "cpu"), (False, False, "cpu")]
)
def test_auto_picks_the_fastest_there_is(monkeypatch, cuda, mps, picked):
    _machine(monkeypatch, cuda, mps)
    assert pick_device() == pick_device("auto") == pick_device(picked) == torch.device(picked)
    assert pick_device("cpu") == torch.device("cpu")
    if mps:
        assert pick_device("mps") == torch.device("mps")


def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch):
    _machine(monkeypatch, cuda=False, mps=False)
    with pytest.raises(RunError, match=r"device='cuda' was given, but this machine has: cpu\. Use 'auto'"):
        pick_device("cuda")
    _machine(monkeypatch, cuda=True, mps=False)
    with pytest.raises(RunError, match=r"device='gpu' was given, but this machine has: cuda, cpu\."):
        pick_device("gpu")
