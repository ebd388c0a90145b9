"""The voice stream: every column against a sound whose pitch, level and noise are known, and any clip's shape."""

import numpy as np
import pytest
from numpy.typing import NDArray

from valence_lib.errors import SettingsError
from valence_lib.features import log_mel
from valence_lib.settings import FeatureSettings
from valence_lib.voice import COLUMNS, REFERENCE, contours
from valence_lib.voice import voice as stream

SETTINGS = FeatureSettings()
RATE = SETTINGS.sample_rate


def tone(f0: float | NDArray, seconds: float = 2.0, gain: float | NDArray = 0.1) -> NDArray[np.float32]:
    """Five harmonics; f0 in Hz and the gain may change from sample to sample. Power: 0.79 gain²."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(f0, round(seconds * RATE))) / RATE
    return (gain * np.sum([np.sin(k * phase + k * k) / k for k in range(1, 6)], axis=0)).astype(np.float32)


def columns(samples: NDArray[np.float32], settings: FeatureSettings = SETTINGS) -> dict[str, NDArray]:
    """The stream by its columns' names, without the first and the last two frames."""
    values = stream(samples, settings)[2:-2]
    return dict(zip(COLUMNS, values.T, strict=True))


# The columns


def test_a_steady_tone():
    found = columns(tone(220.0))
    np.testing.assert_allclose(found["pitch"], np.log2(220 / REFERENCE), atol=0.002)
    np.testing.assert_allclose(found["voicing"], 1, atol=0.01)
    np.testing.assert_allclose(found["intensity"], 0, atol=0.1)  # as loud as its loudest
    np.testing.assert_allclose(found["pitch change"], 0, atol=0.02)
    np.testing.assert_allclose(found["intensity change"], 0, atol=0.5)
    assert found["harmonicity"].min() > 20
    assert found["pitch deviation"].max() < 0.002
    assert found["intensity deviation"].max() < 0.1


@pytest.mark.parametrize("slope", [-0.5, 0.25, 1.0])
def test_a_glide_changes_by_its_octaves_a_second(slope: float):
    seconds = np.arange(2 * RATE) / RATE
    found = columns(tone(200 * 2 ** (slope * (seconds - 1))))
    np.testing.assert_allclose(found["pitch change"], slope, atol=0.05)
    centres = np.arange(len(found["pitch"])) * SETTINGS.hop_length / RATE + 2 * SETTINGS.hop_length / RATE
    np.testing.assert_allclose(found["pitch"], np.log2(200 / REFERENCE) + slope * (centres - 1), atol=0.01)
    assert found["pitch deviation"].max() < 0.005


def test_a_fade_changes_by_its_decibels_a_second():
    seconds = np.arange(2 * RATE) / RATE
    found = columns(tone(200.0, gain=0.2 * 10 ** (-15 * seconds / 20)))
    np.testing.assert_allclose(found["intensity change"], -15, atol=1)
    assert found["intensity deviation"].max() < 0.1
    np.testing.assert_allclose(np.diff(found["intensity"]), -15 * SETTINGS.hop_length / RATE, atol=0.1)


def test_vibrato_and_tremolo_show_as_deviations():
    seconds = np.arange(2 * RATE) / RATE
    wobble = np.sin(2 * np.pi * 12 * seconds)
    steady = columns(tone(200.0))
    vibrato = columns(tone(200 * 2 ** (0.1 * wobble)))
    tremolo = columns(tone(200.0, gain=0.1 * 10 ** (6 * wobble / 20)))
    assert np.median(vibrato["pitch deviation"]) > 10 * np.median(steady["pitch deviation"])
    assert np.median(tremolo["intensity deviation"]) > 10 * np.median(steady["intensity deviation"])
    assert np.median(tremolo["pitch deviation"]) < 0.2 * np.median(vibrato["pitch deviation"])


@pytest.mark.parametrize("ratio_db", [5, 15])
def test_harmonicity_is_the_harmonics_to_noise_ratio(ratio_db: float):
    harmonics = tone(150.0)
    noise = np.random.default_rng(1).standard_normal(len(harmonics))
    noise *= np.std(harmonics) / np.std(noise) * 10 ** (-ratio_db / 20)
    found = columns((harmonics + noise).astype(np.float32))
    assert found["harmonicity"].mean() == pytest.approx(ratio_db, abs=0.7)
    assert found["voicing"].mean() == pytest.approx(1 / (1 + 10 ** (-ratio_db / 10)), abs=0.03)


def test_pitch_goes_straight_through_unvoiced_stretches():
    gap = 0.001 * np.random.default_rng(2).standard_normal(RATE)
    samples = np.concatenate([tone(150.0, 1), gap, tone(300.0, 1)]).astype(np.float32)
    pitch, voicing = stream(samples, SETTINGS)[:, 0], stream(samples, SETTINGS)[:, 1]
    unvoiced = voicing < 0.01
    assert 10 <= unvoiced.sum() <= 20
    steps = np.diff(pitch[unvoiced])
    np.testing.assert_allclose(steps, steps[0], atol=1e-5)
    assert (steps > 0).all()
    np.testing.assert_allclose(pitch[[0, -1]], np.log2([150 / REFERENCE, 300 / REFERENCE]), atol=0.02)


def test_louder_changes_nothing(voice):
    np.testing.assert_allclose(stream(voice(2), SETTINGS), stream(voice(2) / 8, SETTINGS), atol=1e-3)


def test_intensity_is_cut_off_below_the_loudest():
    samples = np.concatenate([tone(200.0, 1), np.zeros(RATE, np.float32)])
    for top_db in (30.0, 60.0):
        intensity = stream(samples, FeatureSettings(top_db=top_db))[:, COLUMNS.index("intensity")]
        assert np.ptp(intensity) == pytest.approx(top_db, abs=2)
        fine = contours(samples, RATE, top_db).intensity_db
        assert np.ptp(fine) == pytest.approx(top_db, abs=1e-3)


# Shape and alignment


@pytest.mark.parametrize("n_samples", [0, 1, 63, 511, 512, 513, 2048, 5431, 20000])
@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        FeatureSettings(hop_length=80, n_fft=512),
        FeatureSettings(hop_length=16, n_fft=256),
        FeatureSettings(hop_length=509),
        FeatureSettings(sample_rate=16000, hop_length=1000),
    ],
    ids=lambda settings: f"{settings.sample_rate}/{settings.hop_length}",
)
def test_as_many_frames_as_the_log_mel_and_all_finite(n_samples: int, settings: FeatureSettings):
    rng = np.random.default_rng(n_samples)
    for samples in (rng.uniform(-0.5, 0.5, n_samples), np.zeros(n_samples), np.full(n_samples, 0.7)):
        values = stream(samples.astype(np.float32), settings)
        assert values.shape == (settings.frames(n_samples), len(COLUMNS))
        assert values.dtype == np.float32
        assert np.isfinite(values).all()


def test_a_burst_is_in_the_frame_in_which_the_log_mel_has_it():
    for centre in (5, 9, 20):
        samples = np.zeros(16000, np.float32)
        burst = slice(centre * SETTINGS.hop_length - 200, centre * SETTINGS.hop_length + 200)
        samples[burst] = tone(200.0, 400 / RATE)
        intensity = stream(samples, SETTINGS)[:, COLUMNS.index("intensity")]
        assert intensity.argmax() == centre == log_mel(samples, SETTINGS).mean(axis=1).argmax()


def test_no_voice_leaves_pitch_in_the_middle():
    for samples in (np.zeros(8000), 0.1 * np.random.default_rng(3).standard_normal(8000)):
        values = stream(samples.astype(np.float32), SETTINGS)
        for name in ("pitch", "pitch change", "pitch deviation"):
            assert not values[:, COLUMNS.index(name)].any()
        assert values[:, COLUMNS.index("voicing")].max() < 0.05


def test_the_same_clip_gives_the_same_bytes(voice):
    assert stream(voice(1), SETTINGS).tobytes() == stream(voice(1), SETTINGS).tobytes()


# The fine contours


def test_contours_have_one_frame_in_8_ms_and_one_length():
    fine = contours(tone(200.0, 1), RATE)
    assert fine.hop_seconds == 0.008
    lengths = {len(each) for each in (fine.f0, fine.strength, fine.intensity_db, fine.hnr_db)}
    assert lengths == {1 + RATE // 64}
    assert np.nanmedian(fine.f0) == pytest.approx(200, rel=1e-3)
    assert contours(np.zeros(44100, np.float32), 44100).hop_seconds == pytest.approx(0.008, rel=0.01)


def test_contours_of_silence_are_at_their_floors():
    fine = contours(np.zeros(4000, np.float32), RATE)
    assert np.isnan(fine.f0).all() and not fine.strength.any()
    np.testing.assert_allclose(fine.intensity_db, -100, atol=1e-4)
    np.testing.assert_array_equal(fine.hnr_db, -10)


def test_a_sample_rate_without_room_for_a_voice_is_refused():
    with pytest.raises(SettingsError, match=r"sample_rate=1500 .* expected 2000 Hz or more"):
        stream(np.zeros(4000, np.float32), FeatureSettings(sample_rate=1500))
