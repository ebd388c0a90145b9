"""The pitch tracker against the synthesiser of the demo corpus, Praat, and known tones."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy.signal import lfilter

import valence_lib.corpora.demo
from valence_lib.errors import SettingsError
from valence_lib.features.pitch import CEILING, FLOOR, track

DEMO = Path(valence_lib.corpora.demo.__file__).parent
GOLDENS = Path(__file__).parents[1] / "goldens" / "pitch.npz"
EMOTALE = Path(__file__).parents[3] / "shared" / "data" / "emotale"
RATE, HOP = 8000, 64
GOLDEN_HOP = 128


@pytest.fixture(scope="module")
def goldens() -> dict[str, NDArray]:
    """F0 of all demo clips in Hz, 0 where unvoiced, by eSpeak NG and by Praat; frames of each clip."""
    with np.load(GOLDENS) as file:
        return {"frames": file["frames"], "espeak": file["espeak"] / 10, "praat": file["praat"] / 10}


@pytest.fixture(scope="module")
def tracked(goldens) -> NDArray[np.float32]:
    """The tracker's F0 of the same frames."""
    clips = (soundfile.read(clip, dtype="float32")[0] for clip in demo_clips())
    found = [np.nan_to_num(track(samples, RATE, GOLDEN_HOP // 2).f0[::2]) for samples in clips]
    assert [len(contour) for contour in found] == goldens["frames"].tolist()
    return np.concatenate(found)


def demo_clips() -> list[Path]:
    with (DEMO / "labels.csv").open(newline="", encoding="utf-8") as stream:
        return [DEMO / row["file"] for row in csv.DictReader(stream)]


def near(truth: NDArray, found: NDArray, tolerance: float = 0.05) -> float:
    """The share of frames voiced in both in which F0 agrees."""
    both = (truth > 0) & (found > 0)
    return float((np.abs(found[both] / truth[both] - 1) < tolerance).mean())


def tone(f0: float | NDArray, amplitudes: list[float], seconds: float = 1.0, rate: int = RATE) -> NDArray:
    """Harmonics of these amplitudes, of different phases; f0 in Hz, constant or one value a sample."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(f0, round(seconds * rate))) / rate
    parts = [a * np.sin(k * phase + k * k) for k, a in enumerate(amplitudes, start=1)]
    return (0.1 * np.sum(parts, axis=0)).astype(np.float32)


def inner(values: NDArray) -> NDArray:
    """Without frames whose window extends beyond the clip."""
    return values[4:-4]


def test_voicing_and_octaves_on_the_whole_demo_corpus(goldens, tracked):
    truth = goldens["espeak"]
    both = (truth > 0) & (tracked > 0)
    octaves_off = np.abs(np.log2(tracked[both] / truth[both])) > 0.4
    assert octaves_off.mean() < 0.003
    assert both.sum() / (truth > 0).sum() > 0.97
    # Echoes stay periodic for a while after the synthesiser has ended.
    assert ((truth > 0) != (tracked > 0)).mean() < 0.06


def test_the_pitch_of_each_demo_speaker(goldens, tracked):
    speakers = np.repeat([clip.name[:3] for clip in demo_clips()], goldens["frames"])
    for speaker in np.unique(speakers):
        own = speakers == speaker
        assert near(goldens["espeak"][own], tracked[own]) > 0.99, speaker


def test_no_further_from_the_truth_than_praat(goldens, tracked):
    truth, praat = goldens["espeak"], goldens["praat"]
    assert near(truth, tracked) > near(truth, praat) - 0.001
    assert near(truth, tracked, 0.01) > near(truth, praat, 0.01) - 0.01


def test_praat_on_the_whole_demo_corpus(goldens, tracked):
    assert near(goldens["praat"], tracked) > 0.995
    assert near(goldens["praat"], tracked, 0.01) > 0.97
    assert ((goldens["praat"] > 0) != (tracked > 0)).mean() < 0.03


@pytest.mark.skipif(not EMOTALE.is_dir(), reason="the corpus EmoTale is not available")
def test_praat_on_real_speech():
    parselmouth = pytest.importorskip("parselmouth", reason="pip install 'valence-lib[pitch-check]'")
    contours: tuple[list, list] = ([], [])
    padding = 640  # Praat has no frames whose window extends beyond the clip
    for file in sorted((EMOTALE / "audio").rglob("*.flac"))[::40]:
        samples, _ = soundfile.read(file)
        sound = parselmouth.Sound(np.pad(samples, padding), RATE)
        pitch = sound.to_pitch_ac(time_step=HOP / RATE / 4, pitch_floor=FLOOR, pitch_ceiling=CEILING)
        times = (np.arange(0, len(samples) + 1, HOP) + padding) / RATE
        nearest = np.clip(np.round((times - pitch.t1) / pitch.dt).astype(int), 0, pitch.nx - 1)
        contours[0].append(pitch.selected_array["frequency"][nearest])
        contours[1].append(np.nan_to_num(track(samples, RATE, HOP).f0))
    expected, found = (np.concatenate(each) for each in contours)
    assert near(expected, found) > 0.97
    assert ((expected > 0) != (found > 0)).mean() < 0.06


@pytest.mark.parametrize("f0", [62, 75.5, 100, 147.3, 233.3, 340, 490])
@pytest.mark.parametrize(
    "amplitudes",
    [
        [1],
        [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6],
        [0, 0, 1, 1, 1, 1, 1],  # no fundamental, as on a telephone
        [0.3, 3, 0.3, 0.3, 0.3],  # a formant on the second harmonic
    ],
    ids=["sine", "saw tooth", "no fundamental", "strong second"],
)
def test_steady_tones(f0: float, amplitudes: list[float]):
    amplitudes = amplitudes[: int(3900 / f0)]
    pitch = track(tone(f0, amplitudes), RATE, HOP)
    np.testing.assert_allclose(inner(pitch.f0), f0, rtol=2e-3)
    assert inner(pitch.strength).min() > 0.98


@pytest.mark.parametrize("formants", [(300, 2300), (700, 1200), (500, 1500)])
def test_vowels(formants: tuple[int, int]):
    # Pulses through two resonators (Klatt, 1980) of 80 Hz bandwidth.
    f0 = np.geomspace(90, 260, RATE)
    pulses = np.diff(np.floor(np.cumsum(f0) / RATE), prepend=0.0)
    for frequency in formants:
        radius = np.exp(-np.pi * 80 / RATE)
        pulses = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2], pulses)
    pulses *= 0.3 / np.abs(pulses).max()
    pitch = track(pulses.astype(np.float32), RATE, HOP)
    centres = np.minimum(np.arange(len(pitch.f0)) * HOP, RATE - 1)
    assert near(inner(f0[centres]), inner(np.nan_to_num(pitch.f0)), 0.03) > 0.99
    assert np.isfinite(inner(pitch.f0)).mean() > 0.97


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
def test_a_glide_at_several_sample_rates(rate: int):
    f0 = np.geomspace(100, 300, rate)
    pitch = track(tone(f0, [1, 0.5, 0.25, 0.12], rate=rate), rate, rate // 100)
    assert len(pitch.f0) == 1 + rate // (rate // 100)
    centres = np.minimum(np.arange(len(pitch.f0)) * (rate // 100), rate - 1)
    np.testing.assert_allclose(inner(pitch.f0), inner(f0[centres]), rtol=0.01)


@pytest.mark.parametrize("ratio_db", [0, 5, 10, 20])
def test_the_strength_is_the_share_of_the_harmonics(ratio_db: float):
    rng = np.random.default_rng(7)
    harmonics = tone(120, [1 / k for k in range(1, 30)], seconds=3)
    noise = rng.standard_normal(len(harmonics))
    noise *= np.std(harmonics) / np.std(noise) * 10 ** (-ratio_db / 20)
    pitch = track((harmonics + noise).astype(np.float32), RATE, HOP)
    share = inner(pitch.strength).astype(float)
    assert np.mean(10 * np.log10(share / (1 - share))) == pytest.approx(ratio_db, abs=0.7)
    assert near(np.full(len(share), 120.0), inner(np.nan_to_num(pitch.f0))) > 0.98


def test_silence_around_a_tone_is_unvoiced():
    samples = np.concatenate([np.zeros(4000), tone(150, [1, 0.5, 0.3], seconds=0.5), np.zeros(4000)])
    pitch = track(samples.astype(np.float32), RATE, HOP)
    seconds = np.arange(len(pitch.f0)) * HOP / RATE
    voiced = np.isfinite(pitch.f0)
    assert voiced[(seconds > 0.52) & (seconds < 0.98)].all()
    assert not voiced[(seconds < 0.47) | (seconds > 1.03)].any()


def test_white_noise_has_no_pitch():
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE)
    assert np.isnan(track(noise.astype(np.float32), RATE, HOP).f0).mean() > 0.99


@pytest.mark.parametrize("n_samples", [0, 1, 63, 64, 200, 3000])
@pytest.mark.parametrize("level", [0.0, 0.5, -1.0])
def test_silence_and_constants_have_no_pitch(n_samples: int, level: float):
    pitch = track(np.full(n_samples, level, np.float32), RATE, HOP)
    assert len(pitch.f0) == len(pitch.strength) == 1 + n_samples // HOP
    assert np.isnan(pitch.f0).all() and not pitch.strength.any()


@pytest.mark.parametrize("n_samples", [1, 2, 50, 130, 401, 5000])
def test_values_stay_in_their_ranges(n_samples: int):
    rng = np.random.default_rng(n_samples)
    for samples in (rng.uniform(-1, 1, n_samples), rng.standard_normal(n_samples).cumsum() / 100):
        pitch = track(samples.astype(np.float32), RATE, HOP)
        voiced = pitch.f0[np.isfinite(pitch.f0)]
        assert ((voiced >= FLOOR) & (voiced <= CEILING * 1.05)).all()
        assert ((pitch.strength >= 0) & (pitch.strength <= 1)).all()
        assert {array.dtype for array in pitch} == {np.dtype(np.float32)}


def test_neither_level_nor_offset_nor_sign_changes_the_pitch(voice):
    samples = voice(3)
    expected = track(samples, RATE, HOP).f0
    np.testing.assert_allclose(track(samples / 64, RATE, HOP).f0, expected)
    np.testing.assert_allclose(track(-samples, RATE, HOP).f0, expected)
    np.testing.assert_allclose(inner(track(samples + 0.3, RATE, HOP).f0), inner(expected), rtol=1e-3)


def test_a_frame_does_not_depend_on_the_hop():
    samples = tone(np.geomspace(110, 190, RATE), [1, 0.6, 0.4])
    fine, coarse = track(samples, RATE, 64), track(samples, RATE, 192)
    np.testing.assert_array_equal(fine.f0[::3], coarse.f0)


def test_a_sample_rate_too_low_is_refused():
    with pytest.raises(SettingsError, match=r"sample_rate=1000 .* expected 2000 Hz or more\. Resample"):
        track(np.zeros(100, np.float32), 1000, HOP)
