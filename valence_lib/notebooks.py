"""Strict runs of parameterised notebooks by papermill.

papermill itself only logs an unknown parameter, takes any type, and leaves a half-executed notebook
at the final path. Here an unknown or ill-typed parameter stops before anything runs, and the executed
notebook appears whole or not at all. What would differ between two equal runs is taken out of it.
"""

import ast
import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode

from valence_lib.errors import NotebookError, unknown_name
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
    cells = [cell for cell in _read(notebook).cells if "parameters" in cell.metadata.get("tags", ())]
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


def run_notebook(notebook: Path, destination: Path, parameters: Mapping[str, Any]) -> None:
    """Execute a notebook with parameters; write it to `destination`, whole or not at all.

    Its working directory is its own folder, as in Jupyter and nbval.

    Raises:
        NotebookError: a parameter is unknown or ill-typed, the kernel dies, or a cell fails: the message names the
            cell and ends in its traceback, and the notebook as far as it came lies beside `destination`,
            under a name that ends in .failed.ipynb.
    """
    check_parameters(notebook, parameters)
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    os.environ.update(ONE_THREAD)
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
            )
        write_notebook(destination, normalise(executed))
        failed.unlink(missing_ok=True)
    except papermill.PapermillExecutionError as error:
        partial.replace(failed)
        trace = "\n".join(_ANSI.sub("", "\n".join(error.traceback)).splitlines()[-_TRACEBACK_LINES:])
        raise NotebookError(
            f"{notebook.name} failed in cell [{error.exec_count}]:\n{trace}\nOpen it with: jupyter lab {failed}"
        ) from error
    except (DeadKernelError, NoSuchKernel) as error:
        raise NotebookError(
            f"{notebook.name} lost its kernel or found none ({error}); expected a Python kernel that lives to the "
            "end. A kernel that dies often lacked memory: run fewer at a time (JOBS=1)."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


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
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.id = "injected-parameters"
        if cell.cell_type == "code":
            cell.outputs = _joined_streams(cell.outputs)
    return notebook


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


def _read(notebook: Path) -> NotebookNode:
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
