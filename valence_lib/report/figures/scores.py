"""Figures of scores with their intervals: of models, groups of clips, conditions, and paired differences."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from valence_lib.report.corpus_text import figure_labels
from valence_lib.report.figures import style
from valence_lib.report.figures.style import BLACK, GREY, MSE_LABEL, WIDTH, drawing

_METRICS = {"mse": MSE_LABEL, "ccc": "CCC", "bias": "Bias (rating points)"}
_TOO_SMALL = "too small to say"
_VERDICTS = {
    "better": style.GREEN,
    "worse": style.VERMILION,
    "higher": style.BLUE,
    "lower": style.PURPLE,
    "tie": GREY,
    _TOO_SMALL: GREY,
    "": BLACK,  # the condition with which the others are compared
}
_NAMES = {"tie": "not significant"}


def plot_scores(scores: pd.DataFrame, mean_predictor_mse: float, rater_mse: float | None = None) -> Figure:
    """The models' mean squared errors with their intervals, best first within each kind of model.

    Args:
        scores: one row per model, with the columns `label`, `mse`, `low`, `high` (squared rating points, the
            last two the ends of the interval) and `kind`, by which rows are grouped.
        mean_predictor_mse: MSE of predicting the training mean, drawn as a vertical line.
        rater_mse: MSE of one human rater against the others, drawn as another.
    """
    kinds = dict(zip(scores["kind"].unique(), style.PALETTE, strict=False))
    rows = scores.assign(colour=scores["kind"].map(kinds)).sort_values(["mse", "label"])
    places = _places(rows)
    with drawing(WIDTH, 0.95 + 0.23 * len(places)) as (figure, (ax,)):
        _draw_rows(ax, rows, "mse", places)
        for row in rows.itertuples():
            numbers = f"{row.mse:.3f}  [{row.low:.3f}, {row.high:.3f}]"
            place = places.index((row.kind, row.label))
            style.note(ax, 1.02, place, numbers, ax.get_yaxis_transform(), color=BLACK)
        style.note(ax, 1.02, 0, "MSE  [interval]", ax.get_yaxis_transform())
        label = f"predict the training mean {mean_predictor_mse:.3f}"
        ax.axvline(mean_predictor_mse, label=label, **style.DOTTED)
        if rater_mse is not None:
            ax.axvline(rater_mse, label=f"one rater {rater_mse:.3f}", **style.DASHED)
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def plot_error_by_group(groups: pd.DataFrame, axis_name: str) -> Figure:
    """Mean squared error of each group of clips with its interval, the lowest first.

    The vertical line is the error over the clips of all groups.

    Args:
        groups: one row per group, with the columns `group`, `mse`, `low`, `high` (squared rating points, the
            last two the ends of the interval) and `n` (clips).
        axis_name: what the groups are, such as "Speaker".
    """
    rows = groups.rename(columns={"group": "label"}).assign(kind="", colour=style.BLUE)
    rows = rows.sort_values(["mse", "label"], kind="stable")
    overall = float(np.average(rows["mse"], weights=rows["n"]))
    with drawing(WIDTH, 1.0 + 0.21 * len(rows)) as (figure, (ax,)):
        ax.axvline(overall, label=f"all clips {overall:.3f}", **style.DASHED)
        _draw_rows(ax, rows, "mse", _places(rows))
        for place, count in enumerate(rows["n"]):
            style.note(ax, 1.06, place, f"{count:,}", ax.get_yaxis_transform(), ha="right", color=BLACK)
        style.note(ax, 1.06, 1.02, "clips", ax.transAxes, ha="right", va="bottom")
        figure.legend(loc="outside upper center")
        ax.set_xlim(left=min(0.0, rows["low"].min()))
        ax.set_ylabel(axis_name)
    return figure


def plot_differences(differences: pd.DataFrame, reference: str) -> Figure:
    """A forest plot: differences with their intervals about the line of no difference, one panel per metric.

    Rows are in the order given, grouped by their kind where there is one. A mark's colour is the verdict's;
    marks are hollow where there are too few groups for a verdict.

    Args:
        differences: one row per mark, with the columns `label`, `difference`, `low`, `high` and `verdict`
            ("better", "worse", "higher", "lower", "tie" or "too small to say"); where there are several, also
            `metric` ("mse", "ccc" or "bias", in whose unit the numbers are; else "mse") and `kind`.
        reference: what each row is compared with, such as "the whole model".
    """
    rows = differences.assign(kind=differences.get("kind", ""), metric=differences.get("metric", "mse"))
    return _plot_compared(rows, "difference", f"Difference from {reference}")


def plot_robustness(conditions: pd.DataFrame) -> Figure:
    """Scores with their intervals by condition, one panel per metric, with a line at the first one's score.

    A mark's colour is the verdict of the paired comparison with the first condition.

    Args:
        conditions: one row per condition and metric, with the columns `condition`, `metric` ("mse" or "ccc"),
            `score`, `low`, `high`, and `verdict` ("better", "worse", "tie", and "" for the first condition),
            as `robustness.scores_by_condition` gives.
    """
    rows = conditions.rename(columns={"condition": "label"}).assign(kind="")
    return _plot_compared(rows, "score", f"Compared with: {', '.join(rows['label'].head(1))}")


def _plot_compared(rows: pd.DataFrame, number: str, title: str) -> Figure:
    """One panel per metric; a line at 0, or at the score with which the others are compared."""
    rows = rows.assign(colour=rows["verdict"].map(_VERDICTS))
    metrics = [metric for metric in _METRICS if metric in set(rows["metric"])]
    places = _places(rows)
    with drawing(WIDTH, 1.15 + 0.23 * len(places), columns=len(metrics), sharey=True) as (figure, axes):
        for ax, metric in zip(axes, metrics, strict=True):
            own = rows[rows["metric"] == metric]
            ax.axvline(own.loc[own["verdict"] == "", number].sum(), **style.DASHED)
            _draw_rows(ax, own, number, places)
            ax.set_xlabel(_METRICS[metric])
        axes[0].set_title(title)
        shown = [verdict for verdict in _VERDICTS if verdict and verdict in set(rows["verdict"])]
        handles = [Line2D([], [], label=_NAMES.get(of, of), **_mark(of, _VERDICTS[of])) for of in shown]
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure


def _places(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Kind and label of each line of a figure from the top; a kind's heading has no label."""
    places = []
    for kind, of_kind in rows.groupby("kind", sort=False):
        places += [(kind, "")] if kind else []
        places += [(kind, label) for label in of_kind["label"].unique()]
    return places


def _mark(verdict: str, colour: str) -> dict[str, Any]:
    """How a score and its interval are drawn."""
    fill = "white" if verdict == _TOO_SMALL else colour
    return {"color": colour, "marker": "o", "markersize": 5.5, "markerfacecolor": fill}


def _draw_rows(ax: Axes, rows: pd.DataFrame, number: str, places: list[tuple[str, str]]) -> None:
    """A mark and its interval for each row, in its line of the figure."""
    for row in rows.to_dict("records"):
        place, look = places.index((row["kind"], row["label"])), _mark(row.get("verdict", ""), row["colour"])
        ax.plot([row["low"], row["high"]], [place, place], color=row["colour"], linewidth=1.6)
        ax.plot(row[number], place, **look)
    ax.set_yticks(range(len(places)), figure_labels([label or kind for kind, label in places]))
    for tick, (_, label) in zip(ax.get_yticklabels(), places, strict=False):  # inner panels have none
        tick.set_fontweight("normal" if label else "bold")
    ax.set(ylim=(len(places) - 0.4, -0.6), xlabel=MSE_LABEL)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def plot_frontier(frontier: pd.DataFrame, own: tuple[float, float]) -> Figure:
    """MSE and CCC of one model's predictions, scaled about their mean, with the two optima.

    Args:
        frontier: one row per scale, with the columns `scale` (1 keeps the predictions' spread), `mse`
            (squared rating points) and `ccc`.
        own: MSE and CCC of the predictions as they are, which need not lie on the frontier.
    """
    curve = frontier.sort_values("scale", kind="stable")
    lowest, highest = curve.loc[curve["mse"].idxmin()], curve.loc[curve["ccc"].idxmax()]
    with drawing(5.2, 3.4) as (figure, (ax,)):
        ax.plot(curve["mse"], curve["ccc"], color=GREY, linewidth=1.5, zorder=1)
        label = f"lowest MSE (spread × {lowest['scale']:.2f})"
        ax.plot(lowest["mse"], lowest["ccc"], "s", color=style.BLUE, label=label)
        label = f"highest CCC (spread × {highest['scale']:.2f})"
        ax.plot(highest["mse"], highest["ccc"], "D", color=style.GREEN, label=label)
        ring: dict[str, Any] = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.8}
        ax.plot(*own, "o", color=style.VERMILION, label="the model as it is", **ring)
        for _, end in curve.iloc[[0, -1]].iterrows():
            style.note(ax, end["mse"], end["ccc"], f"  × {end['scale']:g}", ax.transData)
        ax.margins(0.08)
        ax.grid()
        ax.set(xlabel=MSE_LABEL, ylabel="CCC")
        ax.legend()
    return figure
