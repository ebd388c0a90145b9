"""A pytest plugin for nbval: numbers are compared within tolerances, and figures pixel by pixel.

By itself, nbval compares outputs as texts and skips pictures. Use:
`PYTHONPATH=tests pytest -p nbval_comparison --nbval --nbval-sanitize-with tests/nbval.cfg notebooks/*.ipynb`.
"""

import base64
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from os.path import commonprefix
from typing import Any

import numpy as np
import pytest
from nbval.plugin import IPyNbCell
from numpy.typing import NDArray
from PIL import Image, ImageFilter

# Numbers that depend on a training differ between processors, by 0.011 at most in the small report.
ABSOLUTE_TOLERANCE = 0.02
RELATIVE_TOLERANCE = 0.005
# All other numbers differ by their rounding alone. This notebook trains nothing.
UNTRAINED = ("1_preprocess.ipynb",)
# Rounding may change the last printed digit. Where one step of it is a tenth of the number or more (0.5,
# 0.001), numbers must be equal: most are settings. Estimates that have an interval may differ all the same.
COARSEST_STEP = 0.1

# A pixel is equal if the other picture has about its shade (0 to 255) at most this many pixels away.
PIXEL_DISTANCE = 1
SHADE_TOLERANCE = 32
# The share of pixels that may differ: a few digits printed in a figure, but not a curve that moves.
PIXEL_SHARE = 5e-4
# Figures are cropped to what is drawn, which may add a pixel on either side.
SIZE_TOLERANCE = 2

MESSAGES_PER_OUTPUT = 4
ADVICE = "If the new output is right, run `make notebooks` and commit it; otherwise find what changed it."

_NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w|\.\d)")
_DECIMAL = r"[-−]?\d+\.\d+"
# An estimate, its interval and, in comparisons, verdict and p value: "−0.010 [−0.047, 0.027] better 0.742".
_ESTIMATE = re.compile(
    rf"{_DECIMAL} \[{_DECIMAL}, {_DECIMAL}\](?: [a-z ]*[a-z](?:</td><td class=\"num\">|[ \t]+){_DECIMAL})?"
)
_SPACES = re.compile(r"[ \t]+")
_WIDGET = "application/vnd.jupyter.widget-view+json"
_PROGRESS_BAR = re.compile(r"\d+%\|.*\|.*\[.*\]")


def allowed_difference(number: str, percent: bool, trained: bool, estimate: bool) -> float:
    """The largest allowed difference to a printed number.

    Args:
        number: as printed, such as "0.512" or "−3.1e-5".
        percent: whether a percent sign follows, so that a whole number is a rounded one.
        trained: whether it may depend on a training.
        estimate: whether it belongs to an estimate with an interval, so that it is no setting.
    """
    exponent = number.lower().partition("e")[2]
    if not _decimals(number) and not exponent and not percent:
        return 0.0
    step = 10.0 ** (int(exponent or 0) - _decimals(number))
    size = abs(_value(number))
    if step >= COARSEST_STEP * size and not estimate:
        return 0.0
    return step + (max(ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE * size) if trained else 0.0)


def _decimals(number: str) -> int:
    return len(number.lower().partition("e")[0].partition(".")[2])


def _value(number: str) -> float:
    return float(number.replace("−", "-"))


def compare_texts(expected: str, found: str, trained: bool = True) -> list[str]:
    """The differences between two texts, each as a message.

    Numbers may differ by `allowed_difference`. All else must be equal, except for the number of spaces in a
    row, since the width of a column depends on its numbers.
    """
    words, found_words = (
        [_SPACES.sub(" ", part) for part in _NUMBER.split(text)] for text in (expected, found)
    )
    if words != found_words:
        start = max(0, len(commonprefix([expected, found])) - 30)  # noqa: RUF071 (texts, not paths)
        return [f"expected {expected[start : start + 70]!r}, found {found[start : start + 70]!r}"]
    estimates = [match.span() for match in _ESTIMATE.finditer(expected)]
    messages = []
    for one, other in zip(_NUMBER.finditer(expected), _NUMBER.finditer(found), strict=True):
        percent = expected[one.end() : one.end() + 1] == "%"
        estimate = any(start <= one.start() < end for start, end in estimates)
        allowed = allowed_difference(one[0], percent, trained, estimate)
        difference = abs(_value(one[0]) - _value(other[0]))
        # The margin allows for binary fractions: 0.512 - 0.511 is slightly more than 0.001.
        if difference > allowed * (1 + 1e-6) or _decimals(one[0]) != _decimals(other[0]):
            context = _SPACES.sub(" ", expected[max(0, one.start() - 25) : one.end()]).rpartition("\n")[2]
            messages.append(
                f"expected {context!r}, found {other[0]}, which differs by {difference:.3g}; "
                f"allowed are {allowed:.3g} and the same number of decimals"
            )
    return messages


def compare_pictures(expected: str, found: str) -> list[str]:
    """The differences between two pictures, encoded in base64, each as a message."""
    one, other = _decode(expected), _decode(found)
    if max(abs(one.width - other.width), abs(one.height - other.height)) > SIZE_TOLERANCE:
        return [
            f"expected {one.width} by {one.height} pixels, found {other.width} by {other.height}; "
            f"allowed are {SIZE_TOLERANCE} more or fewer"
        ]
    size = (0, 0, min(one.width, other.width), min(one.height, other.height))
    different = _unmatched(one, other, size) | _unmatched(other, one, size)
    allowed = PIXEL_SHARE * different.size
    if different.sum() <= allowed:
        return []
    rows, columns = np.nonzero(different)
    return [
        f"{different.sum()} pixels differ ({different.mean():.2%}), "
        f"in columns {columns.min()} to {columns.max()} and rows {rows.min()} to {rows.max()}; "
        f"allowed are {allowed:.0f}"
    ]


def _decode(content: str) -> Image.Image:
    picture = Image.open(BytesIO(base64.b64decode(content))).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _unmatched(one: Image.Image, other: Image.Image, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """The pixels in the box whose shade is outside the range of shades near them in the other picture."""
    window = 2 * PIXEL_DISTANCE + 1
    shades, darkest, lightest = (
        np.asarray(picture.crop(box), dtype=np.int16)
        for picture in (
            one,
            other.filter(ImageFilter.MinFilter(window)),
            other.filter(ImageFilter.MaxFilter(window)),
        )
    )
    return ((shades < darkest - SHADE_TOLERANCE) | (shades > lightest + SHADE_TOLERANCE)).any(axis=2)


def compare_outputs(expected: Sequence[Any], found: Sequence[Any], trained: bool = True) -> list[str]:
    """The differences between two lists of a cell's outputs, each as a message.

    Outputs are compared in order within each kind. The order across kinds may differ, since printed and
    displayed outputs arrive by different ways.
    """
    one, other = _by_kind(expected), _by_kind(found)
    messages = []
    for kind in sorted(one.keys() | other.keys()):
        if len(one[kind]) != len(other[kind]):
            messages.append(f"{kind}: expected {len(one[kind])} outputs, found {len(other[kind])}")
            continue
        for position, (content, found_content) in enumerate(
            zip(one[kind], other[kind], strict=True), start=1
        ):
            if kind in ("image/png", "image/jpeg"):
                differences = compare_pictures(content, found_content)
            else:
                differences = compare_texts(content, found_content, trained)
            messages += [f"{kind}, output {position}: {text}" for text in differences[:MESSAGES_PER_OUTPUT]]
            if len(differences) > MESSAGES_PER_OUTPUT:
                messages.append(f"{kind}, output {position}: {len(differences)} differences in all")
    return messages


def _by_kind(outputs: Sequence[Mapping[str, Any]]) -> defaultdict[str, list[str]]:
    kinds = defaultdict(list)
    for output in outputs:
        data = output.get("data", {})
        # Progress bars show the speed of the machine. Those of committed notebooks are removed.
        if _WIDGET in data and _PROGRESS_BAR.search(data.get("text/plain", "")):
            continue
        if output["output_type"] == "stream":
            kinds[output["name"]].append(output["text"])
        elif output["output_type"] == "error":
            kinds["error"].append(f"{output['ename']}: {output['evalue']}")
        for kind, content in data.items():
            if kind != _WIDGET:  # it holds a random identifier
                kinds[kind].append(content)
        for kind, metadata in output.get("metadata", {}).items():
            kinds[f"{kind} metadata"] += [str(metadata.get(name)) for name in ("number", "caption", "alt")]
    return kinds


def _compare_cell(cell: IPyNbCell, found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Called by nbval instead of its own comparison; it prints `comparison_traceback`."""
    messages = compare_outputs(
        cell.sanitize_outputs(expected), cell.sanitize_outputs(found), cell.path.name not in UNTRAINED
    )
    cell.comparison_traceback = [*messages, ADVICE]
    return not messages


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Compare every cell in this module's way, also those marked to be skipped or ignored by nbval."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.compare_outputs = partial(_compare_cell, item)
            item.options.update(check=True, skip=False, check_exception=False)
