"""Figures of single predictions and their errors: by rating, by duration, in time, and within a clip."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import ArrayLike
from scipy import special

from valence_lib.evaluation.bootstrap import effective_number, groups_of
from valence_lib.evaluation.occlusion import Occlusion
from valence_lib.report.corpus_text import figure_labels
from valence_lib.report.figures import style
from valence_lib.report.figures.corpus import draw_log_mel
from valence_lib.report.figures.style import BLACK, BLUE, WIDTH, drawing, points_of
from valence_lib.settings import Target

_MOST_POINTS = 1500  # more points cover each other: hexagons count them instead
_BINS = 8


def plot_predicted_against_true(predictions: pd.DataFrame, target: Target) -> Figure:
    """Prediction against truth, with the identity and the least-squares line.

    Args:
        predictions: one row per clip, with the columns `truth` and `prediction` (rating points).
        target: what is rated; the axes reach beyond its scale where a prediction does.
    """
    truth, prediction = predictions["truth"], predictions["prediction"]
    margin = 0.03 * (target.high - target.low)
    limits = min(target.low, prediction.min()) - margin, max(target.high, prediction.max()) + margin
    summary = f"n = {len(truth):,}"
    with drawing(4.6, 4.8) as (figure, (ax,)):
        if len(truth) > _MOST_POINTS:
            ax.hexbin(truth, prediction, gridsize=32, mincnt=1, bins="log", cmap="Blues")
            summary += " (darker: more)"
        else:
            ax.scatter(truth, prediction, s=9, color=BLUE, alpha=0.5, linewidths=0)
        ax.plot(limits, limits, color=style.GREY, linewidth=1, linestyle="dashed", label="prediction = truth")
        if truth.nunique() > 1:  # else no line is the best one
            slope, intercept = np.polyfit(truth, prediction, 1)
            ends = np.array([truth.min(), truth.max()])
            ax.plot(ends, slope * ends + intercept, color=style.VERMILION, linewidth=2, label="least squares")
            summary += f"\nslope {slope:.2f}"
        style.note(ax, 0.97, 0.03, summary, ax.transAxes, ha="right", va="bottom", color=BLACK)
        ax.set(xlabel=points_of(target, "True"), ylabel=points_of(target, "Predicted"))
        ax.set(xlim=limits, ylim=limits, aspect="equal")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(9, integer=True))
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def plot_residuals_by_rating(predictions: pd.DataFrame, target: Target) -> Figure:
    """Mean residual, prediction minus truth, in eight equal bins of the rating, with 95 % intervals.

    The two bins at the ends of the scale are shaded. A bin holds its lower edge; the last one both. The
    intervals are over the groups of `evaluation.bootstrap.groups_of`, and missing where a bin holds but one.

    Args:
        predictions: one row per clip, with the columns `id`, `speaker`, `truth` and `prediction`.
        target: what is rated.
    """
    low, high = target.low, target.high
    width = (high - low) / _BINS
    bins = ((predictions["truth"] - low) / width).astype(int).clip(upper=_BINS - 1)
    middles = low + (bins + 0.5) * width
    with drawing(WIDTH, 3.3) as (figure, (ax,)):
        for left in (low, high - width):
            ax.axvspan(left, left + width, color=style.ORANGE, alpha=0.16, linewidth=0)
        ax.axhline(0, color=style.GREY, linewidth=1, linestyle="dashed", zorder=1)
        _plot_binned(ax, predictions, predictions["prediction"] - predictions["truth"], middles)
        for middle, count in middles.value_counts().items():
            style.note(ax, middle, 1.03, f"{count:,}", ax.get_xaxis_transform(), ha="center")
        style.note(ax, -0.01, 1.03, "clips", ax.transAxes, ha="right")
        ax.set(xlim=(low, high), xticks=np.linspace(low, high, _BINS + 1))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.set(xlabel=points_of(target, "True"), ylabel="Prediction − truth\n(rating points)")
    return figure


def plot_error_by_duration(predictions: pd.DataFrame) -> Figure:
    """Mean squared error over the clip's duration, in up to eight bins of about equal numbers of clips.

    A mark is at its bin's median duration. The 95 % intervals are over the groups of
    `evaluation.bootstrap.groups_of`, cut off at 0.

    Args:
        predictions: as `plot_residuals_by_rating` takes them, with the column `duration_seconds`.
    """
    seconds = predictions["duration_seconds"]
    count = max(1, min(_BINS, len(seconds) // 10))
    bins = (seconds.rank(method="min") - 1) * count // len(seconds)  # equal durations share a bin
    errors = (predictions["prediction"] - predictions["truth"]) ** 2
    with drawing(WIDTH, 3.0) as (figure, (ax,)):
        _plot_binned(ax, predictions, errors, seconds.groupby(bins).transform("median"))
        ax.set_ylim(0, None)
        ax.set(xlabel="Duration (s)", ylabel=style.MSE_LABEL)
        ax.set_title(f"{bins.value_counts().min():,} or more clips per mark")
    return figure


def _plot_binned(ax: Axes, predictions: pd.DataFrame, values: pd.Series, places: pd.Series) -> None:
    """Mean and interval of those `values`, one per prediction, that share a place on the horizontal axis."""
    groups = pd.Series(groups_of(predictions)[0], predictions.index)
    marks = [(place, *_mean_interval(of, groups[of.index])) for place, of in values.groupby(places)]
    x, means, halves = zip(*marks, strict=True)
    ax.errorbar(x, means, halves, fmt="o", markersize=4.5, linewidth=1.5, color=BLUE)
    ax.grid(axis="y")


def _mean_interval(values: pd.Series, groups: pd.Series) -> tuple[float, float]:
    """Mean and half the width of its 95 % Student t interval over groups of clips, NaN for a single group.

    The standard error is that of a mean of clusters, to first order the bootstrap's.
    """
    sums = (values - values.mean()).groupby(groups.to_numpy()).agg(["sum", "size"])
    if len(sums) == 1:
        return values.mean(), math.nan
    n = effective_number(sums["size"])
    error = np.linalg.norm(sums["sum"]) / len(values) * math.sqrt(n / (n - 1))
    return values.mean(), float(special.stdtrit(n - 1, 0.975) * error)


def plot_curve(
    start_seconds: ArrayLike, end_seconds: ArrayLike, predicted: ArrayLike, target: Target
) -> Figure:
    """Predictions along a recording, one mark at the middle of each window; gaps where there is none.

    Time is in minutes where the recording is longer than three.

    Args:
        start_seconds, end_seconds [shape=(windows,)]: of each window, in the order of the recording.
        predicted [shape=(windows,)]: rating points; NaN where a window has none, such as a silent one.
        target: what is predicted; the axis reaches beyond its scale where a prediction does.
    """
    start, end = np.asarray(start_seconds), np.asarray(end_seconds)
    values = pd.Series(np.asarray(predicted, np.float64))
    unit, seconds = ("min", 60.0) if end.max() > 180 else ("s", 1.0)
    margin = 0.03 * (target.high - target.low)
    with drawing(WIDTH, 2.5) as (figure, (ax,)):
        # A window between two gaps is invisible as a line.
        size = 2.5 if len(values) <= 200 else 1.5
        ax.plot((start + end) / 2 / seconds, values, color=BLUE, linewidth=1.2, marker="o", markersize=size)
        ax.set_xlim(0, end.max() / seconds)
        ax.set_ylim(np.nanmin([target.low, *values]) - margin, np.nanmax([target.high, *values]) + margin)
        ax.set(xlabel=f"Time ({unit})", ylabel=points_of(target, "Predicted", "\n"))
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.grid(axis="y")
        text = f"{len(values):,} windows, {values.isna().sum():,} of them silent or clipped (gaps)"
        style.note(ax, 1, 1.04, text, ax.transAxes, ha="right")
    return figure


def plot_occlusion(
    log_mel: ArrayLike, occlusion: Occlusion, sample_rate: int = 8000, hop_length: int = 512
) -> Figure:
    """Where in a clip a prediction comes from: its log-mel spectrogram, tinted by tile.

    Sound is dark. Red tiles raise the prediction, blue ones lower it; white ones do not matter.

    Args:
        log_mel, sample_rate, hop_length: as `plot_log_mel` takes them.
        occlusion: what each tile adds to the prediction, as `evaluation.occlusion.occlude` returns.

    Raises:
        SettingsError: as `plot_log_mel`.
    """
    change, times, bands, _ = occlusion
    limit, loudest = float(np.abs(change).max()) or 1.0, np.max(log_mel)
    with drawing(WIDTH, 2.7) as (figure, (ax,)):
        # The range of 60 dB below the loudest, which stays light enough to show its tint.
        shades: dict[str, Any] = {"cmap": "gray_r", "vmin": loudest - 60, "vmax": loudest + 20}
        draw_log_mel(ax, log_mel, sample_rate, hop_length, **shades)
        look: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "alpha": 0.5}
        tiles = ax.pcolormesh(times, bands, change.T, edgecolors="white", linewidth=0.4, **look)
        label = "Adds to the prediction\n(rating points)"
        figure.colorbar(tiles, ax=ax, label=label, pad=0.015, aspect=16)
    return figure


def plot_prediction_intervals(predictions: pd.DataFrame, coverage: float, target: Target) -> Figure:
    """Single clips' prediction intervals and ratings, and, where speakers are named, coverage by speaker.

    Args:
        predictions: one row per clip, with the columns `truth`, `prediction`, `low` and `high` (rating
            points), and, for the second panel, `speaker`.
        coverage: the share of ratings that the intervals are meant to hold, such as 0.9.
        target: what is rated.
    """
    rows = predictions.sort_values("prediction", kind="stable").reset_index(drop=True)
    inside = rows["truth"].between(rows["low"], rows["high"])
    named = "speaker" in rows and (rows["speaker"] != "").all()
    panels: dict[str, Any] = {"columns": 2, "width_ratios": (2, 1)} if named else {}
    with drawing(WIDTH, 3.3, **panels) as (figure, (ax, *others)):
        ax.fill_between(rows.index, rows["low"], rows["high"], step="mid", color=style.SKY, alpha=0.35)
        ax.plot(rows["prediction"], color=BLUE, linewidth=1.5, label="prediction")
        look: dict[str, Any] = {"markersize": 2.6, "markeredgewidth": 0}
        ax.plot(rows["truth"][inside], "o", color=BLACK, alpha=0.6, label="rating inside", **look)
        ax.plot(rows["truth"][~inside], "o", color=style.VERMILION, label="rating outside", **look)
        ax.set(xlabel="Clips, by prediction", ylabel=points_of(target), xlim=(-1, len(rows)))
        ax.set_title(f"{inside.mean():.1%} of {len(rows):,} clips inside")
        ax.yaxis.set_major_locator(MaxNLocator(9, integer=True))
        ax.grid(axis="y")
        for right in others:
            by_speaker = inside.groupby(rows["speaker"]).mean().sort_values(kind="stable")
            right.axvline(coverage, **style.DASHED)
            right.plot(by_speaker, range(len(by_speaker)), "o", color=BLUE, markersize=4.5)
            shown = by_speaker.index if len(by_speaker) <= 24 else []
            right.set_yticks(range(len(shown)), figure_labels(list(shown)))
            right.xaxis.set_major_formatter(PercentFormatter(1, 0))
            right.set(xlim=(min(0.5, by_speaker.min() - 0.03), 1.03), xlabel="Ratings inside")
            right.set_title("By speaker")
            right.grid(axis="x")
        figure.legend(loc="outside upper center", ncols=3)
    return figure
