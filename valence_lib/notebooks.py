"""Strict runs of parameterised notebooks by papermill.

papermill itself only logs an unknown parameter, takes any type, and leaves a half-executed notebook
at the final path. Here an unknown or ill-typed parameter stops before anything runs, and the executed
notebook appears whole or not at all. What would differ between two equal runs is taken out of it.
"""

import ast
import difflib
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode

from valence_lib.errors import LackOfMemoryError, NotebookError, WorkerError, unknown_name
from valence_lib.files import written_whole
from valence_lib.warm_start import ONE_THREAD, ForkedKernel

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_TRACEBACK_LINES = 12


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Names and default values of the notebook's cell tagged "parameters".

    Raises:
        NotebookError: there is no notebook, not exactly one such cell, or something in it is not an
            assignment of a literal.
    """
    cells = [cell for cell in read_notebook(notebook).cells if "parameters" in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        raise NotebookError(
            f"{notebook.name} has {len(cells)} cells tagged 'parameters'; expected exactly one."
        )
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise NotebookError(
            f"the parameters cell of {notebook.name} is not Python ({error}); expected only names with literal "
            "values, as in seed = 0."
        ) from error
    parameters = {}
    for statement in statements:
        try:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)]):
                    parameters[name] = ast.literal_eval(statement.value)
                case _:
                    raise ValueError("not an assignment to one name")
        except (ValueError, TypeError) as error:
            raise NotebookError(
                f"the parameters cell of {notebook.name} holds {ast.unparse(statement)!r}; "
                "expected only names with literal values, as in seed = 0."
            ) from error
    return parameters


def code_of(notebook: Path) -> list[str]:
    """The sources of a notebook's code cells.

    Raises:
        NotebookError: there is no notebook.
    """
    return [cell.source for cell in read_notebook(notebook).cells if cell.cell_type == "code"]


def text_of(notebook: Path) -> list[str]:
    """All that is written in a notebook: kind and source of every cell, in their order.

    Raises:
        NotebookError: there is no notebook.
    """
    return [f"{cell.cell_type}: {cell.source}" for cell in read_notebook(notebook).cells]


def check_parameters(notebook: Path, given: Mapping[str, Any]) -> None:
    """Refuse parameters that the notebook does not have, or of another type than their defaults.

    Raises:
        NotebookError: the message names the parameter, and the nearest that exists.
    """
    defaults = read_parameters(notebook)
    for name, value in given.items():
        if name not in defaults:
            raise NotebookError(f"{notebook.name}: {unknown_name('parameter', name, defaults)}")
        expected = type(defaults[name])
        if type(value) is not expected and not (expected is float and type(value) is int):
            raise NotebookError(
                f"{notebook.name}: {name}={value!r} is of type {type(value).__name__}; expected "
                f"{expected.__name__}, as in {name}={defaults[name]!r}."
            )


def parse_parameter(notebook: Path, name: str, text: str) -> Any:
    """A parameter given as text, as on a command line, in the type of its default.

    Raises:
        NotebookError: unknown name, or text that is not of that type.
    """
    defaults = read_parameters(notebook)
    if name not in defaults:
        raise NotebookError(f"{notebook.name}: {unknown_name('parameter', name, defaults)}")
    default = defaults[name]
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError):
        value = text
    check_parameters(notebook, {name: value})
    return value


def complete_parameters(notebook: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values that all parameters of a notebook have where some are given.

    Raises:
        NotebookError: as `check_parameters`.
    """
    check_parameters(notebook, given)
    return {**read_parameters(notebook), **given}


class Watcher:
    """Who is told how a notebook that runs comes along; this one does nothing with it."""

    def cell_begins(self, number: int, cells: int) -> None:
        """A code cell is next, the `number`-th of `cells`."""

    def said(self, text: str) -> None:
        """Something was printed."""


def run_notebook(
    notebook: Path,
    destination: Path,
    parameters: Mapping[str, Any],
    watcher: Watcher | None = None,
    time_limit: float | None = None,
) -> None:
    """Execute a notebook with parameters; write it to `destination`, whole or not at all.

    Its working directory is its own folder, as in Jupyter and nbval.

    Args:
        watcher: who is told of its cells and of what it prints while it runs.
        time_limit: seconds after which it is stopped; None lets it run.

    Raises:
        NotebookError: a parameter is unknown or ill-typed, the kernel dies, the time is over, or a cell fails: the
            message names the cell and ends in its traceback, and the notebook as far as it came lies beside
            `destination`, under a name that ends in .failed.ipynb.
    """
    check_parameters(notebook, parameters)
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from traitlets.config import Config

    os.environ.update(ONE_THREAD)
    told = _Told(watcher or Watcher(), code_of(notebook))
    deadline = None if time_limit is None else time.monotonic() + time_limit
    failed = destination.with_suffix(".failed.ipynb")
    partial = destination.with_name(f".{destination.stem}.{os.getpid()}.partial.ipynb")
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Sockets in a folder of their own: kernels that start side by side race neither for a port nor, as they
        # would for the default name in the working directory, for a socket.
        with TemporaryDirectory(prefix="valence-") as sockets:
            executed = papermill.execute_notebook(
                str(notebook),
                str(partial),
                parameters=dict(parameters),
                cwd=str(notebook.parent),
                progress_bar=False,
                config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
                # A kernel that is shut down says so as an error; what matters of it is in the notebook.
                extra_arguments=["--log-level=CRITICAL"],
                kernel_manager_class=_WarmKernelManager,
                stdout_file=told,
                stderr_file=told,
                on_cell_execute=told.cell_begins,
                # A cell has what is left of the notebook's time; one that does not end is interrupted, or killed.
                timeout_func=None if deadline is None else lambda _: max(1, round(deadline - time.monotonic())),
                interrupt_on_timeout=False,
            )
        write_notebook(destination, normalise(executed))
        failed.unlink(missing_ok=True)
    except papermill.PapermillExecutionError as error:
        _keep_failed(partial, failed)
        trace = "\n".join(_ANSI.sub("", "\n".join(error.traceback)).splitlines()[-_TRACEBACK_LINES:])
        lacked = error.ename in (MemoryError.__name__, WorkerError.__name__)
        raise (LackOfMemoryError if lacked else NotebookError)(
            f"{notebook.name} failed in cell [{error.exec_count}]:\n{trace}\nOpen it with: jupyter lab {failed}"
        ) from error
    except CellTimeoutError as error:
        _keep_failed(partial, failed)
        raise NotebookError(
            f"{notebook.name} was stopped in its code cell {told.number} of {told.cells} after {time_limit:g} s, the time "
            f"limit; give it more (TIME_LIMIT=seconds), or see what hangs: jupyter lab {failed}"
        ) from error
    except DeadKernelError as error:
        _keep_failed(partial, failed)
        raise LackOfMemoryError(
            f"the kernel of {notebook.name} died in code cell {told.number} of {told.cells}. One that dies without a "
            "word was most often killed by the system because memory ran out: run fewer at a time (JOBS=1), or "
            f"give it more memory. The notebook as far as it came: {failed}"
        ) from error
    except NoSuchKernel as error:
        raise NotebookError(
            f"{notebook.name} found no kernel ({error}); expected ipykernel's python3, which `make install` installs."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _keep_failed(partial: Path, failed: Path) -> None:
    """Keep what papermill had written when it had to stop, without what differs between two equal runs."""
    if partial.is_file():
        write_notebook(failed, normalise(read_notebook(partial)))


class _Told:
    """What papermill and nbclient call, in the words of a `Watcher`."""

    def __init__(self, watcher: Watcher, code: Sequence[str]):
        # The injected parameters are a cell more.
        self._watcher, self.number, self.cells = watcher, 0, len([source for source in code if source.strip()]) + 1

    def cell_begins(self, cell: NotebookNode, cell_index: int) -> None:
        """Called by nbclient before a code cell is executed."""
        self.number += 1
        self._watcher.cell_begins(self.number, self.cells)

    def write(self, text: str) -> None:
        """Called by papermill with what a cell prints."""
        self._watcher.said(text)

    def flush(self) -> None:
        """Called by papermill; nothing is kept back."""


class _WarmKernelManager(AsyncKernelManager):
    """Starts the kernel by letting a forked process become it, where one waits for that."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        kernel = ForkedKernel.start(kernel_cmd, kw["env"], str(kw.get("cwd") or Path.cwd()))
        if kernel is None:
            await super()._async_launch_kernel(kernel_cmd, **kw)
            return
        provisioner: Any = self.provisioner
        provisioner.process, provisioner.pid, provisioner.pgid = kernel, kernel.pid, kernel.pid
        self._reconcile_connection_info(provisioner.connection_info)


def normalise(notebook: NotebookNode) -> NotebookNode:
    """The same notebook without what differs between two equal runs: times, durations, paths, random ids."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if _is_injected(cell):
            cell.id = "injected-parameters"
        if cell.cell_type == "code":
            cell.outputs = _joined_streams(cell.outputs)
    return notebook


def retold(executed: NotebookNode, notebook: Path) -> NotebookNode:
    """An executed notebook with the text that its source has now: what executing it would give where only text changed.

    Args:
        executed: as `run_notebook` wrote it.
        notebook: its source, whose code cells do what they did then.

    Raises:
        NotebookError: it has other code cells.
    """
    source = read_notebook(notebook)
    before = [cell for cell in executed.cells if cell.cell_type == "code"]
    injected = [cell for cell in before if _is_injected(cell)]
    ran = [cell for cell in before if not _is_injected(cell)]
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    if len(ran) != len(code):
        raise NotebookError(
            f"{notebook.name} has {len(code)} code cells, but {len(ran)} were executed; run it again."
        )
    for cell, done in zip(code, ran, strict=True):
        cell.outputs, cell.execution_count = done.outputs, done.execution_count
    cells = []
    for cell in source.cells:
        cells.append(cell)
        if "parameters" in cell.metadata.get("tags", ()):
            cells += injected
    source.cells, source.metadata = cells, executed.metadata
    return normalise(source)


def _is_injected(cell: NotebookNode) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", ())


def _joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Neighbouring pieces of one stream as one: where the kernel cut them depends on its timing."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if (
            last is not None
            and output.output_type == "stream" == last.output_type
            and output.name == last.name
        ):
            last.text += output.text
        else:
            joined.append(output)
    return joined


def write_notebook(destination: Path, notebook: NotebookNode) -> None:
    """Write a notebook whole or not at all."""
    with written_whole(destination) as path:
        nbformat.write(notebook, path)


def read_notebook(notebook: Path) -> NotebookNode:
    """A notebook from its file.

    Raises:
        NotebookError: there is none, or the file is not one.
    """
    if not notebook.is_file():
        near = difflib.get_close_matches(
            notebook.name, [p.name for p in notebook.parent.glob("*.ipynb")], n=1
        )
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise NotebookError(f"there is no notebook {str(notebook)!r}.{hint}")
    try:
        return nbformat.read(notebook, as_version=4)
    except (ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError) as error:
        # JSON that is no notebook breaks nbformat in any of these ways, before it comes to validate.
        raise NotebookError(f"{str(notebook)!r} is not a notebook: {error}") from error
