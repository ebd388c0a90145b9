"""Made-up sound for miniatures of published corpora."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

MakeWav = Callable[..., Path]


@pytest.fixture
def make_wav() -> MakeWav:
    """`make_wav(path, seconds=0.5, rate=16000)`: a quiet sine wave whose pitch depends on the file's name.

    Folders that are missing are made.
    """

    def make(path: Path, seconds: float = 0.5, rate: int = 16000) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(round(seconds * rate)) / rate
        frequency = 100 + zlib.crc32(path.name.encode()) % 1000
        soundfile.write(path, (0.1 * np.sin(2 * np.pi * frequency * time)).astype(np.float32), rate)
        return path

    return make
