"""Corpus -> a table of the usable clips, and a table of the others with the reason (the quarantine).

Every clip is read once, by all cores; the features of the usable clips go into the feature store.
"""

from __future__ import annotations  # the processes that read clips do without pandas

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from valence_lib.corpora.columns import RATER_COLUMN
from valence_lib.corpora.opening import WHAT_IS_TAKEN, open_corpus
from valence_lib.corpora.sources import Clip, Corpus
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
            ("" where the corpus defines none), rating (NaN in an unlabelled test subset), speaker, corpus,
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
        settings: the seed of the split.
        protocol, n_folds: of the split that will be made, as `splits.make_splits` takes them; "" for none.

    Raises:
        CorpusError: a rating is beyond the range of its corpus, all ratings are equal, no clip of a corpus is
            rated, or there are too few clips or speakers for the split.
    """
    target = corpus.target
    if corpus.unrated:
        raise CorpusError(corpus.unrated)
    # Of each corpus on its own scale, before the ratings are mapped to a common one.
    of_parts = [part.ratings() for part in corpus.parts]
    for part, values in zip(corpus.parts, of_parts, strict=True):
        if not np.isfinite(values).any():
            first = "".join(f"\n  {problem}" for problem in _problems(part))
            raise CorpusError(
                f"none of the {len(part)} clips of {part.name!r} has a rating of {target.name} to learn from."
                f"{first}"
            )
    _check_scales(corpus.parts, of_parts)
    ratings = of_parts[0] if len(of_parts) == 1 else corpus.ratings()
    rated = np.isfinite(ratings)
    if ratings[rated].min() == ratings[rated].max():
        raise CorpusError(
            f"all {rated.sum():,} ratings of {corpus.name!r} are {ratings[rated][0]:g}; expected ratings "
            f"that differ. Correct the column {target.name}, or give another one, as in "
            f"COLUMNS={target.name}=NAME."
        )
    if protocol:
        import pandas as pd

        from valence_lib.preprocess.splits import make_splits

        subsets = [corpus.subset(index) for index in range(len(corpus))]
        clips = pd.DataFrame({"id": corpus.ids, "subset": subsets, "rating": ratings})
        clips["speaker"] = corpus.speakers()
        clips["corpus"] = [corpus.part_of(index) for index in range(len(corpus))]
        make_splits(clips[rated | (clips["subset"] == "test")], protocol, n_folds, settings.seed)


def _check_scales(parts: Sequence[Corpus], ratings: Sequence[NDArray[np.float64]]) -> None:
    """Refuse ratings that are beyond the scale of their own corpus, with the ranges to give."""
    ranges, problems = [], []
    for part, values in zip(parts, ratings, strict=True):
        target = part.target
        lowest, highest = (np.where(np.isfinite(bound), bound, np.nan) for bound in part.rating_bounds())
        beyond = np.flatnonzero((lowest < target.low) | (highest > target.high))
        if not beyond.size:
            ranges.append(f"{target.low:g},{target.high:g}")
            continue
        low, high = np.nanmin(lowest), np.nanmax(highest)
        ranges.append(f"{math.floor(low)},{math.ceil(high)}")
        outer = np.where(lowest < target.low, lowest, highest)[beyond]
        first = ", ".join(
            f"{part.ids[n]!r} {value:g}" for n, value in zip(beyond, outer[:_MOST_SHOWN], strict=False)
        )
        code = f" If {outer[0]:g} marks a missing rating, leave the cell empty." * bool(
            (outer == outer[0]).all()
        )
        problems.append(
            f"{beyond.size:,} of {np.isfinite(values).sum():,} ratings of {part.name!r} are not "
            f"between {target.low:g} and {target.high:g} ({first}{', ...' * (beyond.size > 3)}). "
            f"The lowest is {low:g} and the highest {high:g}: give the ends of their scale, such as "
            f"RANGE={{}}, or {'RANGE=auto' if len(parts) == 1 else 'auto in place of one of these'}, or "
            f"correct these ratings.{code}"
        )
    if problems:
        raise CorpusError("\n".join(problems).replace("RANGE={}", f"RANGE={'/'.join(ranges)}"))


def _problems(corpus: Corpus) -> Iterator[str]:
    """Why the first clips cannot be used."""
    for index in range(min(len(corpus), _MOST_SHOWN)):
        try:
            corpus.read(index)
        except ClipError as error:
            yield f"{corpus.ids[index]}: {error}"


def inspect_corpus(
    corpus: Corpus,
    settings: CorpusSettings,
    features: FeatureSettings,
    folder: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    needs_ratings: bool = True,
) -> Inspection:
    """Read every clip once, find the usable ones and, if asked, store their features.

    The tables and the shards do not depend on the number of processes. After an interruption, finished shards
    are not computed again.

    Args:
        settings: how many clips of each speaker to take.
        folder: of the feature store, for all usable clips, with those beyond `clips_per_speaker`; None to
            check alone.
        workers: number of processes; None takes one a core, and only this one for a small corpus.
        progress: show a bar on standard error where that is a terminal.
        needs_ratings: refuse clips without a rating; False describes a corpus that has none.

    Raises:
        CorpusError: no clip is usable, or `check_labels` refuses the ratings.
        WorkerError: one of the processes was killed.
    """
    import pandas as pd

    if needs_ratings:
        check_labels(corpus, settings)
    task = partial(_inspect_chunk, features, folder, needs_ratings)
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
        number = clips.groupby(["corpus", "subset", "speaker"]).cumcount()
        # Clips of unknown speakers are not those of one person.
        clips = clips[(clips["speaker"] == "") | (number < settings.clips_per_speaker)]
    # Of clips with the same audio a test clip stays if there is one: no tested audio is trained on.
    in_order = clips.sort_values("subset", key=lambda subset: subset != "test", kind="stable")
    stay = in_order.drop_duplicates("digest")
    twins = clips[~clips.index.isin(stay.index)]
    twin = twins["digest"].map(stay.set_index("digest")["id"])
    message = [f"the same audio as {name!r}." for name in twin]
    doubles = twins[["index", "id", "subset"]].assign(reason="duplicate", message=message, twin=twin)
    if lost := sorted({*clips["corpus"]} - {*stay["corpus"]}):
        raise CorpusError(
            f"every usable clip of {lost[0]!r} has the same audio as one of another corpus, such as "
            f"{_first_twin(twins, twin, lost[0])}: the same recordings were given twice. Give them once."
        )
    clips = clips.drop(index=twins.index).reset_index(drop=True)
    quarantine = pd.DataFrame([*refused, *doubles.to_dict("records")], columns=QUARANTINE_COLUMNS)
    # Corpora differ in their labels.
    texts = [name for name in clips if not pd.api.types.is_numeric_dtype(clips[name])]
    clips[texts] = clips[texts].fillna("")
    if needs_ratings and clips["rating"].isna().all():
        raise CorpusError(
            f"none of the {len(clips)} usable clips of {corpus.name!r} has a rating of {corpus.target.name} "
            "to learn from."
        )
    return Inspection(clips, quarantine.sort_values("index", ignore_index=True))


def _first_twin(twins: pd.DataFrame, twin: pd.Series, corpus: str) -> str:
    of_corpus = twins["corpus"] == corpus
    return f"{twins.loc[of_corpus, 'id'].iloc[0]} and {twin[of_corpus].iloc[0]}"


def _inspect_chunk(
    features: FeatureSettings, folder: Path | None, needs_ratings: bool, corpus: Corpus, first: int
) -> tuple[list[_Row], list[_Row]]:
    """Rows of the usable and of the refused clips of `corpus`, whose first clip has the index `first`."""
    usable, refused = list[_Row](), list[_Row]()
    waveforms, rows = list[Waveform](), list[_Row]()
    for position, clip_id in enumerate(corpus.ids):
        found = {"index": first + position, "id": clip_id, "subset": corpus.subset(position)}
        try:
            clip = corpus.read(position)
            check_waveform(clip.waveform, features.n_fft)
        except ClipError as error:
            refused.append(found | {"reason": error.reason, "message": str(error), "twin": ""})
            continue
        row = {"index": first + position, **_describe(clip, corpus.part_of(position))}
        if (problem := _label_problem(clip, corpus.target.name)) is not None and needs_ratings:
            refused.append(found | {"reason": problem.reason, "message": str(problem), "twin": ""})
        else:
            usable.append(row)
        if folder:
            # Clips without a rating too, so that reports on several targets share their shards.
            waveforms.append(clip.waveform)
            rows.append(row)
            if sum(map(len, waveforms)) >= _MOST_SAMPLES:
                _store(folder, waveforms, rows, features)
                waveforms, rows = [], []
    if folder and waveforms:
        _store(folder, waveforms, rows, features)
    return usable, refused


def _store(folder: Path, waveforms: list[Waveform], rows: list[_Row], features: FeatureSettings) -> None:
    """Store the features of some clips, and note in their rows the place."""
    shard = write_shard(folder, waveforms, [str(row["digest"]) for row in rows], features)
    first_frame = 0
    for row, waveform in zip(rows, waveforms, strict=True):
        row |= {"shard": shard, "first_frame": first_frame}
        first_frame += features.frames(waveform.size)


def _label_problem(clip: Clip, target: str) -> ClipError | None:
    if clip.rating is None:
        if clip.subset != "test":
            return ClipError("label missing", f"the clip has no {target}; only test clips may lack it.")
    elif not math.isfinite(clip.rating):
        return ClipError("label not a number", f"the {target} is {clip.rating}.")
    return None


def _describe(clip: Clip, corpus: str) -> dict[str, object]:
    measured = {
        "id": clip.id,
        "subset": clip.subset,
        "rating": math.nan if clip.rating is None else clip.rating,
        "speaker": clip.speaker,
        "corpus": corpus,
        "n_samples": clip.waveform.size,
        "duration_seconds": clip.waveform.size / clip.sample_rate,
        "digest": digest(clip.waveform),
    }
    # A column of the labels does not replace what was measured.
    own = {"index", *measured, "shard", "first_frame", "fold"}
    labels = {
        column: text
        for column, text in clip.labels.items()
        if column not in own and not RATER_COLUMN.fullmatch(column)
    }
    return measured | labels | dict(clip.by_rater)


def summarise(inspection: Inspection, corpus: Corpus) -> str:
    """The text that `valence check` prints: counts, durations, labels, speakers, and every refused clip."""
    import pandas as pd

    clips, quarantine = inspection.clips, inspection.quarantine
    durations, ratings, target = clips["duration_seconds"], clips["rating"].dropna(), corpus.target
    speakers = clips.loc[clips["speaker"] != "", "speaker"]
    unrated = _clips(len(clips) - len(ratings))
    rated = (
        f"{ratings.min():g} to {ratings.max():g} on a scale of {target.low:g} to {target.high:g}, mean "
        f"{ratings.mean():.3f}, variance {ratings.var(ddof=0):.4f}, {unrated} without"
    )
    raters = [name for name in clips if RATER_COLUMN.fullmatch(str(name))]
    lines = [
        f"corpus     {corpus.name}: {_clips(len(corpus))}, {len(clips)} taken, {len(quarantine)} in "
        "quarantine",
        f"read as    {corpus.form}",
        *(f"note       {note}" for note in corpus.notes),
        f"duration   {durations.min():.2f} to {durations.max():.2f} s, mean {durations.mean():.2f} s, "
        f"{durations.sum() / 3600:.3f} h in all",
        f"{target.name:10} {rated if len(ratings) else 'no ratings'}",
        f"speakers   {speakers.nunique() or 'not named: training and test may share voices'}"
        + f", unknown for {_clips(len(clips) - len(speakers))}" * (0 < len(speakers) < len(clips)),
    ]
    if raters:
        lines.append(f"raters     {len(raters)}, {clips[raters].count(axis=1).mean():.1f} ratings a clip")
    for column, title in (("subset", "subsets"), ("corpus", "corpora")):
        counts = [f"{name} {n}" for name, n in clips[column].value_counts().items() if name]
        if counts and (column == "subset" or len(counts) > 1):
            lines.append(f"{title:10} {', '.join(counts)}")
    for part in corpus.parts:
        whose = f"{part.name}: " if len(corpus.parts) > 1 else ""
        lines += [
            f"{key:10} {whose}{part.about[key]}"
            for key in ("terms", "citation", "source")
            if part.about.get(key)
        ]
    if corpus.unrated:
        lines.append(f"note       {corpus.unrated}")
    if len(ratings):
        bins, edges = pd.cut(ratings, 8, retbins=True)
        heights = bins.value_counts(sort=False)
        for low, high, n in zip(edges[:-1], edges[1:], heights, strict=True):
            lines.append(f"  {low:5.2f} to {high:5.2f}  {'#' * round(40 * n / heights.max())} {n}")
    lines += [f"quarantine {reason}: {n}" for reason, n in quarantine["reason"].value_counts().items()]
    lines += [f"  {row.id}: {row.reason}: {row.message}" for row in quarantine.itertuples()]
    return "\n".join(lines)


def _clips(count: int) -> str:
    return "1 clip" if count == 1 else f"{count} clips"


def inspect(corpus: Corpus) -> Inspection:
    """Read all clips of a corpus, which may have no ratings, without storing features.

    Raises:
        CorpusError: no clip is usable, or the ratings cannot be used.
    """
    return inspect_corpus(corpus, CorpusSettings(), FeatureSettings(), needs_ratings=not corpus.unrated)


def check_corpus(corpus: str | Path | Corpus, scale: str = "", target: str = "valence") -> str:
    """Read a corpus and describe it in words: counts, durations, ratings, and every clip that cannot be used.

    Args:
        corpus, scale, target: as `open_corpus` takes them; or the corpus that it returns.

    Raises:
        CorpusError: there is no such corpus, or no clip is usable.
    """
    clips_of = corpus if isinstance(corpus, Corpus) else open_corpus(corpus, target=target, scale=scale)
    return summarise(inspect(clips_of), clips_of)
