"""Reading, checking, features and writing: the whole pass over a corpus, by one process and by all cores."""

import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import each, in_child, side_by_side
from benchmarks.work import SETTINGS, Repeated
from valence_lib.features import log_mel
from valence_lib.inspection import inspect_corpus
from valence_lib.settings import (
    CorpusSettings,
)
from valence_lib.waveforms import Waveform

CLIPS = "clips.pickle"


def preprocess(folder: Path, count: int, store: Path, workers: int) -> dict[str, float]:
    """One pass over so many clips, in this process and its workers; the table of clips lies beside the shards then."""
    corpus = Repeated(folder, count)
    started = time.perf_counter()
    found = inspect_corpus(corpus, CorpusSettings(), SETTINGS, store, workers, progress=False)
    seconds = time.perf_counter() - started
    n_bytes = sum(path.stat().st_size for path in store.glob("*.npy"))
    found.clips.to_pickle(store / CLIPS)
    return {"seconds": seconds, "clips": len(found.clips) + len(found.quarantine), "bytes": n_bytes}


def measure(
    folder: Path, scratch: Path, sizes: tuple[int, int], workers: int, waveforms: Sequence[Waveform]
) -> dict[str, Any]:
    """Clips a second and peak memory of any process, for two sizes of corpus.

    Args:
        folder: of course pickles, read before, so that they lie in the file cache.
        sizes: how many clips.
        waveforms: for the rate of the front end alone on one thread, which is taken between the passes.
    """
    measured: dict[tuple[int, int], tuple[float, float]] = {}
    alone: list[float] = []
    for count in sizes:
        for n_processes in sorted({1, workers}):
            # The first pass, which does not count, fills the file cache.
            repeats = 2 if count == min(sizes) else 1
            for _ in range(repeats):
                alone += side_by_side(
                    {"": lambda: each(len, (log_mel(waveform, SETTINGS) for waveform in waveforms))}, 3
                )[""]
                result, peak = in_child(preprocess, folder, count, scratch / "store", n_processes)
                shutil.rmtree(scratch / "store")
            measured[count, n_processes] = result["clips"] / result["seconds"], peak
    small, large = sizes
    read = sum(path.stat().st_size for path in folder.rglob("*.pkl")) / sum(1 for _ in folder.rglob("*.pkl"))
    rate, front_end_rate = measured[large, workers][0], len(waveforms) / statistics.median(alone)
    return {
        "clips": list(sizes),
        "bytes_read_per_clip": round(read),
        "bytes_written_per_clip": round(result["bytes"] / result["clips"]),
        "processes": workers,
        "clips_per_s": round(rate),
        "clips_per_s_front_end_one_thread": round(front_end_rate),
        "clips_per_s_small": round(measured[small, workers][0]),
        "clips_per_s_one_process": round(measured[large, 1][0]),
        "share_of_front_end_on_all_cores": round(rate / (workers * front_end_rate), 3),
        "speed_up_of_processes": round(rate / measured[large, 1][0], 2),
        "peak_mb_10k": round(measured[small, workers][1]),
        "peak_mb_40k": round(measured[large, workers][1]),
    }
