"""The arguments of the command `valence`."""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

from valence_lib import __version__
from valence_lib.errors import SettingsError


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line, and the name of the command; exits where they are wrong."""
    return _parser().parse_args(_with_joined_ranges(arguments))


def _with_joined_ranges(arguments: Sequence[str]) -> list[str]:
    """The arguments with "--range -1,1" as "--range=-1,1", since argparse takes "-1,1" for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--range" and argument[:1] == "-" and argument[1:2] in "0123456789.":
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="valence", description="Predict how positive or negative a speaker sounds."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    check = commands.add_parser(
        "check", help="read a corpus and print what is in it, without training anything"
    )
    check.add_argument(
        "corpus", help="demo, a folder, one pickle or a table of labels; several between commas"
    )
    check.add_argument("--test-corpus", default="", metavar="CORPUS", help="to test on alone (default: none)")
    _add_reading(check)
    check.add_argument("--datasheet", action="store_true", help="print a datasheet in Markdown instead")

    predict = commands.add_parser(
        "predict", help="predict the ratings of audio files, folders or course pickles"
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
    curve = predict.add_argument_group("a curve along a recording")
    curve.add_argument("--window", type=float, metavar="SECONDS", help="length of a window, such as 4")
    curve.add_argument(
        "--hop", type=float, metavar="SECONDS", help="from one window's start to the next (default: 1)"
    )
    curve.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw the curve of one recording to this file"
    )

    report = commands.add_parser("report", help="corpus -> trained models, tables, figures and the report")
    _add_request(report)
    report.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="notebooks at a time (default: all cores)"
    )
    _add_ways_to_run(report)

    sweep = commands.add_parser("sweep", help="tune hyperparameters in one study that all workers share")
    _add_corpus(sweep)
    sweep.add_argument(
        "--budget",
        default="20",
        help="of the whole study: trials, as in 20, or minutes, as in 10min (default: 20)",
    )
    sweep.add_argument("--jobs", type=int, default=os.cpu_count(), help="workers (default: all cores)")
    _add_ways_to_run(sweep)

    plan = commands.add_parser("plan", help="print the jobs that a report would run, and why; run nothing")
    _add_request(plan)

    job = commands.add_parser("job", help="run one job of a report (called by `valence report`)")
    job.add_argument("report", type=Path, help="reports/<name>")
    job.add_argument("name", help="of the job, as in <report>/request.json")

    verify = commands.add_parser("verify", help="compare every artefact of a report with its record")
    verify.add_argument("report", type=Path, help="reports/<name>")

    render = commands.add_parser("render", help="render an executed report notebook as HTML and PDF")
    render.add_argument("notebook", type=Path)
    render.add_argument("html", type=Path)
    render.add_argument("pdf", type=Path)

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
        help="holdout: one test subset; cv: folds by speaker, every clip is tested once; corpora: train "
        "on all but one corpus and test on that one, each in turn",
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
    parser.add_argument(
        "--test-corpus", default="", metavar="CORPUS", help="to test on alone (default: none)"
    )
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
        "--target",
        default="valence",
        help="the rated dimension, or several for one each, as in valence,arousal (default: valence)",
    )
    parser.add_argument(
        "--range",
        dest="scale",
        default="",
        metavar="LOW,HIGH",
        help="the rating scale, of several corpora as in 1,5/1,7; auto takes the lowest and highest rating "
        "(default: what the corpus states, else 1,5)",
    )
    parser.add_argument(
        "--columns",
        default="",
        metavar="MEANING=NAME,...",
        help="the table's names of columns, as in valence=EmoVal,speaker=who (default: the usual names)",
    )


def parse_targets(text: str) -> list[str]:
    """The rated dimensions of `TARGET=`, between commas, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


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
