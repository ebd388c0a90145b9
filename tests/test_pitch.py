"""The pitch tracker against the synthesiser that made the demo corpus, against Praat, and against known tones."""

import csv
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy.signal import lfilter

import valence_lib.demo
from valence_lib.errors import SettingsError
from valence_lib.pitch import CEILING, FLOOR, track

DEMO = Path(valence_lib.demo.__file__).parent
GOLDENS = Path(__file__).parent / "goldens" / "pitch.npz"
EMOTALE = Path(__file__).parents[2] / "shared" / "data" / "emotale"
RATE, HOP = 8000, 64
GOLDEN_HOP = 128

needs_praat = pytest.mark.skipif(
    find_spec("parselmouth") is None, reason="Praat is not installed: pip install 'valence-lib[pitch-check]'"
)


@pytest.fixture(scope="module")
def goldens() -> dict[str, NDArray]:
    """Of all demo clips end to end, F0 in Hz, 0 where unvoiced: eSpeak NG's own, Praat's, and how many frames a clip."""
    with np.load(GOLDENS) as file:
        return {"frames": file["frames"], "espeak": file["espeak"] / 10, "praat": file["praat"] / 10}


@pytest.fixture(scope="module")
def heard(goldens) -> NDArray[np.float32]:
    """Our F0 of the same frames."""
    found = []
    for clip, frames in zip(demo_clips(), goldens["frames"], strict=True):
        samples, _ = soundfile.read(clip, dtype="float32")
        found.append(np.nan_to_num(track(samples, RATE, GOLDEN_HOP // 2).f0[::2]))
        assert len(found[-1]) == frames
    return np.concatenate(found)


def demo_clips() -> list[Path]:
    with (DEMO / "labels.csv").open(newline="", encoding="utf-8") as stream:
        return [DEMO / row["file"] for row in csv.DictReader(stream)]


def near(truth: NDArray, found: NDArray, tolerance: float = 0.05) -> float:
    """Of the frames that are voiced in both, the share in which F0 agrees."""
    both = (truth > 0) & (found > 0)
    return float((np.abs(found[both] / truth[both] - 1) < tolerance).mean())


def tone(f0: float | NDArray, amplitudes: list[float], seconds: float = 1.0, rate: int = RATE) -> NDArray:
    """Harmonics of these amplitudes, in phases that differ; f0 in Hz may change from sample to sample."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(f0, round(seconds * rate))) / rate
    parts = [a * np.sin(k * phase + k * k) for k, a in enumerate(amplitudes, start=1)]
    return (0.1 * np.sum(parts, axis=0)).astype(np.float32)


def inner(values: NDArray) -> NDArray:
    """Without the frames whose window reaches beyond the clip."""
    return values[4:-4]


# Against the synthesiser


def test_the_synthesisers_own_pitch_on_the_whole_demo_corpus(goldens, heard):
    truth = goldens["espeak"]
    assert near(truth, heard) > 0.99  # 0.998; the issue asks for 0.95
    both = (truth > 0) & (heard > 0)
    octaves_off = np.abs(np.log2(heard[both] / truth[both])) > 0.4
    assert octaves_off.mean() < 0.003
    assert both.sum() / (truth > 0).sum() > 0.97  # of the voiced frames, so many are found
    # Voices with an echo stay periodic for a while where the synthesiser has gone silent.
    assert ((truth > 0) != (heard > 0)).mean() < 0.06


def test_each_demo_speaker_by_itself(goldens, heard):
    speakers = np.repeat([clip.name[:3] for clip in demo_clips()], goldens["frames"])
    for speaker in np.unique(speakers):
        own = speakers == speaker
        assert near(goldens["espeak"][own], heard[own]) > 0.99, speaker


def test_no_further_from_the_truth_than_praat(goldens, heard):
    truth, praat = goldens["espeak"], goldens["praat"]
    assert near(truth, heard) > near(truth, praat) - 0.001
    assert near(truth, heard, 0.01) > near(truth, praat, 0.01) - 0.01


def test_the_goldens_are_small_and_not_trivial(goldens):
    assert GOLDENS.stat().st_size < 300_000
    assert len(goldens["frames"]) == 540
    assert 0.6 < (goldens["espeak"] > 0).mean() < 0.8
    spoken = goldens["espeak"][goldens["espeak"] > 0]
    assert spoken.min() < 70 and spoken.max() > 330


# Against Praat


def test_praat_on_the_whole_demo_corpus(goldens, heard):
    assert near(goldens["praat"], heard) > 0.995
    assert near(goldens["praat"], heard, 0.01) > 0.97
    assert ((goldens["praat"] > 0) != (heard > 0)).mean() < 0.03


def praat(samples: NDArray, hop_length: int) -> NDArray[np.float64]:
    """Praat's F0 in Hz nearest to each frame's centre, 0 where unvoiced; silence makes room for all frames."""
    import parselmouth

    padding = 640
    sound = parselmouth.Sound(np.pad(samples.astype(np.float64), padding), RATE)
    pitch = sound.to_pitch_ac(time_step=hop_length / RATE / 4, pitch_floor=FLOOR, pitch_ceiling=CEILING)
    found = pitch.selected_array["frequency"]
    times = (np.arange(0, len(samples) + 1, hop_length) + padding) / RATE
    return found[np.clip(np.round((times - pitch.t1) / pitch.dt).astype(int), 0, len(found) - 1)]


@needs_praat
def test_the_golden_is_what_praat_hears(goldens):
    starts = np.cumsum(goldens["frames"].astype(int)) - goldens["frames"]
    for number in (0, 100, 539):
        samples, _ = soundfile.read(demo_clips()[number], dtype="float32")
        expected = goldens["praat"][starts[number] :][: goldens["frames"][number]]
        np.testing.assert_allclose(praat(samples, GOLDEN_HOP), expected, atol=0.06)


@needs_praat
@pytest.mark.skipif(not EMOTALE.is_dir(), reason="the EmoTale corpus (../shared/data) is not here")
def test_praat_on_real_speech():
    clips = sorted((EMOTALE / "audio").rglob("*.flac"))[::40]
    pairs = []
    for clip in clips:
        samples, _ = soundfile.read(clip, dtype="float32")
        pairs.append((praat(samples, HOP), np.nan_to_num(track(samples, RATE, HOP).f0)))
    theirs, ours = (np.concatenate(contours) for contours in zip(*pairs, strict=True))
    assert near(theirs, ours) > 0.97
    assert ((theirs > 0) != (ours > 0)).mean() < 0.06


# Against known tones


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


def test_the_power_is_the_mean_square():
    pitch = track(tone(200, [1], seconds=1), RATE, HOP)
    np.testing.assert_allclose(inner(pitch.power), 0.1**2 / 2, rtol=0.01)


def test_a_tone_between_silences_is_voiced_where_it_is():
    samples = np.concatenate([np.zeros(4000), tone(150, [1, 0.5, 0.3], seconds=0.5), np.zeros(4000)])
    pitch = track(samples.astype(np.float32), RATE, HOP)
    seconds = np.arange(len(pitch.f0)) * HOP / RATE
    voiced = np.isfinite(pitch.f0)
    assert voiced[(seconds > 0.52) & (seconds < 0.98)].all()
    assert not voiced[(seconds < 0.47) | (seconds > 1.03)].any()


# What must hold for any clip


def test_white_noise_has_no_pitch():
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE)
    assert np.isnan(track(noise.astype(np.float32), RATE, HOP).f0).mean() > 0.99


@pytest.mark.parametrize("n_samples", [0, 1, 63, 64, 200, 3000])
@pytest.mark.parametrize("level", [0.0, 0.5, -1.0])
def test_nothing_and_constants_have_no_pitch_and_no_power(n_samples: int, level: float):
    pitch = track(np.full(n_samples, level, np.float32), RATE, HOP)
    assert len(pitch.f0) == len(pitch.strength) == len(pitch.power) == 1 + n_samples // HOP
    assert np.isnan(pitch.f0).all() and not pitch.strength.any() and not pitch.power.any()


@pytest.mark.parametrize("n_samples", [1, 2, 50, 130, 401, 5000])
def test_values_stay_in_their_ranges(n_samples: int):
    rng = np.random.default_rng(n_samples)
    for samples in (rng.uniform(-1, 1, n_samples), rng.standard_normal(n_samples).cumsum() / 100):
        pitch = track(samples.astype(np.float32), RATE, HOP)
        voiced = pitch.f0[np.isfinite(pitch.f0)]
        assert ((voiced >= FLOOR) & (voiced <= CEILING * 1.05)).all()
        assert ((pitch.strength >= 0) & (pitch.strength <= 1)).all()
        assert (np.isfinite(pitch.power) & (pitch.power >= 0)).all()
        assert {array.dtype for array in pitch} == {np.dtype(np.float32)}


def test_neither_level_nor_offset_nor_sign_changes_the_pitch(voice):
    samples = voice(3)
    expected = track(samples, RATE, HOP).f0
    np.testing.assert_allclose(track(samples / 64, RATE, HOP).f0, expected)
    np.testing.assert_allclose(track(-samples, RATE, HOP).f0, expected)
    np.testing.assert_allclose(inner(track(samples + 0.3, RATE, HOP).f0), inner(expected), rtol=1e-3)


def test_the_hop_only_says_which_frames_there_are():
    samples = tone(np.geomspace(110, 190, RATE), [1, 0.6, 0.4])
    fine, coarse = track(samples, RATE, 64), track(samples, RATE, 192)
    np.testing.assert_array_equal(fine.f0[::3], coarse.f0)
    np.testing.assert_array_equal(fine.power[::3], coarse.power)


def test_a_sample_rate_too_low_and_a_hop_of_nothing_are_refused():
    with pytest.raises(SettingsError, match=r"sample_rate=1000 .* expected 2000 Hz or more\. Resample"):
        track(np.zeros(100, np.float32), 1000, HOP)
    with pytest.raises(SettingsError, match="hop_length=0 was given; expected 1 sample or more"):
        track(np.zeros(100, np.float32), RATE, 0)
