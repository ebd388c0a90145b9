"""One job of a report: what it runs, with which parameters, on which files, and what makes it stale."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valence_lib import provenance
from valence_lib.errors import RunError
from valence_lib.workflow.cells import complete_parameters, read_cells

REQUEST_FILE = "request.json"  # in the report's folder: the request and its table of jobs
CORPUS_LINK = "corpus"  # in the report's folder: notebooks name the corpus by it, wherever it is
# Part of every fingerprint: raise it when `run_notebook` changes what executed notebooks contain.
_FORMAT = 1


def project_root() -> Path:
    """The clone of the project that holds this package, its notebooks and its workflow.

    Raises:
        RunError: the package was installed without them.
    """
    root = provenance.PACKAGE.resolve().parent
    if not (root / "workflow" / "Snakefile").is_file():
        raise RunError(
            f"{root} holds no workflow/Snakefile; reports are made from a clone of the project, "
            "installed with pip install -e . (which `make report` does)."
        )
    return root


@dataclass(frozen=True)
class Job:
    """One job of a report.

    Args:
        name: "preprocess", a run such as "CNN-default-0", "compare", ...
        program: a notebook, or a module of this package; seen from the project's folder.
        inputs: files that it reads, seen from the project's folder.
        outputs: files and folders that it makes, seen from the report's folder; first the executed notebook.
        after: names of the jobs that end before it starts.
        parameters: of the notebook.
        modules: of this package that it imports by the registry's names for them.
        values: anything else that determines its results, such as a corpus's digest.
        memory: that it may need, in MB.
        minutes: that it may take.
        priority: of the jobs that could start, those with the highest priority start first.
        cacheable: whether fingerprint and inputs determine its outputs, as they do but for a sweep's workers.
    """

    name: str
    program: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    after: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    memory: int = 2000
    minutes: int = 60
    priority: int = 0
    cacheable: bool = True

    def fingerprint(self, root: Path) -> dict[str, Any]:
        """All that determines its outputs, except for its inputs.

        Raises:
            NotebookError: the notebook cannot be read, or does not have one of the parameters.
        """
        path = root / self.program
        if path.suffix == ".ipynb":
            cells = read_cells(path)
            sources = [cell.source for cell in cells if cell.kind == "code"]
            parameters = complete_parameters(path, self.parameters)
        else:
            cells, sources, parameters = (), [path.read_text(encoding="utf-8")], {}
        return {
            "format": _FORMAT,
            "program": self.program,
            "code": provenance.digest_of_content([provenance.digest_of_code(source) for source in sources]),
            "text": provenance.digest_of_content(cells),
            "parameters": parameters,
            "modules": provenance.modules_reached(sources, self.modules),
            "values": self.values,
            "lock": provenance.digest_of_lock(root / provenance.LOCK),
            "python": provenance.python_version(),
        }
