"""Metrics and bootstrap of simulated predictions; without torch, since peak memory is measured."""

import time

import numpy as np

from valence_lib.evaluation.bootstrap import Resampling, interval, score
from valence_lib.evaluation.metrics import METRICS


def _ratings(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    truth = generator.uniform(1, 5, count)
    return truth, truth + generator.normal(0, 0.5, count)


def evaluate(count: int) -> dict[str, float]:
    """Seconds of all metrics."""
    truth, prediction = _ratings(count)
    started = time.perf_counter()
    for _ in range(20):
        [metric(truth, prediction) for metric in METRICS.values()]
    return {"seconds": (time.perf_counter() - started) / 20}


def bootstrap(count: int) -> dict[str, float]:
    """Seconds of all metrics with their intervals."""
    truth, prediction = _ratings(count)
    started = time.perf_counter()
    resampling = Resampling(np.arange(count))  # without speakers, which takes longest
    score(truth, prediction, resampling)
    interval(0.5, resampling.scores(truth, prediction)["ccc"], resampling.n_groups, "ccc")
    return {"seconds": time.perf_counter() - started}
