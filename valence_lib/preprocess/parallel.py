"""Work on a corpus's clips, shared out in chunks among processes of one thread each."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from valence_lib.corpora.sources import Corpus
from valence_lib.errors import WorkerError

CLIPS_PER_CHUNK = 256
_CHUNKS_AHEAD = 2  # that wait for each other process, so that none waits for this one
_at_work = threading.Lock()  # held while this process works on a chunk
Found = TypeVar("Found")


def in_chunks(
    corpus: Corpus,
    task: Callable[[Corpus, int], Found],
    workers: int | None,
    many_clips: int,
    progress: str,
) -> list[Found]:
    """The result of `task` for each chunk of a corpus, in order; this process is one of the workers.

    Args:
        task: called with some successive clips as a corpus of their own, and the index of the first of them.
            It and its result are sent between processes.
        workers: number of processes; None takes one a core from `many_clips` clips on.
        many_clips: from which on other processes are worth the second that it takes to start them.
        progress: title of the bar that is shown on standard error where that is a terminal; "" shows none.

    Raises:
        WorkerError: one of the processes was killed.
    """
    waiting = deque(range(0, len(corpus), CLIPS_PER_CHUNK))
    if workers is None:
        workers = _n_cores() if len(corpus) >= many_clips else 1
    n_others = min(workers, len(waiting)) - 1
    # Fresh interpreters: a fork would copy the locks of this process's threads as they happen to be.
    pool = ProcessPoolExecutor(max(n_others, 1), multiprocessing.get_context("spawn"), _begin_worker)
    begun: deque[Future[Found]] = deque()  # in the corpus's order, those of this process among them
    found: list[Found] = []
    hidden = not (progress and sys.stderr.isatty())

    def next_chunk() -> Callable[[], Found]:
        first = waiting.popleft()
        return partial(_work, task, corpus.cut(first, first + CLIPS_PER_CHUNK), first)

    try:
        with tqdm(total=len(corpus), desc=progress, unit=" clips", disable=hidden) as bar:
            while waiting or begun:
                while waiting and sum(not future.done() for future in begun) < _CHUNKS_AHEAD * n_others:
                    begun.append(pool.submit(next_chunk()))
                if waiting and not (begun and begun[0].done()):  # one of the workers is this process
                    begun.append(Future())
                    begun[-1].set_result(next_chunk()())
                else:
                    found.append(begun.popleft().result())
                    bar.update(min(CLIPS_PER_CHUNK, len(corpus) - bar.n))
    except BrokenProcessPool as error:
        raise WorkerError(
            f"one of the {workers} processes that read the corpus {corpus.name!r} was killed, most often "
            "because memory ran out. Finished chunks are kept: close other programs, or give workers=1, and "
            "start again. (A script that calls this needs `if __name__ == '__main__':`.)"
        ) from error
    finally:
        # Waits for the workers: a process that ends meanwhile and its workers would wait for each other.
        pool.shutdown(cancel_futures=True)
    return found


def _work(task: Callable[[Corpus, int], Found], corpus: Corpus, first: int) -> Found:
    with _at_work:
        return task(corpus, first)


def _n_cores() -> int:
    """Cores that this process may use; a cluster's scheduler may grant fewer than there are."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Not every Slurm cluster keeps a job to the cores that it was given.
    return min(free, int(os.environ.get("SLURM_CPUS_PER_TASK", free)))


def _begin_worker() -> None:
    # Ctrl-C reaches every process of the terminal; the parent cancels the chunks that wait.
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
