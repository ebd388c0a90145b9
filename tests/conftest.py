"""Tiny corpora, made on the fly, and what several test files ask of them."""

import csv
import hashlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from toy import Voice


def _voice(seed: int, sample_rate: int = 8000, seconds: float = 0.5) -> NDArray[np.float32]:
    """A harmonic tone with a fade at both ends, the same function of time at every sample rate.

    Its highest partial lies below 2400 Hz, so that 8000 Hz carry all of it: what resampling must give
    is this function at the other rate.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    fundamental = rng.uniform(90, 300)
    partials = [np.sin(2 * np.pi * (fundamental * k * time + rng.uniform())) / k for k in range(1, 9)]
    fade = np.clip(np.minimum(time, seconds - time) / 0.1, 0, 1)
    return (rng.uniform(0.1, 0.3) * fade * np.sum(partials, axis=0)).astype(np.float32)


@pytest.fixture(scope="session")
def voice() -> Voice:
    """`voice(seed, sample_rate=8000, seconds=0.5)`: float32, mono, below full scale."""
    return _voice


@pytest.fixture
def write_pickle() -> Callable[[Path, Any], Path]:
    """`write_pickle(path, content)`, with its folder."""

    def write(path: Path, content: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(content))
        return path

    return write


@pytest.fixture
def write_table() -> Callable[[Path, Sequence[Mapping[str, object]]], Path]:
    """`write_table(path, rows)`: a CSV with the first row's keys as its columns, and its folder."""

    def write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


@pytest.fixture
def course_folder(tmp_path: Path, write_pickle: Callable[[Path, Any], Path]) -> Path:
    """Six rated training clips, as float32, float64, int16 and lists, and two test clips without rating."""
    folder = tmp_path / "course"
    stored = [
        _voice(0),
        _voice(1).astype(np.float64),
        (_voice(2) * 32768).astype(np.int16),
        _voice(3).tolist(),
        (_voice(4) * 32768).astype(np.int16).tolist(),
        _voice(5),
    ]
    for number, audio in enumerate(stored, start=1):
        content = {"audio_data": audio, "valence": 1 + 0.5 * number}
        write_pickle(folder / "train" / f"{number:05}.pkl", content)
    for number in (7, 8):
        write_pickle(folder / "test" / f"{number:05}.pkl", {"audio_data": _voice(number)})
    return folder


@pytest.fixture
def manifest_folder(
    tmp_path: Path, write_table: Callable[[Path, Sequence[Mapping[str, object]]], Path]
) -> Path:
    """labels.csv and six clips: WAV, FLAC and OGG at 44.1, 16 and 8 kHz, every second one stereo."""
    folder = tmp_path / "spoken"
    (folder / "audio").mkdir(parents=True)
    rows = []
    for seed, (suffix, sample_rate) in enumerate(
        [("wav", 44100), ("flac", 44100), ("ogg", 44100), ("wav", 16000), ("flac", 16000), ("wav", 8000)]
    ):
        samples = _voice(seed, sample_rate)
        if seed % 2:
            # The channels differ, and only their mean is the voice.
            samples = np.stack([1.5 * samples, 0.5 * samples], axis=1)
        name = f"audio/{seed}.{suffix}"
        soundfile.write(folder / name, samples, sample_rate)
        rows.append(
            {"file": name, "valence": 1 + 0.5 * seed, "speaker": f"S{seed // 2}", "language": "sines"}
        )
    write_table(folder / "labels.csv", rows)
    return folder


@pytest.fixture(scope="session")
def fingerprint() -> Callable[[Path], dict[str, tuple[int, str]]]:
    """`fingerprint(folder)`: each entry below it, with its modification time and its content's SHA-256."""

    def take(folder: Path) -> dict[str, tuple[int, str]]:
        return {
            str(path.relative_to(folder)): (
                path.stat().st_mtime_ns,
                hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder",
            )
            for path in sorted([folder, *folder.rglob("*")])
        }

    return take
