"""Corpus -> a table of the clips that can be used, and a table of those that cannot, with the reason.

Every clip is read once; nothing is trained and nothing is written.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from tqdm.auto import tqdm

from valence_lib.corpora import WHAT_IS_TAKEN, Clip, Corpus
from valence_lib.errors import ClipError, CorpusError
from valence_lib.settings import CorpusSettings, FeatureSettings
from valence_lib.waveforms import check_waveform, digest


@dataclass(frozen=True)
class Inspection:
    """What was found in a corpus.

    Args:
        clips: one row a usable clip, in the corpus's order: index (its position in the corpus), id, part
            ("" where the corpus names none), valence (NaN in an unlabelled test part), speaker,
            n_samples, duration_seconds, digest (SHA-256 of the waveform), then all labels and raters.
        quarantine: one row a refused clip: index, id, part, reason, message, twin (the clip with the same
            audio that is kept, else "").
    """

    clips: pd.DataFrame
    quarantine: pd.DataFrame


QUARANTINE_COLUMNS = ["index", "id", "part", "reason", "message", "twin"]


def inspect_corpus(
    corpus: Corpus, settings: CorpusSettings, features: FeatureSettings, progress: bool = True
) -> Inspection:
    """Read every clip once and sort the usable from the unusable.

    Raises:
        CorpusError: no clip can be used, or none that can has a rating.
    """
    usable, refused = [], []
    taken: dict[tuple[str, str], int] = {}
    for index in tqdm(range(len(corpus)), desc="check", unit="clip", disable=None if progress else True):
        try:
            clip = corpus.read(index)
            check_waveform(clip.waveform, features.n_fft)
            _check_label(clip, settings)
        except ClipError as error:
            refused.append([index, corpus.ids[index], corpus.part(index), error.reason, str(error), ""])
            continue
        voice = clip.part, clip.speaker
        taken[voice] = taken.get(voice, 0) + 1
        if not settings.clips_per_speaker or taken[voice] <= settings.clips_per_speaker:
            usable.append({"index": index, **_describe(clip)})
    clips = pd.DataFrame(usable)
    if not usable:
        raise CorpusError(
            f"the corpus {corpus.name!r} has {len(corpus)} clips, of which none can be used "
            f"({_count_reasons(refused)}); expected {WHAT_IS_TAKEN}."
        )
    twins = _duplicates(clips)
    for row, twin in twins.items():
        found = clips.loc[row, ["index", "id", "part"]]
        refused.append([*found, "duplicate", f"the same audio as {twin!r}.", twin])
    clips = clips.drop(index=list(twins)).reset_index(drop=True)
    quarantine = pd.DataFrame(refused, columns=QUARANTINE_COLUMNS).sort_values("index", ignore_index=True)
    if clips["valence"].notna().sum() == 0:
        raise CorpusError(
            f"none of the {len(clips)} usable clips of {corpus.name!r} has a rating to learn from."
        )
    return Inspection(clips, quarantine)


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
    labels = {column: text for column, text in clip.labels.items() if column not in {"index", *measured}}
    return measured | labels | dict(clip.ratings)


def _duplicates(clips: pd.DataFrame) -> dict[int, str]:
    """Rows to leave out because another clip has their audio, each with the id of the clip that stays.

    The clip that stays is one of the test part where there is one, so that nothing which is tested
    on is trained on; otherwise the first.
    """
    twins: dict[int, str] = {}
    for _, alike in clips.groupby("digest", sort=False):
        kept = min(alike.index, key=lambda row: (clips.loc[row, "part"] != "test", row))
        twins |= {int(row): str(clips.loc[kept, "id"]) for row in alike.index if row != kept}
    return twins


def _count_reasons(refused: Sequence[Sequence[object]]) -> str:
    counts = pd.Series([row[3] for row in refused], dtype=str).value_counts()
    return ", ".join(f"{reason}: {n}" for reason, n in counts.items()) or "it is empty"


def summarise(inspection: Inspection, corpus: Corpus) -> str:
    """What `valence check` prints: counts, durations, labels, speakers, and every bad clip."""
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
