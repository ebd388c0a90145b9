"""Commands forked from a warm process: what they do is what they would have done, and nothing outlives its cause."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from valence_lib import warm_start
from valence_lib.warm_start import ForkedKernel, serving

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands start cold elsewhere")


@pytest.fixture(scope="module")
def warm():
    """What lets commands find a process that has imported the slowest that they need."""
    with serving(["papermill", "ipykernel.kernelapp", "matplotlib.pyplot"], ROOT) as found:
        yield found


def _notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def _start(found, *arguments, **options):
    command = [sys.executable, "-m", "valence_lib.warm_start", *map(str, arguments)]
    return subprocess.Popen(command, text=True, env=os.environ | found, **{"cwd": ROOT, **options})


def _run(found, *arguments, **options):
    piped = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with _start(found, *arguments, **piped, **options) as process:
        out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def _parent(pid):
    """The process that started this one; None where it is gone, or a zombie that nobody has asked for its status."""
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
    notebook = _notebook(
        tmp_path / "x.ipynb",
        "import os, sys\nfrom pathlib import Path\nprint(seed, Path.cwd().name, sys.argv[0][-20:], sys.path)",
        "print(sorted(os.environ), os.environ['GIVEN'], file=sys.stderr)",
        "import matplotlib\nfrom tqdm.auto import tqdm\n(matplotlib.get_backend(), tqdm.__mro__[1].__module__)",
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
def test_status_and_words_are_those_of_the_command(warm, tmp_path, arguments, status):
    # Relative to the folder of the caller, in which it is not the warm process that is.
    environment = {"PYTHONPATH": str(ROOT)}
    found = _run(warm | environment, *arguments, cwd=tmp_path)
    assert found == _run(environment, *arguments, cwd=tmp_path)
    assert found[0] == status
    assert any(found[1:])


def test_a_kernel_that_dies_fails_its_notebook(warm, tmp_path):
    notebook = _notebook(tmp_path / "x.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    status, _, err = _run(warm, "notebook", notebook, tmp_path / "out.ipynb")
    assert status == 1
    assert "the kernel of x.ipynb died in code cell" in err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.failed.ipynb", "x.ipynb"]


@pytest.fixture
def at_work(tmp_path):
    """Starts a notebook that never ends; gives its caller's process, and the numbers of command and kernel."""
    source = "import os, time\nfrom pathlib import Path\nPath('part').write_text(str(os.getpid()))\n"
    source += "Path('part').rename('reached')\ntime.sleep(600)"
    notebook = _notebook(tmp_path / "x.ipynb", source)
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


def test_command_and_kernel_end_with_the_caller(warm, at_work, tmp_path):
    caller, command, kernel = at_work(warm)
    assert caller.pid != command
    caller.kill()
    _wait_until(lambda: _parent(command) is None and _parent(kernel) is None)
    assert not (tmp_path / "out.ipynb").exists()
    assert _run(warm, "--version")[0] == 0


@pytest.mark.parametrize("killed", ["command", "warm process"])
def test_a_caller_says_that_its_command_was_killed(at_work, killed):
    with serving(["papermill"], ROOT) as found:
        caller, command, kernel = at_work(found)
        os.kill(command if killed == "command" else _parent(command), signal.SIGKILL)
        said = caller.communicate(timeout=60)[1]
        assert caller.returncode == 1
        assert "valence: the process that ran 'notebook " in said
        assert "was killed; expected it to end by itself" in said
        _wait_until(lambda: _parent(command) is None and _parent(kernel) is None)


def test_an_interrupt_is_for_the_command(warm, at_work, tmp_path):
    # As at a terminal, where caller and command get it and the kernel does not.
    caller, command, kernel = at_work(warm)
    for process in (caller.pid, command):
        os.kill(process, signal.SIGINT)
    assert "valence: stopped; what was finished is kept" in caller.communicate(timeout=60)[1]
    assert caller.returncode == 130
    _wait_until(lambda: _parent(command) is None and _parent(kernel) is None)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["reached", "x.ipynb"]


@pytest.mark.parametrize("missing", ["nobody asked", "gone", "never served"])
def test_a_command_without_a_warm_process_runs_all_the_same(missing, tmp_path):
    found = {"VALENCE_WARM_START": str(tmp_path / "nowhere")} if missing == "gone" else {}
    if missing == "never served":
        with serving(["no.such.module"], ROOT) as found:
            assert _run(found, "--version")[:2] == (0, "0.1.0\n")
    assert _run(found, "--version") == (0, "0.1.0\n", "")


def test_forks_are_of_one_thread(tmp_path, monkeypatch):
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    with serving(["threaded"], ROOT) as found:
        assert _run(found, "--version") == (0, "0.1.0\n", "")


def test_a_kernel_of_another_command_is_not_forked(monkeypatch):
    monkeypatch.setattr(ForkedKernel, "spare", object())
    assert ForkedKernel.start(["R", "-e", "IRkernel::main()"], {}, ".") is None
    assert ForkedKernel.start(["other/python", "-m", "ipykernel_launcher", "-f", "x"], {}, ".") is None


def test_elsewhere_all_start_cold(monkeypatch):
    monkeypatch.setattr(warm_start.sys, "platform", "darwin")
    with serving(["no.such.module"], ROOT) as found:
        assert found == {}


def test_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with serving([], ROOT) as found:
        assert Path(found["VALENCE_WARM_START"]).is_relative_to(tmp_path)
        assert _run(found, "--version")[0] == 0
    assert list(tmp_path.iterdir()) == []
