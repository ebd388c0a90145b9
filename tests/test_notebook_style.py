"""The style of the committed notebooks, checked without executing them."""

import ast
import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

MACHINE_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:home|root|tmp|Users|private|var|opt|usr|mnt|media|srv|work|data)/[^\s\"'<>)]*"
    r"|(?<![A-Za-z])[A-Za-z]:\\{1,2}\w{2}[^\s\"'<>)]*"
)
EMBEDDED_DATA = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]*")
HTML_IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
HTML_ALT = re.compile(r"\balt\s*=\s*(?:\"\s*[^\s\"]|'\s*[^\s'])", re.IGNORECASE)
MARKDOWN_IMAGE_WITHOUT_ALT = re.compile(r"!\[\s*\]\([^)]*\)")


def problems(notebook: nbformat.NotebookNode) -> list[str]:
    """What is wrong, each with the position of its cell among all cells, from 1."""
    found, executed = [], 0
    for position, cell in enumerate(notebook.cells, start=1):
        texts = [cell.source]
        if not cell.source.strip():
            found.append(f"cell {position} is empty")
        if cell.cell_type == "code":
            executed += 1
            if cell.execution_count != executed:
                found.append(f"cell {position} has execution count {cell.execution_count}, not {executed}")
            found += [f"cell {position} defines {name}" for name in definitions(cell.source)]
            for output in cell.outputs:
                if output.get("name") == "stderr":
                    found.append(f"cell {position} prints {output.text.strip()!r} to stderr")
                texts += texts_of(output)
                images = [kind for kind in output.get("data", {}) if kind.startswith("image/")]
                if any(not output.metadata.get(kind, {}).get("alt", "").strip() for kind in images):
                    found.append(f"cell {position} shows a figure without alternative text")
        for text in texts:
            text = EMBEDDED_DATA.sub("", text)
            found += [f"cell {position} holds the path {path}" for path in MACHINE_PATH.findall(text)]
            images = [image for image in HTML_IMAGE.findall(text) if not HTML_ALT.search(image)]
            images += MARKDOWN_IMAGE_WITHOUT_ALT.findall(text)
            found += [f"cell {position} shows {image} without alternative text" for image in images]
    return found


def definitions(source: str) -> Iterator[str]:
    """The names of functions and classes, which belong into valence_lib."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def texts_of(output: nbformat.NotebookNode) -> list[str]:
    """All of an output but pictures."""
    data = {
        kind: content for kind, content in output.get("data", {}).items() if not kind.startswith("image/")
    }
    return [
        output.get("text", ""),
        *(text if isinstance(text, str) else json.dumps(text) for text in data.values()),
    ]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_committed_notebooks_have_no_problem(notebook):
    assert problems(nbformat.read(notebook, as_version=4)) == []


def display(cell: Any, kind: str, content: str, **metadata: str) -> None:
    cell.outputs.append(nbformat.v4.new_output("display_data", {kind: content}, metadata={kind: metadata}))


def printed(cell: Any, text: str, name: str = "stdout") -> None:
    cell.outputs.append(nbformat.v4.new_output("stream", name=name, text=text))


NOTEBOOK = nbformat.v4.new_notebook(
    cells=[
        nbformat.v4.new_markdown_cell("# A notebook"),
        nbformat.v4.new_code_cell("import numpy as np", execution_count=1),
        nbformat.v4.new_code_cell("show()", execution_count=2),
    ]
)
display(NOTEBOOK.cells[2], "image/png", "iVBORw0K", alt="A curve.")


@pytest.mark.parametrize(
    ("position", "change", "problem"),
    [
        (3, lambda cell: cell.update(execution_count=None), "has execution count None, not 2"),
        (3, lambda cell: cell.update(execution_count=9), "has execution count 9, not 2"),
        (1, lambda cell: cell.update(source=" \n"), "is empty"),
        (2, lambda cell: cell.update(source="def double(x): return 2 * x"), "defines double"),
        (2, lambda cell: cell.update(source="if True:\n    class Net: pass"), "defines Net"),
        (
            2,
            lambda cell: cell.update(source="folder = '/home/ann/corpus'"),
            "holds the path /home/ann/corpus",
        ),
        (1, lambda cell: cell.update(source="See /root/reports"), "holds the path /root/reports"),
        (3, lambda cell: printed(cell, "wrote /tmp/x.wav\n"), "holds the path /tmp/x.wav"),
        (3, lambda cell: printed(cell, r"C:\Users\ann\a.wav"), r"holds the path C:\Users\ann\a.wav"),
        (3, lambda cell: display(cell, "text/html", "<td>/Users/ann</td>"), "holds the path /Users/ann"),
        (
            3,
            lambda cell: printed(cell, "UserWarning: low\n", "stderr"),
            "prints 'UserWarning: low' to stderr",
        ),
        (3, lambda cell: display(cell, "image/png", "iVBORw0K"), "shows a figure without alternative text"),
        (
            3,
            lambda cell: display(cell, "image/png", "iVBORw0K", alt=" "),
            "shows a figure without alternative text",
        ),
        (
            3,
            lambda cell: display(cell, "text/html", '<img src="a.png" alt="">'),
            'shows <img src="a.png" alt=""> without alternative text',
        ),
        (1, lambda cell: cell.update(source="![](a.png)"), "shows ![](a.png) without alternative text"),
    ],
)
def test_a_problem_is_found(position, change, problem):
    notebook = copy.deepcopy(NOTEBOOK)
    change(notebook.cells[position - 1])
    assert problems(notebook) == [f"cell {position} {problem}"]


def test_harmless_texts_are_no_problem():
    notebook = copy.deepcopy(NOTEBOOK)
    notebook.cells[1].source = "folder, page = '../reports/small', 'https://example.org/home/page'"
    printed(notebook.cells[2], "epoch 1/4, 12 clips/s, see data/x")
    display(notebook.cells[2], "text/html", '<audio src="data:audio/wav;base64,AAA+/tmp/AAA="></audio>')
    display(notebook.cells[2], "text/html", '<img src="a.png" alt="A curve.">')
    assert problems(notebook) == []
