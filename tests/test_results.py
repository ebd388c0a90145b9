"""results.json of a cross-validation: what each part's scores are made of, what is chosen, and what is held against what."""

import json

import numpy as np
import pandas as pd
import pytest

from valence_lib import report, sentences
from valence_lib.calibration import coverage
from valence_lib.corpora import open_corpus
from valence_lib.errors import RunError
from valence_lib.evaluation import Resampling, compare
from valence_lib.files import digest_of, write_json
from valence_lib.inspection import QUARANTINE_COLUMNS
from valence_lib.metrics import ccc, mse
from valence_lib.protocols import divide
from valence_lib.registry import LEDGER
from valence_lib.results import choose, collect_results, held_out_clips, mean_predictor_mse
from valence_lib.settings import CorpusSettings, FeatureSettings

SPEAKERS, CLIPS = 12, 5
PARTS = ("validation", "out_of_fold")


def write_report(folder, speakers=True):
    """A report's folder after 1_preprocess, with 60 rated clips of twelve speakers, two without a rating, and four folds."""
    rng = np.random.default_rng(0)
    n = SPEAKERS * CLIPS
    who = np.repeat(np.arange(SPEAKERS), CLIPS)
    clips = pd.DataFrame(
        {
            "index": range(n + 2),
            "id": [f"clip {number:02}" for number in range(n + 2)],
            "speaker": [*(f"S{number:02}" for number in who), "S00", "S01"] if speakers else "",
            "duration_seconds": 2.0,
            # Speakers and folds differ, so that each fold's training clips have another mean.
            "valence": [*np.clip(1.5 + who / 6 + rng.normal(0, 0.7, n), 1, 5), np.nan, np.nan],
        }
    )
    split = divide(clips, "cv", 4, seed=0)
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
    return folder


@pytest.fixture
def preprocessed(tmp_path):
    return write_report(tmp_path)


def write_run(folder, model, preset, deviation, seed=0, standardise="train", validation=None, members=""):
    """A finished run whose predictions are off by a deviation, or by another on validation clips."""
    run = report.run_name(model, preset, seed)
    clips = report.load_frame(folder / "preprocess" / "clips.csv")
    rated = clips[clips["valence"].notna()]
    frames = []
    for part, off in zip(PARTS, (deviation if validation is None else validation, deviation), strict=True):
        error = np.random.default_rng([seed, *map(ord, model + preset + part)]).normal(0, 1, len(rated))
        error *= off / np.sqrt(np.mean(error**2))  # its root mean square is what was asked for
        frame = rated[["id", "speaker", "duration_seconds"]].assign(
            part=part, truth=rated["valence"], prediction=rated["valence"] + error
        )
        frames.append(frame.sample(frac=1, random_state=seed))  # in no order to be relied on
    unrated = clips[clips["valence"].isna()]
    frames.append(unrated[["id", "speaker"]].assign(part="unlabelled", prediction=3.0))
    report.save_frame(folder / "runs" / run / "predictions.csv", pd.concat(frames))
    training = {"model": model, "preset": preset, "seed": seed, "standardise": standardise}
    content = {"training": training | {"members": members}, "parameters": 10}
    write_json(folder / "runs" / run / "settings.json", content)
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


def test_where_speakers_are_not_named_clips_are_drawn(tmp_path):
    write_report(tmp_path, speakers=False)
    results, _ = collect_results(tmp_path, [write_run(tmp_path, "CNN", "default", 0.5)])
    assert results["resampled"] == "clip"
    assert results["leakage"] == []  # the report's own folds are not by speaker: no reference
    json.dumps(results, allow_nan=False)


def test_predictions_without_any_spread_are_json_too(preprocessed):
    run = write_run(preprocessed, "CNN", "default", 0.5)
    path = preprocessed / "runs" / run / "predictions.csv"
    report.save_frame(path, report.load_frame(path).assign(prediction=3.0))
    results, _ = collect_results(preprocessed, [run])
    json.dumps(results, allow_nan=False)
    assert results["calibration"]["slope"] == 0
    assert report.row_of(results, "CNN", "default", "out_of_fold")["ccc"] == 0


def test_a_run_that_is_not_finished_is_named(preprocessed):
    with pytest.raises(RunError, match="CNN-default-0"):
        collect_results(preprocessed, ["CNN-default-0"])


def test_a_setting_chosen_on_other_clips_is_refused(preprocessed):
    run = write_run(preprocessed, "CNN", "default", 0.5)
    with pytest.raises(RunError, match="run `make sweep` again"):
        collect_results(preprocessed, [run], tuning={"clips": "of another day"})
    tuning = {"clips": digest_of(preprocessed / "preprocess" / "clips.csv"), "trials": 3}
    assert collect_results(preprocessed, [run], tuning=tuning)[0]["tuning"] == tuning


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


def test_no_line_of_the_ledger_is_chosen_or_a_row(preprocessed):
    best = write_run(preprocessed, "Blend", "best", 0.5)
    line = write_run(preprocessed, "Blend", "best-no-ccc", 0.1)
    assert choose(preprocessed, [best, line])["run"] == best
    results, _ = collect_results(preprocessed, [best, line])
    assert "best-no-ccc" not in {row["preset"] for row in results["rows"]}
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
        order = sorted(made, key=lambda one: one["p"])
        expected = np.maximum.accumulate([min(1, (4 - rank) * one["p"]) for rank, one in enumerate(order)])
        np.testing.assert_allclose([one["p_holm"] for one in order], expected)
        for one in made:
            difference = mse_or_ccc(preprocessed, metric, "LSTM2") - mse_or_ccc(
                preprocessed, metric, one["second"][0]
            )
            assert one["difference"] == pytest.approx(difference)
            assert (one["verdict"] == "tie") == (one["p_holm"] >= 0.05)
    assert results["comparisons"][0]["verdict"] == "better"


def mse_or_ccc(folder, metric, model):
    frame = predictions_of(folder, f"{model}-default-0")
    return {"mse": mse, "ccc": ccc}[metric](frame["truth"], frame["prediction"])


def test_each_model_is_held_against_itself_on_raw_decibels(preprocessed):
    runs = [
        write_run(preprocessed, model, preset, off, standardise="none" if preset == "seed" else "train")
        for model, preset, off in (
            ("CNN", "default", 0.4),
            ("LSTM2", "default", 0.5),
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
    assert pairs == [
        ("CNN-default", "LSTM2-default"),
        ("CNN-default", "CNN-seed"),
        ("CNN-default", "LSTM2-seed"),
        ("LSTM2-default", "LSTM2-seed"),
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


# The ledger


RECIPE_BY_SPEAKER = "the whole recipe by speaker (level, mean spectra, Lasso or SVR)"


@pytest.fixture
def ledger(preprocessed):
    """The best blend with two seeds, its members and the lines of the ledger, each worse by what it is named for."""
    members = "VoiceSVR+AttentionLSTM"
    runs = [
        write_run(preprocessed, "VoiceSVR", "best", 0.7),
        write_run(preprocessed, "AttentionLSTM", "best", 0.9),
        write_run(preprocessed, "AttentionLSTM", "best", 5.0, 1),
        write_run(preprocessed, "Blend", "best", 0.5, members=members),
        write_run(preprocessed, "Blend", "best", 5.0, 1, members=members),
        write_run(preprocessed, "Blend", "best-speaker", 0.2, standardise="speaker", members=members),
    ]
    offs = {name: 0.5 + 0.1 * number for number, name in enumerate(LEDGER, start=1)}
    runs += [
        write_run(preprocessed, "Blend", f"best-{name}", off, members=members) for name, off in offs.items()
    ]
    return preprocessed, runs, offs


def test_the_ledger_has_a_line_for_each_ingredient_and_member(ledger):
    folder, runs, offs = ledger
    lines = collect_results(folder, runs)[0]["ablation"]
    assert [line["words"] for line in lines] == [
        *(ingredient.words for ingredient in LEDGER.values()),
        "VoiceSVR",
        "AttentionLSTM",
        RECIPE_BY_SPEAKER,
    ]
    added = {line["words"] for line in lines if line["added"]}
    assert added == {one.words for one in LEDGER.values() if one.added} | {RECIPE_BY_SPEAKER}
    # Where a member is taken away, the other is what is left.
    assert [(line["model"], line["preset"]) for line in lines[-3:]] == [
        ("AttentionLSTM", "best"),
        ("VoiceSVR", "best"),
        ("Blend", "best-speaker"),
    ]
    assert {line["parameters"] for line in lines} == {10}
    scores = [line["mse"]["score"] for line in lines]
    assert scores == pytest.approx(np.square([*offs.values(), 0.9, 0.7, 0.2]))
    json.dumps(lines, allow_nan=False)


def test_a_line_is_its_score_less_the_best_models_with_the_same_seed(ledger):
    folder, runs, _ = ledger
    lines = collect_results(folder, runs)[0]["ablation"]
    own = predictions_of(folder, "Blend-best-0")
    for line in lines:
        assert line["mse"]["difference"] == pytest.approx(line["mse"]["score"] - 0.25)
        of_best = ccc(own["truth"], own["prediction"])
        assert line["ccc"]["difference"] == pytest.approx(line["ccc"]["score"] - of_best)
        for metric in ("mse", "ccc"):
            assert line[metric]["low"] < line[metric]["difference"] < line[metric]["high"]
            assert line[metric]["p_holm"] >= line[metric]["p"]
    worst, by_speaker = lines[len(LEDGER) - 1], lines[-1]
    assert (worst["mse"]["verdict"], worst["ccc"]["verdict"]) == ("worse", "worse")
    assert (by_speaker["mse"]["verdict"], by_speaker["ccc"]["verdict"]) == ("better", "better")


def test_of_lines_that_are_not_there_nothing_is_said(ledger):
    folder, runs, _ = ledger
    some = [run for run in runs if run in ("Blend-best-0", "Blend-best-no-fine-0", "VoiceSVR-best-0")]
    lines = collect_results(folder, some)[0]["ablation"]
    assert [line["words"] for line in lines] == [LEDGER["no-fine"].words, "AttentionLSTM"]
    without_best = [run for run in runs if not run.startswith("Blend")]
    assert collect_results(folder, without_best)[0]["ablation"] == []


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
    assert found["optima"]["mse"]["mse"] <= report.row_of(results, "CNN", "default", "out_of_fold")["mse"]
    expected = coverage(frame["truth"], frame["prediction"], frame["speaker"])
    covered = results["intervals_coverage"]
    assert {name: covered[name] for name in ("coverage", "width", "half_width", "n")} == pytest.approx(
        {name: expected[name] for name in ("coverage", "width", "half_width", "n")}
    )
    assert covered["n"] == SPEAKERS * CLIPS
    # 90 % were asked for; the split by speakers leaves it near.
    assert 0.8 <= covered["coverage"] <= 1
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
    assert results["intervals_coverage"] is None
    assert "too few held-out clips to say how far a single prediction may be off" in sentences.covered(
        results
    )
    json.dumps(results, allow_nan=False)


def test_the_members_of_a_blend_have_rows_of_their_own(preprocessed):
    run = write_run(preprocessed, "Blend", "best", 0.3, members="VoiceSVR+AttentionLSTM")
    folder = preprocessed / "runs" / run
    content = report.load_json(folder / "settings.json")
    write_json(folder / "settings.json", content | {"members": ["fold-0/VoiceSVR", "fold-0/AttentionLSTM"]})
    own = report.load_frame(folder / "predictions.csv")
    frames = []
    for member, factor in (("VoiceSVR", 2), ("AttentionLSTM", 3)):
        training = content["training"] | {"model": member, "members": ""}
        place = folder / "fold-0" / member
        write_json(place / "settings.json", {"training": training, "parameters": factor})
        write_json(place / "seconds.json", {"seconds": 2.0})
        off = own["truth"] + factor * (own["prediction"] - own["truth"])
        frames.append(own.assign(member=member, prediction=off.fillna(3.0)))
    report.save_frame(folder / "members.csv", pd.concat(frames))
    results, seconds = collect_results(preprocessed, [run])
    rows = {row["model"]: row for row in results["rows"] if row["part"] == "out_of_fold"}
    assert list(rows) == ["mean", "Blend", "VoiceSVR", "AttentionLSTM"]
    mses = [rows[name]["mse"] for name in ("Blend", "VoiceSVR", "AttentionLSTM")]
    assert mses == pytest.approx([0.09, 0.36, 0.81])
    assert [rows[name]["member_of"] for name in ("Blend", "VoiceSVR")] == ["", run]
    assert rows["AttentionLSTM"]["parameters"] == 3
    assert results["chosen"]["run"] == run
    assert {line["words"]: round(line["mse"]["score"], 6) for line in results["ablation"]} == {
        "VoiceSVR": 0.81,
        "AttentionLSTM": 0.36,
    }
    assert seconds == {"Blend, best": 4.0}


def test_the_leakage_meter_takes_the_reports_own_folds_for_its_reference(preprocessed):
    run = write_run(preprocessed, "CNN", "default", 0.8)
    met = predictions_of(preprocessed, run).reset_index()
    met["prediction"] = met["truth"] + (met["prediction"] - met["truth"]) / 4
    folder = preprocessed / "leakage" / "random"
    write_json(folder / "design.json", {"why": "", "pseudo": False, "trained": 45.0})
    report.save_frame(folder / "predictions.csv", met)
    results, _ = collect_results(preprocessed, [run], designs=["random"])
    reference, random = results["leakage"]
    row = report.row_of(results, "CNN", "default", "out_of_fold")
    assert (reference["design"], reference["mse"], reference["trained"]) == ("speaker", row["mse"], 45)
    own = predictions_of(preprocessed, run)
    against = compare(
        "mse",
        own["truth"],
        [met.set_index("id").loc[own.index, "prediction"]],
        [own["prediction"]],
        Resampling(own["speaker"]),
    )
    assert random["against"]["mse"] == pytest.approx(vars(against))
    assert random["against"]["mse"]["verdict"] == "better"
    json.dumps(results, allow_nan=False)
