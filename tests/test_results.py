"""results.json of a cross-validation: what each part's scores are made of, what is chosen, and what is held against what."""

import json

import numpy as np
import pandas as pd
import pytest
from test_leakage import predicted, write_leakage

from valence_lib import report
from valence_lib.calibration import coverage
from valence_lib.corpora import open_corpus
from valence_lib.errors import RunError
from valence_lib.files import digest_of, write_json
from valence_lib.inspection import QUARANTINE_COLUMNS
from valence_lib.leakage import measure
from valence_lib.metrics import ccc, mse
from valence_lib.protocols import divide
from valence_lib.registry import ABLATIONS
from valence_lib.results import choose, collect_results, held_out_clips, mean_predictor_mse
from valence_lib.settings import CorpusSettings, FeatureSettings

SPEAKERS, CLIPS = 12, 5
PARTS = ("validation", "out_of_fold")


def write_report(folder, speakers=True, protocol="cv"):
    """A report's folder after 1_preprocess, with 60 rated clips of twelve speakers, two without a rating, and four folds."""
    rng = np.random.default_rng(0)
    n = SPEAKERS * CLIPS
    who = np.repeat(np.arange(SPEAKERS), CLIPS)
    clips = pd.DataFrame(
        {
            "index": range(n + 2),
            "id": [f"clip {number:02}" for number in range(n + 2)],
            "speaker": [*(f"S{number:02}" for number in who), "S00", "S01"] if speakers else "",
            "part": "",
            "duration_seconds": 2.0,
            # Speakers and folds differ, so that each fold's training clips have another mean.
            "valence": [*np.clip(1.5 + who / 6 + rng.normal(0, 0.7, n), 1, 5), np.nan, np.nan],
        }
    )
    split = divide(clips, protocol, 4, seed=0)
    report.save_preprocessed(
        folder,
        open_corpus("demo"),
        clips.assign(part=split.part, fold=split.fold),
        pd.DataFrame(columns=QUARANTINE_COLUMNS),
        pd.DataFrame(columns=["first", "second", "similarity"]),
        [""] * len(clips),
        split,
        CorpusSettings(),
        FeatureSettings(),
    )
    write_leakage(folder / "leakage", {"speaker": "too few speakers"})
    return folder


@pytest.fixture
def preprocessed(tmp_path):
    return write_report(tmp_path)


def write_run(folder, model, preset, deviation, seed=0, standardise="train", validation=None):
    """A finished run whose predictions are off by a deviation, or by another on validation clips."""
    run = report.run_name(model, preset, seed)
    clips = report.load_frame(folder / "preprocess" / "clips.csv")
    rated = clips[clips["valence"].notna()]
    frames = []
    cv = "test" not in set(clips["part"])
    for part in PARTS if cv else ("validation", "test"):
        own = rated if cv else rated[rated["part"] == part]
        error = np.random.default_rng([seed, *map(ord, model + preset + part)]).normal(0, 1, len(own))
        off = validation if part == "validation" and validation is not None else deviation
        error *= off / np.sqrt(np.mean(error**2))  # its root mean square is what was asked for
        frame = own[["id", "speaker", "duration_seconds"]].assign(
            part=part, truth=own["valence"], prediction=own["valence"] + error
        )
        frames.append(frame.sample(frac=1, random_state=seed))  # in no order to be relied on
    unrated = clips[clips["valence"].isna()]
    frames.append(unrated[["id", "speaker"]].assign(part="unlabelled", prediction=3.0))
    report.save_frame(folder / "runs" / run / "predictions.csv", pd.concat(frames))
    training = {"model": model, "preset": preset, "seed": seed, "standardise": standardise}
    write_json(folder / "runs" / run / "settings.json", {"training": training, "parameters": 10})
    write_json(folder / "runs" / run / "seconds.json", {"seconds": 2.0 + seed})
    return run


def predictions_of(folder, run, part="out_of_fold"):
    frame = report.load_frame(folder / "runs" / run / "predictions.csv")
    return frame[frame["part"] == part].set_index("id").sort_index()


# Rows


def test_rows_are_of_every_rated_clip_out_of_its_fold(preprocessed):
    runs = [write_run(preprocessed, "LSTM2", "default", 0.5, seed, validation=0.4) for seed in (0, 1)] + [
        write_run(preprocessed, "LSTM2", "seed", 0.8, standardise="none")
    ]
    results, seconds = collect_results(preprocessed, runs)
    assert (results["protocol"], results["tested"], results["resampled"]) == ("cv", "out_of_fold", "speaker")
    assert results["split"]["folds"] == 4
    assert [(row["model"], row["preset"], row["part"], row["standardise"]) for row in results["rows"]] == [
        row
        for part in PARTS
        for row in [
            ("mean", None, part, "none"),
            ("LSTM2", "default", part, "train"),
            ("LSTM2", "seed", part, "none"),
        ]
    ]
    assert {row["n"] for row in results["rows"]} == {SPEAKERS * CLIPS}
    row = report.row_of(results, "LSTM2", "default", "out_of_fold")
    assert row["mse"] == pytest.approx(0.25)
    assert row["seeds"] == [0, 1]
    by_seed = [predictions_of(preprocessed, run) for run in runs[:2]]
    assert row["ccc"] == pytest.approx(np.mean([ccc(f["truth"], f["prediction"]) for f in by_seed]))
    assert report.row_of(results, "LSTM2", "default", "validation")["mse"] == pytest.approx(0.16)
    assert row["against_mean"]["verdict"] == "better"
    assert seconds == {"LSTM2, default": 2.5, "LSTM2, seed": 2.0}
    json.dumps(results, allow_nan=False)


def test_rows_of_a_holdout_are_of_its_validation_and_its_test_part(tmp_path):
    folder = write_report(tmp_path, protocol="holdout")
    results, _ = collect_results(folder, [write_run(folder, "LSTM2", "seed", 0.2, standardise="none")])
    json.dumps(results, allow_nan=False)
    assert (results["protocol"], results["tested"]) == ("holdout", "test")
    assert {"corpus", "clips", "speakers", "quarantined", "label_variance", "raters"} <= set(results)
    models = [(part, model) for part in ("validation", "test") for model in ("mean", "LSTM2")]
    assert [(row["part"], row["model"]) for row in results["rows"]] == models
    scores = {"mse", "mae", "pearson_r", "ccc", "r2", "sd_ratio"}
    for row in results["rows"]:
        assert {*scores, "preset", "n", "intervals", "parameters", "standardise"} <= set(row)
        assert set(row["intervals"]) == scores
        assert all(low <= high for low, high in row["intervals"].values())
    clips = report.load_frame(folder / "preprocess" / "clips.csv")
    truth, trained = (clips.loc[clips["part"] == part, "valence"] for part in ("test", "train"))
    mean = report.row_of(results, "mean", None, "test")
    assert (mean["seeds"], mean["mse"]) == ([], pytest.approx(mse(truth, [trained.mean()] * len(truth))))
    assert report.row_of(results, "LSTM2", "seed", "test")["mse"] == pytest.approx(0.04)
    with pytest.raises(RunError, match="no row for LSTM3"):
        report.row_of(results, "LSTM3", "default", "test")
    with pytest.raises(RunError, match="LSTM1-default-9"):
        collect_results(folder, ["LSTM1-default-9"])


def test_the_mean_predictor_says_what_each_folds_own_training_clips_say(preprocessed):
    run = write_run(preprocessed, "CNN", "default", 0.5)
    results, _ = collect_results(preprocessed, [run])
    clips = report.load_frame(preprocessed / "preprocess" / "clips.csv")
    divisions = report.load_divisions(preprocessed)
    for part, of_division in (("validation", "validation"), ("out_of_fold", "test")):
        errors = []
        for parts in divisions.values():
            mean = clips.loc[parts == "train", "valence"].mean()
            errors += list(clips.loc[parts == of_division, "valence"] - mean)
        assert len(errors) == SPEAKERS * CLIPS
        assert report.row_of(results, "mean", None, part)["mse"] == pytest.approx(np.mean(np.square(errors)))
        held_out = held_out_clips(clips, divisions)[part]
        assert held_out["mean"].nunique() == 4
        assert sorted(held_out["id"]) == sorted(clips.loc[clips["valence"].notna(), "id"])
    expected = report.row_of(results, "mean", None, "validation")["mse"]
    assert mean_predictor_mse(clips, divisions) == pytest.approx(expected)


def test_predictions_without_any_spread_are_json_too(preprocessed):
    run = write_run(preprocessed, "CNN", "default", 0.5)
    path = preprocessed / "runs" / run / "predictions.csv"
    report.save_frame(path, report.load_frame(path).assign(prediction=3.0))
    results, _ = collect_results(preprocessed, [run])
    json.dumps(results, allow_nan=False)
    assert results["calibration"]["slope"] == 0
    assert report.row_of(results, "CNN", "default", "out_of_fold")["ccc"] == 0


def test_a_setting_chosen_on_other_clips_is_refused(preprocessed):
    run = write_run(preprocessed, "CNN", "default", 0.5)
    with pytest.raises(RunError, match="run `make sweep` again"):
        collect_results(preprocessed, [run], tuning={"clips": "of another day"})
    tuning = {"clips": digest_of(preprocessed / "preprocess" / "clips.csv"), "trials": 3}
    assert collect_results(preprocessed, [run], tuning=tuning)[0]["tuning"] == tuning
    assert "tuning" not in collect_results(preprocessed, [run])[0]


# What is chosen


def test_the_lowest_validation_mse_is_chosen_whatever_the_tested_clips_say(preprocessed):
    runs = [
        write_run(preprocessed, "CNN", "default", 0.9, 0, validation=0.5),
        write_run(preprocessed, "CNN", "default", 0.9, 1, validation=0.3),
        write_run(preprocessed, "LSTM2", "default", 0.1, 0, validation=0.35),
        write_run(preprocessed, "LSTM2", "default", 0.1, 1, validation=0.6),
    ]
    assert choose(preprocessed, runs) == {"model": "CNN", "preset": "default", "run": "CNN-default-1"}
    assert collect_results(preprocessed, runs)[0]["chosen"]["run"] == "CNN-default-1"


def test_what_hears_a_speakers_other_clips_is_chosen_only_over_raw_decibels(preprocessed):
    by_speaker = write_run(preprocessed, "CNN", "speaker", 0.2, standardise="speaker")
    raw = write_run(preprocessed, "CNN", "seed", 0.5, standardise="none")
    train = write_run(preprocessed, "LSTM2", "default", 0.9)
    assert choose(preprocessed, [by_speaker, raw])["run"] == by_speaker
    assert choose(preprocessed, [by_speaker])["run"] == by_speaker
    assert choose(preprocessed, [by_speaker, train])["run"] == train
    # Raw decibels are no worse a choice than any other, once there is one.
    assert choose(preprocessed, [by_speaker, raw, train])["run"] == raw


def test_the_leakage_analysis_chooses_among_what_is_fitted_in_one_step(preprocessed):
    runs = [
        write_run(preprocessed, "CNN", "default", 0.1),
        write_run(preprocessed, "Ridge", "default", 0.5),
        write_run(preprocessed, "SVR", "default", 0.4),
        write_run(preprocessed, "GaussianProcess", "speaker", 0.2, standardise="speaker"),
    ]
    assert choose(preprocessed, runs)["run"] == "CNN-default-0"
    assert choose(preprocessed, runs, fitted=True)["run"] == "SVR-default-0"


def test_no_line_of_the_ablation_table_is_chosen_or_a_row(preprocessed):
    best = write_run(preprocessed, "GaussianProcess", "default", 0.5)
    line = write_run(preprocessed, "GaussianProcess", "without-voice", 0.1)
    assert choose(preprocessed, [best, line])["run"] == best
    assert choose(preprocessed, [best, line], fitted=True)["run"] == best
    results, _ = collect_results(preprocessed, [best, line])
    assert "without-voice" not in {row["preset"] for row in results["rows"]}
    assert results["comparisons"] == []


# Comparisons


def test_comparisons_are_corrected_for_their_number_as_holm_does(preprocessed):
    offs = {"LSTM1": 0.8, "CNN": 0.52, "LSTM2": 0.5, "Ridge": 0.55, "SVR": 0.6}
    runs = [write_run(preprocessed, model, "default", off) for model, off in offs.items()]
    results, _ = collect_results(preprocessed, runs)
    assert results["chosen"]["model"] == "LSTM2"
    for metric in ("mse", "ccc"):
        made = [one for one in results["comparisons"] if one["metric"] == metric]
        assert [one["second"][0] for one in made] == ["LSTM1", "CNN", "Ridge", "SVR"]
        assert all(one["first"] == ["LSTM2", "default"] and one["part"] == "out_of_fold" for one in made)
        assert [one["p_holm"] for one in made] == pytest.approx(holm([one["p"] for one in made]))
        for one in made:
            difference = mse_or_ccc(preprocessed, metric, "LSTM2") - mse_or_ccc(
                preprocessed, metric, one["second"][0]
            )
            assert one["difference"] == pytest.approx(difference)
            assert (one["verdict"] == "tie") == (one["p_holm"] >= 0.05)
    assert results["comparisons"][0]["verdict"] == "better"


def holm(ps):
    """P values corrected for their number by Holm's method, in the order in which they were given."""
    order = np.argsort(ps)
    corrected = np.empty(len(ps))
    corrected[order] = np.maximum.accumulate(
        [min(1, (len(ps) - rank) * ps[at]) for rank, at in enumerate(order)]
    )
    return list(corrected)


def mse_or_ccc(folder, metric, model):
    frame = predictions_of(folder, f"{model}-default-0")
    return {"mse": mse, "ccc": ccc}[metric](frame["truth"], frame["prediction"])


def test_each_model_is_held_against_itself_on_raw_decibels_and_untuned(preprocessed):
    runs = [
        write_run(preprocessed, model, preset, off, standardise="none" if preset == "seed" else "train")
        for model, preset, off in (
            ("CNN", "default", 0.4),
            ("LSTM2", "default", 0.5),
            ("LSTM2", "tuned", 0.6),
            ("CNN", "seed", 0.6),
            ("LSTM2", "seed", 0.7),
        )
    ]
    results, _ = collect_results(preprocessed, runs)
    pairs = [
        ("-".join(one["first"]), "-".join(one["second"]))
        for one in results["comparisons"]
        if one["metric"] == "mse"
    ]
    others = ("LSTM2-default", "LSTM2-tuned", "CNN-seed", "LSTM2-seed")
    assert pairs[:4] == [("CNN-default", other) for other in others]
    assert sorted(pairs[4:]) == [
        ("LSTM2-default", "LSTM2-seed"),
        ("LSTM2-tuned", "LSTM2-default"),
        ("LSTM2-tuned", "LSTM2-seed"),
    ]


def test_every_two_seeds_are_held_against_each_other(preprocessed):
    runs = [
        write_run(preprocessed, "CNN", "default", off, seed) for seed, off in ((3, 0.5), (4, 0.6), (5, 2.0))
    ]
    compared = collect_results(preprocessed, runs)[0]["seeds_compared"]
    assert [pair["seeds"] for pair in compared] == [[3, 4], [3, 5], [4, 5]]
    assert compared[0]["mse"]["difference"] == pytest.approx(0.25 - 0.36)
    assert compared[0]["ccc"]["difference"] > 0
    assert max(pair["mse"]["p"] for pair in compared) == compared[0]["mse"]["p_holm"]
    assert compared[1]["mse"]["p_holm"] >= 2 * compared[1]["mse"]["p"]
    assert collect_results(preprocessed, runs[:1])[0]["seeds_compared"] == []


# The ablation table


@pytest.fixture
def ablated(preprocessed):
    """The best model and the lines of its ablation table, each with an error of its own."""
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
        ("the encoder that was named", True, "encoder"),
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
            assert line[metric]["low"] < line[metric]["difference"] < line[metric]["high"]
    for metric in ("mse", "ccc"):
        ps = [line[metric]["p"] for line in lines]
        assert [line[metric]["p_holm"] for line in lines] == pytest.approx(holm(ps))
        assert [lines[number][metric]["verdict"] for number in (2, 4)] == ["worse", "better"]
    json.dumps(lines, allow_nan=False)


def test_lines_that_are_not_there_are_not_in_the_ablation_table(ablated):
    folder, runs, _ = ablated
    names = {"GaussianProcess-default-0", "GaussianProcess-without-voice-0"}
    lines = collect_results(folder, [run for run in runs if run in names])[0]["ablation"]
    assert [line["preset"] for line in lines] == ["without-voice"]
    plain = [run for run in runs if not any(name in run for name in ABLATIONS)]
    assert collect_results(folder, plain)[0]["ablation"] == []
    # Where the speaker encoder is not installed, one line is left that has nothing to be compared with.
    alone = ["Ridge-default-0", "GaussianProcess-without-encoder-0"]
    assert collect_results(folder, alone)[0]["ablation"] == []


# The chosen run's predictions


def test_calibration_and_intervals_are_of_the_chosen_run(preprocessed):
    runs = [write_run(preprocessed, "CNN", "default", off, seed) for seed, off in ((0, 0.9), (1, 0.4))]
    results, _ = collect_results(preprocessed, runs)
    assert results["chosen"]["run"] == "CNN-default-1"
    frame = predictions_of(preprocessed, "CNN-default-1")
    slope, intercept = np.polyfit(frame["prediction"], frame["truth"], 1)
    found = results["calibration"]
    assert (found["slope"], found["intercept"]) == pytest.approx((slope, intercept))
    assert found["kept"] == pytest.approx(np.polyfit(frame["truth"], frame["prediction"], 1)[0])
    assert found["slope_interval"][0] < slope < found["slope_interval"][1]
    assert found["bias"] == pytest.approx((frame["prediction"] - frame["truth"]).mean())
    assert found["optima"]["mse"]["scale"] == pytest.approx(slope)
    expected = coverage(frame["truth"], frame["prediction"], frame["speaker"])
    covered = results["intervals_coverage"]
    for name in ("coverage", "width", "half_width", "n"):
        assert covered[name] == pytest.approx(expected[name])
    low, high = covered["interval"]
    assert 0 <= low <= covered["coverage"] <= high <= 1


@pytest.mark.parametrize("speakers", [True, False])
def test_of_too_few_clips_there_are_no_intervals(tmp_path, speakers):
    folder = write_report(tmp_path, speakers)
    clips = report.load_frame(folder / "preprocess" / "clips.csv")
    few = clips.iloc[:: CLIPS + 2].reset_index(drop=True)  # nine
    few.loc[len(few) - 1, "valence"] = np.nan
    report.save_frame(folder / "preprocess" / "clips.csv", few)
    split = divide(few, "cv", 4, seed=0)
    report.save_frame(
        folder / "preprocess" / "divisions.csv", pd.DataFrame({"id": few["id"], **split.divisions})
    )
    results, _ = collect_results(folder, [write_run(folder, "CNN", "default", 0.5)])
    assert (results["intervals_coverage"], results["resampled"]) == (None, "speaker" if speakers else "clip")
    json.dumps(results, allow_nan=False)


def test_the_time_of_a_cross_validation_is_that_of_all_its_trainings(preprocessed):
    run = write_run(preprocessed, "CNN", "default", 0.3)
    folder = preprocessed / "runs" / run
    content = report.load_json(folder / "settings.json")
    write_json(folder / "settings.json", content | {"members": ["fold-0", "fold-1"]})
    for fold, seconds in (("fold-0", 2.5), ("fold-1", 4.0)):
        write_json(folder / fold / "settings.json", content)
        write_json(folder / fold / "seconds.json", {"seconds": seconds})
    assert collect_results(preprocessed, [run])[1] == {"CNN, default": 6.5}


def test_results_hold_the_leakage_analysis(preprocessed):
    run = write_run(preprocessed, "CNN", "default", 0.8)
    clips = report.load_frame(preprocessed / "preprocess" / "clips.csv").dropna(subset="valence")
    frames = {"random": predicted(clips, 0.3, 1), "speaker": predicted(clips, 0.9, 2)}
    write_leakage(preprocessed / "leakage", frames, model="SVR", rated=60, clips=60)
    results, _ = collect_results(preprocessed, [run])
    assert results["leakage"] == measure(preprocessed / "leakage")
    assert results["leakage"]["designs"][1]["against"]["mse"]["verdict"] == "better"
    json.dumps(results, allow_nan=False)
