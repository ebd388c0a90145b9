"""A pytest plugin on top of nbval that looks at what nbval lets pass: pictures, numbers, and how a notebook is kept.

nbval executes a committed notebook again and compares its outputs as texts, never its pictures. With this plugin
(`PYTHONPATH=tests pytest -p nbval_teeth --nbval ...`) pictures are compared by their pixels and numbers within the
tolerances below, and one more item for each notebook, "as committed", reads what is in the file without running it.
"""

import ast
import base64
import binascii
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbval.plugin import IPyNbCell, IPyNbFile, comment_markers, metadata_tags
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from valence_lib.cells import read_parameters
from valence_lib.errors import NotebookError

# Numbers. Another kind of processor adds up in another order, and a training makes more of it with every step. Between
# two ways of one processor (make nbval-across) no number of the small report differed by more than 0.011, an end of an
# interval of the CCC; this is about twice that. Larger numbers may differ by a share of themselves.
ABSOLUTE_TOLERANCE = 0.02
RELATIVE_TOLERANCE = 0.005
# What no training goes into is the same on every processor, but for how it is rounded.
NOTHING_TRAINED = ("1_preprocess.ipynb",)
# A printed number is rounded, so that two which hardly differ may be printed a step of the last digit apart. Where that
# step is a tenth of the number or more (0.5, 0.001, 1.0), this would excuse everything; such numbers, most of them
# settings, have to be the same, and so have whole numbers, which count something. What has an interval beside it is no
# setting, however small.
COARSEST_STEP = 0.1

# Pictures, in shades from 0 to 255. Lines and letters may lie a pixel beside where they lay, and be smoothed otherwise.
REACH_PIXELS = 1
SHADES = 32
# How much of a picture may lie outside of that. A digit has 60 pixels of half a million, and figures write scores beside
# their marks; between the two ways of one processor, 0.0003 was the most. A curve that moves leaves ten times this.
SHARE_OF_PIXELS = 5e-4
# Pictures are cut to what is drawn, which a letter's edge can widen by a pixel on either side.
SIZE_PIXELS = 2

MEND = (
    "If the new output is right, execute the notebook again and commit it (make notebooks); otherwise look for what "
    "changed it."
)

_NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w|\.\d)")
# A number with its interval and, in a comparison, the verdict and the p value after it: "−0.010 [−0.047, 0.027] tie 0.742".
_SCORE = r"[-−]?\d+\.\d+"
_ESTIMATE = re.compile(
    rf"{_SCORE} \[{_SCORE}, {_SCORE}\](?: (?:better|worse|tie)(?:</td><td class=\"num\">|[ \t]+){_SCORE})?"
)
_BLANKS = re.compile(r"[ \t]+")
# The name of a widget's model, which is random.
_WIDGET = "application/vnd.jupyter.widget-view+json"
# tqdm's, which says how fast this machine is; `valence notebook` takes it out.
_PROGRESS_BAR = re.compile(r"\d+%\|.*\|.*\[.*\]")
_MOST_SHOWN = 4


# Numbers


def allowed_difference(
    expected: str, percent: bool = False, trained: bool = True, estimate: bool = False
) -> float:
    """By how much another number may differ from one that is printed so; 0 where it may not.

    Args:
        expected: as printed, "0.512", "−3.1e-5".
        percent: whether a percent sign follows, so that a whole number is a rounded one.
        trained: whether a training may have gone into it.
        estimate: whether it has an interval, or is an end of one, so that it is no setting.
    """
    decimals, exponent = _decimals(expected), expected.lower().partition("e")[2]
    if not decimals and not exponent and not percent:
        return 0.0
    step = 10.0 ** (int(exponent or 0) - decimals)
    size = abs(_value(expected))
    if step >= COARSEST_STEP * size and not estimate:
        return 0.0
    return step + _tolerance(size, trained)


def _tolerance(size: float, trained: bool) -> float:
    return max(ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE * size) if trained else 0.0


def _decimals(number: str) -> int:
    return len(number.lower().partition("e")[0].partition(".")[2])


def _value(number: str) -> float:
    return float(number.replace("−", "-"))


def different_texts(expected: str, found: str, trained: bool = True) -> list[str]:
    """What differs between two texts more than it may, in words; nothing where they are alike.

    Between numbers, which may differ by `allowed_difference`, texts have to be equal, but for how many blanks stand in
    a row: a column is as wide as its widest number.
    """
    if expected == found:
        return []
    words, other_words = (
        [_BLANKS.sub(" ", part) for part in _NUMBER.split(text)] for text in (expected, found)
    )
    if words != other_words:
        return [_first_difference(_BLANKS.sub(" ", expected), _BLANKS.sub(" ", found))]
    estimates = [estimate.span() for estimate in _ESTIMATE.finditer(expected)]
    differences = []
    for was, now in zip(_NUMBER.finditer(expected), _NUMBER.finditer(found), strict=True):
        percent = expected[was.end() : was.end() + 1] == "%"
        estimate = any(start <= was.start() < end for start, end in estimates)
        allowed = allowed_difference(was[0], percent, trained, estimate)
        difference = abs(_value(was[0]) - _value(now[0]))
        if _decimals(was[0]) != _decimals(now[0]):
            differences.append(f"{_around(expected, was)!r} was expected, {now[0]} found: other decimals")
        elif difference > allowed * (1 + 1e-6):  # 0.512 - 0.511 is not quite 0.001
            differences.append(
                f"{_around(expected, was)!r} was expected, {now[0]} found: "
                f"{difference:.3g} away, and {allowed:.3g} is allowed"
            )
    return differences


def _first_difference(expected: str, found: str) -> str:
    pairs = zip(expected, found, strict=False)
    at = next((n for n, (was, now) in enumerate(pairs) if was != now), min(len(expected), len(found)))
    start = max(0, at - 30)
    return f"{expected[start : at + 40]!r} was expected, {found[start : at + 40]!r} found"


def _around(text: str, number: re.Match[str]) -> str:
    """A number with the words of its line before it."""
    before = text[max(0, number.start() - 25) : number.start()].rpartition("\n")[2]
    return _BLANKS.sub(" ", before) + number[0]


def different_values(expected: Any, found: Any, trained: bool = True, where: str = "") -> list[str]:
    """As `different_texts`, for anything that JSON holds; floats may differ as the tolerances say, whole numbers not."""
    match expected, found:
        case dict(), dict() if expected.keys() == found.keys():
            return [
                text
                for key in expected
                for text in different_values(expected[key], found[key], trained, f"{where}[{key!r}]")
            ]
        case list(), list() if len(expected) == len(found):
            pairs = enumerate(zip(expected, found, strict=True))
            return [
                text
                for n, (was, now) in pairs
                for text in different_values(was, now, trained, f"{where}[{n}]")
            ]
        case str(), str():
            return [f"{where} {text}".strip() for text in different_texts(expected, found, trained)]
        case float(), float() | int() if not isinstance(found, bool):
            allowed = _tolerance(abs(expected), trained)
            if abs(expected - found) <= allowed or (expected != expected and found != found):
                return []
            return [f"{where} {expected} was expected, {found} found: {allowed:.3g} apart is allowed".strip()]
        case _ if type(expected) is type(found) and expected == found:
            return []
    return [f"{where} {expected!r} was expected, {found!r} found".strip()]


# Pictures


def different_pictures(expected: str, found: str) -> list[str]:
    """What differs between two pictures more than it may, in words; nothing where they look alike.

    A pixel is unlike where its shade lies outside of what the other picture shows within `REACH_PIXELS` of it, by more
    than `SHADES`.

    Args:
        expected: a picture as notebooks keep it, in base64.
        found: another.
    """
    pictures = []
    for name, content in (("committed", expected), ("newly drawn", found)):
        try:
            pictures.append(_picture(content))
        except (OSError, SyntaxError, ValueError, binascii.Error) as error:
            return [f"the {name} picture cannot be decoded: {type(error).__name__}: {str(error)[:80]}"]
    was, now = pictures
    if max(abs(was.width - now.width), abs(was.height - now.height)) > SIZE_PIXELS:
        return [
            f"a picture of {was.width} by {was.height} pixels was expected, one of {now.width} by {now.height} found; "
            f"{SIZE_PIXELS} more or fewer are allowed"
        ]
    unlike = _unlike(was, now) | _unlike(now, was)
    allowed = SHARE_OF_PIXELS * unlike.size
    if unlike.sum() <= allowed:
        return []
    rows, columns = np.nonzero(unlike)
    return [
        f"{unlike.sum()} pixels of the picture are unlike ({unlike.mean():.2%}), between columns {columns.min()} and "
        f"{columns.max()}, rows {rows.min()} and {rows.max()}; {allowed:.0f} are allowed"
    ]


def _picture(content: str) -> Image.Image:
    """On white, as it is seen on a page."""
    picture = Image.open(BytesIO(base64.b64decode(content, validate=False))).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _unlike(one: Image.Image, other: Image.Image) -> NDArray[np.bool_]:
    """Where the first picture shows what is not near there in the other; both cut to what they share."""
    size = (min(one.width, other.width), min(one.height, other.height))
    shades = np.asarray(one.crop((0, 0, *size)), dtype=np.int16)
    window = 2 * REACH_PIXELS + 1
    darkest = np.asarray(other.filter(ImageFilter.MinFilter(window)).crop((0, 0, *size)), dtype=np.int16)
    lightest = np.asarray(other.filter(ImageFilter.MaxFilter(window)).crop((0, 0, *size)), dtype=np.int16)
    return ((shades < darkest - SHADES) | (shades > lightest + SHADES)).any(axis=2)


# What an executed cell shows, beside what is committed


def different_outputs(expected: Sequence[Any], found: Sequence[Any], trained: bool = True) -> list[str]:
    """What differs between a cell's committed outputs and those of another execution, in words.

    Outputs of one kind are compared in their order. Not across kinds: what is printed and what is shown reach a
    notebook by two ways, and either may be quicker.
    """
    was, now = _by_kind(expected), _by_kind(found)
    differences = []
    for kind in sorted(was.keys() | now.keys()):
        if len(was[kind]) != len(now[kind]):
            last = (
                max(was[kind], now[kind], key=len)[-1] if kind.startswith(("text", "std", "error")) else "..."
            )
            differences.append(
                f"{kind}: {len(was[kind])} outputs were expected, {len(now[kind])} found; the last is {str(last)[:80]!r}"
            )
            continue
        for number, (one, other) in enumerate(zip(was[kind], now[kind], strict=True), start=1):
            if kind in ("image/png", "image/jpeg"):
                found_here = different_pictures(one, other)
            else:
                found_here = different_values(one, other, trained)
            differences += [f"{kind}, output {number}: {text}" for text in found_here[:_MOST_SHOWN]]
            if len(found_here) > _MOST_SHOWN:
                differences.append(f"{kind}, output {number}: and {len(found_here) - _MOST_SHOWN} more")
    return differences


def _by_kind(outputs: Sequence[Any]) -> defaultdict[str, list[Any]]:
    kinds = defaultdict(list)
    for output in outputs:
        data = output.get("data", {})
        if _WIDGET in data and _PROGRESS_BAR.search(str(data.get("text/plain"))):
            continue
        if output.output_type == "stream":
            kinds[output.name].append(output.text)
        elif output.output_type == "error":
            kinds["error"].append(f"{output.ename}: {output.evalue}")
        for kind, content in data.items():
            if kind != _WIDGET:
                kinds[kind].append(content)
        for kind, shown in output.get("metadata", {}).items():
            # What is said of a picture. Not its width on the page: the pictures themselves are compared.
            if isinstance(shown, dict):
                kinds[f"text beside {kind}"].append({k: text for k, text in shown.items() if k != "width"})
    return kinds


class Cell(IPyNbCell):
    """A code cell, executed by nbval and compared here."""

    def compare_outputs(self, test: Sequence[Any], ref: Sequence[Any], skip_compare: object = None) -> bool:
        """Called by nbval: whether the outputs are alike; what differs is left in `comparison_traceback`."""
        trained = self.path.name not in NOTHING_TRAINED
        differences = different_outputs(self.sanitize_outputs(ref), self.sanitize_outputs(test), trained)
        self.comparison_traceback = [*differences, MEND]
        return not differences


class Notebook(IPyNbFile):
    """nbval's notebook, whose cells are compared by `Cell`."""

    def collect(self) -> Iterator[Cell]:
        """One item a code cell."""
        for found in super().collect():
            yield Cell.from_parent(
                self, name=found.name, cell_num=found.cell_num, cell=found.cell, options=found.options
            )


# A notebook as it lies there


@dataclass(frozen=True)
class Finding:
    """What is wrong with a notebook's file: in which cell (from 1, with those of text), and how it is mended."""

    cell: int | None
    found: str
    expected: str
    mend: str

    def __str__(self) -> str:
        where = "the notebook" if self.cell is None else f"cell {self.cell}"
        return f"{where}: {self.found}; expected {self.expected}. {self.mend}"


RUN_AGAIN = "Execute it again: make notebooks."

_MACHINE_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:home|root|tmp|Users|private|var|opt|usr|mnt|media|srv|work|data)/[^\s\"'<>)]*"
    r"|(?<![A-Za-z])[A-Za-z]:\\{1,2}\w{2}[^\s\"'<>)]*"
)
_EMBEDDED = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]*")
_COMPLAINT = re.compile(r"\b\w*Warning:.*|Traceback \(most recent call last\)")
_FILLER = "No description has been provided for this image"
_HTML_IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
_HTML_ALT = re.compile(r"\balt\s*=\s*(?:\"\s*[^\s\"]|'\s*[^\s'])", re.IGNORECASE)
_MARKDOWN_IMAGE = re.compile(r"!\[\s*\]\([^)]*\)")


def findings(notebook: Path) -> list[Finding]:
    """All that is wrong with a notebook as it is committed; nothing is executed.

    Raises:
        NotebookError: the file is no notebook.
    """
    found = []
    try:
        read_parameters(notebook)
    except NotebookError as error:
        found.append(
            Finding(
                None, str(error).rstrip("."), "one cell of literals, tagged 'parameters'", "Mend that cell."
            )
        )
    executed = 0
    for number, cell in enumerate(nbformat.read(notebook, as_version=4).cells, start=1):
        if not cell.source.strip():
            found.append(Finding(number, "it is empty", "something in every cell", "Delete it."))
        found += _paths(number, "its source", cell.source)
        found += _images_of_text(number, cell.source)
        if cell.cell_type == "code":
            executed += 1
            found += [
                *_execution(number, cell, executed),
                *_definitions(number, cell.source),
                *_excuses(number, cell),
                *_of_outputs(number, cell.outputs),
            ]
    return found


def _execution(number: int, cell: Any, expected: int) -> Iterator[Finding]:
    count = cell.execution_count
    if count is None:
        yield Finding(number, "it was not executed", f"execution count [{expected}]", RUN_AGAIN)
    elif count != expected:
        yield Finding(
            number,
            f"it has execution count [{count}]",
            f"[{expected}], cells executed once, in order",
            RUN_AGAIN,
        )


def _definitions(number: int, source: str) -> Iterator[Finding]:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        yield Finding(
            number, f"it is not plain Python ({error})", "Python without magic commands", "Rewrite it."
        )
        return
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                what = f"it defines the function {name}"
            case ast.ClassDef(name=name):
                what = f"it defines the class {name}"
            case (
                ast.Assign(value=ast.Lambda())
                | ast.AnnAssign(value=ast.Lambda())
                | ast.NamedExpr(value=ast.Lambda())
            ):
                what = f"it names a lambda, {ast.unparse(node)[:60]!r}"
            case _:
                continue
        yield Finding(
            number,
            what,
            "calls of valence_lib alone",
            "Move it to the module of valence_lib that it belongs to.",
        )


def _excuses(number: int, cell: Any) -> Iterator[Finding]:
    """Marks by which nbval would let a cell pass unchecked."""
    comments = {
        line.strip().lstrip("#").strip() for line in cell.source.splitlines() if line.strip()[:1] == "#"
    }
    for mark in sorted(
        comments & set(comment_markers) | set(cell.metadata.get("tags", ())) & set(metadata_tags)
    ):
        yield Finding(number, f"it is marked {mark!r}", "cells that are all checked", "Remove the mark.")


def _paths(number: int, where: str, text: str) -> Iterator[Finding]:
    for path in sorted(set(_MACHINE_PATH.findall(_EMBEDDED.sub("", text)))):
        yield Finding(
            number,
            f"{where} names {path!r}",
            "no path of one machine",
            "Write it as seen from the notebook's folder, or show the name alone.",
        )


def _images_of_text(number: int, text: str) -> Iterator[Finding]:
    """Images that Markdown or HTML names."""
    images = [image for image in _HTML_IMAGE.findall(text) if not _HTML_ALT.search(image)]
    for image in [*images, *_MARKDOWN_IMAGE.findall(text)]:
        yield _without_alt(number, f"the image {image[:60]!r} has no alternative text")
    if _FILLER in text:
        yield _without_alt(number, f"an image is described as {_FILLER!r}")


def _without_alt(number: int, what: str) -> Finding:
    return Finding(
        number,
        what,
        "what the figure shows, in words, for those who do not see it",
        "Give it alt=..., as valence_lib.rendering.figure takes it.",
    )


def _of_outputs(number: int, outputs: Sequence[Any]) -> Iterator[Finding]:
    for output in outputs:
        if output.output_type == "error":
            yield Finding(
                number, f"it ended in {output.ename}: {output.evalue}", "cells that run", "Mend the cell."
            )
            continue
        if output.output_type == "stream" and output.name == "stderr":
            first = next(iter(output.text.strip().splitlines()), "")
            yield Finding(
                number, f"it wrote {first[:80]!r} to stderr", "nothing there", "Mend what it warns of."
            )
        pictures = [kind for kind in output.get("data", {}) if kind.startswith("image/")]
        for text in _texts(output):
            yield from _paths(number, "its output", text)
            yield from _images_of_text(number, text)
            if complaint := _COMPLAINT.search(text):
                yield Finding(
                    number, f"its output holds {complaint[0][:80]!r}", "no warning", "Mend what it warns of."
                )
        for kind in pictures:
            alt = str(output.metadata.get(kind, {}).get("alt", "")).strip()
            if not alt:
                yield _without_alt(number, f"a figure ({kind}) has no alternative text")
            elif _FILLER in alt:
                yield _without_alt(number, f"a figure ({kind}) is described as {_FILLER!r}")


def _texts(output: Any) -> Iterator[str]:
    """All that an output says in letters."""
    if output.output_type == "stream":
        yield output.text
    for kind, content in output.get("data", {}).items():
        if not kind.startswith("image/"):
            yield content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


class AsCommitted(pytest.Item):
    """One item a notebook: what is in its file."""

    def runtest(self) -> None:
        """Fails with all findings at once."""
        if found := findings(self.path):
            raise UnfitError(found)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """The findings, one a line."""
        if isinstance(excinfo.value, UnfitError):
            return "\n".join(f"{self.path.name}, {finding}" for finding in excinfo.value.found)
        return f"{self.path.name}: {excinfo.value}"

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where pytest says that it is."""
        return self.path, 0, f"{self.path.name}::{self.name}"


class UnfitError(Exception):
    """What `AsCommitted` fails with."""

    def __init__(self, found: Sequence[Finding]):
        super().__init__("; ".join(map(str, found)))
        self.found = found


class NotebookFile(pytest.File):
    """A notebook as a file. Not `Notebook`, which starts a kernel as soon as one of its items runs."""

    def collect(self) -> Iterator[AsCommitted]:
        """One item."""
        yield AsCommitted.from_parent(self, name="as committed")


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Iterator[Any]:
    """Where nbval takes a notebook, what it made of it gives way to the two collectors of this module."""
    collected = []
    for collector in (yield):
        if isinstance(collector, IPyNbFile):
            collected.append(NotebookFile.from_parent(parent, path=file_path))
            collected.append(Notebook.from_parent(parent, path=file_path))
        else:
            collected.append(collector)
    return collected
