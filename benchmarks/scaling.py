"""Growth of time and memory with the corpus: preprocessing, an epoch, evaluation and the bootstrap."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.evaluation import bootstrap, evaluate
from benchmarks.preprocessing import CLIPS, preprocess
from benchmarks.timing import exponent, in_child
from benchmarks.training import new_loop
from benchmarks.work import SETTINGS
from valence_lib.preprocess.store import FeatureStore
from valence_lib.training.loop import TrainingData


def _epoch(store: Path) -> dict[str, float]:
    clips = pd.read_pickle(store / CLIPS)
    clips = clips.assign(rating=clips["rating"].fillna(3.0), speaker="")
    clips["subset"] = np.where(np.arange(len(clips)) % 10 == 0, "validation", "train")
    loop = new_loop(TrainingData(FeatureStore(store, clips, SETTINGS), clips), "LSTM1")
    started = time.perf_counter()
    loop.run_epoch(1)
    return {"seconds": time.perf_counter() - started}


def measure(folder: Path, scratch: Path, sizes: list[int], cores: int) -> dict[str, Any]:
    """Seconds and peak memory by stage and size, and the exponents of the growth of time."""
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, list[float]] = {}
    store = scratch / "store"
    in_child(preprocess, folder, sizes[0], store, cores)  # compiles code and fills the file cache
    for count in sizes:
        shutil.rmtree(store)
        stages: dict[str, tuple[Any, ...]] = {
            "preprocessing": (preprocess, folder, count, store, cores),
            "epoch": (_epoch, store),
            "evaluation": (evaluate, count),
            "bootstrap": (bootstrap, count),
        }
        for name, (function, *arguments) in stages.items():
            result, peak = in_child(function, *arguments)
            seconds.setdefault(name, []).append(float(f"{result['seconds']:.4g}"))
            peaks.setdefault(name, []).append(round(peak))
    shutil.rmtree(store)
    exponents = {name: exponent(sizes, values) for name, values in seconds.items()}
    return {"clips": sizes, "seconds": seconds, "peak_mb": peaks, "exponents": exponents}
