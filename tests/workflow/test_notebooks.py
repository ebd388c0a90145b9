"""Notebooks: wrong parameters stop before anything runs, executed notebooks appear whole or not at all."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from small_notebook import small_notebook

from valence_lib.errors import NotebookError
from valence_lib.workflow import notebooks
from valence_lib.workflow.cells import complete_parameters, parse_parameter, read_parameters
from valence_lib.workflow.notebooks import normalise, run_notebook

PARAMETERS = 'report = "here"\nseed = 0\nrate = 0.5\nquiet = False\nruns = ["a"]  # which'


@pytest.fixture
def notebook(tmp_path):
    return small_notebook(tmp_path / "1_first.ipynb", "Path('ran').touch()", parameters=[PARAMETERS])


@pytest.fixture
def no_kernel(monkeypatch):
    """Fails the test if anything is executed."""
    import papermill

    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a cell ran"))


def test_parameters_are_the_tagged_cells_literals(notebook):
    expected = {"report": "here", "seed": 0, "rate": 0.5, "quiet": False, "runs": ["a"]}
    assert read_parameters(notebook) == expected


@pytest.mark.parametrize("count", [0, 2])
def test_not_one_cell_of_parameters_is_refused(tmp_path, count):
    notebook = small_notebook(tmp_path / "x.ipynb", "1", parameters=["seed = 0"] * count)
    message = rf"x\.ipynb has {count} cells tagged 'parameters'; expected exactly one"
    with pytest.raises(NotebookError, match=message):
        read_parameters(notebook)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("seed = 1 + time()", "seed = 1 + time()"),
        ("seed = other", "seed = other"),
        ("import os", "import os"),
        ("seed += 1", "seed += 1"),
        ("seed = {[]: 1}", "seed = {[]: 1}"),
        ("seed = start = 0", "seed = start = 0"),
    ],
)
def test_a_parameter_that_is_no_literal_is_refused(tmp_path, source, named):
    notebook = small_notebook(tmp_path / "x.ipynb", parameters=[f"epochs = 4\n{source}"])
    with pytest.raises(NotebookError, match=re.escape(named)) as raised:
        read_parameters(notebook)
    assert "the parameters cell of x.ipynb holds" in str(raised.value)
    assert "as in seed = 0" in str(raised.value)


@pytest.mark.parametrize("source", ["seed = ", "%matplotlib inline"])
def test_a_parameters_cell_that_is_no_python_is_refused(tmp_path, source):
    notebook = small_notebook(tmp_path / "x.ipynb", parameters=[source])
    with pytest.raises(NotebookError, match=r"parameters cell of x\.ipynb is not Python"):
        read_parameters(notebook)


def test_an_absent_notebook_is_refused_with_the_nearest(notebook):
    message = r"there is no notebook '.*1_frist.*Did you mean '1_first\.ipynb'"
    with pytest.raises(NotebookError, match=message):
        read_parameters(notebook.with_name("1_frist.ipynb"))


@pytest.mark.parametrize("content", ["", "not JSON", "[]", '{"cells": 1}', '{"a": 1}'])
def test_what_is_no_notebook_is_refused(tmp_path, content):
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    with pytest.raises(NotebookError, match=r"x\.ipynb' is not a notebook"):
        read_parameters(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"sede": 1},
            "1_first.ipynb: There is no parameter 'sede'. Did you mean 'seed'? Known: quiet, rate, ",
        ),
        ({"seed": "1"}, "1_first.ipynb: seed='1' is of type str; expected int, as in seed=0."),
        ({"seed": 1.0}, "seed=1.0 is of type float; expected int"),
        ({"seed": True}, "seed=True is of type bool; expected int"),
        ({"rate": False}, "rate=False is of type bool; expected float"),
        ({"runs": "a"}, "runs='a' is of type str; expected list"),
        ({"seed": 1, "sed": 2}, "no parameter 'sed'"),
    ],
)
def test_wrong_parameters_stop_before_any_cell_runs(notebook, no_kernel, given, message):
    with pytest.raises(NotebookError, match=re.escape(message)):
        run_notebook(notebook, notebook.parent / "out" / "done.ipynb", given)
    assert [entry.name for entry in notebook.parent.iterdir()] == ["1_first.ipynb"]


def test_parameters_that_are_not_given_have_their_defaults(notebook):
    given = {"seed": 3, "rate": 1, "report": ""}
    assert complete_parameters(notebook, given) == {"quiet": False, "runs": ["a"], **given}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "3", 3),
        ("seed", "-1", -1),
        ("rate", "1e-3", 1e-3),
        ("quiet", "True", True),
        ("runs", "['x', 'y']", ["x", "y"]),
        ("report", "../reports/a b", "../reports/a b"),
    ],
)
def test_text_becomes_the_type_of_the_default(notebook, name, text, value):
    found = parse_parameter(notebook, name, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sede", "3", "Did you mean 'seed'"),
        ("seed", "three", "seed='three' is of type str; expected int"),
        ("seed", "3.5", "seed=3.5 is of type float; expected int"),
        ("quiet", "yes", "quiet='yes' is of type str; expected bool"),
        ("runs", "['x'", "expected list"),
        ("runs", "{[]: 1}", "expected list"),
    ],
)
def test_text_of_another_type_is_refused(notebook, name, text, message):
    with pytest.raises(NotebookError, match=re.escape(message)):
        parse_parameter(notebook, name, text)


def _executed(**metadata):
    cell = nbformat.v4.new_code_cell(
        "print(1)", metadata={"papermill": {"duration": 1}, "execution": {"iopub.execute_input": "now"}}
    )
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="a"),
        nbformat.v4.new_output("stream", name="stdout", text="b\n"),
        nbformat.v4.new_output("stream", name="stderr", text="e"),
        nbformat.v4.new_output("stream", name="stdout", text="c"),
        nbformat.v4.new_output("display_data", {"text/plain": "1"}),
        nbformat.v4.new_output("stream", name="stdout", text="d"),
    ]
    injected = nbformat.v4.new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]})
    text = nbformat.v4.new_markdown_cell("words", metadata={"papermill": {}})
    return nbformat.v4.new_notebook(
        cells=[injected, cell, text], metadata={"papermill": {"start_time": "now"}, **metadata}
    )


def test_normalise_removes_what_differs_between_two_runs():
    found = normalise(_executed(language_info={"name": "python"}))
    assert found.metadata == {"language_info": {"name": "python"}}
    assert [cell.metadata for cell in found.cells] == [{"tags": ["injected-parameters"]}, {}, {}]
    assert found.cells[0].id == "injected-parameters"
    texts = [output.get("text") for output in found.cells[1].outputs]
    assert texts == ["ab\n", "e", "c", None, "d"]
    nbformat.validate(found)
    once = nbformat.writes(found)
    assert nbformat.writes(normalise(found)) == once


def _with_widgets(first: str, second: str, unseen: str) -> nbformat.NotebookNode:
    """A notebook that shows a widget with another in it, and a progress bar."""
    show = {"application/vnd.jupyter.widget-view+json": {"model_id": first}, "text/plain": "Dropdown()"}
    bar = {
        "application/vnd.jupyter.widget-view+json": {"model_id": unseen},
        "text/plain": "preprocess: 100%|##########| 540/540 [00:00<00:00, 1384.11 clips/s]",
    }
    cell = nbformat.v4.new_code_cell(
        "menu", outputs=[nbformat.v4.new_output("display_data", d) for d in (show, bar)]
    )
    cell.id = "menu"
    models = {
        first: {"layout": f"IPY_MODEL_{second}"},
        second: {"width": "3"},
        unseen: {"value": "1384.11 clips/s"},
    }
    state = {name: {"model_name": "M", "state": models[name]} for name in sorted(models)}
    widgets = {
        "application/vnd.jupyter.widget-state+json": {"version_major": 2, "version_minor": 0, "state": state}
    }
    return nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": widgets})


def test_widgets_are_named_by_their_order_and_progress_bars_go():
    names = [letter * 32 for letter in "abcdef"]
    first = normalise(_with_widgets(*names[:3]))
    assert nbformat.writes(first) == nbformat.writes(normalise(_with_widgets(*reversed(names[3:]))))
    (output,) = first.cells[0].outputs
    assert output.data["application/vnd.jupyter.widget-view+json"]["model_id"] == f"{1:032x}"
    state = first.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    assert set(state) == {f"{1:032x}", f"{2:032x}"}
    assert state[f"{1:032x}"]["state"]["layout"] == f"IPY_MODEL_{2:032x}"


def test_the_text_of_a_notebook_with_other_cells_is_not_updated(tmp_path):
    notebook = small_notebook(tmp_path / "x.ipynb", "1", "2")
    executed = nbformat.read(notebook, as_version=4)
    del executed.cells[-1]
    with pytest.raises(NotebookError, match=r"x\.ipynb has 3 code cells, but 2 were executed"):
        notebooks.with_updated_text(executed, notebook)


def test_two_runs_give_the_same_bytes_in_the_notebooks_folder(tmp_path, monkeypatch):
    # One test, since each kernel takes seconds to start.
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = small_notebook(
        folder / "x.ipynb",
        "import os\nfrom pathlib import Path\nprint(Path.cwd().name, seed, os.environ['OMP_NUM_THREADS'])",
        "print([entry.name for entry in Path.cwd().iterdir()])",
        "for n in range(100):\n    print(n, flush=n % 7 == 0)\n{'a': seed}",
    )
    given = notebook.read_bytes()
    results = []
    for name in ("one", "two"):
        destination = tmp_path / name / "deep" / "done.ipynb"
        destination.parent.mkdir(parents=True)
        stale = destination.with_suffix(".failed.ipynb")
        stale.write_text("of an earlier run")
        run_notebook(notebook, destination, {"seed": 7})
        results.append(destination.read_bytes())
        # Neither a partial notebook, nor the failed one of an earlier run.
        assert [entry.name for entry in destination.parent.iterdir()] == ["done.ipynb"]
    assert results[0] == results[1]
    assert notebook.read_bytes() == given
    text = results[0].decode()
    assert "papermill" not in text
    assert str(tmp_path) not in text
    executed = nbformat.reads(text, as_version=4)
    nbformat.validate(executed)
    printed = [cell.outputs for cell in executed.cells]
    assert printed[2][0].text == "notebooks 7 1\n"
    assert printed[3][0].text == "['x.ipynb']\n"  # no kernel's socket among the notebooks
    assert printed[4][0].text == "".join(f"{n}\n" for n in range(100))
    assert printed[4][1].data["text/plain"] == "{'a': 7}"
    assert [cell.execution_count for cell in executed.cells] == [1, 2, 3, 4, 5]


def test_notebooks_of_one_folder_run_side_by_side(tmp_path):
    # Kernels that shared a socket would hang, or refuse each other's messages.
    notebook = small_notebook(tmp_path / "x.ipynb", "print(seed)")
    destinations = [tmp_path / f"{seed}.ipynb" for seed in range(2)]
    command = [sys.executable, "-m", "valence_lib", "notebook", str(notebook)]
    processes = [
        subprocess.Popen([*command, str(path), "-p", "seed", path.stem], cwd=Path(__file__).parents[2])
        for path in destinations
    ]
    try:
        assert [process.wait(timeout=100) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    for path in destinations:
        assert nbformat.read(path, 4).cells[-1].outputs[0].text == f"{path.stem}\n"


def test_a_failing_cell_leaves_the_earlier_notebook_whole(tmp_path):
    notebook = small_notebook(
        tmp_path / "x.ipynb", "1", "def inner():\n    raise KeyError('lost')", "inner()", "2"
    )
    destination = tmp_path / "out" / "done.ipynb"
    destination.parent.mkdir()
    destination.write_text("of an earlier run")
    with pytest.raises(NotebookError, match=r"x\.ipynb failed in cell \[4\]") as raised:
        run_notebook(notebook, destination, {})
    message = str(raised.value)
    assert "KeyError: 'lost'" in message
    assert "raise KeyError('lost')" in message
    assert "\x1b" not in message
    assert len(message.splitlines()) <= 15
    assert destination.read_text() == "of an earlier run"
    failed = destination.with_name("done.failed.ipynb")
    assert message.splitlines()[-1].endswith(f"jupyter lab {failed}")
    assert sorted(entry.name for entry in destination.parent.iterdir()) == ["done.failed.ipynb", "done.ipynb"]
    ran = [cell.get("execution_count") for cell in nbformat.read(failed, 4).cells if cell.cell_type == "code"]
    assert ran == [1, 2, 3, 4, None]


def test_a_full_disk_is_named(tmp_path):
    notebook = small_notebook(
        tmp_path / "x.ipynb", "from pathlib import Path\nPath('/dev/full').write_bytes(bytes(9))"
    )
    with pytest.raises(NotebookError) as raised:
        run_notebook(notebook, tmp_path / "done.ipynb", {})
    error, advice = str(raised.value).splitlines()[-3:-1]
    assert error == "OSError: [Errno 28] No space left on device"
    assert advice.startswith("The disk is full: free some space")


def test_a_killed_kernel_is_a_failed_notebook(tmp_path):
    # As when the system runs out of memory.
    notebook = small_notebook(tmp_path / "x.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    destination = tmp_path / "out" / "done.ipynb"
    with pytest.raises(NotebookError, match=r"the kernel of x\.ipynb was killed in code cell 2 of 2"):
        run_notebook(notebook, destination, {})
    assert not destination.exists()


def test_a_notebook_stops_at_its_time_limit(tmp_path):
    notebook = small_notebook(tmp_path / "x.ipynb", "import time; time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(NotebookError, match=r"stopped in code cell 2 of 2 after 4 s.*TIME_LIMIT"):
        run_notebook(notebook, tmp_path / "done.ipynb", {}, time_limit=4)
    assert time.monotonic() - began < 40
    assert [path.name for path in tmp_path.glob("done*")] == ["done.failed.ipynb"]


def test_the_name_of_the_kernel_is_not_used(tmp_path):
    # A notebook that was edited in Jupyter may name a kernel of another environment.
    notebook = small_notebook(tmp_path / "x.ipynb", "1")
    content = json.loads(notebook.read_text())
    content["metadata"]["kernelspec"]["name"] = "no-such-kernel"
    notebook.write_text(json.dumps(content))
    run_notebook(notebook, tmp_path / "done.ipynb", {})
    assert (tmp_path / "done.ipynb").is_file()


def test_a_kill_leaves_nothing_at_the_destination(tmp_path, tmp_path_factory):
    notebook = small_notebook(
        tmp_path / "x.ipynb",
        "import os, time\nfrom pathlib import Path\nPath('part').write_text(str(os.getpid()))\n"
        "Path('part').rename('reached')\ntime.sleep(60)",
    )
    destination = tmp_path / "out" / "done.ipynb"
    command = [sys.executable, "-m", "valence_lib", "notebook", str(notebook), str(destination)]
    environment = {**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("t"))}  # where a kill leaves sockets
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "reached").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
        with contextlib.suppress(OSError):  # the kernel ends by itself when it sees that its parent is gone
            os.kill(int((tmp_path / "reached").read_text()), signal.SIGKILL)
    assert not destination.exists()
    assert not destination.with_name("done.failed.ipynb").exists()
    assert all(entry.name.startswith(".") for entry in destination.parent.iterdir())
