"""Samples of every stored type become one waveform; others are refused with their reason."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy import Voice

from valence_lib.corpora.waveforms import check_waveform, read_audio, resample, to_waveform
from valence_lib.errors import ClipError

N_FFT = 2048
LARGE = np.array([12, -8000, 32767], dtype=np.int64)


def refusal(action, *arguments) -> ClipError:
    with pytest.raises(ClipError) as caught:
        action(*arguments)
    return caught.value


# Types and scales


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([0.5, -0.25], np.float16), [0.5, -0.25]),
        (np.array([0.5, -0.25], np.float32), [0.5, -0.25]),
        (np.array([0.5, -0.25], np.float64), [0.5, -0.25]),
        (np.array([0.5, -0.25], ">f4"), [0.5, -0.25]),
        (np.array([127, -128, 0], np.int8), [127 / 128, -1, 0]),
        (np.array([32767, -32768, 0], np.int16), [32767 / 32768, -1, 0]),
        (np.array([16384, -8192], ">i2"), [0.5, -0.25]),
        (np.array([2**30, -(2**31)], np.int32), [0.5, -1]),
        (np.array([0, 128, 192], np.uint8), [-1, 0, 0.5]),
        (np.array([0, 2**15, 2**15 + 2**14], np.uint16), [-1, 0, 0.5]),
        ([16384, -8192], [0.5, -0.25]),
        ([0.5, -0.25], [0.5, -0.25]),
    ],
    ids=str,
)
def test_every_stored_type_comes_as_float32_in_full_scale(samples, expected: list[float]):
    waveform = to_waveform(samples)
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([[0.5, 0.25], [-0.5, 0.5]]), [0.375, 0.0]),
        (np.array([[16384, 0], [0, -16384]], np.int16), [0.25, -0.25]),
        (np.array([[0.1], [0.2]], np.float32), [0.1, 0.2]),
    ],
    ids=["stereo floats", "stereo integers", "one channel"],
)
def test_channels_are_averaged(samples: np.ndarray, expected: list[float]):
    np.testing.assert_allclose(to_waveform(samples), expected, atol=1e-7)


def test_a_small_overshoot_is_clipped_at_full_scale_and_the_samples_given_stay():
    samples = np.array([1.25, -1.9, 1.0], np.float32)
    np.testing.assert_array_equal(to_waveform(samples), [1, -1, 1])
    to_waveform(samples)[:] = 0
    np.testing.assert_array_equal(samples, np.array([1.25, -1.9, 1.0], np.float32))


@pytest.mark.parametrize(
    "samples",
    [
        np.array([1 + 2j]),
        np.array([True]),
        np.array(["a"]),
        np.array([None]),
        np.array(0.5),
        np.zeros((2, 3, 4)),
    ],
    ids=["complex", "bool", "text", "object", "0-D", "3-D"],
)
def test_what_is_no_audio_is_of_the_wrong_type(samples: np.ndarray):
    error = refusal(to_waveform, samples)
    assert error.reason == "wrong type"
    assert str(samples.dtype) in str(error)
    assert "expected real numbers" in str(error)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(50,), (25, 2)])
def test_nan_and_infinity_are_counted(bad: float, shape: tuple[int, ...]):
    samples = np.zeros(50)
    samples[[3, 9]] = bad
    error = refusal(to_waveform, samples.reshape(shape))
    assert error.reason == "not finite"
    assert str(error).startswith(f"2 of {shape[0]} samples")


@pytest.mark.parametrize(
    ("samples", "peak"),
    [
        (np.array([12.0, -8000.0]), "8000"),
        (np.array([0.1, -2.01]), "2.01"),
        (np.array([70000, 0]), "2.13623"),
        (np.array([0.1, 1e300]), "1e+300"),
    ],
    ids=["16-bit as floats", "just beyond", "list beyond 16 bits", "beyond float32"],
)
def test_audio_on_another_scale_is_refused_with_its_peak(samples: np.ndarray, peak: str):
    error = refusal(to_waveform, samples)
    assert error.reason == "wrong scale"
    assert f"reach {peak};" in str(error)


# Resampling


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(44100, 8000), (48000, 8000), (22050, 8000), (8000, 16000), (8000, 8000)]
)
def test_resampling_keeps_the_voice(voice: Voice, from_rate: int, to_rate: int):
    resampled = resample(voice(1, from_rate), from_rate, to_rate)
    assert resampled.dtype == np.float32
    np.testing.assert_allclose(resampled, voice(1, to_rate), atol=1e-3)


def test_resampling_does_not_overshoot_full_scale():
    square = np.sign(np.sin(2 * np.pi * 100 * np.arange(16000) / 16000 + 0.1)).astype(np.float32)
    assert np.abs(resample(square, 16000, 8000)).max() == 1.0


# Files


@pytest.mark.parametrize("name", ["nothing.wav", ".", "x" * 300 + ".wav"], ids=["no file", "folder", "long"])
def test_what_is_no_file_is_unreadable(tmp_path: Path, name: str):
    error = refusal(read_audio, tmp_path / name, 8000)
    assert (error.reason, "there is no file" in str(error)) == ("unreadable", name != "x" * 300 + ".wav")


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac", "clip.ogg", "clip.raw", "clip.xyz", "clip"])
@pytest.mark.parametrize("content", [b"", b"this is no audio", b"RIFF\xff\xff\xff\xffWAVEfmt "])
def test_a_file_without_audio_is_unreadable(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    error = refusal(read_audio, path, 8000)
    assert error.reason == "unreadable"
    assert name in str(error)


def test_a_header_that_declares_more_than_memory_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "clip.flac").write_bytes(b"fLaC")

    def read(*arguments, **options):
        raise MemoryError("Unable to allocate 256 GiB")

    monkeypatch.setattr(soundfile, "read", read)
    assert refusal(read_audio, tmp_path / "clip.flac", 8000).reason == "unreadable"


@pytest.mark.parametrize("sample_rate", [8000, 44100])
def test_a_file_of_no_samples_is_empty(tmp_path: Path, sample_rate: int):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(0, np.float32), sample_rate)
    waveform = read_audio(path, 8000)
    assert refusal(check_waveform, waveform, N_FFT).reason == "empty"


# What can carry a rating


def test_a_clip_must_fill_one_frame(voice: Voice):
    error = refusal(check_waveform, voice(7)[: N_FFT - 1], N_FFT)
    assert error.reason == "too short"
    assert str(error) == "the clip has 2047 samples; expected a frame of 2048 or more."
    check_waveform(voice(7)[:N_FFT], N_FFT)


def test_a_peak_below_80_db_is_silent():
    waveform = np.zeros(N_FFT, np.float32)
    for peak in (0.0, 9e-5):
        waveform[100] = -peak
        assert refusal(check_waveform, waveform, N_FFT).reason == "silent"
    waveform[100] = -1.1e-4
    check_waveform(waveform, N_FFT)


def test_more_than_one_sample_in_a_hundred_at_full_scale_is_clipped():
    waveform = np.full(10_000, 0.1, np.float32)
    waveform[:50], waveform[50:100] = 1.0, -1.0
    check_waveform(waveform, N_FFT)
    waveform[100] = 1.0
    error = refusal(check_waveform, waveform, N_FFT)
    assert error.reason == "clipped"
    assert "1.0% of the samples" in str(error)
