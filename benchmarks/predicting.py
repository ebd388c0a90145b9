"""Prediction of many short files and of a long recording; time to start."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.timing import for_each, in_child, rates, speed_up, take_turns
from benchmarks.work import SETTINGS, our_log_mel
from valence_lib.corpora.waveforms import Waveform, read_audio
from valence_lib.features.standardise import Standardiser
from valence_lib.models.build import build_model
from valence_lib.registry import COURSE_MODELS, training_settings
from valence_lib.training.predicting import predict_files, predict_windows
from valence_lib.training.runs import Run


def untrained_run(model: str) -> Run:
    """A run with random weights: it predicts at the same speed as a trained one."""
    torch.manual_seed(0)
    mean, deviation = (np.full((1, SETTINGS.n_mels), value, np.float32) for value in (-40, 15))
    standardiser = Standardiser("train", ("train",), mean, deviation)
    settings = training_settings(model, "default", 0)
    return Run(SETTINGS, settings, build_model(model, (SETTINGS.n_mels,)).eval(), standardiser)


def _predict_all(files: Sequence[Path], run: Run) -> None:
    for_each(bool, predict_files(files, run))


def measure(waveforms: Sequence[Waveform], scratch: Path, cores: int, rounds: int) -> dict[str, Any]:
    """Files per second of each model on all cores, and of decoding and front end alone on one thread."""
    files = []
    for number, waveform in enumerate(waveforms):
        files.append(scratch / f"{number:04d}.flac")
        soundfile.write(files[-1], waveform, SETTINGS.sample_rate)
    functions: dict[str, Callable[[], None]] = {
        "decoding, one thread": lambda: for_each(lambda file: read_audio(file, SETTINGS.sample_rate), files),
        "front end, one thread": lambda: for_each(our_log_mel, waveforms),
    }
    stages = list(functions)
    for model in COURSE_MODELS:
        functions[model] = partial(_predict_all, files, untrained_run(model))
    seconds = take_turns(functions, rounds)
    slower = max(stages, key=lambda name: statistics.median(seconds[name]))
    return {
        "files": len(files),
        "cores": cores,
        "files_per_s": rates(seconds, len(files)),
        "slower_stage": slower,
        "share_of_slower_stage": {model: speed_up(seconds, model, slower) for model in COURSE_MODELS},
    }


def predict_recording(recording: Path, model: str) -> dict[str, float]:
    """Seconds for a valence curve along a recording, with windows of 4 s and a hop of 1 s."""
    run = untrained_run(model)
    started = time.perf_counter()
    windows = sum(1 for _ in predict_windows([recording], run, 4.0, 1.0))
    return {"seconds": round(time.perf_counter() - started, 1), "windows": windows}


def measure_recording(waveforms: Sequence[Waveform], scratch: Path, minutes: int) -> dict[str, Any]:
    """Time and peak memory of the curve along a long recording, by model."""
    n_samples = minutes * 60 * SETTINGS.sample_rate
    recording = scratch / "recording.wav"
    soundfile.write(recording, np.resize(np.concatenate(list(waveforms)), n_samples), SETTINGS.sample_rate)
    found: dict[str, Any] = {"minutes": minutes}
    for model in COURSE_MODELS:
        result, peak = in_child(predict_recording, recording, model)
        found[model] = result | {"peak_mb": round(peak)}
    return found


def measure_start(rounds: int) -> dict[str, float]:
    """Seconds until the command line prints its help, and to import the library."""
    commands = {
        "valence --help": ["-m", "valence_lib", "--help"],
        "import valence_lib": ["-c", "import valence_lib"],
    }
    functions = {
        name: lambda words=words: subprocess.run([sys.executable, *words], check=True, capture_output=True)
        for name, words in commands.items()
    }
    return {
        name: round(statistics.median(values), 3) for name, values in take_turns(functions, rounds).items()
    }
