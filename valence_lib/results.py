"""The runs of a report -> results.json: scores, what differs from what, and which run is chosen."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from valence_lib.agreement import as_raters
from valence_lib.calibration import FEWEST_CLIPS, calibrate, coverage, optima, slope_interval
from valence_lib.errors import RunError
from valence_lib.evaluation import Resampling, compare, corrected, groups_of, score
from valence_lib.files import digest_of
from valence_lib.leakage import measure
from valence_lib.metrics import METRICS
from valence_lib.protocols import OUT_OF_FOLD, Divisions
from valence_lib.registry import ABLATIONS, BEST_MODEL, MODELS
from valence_lib.report import load_divisions, load_frame, load_json, run_name
from valence_lib.tables import title_of

Key = tuple[str, str]  # model and preset


def held_out_clips(clips: pd.DataFrame, divisions: Divisions) -> dict[str, pd.DataFrame]:
    """The clips that are predicted without having been trained on, by part: "validation", then "test" or "out_of_fold".

    Returns:
        Each part's clips, with the columns id, speaker, truth and mean: the mean rating of the clips that were trained on, which
        is what a predictor says that has heard nothing.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for division, parts in divisions.items():
        mean = float(clips.loc[parts == "train", "valence"].mean())
        for part, name in (("validation", "validation"), ("test", OUT_OF_FOLD if division else "test")):
            held_out = clips.loc[parts == part, ["id", "speaker", "valence"]].rename(
                columns={"valence": "truth"}
            )
            found.setdefault(name, []).append(held_out.assign(mean=mean))
    return {part: pd.concat(frames, ignore_index=True) for part, frames in found.items()}


def mean_predictor_mse(clips: pd.DataFrame, divisions: Divisions) -> float:
    """The MSE on all validation clips of predicting the training clips' mean rating."""
    validation = held_out_clips(clips, divisions)["validation"]
    return METRICS["mse"](validation["truth"], validation["mean"])


class _Scored:
    """The predictions of all runs for one part, clip by clip, and the draws that all scores of it share."""

    def __init__(self, part: str, held_out: pd.DataFrame):
        self.part = part
        self.ids = held_out["id"]
        self.truth = held_out["truth"].to_numpy(np.float64)
        self.constant = [held_out["mean"].to_numpy(np.float64)]
        self.clips = held_out
        self.groups = groups_of(held_out)[0]
        self.resampling = Resampling(self.groups)
        self.predictions: dict[Key, dict[int, np.ndarray]] = {}

    def add(self, key: Key, seed: int, frame: pd.DataFrame) -> None:
        """Take what one run predicts."""
        values = frame[frame["part"] == self.part].set_index("id")["prediction"]
        self.predictions.setdefault(key, {})[seed] = values.loc[self.ids].to_numpy(np.float64)

    def of(self, key: Key) -> list[np.ndarray]:
        """What the seeds of a model and preset predict."""
        return list(self.predictions[key].values())

    def row(self, key: Key, standardise: str, parameters: int) -> dict[str, Any]:
        """The row of results.json for one model and preset."""
        by_seed = self.predictions[key]
        scores = {
            name: {str(seed): metric(self.truth, values) for seed, values in by_seed.items()}
            for name, metric in METRICS.items()
        }
        against = compare("mse", self.truth, self.of(key), self.constant, self.resampling)
        return (
            {"model": key[0], "preset": key[1], "part": self.part, "standardise": standardise}
            | score(self.truth, self.of(key), self.resampling)
            | {
                "seed_sd": {
                    name: float(np.std(list(of_seeds.values()))) for name, of_seeds in scores.items()
                },
                "parameters": parameters,
                "seeds": list(by_seed),
                "against_mean": vars(against),
                "by_seed": scores,
            }
        )

    def mean_row(self) -> dict[str, Any]:
        """The row of predicting the mean rating of the clips that were trained on."""
        return (
            {"model": "mean", "preset": None, "part": self.part, "standardise": "none"}
            | score(self.truth, self.constant, self.resampling)
            | {"seed_sd": {}, "parameters": 1, "seeds": [], "against_mean": None, "by_seed": {}}
        )


def choose(folder: Path, runs: Sequence[str], fitted: bool = False) -> dict[str, str]:
    """The model, preset and run that a report goes on with: see `_choose`.

    Args:
        fitted: choose among models that are fitted in one step alone.

    Raises:
        RunError: one of the runs is not finished.
    """
    scores: dict[tuple[Key, str], dict[int, float]] = {}
    for run in runs:
        training = load_json(folder / "runs" / run / "settings.json")["training"]
        if training["preset"] in ABLATIONS or (fitted and not MODELS[training["model"]].fitted):
            continue
        frame = load_frame(folder / "runs" / run / "predictions.csv")
        held_out = frame[frame["part"] == "validation"]
        key = (training["model"], training["preset"]), training["standardise"]
        mse = METRICS["mse"](held_out["truth"], held_out["prediction"])
        scores.setdefault(key, {})[training["seed"]] = mse
    return _choose(scores)


def collect_results(
    folder: Path,
    runs: Sequence[str],
    tuning: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, float]]:
    """The content of results.json and of seconds.json, from the runs' folders.

    Args:
        tuning: content of sweep/best.json, where the tuned preset is among the runs.

    Raises:
        RunError: one of the runs is not finished, or what was found best was chosen on other clips.
    """
    if tuning and tuning["clips"] != digest_of(folder / "preprocess" / "clips.csv"):
        raise RunError(
            "the setting that a sweep found best was chosen on other clips, or on another division of them, than "
            "those of this report; run `make sweep` again."
        )
    corpus = load_json(folder / "preprocess" / "corpus.json")
    clips = load_frame(folder / "preprocess" / "clips.csv")
    divisions = load_divisions(folder)
    held_out = held_out_clips(clips, divisions)
    scored = {part: _Scored(part, of_part) for part, of_part in held_out.items()}
    settings: dict[Key, dict[str, Any]] = {}
    seconds: dict[str, list[float]] = {}
    for run in runs:
        content = load_json(folder / "runs" / run / "settings.json")
        training = content["training"]
        key = training["model"], training["preset"]
        settings[key] = training | {"parameters": content["parameters"]}
        frame = load_frame(folder / "runs" / run / "predictions.csv")
        for of_part in scored.values():
            if of_part.part in set(frame["part"]):
                of_part.add(key, training["seed"], frame)
        seconds.setdefault(title_of(training), []).append(_seconds(folder / "runs" / run))
    shown = {key: made for key, made in settings.items() if key[1] not in ABLATIONS}
    rows = [
        row
        for of_part in scored.values()
        for row in [
            of_part.mean_row(),
            *(of_part.row(key, made["standardise"], made["parameters"]) for key, made in shown.items()),
        ]
    ]
    tested = scored[list(scored)[-1]]
    chosen = choose(folder, runs)
    key = chosen["model"], chosen["preset"]
    own = tested.predictions[key][int(chosen["run"].rpartition("-")[2])]
    results = {key: value for key, value in corpus.items() if key != "features"} | {
        "protocol": corpus["split"]["protocol"],
        "tested": tested.part,
        "resampled": groups_of(held_out[tested.part])[1],
        "chosen": chosen,
        "comparisons": _comparisons(tested, key, shown),
        "ablation": _ablation(tested, settings),
        "seeds_compared": _seeds_compared(tested, key),
        "as_a_rater": _judged_as_raters(tested, clips, shown),
        "calibration": calibrate(tested.truth, own)
        | {
            "slope_interval": slope_interval(tested.truth, own, tested.resampling),
            "optima": optima(tested.truth, own),
        },
        "intervals_coverage": _coverage(tested, own),
        "leakage": measure(folder / "leakage"),
        "rows": rows,
    }
    if tuning:
        results["tuning"] = dict(tuning)
    return results, {title: float(np.mean(measured)) for title, measured in seconds.items()}


def _seconds(run: Path) -> float:
    """Seconds of all trainings of a run."""
    if members := load_json(run / "settings.json").get("members"):
        return sum(_seconds(run / member) for member in members)
    return float(load_json(run / "seconds.json")["seconds"])


def _choose(scores: Mapping[tuple[Key, str], Mapping[int, float]]) -> dict[str, str]:
    """The model and preset with the lowest validation MSE, averaged over seeds, and its run with the lowest.

    What is standardised by speaker needs other clips of whoever is to be predicted: it is chosen only where the report has
    nothing else but raw decibels.

    Args:
        scores: validation MSE by seed, of each model and preset with its way to standardise.
    """
    if any(standardise not in ("speaker", "none") for _, standardise in scores):
        scores = {key: by_seed for key, by_seed in scores.items() if key[1] != "speaker"}
    ((model, preset), _), by_seed = min(scores.items(), key=lambda one: np.mean(list(one[1].values())))
    seed = min(by_seed, key=lambda seed: by_seed[seed])
    return {"model": model, "preset": preset, "run": run_name(model, preset, seed)}


def _coverage(tested: _Scored, own: np.ndarray) -> dict[str, Any] | None:
    """How many clips their prediction intervals hold; None where there are too few clips to make any."""
    largest = max(np.unique(tested.groups, return_counts=True)[1])
    if len(own) - largest < FEWEST_CLIPS:
        return None
    return coverage(tested.truth, own, tested.groups)


def _ablation(tested: _Scored, settings: Mapping[Key, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How the best model's scores change with its input features, and with standardising by speaker.

    Returns:
        One row a line of the ablation table: words, added, model, preset, parameters, and by metric the score and the
        comparison with the best model (its score less that of the best model). None without such runs.
    """
    lines = [(line.words, line.added, (BEST_MODEL, preset)) for preset, line in ABLATIONS.items()]
    lines = [line for line in lines if line[2] in tested.predictions]
    if not lines or (BEST_MODEL, "default") not in tested.predictions:
        return []
    others = [
        ("the encoder that was named", True, (BEST_MODEL, "encoder")),
        ("standardising by speaker", True, (BEST_MODEL, "speaker")),
    ]
    lines += [line for line in others if line[2] in tested.predictions]
    best = tested.of((BEST_MODEL, "default"))
    comparisons = {
        metric: corrected(
            metric,
            [compare(metric, tested.truth, tested.of(key), best, tested.resampling) for _, _, key in lines],
        )
        for metric in ("mse", "ccc")
    }
    return [
        {
            "words": words,
            "added": added,
            "model": key[0],
            "preset": key[1],
            "parameters": settings[key]["parameters"],
        }
        | {
            metric: {"score": METRICS[metric](tested.truth, tested.of(key)[0])} | vars(made[number])
            for metric, made in comparisons.items()
        }
        for number, (words, added, key) in enumerate(lines)
    ]


def _seeds_compared(tested: _Scored, key: Key) -> list[dict[str, Any]]:
    """Every two seeds of a model against each other, by MSE and CCC: the part of chance in training."""
    by_seed = tested.predictions[key]
    pairs = list(combinations(by_seed, 2))
    made = {
        metric: corrected(
            metric,
            [
                compare(metric, tested.truth, [by_seed[first]], [by_seed[second]], tested.resampling)
                for first, second in pairs
            ],
        )
        for metric in ("mse", "ccc")
    }
    return [
        {"seeds": list(pair)} | {metric: vars(of_metric[number]) for metric, of_metric in made.items()}
        for number, pair in enumerate(pairs)
    ]


def _judged_as_raters(tested: _Scored, clips: pd.DataFrame, shown: Mapping[Key, Any]) -> list[dict[str, Any]]:
    """What each model scores where it is judged as each rater is, by the mean of the others; empty without raters."""
    rated = clips.set_index("id").loc[tested.ids].reset_index()
    found = as_raters(rated, {key: tested.of(key) for key in shown})
    return [{"model": model, "preset": preset} | scores for (model, preset), scores in found.items()]


def _comparisons(scored: _Scored, chosen: Key, keys: Mapping[Key, Any]) -> list[dict[str, Any]]:
    """On the tested clips' MSE and CCC: the chosen model against every other, each model's preset against raw decibels, and
    a tuned model against itself untuned."""
    pairs = [(chosen, other) for other in keys if other != chosen]
    pairs += [
        (key, raw) for key in keys if key[1] != "seed" and (raw := (key[0], "seed")) in keys and key != chosen
    ]
    pairs += [
        (key, other)
        for key in keys
        for other in keys
        if key[1] == "tuned" and other[0] == key[0] and other[1] not in ("tuned", "seed")
        if chosen not in (key, other)
    ]
    found = []
    for metric in ("mse", "ccc"):
        comparisons = [
            compare(metric, scored.truth, scored.of(first), scored.of(second), scored.resampling)
            for first, second in pairs
        ]
        found += [
            {"part": scored.part, "metric": metric, "first": list(first), "second": list(second)} | vars(one)
            for (first, second), one in zip(pairs, corrected(metric, comparisons), strict=True)
        ]
    return found
