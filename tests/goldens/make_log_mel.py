"""Make log_mel.npz: synthetic waveforms and librosa's log-mel spectrograms of them.

    python tests/goldens/make_log_mel.py

It does not use this project.
"""

from pathlib import Path

import librosa
import numpy as np
from numpy.typing import NDArray
from scipy.signal import chirp

SAMPLE_RATE = 8000  # Hz
N_FFT = 2048  # samples
HOP_LENGTH = 512  # samples
N_MELS = 128
DESTINATION = Path(__file__).with_name("log_mel.npz")


def waveforms() -> dict[str, NDArray[np.float32]]:
    """Five clips by name [shape=(n_samples,), dtype=float32]."""
    rng = np.random.default_rng(8000)
    second = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    harmonics = sum(np.sin(2 * np.pi * 140 * k * second) / k for k in range(1, 25))
    clips = {
        "noise": 0.1 * rng.standard_normal(SAMPLE_RATE),
        "chirp": 0.5 * chirp(second, f0=50, t1=1, f1=3900),
        # Digital silence between two tones: -100 dB before the cut at 80 dB below the loudest band.
        "tones and silence": 0.2 * harmonics * ((second < 0.3) | (second > 0.8)),
        "odd length": 0.05 * rng.standard_normal(5431) + 0.3 * np.sin(0.5 * np.arange(5431)),
        "one frame": 0.3 * np.sin(2 * np.pi * 440 * second[:N_FFT]),
    }
    return {name: clip.astype(np.float32) for name, clip in clips.items()}


def librosa_log_mel(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """librosa's decibels [shape=(frames, n_mels), dtype=float32]."""
    power = librosa.feature.melspectrogram(
        y=waveform, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP_LENGTH, n_mels=N_MELS
    )
    return np.ascontiguousarray(librosa.power_to_db(power).T, dtype=np.float32)


def main() -> None:
    """Write the golden file: under each clip's name its waveform, under "NAME: log-mel" its spectrogram."""
    content = {}
    for name, waveform in waveforms().items():
        content[name] = waveform
        content[f"{name}: log-mel"] = librosa_log_mel(waveform)
    np.savez_compressed(DESTINATION, **content)


if __name__ == "__main__":
    main()
