"""Runs: predictions equal those computed by hand; damaged folders and missing devices are refused."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from toy import FEATURES, Given, make_training_data, tone

from valence_lib.errors import ClipError, RunError, SettingsError
from valence_lib.features.log_mel import log_mel
from valence_lib.features.streams import ClipFeatures
from valence_lib.models.build import build_model, count_parameters
from valence_lib.registry import NETWORKS, training_settings
from valence_lib.training import runs
from valence_lib.training.batches import load
from valence_lib.training.loop import train
from valence_lib.training.runs import (
    Ensemble,
    load_run,
    pick_device,
    predict_batches,
    save_members,
)

WAVEFORMS = [tone(1 + n / 40, 0.05 + n / 400, n) for n in range(150)]  # several batches
NEW_CLIPS = [log_mel(waveform, FEATURES) for waveform in WAVEFORMS]
SPEAKERS = [f"S{n % 3}" for n in range(150)]


@pytest.fixture(scope="module")
def training_data(tmp_path_factory):
    return make_training_data(tmp_path_factory.mktemp("features"))


def _train(training_data, folder, model="CNN", **changes):
    settings = training_settings(model, "default", 0, epochs=1, **changes)
    train(training_data, settings, folder, torch.device("cpu"), progress=False)
    return folder


@pytest.fixture(scope="module")
def finished(training_data, tmp_path_factory):
    """The folder of a finished run."""
    return _train(training_data, tmp_path_factory.mktemp("runs") / "CNN-default-0")


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "CNN-default-0")


@pytest.mark.parametrize("model", NETWORKS)
def test_predictions_are_those_of_a_model_built_by_hand(training_data, tmp_path, model, monkeypatch):
    monkeypatch.setattr(runs, "_FRAMES_PER_RECURRENT_BATCH", 1024)
    run = load_run(_train(training_data, tmp_path, model))
    frames = np.concatenate([training_data.store[row] for row in training_data.rows("train")]).astype(
        np.float64
    )
    weights = load_file(tmp_path / "best.safetensors")
    by_hand = build_model(model, [FEATURES.n_mels]).eval()
    by_hand.load_state_dict({key[6:]: value for key, value in weights.items() if key.startswith("model.")})
    expected = []
    with torch.no_grad():
        for clip in NEW_CLIPS:
            standardised = torch.from_numpy(((clip - frames.mean(0)) / frames.std(0)).astype(np.float32))
            expected.append(by_hand(standardised[None], torch.tensor([len(clip)])).item())
    found = run.predict_features(ClipFeatures(WAVEFORMS, FEATURES), [""] * 150)
    assert (found.shape, found.dtype) == ((150,), np.float64)
    assert found == pytest.approx(np.array(expected), abs=1e-4)
    assert np.std(expected) > 1e-3


def test_a_run_that_standardises_by_speaker_uses_the_given_clips_statistics(training_data, tmp_path):
    run = load_run(_train(training_data, tmp_path, standardise="speaker"))
    expected = []
    for clip, speaker in zip(NEW_CLIPS, SPEAKERS, strict=True):
        own = [other for other, who in zip(NEW_CLIPS, SPEAKERS, strict=True) if who == speaker]
        frames = np.concatenate(own).astype(np.float64)
        standardised = ((clip - frames.mean(0)) / frames.std(0)).astype(np.float32)
        with torch.no_grad():
            expected.append(run.model(torch.from_numpy(standardised)[None], torch.tensor([len(clip)])).item())
    source = Given(NEW_CLIPS)
    adapted = run.adapt(source, SPEAKERS)
    assert adapted.predict_features(source, SPEAKERS) == pytest.approx(np.array(expected), abs=1e-4)
    # The statistics stay, whatever is predicted; other speakers are refused.
    alone = adapted.predict_features(Given(NEW_CLIPS[7:8]), SPEAKERS[7:8])
    assert alone == pytest.approx(np.array(expected[7:8]), abs=1e-4)
    with pytest.raises(SettingsError, match="speaker 'S9' has no statistics; known: S0, S1, S2"):
        adapted.predict_features(Given(NEW_CLIPS[7:8]), ["S9"])
    with pytest.raises(SettingsError, match="does not name the speaker of every clip"):
        run.adapt(Given(NEW_CLIPS[:1]), [""])


def test_a_run_that_needs_no_speakers_is_not_adapted(finished):
    run = load_run(str(finished))
    assert not run.by_speaker
    assert run.adapt(None, SPEAKERS) is run  # no feature is computed


@pytest.mark.parametrize("standardise", ["train", "speaker"])
def test_one_clip_is_predicted_from_a_file_or_a_waveform(training_data, tmp_path, standardise):
    run = load_run(_train(training_data, tmp_path / "run", standardise=standardise))
    waveform = tone(3, 0.4, 5)
    path = tmp_path / "x.wav"
    soundfile.write(path, waveform, 8000, subtype="FLOAT")
    source = ClipFeatures([waveform], FEATURES)
    (expected,) = run.adapt(source, ["S"]).predict_features(source, ["S"])
    found = [
        Ensemble((run, run)).predict(path),
        run.predict(waveform.astype(np.float64)),
        run.predict(str(path)),
    ]
    assert found == pytest.approx([expected] * 3, abs=1e-5)
    assert {type(value) for value in found} == {float}


@pytest.mark.parametrize(
    ("audio", "error", "message"),
    [
        ("absent.wav", ClipError, "there is no file 'absent.wav'"),
        ((WAVEFORMS[0] * 32767).astype(np.int16), SettingsError, "int16.*floating-point"),
        (WAVEFORMS[0] * 32767, ClipError, r"expected floating-point audio in \[-1, 1\]"),
        (WAVEFORMS[0][:100], ClipError, "100 samples"),
    ],
    ids=["no file", "int16", "wrong scale", "too short"],
)
def test_audio_that_cannot_be_predicted_is_refused(finished, audio, error, message):
    with pytest.raises(error, match=message):
        load_run(finished).predict(audio)


@pytest.mark.parametrize("standardise", ["train", "speaker"])
def test_folds_predict_their_mean(training_data, tmp_path, standardise):
    models = {"fold-0": "CNN", "fold-1": "LSTM1"}
    for fold, model in models.items():
        _train(training_data, tmp_path / fold, model, standardise=standardise)
    settings = training_settings("CNN", "default", 0, standardise=standardise)
    save_members(tmp_path, settings, list(models))
    run, source = load_run(tmp_path), ClipFeatures(WAVEFORMS, FEATURES)
    assert isinstance(run, Ensemble)
    assert (run.features, run.streams, run.by_speaker) == (FEATURES, ("log_mel",), standardise == "speaker")
    folds = [load_run(tmp_path / fold) for fold in models]
    expected = np.mean(
        [fold.adapt(source, SPEAKERS).predict_features(source, SPEAKERS) for fold in folds], axis=0
    )
    np.testing.assert_array_equal(run.adapt(source, SPEAKERS).predict_features(source, SPEAKERS), expected)
    content = json.loads((tmp_path / "settings.json").read_text())
    assert content["members"] == list(models)
    assert content["parameters"] == max(count_parameters(fold.model) for fold in folds)
    (tmp_path / "fold-1" / "best.safetensors").unlink()
    with pytest.raises(RunError, match="fold-1' is not a run that can be used"):
        load_run(tmp_path)


def test_no_file_holds_a_path_of_this_machine(finished, tmp_path):
    for name in ("settings.json", "best.safetensors", "finished.json", "history.csv"):
        assert str(finished.parent).encode() not in (finished / name).read_bytes()


def _rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


DAMAGES = {
    "no such folder": lambda folder: shutil.rmtree(folder),
    "no weights": lambda folder: (folder / "best.safetensors").unlink(),
    "cut weights": lambda folder: os.truncate(folder / "best.safetensors", 1000),
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
def test_a_folder_that_is_not_a_finished_run_is_refused(folder, damage):
    damage(folder)
    with pytest.raises(RunError, match=re.escape(f"{str(folder)!r} is not a run that can be used")) as raised:
        load_run(folder)
    assert "settings.json and best.safetensors" in str(raised.value)


def test_predict_batches_turns_dropout_off_and_keeps_the_rows():
    model = build_model("LSTM2", [FEATURES.n_mels]).train()
    (batch,) = load([np.array([5, 2])], lambda row: torch.from_numpy(NEW_CLIPS[row]))
    found = predict_batches(model, [batch])
    assert list(found) == [5, 2]
    assert found == predict_batches(model, [batch])
    assert not model.training


@pytest.mark.parametrize(
    ("cuda", "wanted", "picked"),
    [
        (True, "auto", torch.device("cuda")),
        (False, "auto", torch.device("cpu")),
        (True, "cpu", torch.device("cpu")),
        (False, "cuda", r"device='cuda' was given, but this machine has: cpu\. Use 'auto'"),
        (True, "gpu", r"device='gpu' was given, but this machine has: cuda, cpu\."),
    ],
    ids=str,
)
def test_the_device_is_the_wanted_or_the_fastest_and_a_missing_one_is_refused(
    monkeypatch, cuda, wanted, picked
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    if isinstance(picked, str):
        with pytest.raises(RunError, match=picked):
            pick_device(wanted)
    else:
        assert pick_device(wanted) == picked
