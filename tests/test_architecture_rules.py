"""Rules of the house that a machine can check: imports go one way, nothing is undocumented, and imports are cheap."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "valence_lib"
# A module imports only from modules before it. A new module gets its place here.
ORDER = [
    *(
        "errors",
        "settings",
        "registry",
        "files",
        "cells",
        "provenance",
        "records",
        "pickles",
        "waveforms",
        "perturbing",
        "signal_measures",
        "occlusion",
        "corpora",
        "chunks",
        "features",
        "log_mel_statistics",
        "pitch",
        "voice_statistics",
        "speaker_encoder",
        "encoders",
        "opensmile_features",
        "streams",
        "store",
        "inspection",
    ),
    *(
        "splits",
        "divisions",
        "protocols",
        "batches",
        "pooling",
        "recurrence",
        "models",
        "runs",
        "predicting",
        "training",
        "metrics",
        "fitting",
        "experiments",
        "listening",
        "sweeping",
        "evaluation",
        "agreement",
        "calibration",
        "near_duplicates",
        "pseudo_speakers",
    ),
    *("figures", "architecture"),
    *(
        "tables",
        "error_groups",
        "report",
        "leakage",
        "results",
        "sentences",
        "rendering",
        "exploring",
        "warm_start",
        "progress",
        "notebooks",
    ),
    *("jobs", "slurm", "building", "verifying"),
    "__main__",
]
# The models' modules are rooms of one floor: they import from rows above "models", and from each other what they share.
MODULES = sorted({*(path.stem for path in PACKAGE.glob("*.py")), "models"} - {"__init__"})
FILES = sorted(PACKAGE.rglob("*.py"))

every_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])


def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(path):
    """Full names of all that a file imports, anywhere in it."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively; write valence_lib in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _modules_imported(path):
    """Names of this package's modules that a file imports; a name of `valence_lib` itself is none."""
    for name in _imported(path):
        package, _, rest = name.partition(".")
        if package == "valence_lib" and rest.split(".")[0] in {*MODULES, "demo"}:
            yield rest.split(".")[0]


def test_every_module_has_its_place():
    assert sorted(set(MODULES) - set(ORDER)) == []
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_rows_above_it(module):
    above = ORDER[: ORDER.index(module)]
    shared = {"models"} if module == "models" else set()
    files = sorted((PACKAGE / module).glob("*.py")) or [PACKAGE / f"{module}.py"]
    assert sorted({name for file in files for name in _modules_imported(file)} - set(above) - shared) == []


def test_the_rule_sees_imports():
    # Guards the test above, which an empty list would pass.
    assert {"errors", "settings", "models", "runs", "store"} <= set(
        _modules_imported(PACKAGE / "training.py")
    )
    assert "notebooks" in set(_modules_imported(PACKAGE / "__main__.py"))  # within a function


@every_file
def test_nothing_imports_from_the_tests_or_by_star(path):
    own = {file.stem for file in Path(__file__).parent.glob("*.py")}
    for name in _imported(path):
        assert name.split(".")[0] not in {"tests", "conftest", *own}
        assert not name.endswith(".*")


@every_file
def test_every_public_name_is_documented(path):
    tree = _tree(path)
    assert ast.get_docstring(tree), f"{path.name} has no docstring"

    def undocumented(node, prefix=""):
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            overload = any(
                isinstance(d, ast.Name) and d.id == "overload" for d in getattr(child, "decorator_list", ())
            )
            if child.name.startswith("_") or overload:
                continue
            if not ast.get_docstring(child):
                yield prefix + child.name
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child, f"{prefix}{child.name}.")

    assert list(undocumented(tree)) == []


def test_no_room_is_for_everything():
    assert not {"utils", "util", "helpers", "helper", "common", "misc"} & {path.stem for path in FILES}


@every_file
def test_no_file_holds_a_path_of_one_machine(path):
    text = path.read_text(encoding="utf-8")
    assert not [place for place in ("/home/", "/Users/", "/work/", "C:\\") if place in text]


HEAVY = (
    "torch",
    "librosa",
    "numba",
    "matplotlib",
    "pandas",
    "scipy",
    "sklearn",
    "papermill",
    "soundfile",
    "optuna",
)


@pytest.mark.parametrize("module", ["valence_lib", "valence_lib.__main__"])
def test_the_front_door_imports_nothing_heavy(module):
    # In a fresh interpreter: in this one, other tests have imported everything.
    program = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY})))"
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert finished.stdout.split() == []


# What takes long to import, and the notebooks whose import cell needs it at once. What only a page, a run from
# outside, or one figure needs stands nowhere: it is imported there.
NEEDED_BY = {
    "torch": ("2_experiment", "4_error_analysis", "5_report", "explore", "sweep"),
    "matplotlib": ("1_preprocess", "2_experiment", "4_error_analysis", "5_report", "explore", "sweep"),
    "optuna": ("sweep",),
} | dict.fromkeys(
    (
        *("numba", "seaborn", "scipy.stats", "sklearn", "librosa", "soundfile", "pybtex"),
        *("jsonschema", "nbformat", "nbconvert", "pypandoc", "typst", "papermill", "snakemake"),
    ),
    (),
)


@pytest.mark.parametrize(
    "notebook", sorted((PACKAGE.parent / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem
)
def test_a_notebook_imports_nothing_heavy_that_it_does_not_need(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    statements = [statement for source in sources for statement in ast.parse(source).body]
    imports = [ast.unparse(node) for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
    program = "\n".join([*imports, "import sys", f"print(*sorted(set(sys.modules) & {set(NEEDED_BY)}))"])
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert finished.stdout.split() == sorted(n for n, users in NEEDED_BY.items() if notebook.stem in users)


def test_only_models_and_their_users_need_torch():
    found = {path for path in FILES if any(name.split(".")[0] == "torch" for name in _imported(path))}
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in found} <= {
        "batches", "pooling", "recurrence", "models", "runs", "predicting", "training", "fitting", "experiments", "listening",
        "sweeping", "architecture", "speaker_encoder", "encoders",
        "provenance",  # asks torch how it computes, and imports it only then
    }  # fmt: skip


def test_nothing_is_imported_by_a_name_that_digests_of_code_do_not_see():
    # But for the models and streams, whose jobs name them, and the warm process, which computes nothing.
    dynamic = {
        path.relative_to(PACKAGE) for path in FILES if "import_module" in path.read_text(encoding="utf-8")
    }
    assert {str(path) for path in dynamic} == {"models/__init__.py", "streams.py", "warm_start.py"}
