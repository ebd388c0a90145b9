"""Figures of training: learning curves and the trials of a sweep."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from valence_lib.report.figures import style
from valence_lib.report.figures.style import BLACK, DOTTED, PALETTE, WIDTH, drawing

_MEAN_PREDICTOR = "predict the training mean"


def plot_learning_curves(history: pd.DataFrame, mean_predictor_mse: float) -> Figure:
    """Training and validation error over the epochs: one panel per model, one colour per preset.

    Thin lines are seeds, thick ones their mean over the epochs that every seed has reached. The error axis
    is logarithmic where the largest error is more than six times the smallest.

    Args:
        history: one row per epoch, with the columns `model`, `preset`, `seed`, `epoch`, `training_mse` and
            `validation_mse` (squared rating points).
        mean_predictor_mse: validation MSE of predicting the training subset's mean.
    """
    columns: dict[str, Any] = {"training_mse": "dashed", "validation_mse": "solid"}
    models = history["model"].unique()
    presets = dict(zip(sorted(history["preset"].unique()), PALETTE, strict=False))
    with drawing(WIDTH, 3.1, columns=len(models), sharex=True, sharey=True) as (figure, axes):
        for ax, model in zip(axes, models, strict=True):
            ax.axhline(mean_predictor_mse, **DOTTED)
            for preset, rows in history[history["model"] == model].groupby("preset"):
                for column, line in columns.items():
                    seeds = rows.pivot(index="epoch", columns="seed", values=column)
                    look: dict[str, Any] = {"color": presets[preset], "linestyle": line}
                    look["marker"] = "o" if len(seeds) == 1 else None  # one point makes no line
                    ax.plot(seeds, linewidth=0.6, alpha=0.5, **look)
                    ax.plot(seeds.dropna().mean(axis="columns"), linewidth=1.8, **look)
            ax.set_title(model)
            ax.grid(axis="y")
        axes[0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _scale_errors(axes[0], history[list(columns)].stack(), mean_predictor_mse)
        figure.supxlabel("Epoch")
        figure.supylabel(style.MSE_LABEL)
        handles = [Line2D([], [], label=preset, color=colour) for preset, colour in presets.items()]
        for column, line in columns.items():
            handles.append(Line2D([], [], label=column[:-4], color=BLACK, linestyle=line))
        handles.append(Line2D([], [], label=_MEAN_PREDICTOR, **DOTTED))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def plot_sweep(trials: pd.DataFrame, mean_predictor_mse: float) -> Figure:
    """Validation errors of a sweep's trials in their order, and the best so far as a line.

    The error axis is logarithmic where the largest error is more than six times the smallest. Trials without
    an error, which diverged in their first epoch, are left out.

    Args:
        trials: one row per trial, with the columns `trial` (its number), `outcome` ("completed", "pruned" or
            "diverged"), `model` and `validation_mse` (squared rating points; NaN where there is none).
        mean_predictor_mse: validation MSE of predicting the training subset's mean.
    """
    import seaborn as sns  # takes seconds to import

    shown = trials.dropna(subset="validation_mse")
    best = shown[shown["outcome"] == "completed"].set_index("trial")["validation_mse"].cummin()
    with drawing(WIDTH, 3.0) as (figure, (ax,)):
        ax.axhline(mean_predictor_mse, label=_MEAN_PREDICTOR, **DOTTED)
        ax.step(best.index, best, where="post", color=BLACK, linewidth=1.2, zorder=1, label="best so far")
        marks = {"completed": "o", "pruned": "X", "diverged": "P"}
        look: dict[str, Any] = {"hue": "model", "style": "outcome", "markers": marks}
        sns.scatterplot(shown, x="trial", y="validation_mse", palette="colorblind", ax=ax, **look)
        _scale_errors(ax, shown["validation_mse"], mean_predictor_mse)
        ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        ax.grid(axis="y")
        ax.set(xlabel="Trial", ylabel="Lowest validation MSE\n(squared rating points)")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _scale_errors(ax: Axes, errors: pd.Series, mean_predictor_mse: float) -> None:
    """A logarithmic axis with plain numbers where errors lie far apart."""
    lowest, highest = min(errors.min(), mean_predictor_mse), max(errors.max(), mean_predictor_mse)
    if 0 < 6 * lowest < highest:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
