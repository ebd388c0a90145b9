"""Figures: what is drawn, read back through the axes; and that bytes, styles and models stay as they were."""

import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from matplotlib.figure import Figure
from scipy import stats

from valence_lib import figures
from valence_lib.architecture import plot_architecture
from valence_lib.errors import SettingsError, ValenceError
from valence_lib.models import build_model

RNG = np.random.default_rng(0)
TRUTH = np.clip(RNG.normal(3, 0.8, 120), 1, 5)
PREDICTIONS = pd.DataFrame(
    {
        "id": [f"{number}.wav" for number in range(120)],
        "speaker": "",
        "truth": TRUTH,
        "prediction": 3 + 0.4 * (TRUTH - 3) + RNG.normal(0, 0.3, 120),
        "duration_seconds": RNG.uniform(1, 6, 120),
    }
)
TWO_MODELS = pd.concat(
    [PREDICTIONS.assign(model="LSTM2"), PREDICTIONS.assign(model="CNN", prediction=3.0)], ignore_index=True
)
HISTORY = pd.DataFrame(
    [
        (model, preset, seed, epoch, 1 / epoch + 0.1 * seed, 1.2 / epoch + 0.1 * seed)
        for model in ("LSTM1", "CNN", "LSTM2")
        for preset in ("default", "seed")
        for seed in range(3)
        for epoch in range(1, 5)
    ],
    columns=["model", "preset", "seed", "epoch", "training_mse", "validation_mse"],
)
GROUPS = pd.DataFrame(
    {
        "group": ["S1", "S2", "S3"],
        "mse": [0.9, 0.3, 0.6],
        "low": [0.7, 0.2, 0.5],
        "high": [1.1, 0.4, 0.7],
        "n": [10, 20, 1200],
    }
)
SCORES = pd.DataFrame(
    {
        "label": ["LSTM1", "LSTM2", "SVR"],
        "mse": [0.7, 0.6, 0.5],
        "low": [0.65, 0.55, 0.4],
        "high": [0.75, 0.66, 0.6],
        "kind": ["neural", "neural", "prosody"],
    }
)
TRIALS = pd.DataFrame(
    {
        "trial": [0, 1, 3, 4, 5],
        "outcome": ["completed", "completed", "pruned", "diverged", "completed"],
        "model": ["CNN", "LSTM1", "CNN", "LSTM2", "CNN"],
        "validation_mse": [0.8, 0.9, 0.85, np.nan, 0.5],
    }
)
CLIPS = pd.DataFrame(
    {
        "valence": [1, 2, 2, 5, 3, 4],
        "duration_seconds": [1.0, 2.0, 2.5, 4.0, 3.0, 3.0],
        "part": ["test", "train", "train", "train", "validation", "test"],
    }
)
LOG_MEL = np.linspace(-80, 0, 12 * 8).reshape(12, 8)
FREQUENCIES = np.geomspace(60, 3900, 8)
# Starts, ends and valence of windows; the third and the fifth are silent.
CURVE = ([0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 8.5], [3.0, 3.5, float("nan"), 5.5, float("nan"), 2.0])
DIFFERENCES = pd.DataFrame(
    {
        "kind": ["sex"] * 2 + ["language"] * 2,
        "label": ["F", "F", "da", "da"],
        "metric": ["mse", "ccc"] * 2,
        "difference": [-0.1, 0.05, 0.2, 0.0],
        "low": [-0.2, -0.1, 0.1, -0.1],
        "high": [-0.01, 0.2, 0.3, 0.1],
        "verdict": ["better", "tie", "too small to say", "too small to say"],
    }
)
SCALES = np.linspace(0, 2, 5)
FRONTIER = pd.DataFrame(
    {"scale": SCALES, "mse": 0.5 + (SCALES - 0.5) ** 2, "ccc": 0.6 - (SCALES - 1.5) ** 2 / 4}
)
CONDITIONS = pd.DataFrame(
    {
        "condition": ["as recorded"] * 2 + ["noise"] * 2,
        "metric": ["mse", "ccc"] * 2,
        "score": [0.4, 0.6, 0.5, 0.55],
        "low": [0.3, 0.5, 0.4, 0.4],
        "high": [0.5, 0.7, 0.6, 0.7],
        "verdict": ["", "", "worse", "tie"],
    }
)
BANDED = PREDICTIONS.assign(
    low=PREDICTIONS["prediction"] - 0.8, high=PREDICTIONS["prediction"] + 0.8, speaker=["A", "B", "C"] * 40
)
CHANGE = np.array([[0.5, 0.0], [-0.25, 0.0], [0.0, 0.0]])
OCCLUSION = (LOG_MEL, 8000, 512, FREQUENCIES, CHANGE, [0, 0.25, 0.5, 0.768], [0, 500, 4000])

EVERY_FIGURE = {
    "waveform": lambda: figures.plot_waveform(np.sin(np.arange(8000) / 9), 8000),
    "log_mel": lambda: figures.plot_log_mel(LOG_MEL, 8000, 512, FREQUENCIES),
    "label_distribution": lambda: figures.plot_label_distribution(CLIPS),
    "durations": lambda: figures.plot_durations(CLIPS),
    "learning_curves": lambda: figures.plot_learning_curves(HISTORY, 0.7),
    "predicted_against_true": lambda: figures.plot_predicted_against_true(TWO_MODELS, 1, 5),
    "residuals_by_valence": lambda: figures.plot_residuals_by_valence(TWO_MODELS, 1, 5),
    "error_by_duration": lambda: figures.plot_error_by_duration(TWO_MODELS),
    "error_by_group": lambda: figures.plot_error_by_group(GROUPS, "Speaker"),
    "scores": lambda: figures.plot_scores(SCORES, 0.701, {"one rater": 0.36, "another": 0.37}),
    "sweep": lambda: figures.plot_sweep(TRIALS, 0.7),
    "valence_curve": lambda: figures.plot_valence_curve(*CURVE, 1, 5),
    "differences": lambda: figures.plot_differences(DIFFERENCES, "the rest"),
    "frontier": lambda: figures.plot_frontier(FRONTIER, (0.6, 0.5)),
    "robustness": lambda: figures.plot_robustness(CONDITIONS),
    "occlusion": lambda: figures.plot_occlusion(*OCCLUSION),
    "prediction_intervals": lambda: figures.plot_prediction_intervals(BANDED, 0.9),
    "architecture": lambda: plot_architecture(build_model("CNN", (16,)), 16),
}


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def line(ax, label):
    return next(line for line in ax.get_lines() if line.get_label() == label)


def texts(ax):
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("name", EVERY_FIGURE)
def test_every_figure_has_the_same_bytes_whatever_the_callers_style_and_leaves_it_alone(name):
    first = png(EVERY_FIGURE[name]())
    with matplotlib.rc_context():
        sns.set_theme("poster", "dark", font="monospace")
        before = dict(matplotlib.rcParams)
        figure = EVERY_FIGURE[name]()
        assert dict(matplotlib.rcParams) == before
        assert png(figure) == first
    assert plt.get_fignums() == []
    assert figure.get_dpi() == 144
    assert figure.get_figwidth() <= 7.5


def test_waveform_runs_over_its_seconds():
    ax = figures.plot_waveform(np.array([0.0, 0.5, -0.25, 0.0]), 2).axes[0]
    assert ax.get_lines()[0].get_xdata().tolist() == [0, 0.5, 1, 1.5]
    assert ax.get_lines()[0].get_ydata().tolist() == [0, 0.5, -0.25, 0]
    assert ax.get_xlim() == (0, 2)
    assert ax.get_xlabel() == "Time (s)"


def test_log_mel_is_the_transposed_input_with_bands_named_in_hertz():
    ax, bar = figures.plot_log_mel(LOG_MEL, 8000, 512, FREQUENCIES).axes
    image = ax.get_images()[0]
    np.testing.assert_array_equal(image.get_array(), LOG_MEL.T)
    assert image.origin == "lower"
    # Frame i is centred on i * 512 / 8000 s, band j on row j.
    np.testing.assert_allclose(image.get_extent(), [-0.032, 11.5 * 0.064, -0.5, 7.5])
    named = {
        label.get_text(): place for label, place in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)
    }
    assert list(named) == ["125", "250", "500", "1,000", "2,000"]
    assert FREQUENCIES[int(named["500"])] < 500 < FREQUENCIES[int(named["500"]) + 1]
    assert bar.get_ylabel() == "Power (dB)"


def test_label_distribution_counts_each_part_on_the_grid_of_the_ratings():
    axes = figures.plot_label_distribution(CLIPS).axes
    assert [ax.get_title("left") for ax in axes] == ["train, 3 clips", "validation, 1 clip", "test, 2 clips"]
    bars = {round(bar.get_x() + bar.get_width() / 2, 6): bar.get_height() for bar in axes[0].patches}
    assert bars == pytest.approx({1: 0, 2: 200 / 3, 3: 0, 4: 0, 5: 100 / 3})
    assert axes[0].get_lines()[0].get_xdata()[0] == pytest.approx(3)


def test_label_distribution_has_a_bin_around_each_mean_of_three_raters():
    thirds = pd.DataFrame({"valence": np.arange(3, 16) / 3, "part": "train"})
    bars = figures.plot_label_distribution(thirds).axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([100 / 13] * 13)


def test_durations_state_mean_and_deviation():
    ax = figures.plot_durations(CLIPS).axes[0]
    seconds = [2.0, 2.5, 4.0]
    assert texts(ax) == [f"mean {np.mean(seconds):.2f} s\nSD {np.std(seconds):.2f} s"]
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(100)


def test_learning_curves_show_seeds_their_mean_and_the_mean_predictor():
    figure = figures.plot_learning_curves(HISTORY, 0.7)
    assert [ax.get_title("left") for ax in figure.axes] == ["LSTM1", "CNN", "LSTM2"]
    reference, *curves = figure.axes[1].get_lines()
    assert reference.get_ydata() == [0.7, 0.7]
    assert len(curves) == 2 * 2 * (3 + 1)  # presets, parts, seeds and their mean
    thick = [curve for curve in curves if curve.get_linewidth() > 1]
    assert [curve.get_linestyle() for curve in thick] == ["--", "-", "--", "-"]
    np.testing.assert_allclose(thick[0].get_ydata(), 1 / np.arange(1, 5) + 0.1)
    np.testing.assert_allclose(thick[1].get_ydata(), 1.2 / np.arange(1, 5) + 0.1)
    assert thick[0].get_color() == thick[1].get_color() != thick[2].get_color()
    assert "predict the training mean" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_learning_curves_average_only_epochs_that_every_seed_has_reached():
    stopped = HISTORY[~((HISTORY["seed"] == 2) & (HISTORY["epoch"] > 2))]
    curves = figures.plot_learning_curves(stopped, 0.7).axes[0].get_lines()[1:]
    assert [len(curve.get_xdata()) for curve in curves if curve.get_linewidth() > 1] == [2] * 4


def test_predicted_against_true_has_identity_and_least_squares_line():
    figure = figures.plot_predicted_against_true(TWO_MODELS, 1, 5)
    lstm2, cnn = figure.axes
    assert (lstm2.get_title("left"), cnn.get_title("left")) == ("LSTM2", "CNN")
    np.testing.assert_allclose(lstm2.collections[0].get_offsets(), PREDICTIONS[["truth", "prediction"]])
    identity = line(lstm2, "prediction = truth")
    np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())
    x, y = line(lstm2, "least squares").get_data()
    slope = stats.linregress(PREDICTIONS["truth"], PREDICTIONS["prediction"]).slope
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(slope)
    assert texts(lstm2) == [f"120 clips\nslope {slope:.2f}"]
    assert lstm2.get_xlim() == lstm2.get_ylim()


def test_predicted_against_true_counts_many_clips_in_hexagons():
    many = pd.DataFrame({"truth": RNG.uniform(1, 5, 2000), "prediction": RNG.uniform(2, 4, 2000)})
    ax = figures.plot_predicted_against_true(many, 1, 5).axes[0]
    assert ax.collections[0].get_array().sum() == 2000


def test_predicted_against_true_draws_no_line_through_one_clip():
    ax = figures.plot_predicted_against_true(PREDICTIONS.head(1), 1, 5).axes[0]
    assert [drawn.get_label() for drawn in ax.get_lines()] == ["prediction = truth"]
    assert texts(ax) == ["1 clip"]


def test_residuals_by_valence_show_mean_interval_and_count_of_each_bin():
    table = pd.DataFrame({"truth": [1.0, 1.4, 1.5, 5.0], "prediction": [2.0, 2.0, 2.5, 4.0]})
    table = table.assign(id=list("abcd"), speaker="")
    ax = figures.plot_residuals_by_valence(table, 1, 5).axes[0]
    marks, _, (intervals,) = ax.containers[0]
    np.testing.assert_allclose(marks.get_xydata(), [[1.25, 0.8], [1.75, 1.0], [4.75, -1.0]])
    low, high = intervals.get_segments()[0][:, 1]
    assert (low, high) == pytest.approx(stats.ttest_1samp([1.0, 0.6], 0).confidence_interval())
    assert [len(segment) for segment in intervals.get_segments()] == [2, 0, 0]  # one clip has no interval
    assert texts(ax) == ["2", "1", "0", "0", "0", "0", "0", "1", "clips"]
    # The first and the last bin are shaded.
    assert [(patch.get_x(), patch.get_width()) for patch in ax.patches] == [(1, 0.5), (4.5, 0.5)]


def test_intervals_of_bins_are_over_speakers_where_they_are_named():
    # Six speakers whose clips all err alike tell as much as one clip of each.
    errors = np.array([0.1, 0.5, -0.3, 0.4, 0.9, -0.2])
    one = pd.DataFrame({"truth": 3.0, "prediction": 3 + errors, "speaker": list("ABCDEF")})
    many = pd.concat([one] * 10, ignore_index=True)
    many["id"] = [f"{number}.wav" for number in range(len(many))]
    expected = stats.ttest_1samp(errors, 0).confidence_interval()
    for table, same in ((many, True), (many.assign(speaker=""), False)):
        _, _, (intervals,) = figures.plot_residuals_by_valence(table, 1, 5).axes[0].containers[0]
        (segment,) = intervals.get_segments()
        assert (tuple(segment[:, 1]) == pytest.approx(expected)) == same


def test_models_stand_side_by_side_and_must_share_their_clips():
    ax = figures.plot_residuals_by_valence(TWO_MODELS, 1, 5).axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["LSTM2", "CNN"]
    first, second = (container[0].get_xdata() for container in ax.containers)
    assert (first < second).all()
    with pytest.raises(SettingsError, match="CNN is scored on other clips"):
        figures.plot_residuals_by_valence(TWO_MODELS.iloc[:-1], 1, 5)


def test_error_by_duration_averages_squared_errors_in_bins_of_like_size():
    ax = figures.plot_error_by_duration(PREDICTIONS, bins=4).axes[0]
    ordered = PREDICTIONS.sort_values("duration_seconds")
    # The lower quartiles of 120 durations are the 30th, 60th and 90th, each the first of its bin.
    quarters = [ordered.iloc[:29], ordered.iloc[29:59], ordered.iloc[59:89], ordered.iloc[89:]]
    x, y = ax.containers[0][0].get_data()
    np.testing.assert_allclose(x, [quarter["duration_seconds"].median() for quarter in quarters])
    np.testing.assert_allclose(y, [((q["prediction"] - q["truth"]) ** 2).mean() for q in quarters])
    assert texts(ax) == ["29 to 31 clips a mark"]
    assert ax.get_ylim()[0] == 0


@pytest.mark.parametrize("clips", [1, 6])
def test_error_by_duration_takes_few_clips_and_equal_durations(clips):
    few = PREDICTIONS.head(clips).assign(duration_seconds=2.0)
    (mark,) = figures.plot_error_by_duration(few).axes[0].containers[0][0].get_xydata()
    assert mark == pytest.approx([2.0, ((few["prediction"] - few["truth"]) ** 2).mean()])


def test_error_by_group_is_sorted_with_counts_and_the_error_of_all_clips():
    ax = figures.plot_error_by_group(GROUPS, "Speaker").axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["S2", "S3", "S1"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first at the top
    overall = (0.9 * 10 + 0.3 * 20 + 0.6 * 1200) / 1230
    assert ax.get_lines()[0].get_xdata() == pytest.approx([overall, overall])
    assert list(ax.get_lines()[1].get_xdata()) == [0.2, 0.4]
    assert texts(ax) == ["20", "1,200", "10", "clips", f"all clips {overall:.3f}"]
    assert ax.get_ylabel() == "Speaker"


def test_a_sweep_shows_every_trial_with_an_error_and_the_best_so_far():
    ax = figures.plot_sweep(TRIALS, 0.7).axes[0]
    mean, best, *points = ax.get_lines()
    assert mean.get_ydata()[0] == 0.7
    assert list(best.get_xdata()), list(best.get_ydata()) == ([0, 1, 5], [0.8, 0.8, 0.5])
    assert [(point.get_xdata()[0], point.get_ydata()[0], point.get_marker()) for point in points] == [
        (0, 0.8, "o"),
        (1, 0.9, "o"),
        (3, 0.85, "x"),
        (5, 0.5, "o"),
    ]
    assert ax.get_yscale() == "linear"
    far = TRIALS.assign(validation_mse=[9.0, 0.9, 0.85, np.nan, 0.5])
    assert figures.plot_sweep(far, 0.7).axes[0].get_yscale() == "log"


def test_scores_stand_under_their_kind_beside_the_reference_lines():
    ax = figures.plot_scores(SCORES, 0.701, {"one rater": 0.36}).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["LSTM2", "LSTM1", "SVR"]
    vertical = [drawn.get_xdata()[0] for drawn in ax.get_lines() if list(drawn.get_ydata()) == [0, 1]]
    assert vertical == [0.701, 0.36]
    assert "neural" in texts(ax) and "prosody" in texts(ax)
    assert "0.600  [0.550, 0.660]" in texts(ax)
    assert "predict the training mean 0.701" in texts(ax) and "one rater 0.360" in texts(ax)


def test_names_of_close_reference_lines_do_not_overlap():
    figure = figures.plot_scores(SCORES, 0.701, {"one rater": 0.70, "another rater": 0.69})
    figure.draw_without_rendering()
    boxes = [
        t.get_window_extent()
        for t in figure.axes[0].texts
        if "rater" in t.get_text() or "mean" in t.get_text()
    ]
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_valence_curve_stands_at_the_windows_middles_with_gaps_and_lone_windows_marked():
    ax = figures.plot_valence_curve(*CURVE, 1, 5).axes[0]
    curve, alone = ax.get_lines()
    assert curve.get_xdata().tolist() == [2, 3, 4, 5, 6, 6.75]
    np.testing.assert_array_equal(curve.get_ydata(), CURVE[2])
    assert alone.get_xydata().tolist() == [[5, 5.5], [6.75, 2.0]]
    assert ax.get_xlabel() == "Time (s)"
    assert ax.get_xlim() == (0, 8.5)
    assert ax.get_ylim()[0] < 1 and ax.get_ylim()[1] > 5.5  # a prediction off the scale is seen
    assert texts(ax) == ["6 windows, 2 of them silent or clipped (gaps)"]


def test_valence_curve_of_a_long_recording_is_in_minutes():
    starts = np.arange(0, 600, 2.0)
    ax = figures.plot_valence_curve(starts, starts + 4, np.full(300, 3.0), 1, 5).axes[0]
    assert ax.get_xlabel() == "Time (min)"
    assert ax.get_lines()[0].get_xdata()[30] == pytest.approx(62 / 60)


def marks(ax):
    """Place, value and fill of every single mark."""
    return [
        (drawn.get_ydata()[0], drawn.get_xdata()[0], drawn.get_markerfacecolor())
        for drawn in ax.get_lines()
        if drawn.get_marker() == "o"
    ]


def test_differences_stand_about_a_line_at_0_a_panel_a_metric():
    figure = figures.plot_differences(DIFFERENCES, "the rest")
    mse, ccc = figure.axes
    assert mse.get_xlabel() == "MSE (squared rating points)" and ccc.get_xlabel() == "CCC"
    assert [list(ax.get_lines()[0].get_xdata()) for ax in figure.axes] == [[0, 0], [0, 0]]
    # Headings take the lines 0 and 2.
    assert marks(mse) == [(1, -0.1, figures.GREEN), (3, 0.2, "white")]
    assert marks(ccc) == [(1, 0.05, figures.GREY), (3, 0.0, "white")]
    assert list(mse.get_lines()[1].get_xdata()) == [-0.2, -0.01]
    assert [label.get_text() for label in mse.get_yticklabels()] == ["F", "da"]
    assert texts(mse) == ["sex", "language"]
    assert mse.get_title("left") == "Difference from the rest"
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert key == ["better", "tie", "too small to say"]


def test_differences_without_metric_and_kind_are_of_the_mse_in_the_order_given():
    plain = DIFFERENCES.iloc[[2, 0]].drop(columns=["metric", "kind"])
    (ax,) = figures.plot_differences(plain, "the whole model").axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["da", "F"]
    assert ax.get_xlabel() == "MSE (squared rating points)"


def test_the_frontier_marks_both_optima_and_the_model_itself():
    ax = figures.plot_frontier(FRONTIER, (0.6, 0.5)).axes[0]
    curve, lowest, highest, own = ax.get_lines()
    np.testing.assert_allclose(curve.get_xydata(), FRONTIER[["mse", "ccc"]])
    assert lowest.get_xydata().tolist() == [[0.5, 0.35]]
    assert highest.get_xydata().tolist() == [[1.5, 0.6]]
    assert own.get_xydata().tolist() == [[0.6, 0.5]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "lowest MSE (spread × 0.50)",
        "highest CCC (spread × 1.50)",
        "the model as it is",
    ]
    assert texts(ax) == ["× 0", "× 2"]


def test_robustness_shows_each_condition_beside_the_first_ones_score():
    figure = figures.plot_robustness(CONDITIONS)
    mse, ccc = figure.axes
    assert marks(mse) == [(0, 0.4, figures.BLACK), (1, 0.5, figures.VERMILION)]
    assert marks(ccc) == [(0, 0.6, figures.BLACK), (1, 0.55, figures.GREY)]
    assert [list(ax.get_lines()[0].get_xdata()) for ax in figure.axes] == [[0.4, 0.4], [0.6, 0.6]]
    assert [label.get_text() for label in mse.get_yticklabels()] == ["as recorded", "noise"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["worse", "tie"]


def test_occlusion_tints_the_tiles_that_lift_red_and_those_that_lower_blue():
    ax, bar = figures.plot_occlusion(*OCCLUSION).axes
    image = np.asarray(ax.get_images()[0].get_array())
    assert image.shape == (8, 12 * 16, 3)
    red, _, blue = np.moveaxis(image, -1, 0)
    low = FREQUENCIES < 500
    seconds = ((np.arange(192) + 0.5) / 16 - 0.5) * 0.064
    first, second = seconds < 0.25, (seconds >= 0.25) & (seconds < 0.5)
    assert (red > 2 * blue)[np.ix_(low, first)].all()
    assert (blue > 1.1 * red)[np.ix_(low, second)].all()
    np.testing.assert_allclose(red[~low], blue[~low], atol=0.01)  # no change: grey
    np.testing.assert_allclose(red[:, seconds >= 0.5], blue[:, seconds >= 0.5], atol=0.01)
    # The louder, the darker; LOG_MEL rises with time.
    assert (np.diff(red[-1, ::16]) <= 0).all() and red[-1, 0] > 2 * red[-1, -1]
    assert bar.get_ylim() == (-0.5, 0.5)
    assert "rating points" in bar.get_ylabel()


def test_an_occlusion_map_of_zeros_is_drawn():
    _, bar = figures.plot_occlusion(*OCCLUSION[:4], 0 * CHANGE, *OCCLUSION[5:]).axes
    assert bar.get_ylim() == (-1, 1)


def test_prediction_intervals_are_sorted_and_counted_over_all_and_by_speaker():
    left, right = figures.plot_prediction_intervals(BANDED, 0.9).axes
    inside = (BANDED["truth"] - BANDED["prediction"]).abs() <= 0.8
    assert left.get_title("left") == f"{inside.mean():.1%} of 120 clips inside"
    curve = line(left, "prediction").get_ydata()
    assert (np.diff(curve) >= 0).all() and len(curve) == 120
    assert len(line(left, "rating inside").get_xdata()) == inside.sum()
    assert len(line(left, "rating outside").get_xdata()) == (~inside).sum()
    reference, points = right.get_lines()
    assert list(reference.get_xdata()) == [0.9, 0.9]
    shares = dict(zip([t.get_text() for t in right.get_yticklabels()], points.get_xdata(), strict=True))
    assert shares == pytest.approx(inside.groupby(BANDED["speaker"]).mean().to_dict())
    (alone,) = figures.plot_prediction_intervals(BANDED.assign(speaker=""), 0.9).axes
    assert alone.get_title("left") == left.get_title("left")


NAN = float("nan")
BAD = {
    "waveform of two dimensions": (lambda: figures.plot_waveform(np.zeros((2, 2)), 8000), r"shape is \(2, 2\)"),
    "waveform empty": (lambda: figures.plot_waveform(np.zeros(0), 8000), r"shape is \(0,\)"),
    "waveform NaN": (lambda: figures.plot_waveform(np.array([NAN]), 8000), "holds NaN"),
    "waveform rate": (lambda: figures.plot_waveform(np.zeros(3), 0), "sample_rate=0"),
    "log-mel lengths": (lambda: figures.plot_log_mel(LOG_MEL, 8000, 512, FREQUENCIES[1:]), r"\(12, 8\) and frequencies \(7,\)"),
    "log-mel NaN": (lambda: figures.plot_log_mel(LOG_MEL * NAN, 8000, 512, FREQUENCIES), "log_mel holds NaN"),
    "log-mel order": (lambda: figures.plot_log_mel(LOG_MEL, 8000, 512, FREQUENCIES[::-1]), "do not rise"),
    "log-mel hop": (lambda: figures.plot_log_mel(LOG_MEL, 8000, 0, FREQUENCIES), "hop_length=0"),
    "labels empty": (lambda: figures.plot_label_distribution(CLIPS.head(0)), "no rows"),
    "labels off the scale": (lambda: figures.plot_label_distribution(CLIPS, 1, 4), "1 of 6 valences lie off the scale"),
    "labels scale": (lambda: figures.plot_label_distribution(CLIPS, 5, 1), "the scale is 5 to 1"),
    "labels NaN": (lambda: figures.plot_label_distribution(CLIPS.assign(valence=NAN)), "6 of 6 values of valence are NaN"),
    "labels text": (lambda: figures.plot_label_distribution(CLIPS.assign(valence="3")), "column valence is of type"),
    "parts missing": (lambda: figures.plot_durations(CLIPS.assign(part=None)), "6 of 6 values of part are missing"),
    "durations zero": (lambda: figures.plot_durations(CLIPS.assign(duration_seconds=0.0)), "shortest duration is 0"),
    "curves empty": (lambda: figures.plot_learning_curves(HISTORY.head(0), 0.7), "no rows"),
    "curves twice": (lambda: figures.plot_learning_curves(pd.concat([HISTORY, HISTORY.tail(1)]), 0.7), "1 epochs stand in the table twice"),
    "curves reference": (lambda: figures.plot_learning_curves(HISTORY, NAN), "mean_predictor_mse=nan"),
    "scatter NaN": (lambda: figures.plot_predicted_against_true(PREDICTIONS.assign(truth=NAN, prediction=NAN), 1, 5), "120 of 120 values of truth"),
    "residuals off": (lambda: figures.plot_residuals_by_valence(PREDICTIONS.assign(truth=9.0), 1, 5), "120 of 120 truths lie off"),
    "residuals bins": (lambda: figures.plot_residuals_by_valence(PREDICTIONS, 1, 5, bins=1), "bins=1"),
    "duration bins": (lambda: figures.plot_error_by_duration(PREDICTIONS, bins=0), "bins=0"),
    "duration empty": (lambda: figures.plot_error_by_duration(PREDICTIONS.head(0)), "no rows"),
    "groups interval": (lambda: figures.plot_error_by_group(GROUPS.assign(low=9.0), "Speaker"), "3 of 3 intervals end before"),
    "groups n": (lambda: figures.plot_error_by_group(GROUPS.assign(n=0), "Speaker"), "n=0 clips"),
    "curve empty": (lambda: figures.plot_valence_curve([], [], [], 1, 5), r"have the shapes \(0,\)"),
    "curve lengths": (lambda: figures.plot_valence_curve([0], [1, 2], [3], 1, 5), r"shapes \(1,\), \(2,\), \(1,\)"),
    "curve order": (lambda: figures.plot_valence_curve([1], [1], [3], 1, 5), "ends before it begins"),
    "curve time": (lambda: figures.plot_valence_curve([NAN], [1], [3], 1, 5), "a time is NaN"),
    "curve infinite": (lambda: figures.plot_valence_curve([0], [1], [np.inf], 1, 5), "valence is infinite"),
    "sweep diverged": (lambda: figures.plot_sweep(TRIALS[3:4], 0.7), "no rows"),
    "differences interval": (lambda: figures.plot_differences(DIFFERENCES.assign(low=9.0), "x"), "4 of 4 intervals end before"),
    "differences verdict": (lambda: figures.plot_differences(DIFFERENCES.assign(verdict="good"), "x"), "verdict is 'good'; expected one of better"),
    "differences metric": (lambda: figures.plot_differences(DIFFERENCES.assign(metric="mae"), "x"), "metric is 'mae'"),
    "differences twice": (lambda: figures.plot_differences(DIFFERENCES.assign(label="F", kind="a"), "x"), "2 rows stand in the table twice"),
    "differences column": (lambda: figures.plot_differences(DIFFERENCES[["label"]], "x"), "no column difference, low, high, verdict"),
    "frontier NaN": (lambda: figures.plot_frontier(FRONTIER.assign(ccc=NAN), (0.6, 0.5)), "5 of 5 values of ccc"),
    "frontier own": (lambda: figures.plot_frontier(FRONTIER, (NAN, 0.5)), "the model's own scores are"),
    "robustness empty": (lambda: figures.plot_robustness(CONDITIONS.head(0)), "no rows"),
    "robustness twice": (lambda: figures.plot_robustness(CONDITIONS.assign(condition="noise")), "2 rows stand in the table twice"),
    "occlusion shapes": (lambda: figures.plot_occlusion(*OCCLUSION[:4], CHANGE.T, *OCCLUSION[5:]), r"change has the shape \(2, 3\)"),
    "occlusion NaN": (lambda: figures.plot_occlusion(*OCCLUSION[:4], CHANGE * NAN, *OCCLUSION[5:]), "NaN or infinity"),
    "occlusion order": (lambda: figures.plot_occlusion(*OCCLUSION[:5], [0, 2, 1, 3], [0, 1, 2]), "do not rise"),
    "intervals order": (lambda: figures.plot_prediction_intervals(BANDED.assign(high=-9.0), 0.9), "120 of 120 intervals end before"),
    "intervals coverage": (lambda: figures.plot_prediction_intervals(BANDED, 90), "coverage=90"),
    "scores empty": (lambda: figures.plot_scores(SCORES.head(0), 0.7), "no rows"),
    "scores rater": (lambda: figures.plot_scores(SCORES, 0.7, {"one rater": NAN}), "MSE of 'one rater' is nan"),
    "scores kinds": (
        lambda: figures.plot_scores(pd.concat([SCORES.assign(kind=f"k{i}") for i in range(8)]), 0.7),
        "8 to tell apart by colour",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    draw, message = BAD[name]
    with pytest.raises(ValenceError, match=message):
        draw()
    assert plt.get_fignums() == []
