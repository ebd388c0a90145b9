"""The clips of the benchmark: EmoTale as course pickles if it is next to this checkout, else the demo."""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from valence_lib.corpora.course import CourseFolder
from valence_lib.corpora.opening import open_corpus
from valence_lib.corpora.sources import Clip
from valence_lib.corpora.waveforms import Waveform
from valence_lib.features.log_mel import log_mel
from valence_lib.settings import FeatureSettings

SHARED = Path(__file__).parents[2] / "shared" / "data"
SETTINGS = FeatureSettings()


def make_pickles(folder: Path, copies: int) -> str:
    """Write course pickles to a folder, with several copies of each clip; return a description of them."""
    script = SHARED / "make_course_pickles.py"
    if script.is_file():
        command = [sys.executable, str(script), "emotale", str(folder), "--copies", str(copies)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return f"EmoTale, {copies} copies of each clip"
    (folder / "train").mkdir(parents=True)
    for copy in range(copies):
        for number, clip in enumerate(open_corpus("demo")):
            content = {"audio_data": _varied(clip.waveform, copy), "valence": clip.rating}
            (folder / "train" / f"{copy:02d}_{number:05d}.pkl").write_bytes(pickle.dumps(content))
    return f"the demo corpus, {copies} copies of each clip"


def _varied(waveform: Waveform, copy: int) -> Waveform:
    """A slightly quieter copy: clips with the same audio would be put into quarantine."""
    return waveform * np.float32(1 - copy * 1e-4)


class Repeated(CourseFolder):
    """Clips of a course folder, in any number: after the last clip, the first follows as a quieter copy.

    Args:
        folder: of course pickles.
        numbers: of the clips, from 0; a number may be larger than the number of pickles.
    """

    def __init__(self, folder: Path, numbers: Sequence[int]):
        corpus = open_corpus(folder)
        entries = [corpus._entries[number % len(corpus)] for number in numbers]
        super().__init__(folder.name, entries, corpus.sample_rate, corpus.target)
        self.ids = tuple(f"{n // len(corpus)}/{name}" for n, name in zip(numbers, self.ids, strict=True))

    def read(self, index: int) -> Clip:
        """See `Corpus.read`."""
        clip = super().read(index)
        copy = int(clip.id.split("/")[0])
        return replace(clip, waveform=_varied(clip.waveform, copy))


def our_log_mel(waveform: Waveform) -> np.ndarray:
    """Log-mel spectrogram of this project [shape=(frames, n_mels)]."""
    return log_mel(waveform, SETTINGS)


def longest_clip(folder: Path) -> int:
    """Frames of the longest clip of a course folder."""
    return max(SETTINGS.frames(clip.waveform.size) for clip in open_corpus(folder))


def some_waveforms(folder: Path, count: int) -> Sequence[Waveform]:
    """Waveforms of clips drawn from a course folder, with a fixed seed."""
    corpus = open_corpus(folder)
    chosen = np.random.default_rng(0).permutation(len(corpus))[:count]
    return [corpus.read(int(index)).waveform for index in chosen]
