"""Perturbations: what they change, and that length, type and alignment stay."""

import numpy as np
import pytest
from scipy import signal

from valence_lib.errors import SettingsError
from valence_lib.evaluation.perturbations import PERTURBATIONS, add_noise, change_level, code, telephone_band

RATE = 8000


def speechlike(seed=0, seconds=2.0, peak=0.4):
    """Noise with a falling spectrum in syllables: nothing periodic, so that its alignment is known."""
    generator = np.random.default_rng(seed)
    samples = int(seconds * RATE)
    noise = signal.sosfilt(signal.butter(1, 700, fs=RATE, output="sos"), generator.normal(size=samples))
    syllables = 0.02 + np.clip(np.sin(2 * np.pi * 3 * np.arange(samples) / RATE), 0, None) ** 2
    clip = noise * syllables
    return (peak * clip / np.abs(clip).max()).astype(np.float32)


CLIP = speechlike()


def tone(hz, amplitude=0.3, samples=RATE):
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(samples) / RATE)).astype(np.float32)


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("samples", [300, 4001, 16000])
def test_length_type_range_and_the_given_clip_stay(name, samples):
    clip = CLIP[:samples].copy()
    changed = PERTURBATIONS[name](clip, RATE, 3)
    np.testing.assert_array_equal(PERTURBATIONS[name](clip, RATE, 3), changed)
    assert changed.dtype == np.float32
    assert changed.shape == clip.shape
    assert np.abs(changed).max() <= 1
    np.testing.assert_array_equal(clip, CLIP[:samples])
    assert not np.array_equal(changed, clip)


@pytest.mark.parametrize("snr_db", [20, 10, 0])
def test_noise_has_the_ratio_asked_for(snr_db):
    noise = add_noise(CLIP, RATE, 1, snr_db).astype(float) - CLIP
    measured = 10 * np.log10(np.mean(CLIP.astype(float) ** 2) / np.mean(noise**2))
    assert measured == pytest.approx(snr_db, abs=0.1)


def test_noise_is_of_the_clips_own_spectrum_and_of_its_seed():
    noise = add_noise(CLIP, RATE, 1, 0).astype(float) - CLIP
    spectra = [signal.welch(x, RATE, nperseg=128)[1] for x in (noise, CLIP.astype(float))]
    np.testing.assert_allclose(10 * np.log10(spectra[0] / spectra[1]), 0, atol=2)
    assert not np.array_equal(add_noise(CLIP, RATE, 1, 0), add_noise(CLIP, RATE, 2, 0))


def test_a_mixture_beyond_full_scale_is_scaled_down_whole():
    changed = add_noise(speechlike(peak=1.0), RATE, 1, 0)
    assert np.abs(changed).max() == pytest.approx(1)
    assert (np.abs(changed) > 0.999).sum() == 1  # nothing is clipped


def test_a_telephone_passes_only_its_band_without_delay():
    def gain_db(hz):
        changed = telephone_band(tone(hz), RATE)[1000:-1000].astype(float)
        return 20 * np.log10(changed.std() / tone(hz)[1000:-1000].std())

    assert [gain_db(hz) for hz in (500, 1000, 2000, 3000)] == pytest.approx([0] * 4, abs=0.7)
    assert [gain_db(hz) for hz in (300, 3400)] == pytest.approx([-6, -6], abs=0.3)
    assert max(gain_db(hz) for hz in (60, 100, 3900)) < -30
    np.testing.assert_allclose(
        telephone_band(tone(1000), RATE)[1000:-1000], tone(1000)[1000:-1000], atol=0.01
    )


@pytest.mark.parametrize("codec", ["MP3", "Opus"])
@pytest.mark.parametrize("bits_per_second", [8000, 12000, 16000, 32000, 64000])
def test_coding_keeps_the_sound_and_its_alignment(codec, bits_per_second):
    coded = code(CLIP, RATE, 0, codec, bits_per_second)
    assert np.corrcoef(CLIP, coded)[0, 1] > (0.9 if bits_per_second > 8000 else 0.8)
    # To a tenth of a sample: the peak of the cross-correlation at ten times the rate.
    finer = [signal.resample(x.astype(float), 10 * len(x)) for x in (coded, CLIP)]
    lag = np.argmax(signal.correlate(*finer)) - (len(finer[0]) - 1)
    assert abs(lag) / (10 * RATE) < 0.001


@pytest.mark.parametrize("gain_db", [6, -6])
def test_level_changes_by_just_that_up_to_full_scale(gain_db):
    clip = np.array([0.4, 0.8, -0.8], np.float32)
    expected = np.clip(clip * 10 ** (gain_db / 20), -1, 1)
    np.testing.assert_allclose(change_level(clip, RATE, 0, gain_db), expected, rtol=1e-6)


@pytest.mark.parametrize(("codec", "expected"), [("MP3", "22050, 24000"), ("Opus", "24000, 48000")])
def test_sample_rates_that_a_codec_does_not_have_are_refused(codec, expected):
    with pytest.raises(SettingsError, match=f"{codec} cannot code 44100 Hz; expected .* {expected} Hz"):
        code(CLIP, 44100, 0, codec, 16000)
