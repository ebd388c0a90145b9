"""An occlusion map shows what a toy model depends on, and nothing else."""

import numpy as np
import pytest
from scipy import signal

from valence_lib.evaluation.occlusion import occlude

RATE = 8000
NOISE = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)


def level_of(low_hz, high_hz, start, stop, sign=1):
    """A model that predicts the level in dB of one band from `start` to `stop` (seconds)."""
    band = signal.butter(8, (low_hz, high_hz), "bandpass", fs=RATE, output="sos")

    def predict(waveforms):
        filtered = [signal.sosfiltfilt(band, w.astype(float)) for w in waveforms]
        parts = [samples[int(start * RATE) : int(stop * RATE)] for samples in filtered]
        return sign * np.array([10 * np.log10(np.mean(part**2)) for part in parts])

    return predict


@pytest.mark.parametrize("sign", [1, -1])
def test_the_map_shows_what_the_model_depends_on(sign):
    # Of 10 tiles a second and 8 bands: the fourth and fifth tile, the fifth band (about 1000 to 1400 Hz).
    edges = occlude(lambda waveforms: np.zeros(len(waveforms)), NOISE, RATE, 10, 8).band_edges
    found = occlude(level_of(edges[4], edges[5], 0.3, 0.5, sign), NOISE, RATE, 10, 8)
    assert found.change.shape == (10, 8)
    elsewhere = sign * found.change.copy()
    assert elsewhere[3, 4] > 1.0 and elsewhere[4, 4] > 1.0
    elsewhere[3:5, 4] = 0
    assert np.abs(elsewhere).max() < 0.35
    far = elsewhere.copy()
    far[2:6, 3:6] = 0  # but for the smooth edges, nothing
    assert np.abs(far).max() < 0.01


def test_edges_are_seconds_and_mels_and_one_call_serves_all():
    calls = []

    def predict(waveforms):
        calls.append(waveforms)
        return np.full(len(waveforms), 3.25)

    found = occlude(predict, NOISE, RATE, 4, 2)
    np.testing.assert_allclose(found.time_edges, [0, 0.25, 0.5, 0.75, 1])
    # 4000 Hz are 2146.1 mel; half of that are 1113.8 Hz.
    np.testing.assert_allclose(found.band_edges, [0, 1113.8, 4000], atol=0.1)
    assert found.prediction == 3.25
    assert not found.change.any()
    ((whole, *versions),) = calls
    np.testing.assert_array_equal(whole, NOISE)
    assert len(versions) == 8
    assert all(v.dtype == np.float32 and v.shape == NOISE.shape and np.abs(v).max() <= 1 for v in versions)


def test_a_tile_loses_its_sound_and_the_rest_stays():
    versions = []

    def predict(waveforms):
        versions.extend(waveforms[1:])
        return np.zeros(len(waveforms))

    occlude(predict, NOISE, RATE, 4, 2)
    clip = versions[2]  # without the low band of the second tile in time
    lost = NOISE - clip
    assert np.abs(lost[: int(0.2 * RATE)]).max() < 1e-6
    assert np.abs(lost[int(0.55 * RATE) :]).max() < 1e-6
    spectra = [signal.welch(x[2200:3800].astype(float), RATE, nperseg=256) for x in (NOISE, clip)]
    (hz, before), (_, after) = spectra
    loss = 10 * np.log10(after / before)
    assert loss[(hz > 100) & (hz < 950)].max() < -6
    assert np.abs(loss[hz > 1300]).max() < 0.2


def test_all_tiles_together_hide_a_steady_sound_too():
    steady = (0.3 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)).astype(np.float32)
    found = occlude(lambda w: [np.sqrt(np.mean(x**2)) for x in w], steady, RATE, 1, 1)
    assert found.change[0, 0] == pytest.approx(0.9 * found.prediction, rel=0.02)  # 20 dB are nine tenths
