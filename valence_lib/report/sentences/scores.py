"""Sentences about the scores: the chosen model compared with others, leakage, ablation, calibration."""

from collections.abc import Mapping
from typing import Any

from valence_lib.report.folder import row_of
from valence_lib.report.wording import (
    SUBSET_WORDS,
    VERDICTS,
    by_verdict,
    difference_of,
    listed,
    rounded,
    with_interval,
)

Results = Mapping[str, Any]


def _chosen(results: Results) -> tuple[str, str]:
    return results["chosen"]["model"], results["chosen"]["preset"]


def against_mean(results: Results) -> str:
    """The chosen model compared with predicting the training mean, by MSE on the tested clips."""
    (model, preset), subset = _chosen(results), results["tested"]
    row, mean = row_of(results, model, preset, subset), row_of(results, "mean", None, subset)
    verdict = {
        "better": "is **better** than",
        "worse": "is **worse** than",
        "tie": "shows **no significant difference** from",
    }[row["against_mean"]["verdict"]]
    return (
        f"On the {row['n']:,} {SUBSET_WORDS[subset]} clips, {model} ({preset} preset) {verdict} predicting "
        f"the training mean: its MSE is {rounded(row['mse'])} instead of {rounded(mean['mse'])}, difference "
        f"{difference_of(row['against_mean'])}."
    )


def main_result(results: Results) -> str:
    """The abstract: the chosen model compared with the mean, the best model by speaker, and a rater."""
    row = row_of(results, *_chosen(results), results["tested"])
    ccc = f"Its CCC is {with_interval(row['ccc'], row['intervals']['ccc'])}."
    return " ".join(filter(None, [against_mean(results), ccc, by_speaker(results), against_rater(results)]))


def chosen_against_others(results: Results) -> str:
    """Why the chosen model is chosen, and its MSE on the tested clips compared with all others."""
    chosen = _chosen(results)
    found = [
        ("{} ({})".format(*one["second"]), one["verdict"])
        for one in results["comparisons"]
        if one["metric"] == "mse" and one["first"] == list(chosen)
    ]
    by_speaker = {(row["model"], row["preset"]) for row in results["rows"] if row["standardise"] == "speaker"}
    among = " of the models that are not standardised by speaker" if by_speaker - {chosen} else ""
    phrases = {
        "better": "**significantly lower** than that of",
        "tie": "**not significantly different** from that of",
        "worse": "**significantly higher** than that of",
    }
    return (
        f"The chosen model is {chosen[0]} ({chosen[1]} preset). Its validation MSE, averaged over seeds, is "
        f"the lowest{among}. By Holm-adjusted p < 0.05, its {SUBSET_WORDS[results['tested']]} MSE is "
        f"{by_verdict(found, phrases)}."
    )


def models_against_mean(results: Results) -> str:
    """Every model compared with predicting the training mean, by MSE on the tested clips, unadjusted."""
    found = [
        (f"{row['model']} ({row['preset']})", row["against_mean"]["verdict"])
        for row in results["rows"]
        if row["subset"] == results["tested"] and row["against_mean"]
    ]
    return f"MSE compared with predicting the training mean (unadjusted p < 0.05): {by_verdict(found)}."


def against_rater(results: Results) -> str:
    """A rater and models, compared with the mean of the other raters; "" where no clip has two ratings."""
    rated = {(row["model"], row["preset"]): row for row in results["as_a_rater"]}
    if _chosen(results) not in rated:
        return ""
    rater, who = rated[_chosen(results)]["rater"], "simulated" if results["synthetic"] else "human"
    models = []
    for key in filter(None, (_chosen(results), _best_by_speaker(results))):
        row, against = rated[key], rated[key]["against"]
        models.append(
            f"{key[0]} ({key[1]} preset) has an MSE of {rounded(row['mse'])} and a CCC of "
            f"{rounded(row['ccc'])} ({VERDICTS[against['verdict']]}, MSE difference {difference_of(against)})"
        )
    return (
        f"Compared with the mean of the other raters, a single {who} rater has an MSE of "
        f"{rounded(rater['mse'])} and a CCC of {rounded(rater['ccc'])} on these clips. By the same "
        f"comparison, {listed(models)}."
    )


def _best_by_speaker(results: Results) -> tuple[str, str] | None:
    """The chosen model standardised by speaker, else the best that is; None where none is, or is chosen."""
    chosen = _chosen(results)
    rows = [row for row in results["rows"] if row["standardise"] == "speaker"]
    if not rows or chosen in [(row["model"], row["preset"]) for row in rows]:
        return None
    same = [row for row in rows if row["model"] == chosen[0]] or rows
    best = min((row for row in same if row["subset"] == "validation"), key=lambda row: row["mse"])
    return best["model"], best["preset"]


def by_speaker(results: Results) -> str:
    """The chosen model compared with the best that is standardised by speaker; "" where there is none."""
    best = _best_by_speaker(results)
    if best is None:
        return ""
    row, pair = row_of(results, *best, results["tested"]), [list(_chosen(results)), list(best)]
    by_mse = (one for one in results["comparisons"] if one["metric"] == "mse")
    comparison = next(one for one in by_mse if [one["first"], one["second"]] == pair)
    return (
        f"The {best[1]} preset standardises over all clips of each speaker, so it needs other recordings of "
        f"the same person (†). With it, {best[0]} has an MSE of {rounded(row['mse'])} and a CCC of "
        f"{rounded(row['ccc'])}. The chosen model compared with it: {VERDICTS[comparison['verdict']]}, MSE "
        f"difference {difference_of(comparison)}."
    )


def leakage(results: Results) -> str:
    """Whether random folds, which share speakers, give a higher CCC than folds by speaker."""
    found = results["leakage"]
    rows = {row["grouping"]: row for row in found["groupings"]}
    reasons = "; ".join(dict.fromkeys(row["why"].rstrip(".") for row in rows.values() if row["why"]))
    reference, random = rows["speaker"], rows["random"]
    if "mse" not in reference:
        return f"The effect of shared speakers could not be measured: {reasons}."
    clusters = ", which are clusters of voices here" * found["pseudo"]
    sample = " drawn at random" * (found["clips"] < found["rated"])
    against = random["against"]["ccc"]
    verdict = VERDICTS | {"better": "**inflated**", "worse": "**lower**"}
    compared = (
        f"The reference is {found['model']} ({found['preset']} preset) on folds by speaker{clusters}. Of the "
        "models that are fitted in one step, it has the lowest validation MSE. Its CCC is "
        f"{rounded(reference['ccc'])} on {reference['n']:,} clips{sample}. On random folds, which share "
        f"speakers, the CCC is {rounded(random['ccc'])}: {verdict[against['verdict']]}, difference "
        f"{difference_of(against)}."
    )
    return f"{compared} Some folds could not be made: {reasons}." if reasons else compared


def calibrated(results: Results) -> str:
    """Whether the chosen run's predictions are spread as the ratings are, and its bias."""
    found = results["calibration"]
    low, high = found["slope_interval"]
    verdict = "**not significantly miscalibrated**"
    if not low <= 1 <= high:
        verdict = f"too {'close to' if low > 1 else 'far from'} their mean"
    return (
        f"The slope of the ratings on the predictions of `{results['chosen']['run']}` is "
        f"{with_interval(found['slope'], [low, high], 2)}, where 1 is calibrated: the predictions are "
        f"{verdict}. They retain {found['kept']:.0%} of the ratings' differences. Their bias is "
        f"{rounded(found['bias'], 2)} points."
    )


def covered(results: Results) -> str:
    """The width of a prediction interval, and how many clips such intervals contain."""
    found = results["intervals_coverage"]
    if found is None:
        return "There are too few held-out clips for prediction intervals."
    low, high = found["interval"]
    return (
        f"A prediction interval of ±{rounded(found['half_width'], 2)} points is meant to contain "
        f"{found['confidence']:.0%} of new clips. Intervals for each {results['resampled']} from the errors "
        f"of all others contain {found['coverage']:.1%} [{low:.1%}, {high:.1%}] of the {found['n']:,} clips: "
        f"{found['lowest']:.0%} of the lowest-rated fifth and {found['highest']:.0%} of the highest-rated "
        "fifth."
    )
