"""Statistics of the voice against tones of known pitch, level, rhythm and resonances."""

import numpy as np
import pytest
from scipy.signal import lfilter

from valence_lib.features.log_mel import log_mel
from valence_lib.features.log_mel_statistics import log_mel_statistics
from valence_lib.features.voice_statistics import statistic_names, voice_statistics
from valence_lib.settings import FeatureSettings

SETTINGS = FeatureSettings()
RATE = SETTINGS.sample_rate


def _named(waveform, settings=SETTINGS):
    row = voice_statistics(np.asarray(waveform, np.float32), settings)
    assert len(set(statistic_names())) == len(statistic_names()) > 100
    assert row.shape == (1, len(statistic_names())) and row.dtype == np.float32
    return dict(zip(statistic_names(), row[0].tolist(), strict=True))


def _voiced(f0, level=1.0):
    """A voice of ten harmonics that fall by 6 dB an octave; `f0`: Hz of each sample."""
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    return level * 0.2 * sum(np.sin(k * phase) / k for k in range(1, 11))


def _steady(f0, seconds=1.0, level=1.0):
    return _voiced(np.full(round(seconds * RATE), float(f0)), level)


def _noise(seconds, seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=round(seconds * RATE))


@pytest.mark.parametrize("f0", [100, 200, 317])
def test_a_steady_voice(f0):
    found = _named(_steady(f0))
    assert found["pitch mean"] == pytest.approx(12 * np.log2(f0 / 100), abs=0.05)
    assert found["pitch median"] == pytest.approx(found["pitch mean"], abs=0.05)
    for name in ("pitch SD", "pitch range", "pitch trend", "pitch beginning", "pitch end"):
        assert found[name] == pytest.approx(0, abs=0.1)
    assert found["voiced share"] > 0.95
    assert found["speech share"] == 1
    assert found["duration"] == 1
    assert found["pitch perturbation"] < 1e-3
    assert found["intensity range"] == pytest.approx(0, abs=1)
    assert found["voiced stretches"] == pytest.approx(1, abs=0.02)
    assert found["pause stretches"] == found["pause length mean"] == found["pause length SD"] == 0


def test_a_rising_and_a_falling_pitch():
    octave = np.geomspace(120, 240, RATE)
    rising, falling = _named(_voiced(octave)), _named(_voiced(octave[::-1]))
    assert rising["pitch mean"] == pytest.approx(12 * np.log2(np.sqrt(120 * 240) / 100), abs=0.2)
    assert rising["pitch range"] == pytest.approx(0.8 * 12, abs=0.4)  # 10th to 90th percentile
    assert rising["pitch trend"] == pytest.approx(12, abs=0.6)  # semitones from first to last
    assert rising["pitch rise"] == pytest.approx(12, abs=1)  # semitones a second
    assert rising["pitch rising share"] > 0.95
    assert rising["pitch beginning"] == pytest.approx(-4, abs=0.4)
    assert rising["pitch end"] == pytest.approx(4, abs=0.4)
    assert falling["pitch trend"] == pytest.approx(-12, abs=0.6)
    assert falling["pitch fall"] == pytest.approx(-12, abs=1)
    assert falling["pitch rising share"] < 0.05
    assert falling["pitch mean"] == pytest.approx(rising["pitch mean"], abs=0.1)


def test_a_pause_between_two_voices():
    found = _named(np.concatenate([_steady(150, 0.5), np.zeros(round(0.4 * RATE)), _steady(150, 0.5)]))
    assert found["duration"] == pytest.approx(1.4)
    assert found["pause stretches"] == pytest.approx(1 / 1.4, rel=0.02)
    assert found["pause length mean"] == pytest.approx(0.4, abs=0.04)
    assert found["pause length SD"] == 0
    assert found["speech share"] == pytest.approx(1 / 1.4, abs=0.04)
    assert found["voiced stretches"] == pytest.approx(2 / 1.4, rel=0.02)
    assert found["voiced length mean"] == pytest.approx(0.5, abs=0.05)
    assert found["pitch mean"] == pytest.approx(12 * np.log2(1.5), abs=0.05)


def test_the_voiced_share_is_of_audible_frames():
    half = _named(np.concatenate([_steady(150, 0.5), 5 * _noise(0.5)]))
    assert half["voiced share"] == pytest.approx(0.5, abs=0.06)
    assert half["speech share"] == 1
    assert _named(_noise(1))["voiced share"] < 0.1


def test_a_fade_shows_in_the_intensity():
    decibels = np.linspace(0, -20, RATE)
    found = _named(_steady(150) * 10 ** (decibels / 20))
    assert found["intensity trend"] == pytest.approx(-20, abs=1)
    assert found["intensity fall"] == pytest.approx(-20, abs=4)  # dB a second, with the periods' ripple
    assert found["intensity range"] == pytest.approx(16, abs=0.8)


def test_noise_lowers_the_harmonics_to_noise_ratio():
    voice = _steady(150)
    noise = np.random.default_rng(1).normal(size=voice.size)
    ratios = []
    for ratio_db in (5, 10, 20):
        noisy = voice + noise * voice.std() / noise.std() / 10 ** (ratio_db / 20)
        ratios.append(_named(noisy)["harmonics to noise mean"])
    assert ratios == pytest.approx([5, 10, 20], abs=1.5)


@pytest.mark.parametrize("frequency", [500, 1000, 2500])
def test_the_centroid_of_a_pure_tone_is_its_frequency(frequency):
    found = _named(np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE))
    assert found["centroid mean"] == pytest.approx(frequency, rel=0.01)
    assert found["bandwidth mean"] < 60


def test_the_lower_half_of_the_spectrum_against_the_upper():
    low, high = (np.sin(2 * np.pi * f * np.arange(RATE) / RATE) for f in (600, 2400))
    found = _named(low + high / 10)
    assert found["alpha ratio mean"] == pytest.approx(-20, abs=0.5)
    assert found["Hammarberg index mean"] == pytest.approx(20, abs=0.5)


def test_formants_are_the_resonances_of_a_filter():
    pulses = np.zeros(RATE)
    pulses[::80] = 1
    sound = pulses
    resonances = (700, 1200, 2600)
    for frequency in resonances:
        radius = np.exp(-np.pi * 80 / RATE)
        sound = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2], sound)
    found = _named(0.5 * sound / np.abs(sound).max())
    for number, frequency in enumerate(resonances, start=1):
        assert found[f"formant {number} mean"] == pytest.approx(frequency, rel=0.07)


@pytest.mark.parametrize("gain", [0.02, 0.3, 1.9])
def test_the_level_does_not_matter(voice, gain):
    clip = voice(3, RATE, 0.8) + 0.05 * _noise(0.8).astype(np.float32)
    changed, expected = (voice_statistics(np.float32(g) * clip, SETTINGS) for g in (gain, 1))
    np.testing.assert_allclose(changed, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("n_samples", [1, 2, 63, 64, 65, 256, 511, 2000, 8000])
@pytest.mark.parametrize("kind", ["silence", "noise", "tone", "click", "constant"])
def test_all_are_finite(kind, n_samples):
    clip = {
        "silence": np.zeros(n_samples),
        "noise": np.random.default_rng(n_samples).normal(0, 0.1, n_samples),
        "tone": np.sin(np.arange(n_samples) * 0.2),
        "click": np.eye(1, n_samples)[0],
        "constant": np.full(n_samples, 0.5),
    }[kind]
    assert np.isfinite(list(_named(clip).values())).all()


@pytest.mark.parametrize(
    "settings", [FeatureSettings(n_fft=256, hop_length=128), FeatureSettings(sample_rate=16000)]
)
def test_other_settings_have_the_same_columns(settings):
    time = np.arange(settings.sample_rate) / settings.sample_rate
    found = _named(sum(np.sin(2 * np.pi * 200 * k * time) / k for k in range(1, 6)) / 4, settings)
    assert found["pitch mean"] == pytest.approx(12, abs=0.05)
    assert found["duration"] == 1


@pytest.mark.parametrize("n_samples", [1, 700, 8000])
def test_statistics_of_the_log_mel_are_numpys(n_samples):
    frames = log_mel(_noise(1)[:n_samples].astype(np.float32), SETTINGS)
    row = log_mel_statistics(frames, SETTINGS)
    assert row.shape == (1, 5 * SETTINGS.n_mels) and row.dtype == np.float32
    exact = frames.astype(np.float64)
    quantiles = np.quantile(exact, [0.1, 0.5, 0.9], axis=0)
    expected = np.concatenate([exact.mean(axis=0), exact.std(axis=0), *quantiles])
    np.testing.assert_allclose(row[0], expected, rtol=1e-4, atol=1e-5)
