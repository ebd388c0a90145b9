"""The log-mel spectrogram against librosa."""

import csv
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from valence_lib.errors import SettingsError
from valence_lib.features.log_mel import log_mel, mel_frequencies
from valence_lib.settings import FeatureSettings

GOLDENS = Path(__file__).parents[1] / "goldens" / "log_mel.npz"
SPEECH = Path(__file__).parents[3] / "shared" / "data"
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


def assert_equal_to_librosa(waveform: np.ndarray, settings: FeatureSettings = SETTINGS) -> None:
    expected = librosa_log_mel(waveform, settings)
    np.testing.assert_allclose(log_mel(waveform, settings), expected, rtol=0, atol=TOLERANCE)


def noise(seed: int, n_samples: int, level: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(level * rng.standard_normal(n_samples), -1, 1).astype(np.float32)


@pytest.mark.parametrize("name", ["noise", "chirp", "tones and silence", "odd length", "one frame"])
def test_the_golden_spectrograms_of_librosa(name: str):
    with np.load(GOLDENS) as goldens:
        waveform, expected = goldens[name], goldens[f"{name}: log-mel"]
    np.testing.assert_allclose(log_mel(waveform), expected, rtol=0, atol=TOLERANCE)
    assert_equal_to_librosa(waveform)


@pytest.mark.parametrize("n_samples", [2048, 2049, 2559, 2560, 2561, 7777, 20000])
def test_random_waveforms_of_all_lengths(n_samples: int):
    for seed, level in enumerate([1e-3, 0.05, 0.5]):
        assert_equal_to_librosa(noise(seed, n_samples, level))


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
def test_every_setting_is_librosas(changes: dict):
    waveform = noise(1, 9001) * np.linspace(0, 1, 9001, dtype=np.float32) ** 4
    assert_equal_to_librosa(waveform, FeatureSettings(**changes))


@pytest.mark.parametrize("corpus", ["emotale", "ravdess"])
def test_real_speech(corpus: str):
    labels = SPEECH / corpus / "labels.csv"
    if not labels.is_file():
        pytest.skip(f"the corpus {corpus} is not available")
    with labels.open(encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    for name in names[:: max(1, len(names) // 15)]:
        samples, sample_rate = soundfile.read(labels.parent / name, dtype="float32", always_2d=True)
        assert_equal_to_librosa(librosa.resample(samples.mean(axis=1), orig_sr=sample_rate, target_sr=8000))


def test_mel_bands_are_centred_on_slaneys_scale():
    # Slaney's scale is linear to 1000 Hz, with 200/3 Hz a mel; 4000 Hz are 15 + 27 log(4)/log(6.4) mel.
    top = 15 + 27 * np.log(4) / np.log(6.4)
    mels = np.linspace(0, top, 130)[1:-1]
    expected = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    np.testing.assert_allclose(mel_frequencies(SETTINGS), expected)


def test_bands_too_weak_for_single_precision():
    # Noise 100 dB below a tone is as weak as the tone's rounding errors in single precision.
    tone = 0.5 * np.sin(2 * np.pi * 3000 / 8000 * np.arange(20000))
    assert_equal_to_librosa(tone.astype(np.float32) + noise(0, 20000, 1e-5), FeatureSettings(top_db=120.0))


@pytest.mark.parametrize("n_samples", [2048, 2559, 2560, 8000, 12345])
@pytest.mark.parametrize(
    "settings", [SETTINGS, FeatureSettings(n_fft=512, hop_length=100, n_mels=40)], ids=str
)
def test_shape_and_type(n_samples: int, settings: FeatureSettings):
    frames = log_mel(noise(0, n_samples), settings)
    assert frames.shape == (1 + n_samples // settings.hop_length, settings.n_mels)
    assert len(frames) == settings.frames(n_samples)
    assert frames.dtype == np.float32 and frames.flags.c_contiguous


def test_nothing_is_below_minus_100_db():
    np.testing.assert_array_equal(log_mel(np.zeros(4000, np.float32), SETTINGS), -100)


def test_a_spectrogram_is_deterministic_and_its_waveform_is_unchanged():
    waveform = noise(7, 5000)
    waveform.flags.writeable = False
    first = log_mel(waveform, SETTINGS)
    log_mel(noise(8, 9000), FeatureSettings(n_mels=64, n_fft=1024))
    assert log_mel(waveform, SETTINGS).tobytes() == first.tobytes()


@pytest.mark.parametrize(
    ("waveform", "given"),
    [
        (np.zeros(4000, np.int16), r"an array of int16 with shape \(4000,\); .* Divide 16-bit samples"),
        ([0.0, 0.1], "list; expected a numpy array"),
        (np.zeros((1, 4000), np.float32), r"an array of float32 with shape \(1, 4000\); .* average the"),
        (np.array([0.0, np.nan]), "an array with NaN or infinite samples"),
    ],
    ids=["int16", "list", "two dimensions", "NaN"],
)
def test_an_array_that_is_not_a_waveform_is_refused(waveform, given):
    with pytest.raises(SettingsError, match=f"the waveform is {given}"):
        log_mel(waveform)


def test_importing_features_does_not_import_librosa():
    code = "import sys, valence_lib.features.log_mel; sys.exit('librosa' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
