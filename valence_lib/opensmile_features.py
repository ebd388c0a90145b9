"""openSMILE's feature sets, as baselines that people trust: an optional extra, under a licence of its own (research only)."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valence_lib.errors import SettingsError
from valence_lib.settings import FeatureSettings
from valence_lib.waveforms import Waveform


def egemaps(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """The extended Geneva minimalistic acoustic parameter set, eGeMAPSv02 [shape=(1, 88)].

    Eyben et al. (2016), "The Geneva minimalistic acoustic parameter set (GeMAPS) for voice research and affective computing", IEEE
    Transactions on Affective Computing 7, 190-202.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.

    Raises:
        SettingsError: openSMILE is not installed.
    """
    return _functionals("eGeMAPSv02", waveform, settings)


def compare_2016(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """The feature set of the Interspeech Computational Paralinguistics Challenge of 2016 [shape=(1, 6373)].

    Schuller et al. (2016), "The INTERSPEECH 2016 computational paralinguistics challenge", Interspeech, 2001-2005.

    Args and errors as for `egemaps`.
    """
    return _functionals("ComParE_2016", waveform, settings)


def _functionals(feature_set: str, waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    values = _extractor(feature_set).process_signal(waveform, settings.sample_rate).to_numpy(np.float32)
    return np.nan_to_num(values[:1])


@cache
def _extractor(feature_set: str) -> Any:
    try:
        import opensmile
    except ImportError as error:
        raise SettingsError(
            f"the features {feature_set} were asked for, but openSMILE cannot be imported ({error}); install it with "
            'pip install "valence-lib[opensmile]", or leave them out.'
        ) from error
    return opensmile.Smile(getattr(opensmile.FeatureSet, feature_set), opensmile.FeatureLevel.Functionals)
