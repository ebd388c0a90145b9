"""Commands forked from a warm process: they do what cold ones do, and end with their callers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pytest
from small_notebook import small_notebook

import valence_lib
from valence_lib.workflow import forkserver
from valence_lib.workflow.forkserver import ForkedKernel, serving

ROOT = Path(__file__).parents[2]
VERSION = f"{valence_lib.__version__}\n"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands start cold elsewhere")


@pytest.fixture(scope="module")
def warm():
    """Variables by which commands find a process that has imported what is slow."""
    with serving(["papermill", "ipykernel.kernelapp", "matplotlib.pyplot"], ROOT) as found:
        yield found


def _start(found, *arguments, **options):
    command = [sys.executable, "-m", "valence_lib.workflow.forkserver", *map(str, arguments)]
    return subprocess.Popen(command, text=True, env=os.environ | found, **{"cwd": ROOT, **options})


def _run(found, *arguments, **options):
    piped = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with _start(found, *arguments, **piped, **options) as process:
        out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def _parent(pid):
    """The parent of a process; None where the process is gone, or a zombie."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


def _wait_until(met):
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_warm_notebook_has_the_bytes_of_a_cold_one(warm, tmp_path):
    notebook = small_notebook(
        tmp_path / "x.ipynb",
        "import os, sys\nfrom pathlib import Path\nprint(seed, Path.cwd().name, sys.argv[0][-9:], sys.path)",
        "print(sorted(os.environ), os.environ['GIVEN'], file=sys.stderr)",
        "import matplotlib, tqdm.auto as t\n(matplotlib.get_backend(), t.tqdm.__mro__[1].__module__)",
        "os.getpgrp() == os.getpid()",
    )
    written = []
    for name, found in (("warm", warm), ("cold", {})):
        destination = tmp_path / f"{name}.ipynb"
        found = found | {"GIVEN": "by the caller", "TMPDIR": "/tmp"}
        assert _run(found, "notebook", notebook, destination, "-p", "seed", "7") == (0, "", "")
        written.append(destination.read_bytes())
    assert written[0] == written[1]
    shown = nbformat.reads(written[0].decode(), 4).cells
    assert shown[2].outputs[0].text.startswith(f"7 {tmp_path.name} ")
    assert "by the caller" in shown[3].outputs[0].text
    assert shown[4].outputs[0].data["text/plain"] == str(
        ("module://matplotlib_inline.backend_inline", "tqdm.notebook")
    )
    assert shown[5].outputs[0].data["text/plain"] == "True"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--version"], 0),
        ([], 2),
        (["report", "--preset", "sede"], 2),
        (["notebook", "no.ipynb", "x.ipynb"], 1),
    ],
)
def test_status_and_output_are_those_of_the_command(warm, tmp_path, arguments, status):
    # The folder is that of the caller, not of the warm process.
    environment = {"PYTHONPATH": str(ROOT)}
    found = _run(warm | environment, *arguments, cwd=tmp_path)
    assert found == _run(environment, *arguments, cwd=tmp_path)
    assert found[0] == status
    assert any(found[1:])


def test_a_killed_kernel_fails_its_notebook(warm, tmp_path):
    notebook = small_notebook(tmp_path / "x.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    status, _, err = _run(warm, "notebook", notebook, tmp_path / "out.ipynb")
    assert status == 1
    assert "the kernel of x.ipynb was killed in code cell" in err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.failed.ipynb", "x.ipynb"]


@pytest.fixture
def running(tmp_path):
    """Starts a notebook that never ends; returns its caller, and the numbers of command and kernel."""
    source = "import os, time\nfrom pathlib import Path\nPath('part').write_text(str(os.getpid()))\n"
    source += "Path('part').rename('reached')\ntime.sleep(600)"
    notebook = small_notebook(tmp_path / "x.ipynb", source)
    callers = []

    def start(found):
        caller = _start(found, "notebook", notebook, tmp_path / "out.ipynb", stderr=subprocess.PIPE)
        callers.append(caller)
        _wait_until((tmp_path / "reached").exists)
        kernel = int((tmp_path / "reached").read_text())
        return caller, _parent(kernel), kernel

    yield start
    for caller in callers:
        caller.kill()
        caller.communicate()


def test_command_and_kernel_end_with_the_caller(warm, running, tmp_path):
    caller, command, kernel = running(warm)
    assert caller.pid != command
    caller.kill()
    _wait_until(lambda: _parent(command) is None and _parent(kernel) is None)
    assert not (tmp_path / "out.ipynb").exists()
    assert _run(warm, "--version")[0] == 0


@pytest.mark.parametrize("killed", ["command", "warm process"])
def test_a_caller_reports_that_its_command_was_killed(running, killed):
    with serving(["papermill"], ROOT) as found:
        caller, command, kernel = running(found)
        os.kill(command if killed == "command" else _parent(command), signal.SIGKILL)
        printed = caller.communicate(timeout=60)[1]
        assert caller.returncode == 1
        assert "valence: the process of 'notebook " in printed
        assert "was killed without an exit status (often out of memory)" in printed
        _wait_until(lambda: _parent(command) is None and _parent(kernel) is None)


def test_a_cold_command_ends_with_the_build(running, tmp_path):
    # The warm process may have ended with the build before the command asks for it.
    build = subprocess.Popen(["sleep", "600"])
    found = {"VALENCE_WARM_START": str(tmp_path / "nowhere"), "VALENCE_BUILD_PROCESS": str(build.pid)}
    command, _, kernel = running(found)
    assert _parent(kernel) == command.pid
    build.kill()
    build.wait()
    assert command.wait(timeout=60) == -signal.SIGKILL
    _wait_until(lambda: _parent(kernel) is None)
    ended = "valence: the build that started this job has ended.\n"
    assert _run(found, "--version") == (1, "", ended)


def test_an_interrupt_is_for_the_command(warm, running, tmp_path):
    # As at a terminal, which interrupts caller and command, but not the kernel.
    caller, command, kernel = running(warm)
    for process in (caller.pid, command):
        os.kill(process, signal.SIGINT)
    assert "valence: stopped; finished work is kept" in caller.communicate(timeout=60)[1]
    assert caller.returncode == 130
    _wait_until(lambda: _parent(command) is None and _parent(kernel) is None)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["reached", "x.ipynb"]


@pytest.mark.parametrize("missing", ["no address", "gone", "never served"])
def test_a_command_without_a_warm_process_runs_all_the_same(missing, tmp_path):
    found = {"VALENCE_WARM_START": str(tmp_path / "nowhere")} if missing == "gone" else {}
    if missing == "never served":
        with serving(["no.such.module"], ROOT) as found:
            assert _run(found, "--version")[:2] == (0, VERSION)
    assert _run(found, "--version") == (0, VERSION, "")


def test_forks_are_of_one_thread(tmp_path, monkeypatch):
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    with serving(["threaded"], ROOT) as found:
        assert _run(found, "--version") == (0, VERSION, "")


def test_a_kernel_of_another_command_is_not_forked(monkeypatch):
    monkeypatch.setattr(ForkedKernel, "spare", object())
    assert ForkedKernel.start(["R", "-e", "IRkernel::main()"], {}, ".") is None
    assert ForkedKernel.start(["other/python", "-m", "ipykernel_launcher", "-f", "x"], {}, ".") is None


def test_elsewhere_all_start_cold(monkeypatch):
    monkeypatch.setattr(forkserver.sys, "platform", "darwin")
    with serving(["no.such.module"], ROOT) as found:
        assert found == {}


def test_nothing_is_left(monkeypatch):
    # In a folder with a short path, as the system's is: that of a socket may have some 100 characters.
    with TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        with serving([], ROOT) as found:
            assert Path(found["VALENCE_WARM_START"]).is_relative_to(folder)
            assert _run(found, "--version")[0] == 0
        assert list(Path(folder).iterdir()) == []
