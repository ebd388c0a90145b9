"""Waveform -> the spectrum's course within each frame of the log-mel spectrogram, from short frames.

The log-mel spectrogram's windows are long (256 ms at the course's settings), which tells harmonics apart but blurs syllables.
Windows of 32 ms follow the vocal tract, and what they show within a frame's hop is summed up by mean and deviation.
"""

import numpy as np
from numpy.typing import NDArray

from valence_lib.features import log_mel
from valence_lib.settings import FeatureSettings
from valence_lib.waveforms import Waveform

BANDS = 24


def fine_mel(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """Mean and standard deviation, in dB, of 24 mel bands over the short frames that are nearest to each frame.

    The short frames are those of `valence_lib.features.log_mel`, an eighth of the hop apart.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.

    Returns:
        [shape=(settings.frames(n_samples), 2 * BANDS), dtype=float32]: first the means, then the deviations.
    """
    hop = settings.short_hop_length
    short = FeatureSettings(
        sample_rate=settings.sample_rate,
        n_fft=settings.short_n_fft,
        hop_length=hop,
        n_mels=BANDS,
        top_db=settings.top_db,
    )
    bands = log_mel(waveform, short).astype(np.float64)
    # A short frame belongs to the frame whose centre is nearest; of each frame, at least the one at its centre does.
    places = np.arange(settings.frames(len(waveform))) * settings.hop_length - settings.hop_length / 2
    starts = np.searchsorted(np.arange(len(bands)) * hop, places)
    counts = np.diff(np.append(starts, len(bands)))[:, None]
    mean = np.add.reduceat(bands, starts) / counts
    square = np.add.reduceat(bands**2, starts) / counts
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return np.concatenate([mean, deviation], axis=1).astype(np.float32)


def fine_timbre(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """`fine_mel` whatever the clip's level: its means in dB above the clip's mean power a band.

    How loud a clip is tells valence beside the same speaker's other clips, and misleads beside other recordings.
    """
    rows = fine_mel(waveform, settings)
    means = rows[:, :BANDS]
    means -= 10 * np.log10(np.mean(10 ** (means.astype(np.float64) / 10)))
    return rows
