"""Sentences about the corpus, its split and its raters."""

from collections.abc import Mapping
from typing import Any

from valence_lib.report.corpus_text import literal
from valence_lib.report.wording import SUBSET_WORDS, listed, rounded


def warnings(results: Mapping[str, Any]) -> list[str]:
    """What limits the results: synthetic voices, speakers that may leak, near-duplicates, few speakers."""
    found = []
    split, near = results["split"], results["near_duplicates"]
    if results["synthetic"]:
        description = literal(" ".join(str(results["description"]).split()))
        found.append(f"**Synthetic corpus.** {description} The results do not transfer to human speech.")
    if shared := split["shared_speakers"]:
        named = ", ".join(map(literal, shared[:5])) + "…" * (len(shared) > 5)
        found.append(
            f"**Shared speakers.** The training, validation and test subsets share {len(shared)} speakers "
            f"({named}). Scores on new speakers are probably worse."
        )
    if split["unnamed"]:
        some = f"names no speaker for {split['unnamed']:,} clips"
        who = some if results["speakers"] else "does not name its speakers"
        how = "is random" if split["by"] == "random" else "is that of the corpus"
        found.append(
            f"**Speakers may leak.** The corpus {who}, and the split {how}. The same person may be in the "
            "training and the test subset. Scores on new speakers are probably worse."
        )
    if near["pairs"]:
        pairs = [(literal(pair["first"]), literal(pair["second"])) for pair in near["listed"][:5]]
        shown = "; ".join(f"{first} and {second}" for first, second in pairs)
        found.append(
            f"**Near-duplicates.** {near['pairs']:,} pairs of clips are almost the same recording "
            f"({shown}{'…' * (near['pairs'] > 5)}). {near['across_subsets']:,} of them are in different "
            "subsets, so a test clip may also be a training clip."
        )
    test_speakers = split["subsets"][results["tested"]]["speakers"]
    if results["speakers"] and test_speakers < 10:
        found.append(
            f"**Few speakers.** The {SUBSET_WORDS[results['tested']]} clips come from {test_speakers} "
            "speakers. Their intervals are wide and approximate."
        )
    return found


def reading(results: Mapping[str, Any]) -> str:
    """What was found while the corpus was read; "" where there is nothing to report."""
    return " ".join(literal(note) for note in results["notes"])


def split(results: Mapping[str, Any]) -> str:
    """How the clips are split, and the sizes of the subsets or the number of folds."""
    split = results["split"]
    if split["protocol"] == "cv":
        size = split["subsets"]["out_of_fold"]
        who = f" of {size['speakers']} speakers" if size["speakers"] else ""
        how = "by speaker" if split["by"] == "speaker" else "at random"
        return (
            f"The {size['clips']:,} rated clips{who} are split into {split['folds']} folds {how}. Each fold "
            "is the test subset once. The next fold is then the validation subset, and all others are the "
            "training subset. Scores are computed over the test clips of all folds together."
        )
    way = {"speaker": "by speaker", "random": "at random", "corpus": "as the corpus defines"}[split["by"]]
    if split["by"] != "corpus" and split["given"]:
        way += f", except for {listed(split['given'])}, which the corpus defines"
    if not split["unnamed"] and not split["shared_speakers"]:
        way += "; no speaker is in two subsets"
    sizes = []
    for subset in ("train", "validation", "test", "unlabelled"):
        if size := split["subsets"].get(subset):
            speakers = f" ({size['speakers']} speakers)" if size["speakers"] else ""
            sizes.append(f"{size['clips']:,} {'training' if subset == 'train' else subset} clips{speakers}")
    return f"The clips are split {way}: {listed(sizes)}."


def agreement(results: Mapping[str, Any]) -> str:
    """The reliability of the mean rating; "" without single raters."""
    raters = results["raters"]
    if not raters:
        return ""
    rated = f"{raters['raters']} raters rated {raters['clips']:,} clips."
    if raters["alpha"] is None:
        return f"{rated} No clip was rated by all of them, so the reliability of the mean is unknown."
    return (
        f"{rated} The reliability of their mean is {rounded(raters['alpha'])} (Cronbach's alpha) and "
        f"{rounded(raters['icc_2k'])} (ICC(2,k), which counts a rater's constant bias as error)."
    )
