"""Commands that start warm: one process a build imports once what all its notebooks need, and each is forked from it.

More than half of a small notebook's time went into starting Python twice, for papermill and for the kernel, and
into the same imports every time. `serving` keeps a warm process beside a build, and
`python -m valence_lib.warm_start COMMAND ...` does there what `python -m valence_lib COMMAND ...` does:

    caller ── arguments, environment, folder, files 0 to 2 ──► warm process ── fork ──► command ── fork ──► kernel
       ▲                                                                                  │
       └────────────────────────────────── exit status ◄──────────────────────────────────┘

The kernel is forked before the command begins, while there is one thread, and waits until it is needed. Whatever
way a process ends, those to its right end with it, and the command with its caller. Where no warm process
answers (another system than Linux, another machine), the calling process runs the command itself.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from valence_lib.files import temporary_folder

# One thread each: notebooks run side by side, sums then come out the same every time, and forks lose no thread.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
) | {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # of pyarrow, which comes with openSMILE
# What a kernel sets before anything in it can import matplotlib.
_AS_IN_A_KERNEL = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
_ADDRESS = "VALENCE_WARM_START"
_LONGEST_MESSAGE = 1 << 20  # bytes; more than the system lets a sender put into one message
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


def end_with_parent() -> None:
    """Let the system kill this process when the one that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


@contextmanager
def serving(modules: Sequence[str], folder: Path) -> Iterator[dict[str, str]]:
    """Keep a process that has imported `modules` while the block runs; gives what lets commands find it.

    Args:
        modules: none that finds out at its import whether it is in a notebook, since it is in none yet.
        folder: where it is started.

    Yields:
        Variables for the environment of those commands, a temporary folder among them; empty where they have to
        start cold.
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
        listening.listen()  # already now: whoever is early waits
        program = "from valence_lib.warm_start import _serve; _serve()"
        process = subprocess.Popen(
            [sys.executable, "-c", program, *modules],
            stdin=listening.fileno(),
            cwd=folder,
            env=os.environ | ONE_THREAD | _AS_IN_A_KERNEL | {"TMPDIR": private},
            preexec_fn=end_with_parent,
        )
        listening.close()  # so that nobody waits for a process that has ended
        try:
            # What anything leaves there when it is killed goes with the folder.
            yield {_ADDRESS: address, "TMPDIR": private}
        finally:
            process.kill()
            process.wait()


def _serve() -> None:
    """Import the modules named on the command line; fork a process for each who asks at the socket of file 0."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted build ends it
    for name in sys.argv[1:]:
        importlib.import_module(name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        sys.exit(
            f"valence: {threads} threads after the imports, expected 1; notebooks start cold, which is slower."
        )
    gc.collect()
    gc.freeze()  # forks share what they do not write to
    signal.signal(signal.SIGCHLD, _bury)
    listening = socket.socket(fileno=os.dup(0))
    while True:
        caller, _ = listening.accept()
        with caller:
            message, files, _, _ = socket.recv_fds(caller, _LONGEST_MESSAGE, 3)
            if message and os.fork() == 0:
                listening.close()
                _become_command(caller, files, json.loads(message))
            for file in files:
                os.close(file)


def _bury(*_: object) -> None:
    """Let go of the commands that have ended; each has told its status itself, and this adds its time to the build's."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _become_command(caller: socket.socket, files: list[int], asked: Mapping) -> NoReturn:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for own, given in enumerate(files):
        os.dup2(given, own)
        os.close(given)
    _take_over(asked)
    ForkedKernel.spare = ForkedKernel.fork(caller)
    caller.send(b"begun")
    threading.Thread(target=_end_with, args=(caller,), daemon=True).start()
    _end_like_python("valence_lib", asked["arguments"], lambda status: caller.send(bytes([status])))


def _end_with(caller: socket.socket) -> None:
    with suppress(ConnectionError):
        caller.recv(1)  # nothing comes: the other end is closed
    os.kill(os.getpid(), signal.SIGKILL)


def _take_over(asked: Mapping) -> None:
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])


def _end_like_python(
    module: str, arguments: Sequence[str], tell: Callable[[int], object] = lambda status: None
) -> NoReturn:
    """Do what `python -m MODULE ARGUMENTS` does, but for taking apart, at the end, what is imported."""
    sys.argv = [module, *arguments]
    status = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as asked:
        status = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with suppress(ConnectionError):
            tell(status)
        os._exit(status)


class ForkedKernel:
    """A process that waits to become a Jupyter kernel, and what `subprocess.Popen` offers of it to jupyter_client."""

    spare: "ForkedKernel | None" = None  # the one that this process's notebook can have
    stdin = stdout = stderr = None

    def __init__(self, pid: int, wanted: socket.socket):
        self.pid = pid
        self.returncode: int | None = None
        self._wanted = wanted

    @classmethod
    def fork(cls, caller: socket.socket) -> "ForkedKernel":
        """Fork one off this process; `caller` is closed in it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            caller.close()
            ours.close()
            _become_kernel(theirs)
        theirs.close()
        with suppress(PermissionError, ProcessLookupError):  # it has done so itself, or is gone
            os.setpgid(pid, pid)
        return cls(pid, ours)

    @classmethod
    def start(
        cls, command: Sequence[str], environment: Mapping[str, str], folder: str
    ) -> "ForkedKernel | None":
        """Let the spare one become what the command would start; None where there is none, or for another command."""
        launched, arguments = list(command[:3]), list(command[3:])
        if cls.spare is None or launched != [sys.executable, "-m", "ipykernel_launcher"]:
            return None
        kernel, cls.spare = cls.spare, None
        environment = {**environment, "JPY_PARENT_PID": str(os.getpid())}
        asked = {"arguments": arguments, "environment": environment, "folder": folder}
        with kernel._wanted:
            kernel._wanted.send(json.dumps(asked).encode())
        return kernel

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """Its exit status, once it has ended."""
        return self._wait(0)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _wait(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _become_kernel(wanted: socket.socket) -> NoReturn:
    # A group of its own, as any kernel's: an interrupt at the terminal is not for it, and jupyter_client
    # signals the whole group.
    os.setpgid(0, 0)
    end_with_parent()
    message = wanted.recv(_LONGEST_MESSAGE)
    wanted.close()
    if not message:
        os._exit(0)
    asked = json.loads(message)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    _take_over(asked)
    # papermill has brought it, and it finds out at its import whether it is in a notebook.
    for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
        del sys.modules[name]
    _end_like_python("ipykernel_launcher", asked["arguments"])


def _ask(arguments: Sequence[str]) -> int | None:
    """The exit status of a command that a fork of the warm process ran; None where there is no such process."""
    address = os.environ.get(_ADDRESS)
    if not address:
        return None
    environment = {name: value for name, value in os.environ.items() if name != _ADDRESS}
    asked = {"arguments": arguments, "environment": environment, "folder": str(Path.cwd())}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        try:
            server.connect(address)
            socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
            if not server.recv(5):
                return None
        except OSError:
            return None
        # Who interrupts this process at the terminal interrupts the command too, which says how it ended.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with suppress(ConnectionError):
            if status := server.recv(1):
                return status[0]
    print(
        f"valence: the process that ran {' '.join(arguments[:2])!r} was killed; expected it to end by itself. "
        "One that dies often lacked memory: run fewer at a time (JOBS=1).",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    status = _ask(sys.argv[1:])
    if status is None:
        runpy.run_module("valence_lib", run_name="__main__", alter_sys=True)
    sys.exit(status)
