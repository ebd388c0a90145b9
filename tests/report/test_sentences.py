"""Sentences of the report: verdicts, warnings and numbers follow results.json."""

import numpy as np
import pandas as pd
import pytest

from valence_lib.evaluation.groups import Disagreement
from valence_lib.registry import ABLATIONS, PRESETS
from valence_lib.report.sentences import analysis, data, method, scores
from valence_lib.report.wording import scale_of
from valence_lib.settings import Target

CHOSEN = ("LSTM2", "default")


def _difference(verdict, difference=0.1):
    return {"difference": difference, "low": difference - 0.05, "high": difference + 0.05, "verdict": verdict}


def _comparison(second, verdict, first=CHOSEN, metric="mse"):
    return {"metric": metric, "first": list(first), "second": list(second)} | _difference(verdict)


def _row(model, preset, subset, mse=0.5, ccc=0.4, verdict=None):
    return {
        "model": model,
        "preset": preset,
        "subset": subset,
        "n": 1200,
        "mse": mse,
        "ccc": ccc,
        "against_mean": verdict and _difference(verdict, -0.2),
        "intervals": {"mse": [mse - 0.1, mse + 0.1], "ccc": [ccc - 0.1, ccc + 0.1]},
        "standardise": {None: "none", "course": "none", "speaker": "speaker"}.get(preset, "train"),
    }


CORPUS = {"name": "a_b", "clips": 1200, "scale": [1, 5], "source": "", "terms": "", "citation": ""}
AROUSAL, WARMTH = Target("arousal", 1, 7), Target("vocal_warmth", 0, 100)
MEAN = _row("mean", None, "test", 0.7, 0.0)


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
            "tested_alone": [],
            "unnamed": 0,
            "shared_speakers": [],
            "subsets": {
                "test": {"clips": 1200, "speakers": 10},
                "train": {"clips": 3600, "speakers": 15},
                "validation": {"clips": 1201, "speakers": 5},
            },
        },
        "as_a_rater": [],
        "corpora": [CORPUS],
        "near_duplicates": {"pairs": 0, "across_subsets": 0, "listed": []},
        "chosen": {"model": "LSTM2", "preset": "default", "run": "LSTM2-default-0"},
        "comparisons": [
            _comparison(("LSTM1", "default"), "tie"),
            _comparison(("LSTM1", "default"), "better", metric="ccc"),
            _comparison(("CNN", "default"), "better"),
            _comparison(("CNN", "course"), "worse", first=("CNN", "default")),
        ],
        "rows": [MEAN, _row("LSTM2", "default", "test", verdict="better"), _row("CNN", "course", "test")],
    }
    return results | changes


def _split(**changes):
    return {"split": _results()["split"] | changes}


# The target


@pytest.mark.parametrize(
    ("target", "title", "subject", "scale"),
    [
        (
            Target(),
            "emotional valence",
            "how positive or negative a speaker sounds",
            "(negative) to 5 (positive)",
        ),
        (AROUSAL, "emotional arousal", "how excited or calm a speaker sounds", "(calm) to 7 (excited)"),
        (
            Target("dominance"),
            "emotional dominance",
            "how dominant or submissive a speaker sounds",
            "(submissive) to 5 (dominant)",
        ),
        (WARMTH, r"vocal_warmth", r"vocal_warmth", "(low) to 100 (high)"),
    ],
)
def test_the_title_the_subject_and_the_scale_are_those_of_the_target(target, title, subject, scale):
    assert data.title(target) == f"Predicting {title} from speech"
    assert data.subject(target) == (
        f"This report predicts {subject}, as a number, from the sound of a short clip."
    )
    assert scale_of(target) == f"{target.low:g} {scale}"


def test_features_were_selected_on_valence_which_reports_on_other_targets_state():
    assert "were selected by cross-validation on EmoTale" in method.gaussian_process(Target())
    assert "were selected by cross-validation of valence on EmoTale" in method.gaussian_process(AROUSAL)


# The corpus


def test_a_corpus_that_states_nothing_has_no_sentence_but_several_have_their_scales():
    assert data.corpora({"corpora": [CORPUS]}) == []
    other = CORPUS | {"name": "c", "clips": 7, "scale": [-1, 1.5]}
    assert data.corpora({"corpora": [CORPUS, other]}) == [
        r"The corpus a_b has 1,200 clips, rated from 1 to 5.",
        "The corpus c has 7 clips, rated from -1 to 1.5.",
    ]


def test_a_corpus_has_the_source_the_terms_and_the_citation_that_it_states():
    stated = {"source": "https://example.org/a_b", "citation": "Ann (2024).\n  A corpus.", "terms": "CC0"}
    assert data.corpora({"corpora": [CORPUS | stated]}) == [
        r"The corpus a_b has 1,200 clips, rated from 1 to 5. Source: <https://example.org/a_b>. Terms: CC0. "
        r"Citation: Ann (2024). A corpus."
    ]


def test_a_speaker_independent_split_with_ten_test_speakers_needs_no_warning():
    assert data.warnings(_results()) == []


FEW = {"test": {"clips": 100, "speakers": 9}}
NONE = {"test": {"clips": 100, "speakers": 0}}
NEAR = {"pairs": 7, "across_subsets": 2, "listed": [{"first": "a", "second": "b", "similarity": 0.9}] * 7}


@pytest.mark.parametrize(
    ("changes", "title", "text"),
    [
        (
            {"synthetic": True, "description": "A voice."},
            "Synthetic corpus.",
            "A voice. The results do not",
        ),
        (_split(subsets=FEW), "Few speakers.", "The test clips come from 9 speakers."),
        (
            {"near_duplicates": NEAR},
            "Near-duplicates.",
            "7 pairs of clips are almost the same recording (a and",
        ),
        (_split(shared_speakers=list("ABCDEFG")), "Shared speakers.", "share 7 speakers (A, B, C, D, E…)."),
        (
            {"speakers": 0} | _split(by="random", unnamed=300, subsets=NONE),
            "Speakers may leak.",
            "The corpus does not name its speakers, and the split is random.",
        ),
        (
            _split(by="corpus", unnamed=1234),
            "Speakers may leak.",
            "The corpus names no speaker for 1,234 clips, and the split is that of the corpus.",
        ),
    ],
)
def test_limits_of_the_corpus_are_warned_of(changes, title, text):
    (found,) = data.warnings(_results(**changes))
    assert found.startswith(f"**{title}** ")
    assert text in found


def test_a_holdout_has_the_sizes_of_its_subsets_in_order():
    assert data.split(_results()) == (
        "The clips are split by speaker; no speaker is in two subsets: 3,600 training clips (15 speakers), "
        "1,201 validation clips (5 speakers) and 1,200 test clips (10 speakers)."
    )
    subsets = {name: {"clips": 5, "speakers": 0} for name in ("unlabelled", "test", "validation", "train")}
    assert data.split(_results(**_split(by="random", unnamed=15, subsets=subsets))) == (
        "The clips are split at random: 5 training clips, 5 validation clips, 5 test clips and 5 unlabelled "
        "clips."
    )
    given = data.split(_results(**_split(given=["test"])))
    assert "by speaker, except for test, which the corpus defines; no speaker is in two subsets:" in given


def test_a_cross_validation_has_its_folds():
    subsets = {"out_of_fold": {"clips": 1200, "speakers": 12}}
    found = data.split(_results(**_split(protocol="cv", folds=6, subsets=subsets)))
    assert found.startswith(
        "The 1,200 rated clips of 12 speakers are split into 6 folds by speaker. Each fold"
    )


def test_the_reliability_of_the_mean_rating_needs_clips_that_all_raters_rated():
    raters = {"raters": 3, "clips": 1200, "alpha": 0.9, "icc_2k": 0.85}
    assert data.agreement({"raters": raters}).startswith(
        "3 raters rated 1,200 clips. The reliability of their mean is 0.900 (Cronbach's alpha) and 0.850 "
        "(ICC(2,k)"
    )
    assert "is unknown" in data.agreement({"raters": raters | {"alpha": None}})
    assert data.agreement({"raters": None}) == ""


# Models and presets

BEST = {
    "model": "CNN",
    "changes": {"learning_rate": 0.0042, "batch_size": 8},
    "trial": 7,
    "validation_mse": 0.4321,
    "trials": 20,
    "pruned": 9,
}


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in ABLATIONS])
def test_every_preset_of_a_row_is_described(preset):
    found = method.presets(_results(rows=[MEAN, _row("CNN", preset, "test")], tuning=BEST))
    assert f"**{preset}**" in found
    assert ("held-out clips included" in found) == (preset == "speaker")


def test_the_tuned_preset_has_its_trial_and_settings():
    assert method.tuned(BEST) == (
        "The **tuned** preset is the best of 20 trials of a hyperparameter search (9 pruned). Trial 7 has "
        "the lowest validation MSE, 0.432: CNN with learning rate 0.0042, batch size 8."
    )


def test_models_without_their_package_are_listed_with_the_command():
    assert method.left_out([]) == ""
    encoder = {"package": "resemblyzer", "command": "make encoder"}
    missing = [
        {"model": "EgemapsSVR", "package": "opensmile", "command": "pip install opensmile"},
        *({"model": model} | encoder for model in ("GaussianProcess", "GaussianProcess", "Other")),
    ]
    assert method.left_out(missing) == (
        "Not trained, because a package is not installed: EgemapsSVR (needs opensmile: `pip install "
        "opensmile`); GaussianProcess and Other (needs resemblyzer: `make encoder`)."
    )


def test_the_drawn_network_is_the_chosen_one_or_the_best():
    rows = [_row("LSTM2", "default", "validation", 0.4), _row("CNN", "course", "validation", 0.5)]
    rows.append(_row("Ridge", "default", "validation", 0.3))
    chosen = {"model": "CNN", "preset": "course"}
    assert method.network_of(_results(rows=rows, chosen=chosen)) == ("CNN", "the chosen model")
    model, why = method.network_of(_results(rows=rows, chosen=chosen | {"model": "Ridge"}))
    assert (model, why.endswith("(Ridge is not a neural network)")) == ("LSTM2", True)


# Scores


def test_the_chosen_model_is_compared_with_the_mean():
    assert scores.against_mean(_results()) == (
        "On the 1,200 test clips, LSTM2 (default preset) is **better** than predicting the training mean: "
        "its MSE is 0.500 instead of 0.700, difference −0.200 [−0.250, −0.150]."
    )
    tie = _results(rows=[MEAN, _row("LSTM2", "default", "test", verdict="tie")])
    assert "shows **no significant difference** from predicting" in scores.against_mean(tie)


def _as_a_rater(model, preset, verdict):
    rater = {"mse": 0.36, "ccc": 0.78}
    own = {"model": model, "preset": preset, "mse": 0.45, "ccc": 0.7}
    return own | {"against": _difference(verdict), "rater": rater}


def test_the_main_result_compares_the_chosen_model_with_the_best_by_speaker_and_a_rater():
    results = _results()
    alone = scores.main_result(results)
    assert alone == f"{scores.against_mean(results)} Its CCC is 0.400 [0.300, 0.500]."
    for model, validated in (("CNN", 0.2), ("LSTM1", 0.3)):
        results["rows"].append(_row(model, "speaker", "validation", validated))
        results["rows"].append(_row(model, "speaker", "test", 0.3))
        results["comparisons"].append(_comparison((model, "speaker"), "worse"))
    results["as_a_rater"] = [_as_a_rater("LSTM2", "default", "worse"), _as_a_rater("CNN", "speaker", "tie")]
    assert scores.main_result(results) == alone + (
        " The speaker preset standardises over all clips of each speaker, so it needs other recordings of "
        "the same person (†). With it, CNN has an MSE of 0.300 and a CCC of 0.400. The chosen model compared "
        "with it: **worse**, MSE difference 0.100 [0.050, 0.150]. Compared with the mean of the other "
        "raters, a single human rater has an MSE of 0.360 and a CCC of 0.780 on these clips. By the same "
        "comparison, LSTM2 (default preset) has an MSE of 0.450 and a CCC of 0.700 (**worse**, MSE "
        "difference 0.100 [0.050, 0.150]) and CNN (speaker preset) has an MSE of 0.450 and a CCC of 0.700 "
        "(**no significant difference**, MSE difference 0.100 [0.050, 0.150])."
    )
    assert "a single simulated rater" in scores.main_result(results | {"synthetic": True})


def test_the_chosen_model_is_compared_with_all_others():
    others = [("LSTM1", "default"), ("CNN", "default"), ("CNN", "course"), ("SVR", "default")]
    verdicts = ("tie", "better", "better", "worse")
    results = _results(comparisons=[_comparison(*one) for one in zip(others, verdicts, strict=True)])
    assert scores.chosen_against_others(results) == (
        "The chosen model is LSTM2 (default preset). Its validation MSE, averaged over seeds, is the lowest. "
        "By Holm-adjusted p < 0.05, its test MSE is **significantly lower** than that of CNN (default) and "
        "CNN (course); **not significantly different** from that of LSTM1 (default); **significantly "
        "higher** than that of SVR (default)."
    )
    results["rows"].append(_row("LSTM2", "speaker", "test", 0.3))
    lowest = "is the lowest of the models that are not standardised by speaker."
    assert lowest in scores.chosen_against_others(results)


def test_every_model_is_compared_with_the_mean():
    rows = [MEAN, *(_row(model, "default", "test", verdict="better") for model in ("CNN", "SVR"))]
    assert scores.models_against_mean(_results(rows=rows)) == (
        "MSE compared with predicting the training mean (unadjusted p < 0.05): **better**: CNN (default) and "
        "SVR (default)."
    )


def _leakage(random="better", pseudo=False, clips=96, **whys):
    """results.json with a leakage analysis; `whys` are the reasons of groupings that are missing."""
    rows = []
    for name in ("speaker", "random", "sentence", "both"):
        against = None if name == "speaker" else {"ccc": _difference(random)}
        own = {} if name in whys else {"mse": 0.5, "ccc": 0.6, "n": clips, "against": against}
        rows.append({"grouping": name, "why": whys.get(name, "")} | own)
    about = {"model": "SVR", "preset": "default", "rated": 96, "clips": clips, "pseudo": pseudo}
    return {"leakage": about | {"groupings": rows}}


def test_the_leakage_analysis_reports_random_folds_clusters_samples_and_missing_folds():
    found = scores.leakage(_leakage())
    assert found.startswith("The reference is SVR (default preset) on folds by speaker.")
    assert found.endswith("speakers, the CCC is 0.600: **inflated**, difference 0.100 [0.050, 0.150].")
    assert "the CCC is 0.600: **lower**" in scores.leakage(_leakage("worse"))
    found = scores.leakage(_leakage(pseudo=True, clips=50))
    assert "on folds by speaker, which are clusters of voices here." in found
    assert "on 50 clips drawn at random." in found
    why = "Not every clip names its sentence."
    found = scores.leakage(_leakage(sentence=why, both=why))
    assert found.endswith("Some folds could not be made: Not every clip names its sentence.")
    alone = scores.leakage(_leakage(speaker="Too few.", both="Too few."))
    assert alone == "The effect of shared speakers could not be measured: Too few."


def test_calibration_follows_the_interval_of_the_slope():
    found = {"slope": 1.3, "slope_interval": [1.1, 1.5], "bias": 0.02, "kept": 0.444}
    assert scores.calibrated(_results(calibration=found)) == (
        "The slope of the ratings on the predictions of `LSTM2-default-0` is 1.30 [1.10, 1.50], where 1 is "
        "calibrated: the predictions are too close to their mean. They retain 44% of the ratings' "
        "differences. Their bias is 0.02 points."
    )
    found["slope_interval"] = [0.9, 1.5]
    assert "**not significantly miscalibrated**" in scores.calibrated(_results(calibration=found))
    found["slope_interval"] = [0.4, 0.8]
    assert "too far from their mean" in scores.calibrated(_results(calibration=found))


def test_coverage_is_in_percent():
    found = {"half_width": 1.104, "confidence": 0.9, "coverage": 0.899, "n": 1800}
    found |= {"interval": [0.87, 0.93], "lowest": 0.91, "highest": 0.744}
    assert scores.covered({"intervals_coverage": found, "resampled": "speaker"}) == (
        "A prediction interval of ±1.10 points is meant to contain 90% of new clips. Intervals for each "
        "speaker from the errors of all others contain 89.9% [87.0%, 93.0%] of the 1,800 clips: 91% of the "
        "lowest-rated fifth and 74% of the highest-rated fifth."
    )
    assert "too few" in scores.covered({"intervals_coverage": None})


# The error analysis


@pytest.mark.parametrize(
    ("lowest", "highest", "text"),
    [
        (2.5, 3.4, "The predictions regress to the mean: they retain 30% of the distance."),
        (2.5, 4.9, "They do not regress to the mean at both ends."),
        (3.4, 2.5, "The predictions do not separate the two ends."),
    ],
)
def test_regression_to_the_mean_is_at_both_ends(lowest, highest, text):
    extremes = {
        name: {"n": 20, "truth": truth, "prediction": prediction}
        for name, truth, prediction in (("lowest", 1.5, lowest), ("highest", 4.5, highest))
    }
    assert analysis.at_extremes(extremes) == (
        f"The lowest-rated fifth (20 clips, mean rating 1.50) has a mean prediction of {lowest:.2f}, the "
        f"highest-rated fifth (20 clips, 4.50) of {highest:.2f}. {text}"
    )


def test_groups_differ_by_the_p_of_the_permutation_test():
    groups = pd.DataFrame({"group": ["S1", "S2", "S3"], "mse": [0.9, 0.6, 0.3]})
    assert analysis.by_group(groups, 0.001, "speaker") == (
        "By speaker, the MSE ranges from 0.300 (S3) to 0.900 (S1). The groups differ significantly "
        "(permutation test of 3 groups, p ≤ 0.001)."
    )
    assert "do not differ significantly" in analysis.by_group(groups, 0.05, "speaker")


def test_conditions_are_listed_by_verdict():
    row = {"metric": "mse", "n": 500, "score": 0.4, "difference": 0.1}
    row |= {"difference_low": 0.05, "difference_high": 0.15}
    verdicts = {"as recorded": "", "noise": "worse", "telephone": "tie", "MP3": "worse"}
    rows = [row | {"condition": name, "verdict": verdict} for name, verdict in verdicts.items()]
    rows.append(rows[-1] | {"metric": "ccc", "verdict": "better"})
    change = "(0.100 [0.050, 0.150])"
    assert analysis.robust(pd.DataFrame(rows)) == (
        "On 500 clips as recorded, the MSE is 0.400. The same clips under other conditions: **worse**: "
        f"noise {change} and MP3 {change}; **no significant difference**: telephone {change}."
    )


def test_disagreement_is_compared_with_the_error():
    found = Disagreement(np.array([0.1, 0.2, 0.9]), np.zeros(3), 0.2, 0.1, 0.3)
    assert analysis.disagreeing(found, 4) == (
        "The standard deviation over 4 models has a median of 0.20 rating points over 3 clips. The error of "
        "their mean is **larger** where they disagree (Spearman r 0.200 [0.100, 0.300])."
    )
    assert "**no significant correlation**" in analysis.disagreeing(found._replace(low=-0.1), 4)
