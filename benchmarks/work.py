"""The clips that are measured on: real speech as course pickles where it lies beside this checkout, else the demo."""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from valence_lib.corpora import Clip, CourseFolder, open_corpus
from valence_lib.settings import (
    FeatureSettings,
)
from valence_lib.waveforms import Waveform

SHARED = Path(__file__).parents[2] / "shared" / "data"
SETTINGS = FeatureSettings()


def make_pickles(folder: Path, copies: int) -> str:
    """Write course pickles into a folder, as many copies as asked of each clip; return what they are."""
    script = SHARED / "make_course_pickles.py"
    if script.is_file():
        command = [sys.executable, str(script), "emotale", str(folder), "--copies", str(copies)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return f"EmoTale, {copies} copies of each clip"
    (folder / "train").mkdir(parents=True)
    number = 0
    for copy in range(copies):
        for clip in open_corpus("demo"):
            content = {"audio_data": _varied(clip.waveform, copy), "valence": clip.valence}
            (folder / "train" / f"{number:05d}.pkl").write_bytes(pickle.dumps(content))
            number += 1
    return f"the demo corpus, {copies} copies of each clip"


def _varied(waveform: Waveform, copy: int) -> Waveform:
    """A copy that is not the same audio, or it would be put into quarantine: a little quieter."""
    return waveform * np.float32(1 - copy * 1e-4)


class Repeated(CourseFolder):
    """A course folder that seems to hold more clips than it does: each is read again, a little quieter.

    Args:
        folder: of course pickles.
        count: how many clips it seems to hold.
    """

    def __init__(self, folder: Path, count: int):
        corpus = open_corpus(folder)
        assert isinstance(corpus, CourseFolder)
        files = [corpus._files[number % len(corpus)] for number in range(count)]
        super().__init__(folder.name, files, corpus.sample_rate)
        self.ids = tuple(f"{number // len(corpus)}/{name}" for number, name in enumerate(self.ids))

    def read(self, index: int) -> Clip:
        """See `Corpus.read`."""
        clip = super().read(index)
        copy = int(clip.id.split("/")[0])
        return replace(clip, waveform=_varied(clip.waveform, copy))


def longest_clip(folder: Path) -> int:
    """Frames of a course folder's longest clip."""
    return max(SETTINGS.frames(clip.waveform.size) for clip in open_corpus(folder))


def some_waveforms(folder: Path, count: int) -> Sequence[Waveform]:
    """Waveforms of clips drawn from a course folder, the same every time."""
    corpus = open_corpus(folder)
    chosen = np.random.default_rng(0).permutation(len(corpus))[:count]
    return [corpus.read(int(index)).waveform for index in chosen]
