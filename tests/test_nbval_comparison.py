"""The plugin for nbval: which differences of a notebook's outputs it finds, and which it allows."""

import base64
import copy
import os
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pytest
from nbval.plugin import get_sanitize_patterns
from nbval_comparison import (
    ADVICE,
    SHADE_TOLERANCE,
    compare_outputs,
    compare_pictures,
    compare_texts,
)
from PIL import Image

from valence_lib.workflow.notebooks import run_notebook

TESTS = Path(__file__).parent

PARAMETERS = "seed = 0\nshift = 0.0"
IMPORTS = "import numpy as np\nfrom matplotlib import pyplot as plt\nfrom valence_lib.report import rendering"
SCORE = (
    'score = 0.6 + 0.3 * np.random.default_rng(seed).random()\nprint(f"test  mse {score:.3f} of 36 clips")'
)
FIGURE = """fig, axes = plt.subplots(figsize=(4, 3))
_ = axes.plot(np.linspace(0, 1, 50), np.linspace(0, 1, 50) ** 2 + shift)
_ = axes.set(ylim=(-0.1, 1.5))
rendering.figure(fig, number="Figure 1", caption="A curve.", alt=f"A curve that ends at {1 + shift:.2f}.")"""


def executed(folder):
    """A small notebook with a printed number and a figure, executed."""
    source, target = folder / "source.ipynb", folder / "executed.ipynb"
    cells = [nbformat.v4.new_code_cell(text) for text in (PARAMETERS, IMPORTS, SCORE, FIGURE)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), source)
    run_notebook(source, target, {})
    return nbformat.read(target, as_version=4)


def run_nbval(folder):
    """The failures of the folder's notebooks under pytest: (notebook, cell) -> message, "" if it passed."""
    options = ["-p", "nbval_comparison", "-p", "no:cacheprovider", "--color=no", "--junitxml=report.xml"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-sanitize-with", TESTS / "nbval.cfg", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1, finished.stdout + finished.stderr
    return {
        (Path(case.get("classname").replace(".ipynb", "")).name, case.get("name")): case.findtext(
            "failure", ""
        )
        for case in ElementTree.parse(folder / "report.xml").iter("testcase")
    }


def as_png(shades):
    file = BytesIO()
    Image.fromarray(shades).save(file, format="png")
    return base64.b64encode(file.getvalue()).decode()


def with_other_edges(png):
    """The same picture, a pixel lower and with small random changes of every shade."""
    shades = np.asarray(Image.open(BytesIO(base64.b64decode(png))).convert("RGB"), dtype=np.int16)
    changes = np.random.default_rng(0).integers(-SHADE_TOLERANCE // 2, SHADE_TOLERANCE // 2, shades.shape)
    return as_png((np.roll(shades, 1, axis=0) + changes).clip(0, 255).astype(np.uint8))


def test_differences_are_found_when_notebooks_are_executed_again(tmp_path_factory, tmp_path):
    """All notebooks in one run of pytest, since each starts a kernel."""
    unchanged = executed(tmp_path_factory.mktemp("executed"))
    names = ("within", "1_preprocess", "beyond", "other", "seed")
    notebooks = {name: copy.deepcopy(unchanged) for name in names}
    score = unchanged.cells[2].outputs[0].text

    notebooks["within"].cells[2].outputs[0].text = score.replace("0.791", "0.812")
    picture = notebooks["within"].cells[3].outputs[0].data
    picture["image/png"] = with_other_edges(picture["image/png"])

    notebooks["1_preprocess"].cells[2].outputs[0].text = score.replace("0.791", "0.812")

    notebooks["beyond"].cells[2].outputs[0].text = score.replace("0.791", "0.813")
    notebooks["beyond"].cells[2].source += "\n# NBVAL_IGNORE_OUTPUT"
    notebooks["beyond"].cells[0].source = PARAMETERS.replace("shift = 0.0", "shift = 0.05")

    notebooks["other"].cells[2].outputs = []
    notebooks["other"].cells[3].outputs[0].data["image/png"] = as_png(np.full((300, 400, 3), 255, np.uint8))

    notebooks["seed"].cells[0].source = PARAMETERS.replace("seed = 0", "seed = 1")

    for name, notebook in notebooks.items():
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    found = run_nbval(tmp_path)

    expected = {
        ("1_preprocess", "Cell 2"): "allowed are 0.001",
        ("beyond", "Cell 2"): "allowed are 0.021",
        ("beyond", "Cell 3"): "pixels differ",
        ("other", "Cell 2"): "stdout: expected 0 outputs, found 1",
        ("other", "Cell 3"): "expected 400 by 300 pixels",
        ("seed", "Cell 2"): "expected 'test mse 0.791', found 0.754",
    }
    assert {key for key, message in found.items() if message} == set(expected)
    assert len(found) == 4 * len(notebooks)
    for key, message in expected.items():
        assert message in found[key]
        assert ADVICE in found[key]


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("mse 0.512", "mse 0.533"),  # 0.02, and a step of 0.001
        ("mse −0.512", "mse −0.491"),
        ("mse 0.51", "mse 0.54"),  # a step of 0.01
        ("training mse 710.2", "training mse 713.8"),  # 0.005 of the number, and a step of 0.1
        ("keeps 38% of", "keeps 39% of"),
        ("|  9.99|", "| 10.00|"),
        ("p = 3.14e-05", "p = 3.15e-05"),
        ("ccc 0.084 [−0.010, 0.178]", "ccc 0.084 [−0.011, 0.178]"),
        ("0.000 [−0.001, 0.002] better  0.006", "−0.001 [−0.002, 0.003] better  0.007"),
        ("0.000 [0.0, 0.2] no difference  0.006", "0.000 [0.0, 0.2] no difference  0.007"),
        (
            '0.1 [0.0, 0.2] better</td><td class="num">0.006</td>',
            '0.1 [0.0, 0.2] better</td><td class="num">0.007</td>',
        ),
        ("the same", "the same"),
    ],
)
def test_numbers_may_differ_within_their_tolerance(expected, found):
    assert compare_texts(expected, found) == []


@pytest.mark.parametrize(
    ("expected", "found", "message"),
    [
        (
            "mse 0.512",
            "mse 0.534",
            "expected 'mse 0.512', found 0.534, which differs by 0.022; allowed are 0.021",
        ),
        ("mse 0.512", "mse −0.512", "differs by 1.02"),
        ("mse 710.2", "mse 713.9", "differs by 3.7; allowed are 3.65"),
        ("keeps 38% of", "keeps 40% of", "differs by 2"),
        ("36 clips", "37 clips", "differs by 1; allowed are 0 "),
        ("659,713", "659,714", "differs by 1; allowed are 0 "),
        ("learning rate 0.001", "learning rate 0.002", "differs by 0.001; allowed are 0 "),
        ("factor 0.5", "factor 0.6", "differs by 0.1; allowed are 0 "),
        ("ccc 0.084 [−0.010, 0.178]", "ccc 0.084 [−0.032, 0.178]", "differs by 0.022; allowed are 0.021"),
        ("0.010 [0.001, 0.002] better 0.5", "0.010 [0.001, 0.002] worse 0.5", "expected '0.010 [0.001"),
        ("rate [0.001, 0.002]", "rate [0.001, 0.003]", "differs by 0.001; allowed are 0 "),
        ("0.50", "0.5", "the same number of decimals"),
        ("torch 2.13.0", "torch 2.14.0", "expected 'torch 2.13.0', found 'torch 2.14.0'"),
        ("s01_t02.flac", "s01_t03.flac", "expected 's01_t02.flac'"),
        ("a 1.05", "a 1.05 b", "expected 'a 1.05', found 'a 1.05 b'"),
    ],
)
def test_differences_of_texts_are_found(expected, found, message):
    (difference,) = compare_texts(expected, found)
    assert message in difference


def test_untrained_numbers_may_only_differ_by_rounding():
    assert compare_texts("mean 2.848", "mean 2.849", trained=False) == []
    (message,) = compare_texts("mean 2.848", "mean 2.850", trained=False)
    assert "which differs by 0.002; allowed are 0.001" in message


def test_a_picture_may_be_two_pixels_wider():
    shades = np.full((100, 200, 3), 255, np.uint8)
    shades[20:30, 40:60] = 0
    assert compare_pictures(as_png(shades), as_png(shades[:99, :198])) == []
    (message,) = compare_pictures(as_png(shades), as_png(shades[:, :197]))
    assert message == "expected 200 by 100 pixels, found 197 by 100; allowed are 2 more or fewer"


def test_pixels_are_compared_in_both_directions_and_every_colour():
    blank = np.full((100, 200, 3), 255, np.uint8)
    marked = blank.copy()
    marked[20:30, 40:60, 0] = 100
    for one, other in ((blank, marked), (marked, blank)):
        (message,) = compare_pictures(as_png(one), as_png(other))
        assert message == "200 pixels differ (1.00%), in columns 40 to 59 and rows 20 to 29; allowed are 10"


def test_the_alternative_text_of_a_figure_is_compared_and_its_width_is_not():
    def output(alt, width):
        metadata = {"image/png": {"alt": alt, "width": width}}
        return [nbformat.v4.new_output("display_data", {"text/plain": "x"}, metadata=metadata)]

    assert compare_outputs(output("MSE 0.512", 10), output("MSE 0.513", 11)) == []
    (message,) = compare_outputs(output("MSE 0.512", 10), output("MAE 0.512", 10))
    assert message.startswith("image/png metadata, output 3: expected 'MSE 0.512'")


def test_a_progress_bar_is_not_compared_and_another_widget_is():
    def output(text):
        data = {"application/vnd.jupyter.widget-view+json": {"model_id": "0f"}, "text/plain": text}
        return [nbformat.v4.new_output("display_data", data)]

    assert compare_outputs([], output("preprocess:   0%|          | 0/540 [00:00<?, ? clips/s]")) == []
    assert compare_outputs([], output("Dropdown()")) == ["text/plain: expected 0 outputs, found 1"]


def sanitized(text):
    """The text after the replacements of nbval.cfg."""
    for pattern, replacement in get_sanitize_patterns((TESTS / "nbval.cfg").read_text(encoding="utf-8")):
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            '<tr><th scope="row" class="short">Numba compiles for</th><td class="short">znver4</td></tr>',
            '<tr><th scope="row" class="short">Numba compiles for</th><td class="short">apple-m2</td></tr>',
        ),
        (
            "What  Value\n  OpenBLAS computes with  Zen\n  Threads  1",
            "What  Value\n  OpenBLAS computes with  Haswell\n  Threads  1",
        ),
        ('<td class="short">0d6d41a7b20a</td>', '<td class="short">91c69ac453a5</td>'),
        ("preprocess 1.ipynb 0d6d41a7b20a 91c69ac453a5", "preprocess 1.ipynb 1111111111e1 91c69ac453a6"),
        ("requirements.lock 2a17299aefc6, seeds 0", "requirements.lock 2a17299aefc7, seeds 0"),
        ("torch 2.13.0+cpu, numpy", "torch 2.13.0, numpy"),
    ],
)
def test_the_machine_in_the_provenance_may_differ(one, other):
    assert compare_texts(sanitized(one), sanitized(other)) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("  Threads  1", "  Threads  2"),
        ("Corpus 49b0bbf98234, requirements", "Corpus 49b0bbf98235, requirements"),
        ("torch 2.13.0+cpu, numpy", "torch 2.13.1+cpu, numpy"),
        ("pypandoc-binary 1.17, typst", "pypandoc-binary 1.18, typst"),
        ("0.512", "0.612"),
    ],
)
def test_the_rest_of_the_provenance_may_not_differ(one, other):
    assert compare_texts(sanitized(one), sanitized(other)) != []
