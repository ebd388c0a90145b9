"""The first half of a corpus's datasheet: motivation, composition and collection process.

The questions are those, shortened, of Gebru, T., Morgenstern, J., Vecchione, B., Wortman Vaughan, J.,
Wallach, H., Daumé III, H., and Crawford, K. (2021), "Datasheets for datasets", Communications of the ACM
64(12), 86-92.
"""

from __future__ import annotations  # the processes that read clips do without pandas

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from valence_lib.corpora.columns import RATER_COLUMN
from valence_lib.corpora.file_kinds import AUDIO_SUFFIXES
from valence_lib.corpora.sources import Corpus
from valence_lib.evaluation.signal import SignalMeasures, measure
from valence_lib.preprocess.parallel import in_chunks
from valence_lib.report.corpus_text import code, literal
from valence_lib.report.wording import rounded

if TYPE_CHECKING:
    import pandas as pd

    from valence_lib.preprocess.inspection import Inspection

TO_BE_WRITTEN = "(to be written by the author)"
_INTRODUCTION = (
    "The questions are those of the first half of a datasheet: Gebru et al. (2021), Datasheets for "
    "datasets, Communications of the ACM 64(12), 86-92. Numbers are computed from the clips that can be used."
)
_MEASURED = {"index", "id", "subset", "corpus", "n_samples", "duration_seconds", "digest"}
_UNKNOWN = "unknown"
_BINS = 8  # of the histogram of ratings
_MOST_SHOWN = 5
_MANY_CLIPS = 2048  # for which other processes are worth the second that it takes to start them


def datasheet(inspection: Inspection, corpus: Corpus) -> str:
    """The first half of a corpus's datasheet, in Markdown.

    Every usable clip is read once more, for its level. The text does not depend on the time, the machine or
    the corpus's folder. What comes from the corpus is escaped.

    Args:
        inspection: of this corpus, as `inspect_corpus` returns it.
        corpus: the whole corpus.
    """
    clips, quarantine = inspection.clips, inspection.quarantine
    sections: dict[str, dict[str, list[str]]] = {
        "Motivation": {
            "For what purpose was the dataset created?": [],
            "Who created the dataset, and on behalf of which entity?": [],
            "Who funded the creation of the dataset?": [],
        },
        "Composition": {
            "What do the instances that comprise the dataset represent?": [],
            "How many instances are there in total?": _counts(clips, quarantine, corpus),
            "Does the dataset contain all possible instances or is it a sample from a larger set?": [],
            "What data does each instance consist of?": _content(clips, corpus),
            "Is there a label or target associated with each instance?": _labels(clips, corpus),
            "Is any information missing from individual instances?": _missing(clips, corpus),
            "Are relationships between individual instances made explicit?": _relations(clips),
            "Are there recommended data splits?": _splits(clips),
            "Are there any errors, sources of noise, or redundancies in the dataset?": _errors(
                quarantine, corpus
            ),
            "Is the dataset self-contained, or does it rely on external resources?": [],
            "Does the dataset contain data that might be considered confidential?": [],
            "Does the dataset contain data that might be offensive or might cause anxiety?": [],
            "Does the dataset identify any subpopulations?": _subpopulations(clips, corpus),
            "Is it possible to identify individuals from the dataset?": [],
            "Does the dataset contain data that might be considered sensitive in any way?": [],
        },
        "Collection process": {
            "How was the data associated with each instance acquired?": [],
            "What mechanisms or procedures were used to collect the data?": [_formats(corpus), TO_BE_WRITTEN],
            "If the dataset is a sample from a larger set, what was the sampling strategy?": [],
            "Who was involved in the data collection process, and how were they compensated?": [
                *_raters(clips, corpus),
                TO_BE_WRITTEN,
            ],
            "Over what timeframe was the data collected?": [],
            "Were any ethical review processes conducted?": [],
            "Were the individuals in question notified about the data collection?": [],
            "Did the individuals in question consent to the collection and use of their data?": [],
            "Can the individuals revoke their consent, and how?": [],
            "Has an analysis of the potential impact of the dataset and its use been conducted?": [],
        },
    }
    blocks = [f"# Datasheet of {literal(corpus.name)}", _INTRODUCTION, *map(_statement, corpus.parts)]
    for title, questions in sections.items():
        blocks.append(f"## {title}")
        for question, answers in questions.items():
            blocks += [f"### {question}", *(answers or [TO_BE_WRITTEN])]
    return "\n\n".join(blocks)


def _statement(part: Corpus) -> str:
    """What is stated of a corpus: name, description, source, terms and citation."""
    lines = [f"- Corpus: {literal(part.name)}"]
    lines += [
        f"- {key.capitalize()}: {literal(str(part.about[key]))}"
        for key in ("description", "source", "terms", "citation")
        if part.about.get(key)
    ]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; its cells are Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _hours(clips: pd.DataFrame) -> str:
    return f"{clips['duration_seconds'].sum() / 3600:.3f}"


def _named(clips: pd.DataFrame, column: str) -> pd.DataFrame:
    """The clips that have a label; none where the corpus lacks the column."""
    return clips[clips[column] != ""] if column in clips else clips[:0]


def _spread(values: ArrayLike, digits: int | None = None) -> list[str]:
    """Minimum, median and maximum; counts without `digits`."""
    return [
        f"{value:,g}" if digits is None else rounded(value, digits)
        for value in np.quantile(np.asarray(values, np.float64), [0, 0.5, 1])
    ]


def _shown(text: object) -> str:
    return literal(str(text)) if text != "" else _UNKNOWN


# Composition


def _counts(clips: pd.DataFrame, quarantine: pd.DataFrame, corpus: Corpus) -> list[str]:
    answers = [
        f"The corpus has {len(corpus):,} clips. Of these, {len(clips):,} can be used ({_hours(clips)} hours) "
        f"and {len(quarantine):,} {'is' if len(quarantine) == 1 else 'are'} refused."
    ]
    if len(corpus.parts) > 1:
        rows = [(literal(name), f"{len(own):,}", _hours(own)) for name, own in clips.groupby("corpus")]
        answers.append(_table(["Corpus", "Clips", "Hours"], rows))
    if len(quarantine):
        reasons = sorted(Counter(quarantine["reason"]).items())
        answers.append(_table(["Refused clips", "Number"], [(_shown(name), f"{n:,}") for name, n in reasons]))
    return answers


def _measure_clips(usable: frozenset[int], corpus: Corpus, first: int) -> list[SignalMeasures]:
    """Measures of the usable ones of some clips, the first of which has the index `first`."""
    return [
        measure(corpus.read(position).waveform, corpus.sample_rate)
        for position in range(len(corpus))
        if first + position in usable
    ]


def _content(clips: pd.DataFrame, corpus: Corpus) -> list[str]:
    task = partial(_measure_clips, frozenset(clips["index"].tolist()))
    chunks = in_chunks(corpus, task, None, _MANY_CLIPS, "measure levels")
    measured = [of_clip for chunk in chunks for of_clip in chunk]
    rows = [
        ("Duration (s)", *_spread(clips["duration_seconds"], 2)),
        ("Level of active speech (dB re full scale)", *_spread([own.level_db for own in measured], 1)),
        ("Estimated signal-to-noise ratio (dB)", *_spread([own.snr_db for own in measured], 1)),
    ]
    return [
        f"A clip of speech with its labels. Clips are measured at {corpus.sample_rate:,} Hz, with "
        "the mean of their channels.",
        _table(["Measure", "Minimum", "Median", "Maximum"], rows),
    ]


def _labels(clips: pd.DataFrame, corpus: Corpus) -> list[str]:
    target, ratings = corpus.target, clips["rating"].dropna().to_numpy()
    answers = []
    if len(ratings):
        lowest, highest = (float(np.isclose(ratings, end).mean()) for end in (target.low, target.high))
        deviation = f" and standard deviation {rounded(ratings.std(ddof=1))}" if len(ratings) > 1 else ""
        answers.append(
            f"Clips with a rating of {literal(target.name)}: {len(ratings):,}, on a scale from "
            f"{target.low:g} to {target.high:g}, with mean {rounded(ratings.mean())}{deviation}. "
            f"{lowest:.1%} of these ratings are {target.low:g}, the lowest, and {highest:.1%} are "
            f"{target.high:g}, the highest."
        )
        heights, edges = np.histogram(ratings, _BINS, (target.low, target.high))
        rows = [
            (f"{low:g} to {high:g}", f"{n:,}", f"{n / len(ratings):.1%}")
            for low, high, n in zip(edges[:-1], edges[1:], heights, strict=True)
        ]
        answers.append(_table([f"Rating of {literal(target.name)}", "Clips", "Share"], rows))
    else:
        answers.append(literal(corpus.unrated) if corpus.unrated else "No clip has a rating.")
    if len(_named(clips, "emotion")):
        emotions = sorted(Counter(clips["emotion"]).items())
        answers.append(_table(["Emotion", "Clips"], [(_shown(name), f"{n:,}") for name, n in emotions]))
    return answers


def _missing(clips: pd.DataFrame, corpus: Corpus) -> list[str]:
    labels = [name for name in map(str, clips) if name not in _MEASURED and not RATER_COLUMN.fullmatch(name)]
    rows = []
    for name in labels:
        given = clips[name].notna() & (clips[name] != "")
        shown = literal(corpus.target.name if name == "rating" else name)
        n_values = clips.loc[given, name].nunique()
        rows.append((shown, f"{given.sum():,}", f"{(~given).sum():,}", f"{n_values:,}"))
    return [_table(["Label", "Clips with it", "Clips without it", "Different values"], rows)]


def _relations(clips: pd.DataFrame) -> list[str]:
    answers = []
    if len(named := _named(clips, "speaker")):
        low, median, high = _spread(named["speaker"].value_counts())
        answers.append(
            f"Named speakers: {named['speaker'].nunique():,}. Clips of a speaker: {low} to {high}, median "
            f"{median}. Clips of unknown speakers: {len(clips) - len(named):,}."
        )
    else:
        answers.append("Speakers are not named.")
    if len(spoken := _named(clips, "sentence")):
        speakers = _named(spoken, "speaker").groupby("sentence")["speaker"].nunique()
        shared = speakers.index[speakers > 1]
        answers.append(
            f"Named sentences: {spoken['sentence'].nunique():,}. Sentences of several speakers: "
            f"{len(shared):,}, in {spoken['sentence'].isin(shared).sum():,} clips."
        )
    return answers


def _splits(clips: pd.DataFrame) -> list[str]:
    split = _named(clips, "subset")
    if not len(split):
        return ["The corpus names no subsets."]
    subsets = [name for name in ("train", "validation", "test", "") if (clips["subset"] == name).any()]
    rows = []
    for name in subsets:
        own = clips[clips["subset"] == name]
        n_speakers = _named(own, "speaker")["speaker"].nunique()
        rows.append((name or "none", f"{len(own):,}", _hours(own), f"{n_speakers:,}"))
    answers = [_table(["Subset", "Clips", "Hours", "Speakers"], rows)]
    for column in ("speaker", "sentence"):
        if len(named := _named(split, column)):
            n_subsets = named.groupby(column)["subset"].nunique()
            shared = sorted(n_subsets.index[n_subsets > 1])
            examples = f" ({_first(shared)})" if shared else ""
            answers.append(
                f"{column.capitalize()}s in several subsets: {len(shared):,} of {len(n_subsets):,}{examples}."
            )
    return answers


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(literal, names[:_MOST_SHOWN])) + ", ..." * (len(names) > _MOST_SHOWN)


def _errors(quarantine: pd.DataFrame, corpus: Corpus) -> list[str]:
    answers = [f"Read as {literal(corpus.form)}."]
    if corpus.notes:
        answers.append("\n".join(f"- {literal(note)}" for note in corpus.notes))
    twins = quarantine[quarantine["reason"] == "duplicate"]
    pairs = "; ".join(f"{code(row.id)} and {code(row.twin)}" for row in twins[:_MOST_SHOWN].itertuples())
    examples = f" ({pairs}{'; ...' * (len(twins) > _MOST_SHOWN)})" if pairs else ""
    answers.append(
        f"Clips with the same audio as another one: {len(twins):,}{examples}. `make report` lists those with "
        "nearly the same audio."
    )
    return answers


def _subpopulations(clips: pd.DataFrame, corpus: Corpus) -> list[str]:
    columns = [name for name in ("language", "sex") if len(_named(clips, name))]
    if not columns:
        return ["The corpus states neither the sex nor the language of its speakers.", TO_BE_WRITTEN]
    if len(corpus.parts) > 1:
        columns.insert(0, "corpus")
    rows, n_listed = [], 0
    for values, own in clips.groupby(columns):
        n_speakers = _named(own, "speaker")["speaker"].nunique()
        n_listed += n_speakers
        rows.append((*map(_shown, values), f"{n_speakers:,}", f"{len(own):,}", _hours(own)))
    answers = [_table([*map(str.capitalize, columns), "Speakers", "Clips", "Hours"], rows)]
    if n_listed > _named(clips, "speaker")["speaker"].nunique():
        answers.append("Speakers with clips in several lines are counted in each.")
    return answers


# Collection process


class _Format(NamedTuple):
    """How a file stores its audio."""

    name: str
    sample_rate: str
    channels: str


def _formats(corpus: Corpus) -> str:
    files = [path for path in corpus.files() if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()]
    if not files:
        return "The audio is not in files of its own. Its original format is not stated."
    found = sorted(Counter(map(_format_of, files)).items(), key=lambda entry: (-entry[1], entry[0]))
    rows = [(*own, f"{n:,}") for own, n in found]
    return _table(["Format", "Sample rate (Hz)", "Channels", "Files"], rows)


def _format_of(path: Path) -> _Format:
    import soundfile

    try:
        info = soundfile.info(os.fsencode(path))
    except soundfile.LibsndfileError:  # PyAV may read it
        return _Format(code(path.suffix.lower()), _UNKNOWN, _UNKNOWN)
    return _Format(f"{info.format} ({literal(info.subtype)})", f"{info.samplerate:,}", str(info.channels))


def _raters(clips: pd.DataFrame, corpus: Corpus) -> list[str]:
    from valence_lib.evaluation.raters import raters

    columns = [name for name in map(str, clips) if RATER_COLUMN.fullmatch(name)]
    if not columns:
        return ["The ratings of single raters are not given."]
    low, median, high = _spread(clips[columns].count(axis=1))
    answers = [
        f"Columns with ratings of {literal(corpus.target.name)} by single raters: {len(columns):,}. Ratings "
        f"of a clip: {low} to {high}, median {median}."
    ]
    if agreement := raters(clips):
        answers[0] += (
            " Each rater is compared with the mean of the others, on the clips that another one rated too: "
            "mean squared error (MSE) and concordance correlation coefficient (CCC)."
        )
        rows = [_agreement_row(column, clips, of) for column, of in agreement["by_rater"].items()]
        rows.append(("mean", "", rounded(agreement["mse"]), rounded(agreement["ccc"])))
        answers.append(_table(["Rater", "Clips", "MSE", "CCC"], rows))
        if agreement["alpha"] is not None:
            answers.append(
                f"Reliability of the mean of all raters: Cronbach's alpha {rounded(agreement['alpha'])}, "
                f"ICC(2,k) {rounded(agreement['icc_2k'])}, of the clips that every rater rated."
            )
    return answers


def _agreement_row(column: str, clips: pd.DataFrame, scores: Mapping[str, float]) -> tuple[str, ...]:
    rater = column.removeprefix("rating_")
    return rater, f"{clips[column].count():,}", rounded(scores["mse"]), rounded(scores["ccc"])
