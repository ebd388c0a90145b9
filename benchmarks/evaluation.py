"""Scores of many predictions and their intervals."""

import time

import numpy as np

from valence_lib.evaluation import Resampling, interval, score
from valence_lib.metrics import METRICS


def _ratings(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    truth = generator.uniform(1, 5, count)
    prediction = truth + generator.normal(0, 0.5, count)
    return truth, prediction


def evaluate(count: int) -> dict[str, float]:
    """Seconds that all metrics of so many predictions take."""
    truth, prediction = _ratings(count)
    started = time.perf_counter()
    for _ in range(20):
        [metric(truth, prediction) for metric in METRICS.values()]
    return {"seconds": (time.perf_counter() - started) / 20}


def bootstrap(count: int) -> dict[str, float]:
    """Seconds that all metrics with their intervals take."""
    truth, prediction = _ratings(count)
    started = time.perf_counter()
    resampling = Resampling(np.arange(count))  # no speakers are named: the dearest case
    score(truth, [prediction], resampling)
    interval(0.5, resampling.scores("ccc", truth, prediction), resampling.n_groups, "ccc")
    return {"seconds": time.perf_counter() - started}
