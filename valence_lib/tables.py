"""Every table of the report, from results.json; the only place that rounds."""

from __future__ import annotations  # a table of layers is made without torch

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from valence_lib.corpora import RATER_COLUMN
from valence_lib.provenance import digest_of_content

if TYPE_CHECKING:
    from valence_lib.architecture import Layer
    from valence_lib.records import Record
    from valence_lib.settings import TrainingSettings

METRIC_TITLES = {
    "mse": "MSE",
    "ccc": "CCC",
    "mae": "MAE",
    "pearson_r": "Pearson r",
    "r2": "R²",
    "sd_ratio": "SD ratio",
}
_WITH_INTERVALS = ("mse", "ccc")  # all others have theirs in results.json; six would not fit on a page
PART_WORDS = {"validation": "validation", "test": "test", "out_of_fold": "held-out"}
MOST_QUARANTINED = 50
MEAN_TITLE = "Predict the mean"


def rounded(value: float, digits: int = 3) -> str:
    """A number for a table or a sentence, with a true minus sign and no negative zero.

    >>> rounded(-0.12345), rounded(-0.0001)
    ('−0.123', '0.000')
    """
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def with_interval(value: float, interval: Sequence[float], digits: int = 3) -> str:
    """A score and its interval.

    >>> with_interval(0.5, [0.25, 0.75])
    '0.500 [0.250, 0.750]'
    """
    return f"{rounded(value, digits)} [{rounded(interval[0], digits)}, {rounded(interval[1], digits)}]"


def difference_of(comparison: Mapping[str, Any]) -> str:
    """The difference of a comparison, with its interval."""
    return with_interval(comparison["difference"], [comparison["low"], comparison["high"]])


def p_value(p: float) -> str:
    """The probability of a difference by luck alone, with its sign.

    >>> p_value(0.0421), p_value(0.0001)
    ('0.042', '<0.001')
    """
    return rounded(p) if p >= 0.001 else "<0.001"


def title_of(row: Mapping[str, Any]) -> str:
    """How a row of results.json is called."""
    return MEAN_TITLE if row["model"] == "mean" else f"{row['model']}, {row['preset']}"


def marked_title(row: Mapping[str, Any]) -> str:
    """How a table calls a row of results.json: by its title, with a dagger where it needs other clips of each speaker."""
    return title_of(row) + _dagger(row)


def _dagger(row: Mapping[str, Any]) -> str:
    return " †" if row["standardise"] == "speaker" else ""


def score_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Scores, with 95 % intervals of MSE and CCC, one line a row of results.json; the last column is of the seeds' MSEs.

    Which clips they are of is a column where rows differ in that.
    """
    lines = []
    parts = {(row["n"], row["part"]) for row in rows}
    for row in rows:
        line = {"Model, preset": marked_title(row)}
        if len(parts) > 1:
            line["Clips"] = f"{row['n']:,} {PART_WORDS[row['part']]}"
        for metric, title in METRIC_TITLES.items():
            bracketed = metric in _WITH_INTERVALS
            line[title] = (
                with_interval(row[metric], row["intervals"][metric]) if bracketed else rounded(row[metric])
            )
        line["Parameters"] = f"{row['parameters']:,}"
        line["Seeds"] = str(len(row["seeds"])) if row["seeds"] else "–"
        line["SD over seeds"] = rounded(row["seed_sd"]["mse"]) if len(row["seeds"]) > 1 else "–"
        lines.append(line)
    return pd.DataFrame(lines)


def table_1(results: Mapping[str, Any]) -> pd.DataFrame:
    """LSTM2 on validation and on tested clips, below the mean predictor."""
    return score_table([row for row in results["rows"] if row["model"] in ("mean", "LSTM2")])


def table_2(results: Mapping[str, Any]) -> pd.DataFrame:
    """All models on validation clips, below the mean predictor."""
    return score_table([row for row in results["rows"] if row["part"] == "validation"])


def tested_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """All models on the tested clips, below the mean predictor."""
    return score_table([row for row in results["rows"] if row["part"] == results["tested"]])


def score_points(results: Mapping[str, Any], part: str) -> pd.DataFrame:
    """What the figure of scores takes: label, mse, low, high and kind (the preset) of every model."""
    rows = [row for row in results["rows"] if row["part"] == part and row["seeds"]]
    return pd.DataFrame(
        {
            "label": [row["model"] for row in rows],
            "mse": [row["mse"] for row in rows],
            "low": [row["intervals"]["mse"][0] for row in rows],
            "high": [row["intervals"]["mse"][1] for row in rows],
            "kind": [f"{row['preset']} preset{_dagger(row)}" for row in rows],
        }
    )


def layer_table(model: str, layers: Sequence[Layer]) -> pd.DataFrame:
    """The layers of one model, in the order in which a clip passes through them."""
    rows = [
        [model, layer.kind, layer.detail or "–", layer.output_shape, f"{layer.parameters:,}"]
        for layer in layers
    ]
    return pd.DataFrame(rows, columns=["Model", "Layer", "Detail", "Output", "Parameters"])


def published_table(published: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """The course report's own figures, as published.csv has them."""
    return pd.DataFrame(published).rename(
        columns={"model": "Model", "validation_mse": "Validation MSE", "test_mse": "Test MSE"}
    )


def reference_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """What a score is to be held against: the label variance, single raters, the lowest possible MSE."""
    lines = [("Variance of the labels", rounded(results["label_variance"]), "–", "all rated clips")]
    if raters := results["raters"]:
        lines.append(
            (
                "One rater against the mean of the others",
                rounded(raters["mse"]),
                rounded(raters["ccc"]),
                f"mean over {raters['raters']} raters, {raters['clips']:,} clips",
            )
        )
        lines.append(
            (
                "Noise variance of the mean rating",
                rounded(raters["noise_variance"]),
                "–",
                "estimated from the raters' disagreement: about the lowest MSE that can be hoped for",
            )
        )
    if results["lowest_mse"] is not None:
        lines.append(
            (
                "Lowest possible MSE",
                rounded(results["lowest_mse"]),
                "–",
                "known, since the ratings are simulated",
            )
        )
    return pd.DataFrame(lines, columns=["Reference", "MSE", "CCC", "How"])


def raters_table(raters: Mapping[str, Any]) -> pd.DataFrame:
    """Each rater against the mean of the others; takes what `agreement.raters` returns."""
    return pd.DataFrame(
        {"Rater": column.removeprefix("valence_"), "MSE": rounded(found["mse"]), "CCC": rounded(found["ccc"])}
        for column, found in raters["by_rater"].items()
    )


def quarantine_table(quarantine: pd.DataFrame) -> pd.DataFrame:
    """The first clips that could not be used, each with its reason; the report's CSV has them all."""
    table = quarantine[["id", "part", "reason", "message"]].head(MOST_QUARANTINED)
    return table.set_axis(["Clip", "Part", "Reason", "What was found"], axis=1)


def settings_table(settings: TrainingSettings) -> pd.DataFrame:
    """Resolved settings of a training, one a line."""
    values = settings.to_mapping()
    texts = [", ".join(value) if isinstance(value, list) else str(value) for value in values.values()]
    return pd.DataFrame({"Parameter": list(values), "Value": texts})


def trials_table(trials: pd.DataFrame) -> pd.DataFrame:
    """What a sweep tried and what came of it, one line a trial; takes what `sweeping.trials_table` returns."""
    table = {
        "Trial": [str(number) for number in trials["trial"]],
        "Worker": [str(number) for number in trials["worker"]],
        "Validation MSE": ["–" if pd.isna(mse) else rounded(mse) for mse in trials["validation_mse"]],
        "Outcome": [f"{row.outcome}, {row.epochs} epochs" for row in trials.itertuples()],
        "Model": list(trials["model"]),
    }
    for name in trials.columns[trials.columns.get_loc("model") + 1 :]:
        table[name.capitalize().replace("_", " ")] = [
            f"{v:g}" if isinstance(v, float) else str(v) for v in trials[name]
        ]
    return pd.DataFrame(table)


def environment_table(environments: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What could change a result's bytes, beside code and data: one line each, all values where jobs differ."""
    lines: dict[str, set[str]] = {}
    for environment in environments:
        for name, value in environment.items():
            if isinstance(value, Mapping):
                listed = ", ".join(f"{key} {text}" for key, text in value.items()) or "nothing"
                lines.setdefault(name.capitalize(), set()).add(listed)
            else:
                lines.setdefault(name[0].upper() + name[1:], set()).add(str(value))
    return pd.DataFrame(
        {"What": list(lines), "Value": ["; ".join(sorted(values)) for values in lines.values()]}
    )


def provenance_table(records: Mapping[str, Record]) -> pd.DataFrame:
    """What each job was made of, as the first 12 digits of SHA-256 digests."""
    lines = []
    for name, record in records.items():
        made_of = record.made_of
        lines.append(
            {
                "Job": name,
                "Notebook": Path(made_of["program"]).name,
                "Its code": made_of["code"][:12],
                "Library code": digest_of_content(made_of["modules"])[:12],
                "Parameters": digest_of_content([made_of["parameters"], made_of["values"]])[:12],
                "Files read": digest_of_content(record.reads)[:12] if record.reads else "the corpus",
                "Key": record.key[:12],
            }
        )
    return pd.DataFrame(lines)


def robustness_table(conditions: pd.DataFrame) -> pd.DataFrame:
    """Scores by condition and how they differ from the first one's; takes what `error_groups.robustness` returns."""
    lines: dict[str, dict[str, str]] = {}
    for row in conditions.to_dict("records"):
        line = lines.setdefault(row["condition"], {"Condition": row["condition"]})
        title = METRIC_TITLES[row["metric"]]
        line[title] = with_interval(row["score"], [row["low"], row["high"]])
        change = with_interval(row["difference"], [row["difference_low"], row["difference_high"]])
        line[f"{title} difference"] = change if row["verdict"] else "–"
        line[f"{title} verdict"] = row["verdict"] or "–"
    return pd.DataFrame(list(lines.values()))


def differences_table(differences: pd.DataFrame) -> pd.DataFrame:
    """Score differences between groups, one line a group; takes what `error_groups.score_differences` returns.

    With a column `kind`, what the groups are stands first.
    """
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in differences.to_dict("records"):
        kind = row.get("kind", "")
        line = lines.setdefault((kind, row["group"]), {"By": kind} if kind else {})
        line |= {"Group": row["group"], "Against": row["other"]}
        line["Clips"] = f"{row['n']:,} / {row['other_n']:,}"
        line[f"{METRIC_TITLES.get(row['metric'], 'Bias')} differs by"] = _difference(row)
    return pd.DataFrame(list(lines.values()))


def disagreement_table(clips: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Single clips, and which model predicts the least and which the most for them.

    Args:
        clips: a row a clip, in the order to be shown, with id, speaker, truth, spread (standard deviation over the
            models), and a column of predictions a model.
        models: the names of those columns.
    """
    table = {
        "Clip": clips["id"],
        "Speaker": clips["speaker"].fillna(""),
        "True": [rounded(value, 2) for value in clips["truth"]],
        "SD over models": [rounded(value, 2) for value in clips["spread"]],
    }
    predicted = clips[list(models)]
    for title, extreme in (("Lowest", predicted.idxmin(axis=1)), ("Highest", predicted.idxmax(axis=1))):
        table[title] = [
            f"{rounded(predicted.loc[row, model], 2)} ({model})" for row, model in extreme.items()
        ]
    return pd.DataFrame(table)


def worst_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Clips with signed errors, in their order; with every rater's rating where the corpus has them (valence_a1, ...)."""
    table = pd.DataFrame(
        {
            "Clip": predictions["id"],
            "Speaker": predictions["speaker"].fillna(""),
            "True": [rounded(value, 2) for value in predictions["truth"]],
            "Predicted": [rounded(value, 2) for value in predictions["prediction"]],
            "Error": [rounded(value, 2) for value in predictions["prediction"] - predictions["truth"]],
            "Seconds": [rounded(value, 2) for value in predictions["duration_seconds"]],
        }
    )
    columns = [column for column in map(str, predictions) if RATER_COLUMN.fullmatch(column)]
    if columns:
        ratings = predictions[columns].itertuples(index=False, name=None)
        texts = [", ".join("–" if pd.isna(r) else f"{r:g}" for r in clip) for clip in ratings]
        table.insert(list(table).index("True") + 1, "Raters", texts)
    return table


DESIGN_WORDS = {
    "speaker": "sentences, but no speaker",
    "random": "speakers and sentences",
    "sentence": "speakers, but no sentence",
    "both": "neither speaker nor sentence",
}


def leakage_table(leakage: Mapping[str, Any]) -> pd.DataFrame:
    """Scores by what test clips share with training clips; takes what `leakage.measure` returns."""
    lines = []
    rows = leakage["designs"]
    words = dict(DESIGN_WORDS)
    if any(row["design"] == "sentence" and row["why"] for row in rows):  # sentences are not known
        words |= {"speaker": "no speaker", "random": "speakers"}
    for row in rows:
        line = {
            "Test and training clips share": words[row["design"]] + (" (voices)" if leakage["pseudo"] else "")
        }
        if row["why"] or "mse" not in row:
            line |= dict.fromkeys(["Trained on", "MSE", "CCC", "MSE difference", "CCC difference"], "–")
        else:
            line["Trained on"] = f"{row['trained']:,.0f} clips"
            line |= {
                title: with_interval(row[m], row["intervals"][m])
                for m, title in (("mse", "MSE"), ("ccc", "CCC"))
            }
            for metric, title in (("mse", "MSE difference"), ("ccc", "CCC difference")):
                line[title] = "–" if row["against"] is None else _difference(row["against"][metric])
        lines.append(line)
    return pd.DataFrame(lines)


def ablation_table(lines: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The ablation table: input features taken away from the best model or added to it."""
    return pd.DataFrame(
        {
            "Component": f"{'with' if line['added'] else 'without'} {line['words']}",
            "MSE": rounded(line["mse"]["score"]),
            "MSE changes by": _difference(line["mse"]),
            "CCC": rounded(line["ccc"]["score"]),
            "CCC changes by": _difference(line["ccc"]),
            "Parameters": f"{line['parameters']:,}",
        }
        for line in lines
    )


def ablation_points(lines: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What the forest plot takes: label, metric, difference, low, high, verdict and kind of each line of the ablation table."""
    return pd.DataFrame(
        {
            "label": line["words"],
            "metric": metric,
            "kind": "added" if line["added"] else "taken away",
            **{name: line[metric][name] for name in ("difference", "low", "high", "verdict")},
        }
        for line in lines
        for metric in ("mse", "ccc")
    )


def comparison_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """What the comparisons of results.json found, one line a pair."""
    by_pair: dict[tuple[str, str], dict[str, Any]] = {}
    for one in results["comparisons"]:
        titles = tuple(f"{model}, {preset}" for model, preset in (one["first"], one["second"]))
        by_pair.setdefault((titles[0], titles[1]), {})[one["metric"]] = one
    return pd.DataFrame(
        {
            "Model": first,
            "against": second,
            "MSE": _difference(found["mse"]),
            "p (Holm)": p_value(found["mse"]["p_holm"]),
            "CCC": _difference(found["ccc"]),
            "p (Holm) ": p_value(found["ccc"]["p_holm"]),
        }
        for (first, second), found in by_pair.items()
    )


def _difference(comparison: Mapping[str, Any]) -> str:
    """A difference with its interval and verdict."""
    return f"{difference_of(comparison)} {comparison['verdict']}"
