"""What all figures share: colours, style, and the checks of what they are drawn from.

Each `plot_` function of this sub-package returns a new matplotlib `Figure` that belongs to no window and
ignores the caller's own style: the same input gives the same bytes of PNG. Figures are at most 7.5 inches
wide, which is 720 CSS pixels. Colours are those of Okabe and Ito, "Color Universal Design" (2008), which
people with any common colour vision can tell apart.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Transform
from numpy.typing import ArrayLike, NDArray

from valence_lib.errors import SettingsError
from valence_lib.report.corpus_text import figure_labels
from valence_lib.report.wording import capitalised
from valence_lib.settings import Target

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
GREY, PALE = "#666666", "#E4E4E4"

WIDTH = 7.5  # inches
MSE_LABEL = "MSE (squared rating points)"
DASHED: dict[str, Any] = {"color": GREY, "linewidth": 1.2, "linestyle": "dashed", "zorder": 0}
DOTTED: dict[str, Any] = {**DASHED, "linestyle": "dotted"}

_TICK_SIZE = 8
_STYLE: dict[str, Any] = {
    "figure.dpi": 144,
    "font.family": "DejaVu Sans",  # comes with matplotlib: every machine draws the same glyphs
    "font.size": 9,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "figure.labelsize": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "xtick.labelsize": _TICK_SIZE,
    "ytick.labelsize": _TICK_SIZE,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@contextmanager
def drawing(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of `width` x `height` inches and its axes, row by row; finished and closed at the end."""
    options |= {"figsize": (width, height), "layout": "constrained", "squeeze": False}
    with plt.style.context(["default", _STYLE]):
        figure, axes = plt.subplots(rows, columns, **options)
        try:
            yield figure, list(axes.flat)
            # Later drawings take the number and size of ticks from the caller's style: draw once in this one.
            for ax in figure.axes:
                ax.tick_params(labelsize=_TICK_SIZE)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        finally:
            plt.close(figure)  # else pyplot keeps it, and a notebook shows it twice


def note(ax: Axes, x: float, y: float, text: str, frame: Transform, **look: Any) -> None:
    """Small print at (x, y) of `frame`, the axes' own or one that mixes them with the data."""
    ax.text(x, y, text, transform=frame, **{"va": "center", "fontsize": 8, "color": GREY, **look})


def points_of(target: Target, before: str = "", separator: str = " ") -> str:
    r"""The label of an axis with ratings or predictions of the target.

    Args:
        target: what is rated.
        before: a word such as "True" before its name.
        separator: between the name and the unit; "\n" puts the unit on a line of its own.

    >>> points_of(Target("arousal")), points_of(Target("arousal"), "True")
    ('Arousal (rating points)', 'True arousal (rating points)')
    """
    (name,) = figure_labels([target.name])
    return f"{capitalised(f'{before} {name}'.strip())}{separator}(rating points)"


def require(condition: bool | np.bool, given: str, expected: str) -> None:
    """Refuse to draw a figure of what was given.

    Raises:
        SettingsError: the condition does not hold.
    """
    if not condition:
        raise SettingsError(f"This figure cannot be drawn: {given}; expected {expected}.")


def finite_array(name: str, values: ArrayLike, dimensions: int) -> NDArray[np.float64]:
    """`values` as an array.

    Raises:
        SettingsError: it is empty, of other dimensions, NaN or infinite.
    """
    array = np.asarray(values, np.float64)
    fits = array.ndim == dimensions and array.size > 0
    require(fits, f"{name} has the shape {array.shape}", f"{dimensions} dimensions, none of them empty")
    require(np.isfinite(array).all(), f"{name} holds NaN or infinity", "finite numbers")
    return array
