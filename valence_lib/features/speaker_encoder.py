"""Waveform -> one row of statistics of a pretrained speaker encoder's hidden states.

The encoder is the GE2E network of Wan, Wang, Papir and Lopez Moreno (2018), "Generalized end-to-end loss for
speaker verification", ICASSP, 4879-4883, with the weights of the package Resemblyzer (Apache-2.0, see
NOTICE), which is not imported. The first two of its three LSTM layers are used.
"""

import math
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from valence_lib.corpora.waveforms import Waveform, resample
from valence_lib.errors import RunError, SettingsError
from valence_lib.features.log_mel import mel_power
from valence_lib.files import digest_of
from valence_lib.settings import FeatureSettings

Array = NDArray[np.float32]

PACKAGE = "resemblyzer"
COMMAND = "pip install --no-deps Resemblyzer==0.1.4"
WEIGHTS_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"  # of pretrained.pt

SPEECH_RANGE = 25.0  # dB below the clip's loudest frame; quieter frames are not speech
UNITS = 256  # of each layer

_RATE = 16000  # Hz
_N_FFT, _HOP, _N_MELS = 400, 160, 40  # samples, samples, bands
_LOWEST_LEVEL = -30.0  # RMS in dB re full scale; quieter clips are amplified to it
_WINDOW = 6000  # frames computed at a time: 60 s


def speaker_encoder(waveform: Waveform, settings: FeatureSettings) -> Array:
    """Mean and standard deviation of the second layer's outputs over the clip's speech frames.

    A clip of more than 60 s is computed in successive windows of equal length, each by itself.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.

    Returns:
        256 means, then 256 standard deviations [shape=(1, 512)].

    Raises:
        SettingsError: the weights are not installed.
        RunError: the weights are not those that this module was tested with.
    """
    waveform = resample(waveform, settings.sample_rate, _RATE)
    rms = math.sqrt(np.square(waveform, dtype=np.float64).mean())
    waveform = waveform * np.float32(max(1.0, 10 ** (_LOWEST_LEVEL / 20) / max(rms, 1e-9)))
    mels = mel_power(waveform, _RATE, _N_FFT, _HOP, _N_MELS).astype(np.float32)
    speech = speech_frames(mels.sum(axis=1))
    n_windows = math.ceil(len(mels) / _WINDOW)
    windows = zip(np.array_split(mels, n_windows), np.array_split(speech, n_windows), strict=True)
    return mean_and_deviation((_second_layer(own), kept) for own, kept in windows)[None]


def speech_frames(power: Array) -> NDArray[np.bool_]:
    """Which frames are speech: those at most `SPEECH_RANGE` dB below the loudest [shape=(frames,)].

    Args:
        power [shape=(frames,)]: of the frames of one clip, in any unit.
    """
    return power >= power.max() * 10 ** (-SPEECH_RANGE / 10)


def mean_and_deviation(windows: Iterable[tuple[Array, NDArray[np.bool_]]]) -> Array:
    """Means, then standard deviations over the speech frames of a clip's windows [shape=(..., 2 * width)].

    Args:
        windows: each the values [shape=(..., frames, width)] and which frames are speech [shape=(frames,)].
    """
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for values, kept in windows:
        own = values[..., kept, :].astype(np.float64)
        count += own.shape[-2]
        total = total + own.sum(axis=-2)
        squares = squares + np.einsum("...fw,...fw->...w", own, own)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return np.concatenate([mean, deviation], axis=-1).astype(np.float32)


def _second_layer(mels: Array) -> Array:
    """The second layer's outputs [shape=(frames, 256)] for mel powers [shape=(frames, 40)]."""
    with torch.inference_mode():
        outputs, _ = _network()(torch.from_numpy(mels))
    return outputs.numpy()


@cache
def _network() -> nn.LSTM:
    spec = find_spec(PACKAGE)  # a package is not executed by this
    path = Path(spec.origin).with_name("pretrained.pt") if spec and spec.origin else None
    if path is None or not path.is_file():
        raise SettingsError(
            "the stream 'speaker_encoder' was given, but its weights are not installed; install them with "
            f"`make encoder` (or {COMMAND}), or leave it out."
        )
    digest = digest_of(path)
    if digest != WEIGHTS_SHA256:
        raise RunError(
            f"the speaker encoder's weights in {path} have SHA-256 {digest}; expected {WEIGHTS_SHA256}. "
            f"Install them again: {COMMAND} --force-reinstall."
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    network = nn.LSTM(_N_MELS, UNITS, num_layers=2)
    network.load_state_dict({name: weights[f"lstm.{name}"] for name in network.state_dict()})
    return network.eval()
