"""The fine mel stream: aligned with the log-mel frames, by hand on librosa's spectrogram, and what it hears."""

import librosa
import numpy as np
import pytest

from valence_lib.features import log_mel
from valence_lib.fine_mel import BANDS, fine_mel, fine_timbre
from valence_lib.settings import FeatureSettings

SETTINGS = FeatureSettings()


def _noise(n_samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, n_samples).astype(np.float32)


@pytest.mark.parametrize("n_samples", [1, 255, 512, 767, 768, 8000, 12345])
@pytest.mark.parametrize("hop_length", [512, 128, 100, 3])
def test_it_has_a_row_for_each_frame_of_the_log_mel(n_samples, hop_length):
    settings = FeatureSettings(hop_length=hop_length)
    waveform = _noise(n_samples)
    rows = fine_mel(waveform, settings)
    assert rows.shape == (len(log_mel(waveform, settings)), 2 * BANDS)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


def test_it_is_mean_and_deviation_of_librosas_short_frames_nearest_to_each_frame():
    waveform = _noise(5000) * np.linspace(0.1, 1, 5000, dtype=np.float32)
    power = librosa.feature.melspectrogram(
        y=waveform, sr=8000, n_fft=256, hop_length=64, n_mels=BANDS, pad_mode="constant"
    )
    short = librosa.power_to_db(power).T
    nearest = np.minimum((np.arange(len(short)) + 4) // 8, 5000 // 512)
    groups = [short[nearest == frame] for frame in range(1 + 5000 // 512)]
    expected = [np.concatenate([group.mean(0), group.std(0)]) for group in groups]
    np.testing.assert_allclose(fine_mel(waveform, SETTINGS), expected, atol=0.01)


def test_a_click_is_heard_in_its_own_frame_alone():
    waveform = np.full(8000, 1e-3, np.float32) * _noise(8000)
    waveform[3584] = 1.0  # at the centre of frame 7
    deviations = fine_mel(waveform, SETTINGS)[:, BANDS:].mean(axis=1)
    assert deviations.argmax() == 7
    assert deviations[7] > 3 * np.delete(deviations, 7).max()


def test_a_steady_sound_has_nearly_no_deviation():
    time = np.arange(8000) / 8000
    waveform = sum(np.sin(2 * np.pi * 125 * n * time) for n in range(1, 30)).astype(np.float32)
    assert fine_mel(waveform, SETTINGS)[1:-1, BANDS:].max() < 1.0


def test_timbre_is_the_same_at_every_level():
    waveform = _noise(6000)
    quiet, loud = fine_timbre(waveform * np.float32(0.1), SETTINGS), fine_timbre(waveform, SETTINGS)
    np.testing.assert_allclose(quiet, loud, atol=0.01)
    apart = fine_mel(waveform, SETTINGS) - loud
    np.testing.assert_allclose(apart[:, :BANDS], apart[0, 0], atol=1e-4)
    assert not apart[:, BANDS:].any()
    assert np.mean(10 ** (loud[:, :BANDS] / 10)) == pytest.approx(1, rel=1e-4)
