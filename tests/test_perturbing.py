"""Perturbations do what their names say, keep length, type and place, and do it again the same way."""

import pickle

import numpy as np
import pytest
from scipy import signal

from valence_lib import perturbing
from valence_lib.errors import SettingsError
from valence_lib.perturbing import (
    PERTURBATIONS,
    add_noise,
    change_level,
    code_as_mp3,
    code_as_opus,
    telephone_band,
)

RATE = 8000


def speechlike(seed=0, seconds=2.0, peak=0.4):
    """Noise with a falling spectrum in syllables: nothing periodic, so that its place in time is known."""
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
    heard = PERTURBATIONS[name](clip, RATE, 3)
    assert heard.dtype == np.float32
    assert heard.shape == clip.shape
    assert np.abs(heard).max() <= 1
    np.testing.assert_array_equal(clip, CLIP[:samples])
    assert not np.array_equal(heard, clip)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_same_again_also_in_another_process(name):
    again = pickle.loads(pickle.dumps(PERTURBATIONS[name]))
    np.testing.assert_array_equal(PERTURBATIONS[name](CLIP, RATE, 3), again(CLIP, RATE, 3))


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
    heard = add_noise(speechlike(peak=1.0), RATE, 1, 0)
    assert np.abs(heard).max() == pytest.approx(1)
    assert (np.abs(heard) > 0.999).sum() == 1  # nothing is clipped


def test_a_telephone_passes_its_band_alone_and_delays_nothing():
    def gain_db(hz):
        heard = telephone_band(tone(hz), RATE)[1000:-1000].astype(float)
        return 20 * np.log10(heard.std() / tone(hz)[1000:-1000].std())

    assert [gain_db(hz) for hz in (500, 1000, 2000, 3000)] == pytest.approx([0] * 4, abs=0.7)
    assert [gain_db(hz) for hz in (300, 3400)] == pytest.approx([-6, -6], abs=0.3)
    assert max(gain_db(hz) for hz in (60, 100, 3900)) < -30
    np.testing.assert_allclose(
        telephone_band(tone(1000), RATE)[1000:-1000], tone(1000)[1000:-1000], atol=0.01
    )


@pytest.mark.parametrize("code", [code_as_mp3, code_as_opus])
@pytest.mark.parametrize("bits_per_second", [8000, 12000, 16000, 32000, 64000])
def test_coding_keeps_the_sound_and_its_place(code, bits_per_second):
    heard = code(CLIP, RATE, 0, bits_per_second)
    assert np.corrcoef(CLIP, heard)[0, 1] > (0.9 if bits_per_second > 8000 else 0.8)
    # To a tenth of a sample: the peak of the cross-correlation at ten times the rate.
    finer = [signal.resample(x.astype(float), 10 * len(x)) for x in (heard, CLIP)]
    lag = np.argmax(signal.correlate(*finer)) - (len(finer[0]) - 1)
    assert abs(lag) / (10 * RATE) < 0.001


@pytest.mark.parametrize("code", [code_as_mp3, code_as_opus])
def test_fewer_bits_lose_more(code):
    losses = [np.mean((code(CLIP, RATE, 0, bits) - CLIP) ** 2) for bits in (8000, 16000, 32000)]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("gain_db", [6, -6])
def test_level_changes_by_just_that(gain_db):
    heard = change_level(CLIP, RATE, 0, gain_db)
    np.testing.assert_allclose(heard, CLIP * 10 ** (gain_db / 20), rtol=1e-6)


def test_what_gets_louder_than_full_scale_is_clipped():
    assert change_level(np.array([0.4, 0.8, -0.8], np.float32), RATE, 0, 6).tolist() == pytest.approx(
        [0.4 * 10**0.3, 1, -1]
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: add_noise(np.zeros(9, np.float32), RATE, 0, 10), "the waveform is silent"),
        (lambda: add_noise(np.zeros((9, 2), np.float32), RATE, 0, 10), r"float32 with the shape \(9, 2\)"),
        (lambda: change_level(np.zeros(9, np.int16), RATE, 0, 6), "array of int16"),
        (lambda: change_level(np.array([np.nan], np.float32), RATE, 0, 6), "expected finite floats"),
        (lambda: change_level(CLIP, 0, 0, 6), "sample_rate=0; expected Hz above 0"),
        (lambda: telephone_band(CLIP, 6800), "expected more than 6800 Hz"),
        (lambda: code_as_mp3(CLIP, RATE, 0, 4000), "bits_per_second=4000 at 8000 Hz; expected 8000 to 64000"),
        (lambda: code_as_mp3(CLIP, 44100, 0, 64000), "at most 24000 Hz"),
        (lambda: code_as_opus(CLIP, 11025, 0, 16000), "8000, 12000, 16000, 24000, 48000 Hz"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(SettingsError, match=message):
        call()


def test_every_condition_of_a_report_has_its_line():
    assert len(PERTURBATIONS) == 8
    assert perturbing.TELEPHONE_BAND == (300, 3400)
