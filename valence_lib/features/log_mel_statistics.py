"""Log-mel spectrogram -> one row of statistics, for baselines."""

import numpy as np
from numpy.typing import NDArray

from valence_lib.features.log_mel import LogMel
from valence_lib.settings import FeatureSettings


def log_mel_statistics(log_mel: LogMel, settings: FeatureSettings) -> NDArray[np.float32]:
    """Mean, standard deviation, 10th, 50th and 90th percentile of every mel band, dB [shape=(1, 5 * n_mels)].

    Args:
        log_mel [shape=(frames, n_mels)]: dB.
        settings: not used.
    """
    percentiles = np.percentile(log_mel, [10, 50, 90], axis=0)
    return np.concatenate([log_mel.mean(axis=0), log_mel.std(axis=0), *percentiles])[None].astype(np.float32)
