"""The way from one command to a finished report: checks what was asked, then lets Snakemake do what is stale."""

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from valence_lib.errors import RunError, SettingsError, unknown_name
from valence_lib.files import source_digest, stamp_of, write_json
from valence_lib.settings import MODEL_RECIPES, PRESETS, CorpusSettings, training_settings
from valence_lib.warm_start import end_with_parent, serving

HELD_BY_NOTEBOOKS = ".notebooks-at-work"
# What the notebooks and the page take seconds to import. Not `training` and `inspection`, whose progress bars
# find out at their import whether they are in a notebook, nor seaborn, whose widgets do; scipy.stats is most of it.
_WARM = (
    *("papermill", "ipykernel.kernelapp", "scipy.stats", "nbconvert", "pypandoc", "typst"),
    "torch._inductor",  # which torch itself imports where it is told to be deterministic
    *(
        f"valence_lib.{name}"
        for name in ("architecture", "runs", "pooling", "sentences", "rendering", "notebooks")
    ),
)


@dataclass(frozen=True)
class Request:
    """What a report is to be made of.

    Args:
        corpus: "demo" or a path.
        name: of the folder under reports/.
        preset: how to train; preset seed, the course report's way, is always shown beside it.
        seed: the first seed, and that of the split.
        seeds: how many trainings of each model and preset, with successive seeds.
        epochs: of each training.
        precision: of each training's large products.
        valence_low, valence_high: the rating scale.
        clips_per_speaker: a smaller corpus of the first so many clips of each speaker; 0 takes all.
    """

    corpus: str = "demo"
    name: str = "demo"
    preset: str = "default"
    seed: int = 0
    seeds: int = 3
    epochs: int = 20
    precision: str = "float32"
    valence_low: float = 1.0
    valence_high: float = 5.0
    clips_per_speaker: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise SettingsError(
                f"NAME={self.name!r} cannot name a folder under reports/; "
                "expected letters, digits, '.', '_' and '-', beginning with a letter or digit."
            )
        if self.preset not in PRESETS:
            raise SettingsError(unknown_name("preset", self.preset, PRESETS))
        if self.seeds < 1:
            raise SettingsError(
                f"SEEDS={self.seeds} was given; expected how many trainings of each model, 1 or more."
            )
        training_settings("LSTM2", self.preset, self.seed, epochs=self.epochs, precision=self.precision)
        CorpusSettings(self.valence_low, self.valence_high, self.clips_per_speaker, self.seed)

    def runs(self) -> list[dict[str, str | int]]:
        """Every training: model, preset and seed."""
        return [
            {"model": model, "preset": preset, "seed": seed}
            for preset in dict.fromkeys((self.preset, "seed"))
            for model in MODEL_RECIPES
            for seed in range(self.seed, self.seed + self.seeds)
        ]


def default_name(corpus: str) -> str:
    """The report's name where none was given: after the corpus, a manifest counting as its folder.

    Raises:
        RunError: a report of that name is on another corpus.
    """
    from valence_lib.corpora import folder_of

    path = folder_of(corpus).resolve()
    stem = path.stem if path.suffix in (".pkl", ".pickle") else path.name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "report"
    earlier = project_root() / "reports" / name / "request.json"
    before = json.loads(earlier.read_text(encoding="utf-8"))["corpus"] if earlier.is_file() else None
    if before not in (None, _seen_from_notebooks(corpus)):
        raise RunError(
            f"reports/{name} is on another corpus than {corpus!r}; give this report a NAME of its own."
        )
    return name


def _seen_from_notebooks(corpus: str) -> str:
    """The corpus as the notebooks name it, which run in notebooks/ and should not hold this machine's paths."""
    if corpus == "demo":
        return corpus
    return os.path.relpath(Path(corpus).expanduser(), project_root() / "notebooks")


def project_root() -> Path:
    """The clone that holds this package, its notebooks and its workflow.

    Raises:
        RunError: the package was installed without them.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / "workflow" / "Snakefile").is_file():
        raise RunError(
            f"{root} holds no workflow/Snakefile; reports are made from a clone of the project, "
            "installed with pip install -e . (which `make report` does)."
        )
    return root


def build_report(request: Request, jobs: int, stop_with_parent: bool = False) -> int:
    """Bring reports/<name>/ up to date; return Snakemake's exit status.

    Args:
        jobs: notebooks that run at a time, one thread each.
        stop_with_parent: end when the process that started this one ends (Linux), as make's recipes should.

    Raises:
        CorpusError: there is no such corpus.
        RunError: another build works on the same report.
    """
    from valence_lib.corpora import folder_of, open_corpus

    open_corpus(request.corpus)
    root = project_root()
    folder = root / "reports" / request.name
    if stop_with_parent:
        end_with_parent()
    with _only_build(folder):
        config = folder / "request.json"
        _wait_for_orphans(folder)
        content = asdict(request) | {
            "corpus": _seen_from_notebooks(request.corpus),
            "runs": request.runs(),
            "corpus_stamp": stamp_of(folder_of(request.corpus)),
            "source": source_digest(),
        }
        write_json(config, content)
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "workflow" / "Snakefile")]
        command += ["--directory", str(root), "--configfile", str(config), "--cores", str(jobs)]
        # Outputs appear whole or not at all, and the lock above is freed by the system also after a kill.
        command += ["--nolock", "--rerun-incomplete", "--keep-going", "--quiet", "host", "reason"]
        with serving(_WARM, root) as found:
            finished = subprocess.run(
                command, check=False, env=os.environ | found, preexec_fn=end_with_parent
            )
    if finished.returncode == 0:
        print(
            f"The report lies at {os.path.relpath(folder / 'report.html')} and {os.path.relpath(folder / 'report.pdf')}"
        )
    return finished.returncode


@contextmanager
def _only_build(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise RunError(
                f"another build is at work on {folder.name!r} (process {lock.read().strip() or 'unknown'}); "
                "wait until it has finished, or give this one another NAME."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _wait_for_orphans(folder: Path) -> None:
    """Until the notebooks that a killed build had started have ended: they hold this file while they run."""
    with (folder / HELD_BY_NOTEBOOKS).open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                "A notebook of a build that was killed is still at work; waiting for it to end.", flush=True
            )
            fcntl.flock(held, fcntl.LOCK_EX)


@contextmanager
def held_while_running(path: Path) -> Iterator[None]:
    """Let builds that come after a kill wait for the notebook that runs in this block."""
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield
