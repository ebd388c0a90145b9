"""Log-mel frames -> one row of statistics, as baselines take them."""

import numpy as np
from numpy.typing import NDArray

from valence_lib.features import LogMel
from valence_lib.settings import FeatureSettings


def log_mel_statistics(log_mel: LogMel, settings: FeatureSettings) -> NDArray[np.float32]:
    """Mean, deviation, and tenth, fiftieth and ninetieth percentile of every mel band, dB [shape=(1, 5 * n_mels)].

    Args:
        log_mel [shape=(frames, n_mels)]: dB.
        settings: of the features; not used, since a row depends on the frames alone.
    """
    percentiles = np.percentile(log_mel, [10, 50, 90], axis=0)
    return np.concatenate([log_mel.mean(axis=0), log_mel.std(axis=0), *percentiles])[None].astype(np.float32)
