"""The command line: `valence check | predict | report | notebook`.

Heavy libraries are imported by the command that needs them, so that `valence --help` answers at once.
"""

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from valence_lib import __version__
from valence_lib.errors import ClipError, RunError, SettingsError, ValenceError

if TYPE_CHECKING:
    from valence_lib.waveforms import Waveform

AUDIO_SUFFIXES = {".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"}
REPORT_TITLE = "Predicting emotional valence from speech"
PICKLE_SUFFIXES = {".pkl", ".pickle"}


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
    from valence_lib.features import log_mel
    from valence_lib.files import written_whole
    from valence_lib.runs import Run
    from valence_lib.waveforms import check_waveform

    run = Run.load(options.run)
    names: list[str] = []
    outcomes: list[str] = []
    log_mels, folders, places = [], [], []
    for path in list_files(options.files):
        for name, read in _clips_in(path, run.features.sample_rate):
            names.append(name)
            outcomes.append("")
            try:
                waveform = read()
                check_waveform(waveform, run.features.n_fft)
            except ClipError as error:
                outcomes[-1] = f"error: {error.reason}: {error}"
                print(f"valence: {name}: {error.reason}: {error}", file=sys.stderr)
                continue
            log_mels.append(log_mel(waveform, run.features))
            folders.append(str(path.parent))
            places.append(len(names) - 1)
    if log_mels:
        for place, value in zip(places, run.predict(log_mels, folders), strict=True):
            outcomes[place] = f"{value:.4f}"
    rows = [("file", "valence"), *zip(names, outcomes, strict=True)]
    if options.output:
        with written_whole(options.output) as path, path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    else:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    return 0 if len(log_mels) == len(names) else 1


def list_files(given: Sequence[Path]) -> list[Path]:
    """The files as given, folders replaced by the audio files and pickles below them, in order of name.

    Raises:
        RunError: a folder holds none.
    """
    listed: list[Path] = []
    for path in given:
        if not path.is_dir():
            listed.append(path)
            continue
        known = AUDIO_SUFFIXES | PICKLE_SUFFIXES
        below = sorted(file for file in path.rglob("*") if file.suffix.lower() in known and file.is_file())
        if not below:
            raise RunError(
                f"the folder {str(path)!r} holds no audio file and no pickle; expected {', '.join(sorted(known))}."
            )
        listed += below
    return listed


def _clips_in(path: Path, sample_rate: int) -> Iterator[tuple[str, Callable[[], "Waveform"]]]:
    """Each clip of a file: how it is called, and what reads it or raises ClipError. A pickle may hold many."""
    from valence_lib.corpora import course_waveform
    from valence_lib.pickles import read_course_pickle
    from valence_lib.waveforms import read_audio

    if path.suffix.lower() not in PICKLE_SUFFIXES:
        yield str(path), lambda: read_audio(path, sample_rate)
        return
    try:
        content = read_course_pickle(path)
    except ClipError:
        yield str(path), lambda: course_waveform(read_course_pickle(path)[0], sample_rate)
        return
    for position, clip in enumerate(content):
        name = str(path) if len(content) == 1 else f"{path}#{position}"
        yield name, partial(course_waveform, clip, sample_rate)


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
        valence_low=low,
        valence_high=high,
        clips_per_speaker=options.clips_per_speaker,
    )
    return build_report(request, options.jobs, options.stop_with_parent)


if __name__ == "__main__":
    sys.exit(main())
