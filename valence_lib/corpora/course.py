"""The course's pickles as a corpus: one clip a file, or many clips in one."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from valence_lib.corpora.file_kinds import name_text, printable
from valence_lib.corpora.pickles import PickledClip, read_course_pickle
from valence_lib.corpora.sources import Clip, Corpus
from valence_lib.corpora.waveforms import Waveform, resample, to_waveform
from valence_lib.errors import ClipError, CorpusError
from valence_lib.settings import Target

COURSE_SUBSETS = ("train", "validation", "test")
COURSE_SAMPLE_RATE = 8000  # Hz, of the audio in course pickles


class CourseFolder(Corpus):
    """Course pickles, one clip a file: train/NNNNN.pkl with labels, test/NNNNN.pkl with or without.

    The format names no speakers. Its audio is taken to be at 8000 Hz where a pickle does not give its rate.
    `files`: each clip's file and subset.
    """

    form = "a folder of pickles"

    def __init__(
        self,
        name: str,
        files: Sequence[tuple[Path, str]],
        sample_rate: int,
        target: Target,
        notes: Sequence[str] = (),
    ):
        ids = [
            printable(f"{path.parent.name}/{path.name}" if subset else path.name) for path, subset in files
        ]
        super().__init__(name, ids, sample_rate, target, {}, files)
        self.notes = notes

    def read(self, index: int) -> Clip:
        """See `Corpus.read`."""
        path, subset = self._entries[index]
        clips = read_course_pickle(path)
        if len(clips) != 1:
            raise ClipError("wrong type", f"'{name_text(path.name)}' holds {len(clips)} clips; expected one.")
        return _course_clip(self.ids[index], clips[0], subset, self.sample_rate)

    def ratings(self) -> NDArray[np.float64]:
        """See `Corpus.ratings`."""

        def of_file(path: Path) -> Iterator[PickledClip]:
            try:
                yield from read_course_pickle(path)[:1]
            except ClipError:  # it is reported when the clip is read
                return

        return _valences(next(of_file(path), None) for path, _ in self._entries)

    def files(self) -> list[Path]:
        """See `Corpus.files`."""
        return [path for path, _ in self._entries]


class PickledCorpus(Corpus):
    """One pickle with many clips, or one a subset: train.pkl and test.pkl. The clips stay in memory.

    Raises:
        CorpusError: a pickle cannot be read.
    """

    form = "pickles that hold many clips"

    def __init__(
        self,
        name: str,
        files: Sequence[tuple[Path, str]],
        sample_rate: int,
        target: Target,
        notes: Sequence[str] = (),
    ):
        self._paths, self.notes = [path for path, _ in files], notes
        ids, entries = [], []
        for path, subset in files:
            try:
                clips = read_course_pickle(path)
            except ClipError as error:
                message = f"the corpus {path.name!r} cannot be read ({error.reason}): {error}"
                raise CorpusError(message) from error
            entries += [(clip, subset) for clip in clips]
            ids += [f"{printable(path.name)}#{position}" for position in range(len(clips))]
        super().__init__(name, ids, sample_rate, target, {}, entries)

    def read(self, index: int) -> Clip:
        """See `Corpus.read`."""
        return _course_clip(self.ids[index], *self._entries[index], self.sample_rate)

    def ratings(self) -> NDArray[np.float64]:
        """See `Corpus.ratings`."""
        return _valences(clip for clip, _ in self._entries)

    def files(self) -> list[Path]:
        """See `Corpus.files`."""
        return self._paths


def _valences(clips: Iterable[PickledClip | None]) -> NDArray[np.float64]:
    values = [math.nan if clip is None or clip.valence is None else clip.valence for clip in clips]
    return np.array(values, np.float64)


def _course_clip(clip_id: str, clip: PickledClip, subset: str, sample_rate: int) -> Clip:
    waveform = course_waveform(clip, sample_rate)
    if clip.valence_problem is not None:
        raise ClipError("label not a number", f"the valence is {clip.valence_problem}.")
    return Clip(clip_id, waveform, sample_rate, clip.valence, subset)


def course_waveform(clip: PickledClip, sample_rate: int) -> Waveform:
    """The waveform of a course pickle's clip, at `sample_rate` Hz.

    Raises:
        ClipError: the pickle holds no audio array, or one that `to_waveform` refuses.
    """
    if clip.audio_problem is not None:
        raise ClipError("wrong type", f"the audio is {clip.audio_problem}.")
    return resample(to_waveform(clip.audio), clip.sample_rate or COURSE_SAMPLE_RATE, sample_rate)
