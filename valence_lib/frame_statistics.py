"""Waveform -> one row of statistics of the frames that networks hear, for models that take one row a clip."""

import numpy as np
from numpy.typing import NDArray

from valence_lib.fine_mel import fine_mel
from valence_lib.settings import FeatureSettings
from valence_lib.voice import voice
from valence_lib.waveforms import Waveform


def frame_statistics(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """Mean and standard deviation over the clip of every column of `voice` and of `fine_mel`, in their units.

    The means tell a voice and its level as much as how it is used: for models that are standardised by speaker.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.

    Returns:
        [shape=(1, width), dtype=float32]: first all means, then all deviations.
    """
    frames = np.concatenate([voice(waveform, settings), fine_mel(waveform, settings)], axis=1)
    frames = frames.astype(np.float64)
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0)])[None].astype(np.float32)
