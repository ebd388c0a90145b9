"""Figures of clips: waveform, log-mel spectrogram, and how ratings and durations are distributed."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from valence_lib.preprocess.splits import OUT_OF_FOLD
from valence_lib.report.corpus_text import figure_labels
from valence_lib.report.figures import style
from valence_lib.report.figures.style import WIDTH, drawing, finite_array, require
from valence_lib.report.wording import capitalised, ends_of
from valence_lib.settings import Target

SUBSETS = {"train": style.BLUE, "validation": style.ORANGE, "test": style.GREEN, OUT_OF_FOLD: style.GREEN}


def plot_waveform(waveform: ArrayLike, sample_rate: int = 8000) -> Figure:
    """A clip's waveform over time.

    Args:
        waveform [shape=(n_samples,)]: amplitude, where 1 is full scale.
        sample_rate: Hz.

    Raises:
        SettingsError: not one-dimensional, empty, NaN or infinite, or no sample rate above 0.
    """
    samples = finite_array("waveform", waveform, 1)
    require(sample_rate > 0, f"sample_rate={sample_rate}", "Hz above 0")
    with drawing(WIDTH, 1.7) as (figure, (ax,)):
        ax.plot(np.arange(samples.size) / sample_rate, samples, color=style.BLUE, linewidth=0.5)
        ax.set_xlim(0, samples.size / sample_rate)
        ax.set(xlabel="Time (s)", ylabel="Amplitude\n(1 = full scale)")
    return figure


def plot_log_mel(log_mel: ArrayLike, sample_rate: int = 8000, hop_length: int = 512) -> Figure:
    """A clip's log-mel spectrogram as an image.

    Args:
        log_mel [shape=(frames, n_mels)]: dB, of mel bands from 0 Hz to half the sample rate.
        sample_rate: Hz.
        hop_length: number of samples between successive frames.

    Raises:
        SettingsError: not two-dimensional, empty, NaN or infinite, or a rate or hop length not above 0.
    """
    with drawing(WIDTH, 2.7) as (figure, (ax,)):
        image = draw_log_mel(ax, log_mel, sample_rate, hop_length, cmap="magma")
        figure.colorbar(image, ax=ax, label="Power (dB)", pad=0.015, aspect=16)
    return figure


def draw_log_mel(ax: Axes, log_mel: ArrayLike, sample_rate: int, hop_length: int, **look: Any) -> QuadMesh:
    """The image of `plot_log_mel`, for figures that draw more on it."""
    from librosa import mel_frequencies  # takes a second to import
    from librosa.display import specshow

    decibels = finite_array("log_mel", log_mel, 2)
    require(min(sample_rate, hop_length) > 0, f"{sample_rate=}, {hop_length=}", "both above 0")
    look |= {"sr": sample_rate, "hop_length": hop_length, "x_axis": "s", "y_axis": "mel"}
    # The filters' centres; specshow on its own puts the lowest band at 0 Hz.
    centres = mel_frequencies(n_mels=decibels.shape[1] + 2, fmin=0, fmax=sample_rate / 2)[1:-1]
    image = specshow(decibels.T, y_coords=centres, ax=ax, **look)
    ax.set(xlabel="Time (s)", ylabel="Frequency (Hz)")
    return image


def plot_label_distribution(labels: pd.DataFrame, target: Target) -> Figure:
    """Histograms of the ratings by subset, with a line at the mean.

    Args:
        labels: one row per clip, with the columns `rating` (rating points) and `subset`.
        target: what is rated.
    """
    low, high = target.low, target.high
    # The mean of a few raters takes few values, which bins of any other width show as a comb: take the
    # coarsest grid that holds all ratings, and a bin around each of its points.
    share = (labels["rating"].to_numpy(np.float64) - low) / (high - low)
    fitting = (n for n in range(4, 25) if np.abs(share * n - np.round(share * n)).max() < 0.05)
    steps = next(fitting, 16)
    edges = low + (np.arange(steps + 2) - 0.5) * (high - low) / steps
    (name,), (lowest, highest) = figure_labels([target.name]), ends_of(target)
    scale = f"{low:g} {lowest} to {high:g} {highest}"
    return _plot_by_subset(labels, "rating", edges, f"{capitalised(name)} ({scale})")


def plot_durations(durations: pd.DataFrame) -> Figure:
    """Histograms of the clips' durations by subset, with a line at the mean.

    Args:
        durations: one row per clip, with the columns `duration_seconds` and `subset`.
    """
    edges = np.linspace(0, MaxNLocator(8).tick_values(0, durations["duration_seconds"].max())[-1], 25)
    return _plot_by_subset(durations, "duration_seconds", edges, "Duration (s)")


def _plot_by_subset(table: pd.DataFrame, column: str, edges: NDArray[np.float64], label: str) -> Figure:
    """One histogram per subset, side by side on common axes, in per cent of the subset's clips."""
    import seaborn as sns  # takes seconds to import

    found = dict(list(table.groupby("subset")[column]))
    subsets = sorted(found, key=lambda name: [*SUBSETS, name].index(name))
    with drawing(WIDTH, 2.5, columns=len(subsets), sharex=True, sharey=True) as (figure, axes):
        for ax, subset in zip(axes, subsets, strict=True):
            values, colour = found[subset], SUBSETS.get(subset, style.GREY)
            sns.histplot(x=values, bins=edges, stat="percent", color=colour, edgecolor="white", ax=ax)
            ax.axvline(values.mean(), color=style.BLACK, linewidth=1, linestyle="dashed")
            ax.set_title(f"{'all rated' if subset == OUT_OF_FOLD else subset}, n = {len(values):,}")
            ax.set(xlabel="", ylabel="Clips (%)", xlim=(edges[0], edges[-1]))
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.grid(axis="y")
            ax.label_outer()
            summary = f"mean {values.mean():.2f}\nSD {values.std(ddof=0):.2f}"
            style.note(ax, 0.98, 0.97, summary, ax.transAxes, ha="right", va="top", color=style.BLACK)
        axes[0].set_ylim(0, 1.25 * axes[0].get_ylim()[1])
        figure.supxlabel(label)
    return figure
