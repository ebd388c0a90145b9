"""The figure of scores within and across corpora."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from valence_lib.report.corpus_text import figure_labels
from valence_lib.report.figures import style
from valence_lib.report.figures.style import WIDTH, drawing

_METRICS = {"pearson_r": "Pearson r", "ccc": "CCC"}
_LOOKS: dict[str, dict[str, Any]] = {
    "within": {"color": style.BLUE, "marker": "o", "label": "trained on the same corpus (cross-validation)"},
    "across": {"color": style.VERMILION, "marker": "D", "label": "trained on other corpora"},
}


def plot_across(scores: pd.DataFrame) -> Figure:
    """Pearson's r and CCC of each pair of corpora with their intervals, grouped by the tested corpus.

    Args:
        scores: one row per pair and metric, with the columns `tested_on`, `trained_on` (words), `kind`
            ("within" or "across"), `metric` ("pearson_r" or "ccc"), `score`, `low` and `high`.
    """
    places = []  # tested and training corpus of each line from the top; the heading of a group has none
    for tested_on, group in scores.groupby("tested_on", sort=False):
        places += [(tested_on, ""), *((tested_on, name) for name in group["trained_on"].unique())]
    labels = figure_labels([name or f"Tested on {tested_on}" for tested_on, name in places])
    height = 1.1 + 0.23 * len(places)
    with drawing(WIDTH, height, columns=len(_METRICS), sharey=True) as (figure, axes):
        for ax, (metric, title) in zip(axes, _METRICS.items(), strict=True):
            ax.axvline(0, **style.DASHED)
            for row in scores[scores["metric"] == metric].itertuples():
                place, look = places.index((row.tested_on, row.trained_on)), _LOOKS[row.kind]
                ax.plot([row.low, row.high], [place, place], color=look["color"], linewidth=1.6)
                ax.plot(row.score, place, markersize=5.5, linestyle="none", **look)
            ax.set(xlabel=title, ylim=(len(places) - 0.4, -0.6))
            ax.grid(axis="x")
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
        axes[0].set_yticks(range(len(places)), labels)
        for tick, (_, name) in zip(axes[0].get_yticklabels(), places, strict=True):
            tick.set_fontweight("normal" if name else "bold")
        handles = [
            Line2D([], [], linestyle="none", **_LOOKS[kind]) for kind in _LOOKS if kind in set(scores["kind"])
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure
