"""The log-mel spectrogram against librosa, and standardisers against plain numpy."""

import csv
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from conftest import Voice

from valence_lib.errors import SettingsError
from valence_lib.features import Standardiser, log_mel, mel_filters, mel_frequencies
from valence_lib.settings import (
    FeatureSettings,
)

GOLDENS = Path(__file__).parent / "goldens" / "log_mel.npz"
SPEECH = Path(__file__).parents[2] / "shared" / "data"
SETTINGS = FeatureSettings()
TOLERANCE = 1e-3  # dB


def librosa_log_mel(waveform: np.ndarray, settings: FeatureSettings = SETTINGS) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=settings.sample_rate,
        n_fft=settings.n_fft,
        hop_length=settings.hop_length,
        n_mels=settings.n_mels,
    )
    return librosa.power_to_db(power, top_db=settings.top_db).T


def noise(seed: int, n_samples: int, level: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(level * rng.standard_normal(n_samples), -1, 1).astype(np.float32)


# Against librosa


@pytest.mark.parametrize("name", ["noise", "chirp", "tones and silence", "odd length", "one frame"])
def test_the_golden_spectrograms_of_librosa(name: str):
    with np.load(GOLDENS) as goldens:
        assert len(goldens.files) == 10
        waveform, expected = goldens[name], goldens[f"{name}: log-mel"]
    np.testing.assert_allclose(log_mel(waveform, SETTINGS), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(librosa_log_mel(waveform), expected, rtol=0, atol=TOLERANCE)


def test_the_goldens_are_small_and_not_trivial():
    assert GOLDENS.stat().st_size < 300_000
    with np.load(GOLDENS) as goldens:
        assert {array.dtype for array in goldens.values()} == {np.dtype(np.float32)}
        assert all(np.ptp(array) > 0.1 for array in goldens.values())
        assert len(goldens["one frame"]) == SETTINGS.n_fft
        assert len(goldens["odd length"]) % 2 == 1


@pytest.mark.parametrize("n_samples", [2048, 2049, 2559, 2560, 2561, 7777, 20000])
def test_random_waveforms_of_all_lengths(n_samples: int):
    for seed, level in enumerate([1e-3, 0.05, 0.5]):
        waveform = noise(seed, n_samples, level)
        np.testing.assert_allclose(
            log_mel(waveform, SETTINGS), librosa_log_mel(waveform), rtol=0, atol=TOLERANCE
        )


def test_voices_with_bands_far_below_the_loudest(voice: Voice):
    for seed in range(20):
        waveform = voice(seed)
        np.testing.assert_allclose(
            log_mel(waveform, SETTINGS), librosa_log_mel(waveform), rtol=0, atol=TOLERANCE
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_rate": 16000},
        {"n_fft": 1024},
        {"hop_length": 160},
        {"n_mels": 40},
        {"top_db": 30.0},
        {"sample_rate": 16000, "n_fft": 512, "hop_length": 200, "n_mels": 20, "top_db": 120.0},
    ],
    ids=str,
)
def test_every_setting_means_what_it_means_to_librosa(changes: dict):
    settings = FeatureSettings(**changes)
    waveform = noise(1, 9001) * np.linspace(0, 1, 9001, dtype=np.float32) ** 4
    np.testing.assert_allclose(
        log_mel(waveform, settings), librosa_log_mel(waveform, settings), rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("corpus", ["emotale", "ravdess"])
def test_real_speech(corpus: str):
    labels = SPEECH / corpus / "labels.csv"
    if not labels.is_file():
        pytest.skip(f"the real speech of {corpus} is not beside this checkout")
    with labels.open(encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    for name in names[:: max(1, len(names) // 15)]:
        samples, sample_rate = soundfile.read(labels.parent / name, dtype="float32", always_2d=True)
        waveform = librosa.resample(samples.mean(axis=1), orig_sr=sample_rate, target_sr=8000)
        np.testing.assert_allclose(
            log_mel(waveform, SETTINGS), librosa_log_mel(waveform), rtol=0, atol=TOLERANCE
        )


def test_mel_bands_are_centred_where_slaney_puts_them():
    frequencies = mel_frequencies(SETTINGS)
    assert frequencies.shape == (128,)
    assert (np.diff(frequencies) > 0).all()
    # Slaney's scale is linear to 1000 Hz, with 200/3 Hz a mel; 4000 Hz are 15 + 27 log(4)/log(6.4) mel.
    top = 15 + 27 * np.log(4) / np.log(6.4)
    mels = np.linspace(0, top, 130)[1:-1]
    expected = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    np.testing.assert_allclose(frequencies, expected)


@pytest.mark.parametrize(
    "settings",
    [SETTINGS, FeatureSettings(sample_rate=16000, n_fft=512, n_mels=20), FeatureSettings(sample_rate=1600)],
    ids=str,
)
def test_mel_filters_are_librosas(settings: FeatureSettings):
    expected = librosa.filters.mel(sr=settings.sample_rate, n_fft=settings.n_fft, n_mels=settings.n_mels)
    found = mel_filters(settings.sample_rate, settings.n_fft, settings.n_mels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_bands_too_weak_for_single_precision():
    # A tone 100 dB above the noise around it: rounding of the tone in single precision is as loud as that.
    tone = 0.5 * np.sin(2 * np.pi * 3000 / 8000 * np.arange(20000))
    waveform = tone.astype(np.float32) + noise(0, 20000, 1e-5)
    settings = FeatureSettings(top_db=120.0)
    np.testing.assert_allclose(
        log_mel(waveform, settings), librosa_log_mel(waveform, settings), rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("band", [20, 60, 100, 120])
def test_a_tone_is_loudest_in_its_own_band(band: int):
    tone = 0.5 * np.sin(2 * np.pi * mel_frequencies(SETTINGS)[band] * np.arange(8000) / 8000)
    assert abs(int(log_mel(tone.astype(np.float32), SETTINGS)[8].argmax()) - band) <= 1


# Shape and invariants


@pytest.mark.parametrize("n_samples", [2048, 2559, 2560, 8000, 12345])
@pytest.mark.parametrize(
    "settings", [SETTINGS, FeatureSettings(n_fft=512, hop_length=100, n_mels=40)], ids=str
)
def test_shape_and_type(n_samples: int, settings: FeatureSettings):
    frames = log_mel(noise(0, n_samples), settings)
    assert frames.shape == (1 + n_samples // settings.hop_length, settings.n_mels)
    assert len(frames) == settings.frames(n_samples)
    assert frames.dtype == np.float32
    assert frames.flags.c_contiguous
    assert np.isfinite(frames).all()


def test_6_db_more_are_6_db_more_in_every_band_that_is_not_cut_off():
    quiet = noise(3, 12000, 0.05) * np.linspace(0, 1, 12000, dtype=np.float32) ** 3
    settings = FeatureSettings(top_db=40.0)
    before, after = log_mel(quiet, settings), log_mel(2 * quiet, settings)
    np.testing.assert_allclose(after - before, 20 * np.log10(2), atol=1e-4)
    assert (before == before.min()).sum() > 10  # the cut-off, relative to the loudest band, moves along
    np.testing.assert_allclose(np.ptp(before), 40, atol=1e-4)


def test_nothing_is_below_minus_100_db():
    np.testing.assert_array_equal(log_mel(np.zeros(4000, np.float32), SETTINGS), -100)


def test_a_frame_is_of_its_own_samples_alone():
    waveform = noise(4, 16000)
    changed = waveform.copy()
    changed[12000:] = noise(5, 4000)
    same = [frame for frame in range(32) if frame * 512 + 1024 <= 12000]
    before, after = log_mel(waveform, SETTINGS), log_mel(changed, SETTINGS)
    np.testing.assert_array_equal(before[same], after[same])
    assert (before[len(same)] != after[len(same)]).any()


def test_a_waveform_upside_down_sounds_the_same():
    waveform = noise(6, 5000)
    np.testing.assert_allclose(log_mel(-waveform, SETTINGS), log_mel(waveform, SETTINGS), atol=1e-5)


def test_a_spectrogram_is_the_same_every_time_and_leaves_the_waveform_alone():
    waveform = noise(7, 5000)
    waveform.flags.writeable = False
    first = log_mel(waveform, SETTINGS)
    log_mel(noise(8, 9000), FeatureSettings(n_mels=64, n_fft=1024))
    assert log_mel(waveform, SETTINGS).tobytes() == first.tobytes()


def test_features_do_without_librosa():
    code = "import sys, valence_lib.features; sys.exit('librosa' in sys.modules or 'scipy.signal' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Standardisers


@pytest.fixture
def spectrograms() -> list[np.ndarray]:
    """Six clips of 4 to 9 frames and 5 bands, around -40 dB."""
    rng = np.random.default_rng(1)
    scale = np.array([1, 5, 10, 20, 15])
    return [(rng.standard_normal((n, 5)) * scale - 40 + n).astype(np.float32) for n in range(4, 10)]


SPEAKERS = ["B", "A", "B", "A", "C", "C"]
TRAINING = [True, True, False, True, False, False]


def fit(kind: str, clips: list[np.ndarray], speakers=SPEAKERS, training=TRAINING) -> Standardiser:
    return Standardiser.fit(kind, iter(clips), speakers, training)


def test_train_takes_mean_and_deviation_of_the_training_frames(spectrograms: list[np.ndarray]):
    standardiser = fit("train", spectrograms)
    frames = np.concatenate([spectrograms[0], spectrograms[1], spectrograms[3]]).astype(np.float64)
    assert standardiser.groups == ("train",)
    np.testing.assert_allclose(standardiser.mean, [frames.mean(axis=0)], rtol=1e-6)
    np.testing.assert_allclose(standardiser.deviation, [frames.std(axis=0)], rtol=1e-6)
    for clip in spectrograms:
        applied = standardiser.apply(clip)
        assert applied.dtype == np.float32
        np.testing.assert_allclose(applied, (clip - frames.mean(axis=0)) / frames.std(axis=0), atol=1e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_train_never_looks_beyond_the_training_part(spectrograms: list[np.ndarray], poison: float):
    clean = fit("train", spectrograms)
    poisoned = fit(
        "train",
        [clip if used else clip * poison for clip, used in zip(spectrograms, TRAINING, strict=True)],
    )
    assert poisoned.mean.tobytes() == clean.mean.tobytes()
    assert poisoned.deviation.tobytes() == clean.deviation.tobytes()


def test_train_does_depend_on_the_training_part(spectrograms: list[np.ndarray]):
    changed = [spectrograms[0] + 1, *spectrograms[1:]]
    assert (fit("train", changed).mean > fit("train", spectrograms).mean).all()


def test_train_takes_no_heed_of_speakers(spectrograms: list[np.ndarray]):
    nameless = fit("train", spectrograms, speakers=[""] * 6)
    np.testing.assert_array_equal(nameless.mean, fit("train", spectrograms).mean)
    np.testing.assert_array_equal(
        nameless.apply(spectrograms[0], "somebody"), nameless.apply(spectrograms[0])
    )


def test_clip_brings_each_clip_to_mean_0_and_deviation_1(spectrograms: list[np.ndarray]):
    standardiser = fit("clip", spectrograms)
    for clip in spectrograms:
        applied = standardiser.apply(clip, "whoever")
        assert applied.dtype == np.float32
        np.testing.assert_allclose(applied.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(applied.std(axis=0), 1, atol=1e-5)


def test_speaker_takes_all_clips_of_each_speaker(spectrograms: list[np.ndarray]):
    standardiser = fit("speaker", spectrograms)
    assert standardiser.groups == ("A", "B", "C")
    for row, (name, clips) in enumerate({"A": (1, 3), "B": (0, 2), "C": (4, 5)}.items()):
        frames = np.concatenate([spectrograms[clip] for clip in clips]).astype(np.float64)
        np.testing.assert_allclose(standardiser.mean[row], frames.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(standardiser.deviation[row], frames.std(axis=0), rtol=1e-6)
        applied = np.concatenate([standardiser.apply(spectrograms[clip], name) for clip in clips])
        np.testing.assert_allclose(applied.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(applied.std(axis=0), 1, atol=1e-5)


def test_speaker_is_untouched_by_other_speakers(spectrograms: list[np.ndarray]):
    others = [
        clip if name == "C" else clip * np.nan for clip, name in zip(spectrograms, SPEAKERS, strict=True)
    ]
    alone = fit("speaker", others).apply(spectrograms[4], "C")
    np.testing.assert_array_equal(alone, fit("speaker", spectrograms).apply(spectrograms[4], "C"))


def test_none_leaves_decibels(spectrograms: list[np.ndarray]):
    np.testing.assert_array_equal(fit("none", spectrograms).apply(spectrograms[2]), spectrograms[2])


@pytest.mark.parametrize("kind", ["clip", "none"])
def test_clip_and_none_read_nothing_to_be_fitted(kind: str):
    def clips():
        raise AssertionError("a clip was read")
        yield

    assert Standardiser.fit(kind, clips(), [], []).groups == ()


@pytest.mark.parametrize("kind", ["train", "clip", "speaker"])
def test_a_band_of_digital_silence_stays_near_0(spectrograms: list[np.ndarray], kind: str):
    silent = [clip.copy() for clip in spectrograms]
    for clip in silent:
        clip[:, 2] = -100
    standardiser = fit(kind, silent)
    for clip, name in zip(silent, SPEAKERS, strict=True):
        applied = standardiser.apply(clip, name)
        assert np.isfinite(applied).all()
        np.testing.assert_allclose(applied[:, 2], 0, atol=1e-3)


def test_each_clip_is_read_once(spectrograms: list[np.ndarray]):
    read: list[int] = []

    def clips():
        for number, clip in enumerate(spectrograms):
            read.append(number)
            yield clip

    Standardiser.fit("speaker", clips(), SPEAKERS, TRAINING)
    assert read == [0, 1, 2, 3, 4, 5]


def test_what_is_given_stays_as_it_was(spectrograms: list[np.ndarray]):
    before = [clip.copy() for clip in spectrograms]
    for kind in ("train", "clip", "speaker", "none"):
        standardiser = fit(kind, spectrograms)
        for clip, name in zip(spectrograms, SPEAKERS, strict=True):
            standardiser.apply(clip, name)
    for clip, copy in zip(spectrograms, before, strict=True):
        np.testing.assert_array_equal(clip, copy)


def test_a_speaker_without_statistics_is_refused(spectrograms: list[np.ndarray]):
    with pytest.raises(SettingsError, match="speaker 'D' has no statistics; known: A, B, C"):
        fit("speaker", spectrograms).apply(spectrograms[0], "D")


def test_speaker_needs_every_speaker(spectrograms: list[np.ndarray]):
    with pytest.raises(
        SettingsError, match=r"does not name the speaker of every clip.*Use standardise='clip'"
    ):
        fit("speaker", spectrograms, speakers=["A", "B", "", "A", "C", "C"])


def test_train_needs_a_training_clip(spectrograms: list[np.ndarray]):
    with pytest.raises(SettingsError, match="train"):
        fit("train", spectrograms, training=[False] * 6)
