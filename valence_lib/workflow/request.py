"""The jobs of a report in one table: what each runs, with which parameters, on which files, after which.

    preprocess ─► one job a run ─► leakage ─► compare ─► error_analysis ─► report ─► render

A build writes the table to request.json; workflow/Snakefile makes its rules from it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from valence_lib import provenance
from valence_lib.corpora.opening import open_corpus, split_names
from valence_lib.corpora.sources import Corpus
from valence_lib.errors import RunError, SettingsError, unknown_name
from valence_lib.files import digest_of
from valence_lib.registry import (
    ABLATIONS,
    BEST_MODEL,
    COURSE_MODELS,
    ENCODER_PRESETS,
    MODELS,
    NETWORKS,
    PRESETS,
    STREAMS,
    entries_of,
    missing_packages,
    modules_of,
    training_settings,
)
from valence_lib.settings import PROTOCOLS, CorpusSettings, Target, TrainingSettings
from valence_lib.workflow.corpora import report_name, seen_from, seen_from_notebooks
from valence_lib.workflow.jobs import REQUEST_FILE, Job, project_root

REPORT_PRESETS = ("default", "course", "clip", "speaker", "best")


@dataclass(frozen=True)
class Request:
    """What a report is made of.

    Args:
        corpus: "demo" or a path, or several between commas.
        test_corpus: the corpora to test on alone; "" for none.
        target: the rated dimension that is predicted, such as "valence".
        name: of the folder under reports/.
        preset: how networks are trained, beside the preset "course", which is always included. "best" is the
            default preset with all models and the ablation table.
        protocol: "holdout" (one training, validation and test subset), "cv" (cross-validation by speaker) or
            "corpora" (each corpus is tested by models that are trained on the others).
        folds: of the cross-validation.
        seed: the first seed, and that of the split.
        seeds: number of trainings of each network and preset, with successive seeds.
        epochs: of each training.
        precision: of each training's large products.
        scale: the ends of the rating scale of each corpus, as `opening.parse_scales` takes them.
        clips_per_speaker: number of clips of each speaker that are taken; 0 takes all.
        columns: names of the columns of the corpus's table, see `columns.parse_columns`; "" for usual ones.
        names_speakers: whether the corpus names speakers; without, nothing is standardised by speaker.
        best: content of sweep/best.json, whose settings are trained as one more row; empty for none.
        encoder: digest of a pretrained encoder, see `encoders.use_encoder`; "" for none.
        encoder_name: its name in the report.
        encoder_layer: the number of its layer, or "auto".
    """

    corpus: str = "demo"
    test_corpus: str = ""
    target: str = "valence"
    name: str = "demo"
    preset: str = "default"
    protocol: str = "holdout"
    folds: int = 6
    seed: int = 0
    seeds: int = 3
    epochs: int = 20
    precision: str = "float32"
    scale: str = "1,5"
    clips_per_speaker: int = 0
    names_speakers: bool = True
    columns: str = ""
    best: dict[str, Any] = field(default_factory=dict)
    encoder: str = ""
    encoder_name: str = ""
    encoder_layer: str = "auto"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise SettingsError(
                f"NAME={self.name!r} cannot name a folder under reports/; "
                "expected letters, digits, '.', '_' and '-', beginning with a letter or digit."
            )
        if self.preset not in REPORT_PRESETS:
            raise SettingsError(unknown_name("preset", self.preset, REPORT_PRESETS))
        if self.protocol not in PROTOCOLS:
            raise SettingsError(unknown_name("protocol", self.protocol, PROTOCOLS))
        if self.protocol != "holdout" and self.test_corpus:
            raise SettingsError(
                f"PROTOCOL={self.protocol} was given with TEST_CORPUS, which is tested as a whole; expected "
                "PROTOCOL=holdout. Scores within each corpus are in every report on several corpora."
            )
        if self.protocol == "corpora" and len(self.corpora) < 2:
            raise SettingsError(
                f"PROTOCOL=corpora was given for CORPUS={self.corpus}; expected two or more corpora, as in "
                "CORPUS=first,second."
            )
        if self.best and self.protocol != "holdout":
            raise SettingsError(
                f"TUNED=yes was given with PROTOCOL={self.protocol}, which tests on the clips on which the "
                "sweep chose its settings; expected PROTOCOL=holdout."
            )
        if self.folds < 3:
            raise SettingsError(
                f"FOLDS={self.folds} was given; expected 3 or more: to test, to validate, to train."
            )
        if self.seeds < 1:
            raise SettingsError(
                f"SEEDS={self.seeds} was given; expected the number of trainings of each model, 1 or more."
            )
        training_settings("LSTM2", "default", self.seed, epochs=self.epochs, precision=self.precision)
        CorpusSettings(self.clips_per_speaker, self.seed)
        Target(self.target)

    @property
    def corpora(self) -> list[str]:
        """The corpora, first those to train on."""
        return [*split_names(self.corpus), *split_names(self.test_corpus)]

    def open_corpus(self) -> Corpus:
        """The corpora as one.

        Raises:
            CorpusError: one of them cannot be read, or is given twice.
        """
        return open_corpus(
            self.corpus,
            columns=self.columns,
            target=self.target,
            scale=self.scale,
            test_corpus=self.test_corpus,
        )

    def runs(self) -> dict[str, dict[str, Any]]:
        """Model, preset, seed and, where there are any, changed settings of every run, by its name."""
        found = {}
        for model, preset in self._rows():
            if _missing_packages(model, preset):
                continue
            changes = {"changes": self.best["changes"]} if preset == "tuned" else {}
            for seed in range(self.seed, self.seed + (1 if MODELS[model].fitted else self.seeds)):
                found[f"{model}-{preset}-{seed}"] = {"model": model, "preset": preset, "seed": seed} | changes
        return found

    def missing(self) -> list[dict[str, str]]:
        """Model, preset, package and installing command of each row that lacks a package, and is left out."""
        return [
            {"model": model, "preset": preset, "package": package, "command": command}
            for model, preset in self._rows()
            for package, command in _missing_packages(model, preset).items()
        ]

    def _rows(self) -> list[tuple[str, str]]:
        """Model and preset of the rows of a report's tables, in their order."""
        first = "default" if self.preset == "best" else self.preset
        # One vector a clip cannot be standardised within the clip, and kernels need standardised features.
        plain = "speaker" if first == "speaker" and self.names_speakers else "default"
        rows = [
            (model, first if model in NETWORKS else plain)
            for model, entry in MODELS.items()
            if not entry.presets and model != BEST_MODEL
        ]
        rows += [(model, "course") for model in COURSE_MODELS]
        rows += [(BEST_MODEL, "default"), (BEST_MODEL, "speaker")]
        if self.encoder:
            rows += [(BEST_MODEL, preset) for preset in ENCODER_PRESETS]
        if self.preset == "best":
            rows += [(model, preset) for model, entry in MODELS.items() for preset in entry.presets]
            # The ablation table compares with the best model.
            if not missing_packages(MODELS[BEST_MODEL].recipe["streams"]):
                rows += [(BEST_MODEL, preset) for preset in ABLATIONS]
        if self.best:
            rows.append((self.best["model"], "tuned"))
        if not self.names_speakers:
            rows = [row for row in rows if PRESETS[row[1]].get("standardise") != "speaker"]
        return list(dict.fromkeys(rows))

    def jobs(self, corpus_digest: str) -> list[Job]:
        """The table of jobs, each below those that it starts after."""
        runs = self.runs()
        common: dict[str, Any] = {"epochs": self.epochs, "precision": self.precision}
        settings = {
            name: training_settings(
                run["model"], run["preset"], run["seed"], **common, **run.get("changes", {})
            )
            for name, run in runs.items()
        }
        streams = {name for training in settings.values() for name in training.streams} - {"log_mel"}
        if not self.names_speakers:  # the leakage analysis clusters voices instead
            streams.add("pitch")
        modules = {name: tuple(sorted(set(modules_of(training)))) for name, training in settings.items()}
        fitted = [name for name, run in runs.items() if MODELS[run["model"]].fitted]
        of_fitted = {module for name in fitted for module in modules[name]}
        models = list(dict.fromkeys(run["model"] for run in runs.values()))

        def paths(*names: str) -> tuple[str, ...]:
            return tuple(f"reports/{self.name}/{name}" for name in names)

        def paths_of_runs(*names: str) -> tuple[str, ...]:
            return paths(*(f"runs/{run}/{name}" for run in runs for name in names))

        report = {"report": f"../reports/{self.name}"}
        seen, n_trained = seen_from_notebooks(self.corpora, self.name), len(split_names(self.corpus))
        corpus = {"corpus": ",".join(seen[:n_trained]), "test_corpus": ",".join(seen[n_trained:])}
        corpus |= {"columns": self.columns, "target": self.target, "scale": self.scale}
        preprocessing = {
            name: getattr(self, name)
            for name in (
                *("clips_per_speaker", "protocol", "folds", "seed"),
                *("encoder", "encoder_name", "encoder_layer"),
            )
        } | {"streams": sorted(streams)}
        clips = paths("preprocess/clips.csv", "preprocess/corpus.json")
        splits = clips + paths("preprocess/splits.csv") if self.protocol != "holdout" else clips
        excluded = paths("preprocess/quarantine.csv")
        analyses = paths("leakage/leakage.json", "leakage/predictions.csv")
        if len(self.corpora) > 1:
            analyses += paths("cross_corpus/cross_corpus.json", "cross_corpus/predictions.csv")
        predictions = paths_of_runs("predictions.csv", "settings.json")
        templates = sorted((provenance.PACKAGE / "report" / "templates" / "report").glob("*.*"))
        records = paths(
            *(f"provenance/{job}.json" for job in ("preprocess", *runs, "compare", "error_analysis"))
        )
        return [
            Job(
                "preprocess",
                "notebooks/1_preprocess.ipynb",
                (),
                ("notebooks/1_preprocess.ipynb", "preprocess"),
                parameters=report | corpus | preprocessing,
                modules=tuple(STREAMS[name].module for name in sorted(streams)),
                values={
                    "corpus": corpus_digest,
                    "registry": [STREAMS[name]._asdict() for name in sorted(streams)],
                },
                minutes=120,
            ),
            *(
                Job(
                    name,
                    "notebooks/2_experiment.ipynb",
                    splits,
                    (f"runs/{name}/2_experiment.ipynb", f"runs/{name}"),
                    after=("preprocess",),
                    parameters=report | run | common,
                    modules=modules[name],
                    values={"settings": settings[name].to_mapping(), "registry": entries_of(settings[name])},
                    memory=3000,
                    minutes=240,
                    priority=models.index(run["model"]),  # the slowest to train come last in the registry
                )
                for name, run in runs.items()
            ),
            Job(
                "leakage",
                "notebooks/leakage.ipynb",
                splits + predictions,
                ("leakage/leakage.ipynb", "leakage/leakage.json", "leakage/predictions.csv"),
                after=tuple(runs),
                parameters={**report, "runs": list(runs), "folds": self.folds},
                modules=tuple(sorted(of_fitted)),  # it analyses the best of them
                values={"registry": [entries_of(settings[name]) for name in fitted]},
                memory=3000,
                minutes=240,
            ),
            *self._cross_corpus(splits + predictions, runs, of_fitted, [settings[name] for name in fitted]),
            Job(
                "compare",
                "notebooks/3_compare.ipynb",
                splits + excluded + predictions + analyses,
                ("notebooks/3_compare.ipynb", "results.json", "seconds.json", "predictions.csv"),
                after=("preprocess", *runs, "leakage", *(["cross_corpus"] * (len(self.corpora) > 1))),
                parameters={**report, "runs": list(runs)} | ({"tuning": self.best} if self.best else {}),
            ),
            Job(
                "error_analysis",
                "notebooks/4_error_analysis.ipynb",
                paths("results.json") + splits + predictions,
                ("notebooks/4_error_analysis.ipynb", "errors"),
                after=("compare",),
                parameters=report | corpus,
                modules=tuple(sorted({module for found in modules.values() for module in found})),
            ),
            Job(
                "report",
                "notebooks/5_report.ipynb",
                (
                    *paths("results.json", "errors/errors.json", "errors/worst.npz"),
                    *clips,
                    *excluded,
                    *paths_of_runs("predictions.csv", "settings.json", "curves.csv"),
                    *records,
                    "notebooks/published.csv",
                ),
                ("notebooks/5_report.ipynb", "tables", "figures"),
                after=("compare", "error_analysis"),
                parameters={**report, "missing": self.missing()},
                modules=tuple(MODELS[name].module for name in NETWORKS),
                values={"settings": _settings(COURSE_MODELS, "default", 0)},
            ),
            Job(
                "render",
                "valence_lib/report/rendering.py",
                (
                    *paths("notebooks/5_report.ipynb"),
                    "notebooks/references.bib",
                    *(path.relative_to(provenance.PACKAGE.parent).as_posix() for path in templates),
                ),
                ("report.html", "report.pdf"),
                after=("report",),
            ),
        ]

    def _cross_corpus(
        self,
        inputs: tuple[str, ...],
        runs: Mapping[str, Any],
        modules: Iterable[str],
        settings: Sequence[TrainingSettings],
    ) -> list[Job]:
        """The job that trains on each corpus and tests on each, where there are several."""
        if len(self.corpora) == 1:
            return []
        return [
            Job(
                "cross_corpus",
                "notebooks/cross_corpus.ipynb",
                inputs,
                (
                    "cross_corpus/cross_corpus.ipynb",
                    "cross_corpus/cross_corpus.json",
                    "cross_corpus/predictions.csv",
                ),
                after=tuple(runs),
                parameters={"report": f"../reports/{self.name}", "runs": list(runs), "folds": self.folds},
                modules=tuple(sorted(modules)),
                values={"registry": [entries_of(of_run) for of_run in settings]},
                memory=3000,
                minutes=240,
            )
        ]

    def workers(self, trials: int, minutes: float, count: int) -> list[Job]:
        """The jobs of a sweep after preprocessing: workers at one study with a budget of trials or minutes.

        Raises:
            SettingsError: there is no worker.
        """
        if count < 1:
            raise SettingsError(f"JOBS={count} was given; expected the number of workers, 1 or more.")
        folder = f"reports/{self.name}"
        return [
            Job(
                f"sweep-{worker}",
                "notebooks/sweep.ipynb",
                (f"{folder}/preprocess/clips.csv", f"{folder}/preprocess/corpus.json"),
                (f"sweep/worker-{worker}.ipynb", "sweep/best.json"),
                after=("preprocess",),
                parameters={
                    "report": f"../{folder}",
                    "budget_trials": trials,
                    "budget_minutes": minutes,
                    "epochs": self.epochs,
                    "seed": self.seed,
                    "worker": worker,
                },
                modules=tuple(MODELS[name].module for name in COURSE_MODELS),
                values={"settings": _settings(COURSE_MODELS, "tuned", self.seed, epochs=self.epochs)},
                memory=3000,
                minutes=1440,
                cacheable=False,
            )
            for worker in range(1, count + 1)
        ]


def _missing_packages(model: str, preset: str) -> dict[str, str]:
    return missing_packages(training_settings(model, preset, seed=0).streams)


def _settings(models: Iterable[str], preset: str, seed: int, **changes: Any) -> dict[str, dict[str, Any]]:
    return {name: training_settings(name, preset, seed, **changes).to_mapping() for name in models}


def load_best(name: str) -> dict[str, Any]:
    """The best settings that the sweep of a report found: the content of sweep/best.json.

    Raises:
        RunError: there was no sweep, or the clips or their split have changed since.
    """
    folder = project_root() / "reports" / name
    path, clips = folder / "sweep" / "best.json", folder / "preprocess" / "clips.csv"
    if not path.is_file() or not clips.is_file():
        raise RunError(f"there is no reports/{name}/sweep/best.json; run `make sweep` for this report first.")
    best = json.loads(path.read_text(encoding="utf-8"))
    if digest_of(clips) != best["clips"]:
        raise RunError(
            f"reports/{name}/sweep/best.json was chosen on other clips, or on another split of them, than "
            "the report has; run `make sweep` again."
        )
    return best


def default_name(corpus: str, tested: str = "", target: str = "valence") -> str:
    """A report's name after its corpora and its target; see `corpora.report_name`.

    Raises:
        RunError: a report of that name is on other corpora.
    """
    name, root = report_name(corpus, tested, target), project_root()
    earlier = root / "reports" / name / REQUEST_FILE
    if earlier.is_file():
        before = json.loads(earlier.read_text(encoding="utf-8"))
        if [before["corpus"], before.get("test_corpus", "")] != [
            seen_from(corpus, root),
            seen_from(tested, root),
        ]:
            raise RunError(
                f"reports/{name} is on another corpus than {corpus!r}; give this report a NAME of its own."
            )
    return name
