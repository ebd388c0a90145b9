"""The check of committed notebooks is checked: a small real notebook is spoiled in every way, and each has to be found."""

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
from nbval_teeth import (
    ABSOLUTE_TOLERANCE,
    SHADES,
    allowed_difference,
    different_outputs,
    different_pictures,
    different_texts,
    different_values,
    findings,
)
from PIL import Image

from valence_lib.notebooks import run_notebook

TESTS = Path(__file__).parent

PARAMETERS = "seed = 0\nshift = 0.0"
IMPORTS = "import numpy as np\nfrom matplotlib import pyplot as plt\n\nfrom valence_lib import rendering"
SCORE = (
    'score = 0.6 + 0.3 * np.random.default_rng(seed).random()\nprint(f"test  mse {score:.3f} of 36 clips")'
)
FIGURE = """fig, axes = plt.subplots(figsize=(4, 3))
_ = axes.plot(np.linspace(0, 1, 50), np.linspace(0, 1, 50) ** 2 + shift)
_ = axes.set(ylim=(-0.1, 1.5))
rendering.figure(fig, number="Figure 1", caption="A curve.", alt=f"A curve that ends at {1 + shift:.2f}.")"""
# Where they stand among all cells.
SCORE_CELL, FIGURE_CELL = 3, 4


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """`executed(shift=0.0)`: the notebook executed, with its curve moved up; each is executed once."""
    folder = tmp_path_factory.mktemp("executed")
    known = {}

    def execute(shift=0.0):
        if shift not in known:
            parameters = PARAMETERS.replace("shift = 0.0", f"shift = {shift}")
            cells = [nbformat.v4.new_markdown_cell("# A small notebook")]
            cells += [nbformat.v4.new_code_cell(source) for source in (parameters, IMPORTS, SCORE, FIGURE)]
            cells[1].metadata["tags"] = ["parameters"]
            kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
            source, target = folder / "source.ipynb", folder / f"{len(known)}.ipynb"
            nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), source)
            run_notebook(source, target, {})
            known[shift] = nbformat.read(target, as_version=4)
        return copy.deepcopy(known[shift])

    return execute


def check(folder, *options):
    """What pytest with the plugin finds in a folder's notebooks: (notebook, item) -> why it failed, "" where it passed."""
    report = folder / "report.xml"
    places = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "nbval_teeth",
        "-p",
        "no:cacheprovider",
        "--nbval",
        "--color=no",
    ]
    command += ["--nbval-sanitize-with", str(TESTS / "nbval.cfg"), f"--junitxml={report}", *options]
    finished = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode in (0, 1), finished.stdout + finished.stderr
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        failure = case.find("failure")
        why = "" if failure is None else failure.text
        found[Path(case.get("classname").replace(".ipynb", "")).name, case.get("name")] = why
    return found


# Compared when executed


def picture_of(notebook):
    return notebook.cells[FIGURE_CELL].outputs[0].data


def replace_score(notebook, by):
    output = notebook.cells[SCORE_CELL].outputs[0]
    score = float(output.text.split()[2])
    output.text = f"test  mse {score + by:.3f} of 36 clips\n"


def smoothed_otherwise(png):
    """The same picture a pixel lower, with other shades at every edge."""
    shades = np.asarray(Image.open(BytesIO(base64.b64decode(png))).convert("RGB"), dtype=np.int16)
    shades = np.roll(shades, 1, axis=0) + np.random.default_rng(0).integers(
        -SHADES // 2, SHADES // 2, shades.shape
    )
    return as_png(shades.clip(0, 255).astype(np.uint8))


def as_png(shades):
    file = BytesIO()
    Image.fromarray(shades).save(file, format="png")
    return base64.b64encode(file.getvalue()).decode()


def test_what_nbval_lets_pass_is_found_when_the_notebook_is_executed_again(tmp_path, executed):
    """One pytest for all, since each notebook starts a kernel; so two cells are spoiled in most of them."""
    notebooks = {
        name: executed() for name in ("sound", "within", "1_preprocess", "beyond", "garbage", "other", "seed")
    }
    inside = allowed_difference("0.791")

    replace_score(notebooks["within"], by=inside)
    replace_score(notebooks["1_preprocess"], by=inside)
    picture = picture_of(notebooks["within"])
    picture["image/png"] = smoothed_otherwise(picture["image/png"])

    replace_score(notebooks["beyond"], by=inside + 0.001)
    picture_of(notebooks["beyond"])["image/png"] = picture_of(executed(shift=0.05))["image/png"]

    output = notebooks["garbage"].cells[SCORE_CELL].outputs[0]
    output.text = output.text.replace("36 clips", "37 clips")
    picture_of(notebooks["garbage"])["image/png"] = base64.b64encode(
        b"\x89PNG\r\n\x1a\n" + bytes(99)
    ).decode()

    notebooks["other"].cells[SCORE_CELL].outputs = []
    picture_of(notebooks["other"])["image/png"] = as_png(np.full((300, 400, 3), 255, np.uint8))

    notebooks["seed"].cells[1].source = PARAMETERS.replace("seed = 0", "seed = 1")

    for name, notebook in notebooks.items():
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    found = check(tmp_path)

    expected = {
        ("1_preprocess", "Cell 2"): "away, and 0.001 is allowed",
        ("beyond", "Cell 2"): f"{inside:.3g} is allowed",
        ("beyond", "Cell 3"): "pixels of the picture are unlike",
        ("garbage", "Cell 2"): "'test mse 0.791 of 37' was expected, 36 found: 1 away, and 0 is allowed",
        ("garbage", "Cell 3"): "the committed picture cannot be decoded",
        ("other", "Cell 2"): "stdout: 0 outputs were expected, 1 found; the last is 'test  mse 0.791 of",
        ("other", "Cell 3"): "a picture of 400 by 300 pixels was expected, one of",
        ("seed", "Cell 2"): "'test mse 0.791' was expected, 0.754 found",
    }
    assert {key for key, why in found.items() if why} == set(expected)
    assert {key for key in found if key[0] == "sound"} == {
        ("sound", item) for item in ("as committed", "Cell 0", "Cell 1", "Cell 2", "Cell 3")
    }
    for key, why in expected.items():
        assert why in found[key]
        assert "execute the notebook again" in found[key]


# Found without executing


def _spoil_outputs(cell, **output):
    cell.outputs.append(nbformat.v4.new_output(**output))


def _with_source(number, source):
    return lambda notebook: notebook.cells[number].update(source=source)


def _with_more(number, line):
    return lambda notebook: notebook.cells[number].update(source=f"{notebook.cells[number].source}\n{line}")


def _printed(text, name="stdout"):
    return lambda notebook: _spoil_outputs(
        notebook.cells[SCORE_CELL], output_type="stream", name=name, text=text
    )


def _shown(html):
    return lambda notebook: _spoil_outputs(
        notebook.cells[SCORE_CELL], output_type="display_data", data={"text/html": html}
    )


def _with_alt(**said):
    return lambda notebook: notebook.cells[FIGURE_CELL].outputs[0].update(metadata={"image/png": said})


def _with_cell(source, tags=()):
    def spoil(notebook):
        cell = nbformat.v4.new_code_cell(source, execution_count=5, metadata={"tags": list(tags)})
        notebook.cells.append(cell)

    return spoil


def _unexecuted(notebook):
    notebook.cells[SCORE_CELL].update(execution_count=None, outputs=[])


def _failed(notebook):
    _spoil_outputs(
        notebook.cells[3], output_type="error", ename="KeyError", evalue="'mse'", traceback=["..."]
    )


FILLER = "No description has been provided for this image"
NO_ALT = "expected what the figure shows, in words, for those who do not see it. Give it alt="
SPOILED = {
    "unexecuted": (
        _unexecuted,
        "cell 4: it was not executed; expected execution count [3]. Execute it again",
    ),
    "out_of_order": (
        lambda notebook: notebook.cells[SCORE_CELL].update(execution_count=9),
        "cell 4: it has execution count [9]; expected [3], cells executed once, in order",
    ),
    "empty": (_with_cell(" \n"), "cell 6: it is empty; expected something in every cell. Delete it"),
    "empty_text": (_with_source(0, ""), "cell 1: it is empty"),
    "no_parameters": (
        lambda notebook: notebook.cells[1].update(metadata={}),
        "has 0 cells tagged 'parameters'; expected exactly one",
    ),
    "two_parameters": (
        _with_cell("epochs = 4", tags=["parameters"]),
        "has 2 cells tagged 'parameters'; expected exactly one",
    ),
    "computed_parameter": (
        _with_source(1, "seed = int('0')"),
        "holds \"seed = int('0')\"; expected only names",
    ),
    "function": (
        _with_more(2, "def double(x): return 2 * x"),
        "cell 3: it defines the function double; expected",
    ),
    "nested_function": (
        _with_more(2, "if True:\n    async def wait(): pass"),
        "it defines the function wait",
    ),
    "class": (
        _with_more(2, "class Net: pass"),
        "it defines the class Net; expected calls of valence_lib alone",
    ),
    "lambda": (_with_more(2, "double = lambda x: 2 * x"), "it names a lambda, 'double = lambda x: 2 * x'"),
    "magic": (_with_more(2, "%matplotlib inline"), "cell 3: it is not plain Python"),
    "path_in_source": (
        _with_more(2, "folder = '/home/ann/corpus'"),
        "cell 3: its source names '/home/ann/corpus'",
    ),
    "path_in_text": (_with_source(0, "See `/root/reports`."), "cell 1: its source names '/root/reports`.'"),
    "path_in_output": (
        _printed("read /tmp/x.wav\n"),
        "cell 4: its output names '/tmp/x.wav'; expected no path",
    ),
    "path_in_html": (_shown("<td>/Users/ann/a.wav</td>"), "cell 4: its output names '/Users/ann/a.wav'"),
    "windows_path": (_printed(r"C:\Users\ann\a.wav"), r"cell 4: its output names 'C:\\Users\\ann\\a.wav'"),
    "stderr": (
        _printed("slow\n", name="stderr"),
        "cell 4: it wrote 'slow' to stderr; expected nothing there",
    ),
    "warning": (_printed("x.py:3: UserWarning: low\n"), "cell 4: its output holds 'UserWarning: low'"),
    "traceback": (
        _printed("Traceback (most recent call last):"),
        "output holds 'Traceback (most recent call last)'",
    ),
    "error": (_failed, "cell 4: it ended in KeyError: 'mse'; expected cells that run"),
    "no_alt": (_with_alt(), f"cell 5: a figure (image/png) has no alternative text; {NO_ALT}"),
    "blank_alt": (_with_alt(alt=" "), f"cell 5: a figure (image/png) has no alternative text; {NO_ALT}"),
    "filler": (_with_alt(alt=FILLER), f"cell 5: a figure (image/png) is described as {FILLER!r}; {NO_ALT}"),
    "filler_in_html": (
        _shown(f'<img src="a.png" alt="{FILLER}">'),
        f"cell 4: an image is described as {FILLER!r}",
    ),
    "html_without_alt": (
        _shown('<img src="a.png" alt="">'),
        'cell 4: the image \'<img src="a.png" alt="">\' has no',
    ),
    "markdown_without_alt": (
        _with_source(0, "![](a.png)"),
        "cell 1: the image '![](a.png)' has no alternative text",
    ),
    "excused": (
        _with_more(4, "# NBVAL_IGNORE_OUTPUT"),
        "cell 5: it is marked 'NBVAL_IGNORE_OUTPUT'; expected",
    ),
    "tagged": (_with_cell("1", tags=["nbval-skip"]), "cell 6: it is marked 'nbval-skip'; expected"),
}


def test_what_is_wrong_with_a_file_is_found_without_executing_it(tmp_path, executed):
    for name, (spoil, _) in SPOILED.items():
        notebook = executed()
        spoil(notebook)
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    nbformat.write(executed(), tmp_path / "sound.ipynb")
    found = check(tmp_path, "-k", "committed")

    assert found.pop(("sound", "as committed")) == ""
    assert set(found) == {(name, "as committed") for name in SPOILED}
    for (name, _), why in found.items():
        assert f"{name}.ipynb, " in why
        assert SPOILED[name][1] in why


@pytest.mark.parametrize(
    "harmless",
    [
        _with_more(2, "worst = sorted([3, 1], key=lambda x: -x)"),
        _with_more(2, "page = 'https://example.org/home/page'"),
        _with_more(2, "folder = '../reports/small'"),
        _printed("epoch 1/4, 12 clips/s, see data/x"),
        _shown('<audio src="data:audio/wav;base64,AAA+/tmp/AAA="></audio>'),
        _shown('<img src="a.png" alt="A curve.">'),
    ],
)
def test_what_only_looks_wrong_is_not(tmp_path, executed, harmless):
    notebook = executed()
    harmless(notebook)
    nbformat.write(notebook, tmp_path / "x.ipynb")
    assert findings(tmp_path / "x.ipynb") == []


# The comparisons by themselves


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("mse 0.512", "mse 0.533"),  # 0.02, and a step of 0.001
        ("mse −0.512", "mse −0.491"),
        ("mse 0.51", "mse 0.54"),  # a step of 0.01
        ("training mse 710.2", "training mse 713.8"),  # a share of 0.005, and a step of 0.1
        ("keeps 38% of", "keeps 39% of"),
        ("|  9.99|", "| 10.00|"),
        ("p = 3.14e-05", "p = 3.15e-05"),
        ("ccc 0.084 [−0.010, 0.178]", "ccc 0.084 [−0.011, 0.178]"),
        ("0.000 [−0.001, 0.002] tie  0.006", "−0.001 [−0.002, 0.003] tie  0.007"),
        (
            '0.1 [0.0, 0.2] tie</td><td class="num">0.006</td>',
            '0.1 [0.0, 0.2] tie</td><td class="num">0.007</td>',
        ),
        ("the same", "the same"),
    ],
)
def test_texts_may_differ_within_the_tolerance_of_their_numbers(expected, found):
    assert different_texts(expected, found) == []


@pytest.mark.parametrize(
    ("expected", "found", "why"),
    [
        ("mse 0.512", "mse 0.534", "'mse 0.512' was expected, 0.534 found: 0.022 away, and 0.021 is allowed"),
        ("mse 0.512", "mse −0.512", "1.02 away"),
        ("mse 710.2", "mse 713.9", "3.7 away, and 3.65 is allowed"),
        ("keeps 38% of", "keeps 40% of", "2 away"),
        ("36 clips", "37 clips", "1 away, and 0 is allowed"),
        ("659,713", "659,714", "1 away, and 0 is allowed"),
        ("learning rate 0.001", "learning rate 0.002", "0.001 away, and 0 is allowed"),
        ("factor 0.5", "factor 0.6", "0.1 away, and 0 is allowed"),
        ("ccc 0.084 [−0.010, 0.178]", "ccc 0.084 [−0.032, 0.178]", "0.022 away, and 0.021 is allowed"),
        ("0.010 [0.001, 0.002] tie 0.5", "0.010 [0.001, 0.002] worse 0.5", "was expected"),
        ("rate [0.001, 0.002]", "rate [0.001, 0.003]", "0.001 away, and 0 is allowed"),
        ("0.50", "0.5", "other decimals"),
        ("torch 2.13.0", "torch 2.14.0", "'torch 2.13.0' was expected, 'torch 2.14.0' found"),
        ("s01_t02.flac", "s01_t03.flac", "'s01_t02.flac' was expected"),
        ("it beats 1.05", "it ties 1.05", "'it beats 1.05' was expected, 'it ties 1.05' found"),
        ("a 1.05", "a 1.05 b", "was expected"),
    ],
)
def test_texts_may_differ_no_further(expected, found, why):
    (difference,) = different_texts(expected, found)
    assert why in difference


def test_what_no_training_goes_into_may_only_be_rounded_otherwise():
    assert different_texts("mean 2.848", "mean 2.849", trained=False) == []
    (why,) = different_texts("mean 2.848", "mean 2.850", trained=False)
    assert why == "'mean 2.848' was expected, 2.850 found: 0.002 away, and 0.001 is allowed"
    assert different_values([0.5], [0.5001], trained=False) != []


def test_values_of_json_are_compared_like_texts():
    kept = {"mse": [0.5, 1], "name": "LSTM2 0.512", "ok": True, "none": None}
    assert different_values(kept, kept | {"mse": [0.5 + 0.9 * ABSOLUTE_TOLERANCE, 1]}) == []
    for name, value in {"mse": [0.53, 1], "name": "LSTM1 0.512", "ok": 1, "none": 0}.items():
        (difference,) = different_values(kept, kept | {name: value})
        assert difference.startswith(f"[{name!r}]")
    assert different_values(kept, kept | {"mse": [0.5, 2]}) == ["['mse'][1] 1 was expected, 2 found"]
    assert different_values(kept, {}) == [f"{kept} was expected, {{}} found"]


def test_a_picture_may_be_a_pixel_wider_and_no_more():
    shades = np.full((100, 200, 3), 255, np.uint8)
    shades[20:30, 40:60] = 0
    assert different_pictures(as_png(shades), as_png(shades[:99, :198])) == []
    (why,) = different_pictures(as_png(shades), as_png(shades[:, :197]))
    assert why.startswith("a picture of 200 by 100 pixels was expected, one of 197 by 100 found")


def test_what_is_missing_or_too_much_in_a_picture_is_found_alike():
    blank = np.full((100, 200, 3), 255, np.uint8)
    marked = blank.copy()
    marked[20:30, 40:60, 0] = 100  # in one colour alone
    for one, other in ((blank, marked), (marked, blank)):
        (why,) = different_pictures(as_png(one), as_png(other))
        assert why == (
            "200 pixels of the picture are unlike (1.00%), between columns 40 and 59, rows 20 and 29; 10 are allowed"
        )


def test_the_text_beside_a_picture_is_compared_and_its_width_not():
    def output(alt, width):
        shown = {"image/png": {"alt": alt, "width": width}}
        return [nbformat.v4.new_output("display_data", {"text/plain": "x"}, metadata=shown)]

    assert different_outputs(output("MSE 0.512", 10), output("MSE 0.513", 11)) == []
    (why,) = different_outputs(output("MSE 0.512", 10), output("MAE 0.512", 10))
    assert why.startswith("text beside image/png, output 1: ['alt'] 'MSE 0.512' was expected")


def test_a_progress_bar_is_not_compared_and_another_widget_is():
    def shown(text):
        widget = {"model_id": "0f", "version_major": 2, "version_minor": 0}
        data = {"application/vnd.jupyter.widget-view+json": widget, "text/plain": text}
        return [nbformat.v4.new_output("display_data", data)]

    assert different_outputs([], shown("preprocess:   0%|          | 0/540 [00:00<?, ? clips/s]")) == []
    (why,) = different_outputs([], shown("Dropdown(options=('a', 'b'))"))
    assert why.startswith('text/plain: 0 outputs were expected, 1 found; the last is "Dropdown(')


# What nbval.cfg lets differ


def sanitised(text):
    for pattern, replacement in get_sanitize_patterns((TESTS / "nbval.cfg").read_text(encoding="utf-8")):
        text = re.sub(pattern, replacement, text)
    return text


def test_the_machines_own_share_of_the_provenance_may_differ():
    for one, other in (
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
    ):
        assert different_texts(sanitised(one), sanitised(other)) == []


def test_nothing_else_of_the_provenance_may():
    for one, other in (
        ("  Threads  1", "  Threads  2"),
        ("Corpus 49b0bbf98234, requirements", "Corpus 49b0bbf98235, requirements"),
        ("torch 2.13.0+cpu, numpy", "torch 2.13.1+cpu, numpy"),
        ("pypandoc-binary 1.17, typst", "pypandoc-binary 1.18, typst"),
        ("CNN beats 12 s", "CNN beats 13 s"),
        ("0.512", "0.612"),
    ):
        assert different_texts(sanitised(one), sanitised(other)) != []
