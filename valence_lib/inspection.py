"""Corpus -> a table of the clips that can be used, and a table of those that cannot, with the reason.

Every clip is read once, by all cores; the features of the usable ones go into the feature store on the way.
"""

from __future__ import annotations  # the processes that read clips do without pandas

import math
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from valence_lib.chunks import in_chunks
from valence_lib.corpora import WHAT_IS_TAKEN, Clip, Corpus
from valence_lib.errors import ClipError, CorpusError
from valence_lib.settings import CorpusSettings, FeatureSettings
from valence_lib.store import write_shard
from valence_lib.waveforms import Waveform, check_waveform, digest

if TYPE_CHECKING:
    import pandas as pd

_MOST_SAMPLES = 2**24  # whose features go into one shard: 64 MB of waveforms, 35 minutes at 8000 Hz
_MANY_CLIPS = 2048  # from here on, other processes are worth the second that it takes to start them
_Row = dict[str, Any]  # of a table: values by column


@dataclass(frozen=True)
class Inspection:
    """What was found in a corpus.

    Args:
        clips: one row a usable clip, in the corpus's order: index (its position in the corpus), id, part
            ("" where the corpus names none), valence (NaN in an unlabelled test part), speaker,
            n_samples, duration_seconds, digest (SHA-256 of the waveform), then all labels and raters; and
            where features were stored, shard and first_frame: in which file they lie, and where in it.
        quarantine: one row a refused clip: index, id, part, reason, message, twin (the clip with the same
            audio that is kept, else "").
    """

    clips: pd.DataFrame
    quarantine: pd.DataFrame


QUARANTINE_COLUMNS = ["index", "id", "part", "reason", "message", "twin"]


def inspect_corpus(
    corpus: Corpus,
    settings: CorpusSettings,
    features: FeatureSettings,
    folder: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Inspection:
    """Read every clip once, sort the usable from the unusable and, where asked, store the features of the usable.

    Chunks of successive clips are shared out among processes of one thread each. The tables and the
    shards are the same however many there are. Cut off and started again, it keeps the finished shards.

    Args:
        folder: of the feature store, for all clips that can be used, whether or not `clips_per_speaker`
            takes them; None to check alone.
        workers: how many processes, this one among them; None takes one a core, and only this one where there is
            little to do.
        progress: show a bar on standard error where that is a terminal.

    Raises:
        CorpusError: no clip can be used, or none that can has a rating.
        WorkerError: one of the processes was ended from outside.
    """
    import pandas as pd

    usable: list[_Row] = []
    refused: list[_Row] = []
    with (
        closing(in_chunks(corpus, _Task(settings, features, folder), workers, _MANY_CLIPS)) as chunks,
        tqdm(
            total=len(corpus),
            desc="preprocess",
            unit=" clips",
            disable=not (progress and sys.stderr.isatty()),
        ) as bar,
    ):
        for chunk in chunks:
            usable += chunk.usable
            refused += chunk.refused
            bar.update(len(chunk.usable) + len(chunk.refused))
    if not usable:
        raise CorpusError(
            f"the corpus {corpus.name!r} has {len(corpus)} clips, of which none can be used "
            f"({_count_reasons(refused)}); expected {WHAT_IS_TAKEN}."
        )
    clips = pd.DataFrame(_first_of_each_speaker(usable, settings.clips_per_speaker))
    twins = _duplicates(clips)
    for row, twin in twins.items():
        found = clips.loc[row, ["index", "id", "part"]].to_dict()
        refused.append(
            found | {"reason": "duplicate", "message": f"the same audio as {twin!r}.", "twin": twin}
        )
    clips = clips.drop(index=list(twins)).reset_index(drop=True)
    quarantine = pd.DataFrame(refused, columns=QUARANTINE_COLUMNS).sort_values("index", ignore_index=True)
    if clips["valence"].notna().sum() == 0:
        raise CorpusError(
            f"none of the {len(clips)} usable clips of {corpus.name!r} has a rating to learn from."
        )
    return Inspection(clips, quarantine)


def _first_of_each_speaker(usable: list[_Row], clips_per_speaker: int) -> list[_Row]:
    if not clips_per_speaker:
        return usable
    taken: Counter[tuple[object, object]] = Counter()
    chosen = []
    for row in usable:
        voice = row["part"], row["speaker"]
        taken[voice] += 1
        if taken[voice] <= clips_per_speaker:
            chosen.append(row)
    return chosen


@dataclass(frozen=True)
class _Chunk:
    """What was found in some successive clips: rows of the two tables."""

    usable: list[_Row]
    refused: list[_Row]


@dataclass(frozen=True)
class _Task:
    """What is done with a chunk of clips."""

    settings: CorpusSettings
    features: FeatureSettings
    folder: Path | None

    def __call__(self, corpus: Corpus, first: int) -> _Chunk:
        """Check the clips of `corpus`, of which the first has the index `first`, and store their features."""
        chunk = _Chunk([], [])
        waveforms: list[Waveform] = []
        n_samples = 0
        for position, clip_id in enumerate(corpus.ids):
            try:
                clip = corpus.read(position)
                check_waveform(clip.waveform, self.features.n_fft)
                _check_label(clip, self.settings)
            except ClipError as error:
                found = {"index": first + position, "id": clip_id, "part": corpus.part(position)}
                said = {"reason": error.reason, "message": str(error), "twin": ""}
                chunk.refused.append(found | said)
                continue
            chunk.usable.append({"index": first + position, **_describe(clip)})
            if self.folder is not None:
                waveforms.append(clip.waveform)
                n_samples += clip.waveform.size
                if n_samples >= _MOST_SAMPLES:
                    self._store(waveforms, chunk.usable)
                    waveforms, n_samples = [], 0
        if waveforms:
            self._store(waveforms, chunk.usable)
        return chunk

    def _store(self, waveforms: list[Waveform], usable: list[_Row]) -> None:
        """Store the features of the last clips of `usable`, and note there where they lie."""
        assert self.folder is not None
        rows = usable[-len(waveforms) :]
        shard = write_shard(self.folder, waveforms, [str(row["digest"]) for row in rows], self.features)
        first_frame = 0
        for row, waveform in zip(rows, waveforms, strict=True):
            row |= {"shard": shard, "first_frame": first_frame}
            first_frame += self.features.frames(waveform.size)


def _check_label(clip: Clip, settings: CorpusSettings) -> None:
    if clip.valence is None:
        if clip.part != "test":
            raise ClipError(
                "label missing", "the clip has no valence; only clips of a test part may lack it."
            )
        return
    if not math.isfinite(clip.valence):
        raise ClipError("label not a number", f"the valence is {clip.valence}.")
    if not settings.valence_low <= clip.valence <= settings.valence_high:
        raise ClipError(
            "label out of range",
            f"the valence is {clip.valence:g}; expected {settings.valence_low:g} to {settings.valence_high:g} "
            "(a corpus on another scale: RANGE=low,high).",
        )


def _describe(clip: Clip) -> dict[str, object]:
    measured = {
        "id": clip.id,
        "part": clip.part,
        "valence": math.nan if clip.valence is None else clip.valence,
        "speaker": clip.speaker,
        "n_samples": clip.waveform.size,
        "duration_seconds": clip.waveform.size / clip.sample_rate,
        "digest": digest(clip.waveform),
    }
    # A column of the manifest never takes the place of what was measured, least of all of "index" or "digest".
    own = {"index", *measured, "shard", "first_frame"}
    labels = {column: text for column, text in clip.labels.items() if column not in own}
    return measured | labels | dict(clip.ratings)


def _duplicates(clips: pd.DataFrame) -> dict[int, str]:
    """Rows to leave out because another clip has their audio, each with the id of the clip that stays.

    The clip that stays is one of the test part where there is one, so that nothing which is tested
    on is trained on; otherwise the first.
    """
    twins: dict[int, str] = {}
    for _, alike in clips[clips["digest"].duplicated(keep=False)].groupby("digest", sort=False):
        kept = min(alike.index, key=lambda row: (clips.loc[row, "part"] != "test", row))
        twins |= {int(row): str(clips.loc[kept, "id"]) for row in alike.index if row != kept}
    return twins


def _count_reasons(refused: list[_Row]) -> str:
    counts = Counter(row["reason"] for row in refused)
    return ", ".join(f"{reason}: {n}" for reason, n in counts.most_common()) or "it is empty"


def summarise(inspection: Inspection, corpus: Corpus) -> str:
    """What `valence check` prints: counts, durations, labels, speakers, and every bad clip."""
    import pandas as pd

    clips, quarantine = inspection.clips, inspection.quarantine
    durations, valence = clips["duration_seconds"], clips["valence"].dropna()
    speakers = clips.loc[clips["speaker"] != "", "speaker"]
    lines = [
        f"corpus     {corpus.name}: {len(corpus)} clips, {len(clips)} taken, {len(quarantine)} in quarantine",
        f"duration   {durations.min():.2f} to {durations.max():.2f} s, mean {durations.mean():.2f} s, "
        f"{durations.sum() / 3600:.3f} h in all",
        f"valence    {valence.min():g} to {valence.max():g}, mean {valence.mean():.3f}, "
        f"variance {valence.var(ddof=0):.4f}, {len(clips) - len(valence)} clips without",
        f"speakers   {speakers.nunique() or 'not named: training and test may share voices'}",
    ]
    if parts := [f"{part} {n}" for part, n in clips["part"].value_counts().items() if part]:
        lines.append(f"parts      {', '.join(parts)}")
    counts, edges = pd.cut(valence, 8, retbins=True)
    heights = counts.value_counts(sort=False).to_numpy()
    for low, high, n in zip(edges[:-1], edges[1:], heights, strict=True):
        lines.append(f"  {low:5.2f} to {high:5.2f}  {'#' * round(40 * n / heights.max())} {n}")
    lines += [f"quarantine {reason}: {n}" for reason, n in quarantine["reason"].value_counts().items()]
    lines += [f"  {row.id}: {row.reason}: {row.message}" for row in quarantine.itertuples()]
    return "\n".join(lines)
