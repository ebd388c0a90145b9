"""What models hear of a clip: streams of numbers beside the log-mel, each computed from its waveform or its frames."""

from __future__ import annotations  # the processes that compute streams do without pandas

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from valence_lib.features import LogMel, log_mels
from valence_lib.registry import STREAMS, streams_named
from valence_lib.settings import FeatureSettings
from valence_lib.waveforms import Waveform

Rows = NDArray[np.float32]  # [shape=(frames, width)], or (1, width) where a stream has one row a clip


def stream_function(name: str) -> Callable[..., Rows]:
    """The function that computes a stream of the registry, as `registry.Stream` says."""
    function: Callable[..., Rows] = getattr(import_module(STREAMS[name].module), name)
    return function


def side_by_side(streams: Sequence[Rows]) -> Rows:
    """The columns of one clip's streams, from the first stream to the last."""
    return streams[0] if len(streams) == 1 else np.concatenate(streams, axis=1)


def compute(waveforms: Iterable[Waveform], names: str, settings: FeatureSettings) -> Iterator[Rows]:
    """The streams of many clips, some clips at a time, in memory that does not grow.

    Args:
        waveforms: each [shape=(n_samples,)], at `settings.sample_rate` Hz.
        names: as `registry.streams_named` takes them.

    Yields:
        Each clip's rows [shape=(rows, width), dtype=float32], in order.
    """
    if names == "log_mel":
        yield from log_mels(waveforms, settings)
        return
    for waveform in waveforms:
        heard = Heard([waveform], settings)
        yield heard.of(names)[0]


class Heard:
    """Clips as models hear them: streams of some waveforms, each computed once, when it is first asked for.

    Args:
        waveforms: each [shape=(n_samples,)], at `settings.sample_rate` Hz.
    """

    def __init__(self, waveforms: Sequence[Waveform], settings: FeatureSettings):
        self._waveforms, self._settings = waveforms, settings
        self._computed: dict[str, list[Rows]] = {}

    def __len__(self) -> int:
        return len(self._waveforms)

    def of(self, names: str) -> list[Rows]:
        """Each clip's rows of the streams, side by side [shape=(rows, width), dtype=float32]."""
        streams = [self._stream(name) for name in streams_named(names)]
        return [side_by_side(rows) for rows in zip(*streams, strict=True)]

    def _stream(self, name: str) -> list[Rows]:
        if name not in self._computed:
            if name == "log_mel":
                computed: list[LogMel] = list(log_mels(self._waveforms, self._settings))
            else:
                source = self._waveforms if STREAMS[name].of == "waveform" else self._stream("log_mel")
                computed = [stream_function(name)(clip, self._settings) for clip in source]
            self._computed[name] = computed
        return self._computed[name]
