"""Sentences about the corpus, its split and its raters."""

from collections.abc import Mapping
from typing import Any

from valence_lib.report.corpus_text import linked, literal
from valence_lib.report.wording import EMOTIONAL, SUBSET_WORDS, ends_of, listed, rounded
from valence_lib.settings import Target


def title(target: Target) -> str:
    """The title of a report on one target."""
    return f"Predicting {'emotional ' * (target.name in EMOTIONAL)}{literal(target.name)} from speech"


def subject(target: Target) -> str:
    """What a report predicts, and from what."""
    what = f"{literal(target.name)}, as a number,"
    if target.name in EMOTIONAL:
        low, high = ends_of(target)
        what = f"how {high} or {low} a speaker sounds, as a number,"
    return f"This report predicts {what} from the sound of a short clip."


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
        ways = {"random": "is random", "corpora": "of the training clips is random"}
        how = ways.get(split["by"], "is that of the corpus")
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


def corpora(results: Mapping[str, Any]) -> list[str]:
    """Scale, source, terms and citation of each corpus; nothing for a single corpus that states none of them.

    Args:
        results: with `corpora`, a list of {"name", "clips", "scale", "source", "terms", "citation"}; what a
            corpus does not state is "".
    """
    parts, stated = results["corpora"], ("source", "terms", "citation")
    if len(parts) == 1 and not any(parts[0][name] for name in stated):
        return []
    found = []
    for part in parts:
        low, high = part["scale"]
        texts = {name: " ".join(part[name].split()).rstrip(".") for name in stated}
        known = [f"{name.capitalize()}: {linked(text)}." for name, text in texts.items() if text]
        about = (
            f"The corpus {literal(part['name'])} has {part['clips']:,} clips, rated from {low:g} to {high:g}."
        )
        found.append(" ".join([about, *known]))
    return found


def reading(results: Mapping[str, Any]) -> str:
    """What was found while the corpus was read; "" where there is nothing to report."""
    return " ".join(literal(note) for note in results["notes"])


def split(results: Mapping[str, Any]) -> str:
    """How the clips are split, and the sizes of the subsets or the number of folds."""
    split, several = results["split"], len(results["corpora"]) > 1
    if split["protocol"] != "holdout":
        size = split["subsets"]["out_of_fold"]
        who = f" of {size['speakers']} speakers" if size["speakers"] else ""
        if split["by"] == "corpora":
            how = "at random" if split["unnamed"] else "by speaker"
            return (
                f"The {size['clips']:,} rated clips{who} are of {split['folds']} corpora. Each corpus is the "
                "test subset once. The models are then trained on the others, of which a fifth of the clips, "
                f"drawn {how} from each corpus, is the validation subset. Scores are computed over the test "
                "clips of all corpora together."
            )
        how = "by speaker" if split["by"] == "speaker" else "at random"
        how += ", so that each fold has clips of every corpus" * several
        return (
            f"The {size['clips']:,} rated clips{who} are split into {split['folds']} folds {how}. Each fold "
            "is the test subset once. The next fold is then the validation subset, and all others are the "
            "training subset. Scores are computed over the test clips of all folds together."
        )
    defined = "the corpora define" if several else "the corpus defines"
    way = {"speaker": "by speaker", "random": "at random", "corpus": f"as {defined}"}[split["by"]]
    given = split["given"]
    if alone := split["tested_alone"]:
        whole = listed([literal(name) for name in alone])
        way = f"by corpus: all clips of {whole} are test clips. The others are split {way}"
        given = [subset for subset in given if subset != "test"]
    elif several:
        way += ", corpus by corpus"
    if split["by"] != "corpus" and given:
        way += f", except for {listed(given)}, which {defined}"
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
