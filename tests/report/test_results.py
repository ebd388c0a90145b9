"""results.json: rows, the chosen run, comparisons, and the ablation table."""

import json

import numpy as np
import pandas as pd
import pytest

from valence_lib.corpora.opening import open_corpus
from valence_lib.errors import RunError
from valence_lib.evaluation.calibration import coverage
from valence_lib.evaluation.metrics import METRICS, ccc, mse
from valence_lib.files import digest_of, write_json
from valence_lib.preprocess.inspection import QUARANTINE_COLUMNS
from valence_lib.preprocess.splits import make_splits
from valence_lib.registry import ABLATIONS
from valence_lib.report.folder import (
    load_clips,
    load_frame,
    load_json,
    load_splits,
    row_of,
    run_name,
    save_frame,
    save_preprocessed,
)
from valence_lib.report.results import choose, collect_results, held_out_clips, mean_predictor_mse
from valence_lib.settings import FeatureSettings

SPEAKERS, CLIPS = 12, 5
SUBSETS = ("validation", "out_of_fold")


def write_report(folder, speakers=True, protocol="cv"):
    """A report's folder after 1_preprocess: 60 rated clips of twelve speakers, two unrated, four folds."""
    rng = np.random.default_rng(0)
    n = SPEAKERS * CLIPS
    who = np.repeat(np.arange(SPEAKERS), CLIPS)
    clips = pd.DataFrame(
        {
            "index": range(n + 2),
            "id": [f"clip {number:02}" for number in range(n + 2)],
            "speaker": [*(f"S{number:02}" for number in who), "S00", "S01"] if speakers else "",
            "subset": "",
            "corpus": "demo",
            "duration_seconds": 2.0,
            # Ratings differ between speakers, so the training mean differs between folds.
            "rating": [*np.clip(1.5 + who / 6 + rng.normal(0, 0.7, n), 1, 5), np.nan, np.nan],
        }
    )
    split = make_splits(clips, protocol, 4, seed=0)
    save_preprocessed(
        folder,
        open_corpus("demo"),
        clips.assign(subset=split.subset, fold=split.fold),
        pd.DataFrame(columns=QUARANTINE_COLUMNS),
        pd.DataFrame(columns=["first", "second", "similarity"]),
        [""] * len(clips),
        split,
        FeatureSettings(),
    )
    leakage = {"groupings": [{"grouping": "speaker", "why": "too few speakers", "trained": 45.0}]}
    write_json(folder / "leakage" / "leakage.json", leakage)
    save_frame(folder / "leakage" / "predictions.csv", pd.DataFrame(columns=["grouping", "id"]))
    return folder


@pytest.fixture
def preprocessed(tmp_path):
    return write_report(tmp_path)


def write_run(folder, model, preset, deviation, seed=0, standardise="train", validation=None):
    """A finished run with an error of the given deviation, and optionally another one on validation clips."""
    run = run_name(model, preset, seed)
    clips = load_clips(folder)
    rated = clips[clips["rating"].notna()]
    frames = []
    cv = "test" not in set(clips["subset"])
    for subset in SUBSETS if cv else ("validation", "test"):
        own = rated if cv else rated[rated["subset"] == subset]
        error = np.random.default_rng([seed, *map(ord, model + preset + subset)]).normal(0, 1, len(own))
        off = validation if subset == "validation" and validation is not None else deviation
        error *= off / np.sqrt(np.mean(error**2))  # exactly this root mean square
        frame = own[["id", "speaker", "duration_seconds"]].assign(
            subset=subset, truth=own["rating"], prediction=own["rating"] + error
        )
        frames.append(frame.sample(frac=1, random_state=seed))  # in another order than clips.csv
    unrated = clips[clips["rating"].isna()]
    frames.append(unrated[["id", "speaker"]].assign(subset="unlabelled", prediction=3.0))
    save_frame(folder / "runs" / run / "predictions.csv", pd.concat(frames))
    training = {"model": model, "preset": preset, "seed": seed, "standardise": standardise}
    write_json(folder / "runs" / run / "settings.json", {"training": training, "parameters": 10})
    write_json(folder / "runs" / run / "seconds.json", {"seconds": 2.0 + seed})
    return run


def predictions_of(folder, run):
    """A run's predictions of the tested clips."""
    frame = load_frame(folder / "runs" / run / "predictions.csv")
    return frame[frame["subset"] == "out_of_fold"].set_index("id").sort_index()


# Rows


def test_a_cross_validation_has_rows_of_all_rated_clips(preprocessed):
    runs = [write_run(preprocessed, "LSTM2", "default", 0.5, seed, validation=0.4) for seed in (0, 1)]
    runs.append(write_run(preprocessed, "LSTM2", "course", 0.8, standardise="none"))
    results, seconds = collect_results(preprocessed, runs)
    assert (results["protocol"], results["tested"], results["resampled"]) == ("cv", "out_of_fold", "speaker")
    assert results["split"]["folds"] == 4
    assert results["leakage"] == load_json(preprocessed / "leakage" / "leakage.json")
    keys = [("mean", None, "none"), ("LSTM2", "default", "train"), ("LSTM2", "course", "none")]
    rows = [(row["subset"], row["model"], row["preset"], row["standardise"]) for row in results["rows"]]
    assert rows == [(subset, *key) for subset in SUBSETS for key in keys]
    assert {row["n"] for row in results["rows"]} == {SPEAKERS * CLIPS}
    row = row_of(results, "LSTM2", "default", "out_of_fold")
    assert row["mse"] == pytest.approx(0.25)
    assert row["seeds"] == [0, 1]
    by_seed = [predictions_of(preprocessed, run) for run in runs[:2]]
    assert row["ccc"] == pytest.approx(np.mean([ccc(f["truth"], f["prediction"]) for f in by_seed]))
    assert row_of(results, "LSTM2", "default", "validation")["mse"] == pytest.approx(0.16)
    assert row["against_mean"]["verdict"] == "better"
    assert seconds == {"LSTM2, default": 2.5, "LSTM2, course": 2.0}
    json.dumps(results, allow_nan=False)


def test_a_holdout_has_rows_of_its_validation_and_its_test_subset(tmp_path):
    folder = write_report(tmp_path, protocol="holdout")
    results, _ = collect_results(folder, [write_run(folder, "LSTM2", "course", 0.2, standardise="none")])
    json.dumps(results, allow_nan=False)
    assert (results["protocol"], results["tested"]) == ("holdout", "test")
    assert {"corpus", "clips", "speakers", "quarantined", "label_variance", "raters"} <= set(results)
    for row in results["rows"]:
        assert set(METRICS) == set(row["intervals"]) <= set(row)
    clips = load_clips(folder)
    truth, trained = (clips.loc[clips["subset"] == subset, "rating"] for subset in ("test", "train"))
    mean = row_of(results, "mean", None, "test")
    assert (mean["seeds"], mean["mse"]) == ([], pytest.approx(mse(truth, [trained.mean()] * len(truth))))
    assert row_of(results, "LSTM2", "course", "test")["mse"] == pytest.approx(0.04)
    with pytest.raises(RunError, match="no row for LSTM3"):
        row_of(results, "LSTM3", "default", "test")
    with pytest.raises(RunError, match="LSTM1-default-9"):
        collect_results(folder, ["LSTM1-default-9"])


def test_the_mean_predictor_uses_the_training_clips_of_each_fold(preprocessed):
    results, _ = collect_results(preprocessed, [write_run(preprocessed, "CNN", "default", 0.5)])
    clips = load_clips(preprocessed)
    splits = load_splits(preprocessed)
    for subset, own in (("validation", "validation"), ("out_of_fold", "test")):
        errors = np.concatenate(
            [
                clips.loc[subsets == own, "rating"] - clips.loc[subsets == "train", "rating"].mean()
                for subsets in splits.values()
            ]
        )
        assert row_of(results, "mean", None, subset)["mse"] == pytest.approx(np.mean(errors**2))
        held_out = held_out_clips(clips, splits)[subset]
        assert held_out["mean"].nunique() == 4
        assert sorted(held_out["id"]) == sorted(clips.loc[clips["rating"].notna(), "id"])
    expected = row_of(results, "mean", None, "validation")["mse"]
    assert mean_predictor_mse(clips, splits) == pytest.approx(expected)


def test_constant_predictions_give_valid_json(preprocessed):
    run = write_run(preprocessed, "CNN", "default", 0.5)
    path = preprocessed / "runs" / run / "predictions.csv"
    save_frame(path, load_frame(path).assign(prediction=3.0))
    results, _ = collect_results(preprocessed, [run])
    json.dumps(results, allow_nan=False)
    assert results["calibration"]["slope"] == 0
    assert row_of(results, "CNN", "default", "out_of_fold")["ccc"] == 0


def test_settings_tuned_on_other_clips_are_refused(preprocessed):
    run = write_run(preprocessed, "CNN", "default", 0.5)
    with pytest.raises(RunError, match="run `make sweep` again"):
        collect_results(preprocessed, [run], tuning={"clips": "another digest"})
    tuning = {"clips": digest_of(preprocessed / "preprocess" / "clips.csv"), "trials": 3}
    assert collect_results(preprocessed, [run], tuning=tuning)[0]["tuning"] == tuning
    assert "tuning" not in collect_results(preprocessed, [run])[0]


# The chosen run


def test_the_run_with_the_lowest_validation_mse_is_chosen(preprocessed):
    runs = [
        write_run(preprocessed, "CNN", "default", 0.9, 0, validation=0.5),
        write_run(preprocessed, "CNN", "default", 0.9, 1, validation=0.3),
        write_run(preprocessed, "LSTM2", "default", 0.1, 0, validation=0.35),
        write_run(preprocessed, "LSTM2", "default", 0.1, 1, validation=0.6),
    ]
    assert choose(preprocessed, runs) == {"model": "CNN", "preset": "default", "run": "CNN-default-1"}


def test_a_model_standardised_by_speaker_is_chosen_only_over_raw_decibels(preprocessed):
    by_speaker = write_run(preprocessed, "CNN", "speaker", 0.2, standardise="speaker")
    raw = write_run(preprocessed, "CNN", "course", 0.5, standardise="none")
    train = write_run(preprocessed, "LSTM2", "default", 0.9)
    assert choose(preprocessed, [by_speaker, raw])["run"] == by_speaker
    assert choose(preprocessed, [by_speaker])["run"] == by_speaker
    assert choose(preprocessed, [by_speaker, train])["run"] == train
    assert choose(preprocessed, [by_speaker, raw, train])["run"] == raw


def test_neither_a_run_of_the_ablation_table_nor_on_request_a_network_is_chosen(preprocessed):
    best = write_run(preprocessed, "GaussianProcess", "default", 0.5)
    line = write_run(preprocessed, "GaussianProcess", "without-voice", 0.1)
    network = write_run(preprocessed, "CNN", "default", 0.2)
    assert choose(preprocessed, [best, line])["run"] == best
    assert choose(preprocessed, [best, line, network])["run"] == network
    assert choose(preprocessed, [best, line, network], fitted=True)["run"] == best
    results, _ = collect_results(preprocessed, [best, line])
    assert "without-voice" not in {row["preset"] for row in results["rows"]}
    assert results["comparisons"] == []


# Comparisons


def test_comparisons_have_holm_adjusted_p_values(preprocessed):
    offs = {"LSTM1": 0.8, "CNN": 0.52, "LSTM2": 0.5, "Ridge": 0.55, "SVR": 0.6}
    runs = [write_run(preprocessed, model, "default", off) for model, off in offs.items()]
    results, _ = collect_results(preprocessed, runs)
    assert results["chosen"]["model"] == "LSTM2"
    for metric in ("mse", "ccc"):
        made = [one for one in results["comparisons"] if one["metric"] == metric]
        assert [one["second"][0] for one in made] == ["LSTM1", "CNN", "Ridge", "SVR"]
        assert [one["p_holm"] for one in made] == pytest.approx(holm([one["p"] for one in made]))
        for one in made:
            own, other = (score(preprocessed, metric, model) for model in ("LSTM2", one["second"][0]))
            assert one["difference"] == pytest.approx(own - other)
            assert (one["verdict"] == "tie") == (one["p_holm"] >= 0.05)
    assert results["comparisons"][0]["verdict"] == "better"


def holm(ps):
    """Holm-adjusted p values, in the given order."""
    order = sorted(ps)
    adjusted = np.maximum.accumulate([min(1, (len(ps) - rank) * p) for rank, p in enumerate(order)])
    return [adjusted[order.index(p)] for p in ps]


def score(folder, metric, model):
    frame = predictions_of(folder, f"{model}-default-0")
    return {"mse": mse, "ccc": ccc}[metric](frame["truth"], frame["prediction"])


def test_each_model_is_compared_with_itself_on_raw_decibels_and_untuned(preprocessed):
    names = ("CNN-default", "LSTM2-default", "LSTM2-tuned", "CNN-course", "LSTM2-course")
    offs = dict(zip(names, (0.4, 0.5, 0.6, 0.6, 0.7), strict=True))
    runs = [
        write_run(preprocessed, *key.split("-"), off, standardise="none" if "course" in key else "train")
        for key, off in offs.items()
    ]
    comparisons = collect_results(preprocessed, runs)[0]["comparisons"]
    pairs = [tuple("-".join(one[side]) for side in ("first", "second")) for one in comparisons]
    expected = [("CNN-default", other) for other in list(offs)[1:]]
    expected += [("LSTM2-default", "LSTM2-course"), ("LSTM2-tuned", "LSTM2-course")]
    assert pairs == [*expected, ("LSTM2-tuned", "LSTM2-default")] * 2  # by MSE and by CCC


def test_every_two_seeds_are_compared(preprocessed):
    offs = {3: 0.5, 4: 0.6, 5: 2.0}
    runs = [write_run(preprocessed, "CNN", "default", off, seed) for seed, off in offs.items()]
    compared = collect_results(preprocessed, runs)[0]["seeds_compared"]
    assert [pair["seeds"] for pair in compared] == [[3, 4], [3, 5], [4, 5]]
    assert compared[0]["mse"]["difference"] == pytest.approx(0.25 - 0.36)
    assert compared[0]["ccc"]["difference"] > 0
    assert collect_results(preprocessed, runs[:1])[0]["seeds_compared"] == []


# The ablation table


@pytest.fixture
def ablated(preprocessed):
    """The best model and the lines of its ablation table, each with another error."""
    offs = {name: 0.5 + 0.3 * number for number, name in enumerate(ABLATIONS, start=1)}
    offs |= {"encoder": 0.4, "speaker": 0.2}
    runs = [write_run(preprocessed, "Ridge", "default", 0.9)]
    for preset, off in {"default": 0.5, **offs}.items():
        standardise = "speaker" if preset == "speaker" else "train"
        runs.append(write_run(preprocessed, "GaussianProcess", preset, off, standardise=standardise))
    return preprocessed, runs, offs


def test_the_ablation_table_compares_each_line_with_the_best_model(ablated):
    folder, runs, offs = ablated
    lines = collect_results(folder, runs)[0]["ablation"]
    assert [(line["words"], line["added"], line["preset"]) for line in lines] == [
        ("the voice statistics", False, "without-voice"),
        ("the speaker encoder", False, "without-encoder"),
        ("statistics of the log-mel bands", True, "with-log-mel"),
        ("the given encoder", True, "encoder"),
        ("standardising by speaker", True, "speaker"),
    ]
    assert {(line["model"], line["parameters"]) for line in lines} == {("GaussianProcess", 10)}
    best = predictions_of(folder, "GaussianProcess-default-0")
    for line, off in zip(lines, offs.values(), strict=True):
        own = predictions_of(folder, f"GaussianProcess-{line['preset']}-0")
        assert line["mse"]["score"] == pytest.approx(off**2)
        assert line["mse"]["difference"] == pytest.approx(off**2 - 0.25)
        scores = [ccc(frame["truth"], frame["prediction"]) for frame in (own, best)]
        assert line["ccc"]["score"] == pytest.approx(scores[0])
        assert line["ccc"]["difference"] == pytest.approx(scores[0] - scores[1])
    for metric in ("mse", "ccc"):
        ps = [line[metric]["p"] for line in lines]
        assert [line[metric]["p_holm"] for line in lines] == pytest.approx(holm(ps))
        assert [lines[number][metric]["verdict"] for number in (2, 4)] == ["worse", "better"]
    json.dumps(lines, allow_nan=False)


def test_the_ablation_table_has_only_lines_with_a_run(ablated):
    folder, runs, _ = ablated
    names = ["GaussianProcess-default-0", "GaussianProcess-without-voice-0"]
    lines = collect_results(folder, names)[0]["ablation"]
    assert [line["preset"] for line in lines] == ["without-voice"]
    plain = [run for run in runs if not any(name in run for name in ABLATIONS)]
    # Without the speaker encoder, the best model is missing.
    for runs in (plain, ["Ridge-default-0", "GaussianProcess-without-encoder-0"]):
        assert collect_results(folder, runs)[0]["ablation"] == []


# The chosen run's predictions


def test_calibration_and_coverage_are_those_of_the_chosen_run(preprocessed):
    runs = [write_run(preprocessed, "CNN", "default", off, seed) for seed, off in ((0, 0.9), (1, 0.4))]
    results, _ = collect_results(preprocessed, runs)
    assert results["chosen"]["run"] == "CNN-default-1"
    frame = predictions_of(preprocessed, "CNN-default-1")
    slope = np.polyfit(frame["prediction"], frame["truth"], 1)[0]
    found = results["calibration"]
    assert (found["slope"], found["optima"]["mse"]["scale"]) == pytest.approx((slope, slope))
    assert found["slope_interval"][0] < slope < found["slope_interval"][1]
    assert results["intervals_coverage"] == coverage(frame["truth"], frame["prediction"], frame["speaker"])


@pytest.mark.parametrize("speakers", [True, False])
def test_too_few_clips_have_no_prediction_intervals(tmp_path, speakers):
    folder = write_report(tmp_path, speakers)
    clips = load_clips(folder)
    few = clips.iloc[:: CLIPS + 2].reset_index(drop=True)  # nine
    few.loc[len(few) - 1, "rating"] = np.nan
    save_frame(folder / "preprocess" / "clips.csv", few.rename(columns={"rating": "valence"}))
    split = make_splits(few, "cv", 4, seed=0)
    save_frame(folder / "preprocess" / "splits.csv", pd.DataFrame({"id": few["id"], **split.splits}))
    results, _ = collect_results(folder, [write_run(folder, "CNN", "default", 0.5)])
    assert (results["intervals_coverage"], results["resampled"]) == (None, "speaker" if speakers else "clip")
    json.dumps(results, allow_nan=False)


def test_the_time_of_a_cross_validation_is_the_sum_over_folds(preprocessed):
    run = write_run(preprocessed, "CNN", "default", 0.3)
    folder = preprocessed / "runs" / run
    content = load_json(folder / "settings.json")
    write_json(folder / "settings.json", content | {"members": ["fold-0", "fold-1"]})
    for fold, seconds in (("fold-0", 2.5), ("fold-1", 4.0)):
        write_json(folder / fold / "settings.json", content)
        write_json(folder / fold / "seconds.json", {"seconds": seconds})
    assert collect_results(preprocessed, [run])[1] == {"CNN, default": 6.5}
