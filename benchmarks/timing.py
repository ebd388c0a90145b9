"""How things are timed: in turns, A B A B, in one process; and what other processes take of memory."""

import math
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def side_by_side(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every way in every round, after one round that does not count.

    The ways take turns, so that a machine whose speed drifts slows all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def each(make: Callable[[Any], object], items: Iterable[Any]) -> None:
    """Do something with each item and keep nothing of it, as a program does that goes on with the next."""
    for item in items:
        make(item)


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest, to four digits."""
    rounded = [_rounded(value) for value in (statistics.median(values), min(values), max(values))]
    return dict(zip(("median", "low", "high"), rounded, strict=True))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def rates(seconds: Mapping[str, list[float]], units: float) -> dict[str, dict[str, float]]:
    """Units a second of every way."""
    return {name: spread([units / one for one in values]) for name, values in seconds.items()}


def ratio(seconds: Mapping[str, list[float]], ours: str, theirs: str) -> dict[str, float]:
    """How many times as fast ours is as theirs, pair by pair."""
    pairs = zip(seconds[theirs], seconds[ours], strict=True)
    return spread([their_seconds / our_seconds for their_seconds, our_seconds in pairs])


def exponent(sizes: list[int], values: list[float]) -> float:
    """The slope of log value over log size: 1 where cost grows in proportion to size."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    return _rounded(statistics.linear_regression(x, y).slope)


def in_child(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a function gives in a fresh process, and the peak resident set in MB of it or any below it.

    What the process takes after the function has returned does not count: CUDA's libraries touch nearly
    200 MB more as a process ends. Processes below it count if the function has waited for them.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(sender, function, arguments))
    child.start()
    sender.close()
    try:
        result, peak = receiver.recv()
    except EOFError:
        raise RuntimeError(f"the process that ran {function.__name__} ended without a result") from None
    child.join()
    return result, peak


def _send(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    result = function(*arguments)
    sender.send((result, _peak_mb()))


def _peak_mb() -> float:
    """Peak resident set in MB up to now of this process, or of any below it that was waited for."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    below = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    try:
        # On Linux, getrusage would also count what the parent held when it started this process.
        status = Path("/proc/self/status").read_text()
        own = float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 2**10
    except (OSError, StopIteration):
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return max(own, below)
