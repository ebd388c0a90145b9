"""Every figure of the report but the architecture, drawn from plain arrays and tables.

Each `plot_` function returns a new matplotlib `Figure` that belongs to no window and takes nothing
from the caller's own style: the same input gives the same bytes of PNG. Figures are at most 7.5 inches
wide, which is 720 CSS pixels at 96 pixels an inch. Colours are those of Okabe and Ito, "Color Universal
Design" (2008), which people with any common colour vision can tell apart.
"""

from __future__ import annotations  # a valence curve is drawn without pandas

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter
from matplotlib.transforms import Transform
from numpy.typing import NDArray

from valence_lib.errors import SettingsError
from valence_lib.protocols import OUT_OF_FOLD

if TYPE_CHECKING:
    import pandas as pd

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
GREY, PALE = "#666666", "#E4E4E4"
PARTS = {"train": BLUE, "validation": ORANGE, "test": GREEN, OUT_OF_FOLD: GREEN}

WIDTH = 7.5  # inches
DPI = 144
MOST_POINTS = 1500  # above so many points in one panel they cover each other, and hexagons count them instead

_SQUARED_ERROR = "Mean squared error (squared rating points)"
_STYLE: dict[str, Any] = {
    "figure.dpi": DPI,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same glyphs
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": "#222222",
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@contextmanager
def drawing(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of `width` x `height` inches and its axes, row by row; finished and let go on leaving."""
    options |= {"figsize": (width, height), "layout": "constrained", "squeeze": False}
    with plt.style.context(["default", _STYLE]):
        figure, axes = plt.subplots(rows, columns, **options)
        try:
            yield figure, list(axes.flat)
            # Ticks are made in the style of the first drawing, and again at every later one as many as the
            # style's text size has room for: draw once in this style, and fix that size.
            for ax in figure.axes:
                ax.tick_params(labelsize=_STYLE["xtick.labelsize"])
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        finally:
            plt.close(figure)  # else pyplot would keep it, and a notebook would show it twice


def require(condition: bool, given: str, expected: str) -> None:
    """Refuse, where the condition does not hold, to draw a figure of what was given.

    Raises:
        SettingsError: the condition does not hold.
    """
    if not condition:
        raise SettingsError(f"This figure cannot be drawn: {given}; expected {expected}.")


def _checked(table: pd.DataFrame, numbers: tuple[str, ...], names: tuple[str, ...] = ()) -> pd.DataFrame:
    """`table`, once it is known to have rows, all those columns, and only finite numbers."""
    from pandas.api.types import is_numeric_dtype

    missing = [column for column in (*numbers, *names) if column not in table]
    columns = ", ".join((*names, *numbers))
    require(not missing, f"the table has no column {', '.join(missing)}", f"the columns {columns}")
    require(len(table) > 0, "the table has no rows", "at least one")
    for column in numbers:
        kind = table[column].dtype
        require(is_numeric_dtype(kind), f"the column {column} is of type {kind}", "numbers")
        bad = int((~np.isfinite(table[column].to_numpy(np.float64))).sum())
        require(bad == 0, f"{bad} of {len(table)} values of {column} are NaN or infinite", "finite numbers")
    for column in names:
        bad = int(table[column].isna().sum())
        require(bad == 0, f"{bad} of {len(table)} values of {column} are missing", "a name in every row")
    return table


def _check_scale(low: float, high: float) -> None:
    require(-math.inf < low < high < math.inf, f"the scale is {low} to {high}", "low < high")


def _clips(count: int) -> str:
    return f"{count:,} clip" if count == 1 else f"{count:,} clips"


def _by_model(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each model in order of appearance; all under "" where no column `model` is."""
    if "model" not in table:
        return {"": table}
    return {str(model): rows for model, rows in table.groupby("model", sort=False)}


def _colours(names: list[str]) -> dict[str, str]:
    require(len(names) <= len(PALETTE), f"{len(names)} to tell apart by colour", f"at most {len(PALETTE)}")
    return dict(zip(names, PALETTE, strict=False))


def note(ax: Axes, x: float, y: float, text: str, frame: Transform, **look: Any) -> None:
    """Small print at (x, y) of `frame`, the axes' own or one that mixes them with the data."""
    ax.text(x, y, text, transform=frame, **{"va": "center", "fontsize": 8, "color": GREY, **look})


def _mean_interval(values: NDArray[np.float64], groups: NDArray[np.str_]) -> tuple[float, float]:
    """Mean and half the width of its 95 % Student t interval over groups of clips, NaN for a single group.

    The standard error is that of a mean of clusters, to first order the one which the bootstrap of `evaluation` finds.
    """
    from scipy import special

    from valence_lib.evaluation import effective_number

    mean = float(values.mean())
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) == 1:
        return mean, math.nan
    n = effective_number(sizes)
    error = np.linalg.norm(np.bincount(group, values - mean)) / len(values) * math.sqrt(n / (n - 1))
    return mean, float(special.stdtrit(n - 1, 0.975) * error)


# ---------------------------------------------------------------------------------------------------
# The data
# ---------------------------------------------------------------------------------------------------


def plot_waveform(waveform: NDArray[np.floating], sample_rate: int) -> Figure:
    """A clip's waveform over time.

    Args:
        waveform [shape=(n_samples,)]: amplitude, where 1 is full scale.
        sample_rate: Hz.

    Raises:
        SettingsError: not one-dimensional, empty, NaN or infinite, or no sample rate above 0.
    """
    waveform = np.asarray(waveform, np.float64)
    require(
        waveform.ndim == 1 and waveform.size > 0, f"the waveform's shape is {waveform.shape}", "(n,), n > 0"
    )
    require(bool(np.isfinite(waveform).all()), "the waveform holds NaN or infinity", "finite samples")
    require(sample_rate > 0, f"sample_rate={sample_rate}", "Hz above 0")
    with drawing(WIDTH, 1.7) as (figure, (ax,)):
        ax.plot(np.arange(waveform.size) / sample_rate, waveform, color=BLUE, linewidth=0.5)
        peak = float(np.abs(waveform).max()) or 1.0
        ax.set(xlim=(0, waveform.size / sample_rate), ylim=(-1.05 * peak, 1.05 * peak))
        ax.set(xlabel="Time (s)", ylabel="Amplitude\n(1 = full scale)")
        ax.yaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    return figure


def plot_log_mel(
    log_mel: NDArray[np.floating], sample_rate: int, hop_length: int, frequencies: NDArray[np.floating]
) -> Figure:
    """A clip's log-mel spectrogram as an image, one row of pixels a mel band.

    Args:
        log_mel [shape=(frames, n_mels)]: dB; frame i is centred on the sample i * hop_length.
        sample_rate: Hz.
        hop_length: number of samples between successive frames.
        frequencies [shape=(n_mels,)]: centre frequency of each band in Hz, rising.

    Raises:
        SettingsError: a shape is wrong or they disagree, or a value is NaN, infinite or out of order.
    """
    log_mel, frequencies = np.asarray(log_mel, np.float64), np.asarray(frequencies, np.float64)
    require(
        log_mel.ndim == 2 and log_mel.size > 0 and frequencies.shape == log_mel.shape[1:],
        f"log_mel has the shape {log_mel.shape} and frequencies {frequencies.shape}",
        "(frames, n_mels) and (n_mels,)",
    )
    require(bool(np.isfinite(log_mel).all()), "log_mel holds NaN or infinity", "finite decibels")
    require(bool((np.diff(frequencies) > 0).all()), "frequencies are NaN or do not rise", "rising Hz")
    require(
        min(sample_rate, hop_length) > 0, f"sample_rate={sample_rate}, hop_length={hop_length}", "above 0"
    )
    frames, n_mels = log_mel.shape
    hop = hop_length / sample_rate
    ticks = [
        hz for hz in (125, 250, 500, 1000, 2000, 4000, 8000, 16000) if frequencies[0] <= hz <= frequencies[-1]
    ]
    with drawing(WIDTH, 2.7) as (figure, (ax,)):
        image = ax.imshow(
            log_mel.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            extent=(-hop / 2, (frames - 0.5) * hop, -0.5, n_mels - 0.5),
        )
        ax.set_yticks(np.interp(ticks, frequencies, np.arange(n_mels)), [f"{hz:,}" for hz in ticks])
        ax.set(xlabel="Time (s)", ylabel="Mel band's centre (Hz)")
        bar = figure.colorbar(image, ax=ax, pad=0.015, aspect=16)
        bar.set_label("Power (dB)")
        bar.outline.set_visible(False)
    return figure


def _plot_by_part(
    table: pd.DataFrame, column: str, edges: NDArray[np.float64], label: str, unit: str
) -> Figure:
    """A histogram a part, side by side on common axes, in per cent of the part's clips."""
    import seaborn as sns  # takes longer to import than all else here, and no other figure needs it

    part_of = table["part"].astype(str)
    parts = [part for part in PARTS if part in set(part_of)]
    parts += sorted(set(part_of) - set(parts))
    with drawing(WIDTH, 2.5, columns=len(parts), sharex=True, sharey=True) as (figure, axes):
        for ax, part in zip(axes, parts, strict=True):
            values = table.loc[part_of == part, column].to_numpy(np.float64)
            colour = PARTS.get(part, GREY)
            sns.histplot(x=values, bins=edges, stat="percent", color=colour, edgecolor="white", ax=ax)
            ax.axvline(values.mean(), color=BLACK, linewidth=1, linestyle="dashed")
            ax.set_title(f"{'all rated' if part == OUT_OF_FOLD else part}, {_clips(len(values))}")
            ax.set(xlabel="", ylabel="", xlim=(edges[0], edges[-1]))
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.grid(axis="y")
            summary = f"mean {values.mean():.2f}{unit}\nSD {values.std():.2f}{unit}"
            note(ax, 0.98, 0.97, summary, ax.transAxes, ha="right", va="top", color=BLACK)
        axes[0].set_ylim(0, 1.25 * axes[0].get_ylim()[1])
        axes[0].set_ylabel("Clips (%)")
        figure.supxlabel(label, fontsize=9)
    return figure


def plot_label_distribution(labels: pd.DataFrame, low: float = 1.0, high: float = 5.0) -> Figure:
    """How the true valence is distributed in each part, a line at the mean.

    Args:
        labels: a row a clip, with the columns `valence` (rating points) and `part`.
        low, high: the ends of the rating scale.

    Raises:
        SettingsError: a column is missing, a valence is NaN, infinite or off the scale, or no rows.
    """
    _check_scale(low, high)
    valence = _checked(labels, ("valence",), ("part",))["valence"]
    off = int(((valence < low) | (valence > high)).sum())
    require(off == 0, f"{off} of {len(valence)} valences lie off the scale", f"{low:g} to {high:g}")
    # The mean of a few raters takes few values, which bins of any other width would show as a comb: take
    # the coarsest grid on which all ratings stand, and a bin around each of its points.
    share = (valence.to_numpy(np.float64) - low) / (high - low)
    fits = (n for n in range(4, 25) if np.abs(share * n - np.round(share * n)).max() < 0.05)
    steps = next(fits, 16)
    edges = low + (np.arange(steps + 2) - 0.5) * (high - low) / steps
    return _plot_by_part(labels, "valence", edges, f"Valence ({low:g} negative to {high:g} positive)", "")


def plot_durations(durations: pd.DataFrame) -> Figure:
    """How long the clips of each part are, a line at the mean.

    Args:
        durations: a row a clip, with the columns `duration_seconds` and `part`.

    Raises:
        SettingsError: a column is missing, a duration is NaN, infinite or not above 0, or no rows.
    """
    seconds = _checked(durations, ("duration_seconds",), ("part",))["duration_seconds"]
    require(float(seconds.min()) > 0, f"the shortest duration is {seconds.min()} s", "seconds above 0")
    edges = np.linspace(0, MaxNLocator(8).tick_values(0, float(seconds.max()))[-1], 25)
    return _plot_by_part(durations, "duration_seconds", edges, "Duration (s)", " s")


# ---------------------------------------------------------------------------------------------------
# Training and scores
# ---------------------------------------------------------------------------------------------------


def plot_learning_curves(history: pd.DataFrame, mean_predictor_mse: float) -> Figure:
    """Training and validation error over the epochs, a panel a model, a colour a preset.

    Thin lines are seeds, thick ones their mean over the epochs that every seed has reached. The error
    axis is logarithmic where the largest error is more than six times the smallest.

    Args:
        history: a row an epoch, with the columns `model`, `preset`, `seed`, `epoch`, `training_mse`
            and `validation_mse` (squared rating points).
        mean_predictor_mse: what predicting the training part's mean scores on the validation part.

    Raises:
        SettingsError: a column is missing, a number is NaN or infinite, an epoch stands there twice, or
            no rows.
    """
    columns: dict[str, Any] = {"training_mse": (0, (3, 1.5)), "validation_mse": "solid"}
    _checked(history, ("epoch", *columns), ("model", "preset", "seed"))
    require(0 < mean_predictor_mse < math.inf, f"mean_predictor_mse={mean_predictor_mse}", "a number above 0")
    twice = int(history.duplicated(["model", "preset", "seed", "epoch"]).sum())
    require(twice == 0, f"{twice} epochs stand in the table twice", "one row a model, preset, seed and epoch")
    models = _by_model(history)
    presets = _colours(sorted(str(preset) for preset in history["preset"].unique()))
    errors = np.append(history[list(columns)].to_numpy(np.float64).ravel(), mean_predictor_mse)
    across, down = min(3, len(models)), math.ceil(len(models) / 3)
    with drawing(WIDTH, 0.6 + 2.5 * down, down, across, sharex=True, sharey=True) as (figure, axes):
        for ax, (model, rows) in zip(axes, models.items(), strict=False):
            ax.axhline(mean_predictor_mse, color=GREY, linewidth=1.2, linestyle="dotted")
            for preset, of_preset in rows.groupby("preset"):
                for column, style in columns.items():
                    seeds = of_preset.pivot(index="epoch", columns="seed", values=column).sort_index()
                    look: dict[str, Any] = {"color": presets[str(preset)], "linestyle": style}
                    if len(seeds) == 1:  # a line through one point is invisible
                        look["marker"] = "o"
                        look["markerfacecolor"] = "white" if column == "training_mse" else None
                    ax.plot(seeds.index, seeds, linewidth=0.6, alpha=0.5, markersize=3, **look)
                    mean = seeds.dropna().mean(axis="columns")
                    ax.plot(mean.index, mean, linewidth=1.8, markersize=5, **look)
            ax.set_title(model)
            ax.grid(axis="y")
        for ax in axes[len(models) :]:
            ax.set_visible(False)
        axes[0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if errors.min() > 0 and errors.max() > 6 * errors.min():
            axes[0].set_yscale("log")
            axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes[0].yaxis.set_minor_locator(NullLocator())
            axes[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        figure.supxlabel("Epoch", fontsize=9)
        figure.supylabel("MSE (squared rating points)", fontsize=9)
        keys: list[tuple[str, str, Any]] = [(name, colour, "solid") for name, colour in presets.items()]
        keys += [(column.removesuffix("_mse"), BLACK, style) for column, style in columns.items()]
        keys.append(("predict the training mean", GREY, "dotted"))
        handles = [Line2D([], [], label=name, color=colour, linestyle=style) for name, colour, style in keys]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=2.2)
    return figure


def plot_sweep(trials: pd.DataFrame, mean_predictor_mse: float) -> Figure:
    """What a sweep's trials came to, one mark a trial in their order, and the best so far as a line.

    The error axis is logarithmic where the largest error is more than six times the smallest. Trials that reached no
    error at all, having diverged in their first epoch, are left out.

    Args:
        trials: a row a trial, with the columns `trial` (its number), `outcome` ("completed", "pruned" or
            "diverged"), `model` and `validation_mse` (squared rating points; NaN where there is none).
        mean_predictor_mse: what predicting the training part's mean scores on the validation part.

    Raises:
        SettingsError: a column is missing, an error is infinite, or no trial has one.
    """
    shown = trials[trials["validation_mse"].notna()] if "validation_mse" in trials else trials
    _checked(shown, ("trial", "validation_mse"), ("outcome", "model"))
    require(0 < mean_predictor_mse < math.inf, f"mean_predictor_mse={mean_predictor_mse}", "a number above 0")
    colours = _colours(sorted(str(model) for model in shown["model"].unique()))
    errors = np.append(shown["validation_mse"].to_numpy(np.float64), mean_predictor_mse)
    with drawing(WIDTH, 3.0) as (figure, (ax,)):
        ax.axhline(mean_predictor_mse, color=GREY, linewidth=1.2, linestyle="dotted")
        completed = shown[shown["outcome"] == "completed"]
        best = completed["validation_mse"].cummin()
        ax.step(completed["trial"], best, where="post", color=BLACK, linewidth=1.2, zorder=1)
        for row in shown.itertuples():
            full = row.outcome == "completed"
            look: dict[str, Any] = {"marker": "o"} if full else {"marker": "x", "alpha": 0.7}
            ax.plot(row.trial, row.validation_mse, markersize=5.5, color=colours[str(row.model)], **look)
        if errors.min() > 0 and errors.max() > 6 * errors.min():
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_minor_locator(NullLocator())
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        ax.grid(axis="y")
        ax.set(xlabel="Trial", ylabel="Lowest validation MSE\n(squared rating points)")
        point: dict[str, Any] = {"linestyle": "none", "markersize": 5.5}
        handles = [
            Line2D([], [], label=m, color=colour, marker="o", **point) for m, colour in colours.items()
        ]
        handles.append(Line2D([], [], label="pruned or diverged", color=GREY, marker="x", **point))
        handles.append(Line2D([], [], label="best so far", color=BLACK))
        handles.append(Line2D([], [], label="predict the training mean", color=GREY, linestyle="dotted"))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=1.8)
    return figure


def plot_scores(
    scores: pd.DataFrame, mean_predictor_mse: float, rater_mse: Mapping[str, float] | None = None
) -> Figure:
    """The models' mean squared errors with their intervals, best first within each kind of model.

    Args:
        scores: a row a model, with the columns `label`, `mse`, `low`, `high` (squared rating points, the
            last two the ends of the interval) and `kind`, under which rows are grouped in order of appearance.
        mean_predictor_mse: what predicting the training mean scores; drawn as a vertical line.
        rater_mse: further vertical lines by name, such as one human rater against the others.

    Raises:
        SettingsError: a column is missing, a number is NaN or infinite, an interval ends before it
            begins, or no rows.
    """
    _checked_intervals(scores, ("label", "kind"))
    references = {"predict the training mean": mean_predictor_mse, **(rater_mse or {})}
    for name, value in references.items():
        require(np.isfinite(value), f"the MSE of {name!r} is {value}", "a finite number")
    kinds = _colours([str(kind) for kind in scores["kind"].unique()])
    lines = len(scores) + len(kinds)
    with drawing(WIDTH, 0.95 + 0.23 * lines) as (figure, (ax,)):
        position, ticks = 0, {}
        for kind, colour in kinds.items():
            heading = {"ha": "right", "weight": "bold", "fontsize": 9, "color": colour}
            note(ax, -0.01, position, kind, ax.get_yaxis_transform(), **heading)
            for row in scores[scores["kind"].astype(str) == kind].sort_values(["mse", "label"]).itertuples():
                position += 1
                ticks[position] = str(row.label)
                _mark_interval(ax, row, position, colour)
                numbers = f"{row.mse:.3f}  [{row.low:.3f}, {row.high:.3f}]"
                note(ax, 1.02, position, numbers, ax.get_yaxis_transform(), color=BLACK)
            position += 1
        for name, value in references.items():
            style = "dotted" if name == "predict the training mean" else "dashed"
            ax.axvline(value, color=GREY, linewidth=1.2, linestyle=style, zorder=0)
        ax.set_yticks(list(ticks), list(ticks.values()))
        ax.set(ylim=(lines - 0.4, -0.6), xlabel=_SQUARED_ERROR)
        _finish_rows(figure, ax, references, 1.02, "MSE  [interval]", "left")
    return figure


def _finish_rows(
    figure: Figure, ax: Axes, references: Mapping[str, float], x: float, heading: str, side: str
) -> None:
    """What figures with a row a thing share: no left spine, and above the axes the names of the vertical
    lines, each on the lowest level where it has room, and the heading of the numbers at the right."""
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)
    above: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "color": GREY}
    right = ax.annotate(heading, (x, 1), (0, 3), xycoords="axes fraction", ha=side, **above)
    above |= {"xycoords": ax.get_xaxis_transform(), "ha": "center"}
    by_value = sorted(references.items(), key=lambda item: item[1])
    names = [ax.annotate(f"{name} {value:.3f}", (value, 1), (0, 3), **above) for name, value in by_value]
    figure.draw_without_rendering()  # only then do texts know their places
    placed = [right.get_window_extent().padded(3)]
    for name in names:
        while any(name.get_window_extent().padded(3).overlaps(other) for other in placed):
            name.xyann = (0, name.xyann[1] + 13)
        placed.append(name.get_window_extent().padded(3))


def _checked_intervals(rows: pd.DataFrame, names: tuple[str, ...], numbers: tuple[str, ...] = ()) -> None:
    _checked(rows, ("mse", "low", "high", *numbers), names)
    bad = int((rows["low"] > rows["high"]).sum())  # a bootstrap's interval need not hold the MSE itself
    require(bad == 0, f"{bad} of {len(rows)} intervals end before they begin", "low <= high")


def _mark_interval(ax: Axes, row: Any, position: int, colour: str) -> None:
    ax.plot([row.low, row.high], [position, position], color=colour, linewidth=1.6, solid_capstyle="butt")
    ax.plot(row.mse, position, marker="o", markersize=5.5, color=colour)


# ---------------------------------------------------------------------------------------------------
# Predictions and their errors
# ---------------------------------------------------------------------------------------------------


def plot_predicted_against_true(predictions: pd.DataFrame, low: float, high: float) -> Figure:
    """Prediction against truth, a panel a model, with the identity and the least-squares line.

    Args:
        predictions: a row a clip, with the columns `truth` and `prediction` (rating points), and, for
            several models, `model`.
        low, high: the ends of the rating scale; the axes reach further where a prediction does.

    Raises:
        SettingsError: a column is missing, a number is NaN or infinite, or no rows.
    """
    _check_scale(low, high)
    _checked(predictions, ("truth", "prediction"), ("model",) if "model" in predictions else ())
    models = _by_model(predictions)
    values = predictions[["truth", "prediction"]].to_numpy(np.float64)
    margin = 0.03 * (high - low)
    limits = min(low, values.min()) - margin, max(high, values.max()) + margin
    across, down = min(3, len(models)), math.ceil(len(models) / 3)
    side = 4.0 if across == 1 else (WIDTH - 0.6) / across
    size = side * across + 0.6, (side + 0.25) * down + 0.55
    with drawing(*size, down, across, sharex=True, sharey=True) as (figure, axes):
        for ax, (model, rows) in zip(axes, models.items(), strict=False):
            truth, prediction = rows["truth"].to_numpy(np.float64), rows["prediction"].to_numpy(np.float64)
            summary = _clips(len(rows))
            if len(rows) > MOST_POINTS:
                extent = (*limits, *limits)
                ax.hexbin(truth, prediction, gridsize=32, extent=extent, mincnt=1, bins="log", cmap="Blues")
                summary += " (darker: more)"
            else:
                alpha = 0.35 if len(rows) > 100 else 0.8
                ax.scatter(truth, prediction, s=9, color=BLUE, alpha=alpha, linewidths=0)
            ax.plot(limits, limits, color=GREY, linewidth=1, linestyle="dashed", label="prediction = truth")
            if np.ptp(truth) > 0:  # else no line is the best one
                slope, intercept = np.polyfit(truth, prediction, 1)
                ends = np.array([truth.min(), truth.max()])
                ax.plot(ends, slope * ends + intercept, color=VERMILION, linewidth=2, label="least squares")
                summary += f"\nslope {slope:.2f}"
            note(ax, 0.97, 0.03, summary, ax.transAxes, ha="right", va="bottom", color=BLACK)
            ax.set_title(model)
            ax.set(xlim=limits, ylim=limits, aspect="equal")
            ax.xaxis.set_major_locator(MaxNLocator(9, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(9, integer=True))
        for ax in axes[len(models) :]:
            ax.set_visible(False)
        figure.legend(handles=axes[0].get_lines(), loc="outside upper center", ncols=2)
        figure.supxlabel("True valence (rating points)", fontsize=9)
        figure.supylabel("Predicted valence (rating points)", fontsize=9)
    return figure


def plot_residuals_by_valence(predictions: pd.DataFrame, low: float, high: float, bins: int = 8) -> Figure:
    """Mean residual, prediction minus truth, in equal bins of the true valence, with 95 % intervals.

    The two bins at the ends of the scale are shaded. A bin holds its lower edge; the last one both. The
    intervals are over what `evaluation.groups_of` says, and missing where a bin holds one speaker.

    Args:
        predictions: a row a clip, with the columns `id`, `speaker`, `truth` and `prediction` (rating
            points), and, for several models scored on the same clips, `model`.
        low, high: the ends of the rating scale.
        bins: how many.

    Raises:
        SettingsError: a column is missing, a number is NaN or infinite, a truth is off the scale, no rows,
            or models scored on unlike clips.
    """
    _check_scale(low, high)
    require(bins >= 2, f"bins={bins}", "2 or more")
    _checked(predictions, ("truth", "prediction"), ("model",) if "model" in predictions else ())
    off = int((~predictions["truth"].between(low, high)).sum())
    require(off == 0, f"{off} of {len(predictions)} truths lie off the scale", f"{low:g} to {high:g}")
    edges = np.linspace(low, high, bins + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    with drawing(WIDTH, 3.3) as (figure, (ax,)):
        for left in (edges[0], edges[-2]):
            ax.axvspan(left, left + edges[1] - edges[0], color=ORANGE, alpha=0.16, linewidth=0)
        residuals = predictions["prediction"] - predictions["truth"]
        counts = _plot_binned(ax, predictions, "truth", residuals, edges, middles)
        ax.axhline(0, color=GREY, linewidth=1, linestyle="dashed", zorder=1)
        for middle, count in zip(middles, counts, strict=True):
            note(ax, middle, 1.03, f"{count:,}", ax.get_xaxis_transform(), ha="center")
        note(ax, -0.01, 1.03, "clips", ax.transAxes, ha="right")
        ax.set(xlim=(low, high), xticks=edges)
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.set(xlabel="True valence (rating points)", ylabel="Prediction − truth\n(rating points)")
    return figure


def plot_error_by_duration(predictions: pd.DataFrame, bins: int = 8) -> Figure:
    """Mean squared error over the clip's duration, in bins of about as many clips each.

    A mark stands at its bin's median duration. The 95 % intervals are over what `evaluation.groups_of`
    says, cut off at 0 below.

    Args:
        predictions: a row a clip, with the columns `id`, `speaker`, `truth`, `prediction` (rating points)
            and `duration_seconds`, and, for several models scored on the same clips, `model`.
        bins: how many; fewer where a bin would hold fewer than ten clips.

    Raises:
        SettingsError: a column is missing, a number is NaN or infinite, no rows, or models scored on
            unlike clips.
    """
    require(bins >= 1, f"bins={bins}", "1 or more")
    numbers = ("truth", "prediction", "duration_seconds")
    _checked(predictions, numbers, ("model",) if "model" in predictions else ())
    seconds = next(iter(_by_model(predictions).values()))["duration_seconds"].to_numpy(np.float64)
    shares = np.linspace(0, 1, max(1, min(bins, len(seconds) // 10)) + 1)
    # Edges are durations of clips, never between two: every bin then holds at least its lower edge.
    edges = np.unique(np.quantile(seconds, shares, method="lower"))
    if len(edges) == 1:  # all clips are as long as each other
        edges = np.repeat(edges, 2)

    bin_of = _bin(seconds, edges)
    medians = np.array([np.median(seconds[bin_of == i]) for i in range(len(edges) - 1)])
    with drawing(WIDTH, 3.0) as (figure, (ax,)):
        errors = (predictions["prediction"] - predictions["truth"]) ** 2
        counts = _plot_binned(ax, predictions, "duration_seconds", errors, edges, medians)
        ax.set_ylim(0, None)
        ax.set(xlabel="Duration (s)", ylabel="MSE (squared rating points)")
        many = f"{min(counts):,} to {max(counts):,}" if min(counts) < max(counts) else f"{counts[0]:,}"
        note(ax, 1, 1.03, f"{many} clips a mark", ax.transAxes, ha="right")
    return figure


def _bin(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.intp]:
    """Index of the bin that holds each value; a bin holds its lower edge, the last one both."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def _plot_binned(
    ax: Axes,
    predictions: pd.DataFrame,
    column: str,
    values: pd.Series[float],
    edges: NDArray[np.float64],
    positions: NDArray[np.float64],
) -> list[int]:
    """Mean and interval of `values`, a row a prediction, in the bins of `column`; the clips in each bin."""
    from valence_lib.evaluation import groups_of

    groups = groups_of(predictions)[0]
    places = _bin(predictions[column].to_numpy(np.float64), edges)
    models = (
        predictions["model"].astype(str).to_numpy() if "model" in predictions else np.full(len(places), "")
    )
    colours = _colours(list(dict.fromkeys(models)))
    step = min(0.12 * float(np.diff(positions).min(initial=1.0)), 0.6 / len(colours))
    counts: list[int] = []
    for order, (model, colour) in enumerate(colours.items()):
        own = models == model
        of_model = np.bincount(places[own], minlength=len(positions)).tolist()
        counts = counts or of_model
        require(
            counts == of_model, f"{model} is scored on other clips than another model", "the same for all"
        )
        filled = np.flatnonzero(counts)
        quantity = values.to_numpy(np.float64)
        of_bin = [own & (places == i) for i in filled]
        means, halves = np.array([_mean_interval(quantity[rows], groups[rows]) for rows in of_bin]).T
        # Models stand side by side, so that none hides another.
        x = positions[filled] + (order - (len(colours) - 1) / 2) * step
        ax.errorbar(x, means, halves, fmt="o", markersize=4.5, linewidth=1.5, color=colour, label=model)
    ax.grid(axis="y")
    if len(colours) > 1:
        ax.legend(ncols=len(colours), loc="lower center", bbox_to_anchor=(0.5, 1.05), handletextpad=0.1)
    return counts


def plot_error_by_group(groups: pd.DataFrame, axis_name: str) -> Figure:
    """Mean squared error of each group of clips with its interval, the lowest first.

    The vertical line is the error over the clips of all groups.

    Args:
        groups: a row a group, with the columns `group`, `mse`, `low`, `high` (squared rating points, the
            last two the ends of the interval) and `n` (clips).
        axis_name: what the groups are, such as "Speaker".

    Raises:
        SettingsError: a column is missing, a number is NaN or infinite, an interval ends before it
            begins, or no rows.
    """
    _checked_intervals(groups, ("group",), ("n",))
    require(int(groups["n"].min()) > 0, f"a group has n={groups['n'].min()} clips", "1 or more")
    rows = groups.sort_values(["mse", "group"], kind="stable")
    overall = float(np.average(rows["mse"], weights=rows["n"]))
    with drawing(WIDTH, 1.0 + 0.21 * len(rows)) as (figure, (ax,)):
        ax.axvline(overall, color=GREY, linewidth=1.2, linestyle="dashed", zorder=0)
        for position, row in enumerate(rows.itertuples()):
            _mark_interval(ax, row, position, BLUE)
            note(ax, 1.06, position, f"{row.n:,}", ax.get_yaxis_transform(), ha="right", color=BLACK)
        ax.set_yticks(range(len(rows)), [str(group) for group in rows["group"]])
        ax.set(ylim=(len(rows) - 0.4, -0.6), xlabel=_SQUARED_ERROR, ylabel=axis_name)
        ax.set_xlim(left=min(0.0, float(rows["low"].min())))
        _finish_rows(figure, ax, {"all clips": overall}, 1.06, "clips", "right")
    return figure


def plot_valence_curve(
    start_seconds: Sequence[float],
    end_seconds: Sequence[float],
    valence: Sequence[float],
    low: float,
    high: float,
) -> Figure:
    """Predicted valence along a recording, a mark at the middle of each window; gaps where it is NaN.

    Time is in minutes where the recording lasts longer than three.

    Args:
        start_seconds, end_seconds [shape=(windows,)]: of each window, in the order of the recording.
        valence [shape=(windows,)]: rating points; NaN where a window has none, such as a silent one.
        low, high: the ends of the rating scale; the axis reaches further where a prediction does.

    Raises:
        SettingsError: no window, unlike numbers of values, an infinite valence, times that are not finite,
            or windows that end before they begin.
    """
    _check_scale(low, high)
    columns = [np.asarray(column, np.float64) for column in (start_seconds, end_seconds, valence)]
    start, end, values = columns
    require(
        start.size > 0 and all(column.shape == (start.size,) for column in columns),
        f"starts, ends and valence have the shapes {', '.join(str(column.shape) for column in columns)}",
        "(windows,) each, with windows > 0",
    )
    require(bool(np.isfinite(end - start).all()), "a time is NaN or infinite", "finite seconds")
    require(bool((start < end).all()), "a window ends before it begins", "start_seconds < end_seconds")
    require(not np.isinf(values).any(), "a valence is infinite", "numbers, and NaN where there is none")
    unit, seconds = ("min", 60.0) if end.max() > 180 else ("s", 1.0)
    middles = (start + end) / 2 / seconds
    known = values[np.isfinite(values)]
    margin = 0.03 * (high - low)
    with drawing(WIDTH, 2.5) as (figure, (ax,)):
        size = 2.5 if len(values) <= 200 else 0.0
        ax.plot(middles, values, color=BLUE, linewidth=1.2, marker="o", markersize=size)
        # A window between two gaps would else be invisible in a long curve.
        gap = np.concatenate([[True], ~np.isfinite(values), [True]])
        alone = np.isfinite(values) & gap[:-2] & gap[2:]
        ax.plot(middles[alone], values[alone], color=BLUE, linestyle="none", marker="o", markersize=2.5)
        ax.set(
            xlim=(0, end.max() / seconds),
            xlabel=f"Time ({unit})",
            ylabel="Predicted valence\n(rating points)",
        )
        ax.set_ylim(min(low, known.min(initial=low)) - margin, max(high, known.max(initial=high)) + margin)
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.grid(axis="y")
        without = len(values) - len(known)
        windows = f"{len(values):,} windows" if len(values) > 1 else "1 window"
        text = windows + (f", {without:,} of them silent or clipped (gaps)" if without else "")
        note(ax, 1, 1.04, text, ax.transAxes, ha="right")
    return figure


# ---------------------------------------------------------------------------------------------------
# Differences, conditions and single clips
# ---------------------------------------------------------------------------------------------------

_METRICS = {
    "mse": "MSE (squared rating points)",
    "ccc": "CCC",
    "bias": "Bias (rating points)",
}
_TOO_SMALL = "too small to say"
_VERDICTS = {
    "better": GREEN,
    "worse": VERMILION,
    "higher": BLUE,
    "lower": PURPLE,
    "tie": GREY,
    _TOO_SMALL: GREY,
    "": BLACK,  # of what the others are compared with
}


def plot_differences(differences: pd.DataFrame, reference: str) -> Figure:
    """A forest plot: differences with their intervals about the line of no difference, a panel a metric.

    For ablations, leakage and fairness alike. Rows stand in the order given, under their kind where there is one.
    A mark's colour is the verdict's; hollow is what is too small to say.

    Args:
        differences: a row a mark, with the columns `label`, `difference`, `low`, `high` and `verdict` ("better",
            "worse", "higher", "lower", "tie" or "too small to say"); where there are several, also `metric` ("mse",
            "ccc" or "bias", in whose unit the numbers are; else "mse") and `kind`, under which rows are grouped.
        reference: what each row is compared with, such as "the whole model".

    Raises:
        SettingsError: a column is missing, a number is NaN or infinite, an interval ends before it begins, a verdict
            or metric is none of these, a row stands there twice, or no rows.
    """
    optional = tuple(name for name in ("metric", "kind") if name in differences)
    _checked(differences, ("difference", "low", "high"), ("label", "verdict", *optional))
    rows = differences.assign(
        label=differences["label"].astype(str),
        kind=differences["kind"].astype(str) if "kind" in differences else "",
        metric=differences.get("metric", "mse"),
    )
    _check_verdicts(rows, ["kind", "label", "metric"])
    metrics = [metric for metric in _METRICS if metric in set(rows["metric"])]
    places: dict[tuple[str, str], int] = {}
    headings: dict[str, int] = {}
    for kind, of_kind in rows.groupby("kind", sort=False):
        if kind:
            headings[str(kind)] = len(places) + len(headings)
        for label in of_kind["label"].unique():
            places[str(kind), label] = len(places) + len(headings)
    lines = len(places) + len(headings)
    with drawing(WIDTH, 1.15 + 0.22 * lines, columns=len(metrics), sharey=True) as (figure, axes):
        for ax, metric in zip(axes, metrics, strict=True):
            ax.axvline(0, color=BLACK, linewidth=0.8, zorder=0)
            for row in rows[rows["metric"] == metric].itertuples():
                place = places[row.kind, row.label]
                _mark_verdict(ax, place, row.difference, row.low, row.high, row.verdict)
            _finish_panel(ax, metric, lines)
        axes[0].set_yticks(list(places.values()), [label for _, label in places])
        for heading, place in headings.items():
            # Beside the labels of the rows, whose axis is the first panel's.
            look = {"ha": "right", "weight": "bold", "fontsize": 9, "color": BLACK}
            note(axes[0], -0.01, place, heading, axes[0].get_yaxis_transform(), **look)
        axes[0].set_title(f"Difference from {reference}")
        _add_verdicts(figure, rows["verdict"])
    return figure


def _check_verdicts(rows: pd.DataFrame, key: list[str]) -> None:
    bad = int((rows["low"] > rows["high"]).sum())
    require(bad == 0, f"{bad} of {len(rows)} intervals end before they begin", "low <= high")
    for column, known in (("verdict", _VERDICTS), ("metric", _METRICS)):
        unknown = sorted(set(rows[column]) - set(known))
        require(not unknown, f"{column} is {', '.join(map(repr, unknown))}", f"one of {', '.join(known)}")
    twice = int(rows.duplicated(key).sum())
    require(twice == 0, f"{twice} rows stand in the table twice", f"one row a {' and '.join(key)}")


def _mark_verdict(ax: Axes, place: int, value: float, low: float, high: float, verdict: str) -> None:
    colour, hollow = _VERDICTS[verdict], verdict == _TOO_SMALL
    ax.plot([low, high], [place, place], color=colour, linewidth=0.9 if hollow else 1.6)
    fill = "white" if hollow else colour
    ax.plot(value, place, marker="o", markersize=5.5, color=colour, markerfacecolor=fill)


def _finish_panel(ax: Axes, metric: str, lines: int) -> None:
    ax.set(ylim=(lines - 0.4, -0.6), xlabel=_METRICS[metric])
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _add_verdicts(figure: Figure, verdicts: pd.Series[str]) -> None:
    """The key of those verdicts that are found."""
    handles = []
    for verdict in (name for name in _VERDICTS if name and name in set(verdicts)):
        colour = _VERDICTS[verdict]
        fill = "white" if verdict == _TOO_SMALL else colour
        mark: dict[str, Any] = {"marker": "o", "markersize": 5.5, "markerfacecolor": fill}
        handles.append(Line2D([], [], label=verdict, color=colour, **mark))
    if handles:
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), handlelength=1.6)


def plot_frontier(frontier: pd.DataFrame, own: tuple[float, float]) -> Figure:
    """MSE and CCC of one model's predictions, shrunk to their mean or stretched from it, and its two optima.

    Args:
        frontier: a row a scale, with the columns `scale` (1 leaves the predictions' spread as it is), `mse` (squared
            rating points) and `ccc`.
        own: MSE and CCC of the predictions as they are, which need not lie on the frontier.

    Raises:
        SettingsError: a column is missing, a number is NaN or infinite, or no rows.
    """
    _checked(frontier, ("scale", "mse", "ccc"))
    require(bool(np.isfinite(own).all()), f"the model's own scores are {own}", "finite numbers")
    curve = frontier.sort_values("scale", kind="stable").reset_index(drop=True)
    optima = {"lowest MSE": curve.loc[curve["mse"].idxmin()], "highest CCC": curve.loc[curve["ccc"].idxmax()]}
    with drawing(5.2, 3.4) as (figure, (ax,)):
        ax.plot(curve["mse"], curve["ccc"], color=GREY, linewidth=1.5, zorder=1)
        for (name, best), colour, marker in zip(optima.items(), (BLUE, GREEN), "sD", strict=True):
            look: dict[str, Any] = {"marker": marker, "markersize": 6, "color": colour, "linestyle": "none"}
            ax.plot(best["mse"], best["ccc"], label=f"{name} (spread × {best['scale']:.2f})", **look)
        ring: dict[str, Any] = {
            "marker": "o",
            "markersize": 11,
            "markerfacecolor": "none",
            "markeredgewidth": 1.8,
        }
        ax.plot(*own, color=VERMILION, linestyle="none", label="the model as it is", **ring)
        for end in (0, len(curve) - 1):
            place = curve["mse"][end], curve["ccc"][end]
            small: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "color": GREY}
            ax.annotate(f"× {curve['scale'][end]:g}", place, (5, -3), **small)
        ax.margins(0.08)
        ax.grid()
        ax.set(xlabel=_SQUARED_ERROR, ylabel="CCC")
        ax.legend(loc="best")
    return figure


def plot_robustness(conditions: pd.DataFrame) -> Figure:
    """Scores with their intervals by condition, a panel a metric; a dashed line at the first condition's score.

    A mark's colour is the verdict of the paired comparison with the first condition.

    Args:
        conditions: a row a condition and metric, with the columns `condition`, `metric` ("mse" or "ccc"), `score`,
            `low`, `high`, and `verdict` ("better", "worse", "tie", and "" for the first condition), as
            `error_groups.robustness` returns.

    Raises:
        SettingsError: a column is missing, a number is NaN or infinite, an interval ends before it begins, a metric
            or verdict is none of these, a row stands there twice, or no rows.
    """
    _checked(conditions, ("score", "low", "high"), ("condition", "metric", "verdict"))
    _check_verdicts(conditions, ["condition", "metric"])
    names = [str(name) for name in conditions["condition"].unique()]
    metrics = [metric for metric in _METRICS if metric in set(conditions["metric"])]
    with drawing(WIDTH, 1.1 + 0.24 * len(names), columns=len(metrics), sharey=True) as (figure, axes):
        for ax, metric in zip(axes, metrics, strict=True):
            for row in conditions[conditions["metric"] == metric].itertuples():
                place = names.index(str(row.condition))
                if place == 0:
                    ax.axvline(row.score, color=GREY, linewidth=1.2, linestyle="dashed", zorder=0)
                _mark_verdict(ax, place, row.score, row.low, row.high, row.verdict)
            _finish_panel(ax, metric, len(names))
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_title(f"Compared with: {names[0]}")
        _add_verdicts(figure, conditions["verdict"])
    return figure


def plot_occlusion(
    log_mel: NDArray[np.floating],
    sample_rate: int,
    hop_length: int,
    frequencies: NDArray[np.floating],
    change: NDArray[np.floating],
    time_edges: NDArray[np.floating],
    band_edges: NDArray[np.floating],
) -> Figure:
    """What a model heard in a clip: its log-mel spectrogram, dark where there is sound, tinted by tile.

    Red tiles lift the prediction, blue ones lower it; white ones do not matter.

    Args:
        log_mel, sample_rate, hop_length, frequencies: as `plot_log_mel` takes them.
        change [shape=(time tiles, bands)]: what each tile adds to the prediction, rating points.
        time_edges [shape=(time tiles + 1,)]: seconds, rising.
        band_edges [shape=(bands + 1,)]: Hz, rising.

    Raises:
        SettingsError: shapes that disagree, or a value that is NaN, infinite or out of order.
    """
    log_mel, frequencies = np.asarray(log_mel, np.float64), np.asarray(frequencies, np.float64)
    change, times, bands = (np.asarray(given, np.float64) for given in (change, time_edges, band_edges))
    require(
        log_mel.ndim == 2 and log_mel.size > 0 and frequencies.shape == log_mel.shape[1:],
        f"log_mel has the shape {log_mel.shape} and frequencies {frequencies.shape}",
        "(frames, n_mels) and (n_mels,)",
    )
    require(
        change.ndim == 2 and change.size > 0 and change.shape == (len(times) - 1, len(bands) - 1),
        f"change has the shape {change.shape}, time_edges {times.shape} and band_edges {bands.shape}",
        "(tiles, bands), (tiles + 1,) and (bands + 1,)",
    )
    finite = np.isfinite(log_mel).all() and np.isfinite(change).all()
    require(bool(finite), "log_mel or change holds NaN or infinity", "finite numbers")
    rising = all((np.diff(places) > 0).all() for places in (frequencies, times, bands))
    require(rising, "frequencies or edges are NaN or do not rise", "rising numbers")
    frames, n_mels = log_mel.shape
    hop = hop_length / sample_rate
    # Sound as darkness, the range of 60 dB below the loudest; tinted by multiplication, so that silence keeps the hue.
    lightness = 1 - 0.75 * np.clip((log_mel - log_mel.max() + 60) / 60, 0, 1)
    limit = float(np.abs(change).max()) or 1.0
    scale = Normalize(-limit, limit)
    # A frame lasts longer than the tiles' edges are sharp: a few columns each.
    columns = (np.arange(frames * 16) + 0.5) / 16 - 0.5
    tile_of_column = np.clip(np.searchsorted(times, columns * hop, "right") - 1, 0, len(times) - 2)
    tile_of_band = np.clip(np.searchsorted(bands, frequencies, "right") - 1, 0, len(bands) - 2)
    ticks = [hz for hz in (125, 250, 500, 1000, 2000, 4000) if frequencies[0] <= hz <= frequencies[-1]]
    with drawing(WIDTH, 2.7) as (figure, (ax,)):
        colours = plt.get_cmap("RdBu_r")
        tint = colours(scale(change[tile_of_column[:, None], tile_of_band]))[..., :3]
        ax.imshow(
            (tint * np.repeat(lightness, 16, axis=0)[..., None]).transpose(1, 0, 2),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            extent=(-hop / 2, (frames - 0.5) * hop, -0.5, n_mels - 0.5),
        )
        rows = np.interp(bands[1:-1], frequencies, np.arange(n_mels))
        ax.hlines(rows, *ax.get_xlim(), color="white", linewidth=0.4)
        ax.vlines(times[1:-1], *ax.get_ylim(), color="white", linewidth=0.4)
        ax.set_yticks(np.interp(ticks, frequencies, np.arange(n_mels)), [f"{hz:,}" for hz in ticks])
        ax.set(xlabel="Time (s)", ylabel="Mel band's centre (Hz)")
        bar = figure.colorbar(ScalarMappable(scale, colours), ax=ax, pad=0.015, aspect=16)
        bar.set_label("Lifts the prediction by\n(rating points)")
        bar.outline.set_visible(False)
    return figure


def plot_prediction_intervals(predictions: pd.DataFrame, coverage: float) -> Figure:
    """Single clips' prediction intervals beside their ratings, and, where speakers are named, coverage by speaker.

    Args:
        predictions: a row a clip, with the columns `truth`, `prediction`, `low` and `high` (rating points), and,
            for the second panel, `speaker`.
        coverage: the share of ratings that the intervals are meant to hold, such as 0.9.

    Raises:
        SettingsError: a column is missing, a number is NaN or infinite, an interval ends before it begins, the
            coverage is none, or no rows.
    """
    _checked(predictions, ("truth", "prediction", "low", "high"))
    bad = int((predictions["low"] > predictions["high"]).sum())
    require(bad == 0, f"{bad} of {len(predictions)} intervals end before they begin", "low <= high")
    require(0 < coverage < 1, f"coverage={coverage}", "a share between 0 and 1")
    rows = predictions.sort_values("prediction", kind="stable").reset_index(drop=True)
    inside = rows["truth"].between(rows["low"], rows["high"])
    named = "speaker" in rows and (rows["speaker"].astype(str) != "").all()
    panels: dict[str, Any] = {"columns": 2, "width_ratios": (2, 1)} if named else {}
    with drawing(WIDTH, 3.3, **panels) as (figure, axes):
        ax, place = axes[0], rows.index.to_numpy()
        ax.fill_between(place, rows["low"], rows["high"], step="mid", color=SKY, alpha=0.35, linewidth=0)
        ax.plot(place, rows["prediction"], color=BLUE, linewidth=1.5, label="prediction")
        look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 2.4, "markeredgewidth": 0}
        ax.plot(place[inside], rows["truth"][inside], color=BLACK, alpha=0.6, label="rating inside", **look)
        outside = look | {"markersize": 3}
        ax.plot(place[~inside], rows["truth"][~inside], color=VERMILION, label="rating outside", **outside)
        ax.set(xlabel="Clips, by prediction", ylabel="Valence (rating points)", xlim=(-1, len(rows)))
        ax.set_title(f"{inside.mean():.1%} of {_clips(len(rows))} inside")
        ax.yaxis.set_major_locator(MaxNLocator(9, integer=True))
        ax.grid(axis="y")
        if named:
            right = axes[1]
            by_speaker = inside.groupby(rows["speaker"].astype(str)).mean().sort_values(kind="stable")
            right.axvline(coverage, color=GREY, linewidth=1.2, linestyle="dashed", zorder=0)
            right.plot(
                by_speaker, range(len(by_speaker)), color=BLUE, linestyle="none", marker="o", markersize=4.5
            )
            shown = by_speaker.index if len(by_speaker) <= 24 else []
            right.set_yticks(range(len(shown)), list(shown))
            right.xaxis.set_major_formatter(PercentFormatter(1, 0))
            right.set(xlim=(min(0.5, float(by_speaker.min()) - 0.03), 1.03), xlabel="Ratings inside")
            right.set_title("By speaker")
            right.grid(axis="x")
        figure.legend(loc="outside upper center", ncols=3)
    return figure
