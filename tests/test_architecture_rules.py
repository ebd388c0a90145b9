"""Rules of the architecture: imports go one way, public names are documented, and imports are cheap."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "valence_lib"
ROOT = PACKAGE.parent
# The order of the data. A module imports from its own sub-package and from those above it; the modules at the
# top level import from those named before them.
TOP_MODULES = ["errors", "settings", "files", "registry", "provenance"]
SUB_PACKAGES = ["corpora", "features", "models", "preprocess", "training", "evaluation", "report", "workflow"]
ORDER = [*TOP_MODULES, *SUB_PACKAGES, "arguments", "__main__"]
MOST_LINES = 450
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


def _place(path):
    """The sub-package of a file, or its name at the top level."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _places_imported(path):
    """The sub-packages and top-level modules that a file imports from."""
    for name in _imported(path):
        package, _, rest = name.partition(".")
        if package == "valence_lib" and rest.split(".")[0] in ORDER:
            yield rest.split(".")[0]


def test_every_module_is_in_a_known_place():
    assert {_place(path) for path in FILES} == {*ORDER, "__init__"}


@every_file
def test_a_module_imports_only_from_above(path):
    place = _place(path)
    above = [] if place == "__init__" else ORDER[: ORDER.index(place)]
    own = {place} if place in SUB_PACKAGES else set()
    assert sorted(set(_places_imported(path)) - set(above) - own) == []


def test_the_rule_sees_imports():
    # Guards the test above, which an empty list would pass.
    assert {"errors", "settings", "models", "preprocess", "training"} <= set(
        _places_imported(PACKAGE / "training" / "loop.py")
    )
    assert "workflow" in set(_places_imported(PACKAGE / "__main__.py"))  # within a function


@pytest.mark.parametrize("package", SUB_PACKAGES)
def test_a_sub_package_holds_a_docstring_and_nothing_else(package):
    # An import through it would put the whole sub-package into every digest.
    for path in (PACKAGE / package).rglob("__init__.py"):
        assert [type(node) for node in _tree(path).body] == [ast.Expr], path


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("[1-9]_*.ipynb")), ids=lambda p: p.stem)
def test_the_notebooks_of_a_report_import_by_module(notebook):
    # The names that `valence_lib` offers lazily are seen by no digest of code.
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    whole = [alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in whole if name.startswith("valence_lib")]
    assert not [node for node in imports if isinstance(node, ast.ImportFrom) and node.module == "valence_lib"]


@every_file
def test_no_module_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@every_file
def test_nothing_imports_from_the_tests_or_by_star(path):
    own = {file.stem for file in Path(__file__).parent.rglob("*.py")}
    for name in _imported(path):
        assert name.split(".")[0] not in {"tests", "conftest", *own}
        assert not name.endswith(".*")


@every_file
def test_every_public_name_is_documented(path):
    tree = _tree(path)
    assert ast.get_docstring(tree), f"{path.name} has no docstring"
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    documented = {node.name for node in functions if ast.get_docstring(node)}

    def undocumented(node, prefix="", overrides=False):
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.ClassDef | ast.FunctionDef) or child.name.startswith("_"):
                continue
            # A method of a subclass has the docstring of the method that it overrides.
            if not ast.get_docstring(child) and not (overrides and child.name in documented):
                yield prefix + child.name
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child, f"{prefix}{child.name}.", bool(child.bases))

    assert list(undocumented(tree)) == []


def test_no_module_is_a_collection():
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
def test_the_package_and_its_command_import_nothing_heavy(module):
    # In a fresh interpreter: in this one, other tests have imported everything.
    program = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY})))"
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert finished.stdout.split() == []


# What takes long to import, and the notebooks whose import cell needs it at once. What only a page, a run
# from outside, or one figure needs stands nowhere: it is imported there.
NEEDED_BY = {
    "torch": ("2_experiment", "4_error_analysis", "5_report", "explore", "sweep"),
    "matplotlib": ("1_preprocess", "2_experiment", "4_error_analysis", "5_report", "explore", "sweep"),
    "optuna": ("sweep",),
} | dict.fromkeys(
    (
        *("numba", "seaborn", "scipy.stats", "sklearn", "librosa", "soundfile"),
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
    elsewhere = [path for path in found if _place(path) not in ("models", "training")]
    assert {str(path.relative_to(PACKAGE)) for path in elsewhere} == {
        *("features/speaker_encoder.py", "features/encoders.py"),
        "report/architecture.py",
        "provenance.py",  # asks torch how it computes, and imports it only then
    }


def test_nothing_is_imported_by_a_name_that_digests_of_code_do_not_see():
    # But for models and streams, whose jobs name them, the lazy names of the package, which no module of it
    # uses, and the fork server, which computes nothing.
    dynamic = [path for path in FILES if "import_module" in path.read_text(encoding="utf-8")]
    assert {str(path.relative_to(PACKAGE)) for path in dynamic} == {
        *("__init__.py", "models/build.py", "features/streams.py", "workflow/forkserver.py")
    }
