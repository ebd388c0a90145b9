"""Samples of every stored type become one waveform; others are refused with their reason."""

import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy import Voice

from valence_lib.corpora.waveforms import (
    check_waveform,
    read_audio,
    read_audio_blocks,
    resample,
    to_waveform,
)
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


def test_floats_beyond_full_scale_stay_and_so_do_the_samples_given():
    samples = np.array([1.25, -1.9, 1.0], np.float32)
    np.testing.assert_array_equal(to_waveform(samples), samples)
    to_waveform(samples)[:] = 0
    np.testing.assert_array_equal(samples, np.array([1.25, -1.9, 1.0], np.float32))


def test_opposite_channels_are_named_and_other_stereo_is_not(voice: Voice):
    left = voice(3)
    for opposite in (-left, -0.97 * left, -left + 1e-3 * voice(1)):
        error = refusal(to_waveform, np.stack([left, opposite], axis=1))
        assert error.reason == "channels cancel"
        assert "opposite phase" in str(error)
    integers = np.round(20_000 * left).astype(np.int16)
    assert refusal(to_waveform, np.stack([integers, -integers], axis=1)).reason == "channels cancel"
    for other in (left, np.zeros_like(left), -0.8 * left, voice(5), -left[::-1]):
        to_waveform(np.stack([left, other], axis=1))
    # Where the channels are silent as well, the clip is.
    quiet = np.stack([1e-5 * left, -1e-5 * left], axis=1)
    assert refusal(check_waveform, to_waveform(quiet), N_FFT).reason == "silent"


@pytest.mark.parametrize(
    "samples",
    [
        LARGE.astype(np.int32),
        np.array([-(2**23), 2**22], np.int32),
        np.array([1, -1], np.int32),
        np.array([120, 130], np.uint16),
        np.array([2**15, 2**15 + 900], np.uint32),
        np.array([0, 255, 128], np.int16),
        np.array([0, 255, 128]),
    ],
    ids=[
        "16 bits in 32",
        "24 in 32",
        "a bit in 32",
        "8 in 16",
        "16 in 32, unsigned",
        "8 in 16, signed",
        "list",
    ],
)
def test_integers_that_do_not_fill_their_type_are_on_a_wrong_scale(samples: np.ndarray):
    error = refusal(to_waveform, samples)
    assert error.reason == "wrong scale"
    assert f"are {samples.dtype} and lie between {samples.min()} and {samples.max()}" in str(error)
    assert "Store 16-bit audio as int16" in str(error)


@pytest.mark.parametrize(
    "samples",
    [
        np.array([2**23 + 1, 0], np.int32),
        np.array([-3, 200], np.int16),
        np.array([-3, 200]),
        np.zeros(3, np.int32),
        np.full(3, 200, np.int16),
    ],
    ids=["32 bits", "quiet", "quiet list", "silence", "constant"],
)
def test_quiet_16_bit_audio_and_full_32_bit_audio_are_on_the_right_scale(samples: np.ndarray):
    bits = {4: 32, 2: 16, 8: 16}[samples.dtype.itemsize]
    np.testing.assert_allclose(to_waveform(samples), samples / 2 ** (bits - 1))


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
        (np.array([-40000, 0]), "1.2207"),
        (np.array([0.1, 1e300]), "1e+300"),
    ],
    ids=["16-bit as floats", "just beyond", "list beyond 16 bits", "a little", "beyond float32"],
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


def test_resampling_keeps_an_overshoot(voice: Voice):
    loud = 1.5 * voice(1, 16000) / np.abs(voice(1, 16000)).max()
    assert np.abs(resample(loud, 16000, 8000)).max() == pytest.approx(1.5, abs=0.02)
    square = 1.5 * np.sign(np.sin(2 * np.pi * 100 * np.arange(16000) / 16000 + 0.1)).astype(np.float32)
    assert np.abs(resample(square, 16000, 8000)).max() == 1.5


# Files


def blocks_of(path: Path, sample_rate: int) -> np.ndarray:
    return np.concatenate(list(read_audio_blocks(path, sample_rate)))


@pytest.mark.parametrize("file_rate", [8000, 44100])
def test_blocks_together_are_the_whole(tmp_path: Path, voice: Voice, file_rate: int):
    path = tmp_path / "clip.wav"
    loud = 1.2 * np.concatenate([voice(n, file_rate) for n in range(4)])
    soundfile.write(path, np.stack([loud, 0.5 * loud], axis=1), file_rate, subtype="FLOAT")
    whole = read_audio(path, 8000)
    assert len(whole) == pytest.approx(len(loud) * 8000 / file_rate, abs=1)
    np.testing.assert_allclose(blocks_of(path, 8000), whole, atol=1e-6)


@pytest.mark.parametrize("file_format", ["MP3", "OGG"])
def test_blocks_of_a_compressed_file_have_no_gaps(tmp_path: Path, voice: Voice, file_format: str):
    path = tmp_path / "clip"
    soundfile.write(path, np.concatenate([voice(n, 16000) for n in range(8)]), 16000, format=file_format)
    np.testing.assert_allclose(blocks_of(path, 16000), read_audio(path, 16000), atol=1e-6)


def test_opposite_channels_are_named_after_the_last_block(tmp_path: Path, voice: Voice):
    path = tmp_path / "clip.wav"
    left = np.concatenate([voice(n) for n in range(4)])
    soundfile.write(path, np.stack([left, -left], axis=1), 8000)
    assert refusal(read_audio, path, 8000).reason == "channels cancel"
    blocks = read_audio_blocks(path, 8000)
    for _ in range(len(left) // 8000):
        assert np.abs(next(blocks)).max() < 1e-4
    assert refusal(list, blocks).reason == "channels cancel"
    # A pause of opposite noise does not matter.
    soundfile.write(path, np.stack([left, np.where(np.arange(len(left)) < 8000, -left, left)], axis=1), 8000)
    assert len(blocks_of(path, 8000)) == len(left)


@pytest.mark.parametrize(
    ("file_format", "subtype", "worst"),
    [
        *(("WAV", "PCM_16", 0), ("FLAC", "PCM_16", 0), ("CAF", "PCM_24", 0), ("W64", "FLOAT", 0)),
        *(("OGG", "VORBIS", 1e-6), ("OGG", "OPUS", 1e-6), ("MP3", "MPEG_LAYER_III", 1e-6)),
    ],
)
def test_a_segment_is_the_same_part_of_the_whole(
    tmp_path: Path, voice: Voice, file_format: str, subtype: str, worst: float
):
    path = tmp_path / "clip"
    soundfile.write(
        path, np.concatenate([voice(n, 16000) for n in range(8)]), 16000, format=file_format, subtype=subtype
    )
    whole = read_audio(path, 16000)
    for start, end in ((0, 0.5), (0.5, 1.25), (1.3, None), (2.0001, 3.0002), (0, None)):
        segment = read_audio(path, 16000, start, end)
        expected = whole[round(16000 * start) : None if end is None else round(16000 * end)]
        np.testing.assert_allclose(segment, expected, rtol=0, atol=worst)
    assert len(read_audio(path, 8000, 0.5, 1.25)) == 6000


def test_an_end_just_behind_the_recording_is_rounding_and_beyond_it_an_error(tmp_path: Path, voice: Voice):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.concatenate([voice(1), voice(2)])[:7999], 8000)
    for end in (1.0, 1.0001, 1.005):
        assert len(read_audio(path, 8000, 0.5, end)) == 3999
    for start, end in (
        (0.5, 1.1),
        (1.0, 2.0),
        (5, None),
        (0, 60),
        (-0.5, 0.5),
        (-1, None),
        (0, np.inf),
        (np.nan, 1),
    ):
        assert refusal(read_audio, path, 8000, start, end).reason == "segment outside"
    message = "the segment from 0.5 s to 1.1 s lies outside of its recording, which lasts 1.000 s."
    assert str(refusal(read_audio, path, 8000, 0.5, 1.1)) == message
    for start, end in ((0.5, 0.5), (0.5, 0.4)):
        assert refusal(read_audio, path, 8000, start, end).reason == "empty"


def test_16_bit_samples_in_a_file_of_32_bits_are_on_a_wrong_scale(tmp_path: Path, voice: Voice):
    path = tmp_path / "clip.wav"
    samples = np.round(20_000 * voice(1)).astype(np.int32)
    soundfile.write(path, samples, 8000, subtype="PCM_32")
    for read in (read_audio, blocks_of):
        error = refusal(read, path, 8000)
        assert error.reason == "wrong scale"
        assert f"32-bit integers and reach {np.abs(samples).max()}," in str(error)
    soundfile.write(path, samples << 16, 8000, subtype="PCM_32")
    np.testing.assert_allclose(read_audio(path, 8000), samples / 2**15, atol=1e-7)
    soundfile.write(path, np.zeros(8000), 8000, subtype="PCM_32")
    assert refusal(check_waveform, read_audio(path, 8000), N_FFT).reason == "silent"


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_bytes_in_memory_are_read_as_the_file(tmp_path: Path, voice: Voice, suffix: str):
    path = tmp_path / f"clip{suffix}"
    soundfile.write(path, np.concatenate([voice(n, 16000) for n in range(4)]), 16000)
    for segment in ((), (0.5, 1.25)):
        expected = read_audio(path, 8000, *segment)
        found = read_audio("elsewhere.wav", 8000, *(segment or (0.0, None)), content=path.read_bytes())
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("content", "problem"), [(b"", "it is empty (0 bytes)"), (b"this is no audio", "")])
def test_bytes_that_are_no_audio_are_called_by_the_name_that_is_given(content: bytes, problem: str):
    with pytest.raises(ClipError) as caught:
        read_audio("clip.wav", 8000, content=content)
    assert caught.value.reason == "unreadable"
    assert str(caught.value).startswith(f"'clip.wav' cannot be decoded: {problem}")


def test_a_name_that_is_not_utf_8_is_read_and_named(tmp_path: Path, voice: Voice):
    path = tmp_path / os.fsdecode(b"gl\xfcck.wav")
    with path.open("wb") as file:
        soundfile.write(file, voice(1), 8000, format="WAV", subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(path, 8000), voice(1))
    np.testing.assert_array_equal(blocks_of(path, 8000), voice(1))
    path.write_bytes(b"RIFF\0\1\2\3")
    assert r"'gl\xfcck.wav' cannot be decoded" in str(refusal(read_audio, path, 8000))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty (0 bytes)"),
        (b"<!DOCTYPE html>\n<html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer (git lfs pull"),
        (bytes(5000), "filled with zero bytes"),
    ],
)
def test_what_is_no_audio_is_called_what_it_is(tmp_path: Path, content: bytes, kind: str):
    (tmp_path / "clip.wav").write_bytes(content)
    for read in (read_audio, blocks_of):
        error = refusal(read, tmp_path / "clip.wav", 8000)
        assert error.reason == "unreadable"
        assert str(error).startswith(f"'clip.wav' cannot be decoded: it is {kind}")


@pytest.mark.parametrize("file_format", ["MAT4", "MAT5"])
@pytest.mark.parametrize("name", ["clip.mat", "clip.wav"])
def test_a_matlab_file_is_no_audio(tmp_path: Path, voice: Voice, file_format: str, name: str):
    soundfile.write(str(tmp_path / "clip.mat"), voice(1), 8000, format=file_format)
    path = (tmp_path / "clip.mat").rename(tmp_path / name)
    for read in (read_audio, blocks_of):
        error = refusal(read, path, 8000)
        assert error.reason == "unreadable"
        assert f"'{name}' cannot be decoded: it is a MATLAB file" in str(error)
        assert "audiowrite" in str(error)


def test_a_segment_beyond_a_truncated_mp3_is_outside(tmp_path: Path, voice: Voice):
    path = tmp_path / "clip.mp3"
    soundfile.write(path, np.concatenate([voice(n, 16000) for n in range(20)]), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(read_audio(path, 16000, 1, 4)) == pytest.approx(48_000, abs=160)
    for start, end in ((1, 7), (4.5, 6), (7, 8), (7, None)):
        error = refusal(read_audio, path, 16000, start, end)
        assert error.reason == "segment outside"
        assert "s are there, although its header declares 10.000 s: the file is truncated" in str(error)


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
    def read(*arguments, **options):
        raise MemoryError("Unable to allocate 256 GiB")

    soundfile.write(tmp_path / "clip.flac", np.zeros(9), 8000)
    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    assert refusal(read_audio, tmp_path / "clip.flac", 8000).reason == "unreadable"


@pytest.mark.parametrize("sample_rate", [8000, 44100])
def test_a_file_of_no_samples_is_empty(tmp_path: Path, sample_rate: int):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(0, np.float32), sample_rate)
    waveform = read_audio(path, 8000)
    assert refusal(check_waveform, waveform, N_FFT).reason == "empty"


# Formats that PyAV reads


def encode(path: Path, codec: str, rate: int, samples: np.ndarray) -> None:
    """Write samples [shape=(channels, n_samples)] with FFmpeg's encoder of that name."""
    av = pytest.importorskip("av")
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = layout
        if codec == "wmav2":
            stream.bit_rate = 128_000
        stream.codec_context.open()
        to_frames = av.AudioResampler(
            stream.codec_context.format, layout, rate, stream.codec_context.frame_size or 1024
        )
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for piece in (*to_frames.resample(frame), *to_frames.resample(None), None):
            container.mux(stream.encode(piece))


# Suffix, encoder, sample rate (Hz), least correlation with what was encoded.
ENCODED = [
    *((".m4a", "aac", 44100, 0.99), (".mp4", "aac", 48000, 0.99), (".mov", "alac", 16000, 0.9999)),
    *((".mkv", "pcm_s16le", 8000, 0.9999), (".webm", "libopus", 48000, 0.98), (".aac", "aac", 16000, 0.99)),
    *((".wma", "wmav2", 16000, 0.98), (".amr", "libopencore_amrnb", 8000, 0.6)),
    (".3gp", "libopencore_amrnb", 8000, 0.6),
]


def best_shift(found: np.ndarray, expected: np.ndarray, largest: int) -> tuple[int, float]:
    """By how many samples `found` comes later, and its correlation with `expected` then."""
    n = min(len(found), len(expected)) - 2 * largest
    middle = expected[largest:][:n]
    shifts = range(-largest, largest + 1)
    correlations = [np.corrcoef(found[largest + shift :][:n], middle)[0, 1] for shift in shifts]
    best = int(np.argmax(correlations))
    return shifts[best], correlations[best]


@pytest.mark.parametrize(("suffix", "codec", "rate", "similarity"), ENCODED)
def test_what_only_pyav_reads_is_the_sound_that_was_encoded(
    tmp_path: Path, voice: Voice, suffix: str, codec: str, rate: int, similarity: float
):
    path = tmp_path / f"clip{suffix}"
    encode(path, codec, rate, np.concatenate([voice(n, rate) for n in range(12)])[None])
    expected, waveform = np.concatenate([voice(n) for n in range(12)]), read_audio(path, 8000)
    assert waveform.dtype == np.float32
    assert len(waveform) == pytest.approx(len(expected), abs=1100)
    shift, correlation = best_shift(waveform, expected, 1100)
    assert correlation > similarity
    # These containers do not store the delay of the encoder.
    assert shift == 0 or suffix in (".aac", ".wma", ".amr", ".3gp")
    assert waveform.std() == pytest.approx(expected.std(), rel=0.1)
    np.testing.assert_allclose(blocks_of(path, 8000), waveform, atol=1e-5)
    assert max(len(block) for block in read_audio_blocks(path, 8000)) < 1.3 * 8000
    np.testing.assert_array_equal(read_audio("clip", 8000, content=path.read_bytes()), waveform)
    # A segment is found by seeking, in some containers to a millisecond.
    segment = read_audio(path, 8000, 4.2, 5.1)
    assert len(segment) == 7200
    shift, correlation = best_shift(segment, waveform[33_600:][:7200], 10)
    assert abs(shift) <= 8
    assert correlation > 0.99
    for start, end in ((3600, 3601), (7, None), (0.5, 7)):
        assert refusal(read_audio, path, 8000, start, end).reason == "segment outside"


def test_the_sound_of_a_renamed_file_and_of_stereo(tmp_path: Path, voice: Voice):
    left = voice(1, 16000)
    for right, expected in ((left, voice(1)), (np.zeros_like(left), voice(1) / 2)):
        encode(tmp_path / "clip.m4a", "alac", 16000, np.stack([left, right]))
        renamed = (tmp_path / "clip.m4a").rename(tmp_path / "clip.wav")
        np.testing.assert_allclose(read_audio(renamed, 8000), expected, atol=2e-3)
    encode(tmp_path / "clip.m4a", "alac", 16000, np.stack([left, -left]))
    assert refusal(read_audio, tmp_path / "clip.m4a", 8000).reason == "channels cancel"


@pytest.mark.parametrize("name", ["clip.m4a", "clip.wav"])
def test_without_pyav_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / name).write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom\0\0\0\0")
    for read in (read_audio, blocks_of):
        error = refusal(read, tmp_path / name, 8000)
        assert error.reason == "unreadable"
        assert f"{name!r} cannot be decoded: soundfile does not read its format. Install PyAV" in str(error)
        assert 'pip install ".[av]"' in str(error)
    # PyAV does not help with a damaged WAV.
    (tmp_path / "other.wav").write_bytes(b"RIFF\x10\0\0\0WAVE\1\2\3")
    assert "PyAV" not in str(refusal(read_audio, tmp_path / "other.wav", 8000))


def test_a_segment_beyond_what_pyav_finds_in_a_truncated_file_is_outside(tmp_path: Path, voice: Voice):
    path = tmp_path / "clip.mkv"
    encode(path, "pcm_s16le", 8000, np.concatenate([voice(n) for n in range(20)])[None])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(read_audio(path, 8000, 1, 4)) == 24_000
    for start, end in ((1, 7), (4.5, 6), (7, 8), (7, None)):
        error = refusal(read_audio, path, 8000, start, end)
        assert (error.reason, "the file is truncated" in str(error)) == ("segment outside", True)


@pytest.mark.parametrize("cut", [40, 2000, -2000])
def test_a_damaged_file_is_unreadable_or_shorter(tmp_path: Path, voice: Voice, cut: int):
    path = tmp_path / "clip.m4a"
    encode(path, "aac", 16000, np.stack([voice(1, 16000)]))
    path.write_bytes(path.read_bytes()[:cut])  # its table of contents is at the end
    assert refusal(read_audio, path, 8000).reason == "unreadable"


def test_a_video_without_sound_and_a_playlist_are_unreadable(tmp_path: Path, voice: Voice):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "silent.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))))
        container.mux(stream.encode(None))
    assert "holds no sound" in str(refusal(read_audio, tmp_path / "silent.mp4", 8000))
    # FFmpeg would read the file that it names.
    soundfile.write(tmp_path / "other.wav", voice(1), 8000)
    for content in ("#EXTM3U\n#EXTINF:1,\nother.wav\n", "ffconcat version 1.0\nfile other.wav\n"):
        (tmp_path / "list.m4a").write_bytes(content.encode() + b"\0\1")  # no text
        assert refusal(read_audio, tmp_path / "list.m4a", 8000).reason == "unreadable"


def test_random_bytes_are_no_sound(tmp_path: Path):
    for seed in range(5):
        content = np.random.default_rng(seed).integers(0, 256, 100_000, dtype=np.uint8).tobytes()
        (tmp_path / "clip.m4a").write_bytes(content)
        assert refusal(read_audio, tmp_path / "clip.m4a", 8000).reason == "unreadable"


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


def test_clipping_beyond_full_scale_is_at_the_peak(voice: Voice):
    loud = 1.6 * voice(1) / np.abs(voice(1)).max()
    assert (np.abs(loud) > 1).mean() > 0.01
    check_waveform(loud, N_FFT)
    error = refusal(check_waveform, np.clip(loud, -1.3, 1.3), N_FFT)
    assert error.reason == "clipped"
    assert "at the clip's peak, 1.3 of full scale" in str(error)


@pytest.mark.parametrize("level", [1.0, -0.5, 0.01])
def test_a_direct_current_is_constant(level: float):
    rng = np.random.default_rng(0)
    for rate in (8000, 44100):
        noise = 1e-5 * rng.standard_normal(2 * rate)
        waveform = resample((level + noise).astype(np.float32), rate, 8000)
        error = refusal(check_waveform, waveform, N_FFT)
        assert error.reason == "constant"
        assert f"about {level:.4g}" in str(error)


def test_speech_on_a_weak_direct_current_is_accepted_and_on_a_strong_one_not(voice: Voice):
    for offset in (0, 0.09, -0.09):
        check_waveform(voice(1) + np.float32(offset), N_FFT)
    for offset in (0.11, -0.11, 0.5):
        error = refusal(check_waveform, voice(1) / 4 + np.float32(offset), N_FFT)
        assert error.reason == "direct current"
        assert f"the mean of the samples is {offset:.3g} of full scale" in str(error)
        assert "Subtract the mean" in str(error)


def test_unsigned_audio_that_is_stored_as_another_type_is_a_direct_current(voice: Voice):
    level = voice(1) / np.abs(voice(1)).max()
    stored = {
        "floats in [0, 1]": (0.5 + 0.5 * level).astype(np.float32),
        "unsigned as signed": np.round(12_000 + 12_000 * level).astype(np.int16),
        "10 bits": np.round(512 + 500 * level).astype(np.uint16),
        "12 bits": np.round(2048 + 2000 * level).astype(np.uint16),
    }
    reasons = {
        kind: refusal(check_waveform, to_waveform(samples), N_FFT).reason for kind, samples in stored.items()
    }
    assert set(reasons.values()) == {"direct current"}
