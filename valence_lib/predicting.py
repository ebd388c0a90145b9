"""Files in, predictions out: many short clips, or one valence curve along a long recording.

Worker threads take shares of the files along the whole road, from reading to the model: decoding, the
transform and the model's layers let other threads run meanwhile. Along a recording the caller reads and
transforms, and a worker predicts. A worker holds one share, whatever the number of files or the length of
a recording, and shares are cut the same way on every machine, so that the number of cores changes no
prediction. Processes would share the work little better, and would each import torch first, for seconds.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from valence_lib.corpora import course_waveform
from valence_lib.errors import ClipError, RunError, SettingsError
from valence_lib.pickles import read_course_pickle
from valence_lib.runs import Ensemble, Run
from valence_lib.streams import ClipFeatures, Rows
from valence_lib.waveforms import Waveform, check_waveform, read_audio, read_audio_blocks

AUDIO_SUFFIXES = {".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"}
PICKLE_SUFFIXES = {".pkl", ".pickle"}

_FILES_PER_SHARE = 128  # enough to fill a batch, few enough that many cores have their share
_FRAMES_AT_ONCE = 16_384  # of spectrograms that a worker holds before it predicts: 8 MB
_WINDOWS_PER_SHARE = 32  # 64 are hardly faster and take 40 MB more
_SECONDS_PER_SHARE = 60  # where windows lie far apart, a share has fewer of them
_WINDOW_WORKERS = 1  # beside the caller, who transforms; each holds a batch's maps or gates, some 40 MB

Taken = TypeVar("Taken")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Prediction:
    """The valence of one clip or one window.

    Args:
        file: the path as given, followed by #position for a clip of a pickle that holds several.
        valence: in rating points; None where nothing can be predicted.
        error: why a clip or a recording cannot be used.
        start_seconds, end_seconds: of the window within its recording.
    """

    file: str
    valence: float | None
    error: ClipError | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None


def list_files(given: Sequence[Path]) -> list[Path]:
    """The files as given, folders replaced by the audio files and pickles below them, in order of name.

    Raises:
        RunError: a folder holds none.
    """
    listed: list[Path] = []
    for path in given:
        if not path.is_dir():
            listed.append(path)
            continue
        known = AUDIO_SUFFIXES | PICKLE_SUFFIXES
        below = sorted(file for file in path.rglob("*") if file.suffix.lower() in known and file.is_file())
        if not below:
            raise RunError(
                f"the folder {str(path)!r} holds no audio file and no pickle; expected {', '.join(sorted(known))}."
            )
        listed += below
    return listed


def predict_files(files: Sequence[Path], run: Run | Ensemble) -> Iterator[Prediction]:
    """The valence of each clip, in the order of the files; one that cannot be used carries its error.

    A run that standardises by speaker takes each folder for a speaker, whose statistics come from all
    of the folder's clips given here; their spectrograms are then held together.

    Args:
        files: audio files and course pickles.
        run: what predicts.
    """
    if not run.by_speaker:
        shares = (files[at : at + _FILES_PER_SHARE] for at in range(0, len(files), _FILES_PER_SHARE))
        predict_share = partial(_predict_share, run=run, most_frames=_FRAMES_AT_ONCE)
        for of_share in _in_parallel(predict_share, shares, _cores()):
            for of_clips in of_share:
                yield from of_clips
        return
    order = sorted(range(len(files)), key=lambda place: str(files[place].parent))
    folders = [list(places) for _, places in groupby(order, lambda place: files[place].parent)]
    predict_folder = partial(_predict_share, run=run, most_frames=math.inf)
    of_file: dict[int, list[Prediction]] = {}
    by_folder = _in_parallel(
        predict_folder, ([files[place] for place in places] for places in folders), _cores()
    )
    for places, found in zip(folders, by_folder, strict=True):
        of_file.update(zip(places, found, strict=True))
    for place in range(len(files)):
        yield from of_file[place]


def predict_windows(
    files: Sequence[Path], run: Run | Ensemble, window_seconds: float, hop_seconds: float = 1.0
) -> Iterator[Prediction]:
    """A valence curve along each recording: the predictions of windows that slide over it.

    Each window is predicted as a clip of its own. The first starts with the recording, the others
    follow at the hop, and the last is the first that reaches the recording's end; it may be shorter, and is
    left out where it holds less than a frame. A window that `check_waveform` refuses, such as a silent
    one, has no valence. A recording that cannot be used has one row with its error, after the
    windows before a damage in it. A run that standardises by speaker takes its statistics from all
    windows of the recording, which is then read twice more.

    Args:
        files: audio files, read in blocks, and course pickles.
        run: what predicts.
        window_seconds: how long a window is.
        hop_seconds: from one window's start to the next one's.

    Raises:
        SettingsError: a window holds less than a frame, or the hop less than a sample.
    """
    rate = run.features.sample_rate
    frame_seconds = run.features.n_fft / rate
    if not (math.isfinite(window_seconds) and round(window_seconds * rate) >= run.features.n_fft):
        raise SettingsError(
            f"window={window_seconds:g} s cannot be used: expected at least a frame, which "
            f"lasts {frame_seconds:g} s in this run. Give longer windows, such as 4 s."
        )
    if not (math.isfinite(hop_seconds) and round(hop_seconds * rate) >= 1):
        raise SettingsError(
            f"hop={hop_seconds:g} s cannot be used: expected at least a sample, which "
            f"lasts {1 / rate:g} s in this run. Give the seconds from one window to the next, such as 1."
        )
    window, hop = round(window_seconds * rate), round(hop_seconds * rate)
    return (row for path in files for row in _curves_of_file(path, run, window, hop))


# ---------------------------------------------------------------------------------------------------
# Work side by side
# ---------------------------------------------------------------------------------------------------


def _cores() -> int:
    return os.cpu_count() or 1


@contextmanager
def _executor(workers: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads, in each of which torch computes on that thread alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # holds for threads that start from now on
    executor = ThreadPoolExecutor(workers)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _in_parallel(make: Callable[[Taken], Made], items: Iterable[Taken], workers: int) -> Iterator[Made]:
    """`make` of each item, in order, by worker threads that are never far ahead of the caller."""
    with _executor(workers) as executor:
        ahead: deque[Future[Made]] = deque()
        for item in items:
            ahead.append(executor.submit(make, item))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


# ---------------------------------------------------------------------------------------------------
# Short files
# ---------------------------------------------------------------------------------------------------


def _refuse(error: ClipError) -> Waveform:
    raise error


def _clips_in(path: Path, sample_rate: int) -> Iterator[tuple[str, Callable[[], Waveform]]]:
    """Each clip of a file: how it is called, and what reads it or raises ClipError. A pickle may hold many."""
    if path.suffix.lower() not in PICKLE_SUFFIXES:
        yield str(path), partial(read_audio, path, sample_rate)
        return
    try:
        content = read_course_pickle(path)
    except ClipError as error:
        yield str(path), partial(_refuse, error)
        return
    for position, clip in enumerate(content):
        name = str(path) if len(content) == 1 else f"{path}#{position}"
        yield name, partial(course_waveform, clip, sample_rate)


def _predict_share(files: Sequence[Path], run: Run | Ensemble, most_frames: float) -> list[list[Prediction]]:
    """The predictions of each file's clips; no more spectrograms are held than so many frames and some clips."""
    found: list[list[Prediction]] = []
    places: list[tuple[list[Prediction], int, str]] = []  # of clips to be predicted, each with its speaker

    def usable() -> Iterator[Waveform]:
        for path in files:
            of_file: list[Prediction] = []
            found.append(of_file)
            for name, read in _clips_in(path, run.features.sample_rate):
                try:
                    waveform = read()
                    check_waveform(waveform, run.features.n_fft)
                except ClipError as error:
                    of_file.append(Prediction(name, None, error))
                    continue
                places.append((of_file, len(of_file), str(path.parent)))
                of_file.append(Prediction(name, None))
                yield waveform

    for waveforms in _within(usable(), most_frames * run.features.hop_length):
        of_these = places[: len(waveforms)]
        del places[: len(waveforms)]
        source, speakers = ClipFeatures(waveforms, run.features), [speaker for _, _, speaker in of_these]
        values = run.adapt(source, speakers).predict(source, speakers)
        for (of_file, place, _), value in zip(of_these, values.tolist(), strict=True):
            of_file[place] = Prediction(of_file[place].file, value)
    return found


def _within(waveforms: Iterable[Waveform], most_samples: float) -> Iterator[list[Waveform]]:
    """Successive waveforms, in lists that end once they hold so many samples."""
    held: list[Waveform] = []
    n_samples = 0
    for waveform in waveforms:
        held.append(waveform)
        n_samples += len(waveform)
        if n_samples >= most_samples:
            yield held
            held, n_samples = [], 0
    if held:
        yield held


# ---------------------------------------------------------------------------------------------------
# Long recordings
# ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stretch:
    """Successive windows of a recording, and the samples that they share.

    Args:
        start: of the samples within the recording.
        samples [shape=(n_samples,)]
        windows: where each begins and ends among the samples.
    """

    start: int
    samples: Waveform
    windows: list[tuple[int, int]]

    def cut(self) -> Iterator[Waveform]:
        """The windows one by one."""
        return (self.samples[begin:end] for begin, end in self.windows)


def _cut_stretches(
    blocks: Iterable[Waveform], window: int, hop: int, least: int, most_samples: int
) -> Iterator[_Stretch]:
    """The windows of a recording that comes in blocks; all that is held is one stretch and one block.

    Args:
        blocks: successive samples.
        window, hop: samples.
        least: samples without which the last window is left out; a recording's first window never is.
        most_samples: of a stretch, unless a single window has more.

    Raises:
        ClipError: what reading raises, after the windows that were whole before it.
    """
    many = min(_WINDOWS_PER_SHARE, 1 + max(0, most_samples - window) // hop)
    windows = [(number * hop, number * hop + window) for number in range(many)]
    start, held = 0, np.zeros(0, np.float32)  # where the next window begins, and the samples from there on
    to_skip = 0  # samples between two windows, where the hop is longer than the window
    try:
        for block in blocks:
            held = np.concatenate([held, block[to_skip:]])
            to_skip = max(0, to_skip - len(block))
            while len(held) >= windows[-1][1]:
                yield _Stretch(start, held[: windows[-1][1]], windows)
                start += many * hop
                to_skip = max(0, many * hop - len(held))
                held = held[many * hop :]
    except ClipError:
        if whole := [(begin, end) for begin, end in windows if end <= len(held)]:
            yield _Stretch(start, held, whole)
        raise
    rest = []
    begin = 0
    # The window before has not reached the end while samples follow it: those beyond `window - hop`.
    while start + begin == 0 or len(held) - begin > max(0, window - hop):
        end = min(begin + window, len(held))
        if end - begin >= least or start + begin == 0:
            rest.append((begin, end))
        begin += hop
    if rest:
        yield _Stretch(start, held, rest)


def _stretches_of(
    read: Callable[[], Iterable[Waveform]], run: Run | Ensemble, window: int, hop: int
) -> Iterator[_Stretch]:
    least, most = run.features.n_fft, _SECONDS_PER_SHARE * run.features.sample_rate
    return _cut_stretches(read(), window, hop, least, most)


def _curves_of_file(path: Path, run: Run | Ensemble, window: int, hop: int) -> Iterator[Prediction]:
    rate = run.features.sample_rate
    if path.suffix.lower() not in PICKLE_SUFFIXES:
        yield from _curve(str(path), partial(read_audio_blocks, path, rate), run, window, hop)
        return
    for name, read in _clips_in(path, rate):
        yield from _curve(name, partial(_as_one_block, read), run, window, hop)


def _as_one_block(read: Callable[[], Waveform]) -> Iterator[Waveform]:
    yield read()


def _curve(
    name: str, read: Callable[[], Iterable[Waveform]], run: Run | Ensemble, window: int, hop: int
) -> Iterator[Prediction]:
    """A recording's windows; `read` starts to read it from its beginning."""
    fitted = _fitted_to_recording(name, read, run, window, hop)
    damage: list[ClipError] = []
    transformed = (_transform(stretch, name, run) for stretch in _stretches_of(read, run, window, hop))
    predict = partial(_predict_stretch, run=fitted)
    # The caller transforms one stretch while a worker predicts the one before.
    for rows in _in_parallel(predict, _until_damage(transformed, damage), _WINDOW_WORKERS):
        yield from rows
    for error in damage:
        yield Prediction(name, None, error)


def _until_damage(found: Iterable[Made], damage: list[ClipError]) -> Iterator[Made]:
    """The same, except that a ClipError ends it and is put down in `damage`: what came before still counts."""
    try:
        yield from found
    except ClipError as error:
        damage.append(error)


def _fitted_to_recording(
    name: str, read: Callable[[], Iterable[Waveform]], run: Run | Ensemble, window: int, hop: int
) -> Run | Ensemble:
    """The run with the statistics of this recording, taken for one speaker's; only where it asks for any."""
    if not run.by_speaker:
        return run

    def usable() -> Iterator[Waveform]:
        for stretch in _until_damage(_stretches_of(read, run, window, hop), []):
            yield from (samples for samples in stretch.cut() if not _refusal(samples, run))

    count = sum(1 for _ in usable())
    if not count:
        return run
    return run.adapt(_Windows(usable, run), [name] * count)


@dataclass(frozen=True)
class _Windows:
    """The windows of a recording as a `runs.FeatureSource`, computed one by one each time that they are asked for."""

    read: Callable[[], Iterator[Waveform]]
    run: Run | Ensemble

    def of(self, streams: Sequence[str]) -> Iterator[Rows]:
        """See `runs.FeatureSource`."""
        for waveform in self.read():
            yield from ClipFeatures([waveform], self.run.features).of(streams)


_Transformed = tuple[list[Prediction], list[int], ClipFeatures]


def _transform(stretch: _Stretch, name: str, run: Run | Ensemble) -> _Transformed:
    """A row a window, still without valence; and which of them can have one, with the features of those.

    Raises:
        ClipError: the windows are one that is a whole recording and too short.
    """
    rate = run.features.sample_rate
    # What holds less than a frame is a whole recording, since no other window is let through.
    if stretch.windows[0][1] < run.features.n_fft:
        check_waveform(stretch.samples, run.features.n_fft)
    times = [((stretch.start + begin) / rate, (stretch.start + end) / rate) for begin, end in stretch.windows]
    rows = [Prediction(name, None, None, start, end) for start, end in times]
    usable = {place: samples for place, samples in enumerate(stretch.cut()) if not _refusal(samples, run)}
    source = ClipFeatures(list(usable.values()), run.features)
    source.of(run.streams)  # computed here, while the window before is predicted
    return rows, list(usable), source


def _predict_stretch(transformed: _Transformed, run: Run | Ensemble) -> list[Prediction]:
    rows, places, source = transformed
    values = run.predict(source, [rows[place].file for place in places])
    for place, value in zip(places, values.tolist(), strict=True):
        rows[place] = replace(rows[place], valence=value)
    return rows


def _refusal(samples: Waveform, run: Run | Ensemble) -> ClipError | None:
    try:
        check_waveform(samples, run.features.n_fft)
    except ClipError as error:
        return error
    return None
