"""Predictions for files: many short clips, or a valence curve along a long recording.

Worker threads take shares of the files from reading to prediction; along a recording the caller reads and
transforms, and a worker predicts. Shares do not depend on the number of cores; therefore predictions do not.
"""

import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from operator import call
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from valence_lib.corpora.course import course_waveform
from valence_lib.corpora.file_kinds import AUDIO_SUFFIXES, PICKLE_SUFFIXES, is_clutter, name_text
from valence_lib.corpora.pickles import read_course_pickle
from valence_lib.corpora.waveforms import Waveform, check_waveform, read_audio, read_audio_blocks
from valence_lib.errors import ClipError, RunError, SettingsError
from valence_lib.features.streams import ClipFeatures, Rows
from valence_lib.settings import FeatureSettings
from valence_lib.training.runs import Ensemble, Run

_MOST_SHOWN = 8  # suffixes in a message
_FILES_PER_SHARE = 128
_FRAMES_AT_ONCE = 16_384  # of spectrograms that a worker holds before it predicts: 8 MB
_WINDOWS_PER_SHARE = 32
_SECONDS_PER_SHARE = 60  # with a large hop, a share has fewer windows

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prediction:
    """The valence of one clip or one window.

    Args:
        file: the path as given, followed by #position for a clip of a pickle that holds several. Bytes that
            are not UTF-8 are written as \\xNN.
        rating: in rating points; None where there is no prediction.
        error: why a clip or a recording cannot be used.
        start_seconds, end_seconds: of the window within its recording.
    """

    file: str
    rating: float | None
    error: ClipError | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None


def list_files(given: Sequence[Path], passed_over: Counter[str] | None = None) -> list[Path]:
    """The files as given, each folder replaced by the audio files and pickles below it, sorted.

    Hidden files and what operating systems leave in folders are no clips. Links to folders are not followed.

    Args:
        passed_over: counts the files in folders that are not listed, by their suffix.

    Raises:
        RunError: a folder holds none.
    """
    passed_over = Counter() if passed_over is None else passed_over
    listed: list[Path] = []
    for path in given:
        found = sorted(_clip_files(path, passed_over)) if path.is_dir() else [path]
        if not found:
            others = f" (but {list_counts(passed_over)})" if passed_over else ""
            raise RunError(
                f"the folder '{name_text(path)}' holds no audio file and no pickle{others}; expected files "
                "such as .wav, .flac, .mp3, .m4a or .pkl."
            )
        listed += found
    return listed


def list_counts(counts: Counter[str]) -> str:
    """Counted names as text, the most frequent first: "12 .txt, 3 hidden"."""
    shown = [f"{count:,} {name_text(name)}" for name, count in counts.most_common(_MOST_SHOWN)]
    n_more = counts.total() - sum(count for _, count in counts.most_common(_MOST_SHOWN))
    return ", ".join([*shown, *([f"{n_more:,} more"] if n_more else [])])


def _clip_files(folder: Path, passed_over: Counter[str]) -> Iterator[Path]:
    def count_folder(error: OSError) -> None:
        passed_over["unreadable folder"] += 1

    for place, folders, files in os.walk(folder, onerror=count_folder):
        if n_links := sum(Path(place, name).is_symlink() for name in folders):
            passed_over["linked folder"] += n_links
        inside = Path(place).relative_to(folder).parts
        for name in files:
            path = Path(place, name)
            if any(part.startswith(".") or is_clutter(part) for part in (*inside, name)):
                passed_over["hidden"] += 1
            elif path.suffix.lower() not in AUDIO_SUFFIXES | PICKLE_SUFFIXES:
                passed_over[path.suffix.lower() or "without a suffix"] += 1
            elif not path.is_file():
                passed_over["broken link"] += 1
            else:
                yield path


def predict_files(files: Sequence[Path], run: Run | Ensemble) -> Iterator[Prediction]:
    """The valence of each clip, in the order of the files; a clip that cannot be used has an error instead.

    A run that standardises by speaker takes each folder for one speaker, whose statistics come from all of
    the folder's clips given here; their spectrograms are then in memory together.

    Args:
        files: audio files and course pickles.
        run: as `load_run` returns it.
    """
    shares: dict[Path | int, list[int]] = {}
    for place, path in enumerate(files):
        key = path.parent if run.by_speaker else place // _FILES_PER_SHARE
        shares.setdefault(key, []).append(place)
    predict = partial(_predict_share, run=run, most_frames=math.inf if run.by_speaker else _FRAMES_AT_ONCE)
    files_of_shares = ([files[place] for place in share] for share in shares.values())
    found = _in_parallel(predict, files_of_shares, os.cpu_count() or 1)
    ready: dict[int, list[Prediction]] = {}
    following = 0
    for share, of_files in zip(shares.values(), found, strict=True):
        ready.update(zip(share, of_files, strict=True))
        while following in ready:
            yield from ready.pop(following)
            following += 1


def predict_windows(
    files: Sequence[Path], run: Run | Ensemble, window_seconds: float, hop_seconds: float = 1.0
) -> Iterator[Prediction]:
    """A valence curve along each recording: the predictions of sliding windows.

    The last window is the first that reaches the recording's end; it may be shorter, and is left out where it
    holds less than a frame. A window that `check_waveform` refuses, such as a silent one, has no valence. A
    recording that cannot be used has one row with its error, after the windows before the damage; so has one
    without any valence. A run that standardises by speaker takes its statistics from all windows of the
    recording.

    Args:
        files: audio files, read in blocks, and course pickles.
        run: as `load_run` returns it.
        window_seconds: length of a window.
        hop_seconds: from one window's start to the next one's.

    Raises:
        SettingsError: a window holds less than a frame, or the hop less than a sample.
    """
    rate, n_fft = run.features.sample_rate, run.features.n_fft
    if not (math.isfinite(window_seconds) and round(window_seconds * rate) >= n_fft):
        raise SettingsError(
            f"window={window_seconds:g} s cannot be used: expected at least a frame, which lasts "
            f"{n_fft / rate:g} s in this run. Give longer windows, such as 4 s."
        )
    if not (math.isfinite(hop_seconds) and round(hop_seconds * rate) >= 1):
        raise SettingsError(
            f"hop={hop_seconds:g} s cannot be used: expected at least a sample, which lasts {1 / rate:g} s "
            "in this run. Give the seconds from one window to the next, such as 1."
        )
    window, hop = round(window_seconds * rate), round(hop_seconds * rate)
    return (
        row
        for path in files
        for name, read in _blocks_in(path, rate)
        for row in _curve(name, read, run, window, hop)
    )


def _in_parallel(make: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """`make` of each item, in order, by threads that compute at most one item each ahead of the caller."""
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)  # for threads that start from now on
    executor = ThreadPoolExecutor(workers)
    try:
        ahead: deque[Future[Result]] = deque()
        for item in items:
            ahead.append(executor.submit(make, item))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(threads_before)


# Short files


def _refuse(error: ClipError) -> Waveform:
    raise error


def _clips_in(path: Path, sample_rate: int) -> Iterator[tuple[str, Callable[[], Waveform]]]:
    """The name of each clip of a file, and a function that reads it or raises ClipError."""
    name = name_text(path)
    if path.suffix.lower() not in PICKLE_SUFFIXES:
        yield name, partial(read_audio, path, sample_rate)
        return
    try:
        content = read_course_pickle(path)
    except ClipError as error:
        yield name, partial(_refuse, error)
        return
    for position, clip in enumerate(content):
        yield name if len(content) == 1 else f"{name}#{position}", partial(course_waveform, clip, sample_rate)


def _predict_share(files: Sequence[Path], run: Run | Ensemble, most_frames: float) -> list[list[Prediction]]:
    """The predictions of each file's clips; they are made once the clips that wait have so many frames."""
    found: list[list[Prediction]] = [[] for _ in files]
    # Where each prediction goes; speaker; clip.
    waiting: list[tuple[list[Prediction], int, str, Waveform]] = []
    n_samples = 0

    def predict_waiting() -> None:
        source = ClipFeatures([waveform for *_, waveform in waiting], run.features)
        speakers = [speaker for _, _, speaker, _ in waiting]
        values = run.adapt(source, speakers).predict_features(source, speakers).tolist()
        for (of_file, place, _, _), value in zip(waiting, values, strict=True):
            of_file[place] = replace(of_file[place], rating=value)
        waiting.clear()

    for path, of_file in zip(files, found, strict=True):
        for name, read in _clips_in(path, run.features.sample_rate):
            try:
                waveform = read()
                check_waveform(waveform, run.features.n_fft)
            except ClipError as error:
                of_file.append(Prediction(name, None, error))
                continue
            waiting.append((of_file, len(of_file), str(path.parent), waveform))
            of_file.append(Prediction(name, None))
            n_samples += len(waveform)
            if n_samples >= most_frames * run.features.hop_length:
                predict_waiting()
                n_samples = 0
    if waiting:
        predict_waiting()
    return found


# Long recordings

_Read = Callable[[], Iterator[Waveform]]  # reads a recording in blocks, from its beginning


def _blocks_in(path: Path, sample_rate: int) -> Iterator[tuple[str, _Read]]:
    """The name of each recording of a file, and a function that reads it."""
    if path.suffix.lower() not in PICKLE_SUFFIXES:
        yield name_text(path), partial(read_audio_blocks, path, sample_rate)
        return
    for name, read in _clips_in(path, sample_rate):
        yield name, partial(map, call, [read])  # one block


def _windows(blocks: Iterable[Waveform], window: int, hop: int, n_fft: int) -> Iterator[tuple[int, Waveform]]:
    """The start of each window within a recording, and its samples; a last one below `n_fft` is left out."""
    start, begin, held = 0, 0, np.zeros(0, np.float32)  # of the samples in memory, and of the next window
    for block in blocks:
        held = np.concatenate([held, block])
        while begin + window <= start + len(held):
            yield begin, held[begin - start :][:window]
            begin += hop
        dropped = min(begin - start, len(held))
        start, held = start + dropped, held[dropped:]
    if begin == 0:
        if len(held) < n_fft:
            check_waveform(held, n_fft)  # raises ClipError
        yield 0, held
        begin = hop
    # The window before has not reached the end while samples follow it.
    end = start + len(held)
    while begin - hop + window < end:
        if end - begin >= n_fft:
            yield begin, held[begin - start :]
        begin += hop


def _curve(name: str, read: _Read, run: Run | Ensemble, window: int, hop: int) -> Iterator[Prediction]:
    rate, n_fft = run.features.sample_rate, run.features.n_fft
    per_share = min(_WINDOWS_PER_SHARE, 1 + max(0, _SECONDS_PER_SHARE * rate - window) // hop)

    def windows(damage: list[ClipError]) -> Iterator[tuple[int, Waveform]]:
        try:
            yield from _windows(read(), window, hop, n_fft)
        except ClipError as error:
            damage.append(error)

    def usable() -> Iterator[Waveform]:
        return (samples for _, samples in windows([]) if _refusal(samples, n_fft) is None)

    def transform(share: Sequence[tuple[int, Waveform]]) -> tuple[list[Prediction], list[int], ClipFeatures]:
        times = [(start / rate, (start + len(samples)) / rate) for start, samples in share]
        rows = [Prediction(name, None, None, start, end) for start, end in times]
        refusals = [_refusal(samples, n_fft) for _, samples in share]
        places = [place for place, refusal in enumerate(refusals) if refusal is None]
        reasons.update(refusal.reason for refusal in refusals if refusal is not None)
        source = ClipFeatures([share[place][1] for place in places], run.features)
        source.of(run.streams)  # computed here, while the share before is predicted
        return rows, places, source

    def predict(transformed: tuple[list[Prediction], list[int], ClipFeatures]) -> list[Prediction]:
        rows, places, source = transformed
        values = adapted.predict_features(source, [name] * len(places)).tolist()
        for place, value in zip(places, values, strict=True):
            rows[place] = replace(rows[place], rating=value)
        return rows

    adapted = run
    if run.by_speaker and (count := sum(1 for _ in usable())):
        adapted = run.adapt(_OneByOne(usable, run.features), [name] * count)
    damage: list[ClipError] = []
    reasons: Counter[str] = Counter()  # of the windows without valence
    n_windows = 0
    following = windows(damage)
    shares = iter(lambda: list(islice(following, per_share)), [])
    # The caller transforms one share while a worker predicts the one before.
    for rows in _in_parallel(predict, map(transform, shares), 1):
        yield from rows
        n_windows += len(rows)
    if n_windows == reasons.total() and not damage:
        listed = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
        message = f"none of the {n_windows} windows has a valence ({listed})."
        damage = [ClipError(reasons.most_common(1)[0][0], message)]
    for error in damage:
        yield Prediction(name, None, error)


def _refusal(samples: Waveform, n_fft: int) -> ClipError | None:
    try:
        check_waveform(samples, n_fft)
    except ClipError as error:
        return error
    return None


@dataclass(frozen=True)
class _OneByOne:
    """A `runs.FeatureSource` of waveforms that computes their features one by one."""

    read: _Read
    settings: FeatureSettings

    def of(self, streams: Sequence[str]) -> Iterator[Rows]:
        for waveform in self.read():
            yield from ClipFeatures([waveform], self.settings).of(streams)
