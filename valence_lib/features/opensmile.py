"""Waveform -> openSMILE's eGeMAPS features, for a baseline. Its licence is for research only."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valence_lib.corpora.waveforms import Waveform
from valence_lib.errors import SettingsError
from valence_lib.settings import FeatureSettings


def egemaps(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """The extended Geneva minimalistic acoustic parameter set, eGeMAPSv02 [shape=(1, 88)].

    Eyben et al. (2016), "The Geneva minimalistic acoustic parameter set (GeMAPS) for voice research and
    affective computing", IEEE Transactions on Affective Computing 7, 190-202.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.

    Raises:
        SettingsError: openSMILE is not installed.
    """
    values = _extractor().process_signal(waveform, settings.sample_rate).to_numpy(np.float32)
    return np.nan_to_num(values[:1])


@cache
def _extractor() -> Any:
    try:
        import opensmile
    except ImportError as error:
        raise SettingsError(
            f"the stream 'egemaps' was given, but openSMILE cannot be imported ({error}); install it with "
            'pip install "valence-lib[opensmile]", or leave it out.'
        ) from error
    return opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
