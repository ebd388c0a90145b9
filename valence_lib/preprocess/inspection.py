"""Corpus -> a table of the usable clips, and a table of the others with the reason (the quarantine).

Every clip is read once, by all cores; the features of the usable clips go into the feature store.
"""

from __future__ import annotations  # the processes that read clips do without pandas

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from valence_lib.corpora.sources import WHAT_IS_TAKEN, Clip, Corpus, open_corpus
from valence_lib.corpora.waveforms import Waveform, check_waveform, digest
from valence_lib.errors import ClipError, CorpusError
from valence_lib.preprocess.parallel import in_chunks
from valence_lib.preprocess.store import write_shard
from valence_lib.settings import CorpusSettings, FeatureSettings

if TYPE_CHECKING:
    import pandas as pd

_MOST_SAMPLES = 2**24  # whose features go into one shard: 64 MB of waveforms, 35 minutes at 8000 Hz
_MANY_CLIPS = 2048  # for which other processes are worth the second that it takes to start them
_Row = dict[str, Any]  # of a table: values by column


@dataclass(frozen=True)
class Inspection:
    """The clips of a corpus.

    Args:
        clips: one row a usable clip, in the corpus's order: index (its position in the corpus), id, subset
            ("" where the corpus defines none), valence (NaN in an unlabelled test subset), speaker,
            n_samples, duration_seconds, digest (SHA-256 of the waveform), then all labels and raters; and
            where features were stored, shard and first_frame: their file, and their place in it.
        quarantine: one row a refused clip: index, id, subset, reason, message, twin (the usable clip with
            the same audio, else "").
    """

    clips: pd.DataFrame
    quarantine: pd.DataFrame


QUARANTINE_COLUMNS = ["index", "id", "subset", "reason", "message", "twin"]


_MOST_SHOWN = 3  # clips in a message


def check_labels(corpus: Corpus, settings: CorpusSettings, protocol: str = "", n_folds: int = 0) -> None:
    """Refuse a corpus whose ratings or speakers cannot be used, before any audio is decoded.

    Args:
        settings: the range of the ratings, and the seed of the split.
        protocol, n_folds: of the split that will be made, as `splits.make_splits` takes them; "" for none.

    Raises:
        CorpusError: a rating is beyond the range, all ratings are equal, no clip is rated, or there are too
            few clips or speakers for the split.
    """
    valences = corpus.valences()
    rated = np.isfinite(valences)
    if not rated.any():
        first = "".join(f"\n  {problem}" for problem in _problems(corpus))
        raise CorpusError(
            f"none of the {len(corpus)} clips of {corpus.name!r} has a rating to learn from.{first}"
        )
    lowest, highest = (np.where(np.isfinite(bound), bound, np.nan) for bound in corpus.rating_bounds())
    low, high = np.nanmin(lowest), np.nanmax(highest)
    beyond = np.flatnonzero((lowest < settings.valence_low) | (highest > settings.valence_high))
    if beyond.size:
        outer = np.where(lowest < settings.valence_low, lowest, highest)[beyond]
        first = ", ".join(
            f"{corpus.ids[n]!r} {value:g}" for n, value in zip(beyond, outer[:_MOST_SHOWN], strict=False)
        )
        code = f" If {outer[0]:g} marks a missing rating, leave the cell empty." * bool(
            (outer == outer[0]).all()
        )
        raise CorpusError(
            f"{beyond.size:,} of {rated.sum():,} ratings of {corpus.name!r} are not between "
            f"{settings.valence_low:g} and {settings.valence_high:g} ({first}{', ...' * (beyond.size > 3)}). "
            f"The lowest is {low:g} and the highest {high:g}: give the ends of their scale, such as "
            f"RANGE={math.floor(low)},{math.ceil(high)}, or RANGE=auto, or correct these ratings.{code}"
        )
    if valences[rated].min() == valences[rated].max():
        raise CorpusError(
            f"all {rated.sum():,} ratings of {corpus.name!r} are {valences[rated][0]:g}; expected ratings "
            "that differ. Correct the column of the valence, or give another one, as in COLUMNS=valence=NAME."
        )
    if protocol:
        import pandas as pd

        from valence_lib.preprocess.splits import make_splits

        subsets = [corpus.subset(index) for index in range(len(corpus))]
        table = {"id": corpus.ids, "subset": subsets, "valence": valences, "speaker": corpus.speakers()}
        clips = pd.DataFrame(table)
        make_splits(clips[rated | (clips["subset"] == "test")], protocol, n_folds, settings.seed)


def _problems(corpus: Corpus) -> Iterator[str]:
    """Why the first clips cannot be used."""
    for index in range(min(len(corpus), _MOST_SHOWN)):
        try:
            corpus.read(index)
        except ClipError as error:
            yield f"{corpus.ids[index]}: {error}"


def observed_range(corpus: Corpus) -> tuple[float, float]:
    """The lowest and the highest rating of a corpus, rounded down and up to whole numbers, for RANGE=auto.

    Raises:
        CorpusError: no clip is rated, all ratings are equal, or one number is so far from all others that it
            may mark missing ratings, as -99 and 9 do.
    """
    check_labels(corpus, CorpusSettings(-math.inf, math.inf))
    lowest, highest = corpus.rating_bounds()
    values = np.concatenate([lowest, highest])
    values = np.unique(values[np.isfinite(values)])
    for outer, others in ((values[0], values[1:]), (values[-1], values[:-1])):
        if len(others) > 1 and np.abs(others - outer).min() >= np.ptp(others):
            raise CorpusError(
                f"the ratings of {corpus.name!r} lie between {others[0]:g} and {others[-1]:g}, but for "
                f"{outer:g}. Where it marks a missing rating, leave the cell empty; else give RANGE=low,high."
            )
    return float(np.floor(values[0])), float(np.ceil(values[-1]))


def inspect_corpus(
    corpus: Corpus,
    settings: CorpusSettings,
    features: FeatureSettings,
    folder: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Inspection:
    """Read every clip once, find the usable ones and, if asked, store their features.

    The tables and the shards do not depend on the number of processes. After an interruption, finished shards
    are not computed again.

    Args:
        settings: the range of the ratings, and how many clips of each speaker to take.
        folder: of the feature store, for all usable clips, with those beyond `clips_per_speaker`; None to
            check alone.
        workers: number of processes; None takes one a core, and only this one for a small corpus.
        progress: show a bar on standard error where that is a terminal.

    Raises:
        CorpusError: no clip is usable, or `check_labels` refuses the ratings.
        WorkerError: one of the processes was killed.
    """
    import pandas as pd

    check_labels(corpus, settings)
    task = partial(_inspect_chunk, features, folder)
    chunks = in_chunks(corpus, task, workers, _MANY_CLIPS, "preprocess" if progress else "")
    usable, refused = ([row for chunk in chunks for row in chunk[kind]] for kind in (0, 1))
    if not usable:
        reasons = Counter(row["reason"] for row in refused).most_common()
        found = ", ".join(f"{reason}: {n}" for reason, n in reasons) or "it is empty"
        first = "".join(f"\n  {row['id']}: {row['message']}" for row in refused[:_MOST_SHOWN])
        raise CorpusError(
            f"the corpus {corpus.name!r} has {len(corpus)} clips, of which none can be used ({found}); "
            f"expected {WHAT_IS_TAKEN}.{first}"
        )
    clips = pd.DataFrame(usable)
    if settings.clips_per_speaker:
        clips = clips[clips.groupby(["subset", "speaker"]).cumcount() < settings.clips_per_speaker]
    # Of clips with the same audio a test clip stays if there is one: no tested audio is trained on.
    in_order = clips.sort_values("subset", key=lambda subset: subset != "test", kind="stable")
    stay = in_order.drop_duplicates("digest")
    twins = clips[~clips.index.isin(stay.index)]
    twin = twins["digest"].map(stay.set_index("digest")["id"])
    message = [f"the same audio as {name!r}." for name in twin]
    doubles = twins[["index", "id", "subset"]].assign(reason="duplicate", message=message, twin=twin)
    clips = clips.drop(index=twins.index).reset_index(drop=True)
    quarantine = pd.DataFrame([*refused, *doubles.to_dict("records")], columns=QUARANTINE_COLUMNS)
    if clips["valence"].isna().all():
        raise CorpusError(
            f"none of the {len(clips)} usable clips of {corpus.name!r} has a rating to learn from."
        )
    return Inspection(clips, quarantine.sort_values("index", ignore_index=True))


def _inspect_chunk(
    features: FeatureSettings, folder: Path | None, corpus: Corpus, first: int
) -> tuple[list[_Row], list[_Row]]:
    """Rows of the usable and of the refused clips of `corpus`, whose first clip has the index `first`."""
    usable, refused = list[_Row](), list[_Row]()
    waveforms: list[Waveform] = []
    for position, clip_id in enumerate(corpus.ids):
        try:
            clip = corpus.read(position)
            check_waveform(clip.waveform, features.n_fft)
            _check_label(clip)
        except ClipError as error:
            found = {"index": first + position, "id": clip_id, "subset": corpus.subset(position)}
            refused.append(found | {"reason": error.reason, "message": str(error), "twin": ""})
            continue
        usable.append({"index": first + position, **_describe(clip)})
        if folder:
            waveforms.append(clip.waveform)
            if sum(map(len, waveforms)) >= _MOST_SAMPLES:
                _store(folder, waveforms, usable, features)
                waveforms = []
    if folder and waveforms:
        _store(folder, waveforms, usable, features)
    return usable, refused


def _store(folder: Path, waveforms: list[Waveform], usable: list[_Row], features: FeatureSettings) -> None:
    """Store the features of the last clips of `usable`, and note there their place."""
    rows = usable[-len(waveforms) :]
    shard = write_shard(folder, waveforms, [str(row["digest"]) for row in rows], features)
    first_frame = 0
    for row, waveform in zip(rows, waveforms, strict=True):
        row |= {"shard": shard, "first_frame": first_frame}
        first_frame += features.frames(waveform.size)


def _check_label(clip: Clip) -> None:
    if clip.valence is None:
        if clip.subset != "test":
            raise ClipError("label missing", "the clip has no valence; only test clips may lack it.")
    elif not math.isfinite(clip.valence):
        raise ClipError("label not a number", f"the valence is {clip.valence}.")


def _describe(clip: Clip) -> dict[str, object]:
    measured = {
        "id": clip.id,
        "subset": clip.subset,
        "valence": math.nan if clip.valence is None else clip.valence,
        "speaker": clip.speaker,
        "n_samples": clip.waveform.size,
        "duration_seconds": clip.waveform.size / clip.sample_rate,
        "digest": digest(clip.waveform),
    }
    # A column of the labels does not replace what was measured.
    own = {"index", *measured, "shard", "first_frame"}
    labels = {column: text for column, text in clip.labels.items() if column not in own}
    return measured | labels | dict(clip.ratings)


def summarise(inspection: Inspection, corpus: Corpus) -> str:
    """The text that `valence check` prints: counts, durations, labels, speakers, and every refused clip."""
    import pandas as pd

    clips, quarantine = inspection.clips, inspection.quarantine
    durations, valence = clips["duration_seconds"], clips["valence"].dropna()
    speakers = clips.loc[clips["speaker"] != "", "speaker"]
    lines = [
        f"corpus     {corpus.name}: {len(corpus)} clips, {len(clips)} taken, {len(quarantine)} in quarantine",
        f"read as    {corpus.form}",
        *(f"note       {note}" for note in corpus.notes),
        f"duration   {durations.min():.2f} to {durations.max():.2f} s, mean {durations.mean():.2f} s, "
        f"{durations.sum() / 3600:.3f} h in all",
        f"valence    {valence.min():g} to {valence.max():g}, mean {valence.mean():.3f}, "
        f"variance {valence.var(ddof=0):.4f}, {len(clips) - len(valence)} clips without",
        f"speakers   {speakers.nunique() or 'not named: training and test may share voices'}"
        + f", unknown for {len(clips) - len(speakers)} clips" * (0 < len(speakers) < len(clips)),
    ]
    if subsets := [f"{subset} {n}" for subset, n in clips["subset"].value_counts().items() if subset]:
        lines.append(f"subsets    {', '.join(subsets)}")
    bins, edges = pd.cut(valence, 8, retbins=True)
    heights = bins.value_counts(sort=False)
    for low, high, n in zip(edges[:-1], edges[1:], heights, strict=True):
        lines.append(f"  {low:5.2f} to {high:5.2f}  {'#' * round(40 * n / heights.max())} {n}")
    lines += [f"quarantine {reason}: {n}" for reason, n in quarantine["reason"].value_counts().items()]
    lines += [f"  {row.id}: {row.reason}: {row.message}" for row in quarantine.itertuples()]
    return "\n".join(lines)


def check_corpus(corpus: str | Path | Corpus, valence_low: float = 1.0, valence_high: float = 5.0) -> str:
    """Read a corpus and describe it in words: counts, durations, ratings, and every clip that cannot be used.

    Args:
        corpus: as `open_corpus` takes or returns it.
        valence_low, valence_high: the rating scale.

    Raises:
        CorpusError: there is no such corpus, or no clip is usable.
    """
    clips_of = corpus if isinstance(corpus, Corpus) else open_corpus(corpus)
    settings = CorpusSettings(valence_low, valence_high)
    return summarise(inspect_corpus(clips_of, settings, FeatureSettings()), clips_of)
