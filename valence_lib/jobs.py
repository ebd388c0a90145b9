"""What a report is to be made of, and the jobs that make it: which notebook, with which parameters, from which code.

    preprocess ─► one job a run ─► leakage ─► compare ─► error_analysis ─► report ─► render

Which files a job reads and leaves stands in workflow/Snakefile; what it is made of beside those files, here.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valence_lib.cells import code_of, complete_parameters, text_of
from valence_lib.errors import RunError, SettingsError, unknown_name
from valence_lib.files import digest_of
from valence_lib.protocols import PROTOCOLS
from valence_lib.provenance import (
    LOCK,
    PACKAGE,
    digest_of_code,
    digest_of_content,
    digest_of_lock,
    modules_reached,
    python_version,
)
from valence_lib.registry import (
    ABLATIONS,
    BEST_MODEL,
    COURSE_MODELS,
    ENCODER_PRESETS,
    MODELS,
    NETWORKS,
    PRESETS,
    STREAMS,
    missing_packages,
    modules_of,
    training_settings,
)
from valence_lib.settings import CorpusSettings

REQUEST_FILE = "request.json"  # in the report's folder: what Snakemake, the jobs and `valence verify` read
CORPUS_LINK = "corpus"  # in the report's folder: so that notebooks name the corpus alike wherever it lies
REPORT_PRESETS = ("default", "seed", "clip", "speaker", "best")
# Part of what every job is made of: raise it when the program that runs notebooks changes what they look like.
_FORMAT = 1


def project_root() -> Path:
    """The clone that holds this package, its notebooks and its workflow.

    Raises:
        RunError: the package was installed without them.
    """
    root = PACKAGE.resolve().parent
    if not (root / "workflow" / "Snakefile").is_file():
        raise RunError(
            f"{root} holds no workflow/Snakefile; reports are made from a clone of the project, "
            "installed with pip install -e . (which `make report` does)."
        )
    return root


@dataclass(frozen=True)
class Job:
    """One step of a report.

    Args:
        name: "preprocess", a run such as "CNN-default-0", "compare", ...
        program: a notebook, or a module of this package with its command; seen from the project's folder.
        main: the first file that it leaves, seen from the report's folder.
        parameters: of the notebook.
        modules: of this package that it reaches by the registry's names for them.
        values: what else it is made of, such as a corpus's digest.
        data: files or folders of the project that it reads by itself.
        restorable: whether all that it leaves comes from what it is made of; a worker of a sweep goes on from what
            others have left meanwhile.
    """

    name: str
    program: str
    main: str
    parameters: dict[str, Any] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    restorable: bool = True

    @property
    def is_notebook(self) -> bool:
        """Whether it runs a notebook."""
        return self.program.endswith(".ipynb")

    def made_of(self, root: Path) -> dict[str, Any]:
        """All that decides over its artefacts, but for the files that other jobs leave.

        Raises:
            NotebookError: the notebook cannot be read, or does not have one of the parameters.
        """
        path = root / self.program
        sources = code_of(path) if self.is_notebook else [path.read_text(encoding="utf-8")]
        given = complete_parameters(path, self.parameters) if self.is_notebook else {}
        return {
            "format": _FORMAT,
            "program": self.program,
            "code": digest_of_content([digest_of_code(source) for source in sources]),
            "text": digest_of_content(text_of(path)) if self.is_notebook else "",
            "parameters": given,
            "modules": modules_reached(sources, self.modules),
            "values": self.values,
            "data": {
                str(file.relative_to(root)): digest_of(file)
                for name in self.data
                for file in sorted(_files(root / name))
            },
            "lock": digest_of_lock(root / LOCK),
            "python": python_version(),
        }


def _files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


@dataclass(frozen=True)
class Request:
    """What a report is to be made of.

    Args:
        corpus: "demo" or a path.
        name: of the folder under reports/.
        preset: how to train; preset seed, the course report's way, is always shown beside it. "best" is the default
            preset with all models and the ablation table.
        protocol: "holdout" (training, validation and test part) or "cv" (every clip is tested once, in folds by speaker).
        folds: of a cross-validation.
        seed: the first seed, and that of the split.
        seeds: how many trainings of each model and preset, with successive seeds.
        epochs: of each training.
        precision: of each training's large products.
        valence_low, valence_high: the rating scale.
        clips_per_speaker: a smaller corpus of the first so many clips of each speaker; 0 takes all.
        names_speakers: whether the corpus does, without which nothing can be standardised by speaker.
        best: content of sweep/best.json, whose setting is trained as one more row; empty for none.
        encoder: digest of a pretrained encoder, as `encoders.use_encoder` gives it; "" for none.
        encoder_name: what the user calls it.
        encoder_layer: the number of its layer, or "auto".
    """

    corpus: str = "demo"
    name: str = "demo"
    preset: str = "default"
    protocol: str = "holdout"
    folds: int = 6
    seed: int = 0
    seeds: int = 3
    epochs: int = 20
    precision: str = "float32"
    valence_low: float = 1.0
    valence_high: float = 5.0
    clips_per_speaker: int = 0
    names_speakers: bool = True
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
        if self.best and self.protocol == "cv":
            raise SettingsError(
                "TUNED=yes was given with PROTOCOL=cv, which tests the very clips by which a sweep chose its setting; "
                "expected PROTOCOL=holdout."
            )
        if self.folds < 3:
            raise SettingsError(
                f"FOLDS={self.folds} was given; expected 3 or more: one to test, one to validate, and others to train on."
            )
        if self.seeds < 1:
            raise SettingsError(
                f"SEEDS={self.seeds} was given; expected how many trainings of each model, 1 or more."
            )
        training_settings("LSTM2", "default", self.seed, epochs=self.epochs, precision=self.precision)
        CorpusSettings(self.valence_low, self.valence_high, self.clips_per_speaker, self.seed)

    def runs(self) -> dict[str, dict[str, Any]]:
        """Every run by its name: model, preset, seed, and changes of its settings where there are any."""
        found = {}
        for model, preset in self._rows():
            if missing_packages(training_settings(model, preset, self.seed).streams):
                continue
            changes = self.best["changes"] if preset == "tuned" else {}
            for seed in range(self.seed, self.seed + (1 if MODELS[model].fitted else self.seeds)):
                run = {"model": model, "preset": preset, "seed": seed}
                found[f"{model}-{preset}-{seed}"] = run | ({"changes": changes} if changes else {})
        return found

    def missing(self) -> list[dict[str, str]]:
        """The rows that are left out since a package is not installed: model, preset, package and the command that installs it."""
        return [
            {"model": model, "preset": preset, "package": package, "command": command}
            for model, preset in self._rows()
            for package, command in missing_packages(
                training_settings(model, preset, self.seed).streams
            ).items()
        ]

    def _rows(self) -> list[tuple[str, str]]:
        """The models and presets of which a report's tables have a row, in their order."""
        first = "default" if self.preset == "best" else self.preset
        # One row of numbers a clip cannot be standardised within the clip, nor a kernel be fitted to raw decibels.
        plain = "speaker" if first == "speaker" and self.names_speakers else "default"
        rows = [
            (model, first if model in NETWORKS else plain)
            for model, entry in MODELS.items()
            if not entry.presets and model != BEST_MODEL
        ]
        rows += [(model, "seed") for model in COURSE_MODELS]
        rows += [(BEST_MODEL, "default"), (BEST_MODEL, "speaker")]
        if self.encoder:
            rows += [(BEST_MODEL, preset) for preset in ENCODER_PRESETS]
        if self.preset == "best":
            rows += [(model, preset) for model, entry in MODELS.items() for preset in entry.presets]
            # Without the best model itself, there is nothing to compare with.
            if not missing_packages(MODELS[BEST_MODEL].recipe["streams"]):
                rows += [(BEST_MODEL, preset) for preset in ABLATIONS]
        if self.best:
            rows.append((self.best["model"], "tuned"))
        if not self.names_speakers:
            rows = [row for row in rows if PRESETS[row[1]].get("standardise") != "speaker"]
        return list(dict.fromkeys(rows))

    def jobs(self, corpus_digest: str) -> list[Job]:
        """Every step, each after those whose files it reads."""
        report = {"report": f"../reports/{self.name}"}
        tuned = {"tuning": self.best} if self.best else {}
        common: dict[str, Any] = {"epochs": self.epochs, "precision": self.precision}
        of_run = {
            name: training_settings(
                run["model"], run["preset"], run["seed"], **common, **run.get("changes", {})
            )
            for name, run in self.runs().items()
        }
        streams = {name for settings in of_run.values() for name in settings.streams} - {"log_mel"}
        if not self.names_speakers:  # clusters of voices take their place in the leakage analysis
            streams.add("pitch")
        preprocess = Job(
            "preprocess",
            "notebooks/1_preprocess.ipynb",
            "notebooks/1_preprocess.ipynb",
            report
            | {
                "corpus": self.corpus_seen_from_notebooks(),
                "valence_low": self.valence_low,
                "valence_high": self.valence_high,
                "clips_per_speaker": self.clips_per_speaker,
                "protocol": self.protocol,
                "folds": self.folds,
                "streams": sorted(streams),
                "encoder": self.encoder,
                "encoder_name": self.encoder_name,
                "encoder_layer": self.encoder_layer,
                "seed": self.seed,
            },
            modules=tuple(STREAMS[name].module for name in sorted(streams)),
            values={"corpus": corpus_digest},
        )
        experiments = [
            Job(
                name,
                "notebooks/2_experiment.ipynb",
                f"runs/{name}/2_experiment.ipynb",
                report | run | common,
                modules=tuple(sorted(set(modules_of(of_run[name])))),
                values={"settings": of_run[name].to_mapping()},
            )
            for name, run in self.runs().items()
        ]
        runs = {"runs": list(self.runs())}
        every_module = tuple(sorted({module for job in experiments for module in job.modules}))
        of_fitted = {
            module
            for settings in of_run.values()
            if MODELS[settings.model].fitted
            for module in modules_of(settings)
        }
        leakage = Job(
            "leakage",
            "notebooks/leakage.ipynb",
            "leakage/leakage.ipynb",
            report | runs | {"folds": self.folds},
            modules=tuple(sorted(of_fitted)),  # which of them is analysed is known once they are fitted
        )
        compare = Job(
            "compare",
            "notebooks/3_compare.ipynb",
            "notebooks/3_compare.ipynb",
            report | runs | tuned,
        )
        errors = Job(
            "error_analysis",
            "notebooks/4_error_analysis.ipynb",
            "notebooks/4_error_analysis.ipynb",
            report | {"corpus": self.corpus_seen_from_notebooks()},
            modules=every_module,
        )
        write_up = Job(
            "report",
            "notebooks/5_report.ipynb",
            "notebooks/5_report.ipynb",
            report | {"missing": self.missing()},
            modules=_modules_of_models(NETWORKS),
            values={"settings": _recipes(COURSE_MODELS, "default", 0)},
        )
        render = Job(
            "render",
            "valence_lib/rendering.py",
            "report.html",
            data=("valence_lib/templates/report",),
        )
        return [preprocess, *experiments, leakage, compare, errors, write_up, render]

    def workers(self, trials: int, minutes: float, count: int) -> list[Job]:
        """The jobs of a sweep: `count` workers at one study, whose budget is `trials` or `minutes`.

        Raises:
            SettingsError: not one worker.
        """
        if count < 1:
            raise SettingsError(
                f"JOBS={count} was given; expected how many workers share the sweep, 1 or more."
            )
        return [
            Job(
                f"sweep-{worker}",
                "notebooks/sweep.ipynb",
                f"sweep/worker-{worker}.ipynb",
                {
                    "report": f"../reports/{self.name}",
                    "budget_trials": trials,
                    "budget_minutes": minutes,
                    "epochs": self.epochs,
                    "seed": self.seed,
                    "worker": worker,
                },
                modules=_modules_of_models(COURSE_MODELS),
                restorable=False,
                values={"settings": _recipes(COURSE_MODELS, "tuned", self.seed, epochs=self.epochs)},
            )
            for worker in range(1, count + 1)
        ]

    def corpus_seen_from_notebooks(self) -> str:
        """How the notebooks name the corpus: through the report's folder, so that no path of this machine gets into them."""
        if self.corpus == "demo":
            return self.corpus
        link = f"../reports/{self.name}/{CORPUS_LINK}"
        path = Path(self.corpus).expanduser()
        return f"{link}/{path.name}" if path.is_file() else link


def _recipes(models: Iterable[str], preset: str, seed: int, **changes: Any) -> dict[str, dict[str, Any]]:
    """The resolved settings of some models, by name."""
    return {name: training_settings(name, preset, seed, **changes).to_mapping() for name in models}


def _modules_of_models(models: Iterable[str]) -> tuple[str, ...]:
    return tuple(MODELS[name].module for name in models)


def corpus_seen_from_project(corpus: str, root: Path) -> str:
    """How a request's file names its corpus, so that a second request can be told to be on the same one."""
    return corpus if corpus == "demo" else os.path.relpath(Path(corpus).expanduser(), root)


def load_best(name: str) -> dict[str, Any]:
    """What the sweep of a report found best: the content of sweep/best.json.

    Raises:
        RunError: there was no sweep, or the clips or their division have changed since.
    """
    folder = project_root() / "reports" / name
    path, clips = folder / "sweep" / "best.json", folder / "preprocess" / "clips.csv"
    if not path.is_file() or not clips.is_file():
        raise RunError(f"there is no reports/{name}/sweep/best.json; run `make sweep` for this report first.")
    best = json.loads(path.read_text(encoding="utf-8"))
    if digest_of(clips) != best["clips"]:
        raise RunError(
            f"reports/{name}/sweep/best.json was chosen on other clips, or on another division of them, than those "
            "of the report; run `make sweep` again."
        )
    return best


def default_name(corpus: str) -> str:
    """The report's name where none was given: after the corpus, a manifest counting as its folder.

    Raises:
        RunError: a report of that name is on another corpus.
    """
    from valence_lib.corpora import folder_of

    path = folder_of(corpus).resolve()
    stem = path.stem if path.suffix in (".pkl", ".pickle") else path.name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "report"
    root = project_root()
    earlier = root / "reports" / name / REQUEST_FILE
    before = json.loads(earlier.read_text(encoding="utf-8"))["corpus"] if earlier.is_file() else None
    if before not in (None, corpus_seen_from_project(corpus, root)):
        raise RunError(
            f"reports/{name} is on another corpus than {corpus!r}; give this report a NAME of its own."
        )
    return name
