"""How time and memory grow with the corpus: preprocessing, an epoch, evaluation and the bootstrap."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.evaluation import bootstrap, evaluate
from benchmarks.preprocessing import CLIPS, preprocess
from benchmarks.timing import exponent, in_child
from benchmarks.training import _new_loop
from benchmarks.work import SETTINGS
from valence_lib.store import FeatureStore
from valence_lib.training import Material


def _epoch(store: Path) -> dict[str, float]:
    clips = pd.read_pickle(store / CLIPS)
    clips = clips.assign(valence=clips["valence"].fillna(3.0), speaker="")
    clips["part"] = np.where(np.arange(len(clips)) % 10 == 0, "validation", "train")
    loop = _new_loop(Material(FeatureStore(store, clips, SETTINGS), clips), "LSTM1")
    started = time.perf_counter()
    loop.run_epoch(1)
    return {"seconds": time.perf_counter() - started}


def measure(folder: Path, scratch: Path, sizes: list[int], workers: int) -> dict[str, Any]:
    """Seconds and peak memory by stage and size, and the exponents of their growth."""
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, list[float]] = {}
    in_child(preprocess, folder, sizes[0], scratch / "store", workers)  # compiled code and file cache
    for count in sizes:
        shutil.rmtree(scratch / "store", ignore_errors=True)
        stages = {
            "preprocessing": (preprocess, folder, count, scratch / "store", workers),
            "epoch": (_epoch, scratch / "store"),
            "evaluation": (evaluate, count),
            "bootstrap": (bootstrap, count),
        }
        for name, (function, *arguments) in stages.items():
            result, peak = in_child(function, *arguments)
            seconds.setdefault(name, []).append(float(f"{result['seconds']:.4g}"))
            peaks.setdefault(name, []).append(round(peak))
    shutil.rmtree(scratch / "store", ignore_errors=True)
    return {
        "clips": sizes,
        "seconds": seconds,
        "peak_mb": peaks,
        "exponents": {name: exponent(sizes, values) for name, values in seconds.items()},
    }
