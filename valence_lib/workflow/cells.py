"""The cells and parameters of a notebook, read as plain JSON, since nbformat takes long to import."""

import ast
import difflib
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from valence_lib.errors import NotebookError, unknown_name


class Cell(NamedTuple):
    """One cell without its outputs."""

    kind: str  # "code" or "markdown"
    source: str
    tags: tuple[str, ...]
    rest: str  # id, metadata and attachments, as JSON


def read_cells(notebook: Path) -> tuple[Cell, ...]:
    """The cells of a notebook.

    Raises:
        NotebookError: there is no such file, or it is not a notebook.
    """
    if not notebook.is_file():
        names = [path.name for path in notebook.parent.glob("*.ipynb")]
        near = difflib.get_close_matches(notebook.name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise NotebookError(f"there is no notebook {str(notebook)!r}.{hint}")
    try:
        return _parse(notebook.read_text(encoding="utf-8"))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise NotebookError(f"{str(notebook)!r} is not a notebook: {error}") from error


@cache
def _parse(text: str) -> tuple[Cell, ...]:
    return tuple(
        Cell(
            cell["cell_type"],
            "".join(cell["source"]),
            tuple(cell.get("metadata", {}).get("tags", ())),
            json.dumps({key: cell[key] for key in ("id", "metadata", "attachments") if cell.get(key)}),
        )
        for cell in json.loads(text)["cells"]
    )


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Names and default values of the notebook's cell tagged "parameters".

    Raises:
        NotebookError: there is no notebook, not exactly one such cell, or more in it than literals.
    """
    cells = [cell for cell in read_cells(notebook) if "parameters" in cell.tags]
    if len(cells) != 1:
        raise NotebookError(
            f"{notebook.name} has {len(cells)} cells tagged 'parameters'; expected exactly one."
        )
    expected = "expected only names with literal values, as in seed = 0."
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise NotebookError(
            f"the parameters cell of {notebook.name} is not Python ({error}); {expected}"
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
                f"the parameters cell of {notebook.name} holds {ast.unparse(statement)!r}; {expected}"
            ) from error
    return parameters


def complete_parameters(notebook: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all parameters of a notebook: those given, else the defaults.

    Raises:
        NotebookError: a given name is unknown (the message names the nearest), or a value is of another type.
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
    return {**defaults, **given}


def parse_parameter(notebook: Path, name: str, text: str) -> Any:
    """A parameter given as text, as on a command line, in the type of its default.

    Raises:
        NotebookError: the name is unknown, or the text is not of that type.
    """
    if isinstance(read_parameters(notebook).get(name), str):
        return text
    value: Any = text
    with suppress(ValueError, TypeError, SyntaxError):
        value = ast.literal_eval(text)
    return complete_parameters(notebook, {name: value})[name]
