"""Every table of the report: data frames of finished texts."""

from __future__ import annotations  # a table of layers is made without torch

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from valence_lib.corpora.columns import RATER_COLUMN
from valence_lib.evaluation.cross_corpus import is_within
from valence_lib.provenance import digest_of_content
from valence_lib.report.wording import (
    METRIC_TITLES,
    SUBSET_WORDS,
    difference_of,
    p_value,
    rounded,
    title_of,
    with_interval,
)

if TYPE_CHECKING:
    from valence_lib.report.architecture import Layer
    from valence_lib.settings import TrainingSettings

MOST_QUARANTINED = 50
_WITH_INTERVALS = ("mse", "ccc")  # the intervals of all six would not fit on a page
_SHARED = {
    "speaker": "sentences, no speakers",
    "random": "speakers and sentences",
    "sentence": "speakers, no sentences",
    "both": "no speakers or sentences",
}


def _difference(comparison: Mapping[str, Any]) -> str:
    """A difference with its interval and verdict; "n.s." means not significant."""
    verdict = "n.s." if comparison["verdict"] == "tie" else comparison["verdict"]
    return f"{difference_of(comparison)} {verdict}"


def _dagger(row: Mapping[str, Any]) -> str:
    return " †" if row["standardise"] == "speaker" else ""


def score_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One line for each of some rows of results.json; † marks models that are standardised by speaker."""
    lines = []
    subsets = {row["subset"] for row in rows}
    for row in rows:
        line = {"Model, preset": title_of(row) + _dagger(row)}
        if len(subsets) > 1:
            line["Clips"] = f"{row['n']:,} {SUBSET_WORDS[row['subset']]}"
        for metric, title in METRIC_TITLES.items():
            line[title] = rounded(row[metric])
            if metric in _WITH_INTERVALS:
                line[title] = with_interval(row[metric], row["intervals"][metric])
        line["Parameters"] = f"{row['parameters']:,}"
        line["Seeds"] = str(len(row["seeds"])) if row["seeds"] else "–"
        line["SD over seeds"] = rounded(row["seed_sd"]["mse"]) if len(row["seeds"]) > 1 else "–"
        lines.append(line)
    return pd.DataFrame(lines)


def scores_of_model(results: Mapping[str, Any], model: str) -> pd.DataFrame:
    """One model on validation and on tested clips, after the mean predictor."""
    return score_table([row for row in results["rows"] if row["model"] in ("mean", model)])


def scores_of_subset(results: Mapping[str, Any], subset: str) -> pd.DataFrame:
    """All models on the clips of one subset, after the mean predictor."""
    return score_table([row for row in results["rows"] if row["subset"] == subset])


def score_points(results: Mapping[str, Any], subset: str) -> pd.DataFrame:
    """The columns of the figure of scores: label, mse, low, high and kind (the preset) of every model."""
    return pd.DataFrame(
        {
            "label": row["model"],
            "mse": row["mse"],
            "low": row["intervals"]["mse"][0],
            "high": row["intervals"]["mse"][1],
            "kind": f"{row['preset']} preset{_dagger(row)}",
        }
        for row in results["rows"]
        if row["subset"] == subset and row["seeds"]
    )


def layer_table(model: str, layers: Sequence[Layer]) -> pd.DataFrame:
    """The layers of one model, from input to output."""
    rows = [
        [
            model,
            layer.kind,
            " ".join(layer.detail.split("\n")) or "–",
            layer.output_shape,
            f"{layer.parameters:,}",
        ]
        for layer in layers
    ]
    return pd.DataFrame(rows, columns=["Model", "Layer", "Detail", "Output", "Parameters"])


def published_table(path: Path) -> pd.DataFrame:
    """The scores that the course report published, with their own digits."""
    titles = {"model": "Model", "validation_mse": "Validation MSE", "test_mse": "Test MSE"}
    return pd.read_csv(path, dtype=str).rename(columns=titles)


def reference_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Scores to compare with: the variance of the ratings, single raters, the lowest possible MSE."""
    lines = [("Variance of the ratings", rounded(results["label_variance"]), "–", "all rated clips")]
    if raters := results["raters"]:
        one, source = (
            "One rater compared with the mean of the others",
            "mean over {raters} raters, {clips:,} clips",
        )
        lines.append((one, rounded(raters["mse"]), rounded(raters["ccc"]), source.format_map(raters)))
        source = "estimated from the raters' disagreement; about the lowest MSE that a model can reach"
        lines.append(("Noise variance of the mean rating", rounded(raters["noise_variance"]), "–", source))
    if results["lowest_mse"] is not None:
        source = "known, because the ratings are simulated"
        lines.append(("Lowest possible MSE", rounded(results["lowest_mse"]), "–", source))
    return pd.DataFrame(lines, columns=["Reference", "MSE", "CCC", "Source"])


def raters_table(raters: Mapping[str, Any]) -> pd.DataFrame:
    """Each rater compared with the mean of the others; takes what `raters.raters` returns."""
    return pd.DataFrame(
        {"Rater": column.removeprefix("rating_"), "MSE": rounded(found["mse"]), "CCC": rounded(found["ccc"])}
        for column, found in raters["by_rater"].items()
    )


def quarantine_table(quarantine: pd.DataFrame) -> pd.DataFrame:
    """The first clips that could not be used, each with its reason."""
    table = quarantine[["id", "subset", "reason", "message"]].head(MOST_QUARANTINED)
    return table.set_axis(["Clip", "Subset", "Reason", "Message"], axis=1)


def settings_table(settings: TrainingSettings) -> pd.DataFrame:
    """The resolved settings of a training, one a line."""
    values = settings.to_mapping()
    texts = [", ".join(value) if isinstance(value, list) else str(value) for value in values.values()]
    return pd.DataFrame({"Parameter": list(values), "Value": texts})


def trials_table(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials of a sweep; takes what `tuning.trials_table` returns."""
    mse = ["–" if pd.isna(mse) else rounded(mse) for mse in trials["validation_mse"]]
    outcome = trials["outcome"] + ", " + trials["epochs"].astype(str) + " epochs"
    table = trials.assign(validation_mse=mse, outcome=outcome).drop(columns="epochs")
    table.columns = [name.capitalize().replace("_", " ").replace("mse", "MSE") for name in table]
    return table.map(lambda value: f"{value:g}" if isinstance(value, float) else str(value))


def environment_table(environments: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The machines and packages of all jobs, one property a line, with all values where jobs differ."""
    lines: dict[str, set[str]] = {}
    for environment in environments:
        for name, value in environment.items():
            if isinstance(value, Mapping):
                value = ", ".join(f"{key} {text}" for key, text in value.items()) or "nothing"
            lines.setdefault(name[0].upper() + name[1:], set()).add(str(value))
    values = ["; ".join(sorted(values)) for values in lines.values()]
    return pd.DataFrame({"Property": list(lines), "Value": values})


def provenance_table(records: Mapping[str, Any]) -> pd.DataFrame:
    """The first 12 digits of the SHA-256 digests that determine each job's outputs: see `load_records`."""
    return pd.DataFrame(
        {
            "Job": name,
            "Notebook": Path(made["program"]).name,
            "Notebook code": made["code"][:12],
            "Library code": digest_of_content(made["modules"])[:12],
            "Parameters": digest_of_content([made["parameters"], made["values"]])[:12],
            "Input files": digest_of_content(record.inputs)[:12] if record.inputs else "the corpus",
            "Key": record.key[:12],
        }
        for name, record in records.items()
        for made in [record.fingerprint]
    )


def robustness_table(conditions: pd.DataFrame) -> pd.DataFrame:
    """Scores by condition, and differences from the first: see `robustness.scores_by_condition`."""
    lines: dict[str, dict[str, str]] = {}
    for row in conditions.to_dict("records"):
        line = lines.setdefault(row["condition"], {"Condition": row["condition"]})
        title = METRIC_TITLES[row["metric"]]
        line[title] = with_interval(row["score"], [row["low"], row["high"]])
        change = row | {"low": row["difference_low"], "high": row["difference_high"]}
        line[f"{title} difference"] = _difference(change) if row["verdict"] else "–"
    return pd.DataFrame(list(lines.values()))


def differences_table(differences: pd.DataFrame) -> pd.DataFrame:
    """Score differences between groups, as from `groups.score_differences`; by `kind` where there is one."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in differences.to_dict("records"):
        kind = row.get("kind", "")
        line = lines.setdefault((kind, row["group"]), {"By": kind} if kind else {})
        line |= {"Group": row["group"], "Compared with": row["other"]}
        line["Clips"] = f"{row['n']:,} / {row['other_n']:,}"
        line[f"{METRIC_TITLES.get(row['metric'], 'Bias')} difference"] = _difference(row)
    return pd.DataFrame(list(lines.values()))


def worst_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Clips with signed errors, and with every rater's rating where the corpus has them (rating_a1, ...)."""
    points = predictions.assign(error=predictions["prediction"] - predictions["truth"])
    points = points[["truth", "prediction", "error", "duration_seconds"]].map(lambda value: rounded(value, 2))
    table = points.set_axis(["True", "Predicted", "Error", "Seconds"], axis=1)
    table.insert(0, "Clip", predictions["id"])
    table.insert(1, "Speaker", predictions["speaker"].fillna(""))
    columns = [column for column in map(str, predictions) if RATER_COLUMN.fullmatch(column)]
    if columns:
        ratings = predictions[columns].itertuples(index=False, name=None)
        texts = [", ".join("–" if pd.isna(r) else f"{r:g}" for r in clip) for clip in ratings]
        table.insert(list(table).index("Predicted"), "Raters", texts)
    return table


def leakage_table(leakage: Mapping[str, Any]) -> pd.DataFrame:
    """Scores by what training and test clips share; takes what `leakage.measure` returns."""
    lines = []
    rows = leakage["groupings"]
    words = dict(_SHARED)
    if any(row["grouping"] == "sentence" and row["why"] for row in rows):  # sentences are unknown
        words |= {"speaker": "no speakers", "random": "speakers"}
    for row in rows:
        line = {
            "Training and test share": words[row["grouping"]] + " (clusters of voices)" * leakage["pseudo"]
        }
        line |= dict.fromkeys(["Training clips", "MSE", "CCC", "MSE difference", "CCC difference"], "–")
        if "mse" in row:
            line["Training clips"] = f"{row['trained']:,.0f}"
            line |= {m.upper(): with_interval(row[m], row["intervals"][m]) for m in _WITH_INTERVALS}
            against = row["against"] or {}
            line |= {f"{m.upper()} difference": _difference(found) for m, found in against.items()}
        lines.append(line)
    return pd.DataFrame(lines)


def by_corpus_table(results: Mapping[str, Any], metric: str) -> pd.DataFrame:
    """One metric of each model on the tested clips of each corpus, and on all of them together.

    Args:
        results: results.json of several corpora.
        metric: "mse", "ccc" or "pearson_r".
    """
    pooled = [row for row in results["rows"] if row["subset"] == results["tested"]]
    table = pd.DataFrame({"Model, preset": [title_of(row) + _dagger(row) for row in pooled]})
    for name, rows in [*((of["corpus"], of["rows"]) for of in results["by_corpus"]), ("Pooled", pooled)]:
        scores = [with_interval(row[metric], row["intervals"][metric]) for row in rows]
        table[f"{name} ({rows[0]['n']:,} clips)"] = scores
    return table


def _trained_on(row: Mapping[str, Any]) -> str:
    return row["trained_on"][0] if len(row["trained_on"]) == 1 else "all others"


def _pair(row: Mapping[str, Any]) -> dict[str, str]:
    """The first columns of a line of a table of pairs of corpora."""
    return {"Trained on": _trained_on(row) + " (within)" * is_within(row), "Tested on": row["tested_on"]}


def across_table(across: Mapping[str, Any]) -> pd.DataFrame:
    """Scores of each pair of training and tested corpus; takes what `cross_corpus.measure_pairs` returns."""
    return pd.DataFrame(
        _pair(row)
        | {
            "Training clips": f"{row['trained']:,.0f}",
            "Clips": f"{row['n']:,}",
            "Speakers": f"{row['speakers']:,}" if row["speakers"] else "–",
        }
        | {METRIC_TITLES[m]: with_interval(row[m], row["intervals"][m]) for m in ("ccc", "pearson_r", "mse")}
        for row in across["pairs"]
        if not row["why"]
    )


def across_differences_table(across: Mapping[str, Any]) -> pd.DataFrame:
    """Differences of each pair of corpora from its references: see `cross_corpus.measure_pairs`."""
    lines = []
    for row in (row for row in across["pairs"] if not row["why"]):
        against = row["against"]
        line = _pair(row) | {
            "MSE difference from the training mean": _difference(against["training_mean"]["mse"]),
            "MSE difference from the tested mean": _difference(against["tested_mean"]["mse"]),
            "CCC difference from within": "–",
        }
        if "within" in against:
            line["CCC difference from within"] = _difference(against["within"]["ccc"])
        lines.append(line)
    return pd.DataFrame(lines)


def across_parts_table(across: Mapping[str, Any]) -> pd.DataFrame:
    """The MSE of each pair of corpora and the shares of its parts: see `cross_corpus.error_parts`."""
    lines = []
    for row in (row for row in across["pairs"] if not row["why"]):
        line = _pair(row) | {"MSE": rounded(row["mse"])}
        for name, value in row["parts"].items():
            line[name.capitalize()] = f"{value / row['mse']:.0%}" if row["mse"] else "–"
        lines.append(line | {"MSE after linear recalibration": rounded(row["parts"]["rest"])})
    return pd.DataFrame(lines)


def across_points(across: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of the figure of scores within and across corpora: see `figures.cross_corpus.plot_across`."""
    return pd.DataFrame(
        {
            "tested_on": row["tested_on"],
            "trained_on": _trained_on(row),
            "kind": "within" if is_within(row) else "across",
            "metric": metric,
            "score": row[metric],
            "low": row["intervals"][metric][0],
            "high": row["intervals"][metric][1],
        }
        for row in across["pairs"]
        if not row["why"]
        for metric in ("pearson_r", "ccc")
    )


def ablation_table(lines: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The ablation table: input features removed from the best model or added to it."""
    return pd.DataFrame(
        {
            "Component": f"{'with' if line['added'] else 'without'} {line['words']}",
            "MSE": rounded(line["mse"]["score"]),
            "MSE difference": _difference(line["mse"]),
            "CCC": rounded(line["ccc"]["score"]),
            "CCC difference": _difference(line["ccc"]),
            "Parameters": f"{line['parameters']:,}",
        }
        for line in lines
    )


def ablation_points(lines: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The columns of the forest plot: label, metric, kind, difference, low, high and verdict of each line."""
    return pd.DataFrame(
        {
            "label": line["words"],
            "metric": metric,
            "kind": "added" if line["added"] else "removed",
            **{name: line[metric][name] for name in ("difference", "low", "high", "verdict")},
        }
        for line in lines
        for metric in ("mse", "ccc")
    )


def comparison_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """The comparisons of results.json, one line a pair."""
    pairs: dict[tuple[str, ...], dict[str, str]] = {}
    for one in results["comparisons"]:
        titles = tuple(f"{model}, {preset}" for model, preset in (one["first"], one["second"]))
        line = pairs.setdefault(titles, {"Model": titles[0], "Compared with": titles[1]})
        line[f"{one['metric'].upper()} difference"] = _difference(one)
        line[f"{one['metric'].upper()} p (Holm)"] = p_value(one["p_holm"])
    return pd.DataFrame(list(pairs.values()))
