"""The command line: `valence check | predict | report | sweep | plan | verify | render | notebook | job`.

Heavy libraries are imported by the command that needs them, so that `valence --help` answers at once.
"""

import argparse
import io
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from valence_lib import __version__
from valence_lib.errors import CorpusError, SettingsError, ValenceError, disk_advice

if TYPE_CHECKING:
    from valence_lib.workflow.request import Request


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0 success, 1 failure of all or a part, 2 wrong arguments."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal may lack the characters of a name. The streams of a forked job have become pipes.
        with suppress(OSError):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(_with_joined_ranges(sys.argv[1:] if arguments is None else arguments))
    try:
        return options.command(options)
    except SettingsError as error:
        print(f"valence: {_printable(str(error))}", file=sys.stderr)
        return 2
    except ValenceError as error:
        print(f"valence: {_printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("valence: stopped; finished work is kept, and the same command resumes.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe; nothing more is written, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        advice = disk_advice(error.errno)
        if not advice:
            raise
        print(f"valence: {error}. {advice}", file=sys.stderr)
        return 1


def _with_joined_ranges(arguments: Sequence[str]) -> list[str]:
    """The arguments with "--range -1,1" as "--range=-1,1", since argparse takes "-1,1" for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--range" and argument[:1] == "-" and argument[1:2] in "0123456789.":
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _printable(text: str) -> str:
    """Text for a terminal: its lines, with escapes for control characters."""
    from valence_lib.corpora.file_kinds import printable

    return "\n".join(map(printable, text.split("\n")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="valence", description="Predict how positive or negative a speaker sounds."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser(
        "check", help="read a corpus and print what is in it, without training anything"
    )
    check.add_argument("corpus", help="demo, a course folder, one pickle, a table of labels or its folder")
    _add_reading(check)
    check.set_defaults(command=_check)

    predict = commands.add_parser(
        "predict", help="predict the valence of audio files, folders or course pickles"
    )
    predict.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="audio file, course pickle, or folder"
    )
    predict.add_argument("--run", required=True, type=Path, help="reports/<name>/runs/<run>")
    predict.add_argument("--output", type=Path, metavar="CSV", help="write to this file instead of printing")
    predict.add_argument(
        "--interval",
        type=float,
        metavar="PERCENT",
        help="add the bounds of a prediction interval for new clips, such as 90",
    )
    curve = predict.add_argument_group("a valence curve along a recording")
    curve.add_argument("--window", type=float, metavar="SECONDS", help="length of a window, such as 4")
    curve.add_argument(
        "--hop", type=float, metavar="SECONDS", help="from one window's start to the next (default: 1)"
    )
    curve.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw the curve of one recording to this file"
    )
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

    sweep = commands.add_parser("sweep", help="tune hyperparameters in one study that all workers share")
    _add_corpus(sweep)
    sweep.add_argument(
        "--budget",
        default="20",
        help="of the whole study: trials, as in 20, or minutes, as in 10min (default: 20)",
    )
    sweep.add_argument("--jobs", type=int, default=os.cpu_count(), help="workers (default: all cores)")
    _add_ways_to_run(sweep)
    sweep.set_defaults(command=_sweep)

    plan = commands.add_parser("plan", help="print the jobs that a report would run, and why; run nothing")
    _add_request(plan)
    plan.set_defaults(command=_plan)

    job = commands.add_parser("job", help="run one job of a report (called by `valence report`)")
    job.add_argument("report", type=Path, help="reports/<name>")
    job.add_argument("name", help="of the job, as in <report>/request.json")
    job.set_defaults(command=_job)

    verify = commands.add_parser("verify", help="compare every artefact of a report with its record")
    verify.add_argument("report", type=Path, help="reports/<name>")
    verify.set_defaults(command=_verify)

    render = commands.add_parser("render", help="render an executed report notebook as HTML and PDF")
    render.add_argument("notebook", type=Path)
    render.add_argument("html", type=Path)
    render.add_argument("pdf", type=Path)
    render.set_defaults(command=_render)

    notebook = commands.add_parser("notebook", help="run one notebook with checked parameters")
    notebook.add_argument("notebook", type=Path)
    notebook.add_argument("destination", type=Path)
    notebook.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters"
    )
    notebook.add_argument(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="stop the notebook after this time (default: never)",
    )
    notebook.set_defaults(command=_notebook)
    return parser


def _add_request(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide over the content of a report."""
    _add_corpus(parser)
    parser.add_argument(
        "--preset", default="default", help="how to train; the preset course is always shown too"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="trainings of each model and preset (default: 3)"
    )
    parser.add_argument(
        "--precision",
        default="float32",
        help="of large matrix products: float32 or bfloat16 (default: float32)",
    )
    parser.add_argument(
        "--protocol",
        default="holdout",
        help="holdout: one test subset; cv: folds by speaker, every clip is tested once",
    )
    parser.add_argument("--folds", type=int, default=6, help="of protocol cv (default: 6)")
    parser.add_argument(
        "--encoder",
        default="",
        metavar="FOLDER",
        help="a pretrained encoder in the Hugging Face format, a folder or a name on the hub; adds rows",
    )
    parser.add_argument(
        "--layer",
        dest="encoder_layer",
        default="auto",
        help="the encoder's layer (default: auto, chosen among the training clips)",
    )
    parser.add_argument(
        "--tuned", action="store_true", help="add a row for the best setting of `valence sweep`"
    )


def _add_ways_to_run(parser: argparse.ArgumentParser) -> None:
    """Add the options that do not change the results."""
    parser.add_argument(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="stop a notebook after this time (default: never)",
    )
    parser.add_argument(
        "--profile", help="of workflow/profiles/, to run on a cluster (default: on this machine)"
    )
    parser.add_argument(
        "--stop-with-parent", action="store_true", help="end when the calling process ends (Linux)"
    )


def _add_corpus(parser: argparse.ArgumentParser) -> None:
    """Add the options that a report and its sweep share."""
    parser.add_argument("--corpus", default="demo", help="as for check (default: demo)")
    parser.add_argument("--name", help="of the folder under reports/ (default: after the corpus)")
    parser.add_argument(
        "--seed", type=int, default=0, help="first random seed, also of the split (default: 0)"
    )
    parser.add_argument("--epochs", type=int, default=20, help="of each training (default: 20)")
    _add_reading(parser)
    parser.add_argument(
        "--clips-per-speaker", type=int, default=0, metavar="N", help="a smaller corpus; 0 takes all"
    )


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a corpus is to be read."""
    parser.add_argument(
        "--range",
        default="1,5",
        metavar="LOW,HIGH",
        help="the rating scale; auto takes the lowest and the highest rating (default: 1,5)",
    )
    parser.add_argument(
        "--columns",
        default="",
        metavar="MEANING=NAME,...",
        help="the table's names of columns, as in valence=EmoVal,speaker=who (default: the usual names)",
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
            f"BUDGET={text!r} was given; expected a number of trials above 0, as in 20, or of minutes, as in "
            "10min."
        )
    return trials, minutes


def _check(options: argparse.Namespace) -> int:
    given = None if options.range == "auto" else parse_range(options.range)
    from valence_lib.corpora.sources import open_corpus
    from valence_lib.preprocess.inspection import check_corpus, observed_range

    corpus = open_corpus(options.corpus, columns=options.columns)
    try:
        print(_printable(check_corpus(corpus, *(given or observed_range(corpus)))))
    except CorpusError:
        for line in (corpus.form and f"The corpus was read as {corpus.form}.", *corpus.notes):
            print(_printable(line), file=sys.stderr)
        raise
    return 0


def _predict(options: argparse.Namespace) -> int:
    if options.window is None and (options.hop is not None or options.plot):
        raise SettingsError("--hop or --plot was given without --window; add --window SECONDS, such as 4.")
    low, high = parse_range(options.range)
    from valence_lib.report.prediction_files import (
        PICTURE_SUFFIXES,
        check_destination,
        draw_curve,
        write_csv,
    )

    if options.plot and options.plot.suffix.lower() not in PICTURE_SUFFIXES:
        endings = ", ".join(PICTURE_SUFFIXES)
        raise SettingsError(
            f"--plot {str(options.plot)!r} was given; expected a file that ends in {endings}."
        )
    for option, path in (("--output", options.output), ("--plot", options.plot)):
        if path is not None:
            check_destination(option, path, options.files)
    # Imported after the checks, so that wrong arguments are reported at once.
    from valence_lib.files import atomic_write
    from valence_lib.training.predicting import (
        Prediction,
        list_counts,
        list_files,
        predict_files,
        predict_windows,
    )
    from valence_lib.training.runs import load_run

    run = load_run(options.run)
    half_width = None
    if options.interval is not None:
        from valence_lib.evaluation.calibration import half_width_of_run  # imports pandas

        half_width = half_width_of_run(options.run, options.interval / 100)
    passed_over: Counter[str] = Counter()
    files = list_files(options.files, passed_over)
    if passed_over:
        print(f"valence: not predicted: {_printable(list_counts(passed_over))}.", file=sys.stderr)
    if options.plot and len(files) > 1:
        raise SettingsError(f"--plot draws one recording, but {len(files)} files were given; give one.")
    if options.window is None:
        predictions = predict_files(files, run)
    else:
        hop = 1.0 if options.hop is None else options.hop
        predictions = predict_windows(files, run, options.window, hop)
    n_errors = 0
    curve: list[Prediction] = []
    with ExitStack() as stack:
        file = sys.stdout
        if options.output:
            path = stack.enter_context(atomic_write(options.output))
            file = stack.enter_context(path.open("w", encoding="utf-8", newline=""))
        for prediction in write_csv(predictions, file, options.window is not None, half_width):
            if prediction.error is not None:
                n_errors += 1
                line = f"{prediction.file}: {prediction.error.reason}: {prediction.error}"
                print("valence:", _printable(line.replace("\n", "\\n")), file=sys.stderr)
            elif options.plot:
                curve.append(prediction)
    if any(row.valence is not None for row in curve):
        draw_curve(curve, options.plot, low, high)
    return 1 if n_errors else 0


def _notebook(options: argparse.Namespace) -> int:
    from valence_lib.workflow.cells import parse_parameter
    from valence_lib.workflow.notebooks import run_notebook

    parameters = {name: parse_parameter(options.notebook, name, text) for name, text in options.parameters}
    run_notebook(options.notebook, options.destination, parameters, time_limit=options.time_limit)
    return 0


def _render(options: argparse.Namespace) -> int:
    from valence_lib.report.rendering import render_report

    render_report(options.notebook, options.html, options.pdf)
    return 0


def _request(options: argparse.Namespace) -> "Request":
    from valence_lib.corpora.sources import open_corpus
    from valence_lib.workflow.request import Request, default_name, load_best

    # `Request` has the defaults of what a command has no option for.
    given = {name: value for name, value in vars(options).items() if name in Request.__dataclass_fields__}
    given["name"] = options.name or default_name(options.corpus)
    scale = None if options.range == "auto" else parse_range(options.range)
    corpus = open_corpus(options.corpus, columns=options.columns)
    if scale is None:
        from valence_lib.preprocess.inspection import observed_range

        scale = observed_range(corpus)
    given["valence_low"], given["valence_high"] = scale
    given["names_speakers"] = corpus.names_speakers
    if getattr(options, "tuned", False):
        given["best"] = load_best(given["name"])
    if given.get("encoder"):
        from valence_lib.features.encoders import check_layer, use_encoder

        info = use_encoder(options.encoder)
        check_layer(options.encoder_layer, info)
        given |= {"encoder": info.digest, "encoder_name": info.name}
    elif given.get("encoder_layer", "auto") != "auto":
        raise SettingsError(
            f"LAYER={options.encoder_layer} was given without an encoder; expected ENCODER=FOLDER with it."
        )
    return Request(**given)


def _report(options: argparse.Namespace) -> int:
    from valence_lib.workflow.build import build_report

    return build_report(
        _request(options), options.jobs, options.stop_with_parent, options.time_limit, options.profile
    )


def _sweep(options: argparse.Namespace) -> int:
    trials, minutes = parse_budget(options.budget)
    from valence_lib.workflow.build import build_report

    request = _request(options)
    workers = request.workers(trials, minutes, options.jobs)
    return build_report(
        request, options.jobs, options.stop_with_parent, options.time_limit, options.profile, workers
    )


def _plan(options: argparse.Namespace) -> int:
    from valence_lib.workflow.build import show_plan

    return show_plan(_request(options))


def _job(options: argparse.Namespace) -> int:
    from valence_lib.workflow.job import run_job

    run_job(options.report, options.name)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from valence_lib.workflow.verify import verify_report

    return verify_report(options.report)


if __name__ == "__main__":
    sys.exit(main())
