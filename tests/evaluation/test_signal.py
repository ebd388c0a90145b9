"""Level, signal-to-noise ratio and clipping of known mixtures."""

import numpy as np
import pytest

from valence_lib.evaluation.signal import SNR_RANGE_DB, measure

RATE = 8000
GENERATOR = np.random.default_rng(0)
# A second of speech between half seconds of pause.
SPEAKS = np.repeat([0.0, 1.0, 0.0], [4000, 8000, 4000])


def mixture(speech_rms=0.1, snr_db=None):
    speech = speech_rms * GENERATOR.normal(size=16000) * SPEAKS
    noise = 0 if snr_db is None else speech_rms * 10 ** (-snr_db / 20) * GENERATOR.normal(size=16000)
    return (speech + noise).astype(np.float32)


@pytest.mark.parametrize("rms", [0.01, 0.1, 0.2])
def test_level_is_that_of_the_speech_without_pauses(rms):
    assert measure(mixture(rms), RATE).level_db == pytest.approx(20 * np.log10(rms), abs=0.3)


def test_a_sine_at_full_scale_has_minus_three_decibels():
    sine = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE).astype(np.float32)
    assert measure(sine, RATE).level_db == pytest.approx(-3.01, abs=0.01)


@pytest.mark.parametrize("snr_db", [0, 5, 10, 20])
def test_the_ratio_of_a_known_mixture_is_estimated(snr_db):
    assert measure(mixture(snr_db=snr_db), RATE).snr_db == pytest.approx(snr_db, abs=1)


def test_ratios_are_ordered_and_limited():
    found = [measure(mixture(snr_db=snr), RATE).snr_db for snr in (-20, 0, 10, 20, 30, 50)]
    assert found == sorted(found)
    assert measure(mixture(), RATE).snr_db == SNR_RANGE_DB[1]  # pauses of digital silence
    assert measure(np.ones(RATE, np.float32), RATE).snr_db == SNR_RANGE_DB[0]  # no frame above another


def test_clipping_is_a_share_of_the_samples():
    clip = np.repeat(np.float32([1, -1, 0.5]), [10, 10, 980])
    assert measure(clip, RATE).clipped_share == pytest.approx(0.02)
