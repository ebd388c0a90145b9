"""What is written in a notebook: its cells, and its parameters with their values.

It is read as the JSON that it is, since the libraries that check a notebook's format take long to import.
"""

import ast
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from valence_lib.errors import NotebookError, unknown_name


class Cell(NamedTuple):
    """One cell as it is written, without what it gave."""

    kind: str  # "code" or "markdown"
    source: str
    tags: tuple[str, ...]
    rest: str  # what else is written in it, as JSON


def read_cells(notebook: Path) -> list[Cell]:
    """The cells of a notebook.

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
        return [
            Cell(
                cell["cell_type"],
                "".join(cell["source"]),
                tuple(cell.get("metadata", {}).get("tags", ())),
                json.dumps({key: cell[key] for key in ("id", "metadata", "attachments") if cell.get(key)}),
            )
            for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        ]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise NotebookError(f"{str(notebook)!r} is not a notebook: {error}") from error


def read_parameters(notebook: Path) -> dict[str, Any]:
    """Names and default values of the notebook's cell tagged "parameters".

    Raises:
        NotebookError: there is no notebook, not exactly one such cell, or something in it is not an
            assignment of a literal.
    """
    cells = [cell for cell in read_cells(notebook) if "parameters" in cell.tags]
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
    return [cell.source for cell in read_cells(notebook) if cell.kind == "code"]


def text_of(notebook: Path) -> list[str]:
    """All that is written in a notebook: kind, source, name and metadata of every cell, in their order.

    Raises:
        NotebookError: there is no notebook.
    """
    return [f"{cell.kind} {cell.rest}: {cell.source}" for cell in read_cells(notebook)]


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
