"""The speaker encoder against an independent computation with librosa and torch, and its messages."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import Mock

import librosa
import numpy as np
import pytest
import torch

from valence_lib.corpora.waveforms import read_audio
from valence_lib.errors import RunError, SettingsError
from valence_lib.features import speaker_encoder as module
from valence_lib.features.speaker_encoder import speaker_encoder, speech_frames
from valence_lib.registry import missing_packages
from valence_lib.settings import FeatureSettings

DEMO = Path(module.__file__).parents[1] / "corpora" / "demo" / "audio"
SETTINGS = FeatureSettings()
needs_weights = pytest.mark.skipif(
    bool(missing_packages(["speaker_encoder"])), reason="the weights are not installed (make encoder)"
)


def _decibels(waveform):
    return 20 * np.log10(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def _reference(waveform):
    """The features by librosa and torch alone."""
    import soxr

    wide = soxr.resample(waveform, 8000, 16000, quality="HQ").clip(-1, 1)
    wide = wide * max(1.0, 10 ** ((-30 - _decibels(wide)) / 20))
    mels = librosa.feature.melspectrogram(y=wide, sr=16000, n_fft=400, hop_length=160, n_mels=40).T
    path = Path(find_spec("resemblyzer").submodule_search_locations[0]) / "pretrained.pt"
    weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    frames = torch.from_numpy(mels.astype(np.float32))[None]
    for layer in (0, 1):
        lstm = torch.nn.LSTM(40 if layer == 0 else 256, 256, batch_first=True)
        lstm.load_state_dict({name: weights[f"lstm.{name[:-1]}{layer}"] for name in lstm.state_dict()})
        with torch.no_grad():
            frames, _ = lstm(frames)
    loud = 10 * np.log10(np.maximum(mels.sum(axis=1), 1e-30))
    own = frames[0].numpy()[loud >= loud.max() - 25]
    return np.concatenate([own.mean(axis=0), own.std(axis=0)])


def test_speech_frames_are_within_25_db_of_the_loudest():
    assert np.flatnonzero(speech_frames(np.array([1.0, 3.3e-3, 3.0e-3, 0.0]))).tolist() == [0, 1]


@needs_weights
@pytest.mark.parametrize("gain", [1.0, 0.01], ids=["loud", "quiet"])
def test_features_are_those_of_an_independent_computation(voice, gain):
    waveform = np.float32(gain) * voice(1, seconds=1.5)
    assert (_decibels(waveform) > -30) == (gain == 1.0)
    features = speaker_encoder(waveform, SETTINGS)
    assert features.shape == (1, 2 * module.UNITS) and features.dtype == np.float32
    np.testing.assert_allclose(features[0], _reference(waveform), rtol=1e-3, atol=1e-5)
    assert "resemblyzer" not in sys.modules


@needs_weights
def test_silence_around_a_clip_does_not_matter():
    waveform = 2 * read_audio(min(DEMO.glob("*.flac")), 8000)
    alone = speaker_encoder(waveform, SETTINGS)[0]
    after = speaker_encoder(np.pad(waveform, (0, 4000)), SETTINGS)[0]
    np.testing.assert_allclose(after, alone, rtol=1e-3, atol=1e-5)
    before = speaker_encoder(np.pad(waveform, (4000, 0)), SETTINGS)[0]
    assert np.corrcoef(before, alone)[0, 1] > 0.99


@needs_weights
def test_a_silent_clip_has_finite_features():
    assert np.isfinite(speaker_encoder(np.zeros(8000, np.float32), SETTINGS)).all()


@needs_weights
def test_features_do_not_depend_on_earlier_clips_nor_on_threads(voice):
    waveform, threads = voice(6), torch.get_num_threads()
    first = speaker_encoder(waveform, SETTINGS)
    speaker_encoder(voice(7), SETTINGS)
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            np.testing.assert_array_equal(speaker_encoder(waveform, SETTINGS), first)
    finally:
        torch.set_num_threads(threads)


@needs_weights
def test_a_long_clip_is_computed_in_windows(voice, monkeypatch):
    waveform, second_layer = np.tile(voice(8), 5), Mock(wraps=module._second_layer)
    whole = speaker_encoder(waveform, SETTINGS)[0]
    monkeypatch.setattr(module, "_second_layer", second_layer)
    monkeypatch.setattr(module, "_WINDOW", 100)
    windows = speaker_encoder(waveform, SETTINGS)[0]
    assert [len(call.args[0]) for call in second_layer.call_args_list] == [84, 84, 83]
    assert np.corrcoef(windows, whole)[0, 1] > 0.9


@pytest.fixture
def _no_network():
    """The network is loaded again in the test, and after it."""
    module._network.cache_clear()
    yield
    module._network.cache_clear()


@pytest.mark.usefixtures("_no_network")
def test_missing_weights_are_refused(voice, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="make encoder") as caught:
        speaker_encoder(voice(0), SETTINGS)
    assert module.COMMAND in str(caught.value)


@pytest.mark.usefixtures("_no_network")
def test_damaged_weights_are_refused(voice, monkeypatch, tmp_path):
    (tmp_path / "pretrained.pt").write_bytes(b"not the weights")
    spec = ModuleSpec("resemblyzer", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(module, "find_spec", lambda name: spec)
    with pytest.raises(RunError, match=module.WEIGHTS_SHA256) as caught:
        speaker_encoder(voice(0), SETTINGS)
    assert "--force-reinstall" in str(caught.value)


def test_the_lock_pins_the_version_that_the_command_names():
    lock = (Path(__file__).parents[2] / "encoder.lock").read_text(encoding="utf-8")
    pinned = [line for line in lock.splitlines() if line and not line.startswith("#")]
    assert [line.split(" --hash=sha256:")[0] for line in pinned] == [module.COMMAND.split()[-1]]
