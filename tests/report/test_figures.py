"""Figures: what is drawn, read back through the axes; bytes and styles do not depend on the caller."""

import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats

from valence_lib.errors import SettingsError
from valence_lib.evaluation.occlusion import Occlusion
from valence_lib.features.log_mel import mel_frequencies
from valence_lib.models.build import build_model
from valence_lib.report.architecture import plot_architecture
from valence_lib.report.figures import corpus, errors, scores, style, training
from valence_lib.settings import FeatureSettings, Target

RNG = np.random.default_rng(0)
NAN = float("nan")
AROUSAL = Target("arousal", 1, 5)


def frame(columns, *rows):
    return pd.DataFrame(rows, columns=columns.split())


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
BANDED = PREDICTIONS.assign(
    low=PREDICTIONS["prediction"] - 0.8, high=PREDICTIONS["prediction"] + 0.8, speaker=["A", "B", "C"] * 40
)
HISTORY = frame(
    "model preset seed epoch training_mse validation_mse",
    *(
        (model, preset, seed, epoch, 1 / epoch + 0.1 * seed, 1.2 / epoch + 0.1 * seed)
        for model in ("LSTM1", "CNN", "LSTM2")
        for preset in ("default", "course")
        for seed in range(3)
        for epoch in range(1, 5 - (seed == 2))
    ),
)
GROUPS = frame(
    "group mse low high n", ("S1", 0.9, 0.7, 1.1, 10), ("S2", 0.3, 0.2, 0.4, 20), ("S3", 0.6, 0.5, 0.7, 1200)
)
SCORES = frame(
    "label mse low high kind",
    ("LSTM1", 0.7, 0.65, 0.75, "neural"),
    ("LSTM2", 0.6, 0.55, 0.66, "neural"),
    ("SVR", 0.5, 0.4, 0.6, "prosody"),
)
TRIALS = frame(
    "trial outcome model validation_mse",
    *((0, "completed", "CNN", 0.8), (1, "completed", "LSTM1", 0.9), (3, "pruned", "CNN", 0.85)),
    *((4, "diverged", "LSTM2", NAN), (5, "completed", "CNN", 0.5)),
)
CLIPS = frame(
    "rating duration_seconds subset",
    *((1, 1.0, "test"), (2, 2.0, "train"), (2, 2.5, "train"), (5, 4.0, "train")),
    *((3, 3.0, "validation"), (4, 3.0, "test")),
)
LOG_MEL = np.linspace(-80, 0, 12 * 8).reshape(12, 8)
# Starts, ends and predictions of windows; the third and the fifth are silent.
CURVE = ([0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 8.5], [3.0, 3.5, NAN, 5.5, NAN, 2.0])
DIFFERENCES = frame(
    "kind label metric difference low high verdict",
    ("sex", "F", "mse", -0.1, -0.2, -0.01, "better"),
    ("sex", "F", "ccc", 0.05, -0.1, 0.2, "tie"),
    ("language", "da", "mse", 0.2, 0.1, 0.3, "too small to say"),
    ("language", "da", "ccc", 0.0, -0.1, 0.1, "too small to say"),
)
SCALES = np.linspace(0, 2, 5)
FRONTIER = pd.DataFrame(
    {"scale": SCALES, "mse": 0.5 + (SCALES - 0.5) ** 2, "ccc": 0.6 - (SCALES - 1.5) ** 2 / 4}
)
CONDITIONS = frame(
    "condition metric score low high verdict",
    *(("as recorded", "mse", 0.4, 0.3, 0.5, ""), ("as recorded", "ccc", 0.6, 0.5, 0.7, "")),
    *(("noise", "mse", 0.5, 0.4, 0.6, "worse"), ("noise", "ccc", 0.55, 0.4, 0.7, "tie")),
)
CHANGE = np.array([[0.5, 0.0], [-0.25, 0.0], [0.0, 0.0]])
OCCLUSION = Occlusion(CHANGE, np.array([0, 0.25, 0.5, 0.768]), np.array([0, 500, 4000]), 3.0)

EVERY_FIGURE = {
    "waveform": lambda: corpus.plot_waveform(np.sin(np.arange(8000) / 9), 8000),
    "log_mel": lambda: corpus.plot_log_mel(LOG_MEL),
    "label_distribution": lambda: corpus.plot_label_distribution(CLIPS, AROUSAL),
    "durations": lambda: corpus.plot_durations(CLIPS),
    "learning_curves": lambda: training.plot_learning_curves(HISTORY, 0.7),
    "predicted_against_true": lambda: errors.plot_predicted_against_true(PREDICTIONS, AROUSAL),
    "residuals_by_rating": lambda: errors.plot_residuals_by_rating(PREDICTIONS, AROUSAL),
    "error_by_duration": lambda: errors.plot_error_by_duration(PREDICTIONS),
    "error_by_group": lambda: scores.plot_error_by_group(GROUPS, "Speaker"),
    "scores": lambda: scores.plot_scores(SCORES, 0.701, 0.36),
    "sweep": lambda: training.plot_sweep(TRIALS, 0.7),
    "curve": lambda: errors.plot_curve(*CURVE, AROUSAL),
    "differences": lambda: scores.plot_differences(DIFFERENCES, "the rest"),
    "frontier": lambda: scores.plot_frontier(FRONTIER, (0.6, 0.5)),
    "robustness": lambda: scores.plot_robustness(CONDITIONS),
    "occlusion": lambda: errors.plot_occlusion(LOG_MEL, OCCLUSION),
    "prediction_intervals": lambda: errors.plot_prediction_intervals(BANDED, 0.9, AROUSAL),
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


def legend(owner):
    return [text.get_text() for text in owner.get_texts()]


def row_labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def marks(ax):
    """Row, value and fill of every mark."""
    return [
        (drawn.get_ydata()[0], drawn.get_xdata()[0], drawn.get_markerfacecolor())
        for drawn in ax.get_lines()
        if drawn.get_marker() == "o"
    ]


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
    assert figure.get_figwidth() <= 7.5


@pytest.mark.parametrize("name", EVERY_FIGURE)
def test_no_figure_of_arousal_mentions_valence(name):
    shown = [text.get_text() for text in EVERY_FIGURE[name]().findobj(Text)]
    assert not [text for text in shown if "valence" in text.lower()]


@pytest.mark.parametrize(
    ("target", "words", "name"),
    [
        (Target(), "negative to 5 positive", "Valence"),
        (AROUSAL, "calm to 5 excited", "Arousal"),
        (Target("dominance"), "submissive to 5 dominant", "Dominance"),
        (Target("vocal_warmth 张三"), "low to 5 high", "Vocal_warmth ⟨ZhangSan⟩"),
    ],
)
def test_axes_have_the_name_of_the_target_and_the_words_at_its_ends(target, words, name):
    assert corpus.plot_label_distribution(CLIPS, target).get_supxlabel() == f"{name} (1 {words})"
    later = name[0].lower() + name[1:]
    ax = errors.plot_predicted_against_true(PREDICTIONS, target).axes[0]
    assert ax.get_xlabel() == f"True {later} (rating points)"
    assert ax.get_ylabel() == f"Predicted {later} (rating points)"
    ax = errors.plot_residuals_by_rating(PREDICTIONS, target).axes[0]
    assert ax.get_xlabel() == f"True {later} (rating points)"
    ax = errors.plot_curve(*CURVE, target).axes[0]
    assert ax.get_ylabel() == f"Predicted {later}\n(rating points)"
    ax = errors.plot_prediction_intervals(BANDED, 0.9, target).axes[0]
    assert ax.get_ylabel() == f"{name} (rating points)"


def test_waveform_runs_over_its_seconds():
    ax = corpus.plot_waveform([0.0, 0.5, -0.25, 0.0], 2).axes[0]
    assert ax.get_lines()[0].get_xydata().tolist() == [[0, 0], [0.5, 0.5], [1, -0.25], [1.5, 0]]
    assert ax.get_xlim() == (0, 2)


def test_log_mel_is_drawn_at_the_times_of_its_frames_and_the_frequencies_of_its_bands():
    settings = FeatureSettings()
    decibels = RNG.uniform(-80, 0, (12, settings.n_mels))
    ax, bar = corpus.plot_log_mel(decibels, settings.sample_rate, settings.hop_length).axes
    mesh = ax.collections[0]
    np.testing.assert_array_equal(mesh.get_array(), decibels.T)
    edges = mesh.get_coordinates()
    middles = (edges[1:, 1:] + edges[:-1, :-1]) / 2
    np.testing.assert_allclose(middles[0, :, 0], np.arange(12) * settings.hop_length / settings.sample_rate)
    np.testing.assert_allclose(middles[:, 0, 1], mel_frequencies(settings), rtol=0.02)
    assert (ax.get_xlabel(), bar.get_ylabel()) == ("Time (s)", "Power (dB)")


def test_label_distribution_counts_each_subset_on_the_grid_of_the_ratings():
    axes = corpus.plot_label_distribution(CLIPS, AROUSAL).axes
    assert [ax.get_title("left") for ax in axes] == ["train, n = 3", "validation, n = 1", "test, n = 2"]
    bars = {round(bar.get_x() + bar.get_width() / 2, 6): bar.get_height() for bar in axes[0].patches}
    assert bars == pytest.approx({1: 0, 2: 200 / 3, 3: 0, 4: 0, 5: 100 / 3})
    assert axes[0].get_lines()[0].get_xdata()[0] == pytest.approx(3)


def test_learning_curves_show_seeds_their_mean_over_common_epochs_and_the_mean_predictor():
    figure = training.plot_learning_curves(HISTORY, 0.7)
    assert [ax.get_title("left") for ax in figure.axes] == ["LSTM1", "CNN", "LSTM2"]
    reference, *curves = figure.axes[1].get_lines()
    assert reference.get_ydata() == [0.7, 0.7]
    assert len(curves) == 2 * 2 * (3 + 1)  # presets, subsets, seeds and their mean
    thick = [curve for curve in curves if curve.get_linewidth() > 1]
    assert [curve.get_linestyle() for curve in thick] == ["--", "-", "--", "-"]
    np.testing.assert_allclose(thick[0].get_ydata(), 1 / np.arange(1, 4) + 0.1)
    np.testing.assert_allclose(thick[1].get_ydata(), 1.2 / np.arange(1, 4) + 0.1)
    named = ["course", "default", "training", "validation", "predict the training mean"]
    assert legend(figure.legends[0]) == named


def test_a_sweep_shows_every_trial_with_an_error_and_the_best_so_far():
    ax = training.plot_sweep(TRIALS, 0.7).axes[0]
    best = line(ax, "best so far")
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([0, 1, 5], [0.8, 0.8, 0.5])
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[0, 0.8], [1, 0.9], [3, 0.85], [5, 0.5]])
    assert {"CNN", "LSTM1", "completed", "pruned"} <= set(legend(ax.get_legend()))
    far = TRIALS.assign(validation_mse=[9.0, 0.9, 0.85, NAN, 0.5])
    assert training.plot_sweep(far, 0.7).axes[0].get_yscale() == "log"


def test_predicted_against_true_has_identity_and_least_squares_line():
    ax = errors.plot_predicted_against_true(PREDICTIONS, AROUSAL).axes[0]
    np.testing.assert_allclose(ax.collections[0].get_offsets(), PREDICTIONS[["truth", "prediction"]])
    identity = line(ax, "prediction = truth")
    np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())
    x, y = line(ax, "least squares").get_data()
    slope = stats.linregress(PREDICTIONS["truth"], PREDICTIONS["prediction"]).slope
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(slope)
    assert texts(ax) == [f"n = 120\nslope {slope:.2f}"]


def test_residuals_by_rating_show_mean_interval_and_count_of_each_bin():
    table = pd.DataFrame({"truth": [1.0, 1.4, 1.5, 5.0], "prediction": [2.0, 2.0, 2.5, 4.0]})
    ax = errors.plot_residuals_by_rating(table.assign(id=list("abcd"), speaker=""), AROUSAL).axes[0]
    drawn, _, (intervals,) = ax.containers[0]
    np.testing.assert_allclose(drawn.get_xydata(), [[1.25, 0.8], [1.75, 1.0], [4.75, -1.0]])
    low, high = intervals.get_segments()[0][:, 1]
    assert (low, high) == pytest.approx(stats.ttest_1samp([1.0, 0.6], 0).confidence_interval())
    assert [len(segment) for segment in intervals.get_segments()] == [2, 0, 0]  # one clip has no interval
    assert {(text.get_position()[0], text.get_text()) for text in ax.texts} == {
        *((1.25, "2"), (1.75, "1"), (4.75, "1"), (-0.01, "clips"))
    }


def test_intervals_of_bins_are_over_speakers_where_they_are_named():
    # Six speakers whose clips all have the same error are worth one clip of each.
    deviations = np.array([0.1, 0.5, -0.3, 0.4, 0.9, -0.2])
    one = pd.DataFrame({"truth": 3.0, "prediction": 3 + deviations, "speaker": list("ABCDEF")})
    many = pd.concat([one] * 10, ignore_index=True)
    many["id"] = [f"{number}.wav" for number in range(len(many))]
    expected = stats.ttest_1samp(deviations, 0).confidence_interval()
    for table, same in ((many, True), (many.assign(speaker=""), False)):
        _, _, (intervals,) = errors.plot_residuals_by_rating(table, AROUSAL).axes[0].containers[0]
        (segment,) = intervals.get_segments()
        assert (tuple(segment[:, 1]) == pytest.approx(expected)) == same


def test_error_by_duration_averages_squared_errors_in_bins_of_like_size():
    ax = errors.plot_error_by_duration(PREDICTIONS).axes[0]
    ordered = PREDICTIONS.sort_values("duration_seconds")
    bins = [ordered.iloc[start : start + 15] for start in range(0, 120, 15)]
    x, y = ax.containers[0][0].get_xydata().T
    np.testing.assert_allclose(x, [of["duration_seconds"].median() for of in bins])
    np.testing.assert_allclose(y, [((of["prediction"] - of["truth"]) ** 2).mean() for of in bins])
    assert ax.get_title("left") == "15 or more clips per mark"


def test_error_by_group_is_sorted_with_counts_and_the_error_of_all_clips():
    figure = scores.plot_error_by_group(GROUPS, "Speaker")
    ax = figure.axes[0]
    assert row_labels(ax) == ["S2", "S3", "S1"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first at the top
    overall = (0.9 * 10 + 0.3 * 20 + 0.6 * 1200) / 1230
    assert ax.get_lines()[0].get_xdata() == pytest.approx([overall, overall])
    assert texts(ax) == ["20", "1,200", "10", "clips"]


def test_names_are_no_formulas_and_have_glyphs():
    names = ["$x$ _y", "张三", "章三"]
    ax = scores.plot_error_by_group(GROUPS.assign(group=names, mse=[0.1, 0.2, 0.3]), "Speaker").axes[0]
    assert row_labels(ax) == ["$x$ _y", "⟨ZhangSan⟩ (1d841b)", "⟨ZhangSan⟩ (6f15d5)"]
    assert not any(label.get_parse_math() for label in ax.get_yticklabels())


def test_scores_are_grouped_by_kind_with_the_reference_lines():
    figure = scores.plot_scores(SCORES, 0.701, 0.36)
    ax = figure.axes[0]
    assert row_labels(ax) == ["prosody", "SVR", "neural", "LSTM2", "LSTM1"]
    assert [(place, value) for place, value, _ in marks(ax)] == [(1, 0.5), (3, 0.6), (4, 0.7)]
    assert "0.600  [0.550, 0.660]" in texts(ax)
    assert legend(figure.legends[0]) == ["predict the training mean 0.701", "one rater 0.360"]


def test_differences_are_drawn_about_a_line_at_0_with_one_panel_per_metric():
    figure = scores.plot_differences(DIFFERENCES, "the rest")
    mse, ccc = figure.axes
    assert mse.get_xlabel() == "MSE (squared rating points)" and ccc.get_xlabel() == "CCC"
    assert [list(ax.get_lines()[0].get_xdata()) for ax in figure.axes] == [[0, 0], [0, 0]]
    assert row_labels(mse) == ["sex", "F", "language", "da"]
    assert marks(mse) == [(1, -0.1, style.GREEN), (3, 0.2, "white")]
    assert marks(ccc) == [(1, 0.05, style.GREY), (3, 0.0, "white")]
    assert mse.get_title("left") == "Difference from the rest"
    assert legend(figure.legends[0]) == ["better", "not significant", "too small to say"]


def test_robustness_shows_each_condition_with_a_line_at_the_first_ones_score():
    figure = scores.plot_robustness(CONDITIONS)
    mse, ccc = figure.axes
    assert marks(mse) == [(0, 0.4, style.BLACK), (1, 0.5, style.VERMILION)]
    assert marks(ccc) == [(0, 0.6, style.BLACK), (1, 0.55, style.GREY)]
    assert [list(ax.get_lines()[0].get_xdata()) for ax in figure.axes] == [[0.4, 0.4], [0.6, 0.6]]
    assert mse.get_title("left") == "Compared with: as recorded"


def test_the_frontier_marks_both_optima_and_the_model_itself():
    ax = scores.plot_frontier(FRONTIER, (0.6, 0.5)).axes[0]
    curve, lowest, highest, own = (drawn.get_xydata().tolist() for drawn in ax.get_lines())
    np.testing.assert_allclose(curve, FRONTIER[["mse", "ccc"]])
    assert (lowest, highest, own) == ([[0.5, 0.35]], [[1.5, 0.6]], [[0.6, 0.5]])
    named = ["lowest MSE (spread × 0.50)", "highest CCC (spread × 1.50)", "the model as it is"]
    assert legend(ax.get_legend()) == named
    assert [text.strip() for text in texts(ax)] == ["× 0", "× 2"]


def test_a_curve_is_at_the_windows_middles_with_gaps():
    ax = errors.plot_curve(*CURVE, AROUSAL).axes[0]
    (curve,) = ax.get_lines()
    assert curve.get_xdata().tolist() == [2, 3, 4, 5, 6, 6.75]
    np.testing.assert_array_equal(curve.get_ydata(), CURVE[2])
    assert (ax.get_xlabel(), ax.get_xlim()) == ("Time (s)", (0, 8.5))
    assert ax.get_ylim()[0] < 1 and ax.get_ylim()[1] > 5.5  # a prediction off the scale is seen
    assert texts(ax) == ["6 windows, 2 of them silent or clipped (gaps)"]
    assert errors.plot_curve([0], [240], [3.0], AROUSAL).axes[0].get_xlabel() == "Time (min)"


def test_occlusion_tints_the_tiles_that_raise_red_and_those_that_lower_blue():
    ax, bar = errors.plot_occlusion(LOG_MEL, OCCLUSION).axes
    sound, tiles = ax.collections
    np.testing.assert_array_equal(sound.get_array(), LOG_MEL.T)
    np.testing.assert_array_equal(tiles.get_array(), CHANGE.T)
    np.testing.assert_array_equal(tiles.get_coordinates()[0, :, 0], OCCLUSION.time_edges)
    np.testing.assert_array_equal(tiles.get_coordinates()[:, 0, 1], OCCLUSION.band_edges)
    red, _, blue, _ = tiles.cmap(tiles.norm([0.5, -0.25, 0])).T
    assert red[0] > blue[0] and red[1] < blue[1] and red[2] == pytest.approx(blue[2], abs=0.01)
    assert bar.get_ylim() == (-0.5, 0.5)


def test_prediction_intervals_are_sorted_and_counted_over_all_and_by_speaker():
    left, right = errors.plot_prediction_intervals(BANDED, 0.9, AROUSAL).axes
    inside = (BANDED["truth"] - BANDED["prediction"]).abs() <= 0.8
    assert left.get_title("left") == f"{inside.mean():.1%} of 120 clips inside"
    curve = line(left, "prediction").get_ydata()
    assert (np.diff(curve) >= 0).all() and len(curve) == 120
    assert len(line(left, "rating inside").get_xdata()) == inside.sum()
    assert len(line(left, "rating outside").get_xdata()) == (~inside).sum()
    reference, points = right.get_lines()
    assert list(reference.get_xdata()) == [0.9, 0.9]
    shares = dict(zip(row_labels(right), points.get_xdata(), strict=True))
    assert shares == pytest.approx(inside.groupby(BANDED["speaker"]).mean().to_dict())


@pytest.mark.parametrize(
    ("draw", "given", "message"),
    [
        (corpus.plot_waveform, (np.zeros((2, 2)), 8000), r"the shape \(2, 2\)"),
        (corpus.plot_waveform, ([0, 0], 0), "sample_rate=0; expected Hz above 0"),
        (corpus.plot_log_mel, (LOG_MEL * NAN,), "log_mel holds NaN"),
        (corpus.plot_log_mel, (LOG_MEL, 8000, 0), "hop_length=0; expected both above 0"),
    ],
)
def test_bad_input_is_named(draw, given, message):
    with pytest.raises(SettingsError, match=f"This figure cannot be drawn: .*{message}"):
        draw(*given)
