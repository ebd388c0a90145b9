"""Strict notebooks: parameters are checked before anything runs, and a notebook appears whole or not at all."""

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

from valence_lib import notebooks
from valence_lib.cells import check_parameters, parse_parameter, read_parameters
from valence_lib.errors import NotebookError
from valence_lib.notebooks import normalise, run_notebook, write_notebook

PARAMETERS = 'report = "here"\nseed = 0\nrate = 0.5\nquiet = False\nruns = ["a"]  # which'


def _notebook(path, *sources, parameters=(PARAMETERS,)):
    """A notebook at `path` whose cells of parameters come first."""
    cells = [nbformat.v4.new_code_cell(text, metadata={"tags": ["parameters"]}) for text in parameters]
    cells += [nbformat.v4.new_code_cell(text) for text in sources]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


@pytest.fixture
def notebook(tmp_path):
    return _notebook(tmp_path / "1_first.ipynb", "Path('ran').touch()")


@pytest.fixture
def no_kernel(monkeypatch):
    """Fails the test if anything is executed."""
    import papermill

    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a cell ran"))


def test_parameters_are_the_tagged_cells_literals(notebook):
    assert read_parameters(notebook) == {
        "report": "here",
        "seed": 0,
        "rate": 0.5,
        "quiet": False,
        "runs": ["a"],
    }


@pytest.mark.parametrize("count", [0, 2])
def test_not_one_cell_of_parameters_is_refused(tmp_path, count):
    notebook = _notebook(tmp_path / "x.ipynb", "1", parameters=["seed = 0"] * count)
    with pytest.raises(
        NotebookError, match=rf"x\.ipynb has {count} cells tagged 'parameters'; expected exactly one"
    ):
        read_parameters(notebook)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("seed = 1 + time()", "seed = 1 + time()"),
        ("seed = other", "seed = other"),
        ("import os", "import os"),
        ("a, b = 1, 2", "a, b = (1, 2)"),
        ("seed += 1", "seed += 1"),
        ("print(1)", "print(1)"),
        ("seed = {[]: 1}", "seed = {[]: 1}"),
        ("seed = start = 0", "seed = start = 0"),
    ],
)
def test_a_parameter_that_is_no_literal_is_refused(tmp_path, source, named):
    notebook = _notebook(tmp_path / "x.ipynb", parameters=[f"epochs = 4\n{source}"])
    with pytest.raises(NotebookError, match=re.escape(named)) as raised:
        read_parameters(notebook)
    assert "the parameters cell of x.ipynb holds" in str(raised.value)
    assert "as in seed = 0" in str(raised.value)


@pytest.mark.parametrize("source", ["seed = ", "%matplotlib inline"])
def test_a_parameters_cell_that_is_no_python_is_refused(tmp_path, source):
    notebook = _notebook(tmp_path / "x.ipynb", parameters=[source])
    with pytest.raises(NotebookError, match=r"parameters cell of x\.ipynb"):
        read_parameters(notebook)


def test_an_absent_notebook_is_refused_with_the_nearest(notebook):
    with pytest.raises(
        NotebookError, match=r"there is no notebook '.*1_frist.*Did you mean '1_first\.ipynb'"
    ):
        read_parameters(notebook.with_name("1_frist.ipynb"))


@pytest.mark.parametrize("content", ["", "not JSON", "[]", '{"cells": 1}', '{"a": 1}'])
def test_what_is_no_notebook_is_refused(tmp_path, content):
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    with pytest.raises(NotebookError, match=r"x\.ipynb' is not a notebook"):
        read_parameters(path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"sede": 1},
            r"1_first.ipynb: There is no parameter 'sede'. Did you mean 'seed'? Known: quiet, rate, ",
        ),
        ({"seed": "1"}, "1_first.ipynb: seed='1' is of type str; expected int, as in seed=0."),
        ({"seed": 1.0}, "seed=1.0 is of type float; expected int"),
        ({"seed": True}, "seed=True is of type bool; expected int"),
        ({"quiet": 1}, "quiet=1 is of type int; expected bool, as in quiet=False."),
        ({"rate": False}, "rate=False is of type bool; expected float"),
        ({"report": 3}, "report=3 is of type int; expected str"),
        ({"runs": "a"}, "runs='a' is of type str; expected list"),
        ({"seed": None}, "seed=None is of type NoneType; expected int"),
        ({"seed": 1, "sed": 2}, "no parameter 'sed'"),
    ],
)
def test_wrong_parameters_stop_before_any_cell_runs(notebook, no_kernel, given, said):
    with pytest.raises(NotebookError, match=re.escape(said)):
        check_parameters(notebook, given)
    with pytest.raises(NotebookError, match=re.escape(said)):
        run_notebook(notebook, notebook.parent / "out" / "done.ipynb", given)
    assert [entry.name for entry in notebook.parent.iterdir()] == ["1_first.ipynb"]


def test_right_parameters_pass(notebook):
    check_parameters(notebook, {"seed": 3, "rate": 1, "quiet": True, "report": "", "runs": []})
    check_parameters(notebook, {})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "3", 3),
        ("seed", "-1", -1),
        ("rate", "1e-3", 1e-3),
        ("rate", "2", 2),
        ("quiet", "True", True),
        ("runs", "['x', 'y']", ["x", "y"]),
        ("report", "3", "3"),
        ("report", "../reports/a b", "../reports/a b"),
    ],
)
def test_text_becomes_the_type_of_the_default(notebook, name, text, value):
    found = parse_parameter(notebook, name, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("sede", "3", "Did you mean 'seed'"),
        ("seed", "three", "seed='three' is of type str; expected int"),
        ("seed", "3.5", "seed=3.5 is of type float; expected int"),
        ("seed", "", "seed='' is of type str; expected int"),
        ("quiet", "yes", "quiet='yes' is of type str; expected bool"),
        ("runs", "['x'", "expected list"),
        ("runs", "{[]: 1}", "expected list"),
    ],
)
def test_text_of_another_type_is_refused(notebook, name, text, said):
    with pytest.raises(NotebookError, match=re.escape(said)):
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


def test_normalise_takes_out_what_differs_between_two_runs():
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
    """A notebook that shows one widget made of another, and a bar that only says how fast this machine was."""
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


def test_a_notebook_with_other_cells_is_not_told_anew(tmp_path):
    notebook = _notebook(tmp_path / "x.ipynb", "1", "2")
    executed = nbformat.read(notebook, as_version=4)
    del executed.cells[-1]
    with pytest.raises(NotebookError, match=r"x\.ipynb has 3 code cells, but 2 were executed"):
        notebooks.retold(executed, notebook)


def test_write_notebook_leaves_what_stood_there_where_it_fails(tmp_path, monkeypatch):
    destination = tmp_path / "deep" / "x.ipynb"
    write_notebook(destination, _executed())
    before = destination.read_bytes()

    def half(_, path):
        path.write_text("half")
        raise OSError("no space left on device")

    monkeypatch.setattr(notebooks.nbformat, "write", half)
    with pytest.raises(OSError, match="no space"):
        write_notebook(destination, _executed())
    assert destination.read_bytes() == before
    assert [entry.name for entry in destination.parent.iterdir()] == ["x.ipynb"]


def test_two_runs_give_the_same_bytes_in_the_notebooks_folder(tmp_path, monkeypatch):
    # One test for all that a real run shows: each start of a kernel takes a second and a half.
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = _notebook(
        folder / "x.ipynb",
        "import os, sys\nfrom pathlib import Path\nprint(Path.cwd().name, seed, rate, os.environ['OMP_NUM_THREADS'])",
        "print([entry.name for entry in Path.cwd().iterdir()])",
        "for n in range(100):\n    print(n, flush=n % 7 == 0)\n{'a': seed}",
    )
    given = notebook.read_bytes()
    results = []
    for name in ("one", "two"):
        destination = tmp_path / name / "deep" / "done.ipynb"
        destination.parent.mkdir(parents=True)
        stale = destination.with_suffix(".failed.ipynb")
        stale.write_text("of the last time")
        run_notebook(notebook, destination, {"seed": 7})
        results.append(destination.read_bytes())
        # The notebook alone: no partial one, and no failed one of an earlier time.
        assert [entry.name for entry in destination.parent.iterdir()] == ["done.ipynb"]
    assert results[0] == results[1]
    assert notebook.read_bytes() == given
    text = results[0].decode()
    assert "papermill" not in text
    assert str(tmp_path) not in text
    executed = nbformat.reads(text, as_version=4)
    nbformat.validate(executed)
    printed = [cell.outputs for cell in executed.cells]
    assert printed[2][0].text == "notebooks 7 0.5 1\n"
    assert printed[3][0].text == "['x.ipynb']\n"  # no kernel's socket among the notebooks
    assert printed[4][0].text == "".join(f"{n}\n" for n in range(100))
    assert printed[4][1].data["text/plain"] == "{'a': 7}"
    assert [cell.execution_count for cell in executed.cells] == [1, 2, 3, 4, 5]


def test_notebooks_of_one_folder_run_side_by_side(tmp_path):
    # Kernels that shared a socket would hang, or refuse each other's messages.
    notebook = _notebook(tmp_path / "x.ipynb", "print(seed)")
    destinations = [tmp_path / f"{seed}.ipynb" for seed in range(2)]
    command = [sys.executable, "-m", "valence_lib", "notebook", str(notebook)]
    processes = [
        subprocess.Popen([*command, str(path), "-p", "seed", path.stem], cwd=Path(__file__).parents[1])
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
    notebook = _notebook(
        tmp_path / "x.ipynb", "1", "def inner():\n    raise KeyError('lost')", "inner()", "2"
    )
    destination = tmp_path / "out" / "done.ipynb"
    destination.parent.mkdir()
    destination.write_text("what an earlier run left")
    with pytest.raises(NotebookError, match=r"x\.ipynb failed in cell \[4\]") as raised:
        run_notebook(notebook, destination, {})
    message = str(raised.value)
    assert "KeyError: 'lost'" in message
    assert "raise KeyError('lost')" in message
    assert "\x1b" not in message
    assert len(message.splitlines()) <= 15
    assert destination.read_text() == "what an earlier run left"
    failed = destination.with_name("done.failed.ipynb")
    assert message.splitlines()[-1].endswith(f"jupyter lab {failed}")
    assert sorted(entry.name for entry in destination.parent.iterdir()) == ["done.failed.ipynb", "done.ipynb"]
    ran = [cell.get("execution_count") for cell in nbformat.read(failed, 4).cells if cell.cell_type == "code"]
    assert ran == [1, 2, 3, 4, None]


def test_a_full_disk_is_said_to_be_one(tmp_path):
    notebook = _notebook(
        tmp_path / "x.ipynb", "from pathlib import Path\nPath('/dev/full').write_bytes(bytes(9))"
    )
    with pytest.raises(NotebookError) as raised:
        run_notebook(notebook, tmp_path / "done.ipynb", {})
    assert str(raised.value).splitlines()[-3:-1] == [
        "OSError: [Errno 28] No space left on device",
        "The disk is full: free some space and start again; what was finished is kept.",
    ]


def test_a_dead_kernel_is_a_failed_notebook(tmp_path):
    # As where the system ends the kernel for want of memory.
    notebook = _notebook(tmp_path / "x.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    destination = tmp_path / "out" / "done.ipynb"
    with pytest.raises(NotebookError, match=r"x\.ipynb.*kernel"):
        run_notebook(notebook, destination, {})
    assert not destination.exists()


def test_a_notebook_without_a_kernel_is_refused(tmp_path):
    notebook = _notebook(tmp_path / "x.ipynb", "1")
    content = json.loads(notebook.read_text())
    content["metadata"]["kernelspec"]["name"] = "no-such-kernel"
    notebook.write_text(json.dumps(content))
    with pytest.raises(NotebookError, match=r"x\.ipynb.*no-such-kernel"):
        run_notebook(notebook, tmp_path / "done.ipynb", {})
    assert not (tmp_path / "done.ipynb").exists()


def test_a_kill_leaves_nothing_at_the_destination(tmp_path, tmp_path_factory):
    notebook = _notebook(
        tmp_path / "x.ipynb",
        "import os, time\nfrom pathlib import Path\nPath('part').write_text(str(os.getpid()))\n"
        "Path('part').rename('reached')\ntime.sleep(60)",
    )
    destination = tmp_path / "out" / "done.ipynb"
    command = [sys.executable, "-m", "valence_lib", "notebook", str(notebook), str(destination)]
    leftovers = tmp_path_factory.mktemp(
        "t"
    )  # a kill leaves the sockets, which the system's folder is swept of
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[1], env={**os.environ, "TMPDIR": str(leftovers)}
    )
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
