"""The command line: `valence check | predict | report | sweep | plan | verify | render | notebook | job`.

Heavy libraries are imported by the command that needs them, so that `valence --help` answers at once.
"""

import argparse
import io
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from valence_lib.arguments import parse_arguments, parse_budget, parse_targets
from valence_lib.errors import CorpusError, SettingsError, ValenceError, disk_advice

if TYPE_CHECKING:
    from valence_lib.corpora.sources import Corpus
    from valence_lib.workflow.request import Request


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0 success, 1 failure of all or a part, 2 wrong arguments."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal may lack the characters of a name. The streams of a forked job have become pipes.
        with suppress(OSError):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    try:
        return _COMMANDS[options.command](options)
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


def _printable(text: str) -> str:
    """Text for a terminal: its lines, with escapes for control characters."""
    from valence_lib.corpora.file_kinds import printable

    return "\n".join(map(printable, text.split("\n")))


def _check(options: argparse.Namespace) -> int:
    from valence_lib.corpora.opening import open_corpus
    from valence_lib.preprocess.inspection import check_corpus, inspect

    if options.datasheet:
        from valence_lib.report.datasheet import datasheet

    for number, target in enumerate(parse_targets(options.target)):
        corpus = open_corpus(
            options.corpus,
            columns=options.columns,
            target=target,
            scale=options.scale,
            test_corpus=options.test_corpus,
        )
        try:
            text = datasheet(inspect(corpus), corpus) if options.datasheet else check_corpus(corpus)
        except CorpusError:
            for line in (corpus.form and f"The corpus was read as {corpus.form}.", *corpus.notes):
                print(_printable(line), file=sys.stderr)
            raise
        print(_printable("\n" * (number > 0) + text))
    return 0


def _predict(options: argparse.Namespace) -> int:
    if options.window is None and (options.hop is not None or options.plot):
        raise SettingsError("--hop or --plot was given without --window; add --window SECONDS, such as 4.")
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
        for prediction in write_csv(
            predictions, file, run.target.name, options.window is not None, half_width
        ):
            if prediction.error is not None:
                n_errors += 1
                line = f"{prediction.file}: {prediction.error.reason}: {prediction.error}"
                print("valence:", _printable(line.replace("\n", "\\n")), file=sys.stderr)
            elif options.plot:
                curve.append(prediction)
    if any(row.rating is not None for row in curve):
        draw_curve(curve, options.plot, run.target)
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


def _requests(options: argparse.Namespace) -> "list[tuple[Request, Corpus]]":
    """A request for each target, with its corpus; the report of another target than valence has its name."""
    targets = parse_targets(options.target)
    return [_request(options, target, several=len(targets) > 1) for target in targets]


def _request(options: argparse.Namespace, target: str, several: bool) -> "tuple[Request, Corpus]":
    from valence_lib.workflow.request import Request, default_name, load_best

    # `Request` has the defaults of what a command has no option for.
    given = {name: value for name, value in vars(options).items() if name in Request.__dataclass_fields__}
    given["target"] = target
    if options.name:
        given["name"] = f"{options.name}-{target}" if several and target != "valence" else options.name
    else:
        given["name"] = default_name(options.corpus, options.test_corpus, target)
    corpus = Request(**given).open_corpus()
    given["scale"] = "/".join(f"{part.target.low:.15g},{part.target.high:.15g}" for part in corpus.parts)
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
    return Request(**given), corpus


def _report(options: argparse.Namespace) -> int:
    from valence_lib.workflow.build import build_report

    ways = options.jobs, options.stop_with_parent, options.time_limit, options.profile
    # Each report is built, also where another one failed.
    return max([build_report(request, corpus, *ways) for request, corpus in _requests(options)])


def _sweep(options: argparse.Namespace) -> int:
    trials, minutes = parse_budget(options.budget)
    from valence_lib.workflow.build import build_report

    ways = options.jobs, options.stop_with_parent, options.time_limit, options.profile
    return max(
        build_report(request, corpus, *ways, request.workers(trials, minutes, options.jobs))
        for request, corpus in _requests(options)
    )


def _plan(options: argparse.Namespace) -> int:
    from valence_lib.workflow.build import show_plan

    return max([show_plan(request, corpus) for request, corpus in _requests(options)])


def _job(options: argparse.Namespace) -> int:
    from valence_lib.workflow.job import run_job

    run_job(options.report, options.name)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from valence_lib.workflow.verify import verify_report

    return verify_report(options.report)


_COMMANDS = {
    "check": _check,
    "predict": _predict,
    "report": _report,
    "sweep": _sweep,
    "plan": _plan,
    "job": _job,
    "verify": _verify,
    "render": _render,
    "notebook": _notebook,
}


if __name__ == "__main__":
    sys.exit(main())
