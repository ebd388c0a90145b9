"""The command line: `valence check | predict | report | sweep | plan | verify | notebook`.

Heavy libraries are imported by the command that needs them, so that `valence --help` answers at once.
"""

import argparse
import csv
import math
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from valence_lib import __version__
from valence_lib.errors import SettingsError, ValenceError, disk_advice

if TYPE_CHECKING:
    from valence_lib.jobs import Request


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0 well, 1 partly failed or failed, 2 asked wrongly."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except SettingsError as error:
        print(f"valence: {error}", file=sys.stderr)
        return 2
    except ValenceError as error:
        print(f"valence: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("valence: stopped; what was finished is kept, and the same command goes on.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who read this has had enough, as `head` has; nothing more is written, also not at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        advice = disk_advice(error.errno)
        if not advice:
            raise
        print(f"valence: {error}. {advice}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="valence", description="Predict how positive or negative a speaker sounds."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser(
        "check", help="read a corpus and print what is in it, without training anything"
    )
    check.add_argument("corpus", help="demo, a course folder, one pickle, a manifest or its folder")
    check.add_argument("--range", default="1,5", metavar="LOW,HIGH", help="the rating scale (default: 1,5)")
    check.set_defaults(command=_check)

    predict = commands.add_parser(
        "predict", help="predict the valence of audio files, folders or course pickles"
    )
    predict.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="audio file, course pickle, or folder"
    )
    predict.add_argument("--run", required=True, type=Path, help="reports/<name>/runs/<run>")
    predict.add_argument("--output", type=Path, metavar="CSV", help="write there instead of printing")
    predict.add_argument(
        "--interval",
        type=float,
        metavar="PERCENT",
        help="add the ends of an interval that is to hold so many of 100 new clips, such as 90",
    )
    curve = predict.add_argument_group("a curve along long recordings, window by window")
    curve.add_argument("--window", type=float, metavar="SECONDS", help="how long a window is, such as 4")
    curve.add_argument(
        "--hop", type=float, metavar="SECONDS", help="from one window's start to the next (default: 1)"
    )
    curve.add_argument("--plot", type=Path, metavar="PNG", help="draw the curve of one recording there")
    curve.add_argument(
        "--range", default="1,5", metavar="LOW,HIGH", help="the rating scale of the plot (default: 1,5)"
    )
    predict.set_defaults(command=_predict)

    report = commands.add_parser("report", help="corpus -> trained models, tables, figures and the report")
    _add_request(report)
    report.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="notebooks at a time (default: all cores)"
    )
    _add_ways_to_run(report)
    report.set_defaults(command=_report)

    sweep = commands.add_parser("sweep", help="tune hyperparameters, by one study that all workers share")
    _add_corpus(sweep)
    sweep.add_argument(
        "--budget",
        default="20",
        help="trials, as in 20, or minutes, as in 10min, of the whole study (default: 20)",
    )
    sweep.add_argument("--jobs", type=int, default=os.cpu_count(), help="workers (default: all cores)")
    _add_ways_to_run(sweep)
    sweep.set_defaults(
        command=_sweep,
        preset="default",
        protocol="holdout",
        folds=6,
        seeds=1,
        precision="float32",
        tuned=False,
        encoder="",
        layer="auto",
    )

    plan = commands.add_parser("plan", help="say what a report would run, and why; run nothing")
    _add_request(plan)
    plan.set_defaults(command=_plan)

    job = commands.add_parser("job", help="do one job of a report that `valence report` has asked for")
    job.add_argument("report", type=Path, help="reports/<name>")
    job.add_argument("name", help="of the job, as in <report>/request.json")
    job.add_argument("--reads", nargs="*", type=Path, default=[], metavar="FILE")
    job.add_argument(
        "--leaves", nargs="+", type=Path, metavar="FILE", help="files, or folders for all in them"
    )
    job.set_defaults(command=_job)

    verify = commands.add_parser("verify", help="hold every artefact of a report against its record")
    verify.add_argument("report", type=Path, help="reports/<name>")
    verify.set_defaults(command=_verify)

    render = commands.add_parser("render", help="lay an executed report notebook out as HTML and PDF")
    render.add_argument("notebook", type=Path)
    render.add_argument("html", type=Path)
    render.add_argument("pdf", type=Path)
    render.set_defaults(command=_render)

    notebook = commands.add_parser(
        "notebook", help="run one notebook strictly; it appears whole or not at all"
    )
    notebook.add_argument("notebook", type=Path)
    notebook.add_argument("destination", type=Path)
    notebook.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters"
    )
    notebook.add_argument(
        "--time-limit", type=float, metavar="SECONDS", help="after which it is stopped (default: never)"
    )
    notebook.set_defaults(command=_notebook)
    return parser


def _add_request(parser: argparse.ArgumentParser) -> None:
    """The options that say what a report is to be made of."""
    _add_corpus(parser)
    parser.add_argument(
        "--preset", default="default", help="how to train; preset seed is always shown beside it"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="trainings of each model and preset (default: 3)"
    )
    parser.add_argument(
        "--precision", default="float32", help="of large products: bfloat16 pays where there are units for it"
    )
    parser.add_argument(
        "--protocol",
        default="holdout",
        help="holdout: a training, a validation and a test part; cv: every clip is tested once, in folds by speaker",
    )
    parser.add_argument("--folds", type=int, default=6, help="of protocol cv (default: 6)")
    parser.add_argument(
        "--encoder",
        default="",
        metavar="FOLDER",
        help="a pretrained encoder in Hugging Face form, a folder or a name on the hub, whose features are added as rows",
    )
    parser.add_argument(
        "--layer", default="auto", help="the encoder's layer (default: auto, chosen among the training clips)"
    )
    parser.add_argument("--tuned", action="store_true", help="add a row for what `valence sweep` found best")


def _add_ways_to_run(parser: argparse.ArgumentParser) -> None:
    """The options that change nothing in what comes out."""
    parser.add_argument(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="after which a notebook is stopped (default: never)",
    )
    parser.add_argument(
        "--profile", help="of workflow/profiles/, to run on a cluster (default: on this machine)"
    )
    parser.add_argument(
        "--stop-with-parent", action="store_true", help="end when the calling process ends (Linux)"
    )


def _add_corpus(parser: argparse.ArgumentParser) -> None:
    """The options that a report and its sweep share: on what, and how long, to train."""
    parser.add_argument("--corpus", default="demo", help="as for check (default: demo)")
    parser.add_argument("--name", help="of the folder under reports/ (default: after the corpus)")
    parser.add_argument("--seed", type=int, default=0, help="first seed, and that of the split (default: 0)")
    parser.add_argument("--epochs", type=int, default=20, help="of each training (default: 20)")
    parser.add_argument("--range", default="1,5", metavar="LOW,HIGH", help="the rating scale (default: 1,5)")
    parser.add_argument(
        "--clips-per-speaker", type=int, default=0, metavar="N", help="a smaller corpus; 0 takes all"
    )


def parse_range(text: str) -> tuple[float, float]:
    """A rating scale given as "low,high".

    Raises:
        SettingsError: it is not two numbers.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"the range {text!r} was given; expected two numbers as in 1,5.") from None
    return low, high


def parse_budget(text: str) -> tuple[int, float]:
    """A sweep's budget as trials and minutes, of which one is 0: "20" or "10min".

    Raises:
        SettingsError: it is neither.
    """
    number = text.removesuffix("min").strip()
    try:
        trials, minutes = (0, float(number)) if text.endswith("min") else (int(number), 0.0)
    except ValueError:
        trials, minutes = 0, 0.0
    if not (trials > 0 or 0 < minutes < math.inf):
        raise SettingsError(
            f"BUDGET={text!r} was given; expected a number of trials above 0, as in 20, or of minutes, as in 10min."
        )
    return trials, minutes


def _check(options: argparse.Namespace) -> int:
    from valence_lib.corpora import open_corpus
    from valence_lib.inspection import inspect_corpus, summarise
    from valence_lib.settings import CorpusSettings, FeatureSettings

    low, high = parse_range(options.range)
    features = FeatureSettings()
    corpus = open_corpus(options.corpus, features.sample_rate)
    inspection = inspect_corpus(corpus, CorpusSettings(low, high), features)
    print(summarise(inspection, corpus))
    return 0


def _predict(options: argparse.Namespace) -> int:
    if options.window is None and (options.hop is not None or options.plot):
        raise SettingsError("--hop or --plot was given without --window; add --window SECONDS, such as 4.")
    low, high = parse_range(options.range)
    # Only now what takes seconds to import: what was asked wrongly is said at once.
    from valence_lib.files import written_whole
    from valence_lib.predicting import Prediction, list_files, predict_files, predict_windows
    from valence_lib.runs import load_run

    run = load_run(options.run)
    reach = None
    if options.interval is not None:
        from valence_lib.report import interval_half_width  # brings pandas, which predictions do without

        reach = interval_half_width(options.run, options.interval / 100)
    files = list_files(options.files)
    if options.plot and len(files) > 1:
        raise SettingsError(f"--plot draws one recording, but {len(files)} files were given; give one.")
    columns: tuple[str, ...]
    if options.window is None:
        columns, predictions = ("file", "valence"), predict_files(files, run)
    else:
        columns = ("file", "start_seconds", "end_seconds", "valence")
        hop = 1.0 if options.hop is None else options.hop
        predictions = predict_windows(files, run, options.window, hop)
    n_errors = 0
    curve: list[Prediction] = []
    with ExitStack() as stack:
        file = sys.stdout
        if options.output:
            path = stack.enter_context(written_whole(options.output))
            file = stack.enter_context(path.open("w", encoding="utf-8", newline=""))
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *(() if reach is None else ("low", "high"))])
        for prediction in predictions:
            outcome = "" if prediction.valence is None else f"{prediction.valence:.4f}"
            if prediction.error is not None:
                n_errors += 1
                said = f"{prediction.error.reason}: {prediction.error}"
                outcome = f"error: {said}"
                print(f"valence: {prediction.file}: {said}", file=sys.stderr)
            elif options.plot:
                curve.append(prediction)
            times = (prediction.start_seconds, prediction.end_seconds)
            seconds = ["" if time is None else f"{time:.3f}" for time in times]
            bounds: list[str] = []
            if reach is not None:
                value = prediction.valence
                bounds = ["", ""] if value is None else [f"{value - reach:.4f}", f"{value + reach:.4f}"]
            writer.writerow([prediction.file, *(seconds if len(columns) == 4 else ()), outcome, *bounds])
    if options.plot and curve:
        from valence_lib.figures import plot_valence_curve

        starts, ends = ([getattr(row, name) for row in curve] for name in ("start_seconds", "end_seconds"))
        values = [math.nan if row.valence is None else row.valence for row in curve]
        with written_whole(options.plot) as path:
            plot_valence_curve(starts, ends, values, low, high).savefig(path)
    return 1 if n_errors else 0


def _notebook(options: argparse.Namespace) -> int:
    from valence_lib.cells import parse_parameter
    from valence_lib.notebooks import run_notebook

    parameters = {name: parse_parameter(options.notebook, name, text) for name, text in options.parameters}
    run_notebook(options.notebook, options.destination, parameters, time_limit=options.time_limit)
    return 0


def _render(options: argparse.Namespace) -> int:
    from valence_lib.rendering import render_report

    render_report(options.notebook, options.html, options.pdf)
    return 0


def _request(options: argparse.Namespace) -> "Request":
    from valence_lib.corpora import open_corpus
    from valence_lib.jobs import Request, default_name, load_best

    low, high = parse_range(options.range)
    name = options.name or default_name(options.corpus)
    encoder = {"encoder_layer": options.layer}
    if options.encoder:
        from valence_lib.encoders import check_layer, use_encoder

        info = use_encoder(options.encoder)
        check_layer(options.layer, info)
        encoder |= {"encoder": info.digest, "encoder_name": info.name}
    elif options.layer != "auto":
        raise SettingsError(
            f"LAYER={options.layer} was given without an encoder; expected ENCODER=FOLDER with it."
        )
    return Request(
        corpus=options.corpus,
        name=name,
        preset=options.preset,
        protocol=options.protocol,
        folds=options.folds,
        seed=options.seed,
        seeds=options.seeds,
        epochs=options.epochs,
        precision=options.precision,
        valence_low=low,
        valence_high=high,
        clips_per_speaker=options.clips_per_speaker,
        names_speakers=open_corpus(options.corpus).names_speakers,
        best=load_best(name) if options.tuned else {},
        **encoder,
    )


def _report(options: argparse.Namespace) -> int:
    from valence_lib.building import build_report

    return build_report(
        _request(options), options.jobs, options.stop_with_parent, options.time_limit, options.profile
    )


def _sweep(options: argparse.Namespace) -> int:
    trials, minutes = parse_budget(options.budget)
    from valence_lib.building import build_report

    request = _request(options)
    workers = request.workers(trials, minutes, options.jobs)
    return build_report(
        request, options.jobs, options.stop_with_parent, options.time_limit, options.profile, workers
    )


def _plan(options: argparse.Namespace) -> int:
    from valence_lib.building import show_plan

    return show_plan(_request(options))


def _job(options: argparse.Namespace) -> int:
    from valence_lib.building import run_job

    run_job(options.report, options.name, options.reads, options.leaves)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from valence_lib.verifying import verify_report

    return verify_report(options.report)


if __name__ == "__main__":
    sys.exit(main())
