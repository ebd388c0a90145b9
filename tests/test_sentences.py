"""Sentences: a tie is called a tie, a warning stands where it must, and figures are those of the rows."""

import numpy as np
import pandas as pd
import pytest

from valence_lib import sentences
from valence_lib.error_groups import TOO_SMALL, Disagreement
from valence_lib.errors import RunError
from valence_lib.registry import ABLATIONS, PRESETS

CHOSEN = ("LSTM2", "default")


def _comparison(first, second, verdict, metric="mse", difference=-0.1, low=-0.2, high=-0.05):
    pair = {"part": "test", "metric": metric, "first": list(first), "second": list(second)}
    return pair | {"difference": difference, "low": low, "high": high, "verdict": verdict}


def _row(model, preset, part, mse=0.5, ccc=0.4, against=None):
    return {
        "model": model,
        "preset": preset,
        "part": part,
        "n": 1200,
        "mse": mse,
        "ccc": ccc,
        "against_mean": against,
        "intervals": {"mse": [mse - 0.1, mse + 0.1], "ccc": [ccc - 0.1, ccc + 0.1]},
        "standardise": {None: "none", "seed": "none", "speaker": "speaker"}.get(preset, "train"),
    }


def _results(**changes):
    results = {
        "tested": "test",
        "synthetic": False,
        "description": "",
        "speakers": 30,
        "split": {
            "protocol": "holdout",
            "by": "speaker",
            "given": [],
            "unnamed": 0,
            "shared_speakers": [],
            "parts": {
                "test": {"clips": 1200, "speakers": 10},
                "train": {"clips": 3600, "speakers": 15},
                "validation": {"clips": 1201, "speakers": 5},
            },
        },
        "raters": None,
        "as_a_rater": [],
        "near_duplicates": {"pairs": 0, "on_two_sides": 0, "listed": []},
        "lowest_mse": None,
        "chosen": {"model": "LSTM2", "preset": "default", "run": "LSTM2-default-0"},
        "comparisons": [
            _comparison(CHOSEN, ("LSTM1", "default"), "tie", difference=0.01, low=-0.02, high=0.04),
            _comparison(CHOSEN, ("LSTM1", "default"), "better", metric="ccc"),
            _comparison(CHOSEN, ("CNN", "default"), "better"),
            _comparison(CHOSEN, ("LSTM2", "seed"), "better", difference=-0.2, low=-0.3, high=-0.1),
            _comparison(("CNN", "default"), ("CNN", "seed"), "tie", difference=0.0, low=-0.1, high=0.1),
        ],
        "rows": [
            _row("mean", None, "test", 0.7, 0.0),
            _row("LSTM2", "default", "test", 0.5, 0.4),
            _row("LSTM2", "seed", "test", 0.7, 0.01),
            _row("CNN", "default", "test"),
            _row("CNN", "seed", "test"),
        ],
    }
    return results | changes


def _split(**changes):
    return {"split": _results()["split"] | changes}


def test_a_speaker_independent_corpus_of_ten_test_speakers_needs_no_warning():
    assert sentences.warnings(_results()) == []
    assert "No two clips" in sentences.alike(_results())


def test_near_duplicates_are_named():
    near = {"pairs": 7, "on_two_sides": 2, "listed": [{"first": "a", "second": "b", "similarity": 0.9}] * 7}
    (found,) = sentences.warnings(_results(near_duplicates=near))
    assert "7 pairs of clips are nearly the same recording (a and b; " in found
    assert "2 of them on two sides" in found
    assert sentences.alike(_results(near_duplicates=near)) == ""


def test_warnings_of_synthetic_voices_and_few_speakers():
    parts = {"test": {"clips": 100, "speakers": 9}}
    found = sentences.warnings(
        _results(synthetic=True, description="Computer voices.", **_split(parts=parts))
    )
    assert [warning.split("**")[1] for warning in found] == ["Synthetic corpus.", "Few speakers."]
    assert "Computer voices. Nothing here says anything about human speech." in found[0]
    assert "from 9 speakers" in found[1]


def test_unnamed_speakers_are_warned_of_as_a_leak_and_not_as_few():
    parts = {"test": {"clips": 100, "speakers": 0}}
    (found,) = sentences.warnings(_results(speakers=0, **_split(by="random", unnamed=300, parts=parts)))
    assert found.startswith(
        "**Speakers may leak.** The corpus does not name its speakers, and the clips were "
    )
    assert "divided at random: the same person may be heard in training and in test." in found


@pytest.mark.parametrize(
    ("by", "how"),
    [("random", "were divided at random"), ("corpus", "are divided as the corpus itself does")],
)
def test_a_leak_is_warned_of_also_where_a_few_speakers_are_unnamed(by, how):
    (found,) = sentences.warnings(_results(**_split(by=by, unnamed=1234)))
    assert f"The corpus names no speaker for 1,234 clips, and the clips {how}:" in found


def test_shared_speakers_are_counted_and_named():
    (found,) = sentences.warnings(_results(**_split(by="corpus", shared_speakers=list("ABCDEFG"))))
    assert found.startswith("**Shared speakers.**")
    assert "share speakers (A, B, C, D, E…; 7 in all)" in found
    (found,) = sentences.warnings(_results(**_split(by="corpus", shared_speakers=["A", "B"])))
    assert "share speakers (A, B; 2 in all)" in found


def test_parts_are_told_in_the_order_of_their_use():
    assert sentences.how_divided(_results()) == (
        "The clips are divided by whole speakers, no speaker being heard in two parts: 3,600 training clips "
        "(15 speakers), 1,201 validation clips (5 speakers) and 1,200 test clips (10 speakers)."
    )
    parts = {part: {"clips": 5, "speakers": 0} for part in ("unlabelled", "test", "validation", "train")}
    assert sentences.how_divided(_results(**_split(by="random", unnamed=15, parts=parts))) == (
        "The clips are divided at random: 5 training clips, 5 validation clips, 5 test clips and 5 unlabelled clips."
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"by": "corpus", "given": ["test", "validation"]},
            "as the corpus itself divides them, no speaker being",
        ),
        (
            {"by": "speaker", "given": ["test"]},
            "as the corpus itself divides off test, and the rest by whole speakers, no speaker being heard in two parts:",
        ),
        (
            {"by": "random", "given": ["test", "validation"], "unnamed": 9},
            "as the corpus itself divides off test and validation, and the rest at random:",
        ),
        ({"by": "corpus", "given": ["test"], "shared_speakers": ["A"]}, "as the corpus itself divides them:"),
        ({"by": "corpus", "given": ["test"], "unnamed": 1}, "as the corpus itself divides them:"),
    ],
)
def test_no_speaker_is_said_to_be_in_two_parts_only_where_that_is_known(changes, said):
    found = sentences.how_divided(_results(**_split(**changes)))
    assert found.startswith(f"The clips are divided {said}")
    assert ("no speaker being heard in two parts" in found) == ("no speaker being" in said)


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("better", "**beats** predicting the training mean."),
        ("worse", "is **worse** than predicting the training mean."),
        ("tie", "does **not beat** predicting the training mean: the two are a tie."),
    ],
)
def test_against_the_mean_as_the_interval_says(verdict, said):
    against = {"difference": -0.2, "low": -0.25, "high": 0.001, "verdict": verdict}
    rows = [_row("mean", None, "test", 0.7), _row("LSTM2", "default", "test", 0.5, against=against)]
    found = sentences.against_mean(_results(rows=rows), "LSTM2", "default", "test")
    assert found == (
        f"On the 1,200 test clips, LSTM2 (default preset) {said} Its MSE is 0.500, that of the mean 0.700; "
        "the difference is −0.200 [−0.250, 0.001]."
    )


def test_the_main_result_stands_beside_a_rater_and_beside_standardising_by_speaker():
    against = {"difference": -0.2, "low": -0.25, "high": 0.001, "verdict": "better"}
    rows = [_row("mean", None, "test", 0.7), _row("LSTM2", "default", "test", 0.5, against=against)]
    alone = sentences.main_result(_results(rows=rows))
    assert (
        alone
        == sentences.against_mean(_results(rows=rows), *CHOSEN, "test") + " Its CCC is 0.400 [0.300, 0.500]."
    )
    assert sentences.by_speaker(_results(rows=rows)) == ""
    rows += [_row("LSTM2", "speaker", part, 0.3, 0.6) for part in ("validation", "test")]
    comparisons = [_comparison(CHOSEN, ("LSTM2", "speaker"), "worse", difference=0.2, low=0.1, high=0.3)]
    rated = [_as_a_rater("default", 0.55, "worse"), _as_a_rater("speaker", 0.35, "tie")]
    found = sentences.main_result(
        _results(rows=rows, comparisons=comparisons, raters=RATERS, as_a_rater=rated)
    )
    assert (
        "(†), it has an MSE of 0.300 and a CCC of 0.600: **better**, −0.200 [−0.300, −0.100] of MSE." in found
    )
    assert found.endswith(
        "One human rater against the mean of the others has an MSE of 0.360 and a CCC of 0.780 on these clips. Against the "
        "same means, which are a less steady truth than that of the tables, LSTM2 (default preset) has an MSE of 0.550 and a CCC of 0.700: "
        "**worse** than a rater, 0.100 [0.050, 0.150] of MSE; LSTM2 (speaker preset) has an MSE of 0.350 and a CCC of 0.700: "
        "a **tie** with a rater, 0.100 [0.050, 0.150] of MSE."
    )


def test_beside_the_main_result_stands_the_best_by_speaker_where_the_chosen_model_is_not_among_it():
    scores = {"CNN": (0.2, 0.3), "LSTM1": (0.3, 0.1)}
    rows = [_row("mean", None, "test", 0.7), _row("LSTM2", "default", "test", 0.5)]
    for model, (validated, tested) in scores.items():
        rows += [_row(model, "speaker", "validation", validated), _row(model, "speaker", "test", tested, 0.6)]
    comparisons = [_comparison(CHOSEN, (model, "speaker"), "tie") for model in scores]
    found = sentences.by_speaker(_results(rows=rows, comparisons=comparisons))
    assert (
        "With the speaker preset, which standardises over all clips of each speaker and so takes other recordings of whoever is "
        "to be predicted (†), CNN has an MSE of 0.300 and a CCC of 0.600: a **tie** with that, " in found
    )


def test_what_hears_other_clips_of_a_speaker_is_not_said_to_have_been_outdone():
    assert "averaged over seeds, and was chosen by it." in sentences.chosen_against_others(_results())
    rows = [*_results()["rows"], _row("LSTM2", "speaker", "test", 0.3)]
    found = sentences.chosen_against_others(_results(rows=rows))
    assert (
        "averaged over seeds, of those that are not standardised by speaker, and was chosen by it." in found
    )
    # Where it is itself by speaker, it was not chosen among those that are not.
    rows += [_row("LSTM2", "tuned", "test", 0.2) | {"standardise": "speaker"}]
    results = _results(rows=rows, chosen={"model": "LSTM2", "preset": "tuned", "run": "LSTM2-tuned-0"})
    results["comparisons"] = [_comparison(("LSTM2", "tuned"), ("CNN", "default"), "tie")]
    assert "averaged over seeds, and was chosen by it." in sentences.chosen_against_others(results)
    assert sentences.by_speaker(results) == ""


def test_the_network_that_is_drawn_is_the_chosen_one_or_the_best():
    rows = [_row("LSTM2", "default", "validation", 0.4), _row("CNN", "seed", "validation", 0.5)]
    rows.append(_row("Ridge", "default", "validation", 0.3))
    results = _results(rows=rows, chosen={"model": "CNN", "preset": "seed"})
    assert sentences.network_of(results) == ("CNN", "seed")
    assert sentences.why_drawn(results) == "the model that was chosen by its validation MSE"
    results = _results(rows=rows, chosen={"model": "Ridge", "preset": "default"})
    assert sentences.network_of(results) == ("LSTM2", "default")
    assert sentences.why_drawn(results) != "the model that was chosen by its validation MSE"


def test_errors_differ_by_what_luck_does_not_explain():
    found = sentences.where_errors_differ({"speaker": 0.001, "sex": 0.2, "emotion": 0.04, "language": 0.06})
    assert found == (
        "The squared error differs by more than luck by speaker and emotion. By sex and language, what the squared error differs by "
        "may be luck."
    )
    assert (
        sentences.where_errors_differ({"sex": 0.2})
        == "By sex, what the squared error differs by may be luck."
    )
    assert sentences.where_errors_differ({}) == ""


def test_the_chosen_model_is_better_tied_and_worse_by_its_test_mse():
    found = sentences.chosen_against_others(_results())
    assert "LSTM2 (default preset)" in found
    assert found.endswith(
        "By its MSE on the test clips it is better than CNN (default) and LSTM2 (seed); it is tied with LSTM1 (default)."
    )
    worse = _results(comparisons=[_comparison(CHOSEN, ("CNN", "seed"), "worse")])
    assert sentences.chosen_against_others(worse).endswith("it is worse than CNN (seed).")
    three = [_comparison(CHOSEN, (name, "seed"), "tie") for name in ("A", "B", "C")]
    found = sentences.chosen_against_others(_results(comparisons=three))
    assert found.endswith("it is tied with A (seed), B (seed) and C (seed).")
    assert "better" not in found


def test_standardising_is_told_from_either_side_of_the_comparison():
    found = sentences.standardising(_results(), "LSTM2", "default")
    assert "a test MSE of 0.500 with the default preset and of 0.700 with the seed preset" in found
    assert "(CCC 0.400 and 0.010)" in found
    assert "standardising makes it **better**; the MSE differs by −0.200 [−0.300, −0.100]" in found
    # The chosen model is the one on raw decibels: the comparison was made the other way round.
    turned = _comparison(("LSTM2", "seed"), CHOSEN, "better", difference=-0.2, low=-0.3, high=-0.1)
    found = sentences.standardising(_results(comparisons=[turned]), "LSTM2", "default")
    assert "standardising makes it **worse**; the MSE differs by 0.200 [0.100, 0.300]" in found


def test_standardising_that_ties_or_was_not_done():
    found = sentences.standardising(_results(), "CNN", "default")
    assert "the two are a **tie**; the MSE differs by 0.000 [−0.100, 0.100]" in found
    beside = [_comparison(("CNN", "default"), ("CNN", "seed"), "tie", difference=0.1, low=0.01, high=0.2)]
    found = sentences.standardising(_results(comparisons=beside), "CNN", "default")
    assert "the two are a **tie**, corrected for how many were compared; the MSE differs by 0.100" in found
    assert sentences.standardising(_results(), "CNN", "seed") == "CNN was trained on raw decibels alone."


def test_a_comparison_that_was_not_made_is_refused():
    rows = [*_results()["rows"], _row("LSTM1", "default", "test"), _row("LSTM1", "seed", "test")]
    with pytest.raises(RunError, match="holds no comparison of"):
        sentences.standardising(_results(rows=rows), "LSTM1", "default")


RATERS = {"raters": 3, "clips": 100, "mse": 0.36, "ccc": 0.78, "noise_variance": 0.08}


def _as_a_rater(preset, mse, verdict):
    scores = {"mse": mse, "ccc": 0.7, "against": _difference(verdict), "rater": {"mse": 0.36, "ccc": 0.78}}
    return {"model": "LSTM2", "preset": preset} | scores


def test_the_chosen_model_is_held_against_what_a_single_rater_is_held_against():
    rated = [_as_a_rater("default", 0.45, "better")]
    found = sentences.against_ceiling(_results(raters=RATERS, as_a_rater=rated))
    assert "One human rater against the mean of the others has an MSE of 0.360 and a CCC of 0.780" in found
    assert (
        "(default preset) has an MSE of 0.450 and a CCC of 0.700: **better** than a rater, 0.100 [0.050"
        in found
    )
    assert "variance of 0.080" in found
    assert "simulated" not in found


def test_simulated_raters_are_called_simulated_and_the_lowest_mse_is_told():
    rated = [_as_a_rater("default", 0.45, "worse")]
    found = sentences.against_ceiling(
        _results(raters=RATERS, as_a_rater=rated, synthetic=True, lowest_mse=0.2)
    )
    assert "One simulated rater" in found
    assert "human" not in found
    assert found.endswith("0.200. The chosen model's is 2.5 times that.")


def test_without_raters_there_is_no_ceiling_and_where_no_tested_clip_has_two_ratings_none_to_be_held_against():
    assert sentences.against_rater(_results(raters=RATERS)) == ""
    assert "variance of 0.080" in sentences.against_ceiling(_results(raters=RATERS))
    found = sentences.against_ceiling(_results())
    assert "no rater ceiling" in found
    assert "lowest" not in found


def _extremes(lowest, highest):
    return {
        name: {"n": 20, "truth": truth, "prediction": prediction, "mse": 0.1}
        for name, truth, prediction in (("lowest", 1.5, lowest), ("highest", 4.5, highest))
    }


def test_regression_to_the_mean_is_told_with_what_is_kept():
    found = sentences.at_extremes(_extremes(2.5, 3.4))
    assert "(20 clips, mean rating 1.50) is predicted at 2.50" in found
    assert "(20 clips, 4.50) at 3.40." in found
    assert found.endswith("regresses to the mean: it keeps 30% of the distance between the two.")


@pytest.mark.parametrize(
    ("lowest", "highest", "said"),
    [
        (1.2, 3.4, "does not shrink both ends towards the middle."),
        (2.5, 4.9, "does not shrink both ends towards the middle."),
        (3.0, 3.0, "The model does not tell the two ends apart."),
        (3.4, 2.5, "The model does not tell the two ends apart."),
    ],
)
def test_nothing_else_is_called_regression(lowest, highest, said):
    found = sentences.at_extremes(_extremes(lowest, highest))
    assert f"(20 clips, 4.50) at {highest:.2f}." in found
    assert found.endswith(said)
    assert "regresses" not in found


@pytest.mark.parametrize(
    ("chance", "said"),
    [
        (0.001, "the groups differ by more than luck (permutation test of 3 groups, p ≤ 0.001)."),
        (0.049, "the groups differ by more than luck (permutation test of 3 groups, p = 0.049)."),
        (0.05, "that much may be luck (permutation test of 3 groups, p = 0.050)."),
    ],
)
def test_groups_differ_only_where_luck_cannot_explain_it(chance, said):
    # The intervals of best and worst lie apart in every case: of many groups, two always may.
    groups = pd.DataFrame(
        [["S1", 0.9, 0.8, 1.1], ["S2", 0.6, 0.5, 0.7], ["S3", 0.3, 0.2, 0.5]],
        columns=["group", "mse", "low", "high"],
    )
    assert sentences.by_group(groups, chance, "speaker") == (
        f"By speaker, the MSE runs from 0.300 (S3) to 0.900 (S1); {said}"
    )


def test_presets_are_told_where_they_were_used_and_no_others():
    assert sentences.presets(_results()) == (
        "The presets differ in one thing alone: the **default** preset brings every column of the input to mean 0 and "
        "deviation 1 by the training clips' statistics; the **seed** preset feeds raw decibels, as the course report does."
    )
    alone = _results(rows=[_row("mean", None, "test"), _row("CNN", "seed", "test")])
    assert sentences.presets(alone) == (
        "One preset was used: the **seed** preset feeds raw decibels, as the course report does."
    )
    rows = [_row("CNN", preset, "test") for preset in ("default", "encoder")]
    found = sentences.presets(_results(rows=rows))  # which differ in more than one thing
    assert found.startswith("Of the presets, the **default** preset brings")
    assert "in one thing alone" not in found


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in ABLATIONS])
def test_every_preset_of_a_row_can_be_told(preset):
    rows = [_row("mean", None, "test"), _row("CNN", preset, "test")]
    found = sentences.presets(_results(rows=rows, tuning=BEST))
    assert found.startswith(f"One preset was used: the **{preset}** preset ")
    # What standardises by held-out audio says so.
    assert ("held-out" in found) == (preset == "speaker")


BEST = {
    "model": "CNN",
    "changes": {"learning_rate": 0.0042, "batch_size": 8, "standardise": "clip"},
    "trial": 7,
    "validation_mse": 0.4321,
    "trials": 20,
    "pruned": 9,
}
TUNED = "The **tuned** preset is the best of 20 trials of a sweep over hyperparameters (9 of them pruned), chosen by its MSE on the validation clips, 0.432 in trial 7: CNN with learning rate 0.0042, batch size 8, standardise clip."  # fmt: skip


def test_a_tuned_row_says_where_it_comes_from():
    assert sentences.tuned(BEST) == TUNED
    assert sentences.tuned({**BEST, "changes": {}}).endswith("CNN with nothing changed.")
    results = _results(tuning=BEST)
    results["rows"] = [*results["rows"], _row("CNN", "tuned", "test")]
    untuned = sentences.presets(_results())
    assert sentences.presets(results) == f"{untuned} {TUNED}"
    # What was asked for is still said to differ in one thing alone; the tuned preset, which does not, comes after it.
    assert untuned.startswith("The presets differ in one thing alone")


def test_a_tuned_model_is_held_against_itself_untuned():
    rows = [
        _row("mean", None, "test", 0.7),
        _row("CNN", "default", "test", 0.6),
        _row("CNN", "tuned", "test", 0.5),
    ]
    comparisons = [_comparison(("CNN", "tuned"), ("CNN", "default"), "better")]
    found = sentences.tuning(_results(rows=rows, comparisons=comparisons, tuning=BEST))
    assert "tuning makes it **better**" in found
    assert "0.500 with the tuned preset and of 0.600 with the default preset" in found


def _worst(*speakers):
    return [{"speaker": speaker, "truth": 1.0, "prediction": n} for n, speaker in enumerate(speakers)]


def test_worst_clips_by_direction_and_speaker():
    found = sentences.of_worst(_worst("A", "B", "A", "C", "A"))
    assert found.startswith("Of the 5 worst clips, 3 came out too high and 2 too low")
    assert found.endswith("speaker A speaks 3 of them, more than all others together.")
    found = sentences.of_worst(_worst("A", "B", "A", "C"))
    assert found.endswith("speaker A speaks 2 of them.")
    found = sentences.of_worst(_worst("", "", "", ""))
    assert found == "Of the 4 worst clips, 2 came out too high and 2 too low."


def _conditions(**verdicts):
    rows = [{"condition": "as recorded", "metric": "mse", "score": 0.4, "verdict": ""}]
    rows += [{"condition": name, "metric": "mse", "score": 0.5, "verdict": v} for name, v in verdicts.items()]
    change = {"n": 500, "difference": 0.1, "difference_low": 0.05, "difference_high": 0.15}
    return pd.DataFrame(
        [row | change for row in rows] + [rows[-1] | change | {"metric": "ccc", "verdict": "better"}]
    )


def test_conditions_that_hurt_are_told_from_ties():
    found = sentences.robust(_conditions(noise="worse", telephone="tie", MP3="worse"))
    assert found == (
        "On 500 clips, as recorded, the MSE is 0.400. Against that, in pairs of the same clips, it is **worse** with "
        "noise (0.100 [0.050, 0.150]) and MP3 (0.100 [0.050, 0.150]); it differs by no more than luck (a **tie**) with "
        "telephone (0.100 [0.050, 0.150])."
    )
    assert "is **better** with noise" in sentences.robust(_conditions(noise="better"))
    found = sentences.robust(_conditions(noise="tie"))
    assert "no condition changes it by more than luck: it is a tie with noise" in found
    assert "worse" not in found


def _differences(other="the rest", **verdicts):
    row = {"other": other, "metric": "mse", "difference": 0.1, "low": 0.05, "high": 0.15}
    return pd.DataFrame([row | {"group": group, "verdict": verdict} for group, verdict in verdicts.items()])


def test_groups_that_are_predicted_worse_are_told_from_ties_and_from_the_too_small():
    found = sentences.fair(_differences(joy="worse", anger="tie", fear=TOO_SMALL, calm="worse"), "emotion")
    assert found == (
        "By emotion and its MSE, joy (0.100 [0.050, 0.150]) and calm (0.100 [0.050, 0.150]) are predicted **worse** than "
        "the rest; anger (0.100 [0.050, 0.150]) is tied with the rest; of fear against the rest there is too little to say: "
        "fewer than 5 speakers or 50 clips on one side. Each interval stands alone: of twenty such, one excludes 0 by luck."
    )


def test_two_groups_are_held_against_each_other():
    found = sentences.fair(_differences("M", F="better"), "sex")
    assert found.startswith(
        "By sex and its MSE, F (0.100 [0.050, 0.150]) is predicted **better** than M. Each"
    )
    assert "F (0.100 [0.050, 0.150]) is tied with M." in sentences.fair(_differences("M", F="tie"), "sex")
    small = _differences("M", F=TOO_SMALL)  # by both metrics, which is said once
    found = sentences.fair(pd.concat([small, small.assign(metric="ccc")]), "sex")
    assert found.startswith("By sex, of F against M there is too little to say") and found.count("F") == 1


def test_a_group_may_be_predicted_better_by_one_metric_and_worse_by_the_other():
    both = pd.concat([_differences(calm="better"), _differences(calm="worse").assign(metric="ccc")])
    found = sentences.fair(both, "emotion")
    assert (
        "By emotion and its CCC, calm (0.100 [0.050, 0.150]) is predicted **worse** than the rest." in found
    )
    assert (
        "Where all ratings of a group lie close together, its CCC is low however small the errors are."
        in found
    )
    tied = sentences.fair(_differences(calm="tie", joy="tie"), "emotion")
    assert "lie close together" not in tied and "luck" not in tied


def test_what_the_error_depends_on():
    quarters = _differences(**{"above 3": "worse", "up to 2": "better", "2 to 3": "tie"}).assign(
        kind="rating"
    )
    assert sentences.depends(quarters) == (
        "By MSE it is worse with rating above 3 (0.100 [0.050, 0.150]); it is better with rating up to 2 (0.100 [0.050, 0.150])."
    )
    assert sentences.depends(_differences(a="tie").assign(kind="level")).startswith("None of them differs")


def test_many_groups_too_small_are_counted_and_none_is_nothing_to_compare():
    many = _differences(**{f"S{i}": TOO_SMALL for i in range(9)})
    assert "of 9 of the 9 groups against the rest there is too little to say" in sentences.fair(
        many, "speaker"
    )
    none = pd.DataFrame(columns=["metric"])
    assert sentences.fair(none, "sex") == "By sex, there are not two groups to compare."


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.3, "their mean errs **more** where they disagree"),
        (-0.3, -0.1, "their mean errs **less** where they disagree"),
        (-0.1, 0.3, "says **nothing** of the error of their mean"),
    ],
)
def test_disagreement_is_a_warning_only_where_the_interval_says_so(low, high, said):
    found = sentences.disagreeing(Disagreement(np.array([0.1, 0.2, 0.9]), np.zeros(3), 0.2, low, high), 4)
    assert found.startswith(
        "Over 3 clips, the predictions of 4 models have a standard deviation of 0.20 rating points"
    )
    assert said in found


# The leakage analysis, the ablation table, calibration, raters


def _difference(verdict, difference=0.1):
    return {"difference": difference, "low": difference - 0.05, "high": difference + 0.05, "verdict": verdict}


def _leakage(pseudo=False, clips=96, **whys):
    """Content of results["leakage"] in which each design differs by more, or has the reason why it is not there."""
    rows = []
    for name in ("speaker", "random", "sentence", "both"):
        why, verdict = whys.get(name, ""), {"random": "better", "both": "better"}.get(name, "tie")
        against = None if name == "speaker" else dict.fromkeys(("mse", "ccc"), _difference(verdict))
        row = {"design": name, "why": why}
        rows.append(row if why else row | {"mse": 0.5, "ccc": 0.6, "n": clips, "against": against})
    about = {"model": "SVR", "preset": "default", "rated": 96, "clips": clips, "pseudo": pseudo}
    return {"leakage": about | {"designs": rows}}


def test_what_shares_speakers_is_inflated_and_what_shares_nothing_is_not():
    found = sentences.leakage(_leakage())
    assert found.startswith(
        "On folds by speakers, SVR (default preset), the best on validation clips of the models that are fitted in one step, "
        "has an MSE of 0.500 and a CCC of 0.600 on 96 clips. With clips dealt at random"
    )
    assert "share speakers and sentences, its CCC is 0.600: **inflated**, 0.100 [0.050, 0.150]; its" in found
    assert "but no shared sentence, its CCC is 0.600: a **tie** with that, 0.100" in found
    assert "and fewer training clips, its CCC is 0.600: higher, 0.100" in found
    worse = _leakage()
    worse["leakage"]["designs"][1]["against"] = dict.fromkeys(("mse", "ccc"), _difference("worse"))
    assert "its CCC is 0.600: lower, 0.100" in sentences.leakage(worse)
    found = sentences.leakage(_leakage(pseudo=True, clips=50))
    assert "On folds by clusters of voices, which take the place of speakers, SVR" in found
    assert "on 50 clips drawn at random." in found


def test_a_design_that_a_corpus_does_not_allow_says_why():
    why = "Not every clip names its sentence."
    found = sentences.leakage(_leakage(sentence=why, both=why))
    assert found.endswith("training clips: not measured, since not every clip names its sentence.")
    alone = sentences.leakage(_leakage(speaker="Too few.", both="Too few."))
    assert alone == "The effect of shared speakers could not be measured: Too few."


def _line(name, added, mse, ccc):
    return {"words": name, "added": added, "preset": name} | {
        "mse": _difference(mse),
        "ccc": _difference(ccc, -0.1),
    }


def test_the_ablation_tells_what_matters_from_ties():
    lines = [
        _line("masks", False, "tie", "worse"),
        _line("voice", False, "tie", "tie"),
        _line("noise", False, "better", "tie"),
        _line("trees", True, "better", "better"),
        _line("clouds", True, "tie", "tie"),
    ]
    assert sentences.ablation({"ablation": lines}) == (
        "Without masks, the best model is **worse** by MSE or CCC. Without noise, it is **better** by MSE or CCC. Without "
        "voice, it is a **tie**. With trees, it is **better** by MSE or CCC. With clouds, it is not shown to be better."
    )
    assert sentences.ablation({"ablation": lines[1:2]}) == "Without voice, it is a **tie**."


def test_both_proposals_of_the_course_report_are_told_with_their_results():
    assert sentences.proposals_tried(_results(ablation=[])) == "`PRESET=best` tries both."
    hybrid, chosen = ("CNNLSTM", "default"), ("GaussianProcess", "default")
    results = _results(
        chosen=dict(zip(("model", "preset"), chosen, strict=True)),
        ablation=[_line("without-voice", False, "tie", "worse")],
        rows=[_row("mean", None, "test"), _row(*hybrid, "validation", 0.8), _row(*hybrid, "test", 0.7, 0.2)],
        comparisons=[
            _comparison(chosen, hybrid, "better"),
            _comparison(chosen, hybrid, "tie", "ccc", 0.02, -0.01, 0.05),
        ],
    )
    assert sentences.proposals_tried(results) == (
        "GaussianProcess takes pitch, volume and intensity as statistics of each clip; without these, it is a **tie** by MSE "
        "(0.100 [0.050, 0.150]) and **worse** by CCC (−0.100 [−0.150, −0.050]). **CNNLSTM** has an MSE of 0.700 and a CCC of "
        "0.200; against it, GaussianProcess is **better** by MSE (−0.100 [−0.200, −0.050]) and a **tie** by CCC (0.020 "
        "[−0.010, 0.050])."
    )
    # The hybrid is not compared with itself.
    itself = results | {"chosen": dict(zip(("model", "preset"), hybrid, strict=True))}
    assert "CNNLSTM" not in sentences.proposals_tried(itself)


@pytest.mark.parametrize(
    ("slope", "said"),
    [
        (1.3, "lie too close to their mean"),
        (1.1, "may lie as far apart as they should"),
        (0.6, "lie too far apart"),
    ],
)
def test_predictions_are_called_shrunk_or_stretched_by_their_slope(slope, said):
    optima = {"mse": {"scale": slope, "mse": 0.4, "ccc": 0.5}, "ccc": {"scale": 1.5, "mse": 0.5, "ccc": 0.6}}
    made = {"slope": slope, "slope_interval": [slope - 0.2, slope + 0.2], "bias": 0.02, "kept": 0.444}
    found = sentences.calibrated(_results(calibration=made | {"optima": optima}))
    assert f"by MSE, the predictions {said}. They keep 44% of the ratings' differences, the less" in found
    assert f"{slope:.2f} [{slope - 0.2:.2f}, {slope + 0.2:.2f}] points between the ratings" in found
    assert "by 1.50, the highest CCC, 0.600 (MSE 0.500)" in found


def test_coverage_is_told_in_percent_and_nothing_is_told_of_too_few_clips():
    found = {"half_width": 1.104, "width": 2.208, "confidence": 0.9, "coverage": 0.899, "n": 1800}
    found |= {"interval": [0.87, 0.93], "lowest": 0.91, "highest": 0.744}
    told = sentences.covered({"intervals_coverage": found, "resampled": "speaker"})
    assert told.startswith("An interval of ±1.10 points around a prediction is to hold 90% of new clips.")
    assert told.endswith(
        "hold 89.9% of the 1,800 clips [87.0%, 93.0%]: of the lowest-rated fifth 91%, of the highest-rated 74%."
    )
    assert "too few" in sentences.covered({"intervals_coverage": None})


def test_two_seeds_are_told_to_tie_or_to_differ():
    verdicts = {(3, 4): "tie", (3, 5): "better", (4, 5): "worse"}
    pairs = [{"seeds": pair, "mse": _difference(verdict)} for pair, verdict in verdicts.items()]
    found = sentences.seeds_compared(_results(seeds_compared=pairs))
    assert "3 and 4 (a **tie**, 0.100 [0.050, 0.150]); 3 and 5 (the first is **better**, 0.100" in found
    assert "; 4 and 5 (the second is **better**, 0.100" in found
    assert "trained once" in sentences.seeds_compared(_results(seeds_compared=[]))
    fitted = {"chosen": {"model": "SVR", "preset": "default"}, "seeds_compared": []}
    assert "chance plays no part" in sentences.seeds_compared(fitted)


def test_every_model_is_held_against_the_mean():
    rows = [
        _row(model, "default", "test", against={"verdict": verdict})
        for model, verdict in (("CNN", "better"), ("LSTM1", "tie"), ("SVR", "better"), ("LSTM2", "worse"))
    ]
    assert sentences.against_the_mean(_results(rows=rows)) == (
        "Against predicting the training mean, each judged alone by its MSE, **better** are CNN (default) and SVR (default); "
        "a **tie** is LSTM1 (default); **worse** is LSTM2 (default)."
    )


def test_what_is_not_installed_is_named_with_the_command_that_installs_it():
    assert sentences.left_out([]) == ""
    encoder = {"package": "resemblyzer", "command": "make encoder"}
    opensmile = {"package": "opensmile", "command": "pip install opensmile"}
    needs = [
        ("EgemapsSVR", opensmile),
        *((model, encoder) for model in ("GaussianProcess", "GaussianProcess", "Other")),
    ]
    missing = [{"model": model} | package for model, package in needs]
    assert sentences.left_out(missing) == (
        "Left out, since what they need is not installed: EgemapsSVR, which needs opensmile (`pip install opensmile`); "
        "GaussianProcess and Other, which need resemblyzer (`make encoder`)."
    )


def test_agreement_is_told_where_there_are_raters_and_reliability_where_all_judged_the_same():
    raters = {"raters": 3, "clips": 1200, "alpha": 0.9, "icc_2k": 0.85}
    assert sentences.agreement({"raters": raters}).startswith(
        "3 raters judged 1,200 clips. The reliability of their mean is 0.900 by Cronbach's alpha and 0.850 by ICC(2,k)"
    )
    assert "is not known" in sentences.agreement({"raters": raters | {"alpha": None}})
    assert sentences.agreement({"raters": None}) == ""
