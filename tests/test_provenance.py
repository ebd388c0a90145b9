"""Digests of code: what a program does counts, how it is written down does not."""

import json
import subprocess
import sys

import pytest

from valence_lib.provenance import (
    digest_of_code,
    digest_of_content,
    digest_of_lock,
    environment,
    modules_reached,
)

CODE = """
import math

class Disc:
    radius = 1.0

    def area(self):
        return math.pi * self.radius**2
"""


@pytest.mark.parametrize(
    "same",
    [
        "# a comment\n" + CODE,
        CODE.replace("radius**2", "(self.radius ** 2)").replace("self.(self.", "(self."),
        CODE.replace("class Disc:", 'class Disc:\n    """A disc."""\n'),
        CODE.replace("(self):", '(self):\n        """Its area."""'),
        '"""Discs."""\n' + CODE,
        CODE.replace("\n    def", "\n\n\n    def"),
    ],
)
def test_comments_docstrings_and_layout_are_no_code(same):
    assert same != CODE
    assert digest_of_code(same) == digest_of_code(CODE)


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace("1.0", "1.5"),
        CODE.replace("1.0", "1"),
        CODE.replace("Disc", "Disk"),
        CODE.replace("**2", "**3"),
        CODE + "print(1)",
        CODE.replace("1.0", "'1.0'"),
        # A docstring that the program reads is code.
        CODE.replace("class Disc:", 'class Disc:\n    """A disc."""\n') + "print(Disc.__doc__)",
    ],
)
def test_what_a_program_does_is_code(other):
    assert digest_of_code(other) != digest_of_code(CODE)


def test_a_cell_that_is_one_string_shows_it():
    assert digest_of_code("'one'") != digest_of_code("'two'")


def test_what_is_no_python_is_its_text():
    assert digest_of_code("%matplotlib inline") == digest_of_content("%matplotlib inline")
    assert digest_of_code("%time 1") != digest_of_code("%time 2")


def test_the_digest_of_content_is_of_canonical_json():
    assert digest_of_content({"b": 1, "a": [1, None]}) == digest_of_content({"a": [1, None], "b": 1})
    assert digest_of_content([1]) != digest_of_content(["1"])
    with pytest.raises(ValueError, match="JSON"):
        digest_of_content(float("nan"))


def test_imports_are_followed_wherever_they_stand():
    reached = modules_reached(["def f():\n    from valence_lib.preprocess import splits"])
    assert list(reached) == [
        "valence_lib/errors.py",
        "valence_lib/preprocess/__init__.py",
        "valence_lib/preprocess/splits.py",
        "valence_lib/settings.py",
    ]
    # By way of report, which imports training only within a function.
    assert "valence_lib/training/loop.py" in modules_reached(
        ["from valence_lib.report.folder import load_training_data"]
    )
    assert modules_reached(["import numpy\nfrom pathlib import Path"]) == {}


def test_what_only_a_type_checker_imports_is_not_reached():
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from valence_lib import errors"
    assert modules_reached([source]) == {}


def test_the_registry_counts_by_its_values_and_models_by_name():
    reached = modules_reached(
        ["from valence_lib.models.build import build_model"], ["valence_lib.models.cnn"]
    )
    assert "valence_lib/registry.py" not in reached
    assert {"valence_lib/models/build.py", "valence_lib/models/cnn.py"} <= set(reached)
    assert "valence_lib/models/lstm1.py" not in reached


def test_what_a_lock_file_pins_is_its_lines(tmp_path):
    path = tmp_path / "requirements.lock"
    path.write_text("# made by pip\nnumpy==2.4.6\ntorch==2.13.0  # CPU\n")
    first = digest_of_lock(path)
    path.write_text("torch==2.13.0\n\nnumpy==2.4.6\n")
    assert digest_of_lock(path) == first
    path.write_text("torch==2.13.1\nnumpy==2.4.6\n")
    assert digest_of_lock(path) != first


def test_the_environment_is_the_same_however_a_process_started():
    program = "import json; from valence_lib.provenance import environment; print(json.dumps(environment()))"
    warm = "import sklearn.linear_model, librosa, matplotlib.pyplot; " + program
    found = [
        subprocess.run([sys.executable, "-c", p], capture_output=True, text=True, check=True)
        for p in (program, warm)
    ]
    assert found[0].stdout == found[1].stdout
    import torch

    content = json.loads(found[0].stdout)
    assert content["packages"]["torch"] == torch.__version__
    assert content["torch computes with"] == torch.backends.cpu.get_cpu_capability()


def test_the_version_of_torch_names_its_build(monkeypatch):
    # The metadata of PyPI's build with CUDA do not.
    monkeypatch.setattr("torch.__version__", "2.13.0+cu130")
    monkeypatch.setattr("valence_lib.provenance.version", lambda name: "2.13.0")
    assert environment()["packages"]["torch"] == "2.13.0+cu130"


def test_the_environment_says_which_way_of_computing_was_asked_for(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert environment()["requested"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
