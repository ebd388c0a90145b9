"""Sentences about the scores within and across corpora."""

from collections.abc import Mapping, Sequence
from typing import Any

from valence_lib.evaluation.cross_corpus import is_within
from valence_lib.report.corpus_text import literal
from valence_lib.report.wording import VERDICTS, by_verdict, difference_of, listed, with_interval

Results = Mapping[str, Any]

CAVEAT = (
    "The corpora differ in more than one way: language, speaking style, recording, raters and their "
    "instructions. A difference between scores within and across corpora therefore has several possible "
    "causes, which these numbers do not separate."
)
POOLED = (
    "Pooled scores are computed over the clips of all corpora together. They also contain differences "
    "between the mean ratings of the corpora, so a pooled CCC or Pearson r may be higher or lower than that "
    "of every single corpus."
)


def _pair(row: Mapping[str, Any]) -> str:
    """A pair of corpora in a list of a sentence."""
    names = "all others" if len(row["trained_on"]) > 1 else literal(row["trained_on"][0])
    return f"{names} → {literal(row['tested_on'])}"


def protocol(results: Results) -> str:
    """Which model is trained and tested on which clips."""
    found = results["cross_corpus"]
    corpora = found["corpora"]
    groups: dict[tuple[str, int], list[str]] = {}
    for corpus in corpora:
        if corpus["folds"]:
            groups.setdefault((corpus["by"], corpus["folds"]), []).append(literal(corpus["name"]))
    folds = [
        f"{'by speaker' if by == 'speaker' else 'at random'} in {number} folds ({listed(names)})"
        for (by, number), names in groups.items()
    ]
    sentences = [
        f"{found['model']} ({found['preset']} preset) is trained on each corpus and tested on each. Of the "
        "models that are fitted in one step, it has the lowest validation MSE of this report.",
        f"Within a corpus, the scores are those of a cross-validation {'; '.join(folds)}." if folds else "",
        "Across corpora, the model is fitted to all rated clips of one corpus"
        + " or of all others together" * (len(corpora) > 2)
        + " and tested on all rated clips of another.",
    ]
    for corpus in corpora:
        name = literal(corpus["name"])
        if corpus["folds"] and corpus["by"] == "random":
            why = f"does not name the speaker of {corpus['unnamed']:,} clip{'s' * (corpus['unnamed'] > 1)}"
            if not corpus["unnamed"]:
                why = f"has {corpus['speakers']} speaker{'s' * (corpus['speakers'] > 1)}"
            sentences.append(
                f"{name} {why}, so its folds are random, and the scores within it are probably too high."
            )
        if corpus["clips"] < corpus["rated"]:
            sentences.append(
                f"Of {name}, {corpus['clips']:,} of {corpus['rated']:,} rated clips are drawn at random."
            )
    return " ".join(filter(None, [*sentences, _missing(found["pairs"])]))


def _missing(pairs: Sequence[Mapping[str, Any]]) -> str:
    """The pairs without scores, and why."""
    missing = [f"{_pair(row)} ({row['why']})" for row in pairs if row["why"]]
    return f"Without scores: {'; '.join(missing)}." if missing else ""


def scales(results: Results) -> str:
    """How the ratings of the corpora are brought to one scale."""
    low, high = results["scale"]
    mapped = [
        f"{literal(corpus['name'])} (from {corpus['scale'][0]:g}–{corpus['scale'][1]:g})"
        for corpus in results["corpora"]
        if corpus["scale"] != results["scale"]
    ]
    if not mapped:
        return f"All corpora are rated on a scale from {low:g} to {high:g}."
    return (
        f"All ratings are on the scale from {low:g} to {high:g}. Those of {listed(mapped)} are mapped to it "
        "linearly, which does not make the scales equivalent."
    )


def drops(results: Results) -> list[str]:
    """For each tested corpus, Pearson's r and CCC within it and with other training corpora."""
    pairs = results["cross_corpus"]["pairs"]
    found = []
    for within in filter(is_within, pairs):
        across = [
            row
            for row in pairs
            if row["tested_on"] == within["tested_on"] and "within" in row.get("against", {})
        ]
        if not across:
            continue
        changes = []
        for row in across:
            names = listed([literal(name) for name in row["trained_on"]])
            scores = [
                f"{title} is {with_interval(row[metric], row['intervals'][metric])} "
                f"({VERDICTS[against['verdict']]}, difference {difference_of(against)})"
                for metric, title in (("pearson_r", "Pearson r"), ("ccc", "CCC"))
                for against in [row["against"]["within"][metric]]
            ]
            changes.append(f"Trained on {names}, {listed(scores)}.")
        own = [
            f"{title} of {with_interval(within[metric], within['intervals'][metric])}"
            for metric, title in (("pearson_r", "a Pearson r"), ("ccc", "a CCC"))
        ]
        found.append(
            f"**Tested on {literal(within['tested_on'])}.** Trained on the same corpus, the model has "
            f"{listed(own)}. {' '.join(changes)}"
        )
    return found


def against_means(results: Results) -> str:
    """Which pairs have a lower MSE than the mean of the training corpus, and than that of the tested one."""
    rows = [row for row in results["cross_corpus"]["pairs"] if not row["why"] and not is_within(row)]
    if not rows:
        return ""
    training, tested = (
        by_verdict([(_pair(row), row["against"][reference]["mse"]["verdict"]) for row in rows])
        for reference in ("training_mean", "tested_mean")
    )
    return (
        "MSE across corpora (Holm-adjusted), compared with predicting the mean rating of the training "
        f"corpus: {training}. Compared with predicting the mean rating of the tested corpus: {tested}. The "
        "second mean takes ratings of the tested corpus, so it is not available in practice; it is the "
        "constant with the lowest MSE."
    )


def calibrated(results: Results) -> str:
    """The share of the MSE across corpora that is bias and scale, and the MSE that remains without them."""
    shares = {
        _pair(row): 1 - row["parts"]["rest"] / row["mse"]
        for row in results["cross_corpus"]["pairs"]
        if not row["why"] and not is_within(row) and row["mse"]
    }
    if not shares:
        return ""
    ends = dict.fromkeys([min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)])
    found = " to ".join(f"{shares[pair]:.0%} ({pair})" for pair in ends)
    return (
        f"Across corpora, bias and scale are {found} of the MSE. A linear recalibration removes them, but "
        "only with ratings of the tested corpus. The MSE after it is the lowest that any linear "
        "recalibration reaches on these clips."
    )
