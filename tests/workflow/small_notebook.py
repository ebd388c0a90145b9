"""Small notebooks for tests."""

from collections.abc import Sequence
from pathlib import Path

import nbformat


def small_notebook(path: Path, *sources: str, parameters: Sequence[str] = ("seed = 0",)) -> Path:
    """Write a notebook whose first cells, those of parameters, are tagged."""
    cells = [nbformat.v4.new_code_cell(text, metadata={"tags": ["parameters"]}) for text in parameters]
    cells += [nbformat.v4.new_code_cell(text) for text in sources]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path
