"""Strict runs of parameterised notebooks by papermill.

papermill itself only logs an unknown parameter, takes values of any type, and leaves a half-executed notebook
at the destination. Here wrong parameters stop before anything runs, and the executed notebook appears whole
or not at all, without what differs between two equal runs.
"""

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode

from valence_lib.errors import LackOfMemoryError, NotebookError, WorkerError, disk_advice
from valence_lib.files import atomic_write, temporary_folder, temporary_name
from valence_lib.workflow.cells import complete_parameters, read_cells
from valence_lib.workflow.forkserver import ONE_THREAD, ForkedKernel
from valence_lib.workflow.progress import JobProgress

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_SYSTEM_ERROR = re.compile(r"\[Errno (\d+)\]")
_TRACEBACK_LINES = 12
_WIDGET = "application/vnd.jupyter.widget-view+json"
_WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
_WIDGET_NAME = re.compile(r"\b(?:IPY_MODEL_)?([0-9a-f]{32})\b")
_PROGRESS_BAR = re.compile(r"\d%\|.*\| \d+/\d+ \[")


def run_notebook(
    notebook: Path,
    destination: Path,
    parameters: Mapping[str, Any],
    progress: JobProgress | None = None,
    time_limit: float | None = None,
) -> None:
    """Execute a notebook in its own folder, and write it whole or not at all.

    Args:
        notebook: the source.
        destination: of the executed notebook.
        parameters: that replace the notebook's defaults.
        progress: receives the cells that begin, and what they print.
        time_limit: seconds after which the notebook is stopped; None for none.

    Raises:
        NotebookError: a parameter is unknown or of a wrong type, a cell fails, the kernel is killed, or the
            time is over. The notebook up to that cell is then beside `destination`, as .failed.ipynb.
    """
    complete_parameters(notebook, parameters)
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from traitlets.config import Config

    os.environ.update(ONE_THREAD)
    # At its end, a client of Jupyter may log that its own sockets are closed.
    logging.getLogger("tornado.general").setLevel(logging.CRITICAL)
    monitor = _Monitor(notebook, progress, bool(parameters))
    deadline = None if time_limit is None else time.monotonic() + time_limit
    failed = destination.with_suffix(".failed.ipynb")
    partial = temporary_name(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Kernels that start side by side would race for ports, and for sockets in the working folder.
        with temporary_folder() as sockets:
            files = {"ip": f"{sockets}/kernel", "connection_file": f"{sockets}/kernel.json"}
            executed = papermill.execute_notebook(
                str(notebook),
                str(partial),
                parameters=dict(parameters),
                cwd=str(notebook.parent),
                progress_bar=False,
                kernel_name="python3",
                kernel_manager_class=_WarmKernelManager,
                config=Config(KernelManager={"transport": "ipc", **files}),
                extra_arguments=["--log-level=CRITICAL"],  # a kernel logs its own shutdown as an error
                stdout_file=monitor,
                stderr_file=monitor,
                on_cell_execute=monitor.cell_begins,
                timeout_func=None
                if deadline is None
                else lambda _: max(1, round(deadline - time.monotonic())),
                interrupt_on_timeout=False,
            )
        write_notebook(destination, normalise(executed))
        failed.unlink(missing_ok=True)
    except (papermill.PapermillExecutionError, CellTimeoutError, DeadKernelError) as error:
        if partial.is_file():
            write_notebook(failed, normalise(read_notebook(partial)))
        stopped = f"in code cell {monitor.position}"
        if isinstance(error, papermill.PapermillExecutionError):
            raise _with_traceback(error, notebook, failed) from error
        if isinstance(error, CellTimeoutError):
            raise NotebookError(
                f"{notebook.name} was stopped {stopped} after {time_limit:g} s, the time limit; give it more "
                f"(TIME_LIMIT=seconds), or see what hangs: jupyter lab {failed}"
            ) from error
        raise LackOfMemoryError(
            f"the kernel of {notebook.name} was killed {stopped} (often out of memory): run fewer jobs at a "
            f"time (JOBS=1), or give them more memory. The notebook up to that cell: {failed}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _with_traceback(error: Any, notebook: Path, failed: Path) -> NotebookError:
    trace = _ANSI.sub("", "\n".join(error.traceback)).splitlines()[-_TRACEBACK_LINES:]
    system = _SYSTEM_ERROR.match(error.evalue)
    if system and (advice := disk_advice(int(system[1]))):
        trace.append(advice)
    lacked_memory = error.ename in (MemoryError.__name__, WorkerError.__name__)
    return (LackOfMemoryError if lacked_memory else NotebookError)(
        "\n".join(
            (
                f"{notebook.name} failed in cell [{error.exec_count}]:",
                *trace,
                f"Open it with: jupyter lab {failed}",
            )
        )
    )


class _Monitor:
    """Counts the code cells that begin, and passes on what they print; papermill and nbclient call it."""

    def __init__(self, notebook: Path, progress: JobProgress | None, injected: bool):
        code = [cell for cell in read_cells(notebook) if cell.kind == "code" and cell.source.strip()]
        self._number, self._cells = 0, len(code) + injected  # papermill injects a cell of parameters
        self._progress = progress

    @property
    def position(self) -> str:
        return f"{self._number} of {self._cells}"

    def cell_begins(self, cell: NotebookNode, cell_index: int) -> None:
        self._number += 1
        if self._progress:
            self._progress.log(f"--- code cell {self.position}\n")
            self._progress.emit(cell=self._number, cells=self._cells)

    def write(self, text: str) -> None:
        if self._progress:
            self._progress.output(text)

    def flush(self) -> None:
        """Everything is written at once."""


class _WarmKernelManager(AsyncKernelManager):
    """Turns the forked process of this command into the kernel, where there is one."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        kernel = ForkedKernel.start(kernel_cmd, kw["env"], str(kw.get("cwd") or Path.cwd()))
        if kernel is None:
            await super()._async_launch_kernel(kernel_cmd, **kw)
            return
        provisioner: Any = self.provisioner
        provisioner.process, provisioner.pid, provisioner.pgid = kernel, kernel.pid, kernel.pid
        self._reconcile_connection_info(provisioner.connection_info)


def normalise(notebook: NotebookNode) -> NotebookNode:
    """A notebook, which is changed, without what differs between two equal runs: times, paths, random ids."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]  # papermill's, of a cell that has none
        if _is_injected(cell):
            cell.id = "injected-parameters"
        if cell.cell_type == "code":
            cell.outputs = _joined_streams(
                [output for output in cell.outputs if not _is_progress_bar(output)]
            )
    return _with_numbered_widgets(notebook)


def _is_injected(cell: NotebookNode) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", ())


def _is_progress_bar(output: NotebookNode) -> bool:
    """Whether it is one of tqdm's, which shows the speed of this machine."""
    data = output.get("data", {})
    return _WIDGET in data and bool(_PROGRESS_BAR.search("".join(data.get("text/plain", ""))))


def _joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream: where the kernel cuts them depends on its timing."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == "stream" and output.name == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _with_numbered_widgets(notebook: NotebookNode) -> NotebookNode:
    """Replace random names of widgets by numbers in the order of the outputs; drop widgets in no output."""
    saved = notebook.metadata.get("widgets", {}).get(_WIDGET_STATE)
    if not saved:
        return notebook
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    waiting = [output["data"][_WIDGET]["model_id"] for output in outputs if _WIDGET in output.get("data", {})]
    numbered: dict[str, str] = {}
    while waiting:
        model = waiting.pop(0)
        if model in saved["state"] and model not in numbered:
            numbered[model] = f"{len(numbered) + 1:032x}"
            waiting += _WIDGET_NAME.findall(json.dumps(saved["state"][model], sort_keys=True))
    saved["state"] = {name: model for name, model in saved["state"].items() if name in numbered}
    if not numbered:
        del notebook.metadata["widgets"]
    text = re.sub(r"[0-9a-f]{32}", lambda found: numbered.get(found[0], found[0]), nbformat.writes(notebook))
    return nbformat.reads(text, as_version=4)


def with_updated_text(executed: NotebookNode, notebook: Path) -> NotebookNode:
    """An executed notebook with the present text of its source, as if it were executed again.

    Args:
        executed: as `run_notebook` wrote it.
        notebook: its source, whose code has not changed.

    Raises:
        NotebookError: the source has another number of code cells.
    """
    source = read_notebook(notebook)
    ran = [cell for cell in executed.cells if cell.cell_type == "code" and not _is_injected(cell)]
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
            cells += filter(_is_injected, executed.cells)
    source.cells, source.metadata = cells, executed.metadata
    return normalise(source)


def write_notebook(destination: Path, notebook: NotebookNode) -> None:
    """Write a notebook whole or not at all."""
    with atomic_write(destination) as path:
        nbformat.write(notebook, path)


def read_notebook(notebook: Path) -> NotebookNode:
    """A notebook from its file.

    Raises:
        NotebookError: there is no such file, or it is not a notebook.
    """
    read_cells(notebook)
    try:
        return nbformat.read(notebook, as_version=4)
    except (ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError) as error:
        raise NotebookError(f"{str(notebook)!r} is not a notebook: {error}") from error
