"""Tables: their rows and columns, and how numbers and verdicts are written."""

import doctest
import math

import pandas as pd
import pytest

from valence_lib.report import tables, wording
from valence_lib.report.architecture import Layer

ROWS = [
    {
        "model": model,
        "preset": preset,
        "subset": subset,
        "n": 1234,
        "mse": 0.70049,
        "mae": 0.66,
        "pearson_r": -0.1,
        "ccc": -0.00004,
        "r2": 0.1,
        "sd_ratio": 0.5,
        "standardise": "speaker" if preset == "course" else "train",
        "intervals": {"mse": [0.6, 0.8], "mae": [0.5, 0.7], "pearson_r": [-0.2, 0.1], "ccc": [-0.1, 0.1]},
        "seed_sd": {"mse": 0.0123},
        "parameters": parameters,
        "seeds": seeds,
    }
    for subset in ("validation", "test")
    for model, preset, parameters, seeds in (
        ("mean", None, 1, []),
        ("LSTM1", "default", 132225, [0, 1, 2]),
        ("LSTM2", "default", 659713, [0, 1, 2]),
        ("LSTM2", "course", 659713, [0]),
    )
]
RESULTS = {"rows": ROWS, "tested": "test"}


def test_doctests():
    assert doctest.testmod(wording).failed == 0


def test_scores_of_a_model_are_listed_by_subset_after_the_mean_predictor():
    table = tables.scores_of_model(RESULTS, "LSTM2")
    assert list(table["Model, preset"]) == ["Predict the mean", "LSTM2, default", "LSTM2, course †"] * 2
    assert list(table["Clips"]) == ["1,234 validation"] * 3 + ["1,234 test"] * 3


def test_scores_of_a_subset_list_every_model():
    table = tables.scores_of_subset(RESULTS, "validation")
    models = ["Predict the mean", "LSTM1, default", "LSTM2, default", "LSTM2, course †"]
    assert list(table["Model, preset"]) == models
    points = tables.score_points(RESULTS, "test")
    assert points["kind"].tolist() == ["default preset", "default preset", "course preset †"]
    assert points.loc[0, ["label", "mse", "low", "high"]].tolist() == ["LSTM1", 0.70049, 0.6, 0.8]
    lines = tables.scores_of_subset(RESULTS, "test").to_dict("records")
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


def test_reference_table_has_only_known_references():
    bare = {"label_variance": 0.7034, "raters": None, "lowest_mse": None}
    assert tables.reference_table(bare)["Reference"].tolist() == ["Variance of the ratings"]
    assert tables.reference_table(bare)["MSE"].tolist() == ["0.703"]
    full = bare | {
        "raters": {"raters": 3, "clips": 2000, "mse": 0.36, "ccc": 0.78, "noise_variance": 0.08},
        "lowest_mse": 0.123,
    }
    table = tables.reference_table(full)
    assert table["MSE"].tolist() == ["0.703", "0.360", "0.080", "0.123"]
    assert table["CCC"].tolist() == ["–", "0.780", "–", "–"]
    assert table["Source"][1] == "mean over 3 raters, 2,000 clips"


def test_the_layers_of_a_model_have_one_line_each():
    layers = [Layer("lstm", "LSTM", "128 → 128 units\ndropout 0.2", "T × 128", "256", 1234)]
    layers.append(Layer("relu", "ReLU", "", "256", "256", 0))
    assert tables.layer_table("LSTM2", layers).to_numpy().tolist() == [
        ["LSTM2", "LSTM", "128 → 128 units dropout 0.2", "256", "1,234"],
        ["LSTM2", "ReLU", "–", "256", "0"],
    ]


def test_the_quarantine_table_has_the_first_50_clips():
    row = {"index": 0, "id": "0.wav", "subset": "", "reason": "silent", "message": "x", "twin": ""}
    table = tables.quarantine_table(pd.DataFrame([row] * 51))
    first = {"Clip": "0.wav", "Subset": "", "Reason": "silent", "Message": "x"}
    assert table.to_dict("records") == [first] * 50


def test_the_trials_table_has_outcomes_and_settings():
    about = ["trial", "worker", "outcome", "epochs", "validation_mse"]
    trials = pd.DataFrame(
        [
            [0, 1, "completed", 4, 0.56789, "CNN", 0.00042, 8],
            [3, 2, "diverged", 0, math.nan, "LSTM1", 0.01, 16],
        ],
        columns=[*about, "model", "learning_rate", "batch_size"],
    )
    assert tables.trials_table(trials).to_dict("split")["data"] == [
        ["0", "1", "completed, 4 epochs", "0.568", "CNN", "0.00042", "8"],
        ["3", "2", "diverged, 0 epochs", "–", "LSTM1", "0.01", "16"],
    ]
    assert list(tables.trials_table(trials))[3:] == ["Validation MSE", "Model", "Learning rate", "Batch size"]


def test_worst_table_has_signed_errors_and_single_ratings():
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
    rated = tables.worst_table(predictions.assign(rating_a1=1.5, rating_a2=math.nan, rating_a3=3.0))
    assert list(rated)[2:5] == ["True", "Raters", "Predicted"]
    assert rated["Raters"].tolist() == ["1.5, –, 3"] * 2


def test_robustness_has_a_line_for_each_condition():
    row = {"score": 0.4004, "low": 0.3, "high": 0.5, "difference": 0.0456}
    row |= {"difference_low": 0.0456, "difference_high": 0.0456}
    rows = [
        row | {"condition": condition, "metric": metric, "verdict": verdict}
        for condition, verdict in (("clean", ""), ("noise", "tie"))
        for metric in ("mse", "ccc")
    ]
    score, change = "0.400 [0.300, 0.500]", "0.046 [0.046, 0.046] n.s."
    found = tables.robustness_table(pd.DataFrame(rows))
    assert list(found) == ["Condition", "MSE", "MSE difference", "CCC", "CCC difference"]
    expected = [["clean", score, "–", score, "–"], ["noise", score, change, score, change]]
    assert found.to_numpy().tolist() == expected


def test_differences_have_both_groups_and_their_sizes():
    row = {"group": "F", "other": "M", "n": 1200, "other_n": 90} | _difference("tie")
    rows = [row | {"metric": metric} for metric in ("mse", "ccc", "bias")]
    (found,) = tables.differences_table(pd.DataFrame(rows).assign(kind="sex")).to_dict("records")
    assert list(found.values())[:4] == ["sex", "F", "M", "1,200 / 90"]
    assert list(found)[4:] == ["MSE difference", "CCC difference", "Bias difference"]
    assert found["Bias difference"] == "−0.100 [−0.150, −0.050] n.s."
    assert "By" not in tables.differences_table(pd.DataFrame([rows[0]]))


SHARED = "Training and test share"


def _difference(verdict, difference=-0.1):
    return {"difference": difference, "low": difference - 0.05, "high": difference + 0.05, "verdict": verdict}


def _grouping(name, why=""):
    against = None if name == "speaker" else dict.fromkeys(("mse", "ccc"), _difference("worse"))
    scores = {"mse": 0.5, "ccc": 0.6, "intervals": {"mse": [0.4, 0.6], "ccc": [0.5, 0.7]}, "against": against}
    return {"grouping": name, "why": why, "trained": 1234.5} | ({} if why else scores)


def test_the_leakage_table_has_scores_and_differences_from_folds_by_speaker():
    rows = [_grouping("speaker"), _grouping("random"), _grouping("both", "Too few clips.")]
    found = tables.leakage_table({"groupings": rows, "pseudo": True}).to_dict("records")
    assert found[0] == {
        SHARED: "sentences, no speakers (clusters of voices)",
        "Training clips": "1,234",
        "MSE": "0.500 [0.400, 0.600]",
        "CCC": "0.600 [0.500, 0.700]",
        "MSE difference": "–",
        "CCC difference": "–",
    }
    assert found[1]["CCC difference"] == "−0.100 [−0.150, −0.050] worse"
    assert list(found[2].values())[1:] == ["–"] * 5
    rows.append(_grouping("sentence", "Not every clip names it."))
    unknown = tables.leakage_table({"groupings": rows, "pseudo": False})
    assert list(unknown[SHARED])[:2] == ["no speakers", "speakers"]


def test_the_comparison_table_has_one_line_for_each_pair():
    pair = {"first": ["LSTM2", "default"], "second": ["CNN", "course"]}
    results = {
        "comparisons": [
            pair | _difference("better") | {"metric": "mse", "p_holm": 0.0004},
            pair | _difference("tie", 0.0) | {"metric": "ccc", "p_holm": 0.4},
        ]
    }
    assert tables.comparison_table(results).to_dict("records") == [
        {
            "Model": "LSTM2, default",
            "Compared with": "CNN, course",
            "MSE difference": "−0.100 [−0.150, −0.050] better",
            "MSE p (Holm)": "<0.001",
            "CCC difference": "0.000 [−0.050, 0.050] n.s.",
            "CCC p (Holm)": "0.400",
        }
    ]


def test_the_environment_table_lists_all_values_of_a_property():
    environments = [{"cpu": "A", "packages": {"torch": "2"}}, {"cpu": "B", "packages": {"torch": "2"}}]
    found = tables.environment_table(environments)
    assert found.to_numpy().tolist() == [["Cpu", "A; B"], ["Packages", "torch 2"]]


def test_the_ablation_table_has_removed_and_added_components():
    lines = [
        {"words": words, "added": added, "parameters": 2000}
        | {metric: {"score": 0.5} | _difference("tie") for metric in ("mse", "ccc")}
        for words, added in (("the voice statistics", False), ("an encoder", True))
    ]
    table = tables.ablation_table(lines)
    assert table["Component"].tolist() == ["without the voice statistics", "with an encoder"]
    assert table.iloc[0].tolist()[1:] == [*("0.500", "−0.100 [−0.150, −0.050] n.s.") * 2, "2,000"]
    points = tables.ablation_points(lines)
    assert points["kind"].tolist() == ["removed"] * 2 + ["added"] * 2
    assert points["metric"].tolist() == ["mse", "ccc"] * 2
    assert points.loc[0, ["label", "difference", "low", "high", "verdict"]].tolist() == pytest.approx(
        ["the voice statistics", -0.1, -0.15, -0.05, "tie"]
    )
