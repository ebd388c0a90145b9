"""Preprocessing of a corpus (reading, checking, features, writing), by one process and by all cores."""

import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import for_each, in_child, take_turns
from benchmarks.work import SETTINGS, Repeated, our_log_mel
from valence_lib.corpora.waveforms import Waveform
from valence_lib.preprocess.inspection import inspect_corpus
from valence_lib.settings import CorpusSettings

CLIPS = "clips.pickle"  # the table of clips, next to the shards


def preprocess(folder: Path, count: int, store: Path, processes: int) -> dict[str, float]:
    """Preprocess some clips in this process and its workers, and write the table of clips."""
    corpus = Repeated(folder, range(count))
    started = time.perf_counter()
    found = inspect_corpus(corpus, CorpusSettings(), SETTINGS, store, processes, progress=False)
    seconds = time.perf_counter() - started
    n_bytes = sum(path.stat().st_size for path in store.glob("*.npy"))
    found.clips.to_pickle(store / CLIPS)
    return {"seconds": seconds, "clips": len(found.clips) + len(found.quarantine), "bytes": n_bytes}


def measure(
    folder: Path, scratch: Path, sizes: tuple[int, int], cores: int, waveforms: Sequence[Waveform]
) -> dict[str, Any]:
    """Clips per second and peak memory of any process, for two sizes of corpus.

    Args:
        folder: of course pickles.
        sizes: numbers of clips.
        waveforms: for the rate of the front end alone on one thread, measured between the passes.
    """
    measured: dict[tuple[int, int], tuple[float, float]] = {}
    alone: list[float] = []
    small, large = sizes
    for count in sizes:
        for processes in sorted({1, cores}):
            # A first pass, which does not count, fills the file cache.
            for _ in range(2 if count == small else 1):
                alone += take_turns({"": lambda: for_each(our_log_mel, waveforms)}, 3)[""]
                result, peak = in_child(preprocess, folder, count, scratch / "store", processes)
                shutil.rmtree(scratch / "store")
            measured[count, processes] = result["clips"] / result["seconds"], peak
    rate, front_end_rate = measured[large, cores][0], len(waveforms) / statistics.median(alone)
    return {
        "clips": list(sizes),
        "bytes_read_per_clip": round(statistics.mean(path.stat().st_size for path in folder.rglob("*.pkl"))),
        "bytes_written_per_clip": round(result["bytes"] / result["clips"]),
        "processes": cores,
        "clips_per_s": round(rate),
        "clips_per_s_front_end_one_thread": round(front_end_rate),
        "clips_per_s_small": round(measured[small, cores][0]),
        "clips_per_s_one_process": round(measured[large, 1][0]),
        "share_of_front_end_on_all_cores": round(rate / (cores * front_end_rate), 3),
        "speed_up_of_processes": round(rate / measured[large, 1][0], 2),
        "peak_mb_10k": round(measured[small, cores][1]),
        "peak_mb_40k": round(measured[large, cores][1]),
    }
