"""Input features of clips: streams of numbers, each computed from a waveform or its log-mel spectrogram."""

from collections.abc import Callable, Sequence
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from valence_lib.corpora.waveforms import Waveform
from valence_lib.errors import SettingsError
from valence_lib.registry import STREAMS, check_streams
from valence_lib.settings import FeatureSettings

Rows = NDArray[np.float32]  # [shape=(frames, width)], (1, width) of a clip, or (layers, width)


def stream_function(name: str) -> Callable[..., Rows]:
    """The function that computes a stream; `registry.Stream` describes its arguments."""
    return getattr(import_module(STREAMS[name].module), name)


def layer_of(name: str, rows: Rows) -> Rows:
    """The rows of a stream by its name in a setting: "encoder:3" is layer 3 alone [shape=(1, width)].

    Raises:
        SettingsError: there is no such layer.
    """
    layer = name.partition(":")[2]
    if not layer:
        return rows
    if int(layer) >= len(rows):
        raise SettingsError(f"there is no stream {name!r}: the last layer of its clips is {len(rows) - 1}.")
    return rows[int(layer) : int(layer) + 1]


def side_by_side(streams: Sequence[Rows]) -> Rows:
    """The columns of one clip's streams, in order."""
    return streams[0] if len(streams) == 1 else np.concatenate(streams, axis=1)


class ClipFeatures:
    """The input features of waveforms. Each stream is computed once, on first use.

    Args:
        waveforms: each [shape=(n_samples,)], at `settings.sample_rate` Hz.
    """

    def __init__(self, waveforms: Sequence[Waveform], settings: FeatureSettings):
        self._waveforms, self._settings = waveforms, settings
        self._computed: dict[str, list[Rows]] = {}

    def __len__(self) -> int:
        return len(self._waveforms)

    def of(self, streams: Sequence[str]) -> list[Rows]:
        """Each clip's rows of the streams, side by side [shape=(rows, width), dtype=float32]."""
        check_streams(streams)
        computed = [
            [layer_of(name, rows) for rows in self._stream(name.partition(":")[0])] for name in streams
        ]
        return [side_by_side(rows) for rows in zip(*computed, strict=True)]

    def _stream(self, name: str) -> list[Rows]:
        if name not in self._computed:
            source = self._waveforms if STREAMS[name].of == "waveform" else self._stream("log_mel")
            self._computed[name] = [stream_function(name)(clip, self._settings) for clip in source]
        return self._computed[name]
