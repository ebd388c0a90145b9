"""Stored samples -> a waveform: float32, mono, in [-1, 1], at one sample rate, checked."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from valence_lib.errors import ClipError

Waveform = NDArray[np.float32]

# Floating-point audio may overshoot full scale a little, as after resampling; more means another scale.
_LARGEST_OVERSHOOT = 2.0
_SILENCE_PEAK = 1e-4  # -80 dB re full scale: three steps of 16-bit audio
_FULL_SCALE = 0.999
_LARGEST_CLIPPED_SHARE = 0.01


def to_waveform(samples: NDArray[np.generic]) -> Waveform:
    """Samples of any real type as float32 in [-1, 1].

    Args:
        samples [shape=(n_samples,) or (n_samples, channels)]: floats in [-1, 1], or integers, which
            are divided by their type's full scale; 64-bit integers, which is how numpy reads a Python
            list, count as 16-bit audio. Channels are averaged.

    Raises:
        ClipError: "wrong type" for anything that is not such an array, "not finite" for NaN or
            infinite samples, "wrong scale" for samples far outside full scale.
    """
    samples = np.asarray(samples)
    if samples.dtype.kind not in "fiu" or samples.ndim not in (1, 2):
        raise ClipError(
            "wrong type",
            f"the audio is an array of {samples.dtype} with {samples.ndim} dimensions; expected real "
            "numbers in one dimension, or in two as (samples, channels).",
        )
    # Single precision is exact for one channel that is stored in it.
    exact = np.float32 if samples.dtype == np.float32 and samples.ndim == 1 else np.float64
    values: NDArray[np.floating] = samples.astype(exact, copy=False)
    if samples.dtype.kind in "iu":
        bits = 16 if samples.dtype.itemsize == 8 else 8 * samples.dtype.itemsize
        full_scale = 2.0 ** (bits - 1)
        # Unsigned audio is centred on half of its range.
        values = (values - full_scale * (samples.dtype.kind == "u")) / full_scale
    if values.ndim == 2:
        values = values.mean(axis=1)
    # NaN and infinity show in the extremes, which cost less than a look at every sample.
    peak = max(-values.min(initial=0.0), values.max(initial=0.0))
    if not math.isfinite(peak):
        n_bad = int((~np.isfinite(values)).sum())
        raise ClipError("not finite", f"{n_bad} of {values.size} samples are NaN or infinite.")
    if peak > _LARGEST_OVERSHOOT:
        raise ClipError(
            "wrong scale",
            f"the samples reach {peak:.6g}; expected floating-point audio in [-1, 1]. "
            "Divide it by its full scale, or store it as 16-bit integers.",
        )
    if peak > 1.0:
        values = np.clip(values, -1.0, 1.0)
    return values.astype(np.float32)  # a copy, which holds nothing of the file in memory


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """The waveform at another sample rate (Hz), by soxr's high-quality band-limited resampler."""
    if from_rate == to_rate:
        return waveform
    import soxr

    resampled = soxr.resample(waveform, from_rate, to_rate, quality="HQ")
    return np.clip(resampled.astype(np.float32, copy=False), -1.0, 1.0)


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is decoded into a ClipError."""
    try:
        if not path.is_file():
            raise ClipError("unreadable", f"there is no file {path.name!r}.")
        yield
    # A headerless format (.raw) is a TypeError, a damaged header that declares a huge file a MemoryError.
    except (RuntimeError, OSError, TypeError, MemoryError) as error:
        raise ClipError("unreadable", f"{path.name!r} cannot be decoded: {error}") from error


def read_audio(path: str | Path, sample_rate: int) -> Waveform:
    """An audio file of any format and rate that soundfile reads, as a waveform at `sample_rate` Hz.

    Raises:
        ClipError: "unreadable" where there is no such file or no decoder reads it, and what
            `to_waveform` raises.
    """
    import soundfile

    with _decoding(Path(path)):
        samples, file_rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(to_waveform(samples), file_rate, sample_rate)


def read_audio_blocks(path: Path, sample_rate: int) -> Iterator[Waveform]:
    """The waveform of `read_audio` in successive blocks of about a second, for recordings of any length.

    Raises:
        ClipError: as `read_audio`, at the block that cannot be used.
    """
    import soundfile
    import soxr

    with _decoding(path):
        file = soundfile.SoundFile(path)
    with file:
        resampler = None
        if file.samplerate != sample_rate:
            resampler = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32", quality="HQ")
        at_end = False
        while not at_end:
            with _decoding(path):
                samples = file.read(file.samplerate, dtype="float32", always_2d=True)
            at_end = len(samples) == 0
            waveform = to_waveform(samples)
            if resampler is not None:
                waveform = np.clip(resampler.resample_chunk(waveform, last=at_end), -1.0, 1.0)
            yield waveform


def digest(waveform: Waveform) -> str:
    """SHA-256 of the samples, 64 hexadecimal digits: the same for clips with the same audio."""
    return hashlib.sha256(np.ascontiguousarray(waveform).data).hexdigest()


def check_waveform(waveform: Waveform, n_fft: int) -> None:
    """Refuse a waveform that cannot carry a rating.

    Args:
        waveform [shape=(n_samples,)]
        n_fft: samples in a frame; a clip must fill one.

    Raises:
        ClipError: "empty", "too short", "silent" (peak below -80 dB re full scale) or "clipped"
            (more than 1 % of the samples at full scale).
    """
    if waveform.size == 0:
        raise ClipError("empty", "the clip has no samples.")
    if waveform.size < n_fft:
        raise ClipError(
            "too short", f"the clip has {waveform.size} samples; expected a frame of {n_fft} or more."
        )
    peak = abs(max(-waveform.min(), waveform.max()))
    if peak < _SILENCE_PEAK:
        raise ClipError("silent", f"the clip's peak is {peak:.2g} of full scale.")
    clipped = float((np.abs(waveform) >= _FULL_SCALE).mean())
    if clipped > _LARGEST_CLIPPED_SHARE:
        raise ClipError(
            "clipped",
            f"{clipped:.1%} of the samples are at full scale; at most {_LARGEST_CLIPPED_SHARE:.0%} may be.",
        )
