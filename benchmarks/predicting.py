"""Prediction of many short files and of an hour's recording; what it takes to start."""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.timing import each, in_child, rates, ratio, side_by_side
from benchmarks.work import SETTINGS
from valence_lib.features import Standardiser, log_mel
from valence_lib.models import build_model
from valence_lib.predicting import predict_files, predict_windows
from valence_lib.registry import COURSE_MODELS, training_settings
from valence_lib.runs import Run
from valence_lib.waveforms import Waveform, read_audio


def fresh_run(model: str) -> Run:
    """A run whose weights were never trained: it predicts at the same speed."""
    torch.manual_seed(0)
    mean, deviation = (
        np.full((1, SETTINGS.n_mels), -40, np.float32),
        np.full((1, SETTINGS.n_mels), 15, np.float32),
    )
    standardiser = Standardiser("train", ("train",), mean, deviation)
    settings = training_settings(model, "default", 0)
    return Run(SETTINGS, settings, build_model(model, (SETTINGS.n_mels,)).eval(), standardiser)


def measure(waveforms: Sequence[Waveform], scratch: Path, workers: int, rounds: int) -> dict[str, Any]:
    """Files a second of each model on all cores, and of decoding and the front end alone on as many."""
    files = []
    for number, waveform in enumerate(waveforms):
        files.append(scratch / f"{number:04d}.flac")
        soundfile.write(files[-1], waveform, SETTINGS.sample_rate)
    runs = {model: fresh_run(model) for model in COURSE_MODELS}
    ways = {
        "decoding, one thread": lambda: each(lambda file: read_audio(file, SETTINGS.sample_rate), files),
        "front end, one thread": lambda: each(len, (log_mel(waveform, SETTINGS) for waveform in waveforms)),
    } | {model: lambda run=run: each(bool, predict_files(files, run)) for model, run in runs.items()}
    seconds = side_by_side(ways, rounds)
    slower = max(list(ways)[:2], key=lambda name: statistics.median(seconds[name]))
    return {
        "files": len(files),
        "cores": workers,
        "files_per_s": rates(seconds, len(files)),
        "slower_stage": slower,
        "share_of_slower_stage": {model: ratio(seconds, model, slower) for model in COURSE_MODELS},
    }


def predict_recording(recording: Path, model: str) -> dict[str, float]:
    """Seconds that a valence curve along a recording takes, windows of 4 s every second."""
    run = fresh_run(model)
    started = time.perf_counter()
    windows = sum(1 for _ in predict_windows([recording], run, 4.0, 1.0))
    return {"seconds": time.perf_counter() - started, "windows": windows}


def measure_recording(waveforms: Sequence[Waveform], scratch: Path, minutes: int) -> dict[str, Any]:
    """Time and peak memory of the curve along a long recording, by model."""
    needed = minutes * 60 * SETTINGS.sample_rate
    speech = np.concatenate(list(waveforms))
    recording = scratch / "recording.wav"
    soundfile.write(recording, np.resize(speech, needed), SETTINGS.sample_rate)
    found: dict[str, Any] = {"minutes": minutes}
    for model in COURSE_MODELS:
        result, peak = in_child(predict_recording, recording, model)
        found[model] = {
            "seconds": round(result["seconds"], 1),
            "windows": result["windows"],
            "peak_mb": round(peak),
        }
    return found


def measure_start(rounds: int) -> dict[str, float]:
    """Seconds to the first word of the command line, and to import the library; the fastest, as a start has no pair."""
    commands = {
        "valence --help": ["-m", "valence_lib", "--help"],
        "import valence_lib": ["-c", "import valence_lib"],
    }
    ways = {
        name: lambda words=words: subprocess.run(
            [sys.executable, *words], check=True, stdout=subprocess.DEVNULL
        )
        for name, words in commands.items()
    }
    return {name: round(statistics.median(values), 3) for name, values in side_by_side(ways, rounds).items()}
