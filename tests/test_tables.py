"""Tables: what is rounded how, which rows are in which table, and where dashes stand."""

import doctest
import math

import pandas as pd
import pytest

from valence_lib import tables
from valence_lib.architecture import Layer
from valence_lib.settings import TrainingSettings

ROWS = [
    {
        "model": model,
        "preset": preset,
        "part": part,
        "n": 1234,
        "mse": 0.70049,
        "mae": 0.66,
        "pearson_r": -0.1,
        "ccc": -0.00004,
        "r2": 0.1,
        "sd_ratio": 0.5,
        "standardise": "speaker" if preset == "seed" else "train",
        "intervals": {"mse": [0.6, 0.8], "mae": [0.5, 0.7], "pearson_r": [-0.2, 0.1], "ccc": [-0.1, 0.1]},
        "seed_sd": {"mse": 0.0123},
        "parameters": parameters,
        "seeds": seeds,
    }
    for part in ("validation", "test")
    for model, preset, parameters, seeds in (
        ("mean", None, 1, []),
        ("LSTM1", "default", 132225, [0, 1, 2]),
        ("LSTM2", "default", 659713, [0, 1, 2]),
        ("LSTM2", "seed", 659713, [0]),
    )
]
RESULTS = {"rows": ROWS, "tested": "test"}


def test_doctests():
    found = doctest.testmod(tables)
    assert found.attempted >= 2
    assert found.failed == 0


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0005, 3, "0.001"),
        (-1.5, 1, "−1.5"),
        (-0.0, 3, "0.000"),
        (-0.0004, 3, "0.000"),
        (12.0, 0, "12"),
        (-0.4, 0, "0"),
        (math.nan, 3, "nan"),
    ],
)
def test_rounding_uses_a_true_minus_and_no_negative_zero(value, digits, text):
    assert tables.rounded(value, digits) == text


def test_interval_keeps_the_number_of_digits():
    assert tables.with_interval(-1.0, [-2.25, -0.001], 2) == "−1.00 [−2.25, 0.00]"


def test_table_1_holds_lstm2_below_the_mean_predictor_on_both_parts():
    table = tables.table_1(RESULTS)
    mean = tables.MEAN_TITLE
    assert list(table["Model, preset"]) == [mean, "LSTM2, default", "LSTM2, seed †"] * 2
    assert list(table["Clips"]) == ["1,234 validation"] * 3 + ["1,234 test"] * 3


@pytest.mark.parametrize("made", [tables.table_2, tables.tested_table])
def test_tables_of_one_part_hold_every_model(made):
    table = made(RESULTS)
    assert "Clips" not in table  # all the same
    models = [tables.MEAN_TITLE, "LSTM1, default", "LSTM2, default", "LSTM2, seed †"]
    assert list(table["Model, preset"]) == models


def test_a_line_of_the_score_table():
    lines = tables.table_2(RESULTS).to_dict("records")
    assert lines[2] == {
        "Model, preset": "LSTM2, default",
        "MSE": "0.700 [0.600, 0.800]",
        "CCC": "0.000 [−0.100, 0.100]",
        "MAE": "0.660",
        "Pearson r": "−0.100",
        "R²": "0.100",
        "SD ratio": "0.500",
        "Parameters": "659,713",
        "Seeds": "3",
        "SD over seeds": "0.012",
    }
    assert (lines[0]["Seeds"], lines[0]["Parameters"]) == ("–", "1")


def test_score_points_are_the_trained_models_of_one_part():
    points = tables.score_points(RESULTS, "test")
    assert points["label"].tolist() == ["LSTM1", "LSTM2", "LSTM2"]
    assert points["kind"].tolist() == ["default preset", "default preset", "seed preset †"]
    assert points.loc[0, ["mse", "low", "high"]].tolist() == [0.70049, 0.6, 0.8]


def test_layer_table_is_one_line_a_layer():
    layers = [
        Layer("lstm", "LSTM", "128 to 128", "T × 128", "T × 128", 132096),
        Layer("linear", "Linear", "", "128", "1", 129),
    ]
    table = tables.layer_table("LSTM1", layers)
    assert table.to_numpy().tolist() == [
        ["LSTM1", "LSTM", "128 to 128", "T × 128", "132,096"],
        ["LSTM1", "Linear", "–", "1", "129"],
    ]


def test_published_table_keeps_the_published_digits():
    published = [{"model": "LSTM2", "validation_mse": "0.60", "test_mse": "0.7010"}]
    table = tables.published_table(published)
    assert list(table) == ["Model", "Validation MSE", "Test MSE"]
    assert table.loc[0].tolist() == ["LSTM2", "0.60", "0.7010"]


def test_reference_table_says_only_what_is_known():
    bare = {"label_variance": 0.7034, "raters": None, "lowest_mse": None}
    assert tables.reference_table(bare)["Reference"].tolist() == ["Variance of the labels"]
    assert tables.reference_table(bare)["MSE"].tolist() == ["0.703"]
    full = bare | {
        "raters": {"raters": 3, "clips": 2000, "mse": 0.36, "ccc": 0.78, "noise_variance": 0.08},
        "lowest_mse": 0.123,
    }
    table = tables.reference_table(full)
    assert table["MSE"].tolist() == ["0.703", "0.360", "0.080", "0.123"]
    assert table["CCC"].tolist() == ["–", "0.780", "–", "–"]
    assert table["How"][1] == "mean over 3 raters, 2,000 clips"


def test_settings_table_is_one_line_a_setting():
    streams = ("voice_statistics", "speaker_encoder")
    table = tables.settings_table(TrainingSettings(epochs=20, streams=streams))
    assert list(table) == ["Parameter", "Value"]
    values = table.set_index("Parameter")["Value"]
    assert (values["learning_rate"], values["epochs"]) == ("0.001", "20")
    assert values["streams"] == "voice_statistics, speaker_encoder"


def test_a_long_quarantine_is_shown_by_its_first_clips():
    names = [f"{number}.wav" for number in range(51)]
    quarantine = pd.DataFrame(
        {"index": range(51), "id": names, "part": "", "reason": "silent", "message": "nothing.", "twin": ""}
    )
    table = tables.quarantine_table(quarantine)
    assert list(table) == ["Clip", "Part", "Reason", "What was found"]
    assert table.loc[0].tolist() == ["0.wav", "", "silent", "nothing."]
    assert table["Clip"].tolist() == names[: tables.MOST_QUARANTINED] == names[:50]


def test_trials_are_told_with_what_was_tried():
    about = ["trial", "worker", "outcome", "epochs", "validation_mse"]
    trials = pd.DataFrame(
        [
            [0, 1, "completed", 4, 0.56789, "CNN", 0.00042, 8],
            [3, 2, "diverged", 0, math.nan, "LSTM1", 0.01, 16],
        ],
        columns=[*about, "model", "learning_rate", "batch_size"],
    )
    assert tables.trials_table(trials).to_dict("split")["data"] == [
        ["0", "1", "0.568", "completed, 4 epochs", "CNN", "0.00042", "8"],
        ["3", "2", "–", "diverged, 0 epochs", "LSTM1", "0.01", "16"],
    ]
    assert list(tables.trials_table(trials))[-2:] == ["Learning rate", "Batch size"]


def test_worst_table_has_signed_errors_and_each_raters_rating_where_there_are_raters():
    predictions = pd.DataFrame(
        {
            "id": ["a", "b"],
            "speaker": ["S1", None],
            "truth": [4.0, 1.0],
            "prediction": [2.5, 1.25],
            "duration_seconds": [1.234, 2.0],
        }
    )
    table = tables.worst_table(predictions)
    assert table["Error"].tolist() == ["−1.50", "0.25"]
    assert table["Speaker"].tolist() == ["S1", ""]
    assert table["Seconds"].tolist() == ["1.23", "2.00"]
    assert list(table)[2:4] == ["True", "Predicted"]
    rated = tables.worst_table(predictions.assign(valence_a1=1.5, valence_a2=math.nan, valence_a3=3.0))
    assert list(rated)[2:5] == ["True", "Raters", "Predicted"]
    assert rated["Raters"].tolist() == ["1.5, –, 3"] * 2


def _condition(name, metric, verdict):
    nan = math.nan if verdict == "" else 0.0456
    return {
        "condition": name, "metric": metric, "score": 0.4004, "low": 0.3, "high": 0.5,
        "difference": nan, "difference_low": nan, "difference_high": nan, "verdict": verdict,
    }  # fmt: skip


def test_robustness_has_a_line_a_condition_and_dashes_for_the_first():
    rows = [_condition("clean", m, "") for m in ("mse", "ccc")] + [
        _condition("noise", m, "tie") for m in ("mse", "ccc")
    ]
    found = tables.robustness_table(pd.DataFrame(rows))
    assert found.to_dict("records") == [
        {
            "Condition": "clean", "MSE": "0.400 [0.300, 0.500]", "MSE difference": "–", "MSE verdict": "–",
            "CCC": "0.400 [0.300, 0.500]", "CCC difference": "–", "CCC verdict": "–",
        },
        {
            "Condition": "noise", "MSE": "0.400 [0.300, 0.500]", "MSE difference": "0.046 [0.046, 0.046]", "MSE verdict": "tie",
            "CCC": "0.400 [0.300, 0.500]", "CCC difference": "0.046 [0.046, 0.046]", "CCC verdict": "tie",
        },
    ]  # fmt: skip


def test_differences_say_who_is_held_against_whom_and_how_many_they_are():
    row = {
        "group": "F", "other": "M", "n": 1200, "other_n": 90, "speakers": 12, "other_speakers": 6, "score": 1.0,
        "other_score": 1.1, "difference": -0.1, "low": -0.2, "high": 0.01, "verdict": "tie",
    }  # fmt: skip
    rows = [row | {"metric": metric} for metric in ("mse", "ccc", "bias")]
    (found,) = tables.differences_table(pd.DataFrame(rows).assign(kind="sex")).to_dict("records")
    assert list(found.values())[:4] == ["sex", "F", "M", "1,200 / 90"]
    assert list(found)[4:] == [f"{m} differs by" for m in ("MSE", "CCC", "Bias")]
    assert found["Bias differs by"] == "−0.100 [−0.200, 0.010] tie"
    (found,) = tables.differences_table(pd.DataFrame([rows[0]])).to_dict("records")
    assert "By" not in found


def test_clips_of_most_disagreement_show_who_predicts_least_and_most():
    clips = pd.DataFrame(
        {"id": ["a"], "speaker": [None], "truth": [3.0], "spread": [0.456], "LSTM2": [2.0], "CNN": [4.0], "SVR": [3.0]},
        index=[7],
    )  # fmt: skip
    found = tables.disagreement_table(clips, ["CNN", "LSTM2", "SVR"])
    assert list(found) == ["Clip", "Speaker", "True", "SD over models", "Lowest", "Highest"]
    assert found.iloc[0].tolist() == ["a", "", "3.00", "0.46", "2.00 (LSTM2)", "4.00 (CNN)"]


def test_raters_have_a_line_each():
    raters = {
        "by_rater": {"valence_a1": {"mse": 0.5, "ccc": 0.8125}, "valence_a2": {"mse": 0.25, "ccc": -0.1}}
    }
    found = tables.raters_table(raters)
    assert found.to_dict("records") == [
        {"Rater": "a1", "MSE": "0.500", "CCC": "0.812"},
        {"Rater": "a2", "MSE": "0.250", "CCC": "−0.100"},
    ]


SHARED = "Test and training clips share"


def _difference(verdict, difference=-0.1):
    return {"difference": difference, "low": difference - 0.05, "high": difference + 0.05, "verdict": verdict}


def _design(name, why="", verdict="worse"):
    against = None if name == "speaker" else dict.fromkeys(("mse", "ccc"), _difference(verdict))
    scores = {"mse": 0.5, "ccc": 0.6, "intervals": {"mse": [0.4, 0.6], "ccc": [0.5, 0.7]}, "against": against}
    return {"design": name, "why": why, "trained": 1234.5} | ({} if why else scores)


def test_the_leakage_table_has_scores_and_differences_from_folds_by_speaker():
    rows = [_design(name) for name in ("speaker", "random")]
    found = tables.leakage_table({"designs": rows, "pseudo": True}).to_dict("records")
    assert found[0] == {
        SHARED: "sentences, but no speaker (voices)",
        "Trained on": "1,234 clips",
        "MSE": "0.500 [0.400, 0.600]",
        "CCC": "0.600 [0.500, 0.700]",
        "MSE difference": "–",
        "CCC difference": "–",
    }
    assert found[1]["CCC difference"] == "−0.100 [−0.150, −0.050] worse"


def test_the_leakage_table_names_sentences_only_where_they_are_known():
    names = ("speaker", "random", "sentence", "both")
    known = tables.leakage_table({"designs": [_design(name) for name in names], "pseudo": False})
    assert list(known[SHARED]) == [
        "sentences, but no speaker",
        "speakers and sentences",
        "speakers, but no sentence",
        "neither speaker nor sentence",
    ]
    rows = [_design(name, "Not every clip names it." * (name in names[2:])) for name in names]
    unknown = tables.leakage_table({"designs": rows, "pseudo": False})
    assert list(unknown[SHARED])[:2] == ["no speaker", "speakers"]
    assert unknown.iloc[2].tolist()[1:] == ["–"] * 5


def test_the_ablation_table_says_what_is_taken_away_and_what_is_added():
    lines = [
        {"words": words, "added": added, "parameters": 2000}
        | {metric: {"score": 0.5} | _difference("tie") for metric in ("mse", "ccc")}
        for words, added in (("the voice statistics", False), ("an encoder", True))
    ]
    table = tables.ablation_table(lines)
    assert table["Component"].tolist() == ["without the voice statistics", "with an encoder"]
    assert table.iloc[0].tolist()[1:] == [*("0.500", "−0.100 [−0.150, −0.050] tie") * 2, "2,000"]
    points = tables.ablation_points(lines)
    assert points["kind"].tolist() == ["taken away"] * 2 + ["added"] * 2
    assert points["metric"].tolist() == ["mse", "ccc"] * 2
    assert points.loc[0, ["label", "difference", "low", "high", "verdict"]].tolist() == pytest.approx(
        ["the voice statistics", -0.1, -0.15, -0.05, "tie"]
    )
