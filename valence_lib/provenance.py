"""Digests of code, and the environment that a result was computed in.

Comments, docstrings and layout do not enter a digest of code. Of this package, a notebook depends on the
modules that its imports reach.
"""

import ast
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
LOCK = "requirements.lock"
# `registry` counts by the values that a job takes from it. This module computes digests, and no result.
_NOT_BY_SOURCE = ("valence_lib.registry", "valence_lib.provenance")
# Packages that compute the numbers and pictures of artefacts.
_DISTRIBUTIONS = (
    *("torch", "numpy", "scipy", "numba", "librosa", "soundfile", "soxr", "pandas", "scikit-learn"),
    *("matplotlib", "seaborn", "pillow", "safetensors", "papermill", "ipykernel", "nbformat", "nbconvert"),
    *("pypandoc-binary", "typst", "optuna", "transformers", "av", "pyarrow", "openpyxl", "anyascii"),
)


def digest_of_content(content: Any) -> str:
    """SHA-256 of the canonical JSON of strings, numbers, lists and mappings, as 64 hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def digest_of_code(source: str) -> str:
    """SHA-256 of the syntax tree of Python code, without docstrings; of the text, where it is not Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return digest_of_content(source)
    # In a notebook, a semicolon at the end of a cell hides its value.
    hides = source.rstrip().endswith(";")
    if "__doc__" not in source:
        for node in ast.walk(tree):
            match node:
                case ast.Module(body=[_]):
                    pass  # a cell that is one string shows that string
                case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                    if ast.get_docstring(node) is not None:
                        node.body = node.body[1:]
    return hashlib.sha256((ast.dump(tree) + ";" * hides).encode()).hexdigest()


def modules_reached(sources: Iterable[str], models: Iterable[str] = ()) -> dict[str, str]:
    """The modules of this package that some code reaches through imports, each with the digest of its code.

    Imports within functions count; those under TYPE_CHECKING do not, nor do `registry` and this module.

    Args:
        sources: Python.
        models: modules that are imported by the registry's names for them.

    Returns:
        Digest by path seen from the project's folder, such as valence_lib/training/loop.py, sorted.
    """
    waiting = [name for source in sources for name in _imports(source)] + list(models)
    reached: dict[str, str] = {}
    while waiting:
        path = _file_of(waiting.pop())
        assert path is not None
        name = str(path.relative_to(PACKAGE.parent))
        if name not in reached:
            reached[name], imported = _read_module(path)
            waiting += imported
    return dict(sorted(reached.items()))


@cache
def _read_module(path: Path) -> tuple[str, tuple[str, ...]]:
    source = path.read_text(encoding="utf-8")
    return digest_of_code(source), tuple(_imports(source))


def _imports(source: str) -> list[str]:
    """Full names of this package's modules that a piece of Python imports."""
    names = _imported_names(source)
    return [name for name in names if name not in _NOT_BY_SOURCE and _file_of(name) is not None]


@cache
def _imported_names(source: str) -> tuple[str, ...]:
    lines = (line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    try:
        waiting: list[ast.AST] = [ast.parse("\n".join(lines))]
    except SyntaxError:
        return ()
    names: list[str] = []
    while waiting:
        node = waiting.pop()
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                waiting += node.orelse
                continue
            case ast.Import():
                names += [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module)):
                names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
        # Only statements import.
        waiting += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]
    return tuple(names)


def _file_of(name: str) -> Path | None:
    """The file of a module of this package; None for any other name."""
    first, *rest = name.split(".")
    if first != PACKAGE.name:
        return None
    path = PACKAGE.joinpath(*rest)
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def digest_of_lock(path: Path) -> str:
    """SHA-256 of what a lock file pins: its lines without comments, in any order."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return digest_of_content(sorted(filter(None, lines)))


# Environment variables that choose among the code paths of numerical libraries.
PROCESSOR_PATHS = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR"),
    *("NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"),
)


def environment() -> dict[str, Any]:
    """Versions, processor path and threads: what could change the bytes of a result.

    It names neither the machine nor its user.
    """
    import llvmlite.binding
    import numba
    import scipy.linalg  # brings scipy's own OpenBLAS beside numpy's
    import torch
    from threadpoolctl import threadpool_info

    del scipy
    blas = {pool["architecture"] for pool in threadpool_info() if pool["internal_api"] == "openblas"}
    return {
        "python": python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: version_of(name) or "not installed" for name in _DISTRIBUTIONS},
        "torch computes with": torch.backends.cpu.get_cpu_capability(),
        "numba compiles for": getattr(numba.config, "CPU_NAME", None) or llvmlite.binding.get_host_cpu_name(),
        "OpenBLAS computes with": ", ".join(sorted(blas)),
        "requested": {name: os.environ[name] for name in PROCESSOR_PATHS if name in os.environ},
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "threads of a training": 1,
    }


def version_of(distribution: str) -> str | None:
    """Version of an installed package; None where it is not installed.

    Of torch, the build is part of it: PyPI's build with CUDA is 2.13.0+cu130, though its metadata say 2.13.0.
    """
    if distribution == "torch":
        import torch

        return str(torch.__version__)
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def python_version() -> str:
    """Of the interpreter, to the third number."""
    return ".".join(map(str, sys.version_info[:3]))
