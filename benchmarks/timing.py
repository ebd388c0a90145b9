"""Times of functions that take turns in one process, and peak memory of other processes."""

import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def take_turns(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every function in every round, after a round of warm-up that does not count.

    The functions take turns (A B A B), so that changes in the speed of the machine affect all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, run in functions.items():
            started = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def for_each(function: Callable[[Any], object], items: Iterable[Any]) -> None:
    """Call a function with each item, and discard what it returns."""
    for item in items:
        function(item)


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest value, to four digits."""
    summary = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: _rounded(value) for name, value in summary.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def rates(seconds: Mapping[str, list[float]], units: float) -> dict[str, dict[str, float]]:
    """Units per second of every function."""
    return {name: spread([units / one for one in values]) for name, values in seconds.items()}


def speed_up(seconds: Mapping[str, list[float]], ours: str, theirs: str) -> dict[str, float]:
    """Seconds of `theirs` divided by seconds of `ours`, paired by round."""
    pairs = zip(seconds[theirs], seconds[ours], strict=True)
    return spread([their_seconds / our_seconds for their_seconds, our_seconds in pairs])


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of log value over log size: 1 where cost grows in proportion to size."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    return _rounded(statistics.linear_regression(x, y).slope)


def in_child(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Call a function in a fresh process.

    Returns:
        What it returns, and the peak resident set in MB of the process or of any child that it waited for.
        Memory that is taken after the function has returned (by CUDA's libraries, for instance) does not
        count.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_with_peak, function, arguments).result()


def _with_peak(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float]:
    result = function(*arguments)
    return result, _peak_mb()


def _peak_mb() -> float:
    """Peak resident set in MB of this process, or of any child that it waited for."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    status = Path("/proc/self/status")
    if not status.is_file():
        return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, children)
    # On Linux, getrusage would also count the memory of the parent at the start of this process.
    own = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return max(float(own) / 2**10, children)
