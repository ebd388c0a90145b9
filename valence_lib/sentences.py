"""Sentences whose words are chosen by the numbers of results.json: a tie is called a tie.

Each takes the content of results.json and returns Markdown.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from valence_lib.error_groups import REST, SMALLEST_CLIPS, SMALLEST_SPEAKERS, TOO_SMALL, Disagreement
from valence_lib.errors import RunError
from valence_lib.registry import BEST_MODEL, MODELS, NETWORKS
from valence_lib.report import row_of
from valence_lib.tables import PART_WORDS, difference_of, rounded, with_interval

Results = Mapping[str, Any]


def warnings(results: Results) -> list[str]:
    """What a reader must know before the first number: synthetic voices, leaking speakers, few speakers."""
    found = []
    split = results["split"]
    if results["synthetic"]:
        found.append(
            "**Synthetic corpus.** "
            + str(results["description"])
            + " Nothing here says anything about human speech."
        )
    if split["shared_speakers"]:
        named = ", ".join(split["shared_speakers"][:5]) + "…" * (len(split["shared_speakers"]) > 5)
        found.append(
            f"**Shared speakers.** Training, validation and test share speakers ({named}; {len(split['shared_speakers'])} in "
            "all), so the scores include having heard them before."
        )
    if split["unnamed"]:
        who = (
            "does not name its speakers"
            if not results["speakers"]
            else f"names no speaker for {split['unnamed']:,} clips"
        )
        how = "were divided at random" if split["by"] == "random" else "are divided as the corpus itself does"
        found.append(
            f"**Speakers may leak.** The corpus {who}, and the clips {how}: the same person may be heard in training and in "
            "test. Scores on new speakers can be expected to be worse."
        )
    near = results["near_duplicates"]
    if near["pairs"]:
        shown = "; ".join(f"{pair['first']} and {pair['second']}" for pair in near["listed"][:5])
        more = "…" * (near["pairs"] > 5)
        found.append(
            f"**Near-duplicates.** {near['pairs']:,} pairs of clips are nearly the same recording ({shown}{more}), "
            f"{near['on_two_sides']:,} of them on two sides of a division: what is tested may have been trained on."
        )
    test_speakers = split["parts"][results["tested"]]["speakers"]
    if results["speakers"] and test_speakers < 10:
        found.append(
            f"**Few speakers.** The {PART_WORDS[results['tested']]} clips come from {test_speakers} speakers; their "
            "intervals are wide, and rough."
        )
    return found


def how_divided(results: Results) -> str:
    """Sizes of the parts, or how many folds there are, and by what the clips were divided."""
    split = results["split"]
    if split["protocol"] == "cv":
        size = split["parts"]["out_of_fold"]
        who = f" by {size['speakers']} speakers" if size["speakers"] else ""
        how = (
            "dealt to them by whole speakers, so that no model is tested on a voice that it has heard"
            if split["by"] == "speaker"
            else "dealt to them at random"
        )
        return (
            f"The {size['clips']:,} rated clips{who} are divided into {split['folds']} folds, {how}. Each fold is tested once, by models "
            "that were trained on nothing of it: of the other folds, the next one validates, and the rest is trained on. Scores are of all "
            "clips together, each predicted by the training that had not heard it."
        )
    ways = {
        "speaker": "by whole speakers",
        "random": "at random",
        "corpus": "as the corpus itself divides them",
    }
    way = ways[split["by"]]
    if split["by"] != "corpus" and split["given"]:
        way = f"as the corpus itself divides off {_listed(split['given'])}, and the rest {way}"
    if not split["unnamed"] and not split["shared_speakers"]:
        way += ", no speaker being heard in two parts"
    parts = []
    for part in ("train", "validation", "test", "unlabelled"):
        if part in split["parts"]:
            size = split["parts"][part]
            speakers = f" ({size['speakers']} speakers)" if size["speakers"] else ""
            parts.append(f"{size['clips']:,} {'training' if part == 'train' else part} clips{speakers}")
    return f"The clips are divided {way}: {', '.join(parts[:-1])} and {parts[-1]}."


def against_mean(results: Results, model: str, preset: str, part: str) -> str:
    """Whether a model beats predicting the training mean, as the paired interval of the MSEs says."""
    row, mean = row_of(results, model, preset, part), row_of(results, "mean", None, part)
    against = row["against_mean"]
    verdict = {
        "better": "**beats** predicting the training mean",
        "worse": "is **worse** than predicting the training mean",
        "tie": "does **not beat** predicting the training mean: the two are a tie",
    }[against["verdict"]]
    return (
        f"On the {row['n']:,} {PART_WORDS[part]} clips, {model} ({preset} preset) {verdict}. Its MSE is {rounded(row['mse'])}, that of "
        f"the mean {rounded(mean['mse'])}; the difference is "
        f"{difference_of(against)}."
    )


def chosen_against_others(results: Results) -> str:
    """What the chosen model is better than, worse than and tied with, by their MSE on the tested clips."""
    first = [results["chosen"]["model"], results["chosen"]["preset"]]
    chosen = "{} ({} preset)".format(*first)
    groups: dict[str, list[str]] = {"better": [], "tie": [], "worse": []}
    for comparison in results["comparisons"]:
        if comparison["metric"] == "mse" and comparison["first"] == first:
            groups[comparison["verdict"]].append("{} ({})".format(*comparison["second"]))
    words = {"better": "is better than", "tie": "is tied with", "worse": "is worse than"}
    parts = [f"{words[verdict]} {_listed(names)}" for verdict, names in groups.items() if names]
    marked = {(row["model"], row["preset"]) for row in results["rows"] if row["standardise"] == "speaker"}
    lower = bool(marked) and tuple(first) not in marked  # which are then not chosen, however low theirs is
    return (
        f"{chosen} has the lowest validation MSE, averaged over seeds, {'of those that are not standardised by speaker, ' * lower}"
        "and was chosen by it. "
        f"By its MSE on the {PART_WORDS[results['tested']]} clips it {'; it '.join(parts)}."
    )


def main_result(results: Results) -> str:
    """What an abstract would say: the chosen model beside the mean, a rater, and what is standardised by speaker."""
    model, preset = results["chosen"]["model"], results["chosen"]["preset"]
    chosen = row_of(results, model, preset, results["tested"])
    parts = [
        against_mean(results, model, preset, results["tested"]),
        f"Its CCC is {with_interval(chosen['ccc'], chosen['intervals']['ccc'])}.",
    ]
    if told := by_speaker(results):
        parts.append(told)
    if told := against_rater(results):
        parts.append(told)
    return " ".join(parts)


def against_rater(results: Results) -> str:
    """A single rater against the mean of the others on the tested clips; and, against the same means, the chosen model and the
    best by speaker. "" where none of those clips has two ratings."""
    rated = {(row["model"], row["preset"]): row for row in results["as_a_rater"]}
    chosen = results["chosen"]["model"], results["chosen"]["preset"]
    if chosen not in rated:
        return ""
    rater = rated[chosen]["rater"]
    words = {
        "better": "**better** than a rater",
        "worse": "**worse** than a rater",
        "tie": "a **tie** with a rater",
    }
    told = [
        f"{key[0]} ({key[1]} preset) has an MSE of {rounded(rated[key]['mse'])} and a CCC of {rounded(rated[key]['ccc'])}: "
        f"{words[rated[key]['against']['verdict']]}, {difference_of(rated[key]['against'])} of MSE"
        for key in filter(None, (chosen, _best_by_speaker(results)))
    ]
    return (
        f"One {_rater(results)} against the mean of the others has an MSE of {rounded(rater['mse'])} and a CCC of "
        f"{rounded(rater['ccc'])} on these clips. Against the same means, which are a less steady truth than that of the tables, {'; '.join(told)}."
    )


def _best_by_speaker(results: Results) -> tuple[str, str] | None:
    """The chosen model standardised by speaker, or else, by validation MSE, the best that is; None where none is, or is chosen."""
    chosen = results["chosen"]["model"], results["chosen"]["preset"]
    rows = [row for row in results["rows"] if row["standardise"] == "speaker"]
    if not rows or chosen in [(row["model"], row["preset"]) for row in rows]:
        return None
    same = [row for row in rows if row["model"] == chosen[0]]
    validated = [row for row in same or rows if row["part"] == "validation"]
    best = min(validated, key=lambda row: row["mse"])
    return best["model"], best["preset"]


def by_speaker(results: Results) -> str:
    """What the recipe by speaker changes about the chosen model, or else how the best model by speaker does beside it; "" where
    there is none, or one is chosen."""
    chosen = [results["chosen"]["model"], results["chosen"]["preset"]]
    best = _best_by_speaker(results)
    if best is None:
        return ""
    row = row_of(results, *best, results["tested"])
    comparison = _comparison(results, [row["model"], row["preset"]], chosen)
    verdict = {"better": "**better**", "worse": "**worse**", "tie": "a **tie** with that"}[
        comparison["verdict"]
    ]
    who = "it" if row["model"] == chosen[0] else row["model"]
    return (
        f"With the {row['preset']} preset, which standardises over all clips of each speaker and so takes other recordings of "
        f"whoever is to be predicted (†), {who} has an MSE of {rounded(row['mse'])} and a CCC of {rounded(row['ccc'])}: {verdict}, "
        f"{difference_of(comparison)} of MSE."
    )


def _rater(results: Results) -> str:
    return "simulated rater" if results["synthetic"] else "human rater"


def network_of(results: Results) -> tuple[str, str]:
    """The model and preset of the network to draw: the chosen one, or else the network with the lowest validation MSE."""
    chosen = results["chosen"]["model"], results["chosen"]["preset"]
    if chosen[0] in NETWORKS:
        return chosen
    networks = [row for row in results["rows"] if row["part"] == "validation" and row["model"] in NETWORKS]
    best = min(networks, key=lambda row: row["mse"])
    return best["model"], best["preset"]


def why_drawn(results: Results) -> str:
    """Why the network of `network_of` is drawn."""
    chosen, (drawn, _) = results["chosen"]["model"], network_of(results)
    if drawn == chosen:
        return "the model that was chosen by its validation MSE"
    return f"the network with the lowest validation MSE; {chosen}, which has a lower one, is none"


def left_out(missing: Sequence[Mapping[str, str]]) -> str:
    """Which models have no row since a package is not installed, and the command that installs it; "" where there is none.

    Args:
        missing: as `jobs.Request.missing` gives it.
    """
    commands = {row["package"]: row["command"] for row in missing}
    parts = []
    for package, command in commands.items():
        models = list(dict.fromkeys(row["model"] for row in missing if row["package"] == package))
        parts.append(
            f"{_listed(models)}, which {'need' if len(models) > 1 else 'needs'} {package} (`{command}`)"
        )
    return f"Left out, since what they need is not installed: {'; '.join(parts)}." if parts else ""


def against_the_mean(results: Results) -> str:
    """Which of all models beat predicting the training mean on the tested clips, each judged alone."""
    groups: dict[str, list[str]] = {"better": [], "tie": [], "worse": []}
    for row in results["rows"]:
        if row["part"] == results["tested"] and row["against_mean"]:
            groups[row["against_mean"]["verdict"]].append(f"{row['model']} ({row['preset']})")
    words = {"better": "**better** {} {}", "tie": "a **tie** {} {}", "worse": "**worse** {} {}"}
    told = [
        words[verdict].format("is" if len(names) == 1 else "are", _listed(names))
        for verdict, names in groups.items()
        if names
    ]
    return f"Against predicting the training mean, each judged alone by its MSE, {'; '.join(told)}."


def alike(results: Results) -> str:
    """That no clips are nearly the same recording; "" where some are, of which `warnings` tells."""
    pairs = results["near_duplicates"]["pairs"]
    return "" if pairs else "No two clips were found to be nearly the same recording. "


def standardising(results: Results, model: str, preset: str) -> str:
    """What standardising changes: a model's preset against the same model on raw decibels, on the tested clips."""
    if preset == "seed":
        return f"{model} was trained on raw decibels alone."
    if not any(row["model"] == model and row["preset"] == "seed" for row in results["rows"]):
        return f"{model} was trained with the {preset} preset alone."
    return _effect(results, model, preset, "seed", "standardising")


def tuning(results: Results) -> str:
    """What tuning changes: the tuned preset against the first preset of the same model, on the tested clips."""
    model = results["tuning"]["model"]
    other = next(row["preset"] for row in results["rows"] if row["model"] == model)
    return _effect(results, model, "tuned", other, "tuning")


def _effect(results: Results, model: str, preset: str, other: str, what: str) -> str:
    """What a preset changes about a model, against another preset of it."""
    ours, theirs = (row_of(results, model, name, results["tested"]) for name in (preset, other))
    comparison = _comparison(results, [model, preset], [model, other])
    verdict = _tie(comparison)
    if comparison["verdict"] != "tie":
        verdict = f"{what} makes it **{comparison['verdict']}**"
    return (
        f"{model} has a {PART_WORDS[results['tested']]} MSE of {rounded(ours['mse'])} with the {preset} preset and of {rounded(theirs['mse'])} with the "
        f"{other} preset (CCC {rounded(ours['ccc'])} and {rounded(theirs['ccc'])}): {verdict}; the MSE differs by {difference_of(comparison)}."
    )


def presets(results: Results) -> str:
    """What the presets of this report do."""
    ways = {
        "seed": "the **seed** preset feeds raw decibels, as the course report does",
        "default": "the **default** preset brings every column of the input to mean 0 and deviation 1 by the training clips' statistics",
        "clip": "the **clip** preset brings every mel band to mean 0 and deviation 1 within each clip",
        "speaker": "the **speaker** preset brings every column to mean 0 and deviation 1 over all clips of the clip's "
        "speaker, held-out ones included (their audio, not their ratings)",
        "encoder": "the **encoder** preset adds the features of the encoder that was named to those of the default preset",
        "encoder-speaker": "the **encoder-speaker** preset adds them to those of the speaker preset",
        "tuned": "the **tuned** preset trains as a sweep over hyperparameters found best",
    }
    used = list(dict.fromkeys(row["preset"] for row in results["rows"] if row["preset"]))
    if "tuned" in used and len(used) > 1:
        others = [row for row in results["rows"] if row["preset"] != "tuned"]
        return f"{presets({**results, 'rows': others})} {tuned(results['tuning'])}"
    if len(used) == 1:
        return f"One preset was used: {ways[used[0]]}."
    if "encoder" in used:
        return f"Of the presets, {'; '.join(ways[preset] for preset in used)}."
    return f"The presets differ in one thing alone: {'; '.join(ways[preset] for preset in used)}."


def tuned(best: Mapping[str, Any]) -> str:
    """Where the tuned preset comes from; takes the content of sweep/best.json."""
    settings = ", ".join(
        f"{name.replace('_', ' ')} {value:g}"
        if isinstance(value, float)
        else f"{name.replace('_', ' ')} {value}"
        for name, value in best["changes"].items()
    )
    return (
        f"The **tuned** preset is the best of {best['trials']:,} trials of a sweep over hyperparameters "
        f"({best['pruned']:,} of them pruned), chosen by its MSE on the validation clips, {rounded(best['validation_mse'])} "
        f"in trial {best['trial']}: {best['model']} with {settings or 'nothing changed'}."
    )


def _tie(comparison: Mapping[str, Any]) -> str:
    alone = comparison["low"] > 0 or comparison["high"] < 0
    return "the two are a **tie**" + (", corrected for how many were compared" if alone else "")


def _comparison(results: Results, first: list[str], second: list[str], metric: str = "mse") -> dict[str, Any]:
    """The comparison of the tested clips' scores, seen from `first`, whichever way round it was made."""
    for comparison in results["comparisons"]:
        if comparison["metric"] != metric:
            continue
        if (comparison["first"], comparison["second"]) == (first, second):
            return comparison
        if (comparison["first"], comparison["second"]) == (second, first):
            turned = {"better": "worse", "worse": "better", "tie": "tie"}[comparison["verdict"]]
            low, high, difference = -comparison["high"], -comparison["low"], -comparison["difference"]
            return {**comparison, "difference": difference, "low": low, "high": high, "verdict": turned}
    raise RunError(f"results.json holds no comparison of {first} with {second}.")


def against_ceiling(results: Results) -> str:
    """How far the chosen model is from a human rater, and from the lowest MSE that is possible."""
    chosen = row_of(results, results["chosen"]["model"], results["chosen"]["preset"], results["tested"])
    sentences = []
    if raters := results["raters"]:
        sentences.append(
            f"{against_rater(results)} From the raters' disagreement on all clips, the noise of the "
            f"mean rating has a variance of {rounded(raters['noise_variance'])}: about the lowest MSE that can be hoped for."
        )
    else:
        sentences.append(
            "The corpus holds no single raters, so there is no rater ceiling to hold the models against."
        )
    if results["lowest_mse"] is not None:
        times = chosen["mse"] / results["lowest_mse"]
        sentences.append(
            f"Since the ratings are simulated, the lowest MSE that any model could reach is known: "
            f"{rounded(results['lowest_mse'])}. The chosen model's is {rounded(times, 1)} times that."
        )
    return " ".join(sentences)


def at_extremes(extremes: Mapping[str, Mapping[str, float]]) -> str:
    """Whether predictions shrink towards the middle of the scale at both ends."""
    lowest, highest = extremes["lowest"], extremes["highest"]
    figures = (
        f"The lowest-rated fifth of the clips ({lowest['n']} clips, mean rating {rounded(lowest['truth'], 2)}) is "
        f"predicted at {rounded(lowest['prediction'], 2)}, the highest-rated ({highest['n']} clips, "
        f"{rounded(highest['truth'], 2)}) at {rounded(highest['prediction'], 2)}."
    )
    if highest["prediction"] <= lowest["prediction"]:
        return f"{figures} The model does not tell the two ends apart."
    if lowest["prediction"] > lowest["truth"] and highest["prediction"] < highest["truth"]:
        kept = (highest["prediction"] - lowest["prediction"]) / (highest["truth"] - lowest["truth"])
        return (
            f"{figures} The model regresses to the mean: it keeps {kept:.0%} of the distance between the two."
        )
    return f"{figures} The model does not shrink both ends towards the middle."


def by_group(groups: pd.DataFrame, chance: float, name: str) -> str:
    """How far the error depends on who or what is heard; takes what `errors_by_group` returns."""
    worst, best = groups.iloc[0], groups.iloc[-1]
    # No p can be lower than that of a spread which no permutation reached.
    p = f"p {'≤' if chance < 0.0015 else '='} {rounded(chance)}"
    how = f"(permutation test of {len(groups)} groups, {p})"
    verdict = (
        f"the groups differ by more than luck {how}" if chance < 0.05 else f"that much may be luck {how}"
    )
    return (
        f"By {name}, the MSE runs from {rounded(best['mse'])} ({best['group']}) to {rounded(worst['mse'])} "
        f"({worst['group']}); {verdict}."
    )


def where_errors_differ(chances: Mapping[str, float]) -> str:
    """By what the error differs by more than luck, from each grouping's permutation test."""
    differ = [name for name, chance in chances.items() if chance < 0.05]
    luck = [name for name, chance in chances.items() if chance >= 0.05]
    parts = [f"The squared error differs by more than luck by {_listed(differ)}."] if differ else []
    if luck:
        parts.append(f"By {_listed(luck)}, what the squared error differs by may be luck.")
    return " ".join(parts)


def of_worst(worst: Sequence[Mapping[str, Any]]) -> str:
    """Whether the worst clips have something in common: one speaker, one direction."""
    speakers = Counter(clip["speaker"] for clip in worst if clip["speaker"])
    too_high = sum(clip["prediction"] > clip["truth"] for clip in worst)
    sentence = (
        f"Of the {len(worst)} worst clips, {too_high} came out too high and {len(worst) - too_high} too low"
    )
    if speakers:
        speaker, n = speakers.most_common(1)[0]
        sentence += f"; speaker {speaker} speaks {n} of them" + (
            ", more than all others together" if 2 * n > len(worst) else ""
        )
    return sentence + "."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def robust(conditions: pd.DataFrame) -> str:
    """Under which conditions the error grows by more than luck; takes what `error_groups.robustness` returns."""
    of_mse = conditions[conditions["metric"] == "mse"]
    first, *others = of_mse.to_dict("records")
    heard = f"On {first['n']:,} clips, {first['condition']}, the MSE is {rounded(first['score'])}"
    groups: dict[str, list[str]] = {"worse": [], "tie": [], "better": []}
    for row in others:
        change = with_interval(row["difference"], [row["difference_low"], row["difference_high"]])
        groups[row["verdict"]].append(f"{row['condition']} ({change})")
    words = {
        "worse": "is **worse** with",
        "tie": "differs by no more than luck (a **tie**) with",
        "better": "is **better** with",
    }
    parts = [f"{words[verdict]} {_listed(found)}" for verdict, found in groups.items() if found]
    if not groups["worse"] and not groups["better"]:
        return (
            f"{heard}; no condition changes it by more than luck: it is a tie with {_listed(groups['tie'])}."
        )
    return f"{heard}. Against that, in pairs of the same clips, it {'; it '.join(parts)}."


def fair(differences: pd.DataFrame, name: str) -> str:
    """Which groups are predicted worse or better, by MSE and by CCC, and which are too small to say.

    Takes what `error_groups.score_differences` returns, and what the groups are called.
    """
    if differences.empty:
        return f"By {name}, there are not two groups to compare."
    if (differences["verdict"] == TOO_SMALL).all():
        (said,) = _by_verdict(differences[differences["metric"] == "mse"].to_dict("records"))
        return f"By {name}, {said}."
    told = {
        metric: _by_verdict(differences[differences["metric"] == metric].to_dict("records"))
        for metric in ("mse", "ccc")
    }
    parts = [
        f"By {name} and its {metric.upper()}, {'; '.join(of_metric)}."
        for metric, of_metric in told.items()
        if of_metric
    ]
    verdicts = differences.set_index(["group", "metric"])["verdict"].to_dict()
    if any(
        verdicts.get((group, "mse")) == "better" and verdicts.get((group, "ccc")) == "worse"
        for group, _ in verdicts
    ):
        parts.append(
            "Where all ratings of a group lie close together, its CCC is low however small the errors are."
        )
    clear = [
        verdict
        for (_, metric), verdict in verdicts.items()
        if metric != "bias" and verdict in ("better", "worse")
    ]
    if clear:
        parts.append("Each interval stands alone: of twenty such, one excludes 0 by luck.")
    return " ".join(parts)


def _by_verdict(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What of a metric's rows is better, worse and a tie, and of which groups there is too little to say."""
    if not rows:
        return []
    told: dict[str, list[str]] = {"worse": [], "better": [], "tie": [], TOO_SMALL: []}
    for row in rows:
        change = difference_of(row)
        told[row["verdict"]].append(
            row["group"] if row["verdict"] == TOO_SMALL else f"{row['group']} ({change})"
        )
    if len(told[TOO_SMALL]) > 6:  # speakers, say
        told[TOO_SMALL] = [f"{len(told[TOO_SMALL])} of the {len(rows)} groups"]
    against = rows[0]["other"] if len(rows) == 1 else REST
    words = {
        "worse": f"{{}} {{}} predicted **worse** than {against}",
        "better": f"{{}} {{}} predicted **better** than {against}",
        "tie": f"{{}} {{}} tied with {against}",
        TOO_SMALL: f"of {{}} against {against} there is too little to say: fewer than {SMALLEST_SPEAKERS} speakers or "
        f"{SMALLEST_CLIPS} clips on one side",
    }
    return [
        words[verdict].format(_listed(groups), "is" if len(groups) == 1 else "are")
        for verdict, groups in told.items()
        if groups
    ]


def depends(quarters: pd.DataFrame) -> str:
    """Which parts of the clips are predicted worse or better than the rest by MSE; takes what `error_groups.score_differences`
    returns, with a column `kind`."""
    rows = quarters[quarters["metric"] == "mse"].to_dict("records")
    parts = []
    for verdict in ("worse", "better"):
        found = [
            f"{row['kind']} {row['group']} ({difference_of(row)})"
            for row in rows
            if row["verdict"] == verdict
        ]
        if found:
            parts.append(f"{verdict} with {_listed(found)}")
    return (
        f"By MSE it is {'; it is '.join(parts)}."
        if parts
        else "None of them differs from the rest by more than luck."
    )


def disagreeing(found: Disagreement, models: int) -> str:
    """Whether the models' mean errs more where they disagree; takes what `error_groups.disagreement` returns."""
    r = with_interval(found.spearman_r, [found.low, found.high])
    figures = (
        f"Over {len(found.spread):,} clips, the predictions of {models} models have a standard deviation of "
        f"{rounded(float(np.median(found.spread)), 2)} rating points in the median clip"
    )
    if found.low > 0:
        verdict = "their mean errs **more** where they disagree, so that disagreement is a warning"
    elif found.high < 0:
        verdict = "their mean errs **less** where they disagree"
    else:
        verdict = "whether they disagree says **nothing** of the error of their mean that luck could not"
    return f"{figures}; {verdict} (Spearman r {r})."


def leakage(results: Results) -> str:
    """How a model's scores differ where test clips share speakers or sentences with its training clips."""
    found = results["leakage"]
    rows = {row["design"]: row for row in found["designs"]}
    reference = rows["speaker"]
    if "mse" not in reference:
        reasons = "; ".join(dict.fromkeys(row["why"] for row in rows.values() if row["why"]))
        return f"The effect of shared speakers could not be measured: {reasons}"
    words = {
        "random": "With clips dealt at random, so that test and training clips share speakers and sentences",
        "sentence": "With shared speakers, but no shared sentence",
        "both": "With neither shared speakers nor shared sentences, and fewer training clips",
    }
    who = "clusters of voices, which take the place of speakers" if found["pseudo"] else "speakers"
    parts = [
        f"On folds by {who}, {found['model']} ({found['preset']} preset), the best on validation clips of the models that are fitted in "
        f"one step, has an MSE of {rounded(reference['mse'])} and a CCC of {rounded(reference['ccc'])} on {reference['n']:,} clips"
        f"{' drawn at random' if found['clips'] < found['rated'] else ''}."
    ]
    for design, beginning in words.items():
        row = rows[design]
        if row["why"]:
            parts.append(f"{beginning}: not measured, since {row['why'][0].lower()}{row['why'][1:]}")
            continue
        against = row["against"]["ccc"]
        verdict = {
            "better": "higher" if design == "both" else "**inflated**",
            "worse": "lower",
            "tie": "a **tie** with that",
        }[against["verdict"]]
        parts.append(
            f"{beginning}, its CCC is {rounded(row['ccc'])}: {verdict}, "
            f"{difference_of(against)}; its MSE is {rounded(row['mse'])}, "
            f"a difference of {difference_of(row['against']['mse'])}."
        )
    return " ".join(parts)


def ablation(results: Results) -> str:
    """Which input features of the best model matter, and which could be added."""
    taken = [line for line in results["ablation"] if not line["added"]]
    added = [line for line in results["ablation"] if line["added"]]

    def which(lines: Sequence[Mapping[str, Any]], verdict: str) -> list[str]:
        return [
            line["words"] for line in lines if verdict in (line["mse"]["verdict"], line["ccc"]["verdict"])
        ]

    pays, hurts, helps = which(taken, "worse"), which(taken, "better"), which(added, "better")
    parts = []
    if pays:
        parts.append(f"Without {_listed(pays)}, the best model is **worse** by MSE or CCC.")
    if hurts:
        parts.append(f"Without {_listed(hurts)}, it is **better** by MSE or CCC.")
    if ties := [line["words"] for line in taken if line["words"] not in (*pays, *hurts)]:
        parts.append(f"Without {_listed(ties)}, it is a **tie**.")
    if helps:
        parts.append(f"With {_listed(helps)}, it is **better** by MSE or CCC.")
    if rest := [line["words"] for line in added if line["words"] not in helps]:
        parts.append(f"With {_listed(rest)}, it is not shown to be better.")
    return " ".join(parts)


def proposals_tried(results: Results) -> str:
    """The results of the two proposals of the course report: more features of the voice, and a CNN-LSTM."""
    words = {"better": "**better**", "worse": "**worse**", "tie": "a **tie**"}

    def verdicts(found: Mapping[str, Any]) -> str:
        return " and ".join(
            f"{words[found[metric]['verdict']]} by {title} ({difference_of(found[metric])})"
            for metric, title in (("mse", "MSE"), ("ccc", "CCC"))
        )

    lines = {line["preset"]: line for line in results["ablation"]}
    parts = []
    if line := lines.get("without-voice"):
        parts.append(
            f"{BEST_MODEL} takes pitch, volume and intensity as statistics of each clip; without these, it is {verdicts(line)}."
        )
    tested = [row for row in results["rows"] if row["part"] == results["tested"]]
    hybrid = [row for row in tested if row["model"] == "CNNLSTM"]
    if hybrid and hybrid[0]["model"] != results["chosen"]["model"]:
        row, chosen = hybrid[0], [results["chosen"]["model"], results["chosen"]["preset"]]
        found = {m: _comparison(results, chosen, [row["model"], row["preset"]], m) for m in ("mse", "ccc")}
        parts.append(
            f"**CNNLSTM** has an MSE of {rounded(row['mse'])} and a CCC of {rounded(row['ccc'])}; against it, {chosen[0]} is "
            f"{verdicts(found)}."
        )
    return " ".join(parts) or "`PRESET=best` tries both."


def calibrated(results: Results) -> str:
    """How far predictions are shrunk, and what shrinking and stretching would change on these clips."""
    found = results["calibration"]
    best_mse, best_ccc = found["optima"]["mse"], found["optima"]["ccc"]
    low, high = found["slope_interval"]
    shrunk = (
        "lie too close to their mean"
        if low > 1
        else "lie too far apart"
        if high < 1
        else "may lie as far apart as they should"
    )
    return (
        f"A difference of one point between two predictions of `{results['chosen']['run']}` goes with "
        f"{with_interval(found['slope'], [low, high], 2)} points between the ratings (1 would be calibrated): by MSE, the "
        f"predictions {shrunk}. They keep {found['kept']:.0%} of the ratings' differences, the less the less can be told from a voice, and "
        f"are off by {rounded(found['bias'], 2)} points on average. Moved from their mean by a factor of {rounded(best_mse['scale'], 2)}, they would have the lowest "
        f"MSE, {rounded(best_mse['mse'])} (CCC {rounded(best_mse['ccc'])}); by {rounded(best_ccc['scale'], 2)}, the highest CCC, "
        f"{rounded(best_ccc['ccc'])} (MSE {rounded(best_ccc['mse'])}). Both factors are known from these very clips alone, and are not used."
    )


def covered(results: Results) -> str:
    """How far a single prediction may be off."""
    found = results["intervals_coverage"]
    if found is None:
        return "There are too few held-out clips to say how far a single prediction may be off."
    return (
        f"An interval of ±{rounded(found['half_width'], 2)} points around a prediction is to hold {found['confidence']:.0%} of new clips. "
        f"Made for each {results['resampled']} from the errors of all others, such intervals, {rounded(found['width'], 2)} points wide, hold "
        f"{found['coverage']:.1%} of the {found['n']:,} clips [{found['interval'][0]:.1%}, {found['interval'][1]:.1%}]: of the "
        f"lowest-rated fifth {found['lowest']:.0%}, of the highest-rated {found['highest']:.0%}."
    )


def seeds_compared(results: Results) -> str:
    """What luck in training alone makes: every two seeds of the chosen model against each other."""
    pairs = results["seeds_compared"]
    if MODELS[results["chosen"]["model"]].fitted:
        return "The chosen model is fitted in one step, in which chance plays no part."
    if not pairs:
        return "The chosen model was trained once, so that the part of chance in training is not known."
    words = {"tie": "a **tie**", "better": "the first is **better**", "worse": "the second is **better**"}
    told = [
        f"{' and '.join(map(str, pair['seeds']))} ({words[pair['mse']['verdict']]}, {difference_of(pair['mse'])})"
        for pair in pairs
    ]
    return f"Trainings of the chosen model that differ in their seed alone differ by so much MSE: {'; '.join(told)}."


def agreement(results: Results) -> str:
    """How reliable the mean rating is."""
    raters = results["raters"]
    if not raters:
        return ""
    said = f"{raters['raters']} raters judged {raters['clips']:,} clips. "
    if raters["alpha"] is None:
        return said + "No clip was judged by all of them, so that the reliability of the mean is not known."
    return (
        said
        + f"The reliability of their mean is {rounded(raters['alpha'])} by Cronbach's alpha and {rounded(raters['icc_2k'])} by ICC(2,k), "
        "which counts a rater's constant bias as error."
    )
