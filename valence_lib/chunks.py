"""A corpus's clips shared out, some successive ones at a time, among processes of one thread each."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from threadpoolctl import threadpool_limits

from valence_lib.corpora import Corpus
from valence_lib.errors import WorkerError

CLIPS_PER_CHUNK = 256
_CHUNKS_AHEAD = 2  # that wait for each other process, so that none waits for this one
_at_work = threading.Lock()  # held while this process works on a chunk
Found = TypeVar("Found")


def in_chunks(
    corpus: Corpus, task: Callable[[Corpus, int], Found], workers: int | None, many_clips: int
) -> Generator[Found]:
    """What `task` finds in each chunk of a corpus, in the corpus's order.

    Args:
        task: called with some successive clips as a corpus of their own, and the index of the first of them; it and
            what it returns are sent between processes.
        workers: how many processes, this one among them; None takes one a core from `many_clips` clips on, from
            where other processes are worth the second that it takes to start them.

    Raises:
        WorkerError: one of the processes was ended from outside.
    """
    firsts = range(0, len(corpus), CLIPS_PER_CHUNK)
    if workers is None:
        workers = _n_cores() if len(corpus) >= many_clips else 1
    if min(workers, len(firsts)) <= 1:
        for first in firsts:
            yield _in_peace(task, corpus.cut(first, first + CLIPS_PER_CHUNK), first)
        return
    # Fresh interpreters: a fork would copy the locks of this process's threads as they happen to be.
    context = multiprocessing.get_context("spawn")
    # This process is one of the workers: it has begun while the others still start.
    others = min(workers, len(firsts)) - 1
    pool = ProcessPoolExecutor(others, context, initializer=_begin_worker)
    waiting = deque(firsts)
    begun: deque[Future[Found]] = deque()  # in the corpus's order, those of this process among them
    try:
        while waiting or begun:
            while waiting and sum(not future.done() for future in begun) < _CHUNKS_AHEAD * others:
                first = waiting.popleft()
                begun.append(pool.submit(_in_peace, task, corpus.cut(first, first + CLIPS_PER_CHUNK), first))
            if waiting and not begun[0].done():
                first = waiting.popleft()
                begun.append(Future())
                begun[-1].set_result(_in_peace(task, corpus.cut(first, first + CLIPS_PER_CHUNK), first))
            else:
                yield begun.popleft().result()
    except BrokenProcessPool as error:
        raise WorkerError(
            f"one of the {workers} processes that read the corpus {corpus.name!r} was ended from outside, most "
            "often because memory ran out. What they had finished is kept: close other programs, or give "
            "workers=1, and start again. (A script that calls this needs `if __name__ == '__main__':`.)"
        ) from error
    finally:
        # Waited for, though it takes a tenth of a second: a process that ends meanwhile would wait for its workers, and
        # they for a word that is no longer sent.
        pool.shutdown(cancel_futures=True)


def _in_peace(task: Callable[[Corpus, int], Found], corpus: Corpus, first: int) -> Found:
    with _at_work:
        return task(corpus, first)


def _n_cores() -> int:
    """Cores that this process may use, of which a cluster's scheduler may grant fewer than there are."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Not every Slurm cluster keeps a job to the cores that it was given.
    return min(free, int(os.environ.get("SLURM_CPUS_PER_TASK", free)))


def _begin_worker() -> None:
    # Ctrl-C reaches every process of the terminal: the parent calls off the chunks that are not begun.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)
    # Without the parent, a worker would wait for work for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    with _at_work:  # not in the middle of a file
        os._exit(1)
