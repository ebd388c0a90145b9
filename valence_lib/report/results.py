"""The runs of a report -> results.json: scores, comparisons, and the chosen run."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from valence_lib.errors import RunError
from valence_lib.evaluation.bootstrap import Resampling, compare, corrected, groups_of, score
from valence_lib.evaluation.calibration import FEWEST_CLIPS, calibrate, coverage, optima, slope_interval
from valence_lib.evaluation.cross_corpus import measure_pairs
from valence_lib.evaluation.leakage import measure
from valence_lib.evaluation.metrics import METRICS
from valence_lib.evaluation.raters import as_raters
from valence_lib.files import digest_of
from valence_lib.preprocess.splits import OUT_OF_FOLD, Splits
from valence_lib.registry import ABLATIONS, BEST_MODEL, MODELS
from valence_lib.report.folder import load_clips, load_frame, load_json, load_splits, run_name
from valence_lib.report.wording import title_of

Key = tuple[str, str | None]  # model and preset, which the mean predictor has not
Pair = tuple[Sequence[np.ndarray], Sequence[np.ndarray]]  # predictions of two models, one array a seed
_COMPARED = ("mse", "ccc")


def held_out_clips(clips: pd.DataFrame, splits: Splits) -> dict[str, pd.DataFrame]:
    """The validation clips and the tested clips ("test" of a holdout, "out_of_fold" of a cross-validation).

    Returns:
        By subset, the columns id, speaker, truth, and mean: the mean rating of the training clips.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for fold, subsets in splits.items():
        mean = float(clips.loc[subsets == "train", "rating"].mean())
        for subset, name in (("validation", "validation"), ("test", OUT_OF_FOLD if fold else "test")):
            held_out = clips.loc[subsets == subset, ["id", "speaker", "rating"]]
            found.setdefault(name, []).append(held_out.rename(columns={"rating": "truth"}).assign(mean=mean))
    return {subset: pd.concat(frames, ignore_index=True) for subset, frames in found.items()}


def mean_predictor_mse(clips: pd.DataFrame, splits: Splits) -> float:
    """The MSE on the validation clips of predicting the mean rating of the training clips."""
    validation = held_out_clips(clips, splits)["validation"]
    return METRICS["mse"](validation["truth"], validation["mean"])


class _Predictions:
    """The predictions of all runs for the clips of one subset, and the resampling that all scores share."""

    def __init__(self, subset: str, held_out: pd.DataFrame):
        self.subset = subset
        self.ids = held_out["id"]
        self.truth = held_out["truth"].to_numpy(np.float64)
        self.constant = [held_out["mean"].to_numpy(np.float64)]
        self.groups, self.resampled = groups_of(held_out)
        self.resampling = Resampling(self.groups)
        self.by_seed: dict[Key, dict[int, np.ndarray]] = {}

    def add(self, key: Key, seed: int, frame: pd.DataFrame) -> None:
        """Add the predictions of one run."""
        values = frame[frame["subset"] == self.subset].set_index("id")["prediction"]
        self.by_seed.setdefault(key, {})[seed] = values.loc[self.ids].to_numpy(np.float64)

    def of(self, key: Key) -> list[np.ndarray]:
        """The predictions of a model and preset, one array a seed."""
        return list(self.by_seed[key].values())

    def comparisons(self, pairs: Sequence[Pair]) -> list[dict[str, dict[str, Any]]]:
        """Each pair compared by MSE and CCC, adjusted for the number of pairs: by metric, a `Comparison`."""
        found = {
            metric: corrected(metric, [compare(self.truth, *pair, self.resampling, metric) for pair in pairs])
            for metric in _COMPARED
        }
        return [{metric: vars(found[metric][number]) for metric in _COMPARED} for number in range(len(pairs))]

    def row(self, key: Key, standardise: str = "none", parameters: int = 1) -> dict[str, Any]:
        """The row of results.json for one model and preset, or for the mean predictor, which has no seeds."""
        by_seed = self.by_seed.get(key, {})
        predictions = list(by_seed.values()) or self.constant
        scores = {
            name: {str(seed): metric(self.truth, values) for seed, values in by_seed.items()}
            for name, metric in METRICS.items()
            if by_seed
        }
        against = compare(self.truth, predictions, self.constant, self.resampling)
        return {
            "model": key[0],
            "preset": key[1],
            "subset": self.subset,
            "standardise": standardise,
            **score(self.truth, predictions, self.resampling),
            "seed_sd": {name: float(np.std(list(of_seeds.values()))) for name, of_seeds in scores.items()},
            "parameters": parameters,
            "seeds": list(by_seed),
            "against_mean": vars(against) if by_seed else None,
            "by_seed": scores,
        }


def choose(folder: Path, runs: Sequence[str], fitted: bool = False) -> dict[str, str]:
    """The model and preset with the lowest validation MSE, averaged over seeds, and its run with the lowest.

    A model that is standardised by speaker is chosen only where all others use raw decibels. Runs of the
    ablation table are not chosen.

    Args:
        folder: of the report.
        runs: names of finished runs.
        fitted: choose only among models that are fitted in one step.

    Returns:
        {"model", "preset", "run"}.

    Raises:
        RunError: one of the runs is not finished.
    """
    scores: dict[tuple[str, str, str], dict[int, float]] = {}
    for run in runs:
        training = load_json(folder / "runs" / run / "settings.json")["training"]
        if training["preset"] in ABLATIONS or (fitted and not MODELS[training["model"]].fitted):
            continue
        frame = load_frame(folder / "runs" / run / "predictions.csv")
        held_out = frame[frame["subset"] == "validation"]
        mse = METRICS["mse"](held_out["truth"], held_out["prediction"])
        key = training["model"], training["preset"], training["standardise"]
        scores.setdefault(key, {})[training["seed"]] = mse
    if any(standardise not in ("speaker", "none") for *_, standardise in scores):
        scores = {key: by_seed for key, by_seed in scores.items() if key[2] != "speaker"}
    (model, preset, _), by_seed = min(scores.items(), key=lambda one: np.mean(list(one[1].values())))
    seed = min(by_seed, key=lambda seed: by_seed[seed])
    return {"model": model, "preset": preset, "run": run_name(model, preset, seed)}


def collect_results(
    folder: Path, runs: Sequence[str], tuning: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, float]]:
    """The content of results.json and of seconds.json.

    Args:
        folder: of the report.
        runs: names of finished runs.
        tuning: the content of sweep/best.json, where the tuned preset is among the runs.

    Raises:
        RunError: one of the runs is not finished, or the sweep used other clips or another split.
    """
    if tuning and tuning["clips"] != digest_of(folder / "preprocess" / "clips.csv"):
        raise RunError(
            "the tuned settings were found on other clips, or on another split, than those of this report; "
            "run `make sweep` again."
        )
    corpus = load_json(folder / "preprocess" / "corpus.json")
    clips = load_clips(folder)
    held_out = held_out_clips(clips, load_splits(folder))
    subsets = [_Predictions(subset, frame) for subset, frame in held_out.items()]
    settings: dict[Key, dict[str, Any]] = {}
    seconds: dict[str, list[float]] = {}
    for run in runs:
        content = load_json(folder / "runs" / run / "settings.json")
        training = content["training"]
        key = training["model"], training["preset"]
        settings[key] = training | {"parameters": content["parameters"]}
        frame = load_frame(folder / "runs" / run / "predictions.csv")
        for subset in subsets:
            if subset.subset in set(frame["subset"]):
                subset.add(key, training["seed"], frame)
        seconds.setdefault(title_of(training), []).append(_seconds(folder / "runs" / run))
    shown = {key: of_key for key, of_key in settings.items() if key[1] not in ABLATIONS}
    rows = []
    for subset in subsets:
        rows.append(subset.row(("mean", None)))
        rows += [subset.row(key, of["standardise"], of["parameters"]) for key, of in shown.items()]
    tested = subsets[-1]
    chosen = choose(folder, runs)
    key = chosen["model"], chosen["preset"]
    own = tested.by_seed[key][int(chosen["run"].rpartition("-")[2])]
    enough = len(own) - max(np.unique(tested.groups, return_counts=True)[1]) >= FEWEST_CLIPS
    leakage, across = folder / "leakage", None
    if len(corpus["corpora"]) > 1:
        files = folder / "cross_corpus"
        across = measure_pairs(load_json(files / "cross_corpus.json"), load_frame(files / "predictions.csv"))
    rated = clips.set_index("id").loc[tested.ids].reset_index()
    as_rated = as_raters(rated, {key: tested.of(key) for key in shown})
    results = {name: value for name, value in corpus.items() if name != "features"} | {
        "protocol": corpus["split"]["protocol"],
        "tested": tested.subset,
        "resampled": tested.resampled,
        "chosen": chosen,
        "comparisons": _comparisons(tested, key, list(shown)),
        "ablation": _ablation(tested, settings),
        "seeds_compared": _seeds_compared(tested, key),
        "as_a_rater": [{"model": of[0], "preset": of[1]} | scores for of, scores in as_rated.items()],
        "calibration": {
            **calibrate(tested.truth, own),
            "slope_interval": slope_interval(tested.truth, own, tested.resampling),
            "optima": optima(tested.truth, own),
        },
        "intervals_coverage": coverage(tested.truth, own, tested.groups) if enough else None,
        "leakage": measure(load_json(leakage / "leakage.json"), load_frame(leakage / "predictions.csv")),
        "cross_corpus": across,
        "by_corpus": _by_corpus(tested, held_out[tested.subset], clips, shown),
        "rows": rows,
    }
    if tuning:
        results["tuning"] = dict(tuning)
    return results, {title: float(np.mean(measured)) for title, measured in seconds.items()}


def _seconds(run: Path) -> float:
    """The time of all trainings of a run."""
    if members := load_json(run / "settings.json").get("members"):
        return sum(_seconds(run / member) for member in members)
    return float(load_json(run / "seconds.json")["seconds"])


def _by_corpus(
    tested: _Predictions,
    held_out: pd.DataFrame,
    clips: pd.DataFrame,
    shown: Mapping[Key, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The rows of each model on the tested clips of each corpus; none where these are of one corpus."""
    corpora = clips.set_index("id")["corpus"].loc[held_out["id"]].to_numpy(dtype=str)
    names = list(dict.fromkeys(corpora))
    if len(names) == 1:
        return []
    found = []
    for name in names:
        own = corpora == name
        part = _Predictions(tested.subset, held_out[own])
        part.by_seed = {
            key: {seed: values[own] for seed, values in by_seed.items()}
            for key, by_seed in tested.by_seed.items()
        }
        rows = [part.row(("mean", None))]
        rows += [part.row(key, of["standardise"], of["parameters"]) for key, of in shown.items()]
        found.append({"corpus": name, "rows": rows})
    return found


def _ablation(tested: _Predictions, settings: Mapping[Key, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The ablation table, one mapping a line: scores and their comparisons with the best model."""
    lines = [(line.words, line.added, (BEST_MODEL, preset)) for preset, line in ABLATIONS.items()]
    lines = [line for line in lines if line[2] in tested.by_seed]
    if not lines or (BEST_MODEL, "default") not in tested.by_seed:
        return []
    others = {"encoder": "the given encoder", "speaker": "standardising by speaker"}
    keys = {words: (BEST_MODEL, preset) for preset, words in others.items()}
    lines += [(words, True, key) for words, key in keys.items() if key in tested.by_seed]
    best = tested.of((BEST_MODEL, "default"))
    compared = tested.comparisons([(tested.of(key), best) for _, _, key in lines])
    return [
        {
            "words": words,
            "added": added,
            "model": key[0],
            "preset": key[1],
            "parameters": settings[key]["parameters"],
        }
        | {
            metric: {"score": METRICS[metric](tested.truth, tested.of(key)[0])} | by_metric[metric]
            for metric in _COMPARED
        }
        for (words, added, key), by_metric in zip(lines, compared, strict=True)
    ]


def _seeds_compared(tested: _Predictions, key: Key) -> list[dict[str, Any]]:
    """Every two seeds of a model compared."""
    by_seed = tested.by_seed[key]
    pairs = list(combinations(by_seed, 2))
    compared = tested.comparisons([([by_seed[first]], [by_seed[second]]) for first, second in pairs])
    return [{"seeds": list(pair)} | by_metric for pair, by_metric in zip(pairs, compared, strict=True)]


def _comparisons(tested: _Predictions, chosen: Key, keys: Sequence[Key]) -> list[dict[str, Any]]:
    """The chosen model compared with all others, each model with its raw decibels, tuned with untuned."""
    pairs = [(chosen, other) for other in keys if other != chosen]
    same = [(key, other) for key in keys for other in keys if key[0] == other[0] and key != other]
    pairs += [(key, raw) for key, raw in same if raw[1] == "course" and key != chosen]
    pairs += [
        (key, other)
        for key, other in same
        if key[1] == "tuned" and other[1] != "course" and chosen not in (key, other)
    ]
    compared = tested.comparisons([(tested.of(first), tested.of(second)) for first, second in pairs])
    return [
        {"subset": tested.subset, "metric": metric, "first": list(first), "second": list(second)}
        | by_metric[metric]
        for metric in _COMPARED
        for (first, second), by_metric in zip(pairs, compared, strict=True)
    ]
