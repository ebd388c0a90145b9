"""A toy corpus for tests: tones whose pitch is their valence, so that every model can learn it in seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from valence_lib.corpora.sources import Clip, Corpus
from valence_lib.corpora.waveforms import Waveform
from valence_lib.features.streams import Rows
from valence_lib.preprocess.inspection import inspect_corpus
from valence_lib.preprocess.store import FeatureStore
from valence_lib.settings import CorpusSettings, FeatureSettings, Target
from valence_lib.training.loop import TrainingData

Voice = Callable[..., NDArray[np.float32]]  # the fixture `voice`: a waveform by seed, rate and seconds

FEATURES = FeatureSettings(n_fft=256, hop_length=128, n_mels=8)
SUBSETS = ["train"] * 48 + ["validation"] * 16 + ["test"] * 16


class Tones(Corpus):
    """Clip number n: a tone with noise, 0.1 to 0.4 s; valence 1 to 5 is its pitch, 300 to 3500 Hz."""

    def __init__(self) -> None:
        super().__init__("tones", [f"tone {n:02d}" for n in range(len(SUBSETS))], 8000, Target(), {})

    def read(self, index: int) -> Clip:
        """See `Corpus.read`."""
        generator = np.random.default_rng([7, index])
        valence = float(generator.uniform(1, 5))
        waveform = tone(valence, float(generator.uniform(0.1, 0.4)), index)
        return Clip(self.ids[index], waveform, 8000, valence, SUBSETS[index], {"speaker": f"S{index % 8}"})

    def subset(self, index: int) -> str:
        """See `Corpus.part`."""
        return SUBSETS[index]


def tone(valence: float, duration_seconds: float, seed: int) -> Waveform:
    """The waveform of one clip, at 8000 Hz."""
    time = np.arange(int(8000 * duration_seconds)) / 8000
    noise = np.random.default_rng(seed).normal(0, 0.01, time.size)
    frequency = 300 + 800 * (valence - 1)
    return (0.3 * np.sin(2 * np.pi * frequency * time) + noise).astype(np.float32)


def make_clips(folder: Path) -> pd.DataFrame:
    """The table of the toy corpus's clips, as from `inspect_corpus`; their features lie in `folder`."""
    return inspect_corpus(Tones(), CorpusSettings(), FEATURES, folder, progress=False).clips


def make_training_data(folder: Path, clips: pd.DataFrame | None = None) -> TrainingData:
    """Clips and features, stored in `folder`."""
    clips = make_clips(folder) if clips is None else clips
    return TrainingData(FeatureStore(folder, clips, FEATURES), clips)


@dataclass
class Given:
    """Rows that are at hand, as what a run predicts from: they are those of any streams."""

    rows: Sequence[Rows]

    def of(self, streams: Sequence[str]) -> Sequence[Rows]:
        """See `runs.FeatureSource`."""
        return self.rows


def layers(waveform: Waveform, settings: FeatureSettings) -> Rows:
    """Three layers of a made-up encoder, of four columns: noise, shares of the power in four bands, noise."""
    seed = np.frombuffer(np.ascontiguousarray(waveform[:16]).tobytes(), np.uint32)
    generator = np.random.default_rng(seed)
    power = np.abs(np.fft.rfft(waveform)) ** 2
    shares = [band.sum() / power.sum() for band in np.array_split(power, 4)]
    noise = generator.normal(size=(2, 4))
    return np.array([noise[0], shares, noise[1]], np.float32)
