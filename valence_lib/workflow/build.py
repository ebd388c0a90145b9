"""From one command to a finished report: find out which jobs are stale, and let Snakemake run them."""

from __future__ import annotations  # types of signatures are not imported

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valence_lib.errors import RunError, SettingsError, unknown_name
from valence_lib.files import remove_orphans, write_json
from valence_lib.settings import CorpusSettings
from valence_lib.workflow import slurm
from valence_lib.workflow.corpora import corpus_digest, link_corpora, seen_from
from valence_lib.workflow.forkserver import end_with_parent, serving
from valence_lib.workflow.job import CORPUS_NOTES, HELD_BY_JOBS, LOGS_FOLDER
from valence_lib.workflow.jobs import REQUEST_FILE, Job, project_root
from valence_lib.workflow.progress import Progress
from valence_lib.workflow.records import MEASURED, record_path
from valence_lib.workflow.request import Request
from valence_lib.workflow.stale import plan

if TYPE_CHECKING:
    from valence_lib.corpora.sources import Corpus

# Imported once a build, for all jobs. `training.loop`, `preprocess.inspection` and seaborn are not: they find
# out at import whether they are in a notebook.
_WARM = (
    *("papermill", "ipykernel.kernelapp", "scipy.stats", "nbconvert", "pypandoc", "typst"),
    "torch._inductor",  # which torch imports where it has to be deterministic
    *(f"valence_lib.report.{name}" for name in ("architecture", "rendering", "sentences.scores")),
    *("valence_lib.training.runs", "valence_lib.models.pooling_kernel", "valence_lib.workflow.notebooks"),
)


def build_report(
    request: Request,
    corpus: Corpus,
    jobs: int,
    stop_with_parent: bool = False,
    time_limit: float | None = None,
    profile: str | None = None,
    workers: Sequence[Job] = (),
) -> int:
    """Bring reports/<name>/ up to date.

    Args:
        request: what the report is made of.
        corpus: of the request, opened.
        jobs: number of jobs that run at a time, with one thread each.
        stop_with_parent: whether to end when the process that started this one ends (Linux).
        time_limit: seconds after which a notebook is stopped; None for none.
        profile: a folder of workflow/profiles/, such as "slurm"; None runs all jobs on this machine.
        workers: of a sweep, which then replace all jobs after preprocessing.

    Returns:
        Exit status of Snakemake; 0 where nothing was stale.

    Raises:
        CorpusError: the labels cannot be used.
        RunError: another build works on the same report.
        SettingsError: there is no such profile, or a number is out of its range.
    """
    from valence_lib.corpora.file_kinds import printable

    for note in corpus.notes:
        print(printable(note), flush=True)
    if jobs < 1:
        raise SettingsError(f"JOBS={jobs} was given; expected how many jobs run at a time, 1 or more.")
    if time_limit is not None and not time_limit > 0:
        raise SettingsError(f"TIME_LIMIT={time_limit:g} was given; expected seconds above 0, or nothing.")
    root = project_root()
    folder = root / "reports" / request.name
    settings = _read_profile(root, profile)
    if stop_with_parent:
        end_with_parent()
    with _only_build(folder):
        slurm.end_jobs(folder)
        _wait_for_orphans(folder)
        remove_orphans(folder.parent)
        stale = _write_request(request, corpus, workers, time_limit, folder, root)
        if not stale:
            print(f"Nothing is stale: {_outcome(folder, workers)}")
            return 0
        if stale[0].name == "preprocess":
            # In a notebook, the same errors would come later, and with more around them.
            from valence_lib.preprocess.inspection import check_labels

            check_labels(corpus, CorpusSettings(seed=request.seed), request.protocol, request.folds)
        status, progress = _run(stale, settings, jobs, folder, root)
        remove_orphans(
            folder.parent
        )  # processes that were killed just before this build may have ended only now
    # A worker succeeds only once the budget of the whole study is spent.
    spent = any(progress.outcomes.get(worker.name, "failed") != "failed" for worker in workers)
    if status and not spent:
        _print_failure(progress, folder / LOGS_FOLDER, "sweep" if workers else "report")
        return status
    if not workers and (folder / MEASURED).is_file():
        for name, seconds in json.loads((folder / MEASURED).read_text(encoding="utf-8")).items():
            print(f"{name}: {seconds:.0f} s a training")
    print(_outcome(folder, workers))
    return 0


def show_plan(request: Request, corpus: Corpus) -> int:
    """Print which jobs `build_report` would run, and why; return 0."""
    root = project_root()
    table = request.jobs(corpus_digest(corpus, request.corpora, None))
    fingerprints = {job.name: job.fingerprint(root) for job in table}
    reasons = plan(root / "reports" / request.name, table, fingerprints, root)
    width = max(map(len, reasons))
    for name, why in reasons.items():
        print(f"{name:{width}}  {'; '.join(why) or 'up to date'}")
    return 0


def _write_request(
    request: Request,
    corpus: Corpus,
    workers: Sequence[Job],
    time_limit: float | None,
    folder: Path,
    root: Path,
) -> list[Job]:
    """Write the table of jobs to request.json; the stale ones among them."""
    link_corpora(folder, request.corpora, root)
    if missing := request.missing():
        from valence_lib.report.sentences.method import left_out

        print(left_out(missing), flush=True)
    table = request.jobs(corpus_digest(corpus, request.corpora, folder / CORPUS_NOTES))
    if workers:
        table = [table[0], *workers]
    fingerprints = {job.name: job.fingerprint(root) for job in table}
    content = asdict(request) | {
        "corpus": seen_from(request.corpus, root),
        "test_corpus": seen_from(request.test_corpus, root),
        "time_limit": time_limit,
        "jobs": {job.name: asdict(job) for job in table},
        "fingerprints": fingerprints,
    }
    write_json(folder / REQUEST_FILE, content)
    reasons = plan(folder, table, fingerprints, root)
    return [job for job in table if reasons[job.name]]


def _run(
    stale: Sequence[Job], settings: Mapping[str, Any], jobs: int, folder: Path, root: Path
) -> tuple[int, Progress]:
    """Run the stale jobs by Snakemake; its exit status, and the jobs' outcomes."""
    logs = folder / LOGS_FOLDER
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "workflow" / "Snakefile")]
    command += ["--directory", str(root), "--configfile", str(folder / REQUEST_FILE)]
    # `plan` has found which jobs are stale; Snakemake only orders and starts them.
    records = [os.path.relpath(record_path(folder, job.name), root) for job in stale]
    command += ["--rerun-triggers", "input", "--forcerun", *records]
    # Records appear whole or not at all, and the system releases the build's lock, also after a kill.
    command += ["--nolock", "--rerun-incomplete", "--keep-going"]
    context: AbstractContextManager[dict[str, str]] = nullcontext({})
    if settings:
        command += ["--workflow-profile", str(settings["folder"])]
    else:
        command += ["--cores", str(jobs)]
        context = serving(_WARM, root)
    if settings.get("executor") == "slurm":
        slurm.check_path(Path(sys.executable))
        prefix = slurm.job_prefix(folder)
        print(f"The jobs on Slurm are named {prefix}_...", flush=True)
        command += ["--slurm-jobname-prefix", prefix, "--slurm-logdir", str(logs / "slurm")]
        context = slurm.submitting(folder)
    kinds = {job.name: " ".join((job.program, *job.modules)) for job in stale}
    progress = Progress(kinds, settings.get("jobs", jobs))
    with context as variables, progress.following(logs), (logs / "snakemake.log").open("wb") as log:
        finished = subprocess.run(
            command,
            check=False,
            env=os.environ | variables,
            stdout=log,
            stderr=log,
            preexec_fn=partial(end_with_parent, os.getpid()),
        )
    return finished.returncode, progress


def _outcome(folder: Path, workers: Sequence[Job]) -> str:
    if workers:
        from valence_lib.report.sentences.method import tuned

        best = folder / "sweep" / "best.json"
        text = tuned(json.loads(best.read_text(encoding="utf-8"))).replace("**", "")
        return f"{text} It is in {os.path.relpath(best)}."
    pages = " and ".join(os.path.relpath(folder / name) for name in ("report.html", "report.pdf"))
    return f"The report is in {pages}"


def _print_failure(progress: Progress, logs: Path, target: str) -> None:
    if "failed" not in progress.outcomes.values():
        lines = (logs / "snakemake.log").read_text(encoding="utf-8", errors="replace").splitlines()
        print("\n".join(lines[-15:]), file=sys.stderr)
    if progress.running:
        killed = ", ".join(progress.running)
        print(f"Killed without an exit status (often out of memory): {killed}", file=sys.stderr)
    print(
        f"The {target} is not finished; finished jobs are kept, and `make {target}` runs the others. "
        f"Logs: {os.path.relpath(logs)}",
        file=sys.stderr,
    )


def _read_profile(root: Path, profile: str | None) -> dict[str, Any]:
    """The settings of a profile, and its folder; empty for None."""
    if profile is None:
        return {}
    known = {path.parent.name: path for path in (root / "workflow" / "profiles").glob("*/config.yaml")}
    if profile not in known:
        raise SettingsError(unknown_name("profile", profile, known))
    import yaml

    path = known[profile]
    try:
        return {**yaml.safe_load(path.read_text(encoding="utf-8")), "folder": path.parent}
    except (yaml.YAMLError, TypeError) as error:
        raise SettingsError(
            f"{os.path.relpath(path)} cannot be read ({error}); expected lines such as `executor: slurm`."
        ) from error


@contextmanager
def _only_build(folder: Path) -> Iterator[None]:
    """Hold the lock of which each report has one; the system releases it when the process ends."""
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
    """Wait until the jobs of a killed build have ended; see `lock_while_running`."""
    with (folder / HELD_BY_JOBS).open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                "A notebook of a build that was killed is still running; waiting for it to end.", flush=True
            )
            fcntl.flock(held, fcntl.LOCK_EX)
