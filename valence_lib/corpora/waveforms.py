"""Stored samples -> a waveform: float32, mono, with a full scale of 1, at one sample rate, checked."""

import hashlib
import io
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valence_lib.corpora.file_kinds import PYAV_SUFFIXES, describe, name_text
from valence_lib.errors import ClipError

Waveform = NDArray[np.float32]

# Floating-point audio may exceed full scale, as after resampling or decoding; more means another scale.
_LARGEST_PEAK = 2.0
_SILENCE_PEAK = 1e-4  # -80 dB re full scale: three steps of 16-bit audio
_FULL_SCALE = 0.999
_LARGEST_CLIPPED_SHARE = 0.01
_LEAST_CONSTANT_SHARE = 0.99
_LARGEST_DIRECT_CURRENT = 0.1  # of full scale; that of real converters is far below 0.01
_CANCELLED = 0.05  # -26 dB: the level of the channels' mean re that of the channels

# libsndfile takes any matrix of a MATLAB file for audio, of 44,100 Hz where it finds no rate.
_NO_AUDIO_FORMATS = {"MAT4", "MAT5"}
_ROUNDING_SECONDS = 0.01  # tables round the times of segments
_LONGEST_BLOCK = 60  # seconds
# FFmpeg also reads playlists and scripts, which name other files. Only these formats are allowed.
_PYAV_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,flac,flv,matroska,mov,mp3,mpeg,mpegts,nistsphere,ogg,"
    "tta,w64,wav,wv"
)
_PYAV_CONTENT = re.compile(rb"....ftyp|\x1aE\xdf\xa3|0&\xb2u|#!AMR|\xff[\xf1\xf9]", re.DOTALL)
_PYAV_SEEKS_IN = re.compile("mov|matroska|asf")  # by time; in others by bytes, at an assumed bit rate
_SEEK_BEFORE = 1.0  # seconds, after which a decoder's output does not depend on where it began


def to_waveform(samples: NDArray[np.generic]) -> Waveform:
    """Samples of any real type as float32 with a full scale of 1.

    Args:
        samples [shape=(n_samples,) or (n_samples, channels)]: floats in [-1, 1], or integers, which
            are divided by their type's full scale; 64-bit integers, which is how numpy reads a Python
            list, count as 16-bit audio. Channels are averaged. Floats beyond [-1, 1] stay as they are.

    Raises:
        ClipError: "wrong type" for anything that is not such an array, "not finite" for NaN or
            infinite samples, "wrong scale" for floats beyond [-2, 2] and for integers that may be audio of
            fewer bits than their type has, "channels cancel" where the channels' mean is nearly silent.
    """
    downmix = _Downmix()
    waveform = downmix.add(samples)
    downmix.check()
    return waveform


class _Downmix:
    """The mean of a recording's channels, block by block, and how much they cancel each other."""

    def __init__(self) -> None:
        self._n_samples = 0
        self._power = self._power_of_mean = 0.0  # times the number of samples

    def add(self, samples: NDArray[np.generic]) -> Waveform:
        """The waveform of a block of samples; raises what `to_waveform` raises, except "channels cancel"."""
        samples = np.asarray(samples)
        if samples.dtype.kind not in "fiu" or samples.ndim not in (1, 2):
            raise ClipError(
                "wrong type",
                f"the audio is an array of {samples.dtype} with {samples.ndim} dimensions; expected real "
                "numbers in one dimension, or in two as (samples, channels).",
            )
        values = _floats(samples)
        mean = values if values.ndim == 1 else values.mean(axis=1)
        peak = _peak(mean)
        if not math.isfinite(peak):
            n_bad = int((~np.isfinite(mean)).sum())
            raise ClipError("not finite", f"{n_bad} of {mean.size} samples are NaN or infinite.")
        if peak > (_LARGEST_PEAK if samples.dtype.kind == "f" else 1.0):
            raise ClipError(
                "wrong scale",
                f"the samples reach {peak:.6g}; expected floating-point audio in [-1, 1]. "
                "Divide it by its full scale, or store it as 16-bit integers.",
            )
        if values.ndim == 2 and values.shape[1] > 1 and values.size:
            self._n_samples += len(values)
            # One by one, which takes an eighth of the time of values.var(axis=0).
            self._power += len(values) * float(np.mean([channel.var() for channel in values.T]))
            self._power_of_mean += len(values) * float(mean.var())
        return mean.astype(np.float32)  # a copy, which holds nothing of the file in memory

    def check(self) -> None:
        """Raise ClipError "channels cancel" where that is so in all blocks together."""
        audible = self._power > self._n_samples * _SILENCE_PEAK**2
        if audible and self._power_of_mean < _CANCELLED**2 * self._power:
            raise ClipError(
                "channels cancel",
                "the channels have opposite phase, so that their mean is nearly silent. Invert one of them, "
                "or store one channel alone.",
            )


def _floats(samples: NDArray[np.generic]) -> NDArray[np.floating]:
    if samples.dtype.kind == "f":
        # Single precision is exact for one channel that is stored in it.
        exact = np.float32 if samples.dtype == np.float32 and samples.ndim == 1 else np.float64
        return samples.astype(exact, copy=False)
    _check_bits(samples)
    full_scale = 2.0 ** ((16 if samples.dtype.itemsize == 8 else 8 * samples.dtype.itemsize) - 1)
    # Unsigned audio is centred on half of its range.
    return (samples.astype(np.float64) - full_scale * (samples.dtype.kind == "u")) / full_scale


def _check_bits(samples: NDArray[np.generic]) -> None:
    """Refuse integers that may as well be audio of fewer bits. Quiet 16-bit audio is common and accepted."""
    if not samples.size:
        return
    low, high = int(samples.min()), int(samples.max())
    largest = {"i4": 2**23, "u4": 2**24 - 1}.get(samples.dtype.str[1:], 0)
    is_uint8 = samples.dtype.itemsize > 1 and low >= 0 and high <= 255
    if (is_uint8 or max(-low, high) <= largest) and low != high:
        raise ClipError(
            "wrong scale",
            f"the samples are {samples.dtype} and lie between {low} and {high}, in a small part of that "
            "type's range: audio of fewer bits, or very quiet audio. Store 16-bit audio as int16 and 8-bit "
            "audio as uint8, or divide the samples by their full scale and store them as floats.",
        )


def _peak(values: NDArray[np.floating]) -> float:
    # NaN and infinity show in the extremes, which cost less than a look at every sample.
    return float(max(-values.min(initial=0.0), values.max(initial=0.0)))


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """The waveform at another sample rate (Hz), by soxr's high-quality band-limited resampler.

    It does not exceed full scale where the waveform does not.
    """
    if from_rate == to_rate:
        return waveform
    import soxr

    resampled = soxr.resample(waveform, from_rate, to_rate, quality="HQ")
    limit = max(1.0, _peak(waveform))
    return np.clip(resampled.astype(np.float32, copy=False), -limit, limit)


# Files


def read_audio(
    path: str | Path,
    sample_rate: int,
    start: float = 0.0,
    end: float | None = None,
    content: bytes | None = None,
) -> Waveform:
    """An audio file, or a segment of it, as a waveform.

    Formats that soundfile does not read, such as m4a, wma, webm, amr and the sound of mp4, are read by PyAV
    where it is installed (extra `av`).

    Args:
        sample_rate: Hz, of the waveform; the file may have any.
        start, end: of the segment, in seconds; None reads to the end of the file.
        content: the bytes of the file, where they are in memory; `path` is then its name in messages.

    Raises:
        ClipError: "unreadable" where there is no such file or no decoder reads it, "empty" where `end` is not
            after `start`, "segment outside" where the segment begins or ends outside of the recording, or
            behind what a truncated file still holds, and what `to_waveform` raises.
    """
    path = Path(path)
    segment = f"the segment from {start} s to {'the end' if end is None else f'{end} s'}"
    if not (0 <= start < math.inf and (end is None or math.isfinite(end))):
        raise ClipError("segment outside", f"{segment} cannot be read; expected seconds from 0 on.")
    if end is not None and end <= start:
        raise ClipError("empty", f"{segment} is empty; expected an end after its start.")
    with _decoding(path):
        blocks = list(_decode(path, _LONGEST_BLOCK, start, end, content))
    downmix = _Downmix()
    waveform = np.concatenate([downmix.add(samples) for _, samples in blocks])
    downmix.check()
    return resample(waveform, blocks[0][0], sample_rate)


def read_audio_blocks(path: Path, sample_rate: int) -> Iterator[Waveform]:
    """The waveform of `read_audio` in successive blocks of about a second, for recordings of any length.

    Raises:
        ClipError: as `read_audio`, at the block that cannot be used; "channels cancel" after the last block.
    """
    import soxr

    downmix, resampler, limit = _Downmix(), None, 1.0
    blocks = _decode(path, 1)
    while True:
        with _decoding(path):
            block = next(blocks, None)
        if block is None:
            break
        file_rate, samples = block
        waveform = downmix.add(samples)
        if file_rate != sample_rate:
            limit = max(limit, _peak(waveform))
            resampler = resampler or soxr.ResampleStream(file_rate, sample_rate, 1, "float32", "HQ")
            waveform = np.clip(resampler.resample_chunk(waveform), -limit, limit)
        yield waveform
    if resampler is not None:
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        yield np.clip(rest, -limit, limit)
    downmix.check()


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is decoded into a ClipError."""
    try:
        yield
    # A headerless format (.raw) is a TypeError, a damaged header that declares a huge file a MemoryError.
    except (RuntimeError, OSError, TypeError, ValueError, MemoryError) as error:
        message = f"'{name_text(path.name)}' cannot be decoded: {_problem(error)}"
        raise ClipError("unreadable", message) from error


def _problem(error: Exception) -> str:
    """What an error says, without the path that soundfile and the system add."""
    return getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)


def _decode(
    path: Path,
    block_seconds: int,
    start: float = 0.0,
    end: float | None = None,
    content: bytes | None = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The sample rate of a file (Hz) with each block of its samples [shape=(n_samples, channels)]."""
    import soundfile

    if content is None and not path.is_file():
        raise ClipError("unreadable", f"there is no file '{name_text(path.name)}'.")
    try:
        # The name as bytes, since soundfile encodes no names that are not UTF-8.
        file = soundfile.SoundFile(os.fsencode(path) if content is None else io.BytesIO(content))
    except (soundfile.LibsndfileError, TypeError) as error:
        if kind := describe(path) if content is None else "empty (0 bytes)" * (not content):
            raise RuntimeError(f"it is {kind}") from error
        yield from _decode_by_pyav(path, block_seconds, start, end, _problem(error), content)
        return
    with file:
        if file.format in _NO_AUDIO_FORMATS:
            raise RuntimeError(
                "it is a MATLAB file, whose matrices need not be audio. Write the audio as WAV, in MATLAB by "
                "audiowrite"
            )
        rate = file.samplerate
        first, last = round(start * rate), None if end is None else round(end * rate)
        if first or last is not None:
            _check_segment(first, last, file.frames, rate)
        # soundfile seeks after each read. In MP3, libsndfile gives zeros then for up to 0.3 s.
        overlap = round(_SEEK_BEFORE * rate) if file.format == "MP3" else 0
        block = block_seconds * rate
        position, n_read, peak = first, block, 0.0
        while n_read == block:
            before = min(position, overlap)
            if before or (first and position == first):
                file.seek(position - before)
            n_wanted = block if last is None else min(block, last - position)
            read = file.read(before + n_wanted, dtype="float32", always_2d=True)
            samples = read[before:]
            n_read = len(samples)
            position += len(read) - before  # in a truncated file, fewer than those before may come
            if file.subtype == "PCM_32":
                peak = max(peak, _peak(samples))
            yield rate, samples
        if first or last is not None:
            _check_segment(first, last, position, rate, file.frames)
    if 0 < peak <= 2**-16:
        raise ClipError(
            "wrong scale",
            f"the samples are 32-bit integers and reach {peak * 2**31:.0f}, in a small part of that type's "
            "range: 16-bit audio, or very quiet audio. Store 16-bit audio as 16-bit integers.",
        )


def _check_segment(first: int, last: int | None, n_samples: int, rate: int, n_declared: int = 0) -> None:
    """Refuse a segment that is not in a recording of so many samples; its header may declare more of them."""
    rounding = max(1, round(_ROUNDING_SECONDS * rate))
    if first >= n_samples or (last is not None and last > n_samples + rounding):
        ends = "its end" if last is None else f"{last / rate:g} s"
        lasts = f"which lasts {n_samples / rate:.3f} s."
        if n_declared > n_samples + rounding:
            lasts = (
                f"of which at most {n_samples / rate:.3f} s are there, although its header declares "
                f"{n_declared / rate:.3f} s: the file is truncated. Fetch it again, or remove the segment."
            )
        raise ClipError(
            "segment outside",
            f"the segment from {first / rate:g} s to {ends} lies outside of its recording, {lasts}",
        )


def _decode_by_pyav(
    path: Path, block_seconds: int, start: float, end: float | None, problem: str, content: bytes | None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """As `_decode`, for what soundfile does not read because of a `problem`."""
    file = path.open("rb") if content is None else io.BytesIO(content)
    try:
        import av
    except ImportError:
        with file:
            known = path.suffix.lower() in PYAV_SUFFIXES or _PYAV_CONTENT.match(file.read(16))
        if not known:
            raise RuntimeError(problem) from None
        raise RuntimeError(
            "soundfile does not read its format. Install PyAV, which reads m4a, aac, wma, webm, amr, 3gp and "
            'the sound of mp4 (pip install ".[av]"), or convert the file to WAV'
        ) from None
    options = {"format_whitelist": _PYAV_FORMATS, "protocol_whitelist": ""}
    try:
        with (
            file,
            av.open(file, container_options=options, metadata_errors="replace") as container,
        ):
            stream = container.streams.best("audio")
            if stream is None:
                raise RuntimeError("it holds no sound")
            yield from _pyav_blocks(container, stream, block_seconds, start, end)
    except av.FFmpegError as error:
        raise RuntimeError(error.strerror) from error


def _pyav_blocks(
    container: Any, stream: Any, block_seconds: int, start: float, end: float | None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    import av

    frames = container.decode(stream)
    frame: Any = next(frames, None)
    if frame is None:
        raise RuntimeError("it holds no sound")
    n_channels = frame.layout.nb_channels
    rate, tick, begin, position = frame.sample_rate, stream.time_base, frame.pts, 0
    first, last = round(start * rate), None if end is None else round(end * rate)
    if start > _SEEK_BEFORE and _PYAV_SEEKS_IN.match(container.format.name) and begin is not None:
        # Where an index is wrong, and behind the end of some containers, from the beginning.
        for target in (begin + int((start - _SEEK_BEFORE) / tick), begin):
            frame = None
            with suppress(av.FFmpegError):
                container.seek(target, stream=stream)
                frames = container.decode(stream)
                frame = next(frames, None)
            if frame is not None and frame.pts is not None:
                position = round((frame.pts - begin) * tick * rate)
                if position <= first:
                    break
        else:
            raise RuntimeError(f"no sound is found at {start:g} s")
    to_float = av.AudioResampler(format="fltp")  # the rate and the channels stay
    held: list[NDArray[np.float32]] = []
    n_held = 0
    for following in chain([frame], frames):
        for converted in to_float.resample(following):
            samples = np.asarray(converted.to_ndarray().T, np.float32)
            held.append(samples[max(0, first - position) : None if last is None else max(0, last - position)])
            n_held += len(held[-1])
            position += len(samples)
        if n_held >= block_seconds * rate:
            yield rate, np.concatenate(held)
            held, n_held = [], 0
        if last is not None and position >= last:
            break
    if first or last is not None:
        # The other formats' duration is estimated.
        has_duration = _PYAV_SEEKS_IN.match(container.format.name) and container.duration
        n_declared = round(container.duration / av.time_base * rate) if has_duration else 0
        _check_segment(first, last, position, rate, n_declared)
    yield rate, np.concatenate([*held, np.zeros((0, n_channels), np.float32)])


def digest(waveform: Waveform) -> str:
    """SHA-256 of the samples, 64 hexadecimal digits: the same for clips with the same audio."""
    return hashlib.sha256(np.ascontiguousarray(waveform).data).hexdigest()


def check_waveform(waveform: Waveform, n_fft: int) -> None:
    """Refuse a waveform that cannot carry a rating.

    Args:
        waveform [shape=(n_samples,)]
        n_fft: samples in a frame; a clip must fill one.

    Raises:
        ClipError: "empty", "too short", "silent" (peak below -80 dB re full scale), "constant" (99 % of
            the samples within -80 dB of one value other than 0), "direct current" (their mean is more than
            0.1 of full scale away from 0) or "clipped" (more than 1 % of the samples at
            full scale, or at the waveform's own peak where that exceeds full scale).
    """
    if waveform.size == 0:
        raise ClipError("empty", "the clip has no samples.")
    if waveform.size < n_fft:
        raise ClipError(
            "too short", f"the clip has {waveform.size} samples; expected a frame of {n_fft} or more."
        )
    peak = _peak(waveform)
    if peak < _SILENCE_PEAK:
        raise ClipError("silent", f"the clip's peak is {peak:.2g} of full scale.")
    # Speech varies about 0; a constant's resampled ends do not count.
    mean = float(waveform.mean())
    if abs(mean) > peak / 2:
        level = np.median(waveform)
        if (np.abs(waveform - level) < _SILENCE_PEAK).mean() >= _LEAST_CONSTANT_SHARE:
            raise ClipError(
                "constant",
                f"all samples are about {level:.4g} of full scale: a direct current without any sound.",
            )
    if abs(mean) > _LARGEST_DIRECT_CURRENT:
        raise ClipError(
            "direct current",
            f"the mean of the samples is {mean:.3g} of full scale; expected at most "
            f"{_LARGEST_DIRECT_CURRENT:g}. Unsigned audio that is stored as signed, or as floats in [0, 1], "
            "looks like this, and so does audio of 10 or 12 bits in uint16. Subtract the mean, and store "
            "floats in [-1, 1].",
        )
    clipped = float((np.abs(waveform) >= _FULL_SCALE * max(1.0, peak)).mean())
    if clipped > _LARGEST_CLIPPED_SHARE:
        at = "full scale" if peak <= 1 else f"the clip's peak, {peak:.4g} of full scale"
        raise ClipError(
            "clipped",
            f"{clipped:.1%} of the samples are at {at}; at most {_LARGEST_CLIPPED_SHARE:.0%} may be.",
        )
