"""Commands that start warm: forked from one process that has imported what all notebooks of a build need.

`serving` keeps such a process beside a build. `python -m valence_lib.workflow.forkserver COMMAND ...` then
does what `python -m valence_lib COMMAND ...` does, without the seconds that imports take:

    caller ── arguments, environment, folder, files ──► warm process ── fork ──► command ── fork ──► kernel
       ▲                                                                            │
       └────────────────────────────── exit status ◄────────────────────────────────┘

The kernel is forked before the command begins, since forks lose threads, and waits until it is needed. If a
process ends, those to its right end too, and a command ends with its caller. Without a warm process, as on
other systems than Linux, the calling process runs the command itself, and ends with the build.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn, Self

from valence_lib.files import temporary_folder

# One thread: notebooks run side by side, sums have the same order every time, and forks lose no thread.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
) | {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # of pyarrow, which openSMILE requires
# What a kernel sets before it imports anything.
_AS_IN_A_KERNEL = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
_ADDRESS = "VALENCE_WARM_START"
_BUILD = "VALENCE_BUILD_PROCESS"  # its process number
_LONGEST_MESSAGE = 1 << 20  # bytes; more than the system lets a sender put into one message
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


def end_with_parent(parent: int | None = None) -> None:
    """Let the system kill this process when its parent ends (Linux).

    Args:
        parent: the parent's process number, where known: if it has ended already, so does this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if parent not in {None, os.getppid()}:
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def serving(modules: Sequence[str], folder: Path) -> Iterator[dict[str, str]]:
    """Keep a process that has imported some modules while the block runs.

    Args:
        modules: none that finds out at its import whether it is in a notebook.
        folder: where the process starts.

    Yields:
        Variables for the environment of the commands; empty where they have to start cold.
    """
    if sys.platform != "linux":
        yield {}
        return
    with (
        temporary_folder() as private,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
    ):
        address = f"{private}/warm"
        listening.bind(address)
        listening.listen()  # commands that come before the imports are done wait
        process = subprocess.Popen(
            [sys.executable, "-c", "from valence_lib.workflow.forkserver import _serve; _serve()", *modules],
            stdin=listening.fileno(),
            cwd=folder,
            env=os.environ | ONE_THREAD | _AS_IN_A_KERNEL | {"TMPDIR": private},
            preexec_fn=partial(end_with_parent, os.getpid()),
        )
        listening.close()  # nobody waits for a process that has ended
        try:
            # Temporary files of killed jobs are removed with the folder.
            yield {_ADDRESS: address, _BUILD: str(os.getpid()), "TMPDIR": private}
        finally:
            process.kill()
            process.wait()


def _serve() -> None:
    """Import the modules of the command line; fork a process for each caller at the socket of file 0."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted build ends it
    for name in sys.argv[1:]:
        importlib.import_module(name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        sys.exit(
            f"valence: {threads} threads after the imports, expected 1; notebooks start cold, and slower."
        )
    gc.collect()
    gc.freeze()  # forks share the memory that they do not write to
    signal.signal(signal.SIGCHLD, _reap)
    listening = socket.socket(fileno=os.dup(0))
    warm = os.getpid()
    while True:
        caller, _ = listening.accept()
        with caller:
            message, files, _, _ = socket.recv_fds(caller, _LONGEST_MESSAGE, 3)
            if message and os.fork() == 0:
                end_with_parent(warm)
                listening.close()
                _become_command(caller, files, json.loads(message))
            for file in files:
                os.close(file)


def _reap(*_: object) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _become_command(caller: socket.socket, files: list[int], start: Mapping) -> NoReturn:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for own, given in enumerate(files):
        os.dup2(given, own)
        os.close(given)
    ForkedKernel.spare = ForkedKernel.fork(caller)
    caller.send(b"begun")
    threading.Thread(target=_end_with, args=(caller,), daemon=True).start()
    _run_module("valence_lib", start, lambda status: caller.send(bytes([status])))


def _end_with(caller: socket.socket) -> None:
    with suppress(ConnectionError):
        caller.recv(1)  # returns when the caller has closed its end
    os.kill(os.getpid(), signal.SIGKILL)


def _run_module(
    module: str, start: Mapping, report: Callable[[int], object] = lambda status: None
) -> NoReturn:
    """Do what `python -m MODULE ARGUMENTS` does, and end without taking the imported modules apart."""
    os.environ.clear()
    os.environ.update(start["environment"])
    os.chdir(start["folder"])
    sys.argv = [module, *start["arguments"]]
    status = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with suppress(ConnectionError):
            report(status)
        os._exit(status)


class ForkedKernel:
    """A process that waits to become a Jupyter kernel; jupyter_client takes it for a `subprocess.Popen`."""

    spare: "ForkedKernel | None" = None  # that of this process
    stdin = stdout = stderr = None

    def __init__(self, pid: int, start: socket.socket):
        self.pid = pid
        self.returncode: int | None = None
        self._start = start

    @classmethod
    def fork(cls, caller: socket.socket) -> Self:
        """Fork this process; in the child, `caller` is closed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = os.getpid()
        pid = os.fork()
        if pid == 0:
            end_with_parent(command)
            caller.close()
            ours.close()
            _become_kernel(theirs)
        theirs.close()
        with suppress(PermissionError, ProcessLookupError):  # the child has done so itself, or is gone
            os.setpgid(pid, pid)
        return cls(pid, ours)

    @classmethod
    def start(
        cls, command: Sequence[str], environment: Mapping[str, str], folder: str
    ) -> "ForkedKernel | None":
        """Let the spare process become the kernel; None where there is none, or for another command."""
        if cls.spare is None or list(command[:3]) != [sys.executable, "-m", "ipykernel_launcher"]:
            return None
        kernel, cls.spare = cls.spare, None
        environment = {**environment, "JPY_PARENT_PID": str(os.getpid())}
        start = {"arguments": list(command[3:]), "environment": environment, "folder": folder}
        with kernel._start:
            kernel._start.send(json.dumps(start).encode())
        return kernel

    def poll(self, options: int = os.WNOHANG) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int | None:
        """Its exit status, once it has ended."""
        return self.poll(0)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _become_kernel(start: socket.socket) -> NoReturn:
    # A process group of its own, as jupyter_client expects: an interrupt at the terminal does not reach it.
    os.setpgid(0, 0)
    message = start.recv(_LONGEST_MESSAGE)
    start.close()
    if not message:
        os._exit(0)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    # papermill has imported it, and it finds out at its import whether it is in a notebook.
    for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
        del sys.modules[name]
    _run_module("ipykernel_launcher", json.loads(message))


def _run_warm(arguments: Sequence[str]) -> int | None:
    """The exit status of a command that a fork of the warm process ran; None without such a process."""
    address = os.environ.pop(_ADDRESS, "")
    if not address:
        return None
    start = {"arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd())}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        try:
            server.connect(address)
            socket.send_fds(server, [json.dumps(start).encode()], [0, 1, 2])
            if not server.recv(5):
                return None
        except OSError:
            return None
        # An interrupt at the terminal reaches the command too, whose exit status is waited for.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with suppress(ConnectionError):
            if status := server.recv(1):
                return status[0]
    command = " ".join(arguments[:2])
    print(
        f"valence: the process of {command!r} was killed without an exit status (often out of memory); "
        "run fewer jobs at a time (JOBS=1).",
        file=sys.stderr,
    )
    return 1


def _end_with_build(build: int) -> None:
    """Let this process end when the build ends that started it (Linux 5.3 or newer)."""
    try:
        ended = os.pidfd_open(build)
    except ProcessLookupError:
        sys.exit("valence: the build that started this job has ended.")
    except OSError:
        return
    threading.Thread(target=_end_once, args=(ended,), daemon=True).start()


def _end_once(ended: int) -> None:
    select.select([ended], [], [])
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    build = os.environ.pop(_BUILD, "")
    status = _run_warm(sys.argv[1:])
    if status is None:
        if build:
            _end_with_build(int(build))
        runpy.run_module("valence_lib", run_name="__main__", alter_sys=True)
    sys.exit(status)
