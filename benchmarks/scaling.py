"""How time and memory grow with the corpus: preprocessing, an epoch, evaluation and the bootstrap."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.timing import exponent, in_child
from benchmarks.training import _new_loop
from benchmarks.work import SETTINGS, Repeated
from valence_lib.evaluation import Resampling, interval, score
from valence_lib.inspection import inspect_corpus
from valence_lib.metrics import METRICS
from valence_lib.settings import CorpusSettings
from valence_lib.store import FeatureStore
from valence_lib.training import Material


def _preprocess(folder: Path, count: int, store: Path, workers: int) -> float:
    started = time.perf_counter()
    found = inspect_corpus(
        Repeated(folder, count), CorpusSettings(), SETTINGS, store, workers, progress=False
    )
    seconds = time.perf_counter() - started
    found.clips.to_pickle(store / "clips.pickle")
    return seconds


def _epoch(store: Path) -> float:
    clips = pd.read_pickle(store / "clips.pickle")
    clips = clips.assign(valence=clips["valence"].fillna(3.0), speaker="")
    clips["part"] = np.where(np.arange(len(clips)) % 10 == 0, "validation", "train")
    loop = _new_loop(Material(FeatureStore(store, clips, SETTINGS), clips), "LSTM1")
    started = time.perf_counter()
    loop.run_epoch(1)
    return time.perf_counter() - started


def _ratings(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    truth = generator.uniform(1, 5, count)
    prediction = truth + generator.normal(0, 0.5, count)
    return truth, prediction


def _evaluation(count: int) -> float:
    truth, prediction = _ratings(count)
    started = time.perf_counter()
    for _ in range(20):
        [metric(truth, prediction) for metric in METRICS.values()]
    return (time.perf_counter() - started) / 20


def _bootstrap(count: int) -> float:
    truth, prediction = _ratings(count)
    started = time.perf_counter()
    resampling = Resampling(np.arange(count))  # no speakers are named: the dearest case
    score(truth, [prediction], resampling)
    interval(resampling.scores("ccc", truth, prediction))
    return time.perf_counter() - started


def measure(folder: Path, scratch: Path, sizes: list[int], workers: int) -> dict[str, Any]:
    """Seconds and peak memory by stage and size, and the exponents of their growth."""
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, list[float]] = {}
    in_child(_preprocess, folder, sizes[0], scratch / "store", workers)  # compiled code and file cache
    for count in sizes:
        shutil.rmtree(scratch / "store", ignore_errors=True)
        stages = {
            "preprocessing": (_preprocess, folder, count, scratch / "store", workers),
            "epoch": (_epoch, scratch / "store"),
            "evaluation": (_evaluation, count),
            "bootstrap": (_bootstrap, count),
        }
        for name, (function, *arguments) in stages.items():
            taken, peak = in_child(function, *arguments)
            seconds.setdefault(name, []).append(float(f"{taken:.4g}"))
            peaks.setdefault(name, []).append(round(peak))
    shutil.rmtree(scratch / "store", ignore_errors=True)
    return {
        "clips": sizes,
        "seconds": seconds,
        "peak_mb": peaks,
        "exponents": {name: exponent(sizes, values) for name, values in seconds.items()},
    }
