"""Strict runs of parameterised notebooks by papermill.

papermill itself only logs an unknown parameter, takes any type, and leaves a half-executed notebook
at the final path. Here an unknown or ill-typed parameter stops before anything runs, and the executed
notebook appears whole or not at all. What would differ between two equal runs is taken out of it.
"""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode

from valence_lib.cells import check_parameters, code_of, read_cells
from valence_lib.errors import LackOfMemoryError, NotebookError, WorkerError, disk_advice
from valence_lib.files import temporary_folder, temporary_name, written_whole
from valence_lib.progress import Watcher
from valence_lib.warm_start import ONE_THREAD, ForkedKernel

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_SYSTEM_ERROR = re.compile(r"\[Errno (\d+)\]")
_TRACEBACK_LINES = 12
_WIDGET, _WIDGET_STATE = (
    "application/vnd.jupyter.widget-view+json",
    "application/vnd.jupyter.widget-state+json",
)
_WIDGET_NAME = re.compile(r"\b(?:IPY_MODEL_)?([0-9a-f]{32})\b")
_PROGRESS_BAR = re.compile(r"\d%\|.*\| \d+/\d+ \[")


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
    partial = temporary_name(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Sockets in a folder of their own: kernels that start side by side race neither for a port nor, as they
        # would for the default name in the working directory, for a socket.
        with temporary_folder() as sockets:
            executed = papermill.execute_notebook(
                str(notebook),
                str(partial),
                parameters=dict(parameters),
                cwd=str(notebook.parent),
                progress_bar=False,
                config=Config(
                    KernelManager={
                        "transport": "ipc",
                        "ip": f"{sockets}/kernel",
                        "connection_file": f"{sockets}/kernel.json",
                    }
                ),
                # A kernel that is shut down says so as an error; what matters of it is in the notebook.
                extra_arguments=["--log-level=CRITICAL"],
                kernel_manager_class=_WarmKernelManager,
                stdout_file=told,
                stderr_file=told,
                on_cell_execute=told.cell_begins,
                # A cell has what is left of the notebook's time; one that does not end is interrupted, or killed.
                timeout_func=None
                if deadline is None
                else lambda _: max(1, round(deadline - time.monotonic())),
                interrupt_on_timeout=False,
            )
        write_notebook(destination, normalise(executed))
        failed.unlink(missing_ok=True)
    except papermill.PapermillExecutionError as error:
        _keep_failed(partial, failed)
        trace = "\n".join(_ANSI.sub("", "\n".join(error.traceback)).splitlines()[-_TRACEBACK_LINES:])
        system = _SYSTEM_ERROR.match(error.evalue)
        if system and (advice := disk_advice(int(system[1]))):
            trace += f"\n{advice}"
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
        self._watcher, self.number, self.cells = (
            watcher,
            0,
            len([source for source in code if source.strip()]) + 1,
        )

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
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]  # papermill's, of a cell that has none
        if _is_injected(cell):
            cell.id = "injected-parameters"
        if cell.cell_type == "code":
            cell.outputs = _joined_streams(
                [output for output in cell.outputs if not _is_progress_bar(output)]
            )
    return _with_numbered_widgets(notebook)


def _is_progress_bar(output: NotebookNode) -> bool:
    """Whether an output is one of tqdm's, which shows how fast this machine was."""
    data = output.get("data", {})
    return _WIDGET in data and bool(_PROGRESS_BAR.search("".join(data.get("text/plain", ""))))


def _with_numbered_widgets(notebook: NotebookNode) -> NotebookNode:
    """The notebook with widgets named by their order instead of at random; those that no output shows go."""
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
    text = nbformat.writes(notebook)
    renamed = nbformat.reads(
        re.sub(r"[0-9a-f]{32}", lambda found: numbered.get(found[0], found[0]), text), as_version=4
    )
    if not numbered:
        del renamed.metadata["widgets"]
        return renamed
    state = renamed.metadata["widgets"][_WIDGET_STATE]["state"]
    for name in set(state) - set(numbered.values()):
        del state[name]
    return renamed


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
    read_cells(notebook)  # says what it is instead, and whether another is meant
    try:
        return nbformat.read(notebook, as_version=4)
    except (ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError) as error:
        # JSON that is no notebook breaks nbformat in any of these ways, before it comes to validate.
        raise NotebookError(f"{str(notebook)!r} is not a notebook: {error}") from error
