"""The command line: `valence check | predict | report | notebook`.

Heavy libraries are imported by the command that needs them, so that `valence --help` answers at once.
"""

import argparse
import csv
import math
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from valence_lib import __version__
from valence_lib.errors import SettingsError, ValenceError

REPORT_TITLE = "Predicting emotional valence from speech"


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
    report.add_argument("--corpus", default="demo", help="as for check (default: demo)")
    report.add_argument("--name", help="of the folder under reports/ (default: after the corpus)")
    report.add_argument(
        "--preset", default="default", help="how to train; preset seed is always shown beside it"
    )
    report.add_argument("--seed", type=int, default=0, help="first seed, and that of the split (default: 0)")
    report.add_argument(
        "--seeds", type=int, default=3, help="trainings of each model and preset (default: 3)"
    )
    report.add_argument("--epochs", type=int, default=20, help="of each training (default: 20)")
    report.add_argument(
        "--precision", default="float32", help="of large products: bfloat16 pays where there are units for it"
    )
    report.add_argument("--range", default="1,5", metavar="LOW,HIGH", help="the rating scale (default: 1,5)")
    report.add_argument(
        "--clips-per-speaker", type=int, default=0, metavar="N", help="a smaller corpus; 0 takes all"
    )
    report.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="notebooks at a time (default: all cores)"
    )
    report.add_argument(
        "--stop-with-parent", action="store_true", help="end when the calling process ends (Linux)"
    )
    report.set_defaults(command=_report)

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
        "--hold", type=Path, metavar="FILE", help="a file to lock meanwhile, which later builds wait for"
    )
    notebook.set_defaults(command=_notebook)
    return parser


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
    from valence_lib.runs import Run

    run = Run.load(options.run)
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
        writer.writerow(columns)
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
            writer.writerow([prediction.file, *(seconds if len(columns) == 4 else ()), outcome])
    if options.plot and curve:
        from valence_lib.figures import plot_valence_curve

        starts, ends = ([getattr(row, name) for row in curve] for name in ("start_seconds", "end_seconds"))
        values = [math.nan if row.valence is None else row.valence for row in curve]
        with written_whole(options.plot) as path:
            plot_valence_curve(starts, ends, values, low, high).savefig(path)
    return 1 if n_errors else 0


def _notebook(options: argparse.Namespace) -> int:
    from valence_lib.building import held_while_running
    from valence_lib.notebooks import parse_parameter, run_notebook

    parameters = {name: parse_parameter(options.notebook, name, text) for name, text in options.parameters}
    with held_while_running(options.hold) if options.hold else nullcontext():
        run_notebook(options.notebook, options.destination, parameters)
    return 0


def _render(options: argparse.Namespace) -> int:
    from valence_lib.rendering import render_html, render_pdf

    render_html(options.notebook, options.html, REPORT_TITLE)
    render_pdf(options.notebook, options.pdf, REPORT_TITLE)
    return 0


def _report(options: argparse.Namespace) -> int:
    from valence_lib.building import Request, build_report, default_name

    low, high = parse_range(options.range)
    request = Request(
        corpus=options.corpus,
        name=options.name or default_name(options.corpus),
        preset=options.preset,
        seed=options.seed,
        seeds=options.seeds,
        epochs=options.epochs,
        precision=options.precision,
        valence_low=low,
        valence_high=high,
        clips_per_speaker=options.clips_per_speaker,
    )
    return build_report(request, options.jobs, options.stop_with_parent)


if __name__ == "__main__":
    sys.exit(main())
