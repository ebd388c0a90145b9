"""MSP-IMPROV: improvised dialogues of pairs of actors, and the same sentences read, each turn rated by many.

    Evalution.txt, later Evaluation.txt                       a block of lines a clip, see `msp_lines`
    session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav            in some copies within the folder Audio

A name holds the sentence (S01 to S20), the acted emotion (A, H, S or N), the speaker (F01 to M06, with the
number of the session), the kind of recording (P, R, S or T), the two actors and the turn. The label file has
the names of the videos, as UTD-IMPROV-S01A-F01-P-FM01.avi. The arousal is stored in reverse: it is low for
angry turns and high for sad and neutral ones.
"""

import re
from pathlib import Path, PurePosixPath

from valence_lib.corpora.labels import LabelRow, Labels
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import (
    by_clip,
    clip_name,
    counted,
    nearest,
    parse_rating,
    recordings,
    without_labels,
)
from valence_lib.corpora.published.msp_lines import EMOTIONS, LETTERS, Evaluation, read_evaluations
from valence_lib.corpora.published.single_ratings import SingleRatings
from valence_lib.errors import ClipError, CorpusError

_SCALE = (1.0, 5.0)
_LABEL_FILE = "Eval*tion.txt"
_PLACE = re.compile(r"(audio/)?session\d+/S\d+[AHNS]/[PRST]/[^/]+", re.IGNORECASE)
_NAME = re.compile(r"MSP-IMPROV-(S\d+)([AHNS])-(([FM])(\d+))-([PRST])-\w+")
_KINDS = {"P": "natural", "R": "read", "S": "improvised", "T": "target"}
_OF_THE_SENTENCE = {"read", "target"}  # whose speaker says the sentence that the name states
_REVERSED = (
    "MSP-IMPROV stores the arousal from 1 (very active) to 5 (very calm). The ratings are 6 minus the stored "
    "values, so that higher is more active, as in other corpora."
)


def read(folder: Path, target: str) -> Labels:
    """Read MSP-IMPROV; the rating of a clip is the mean that the corpus states.

    Args:
        folder: with Evalution.txt or Evaluation.txt.
        target: "valence", "arousal", "dominance", or "" for the clips alone. The arousal is reversed, so
            that higher is more active.

    Raises:
        CorpusError: the label file is absent or holds no labels, or there are two.
    """
    notes = [_REVERSED] if target == "arousal" else []
    path = nearest(folder.glob(_LABEL_FILE), lambda _: 0, folder, notes)
    if path is None:
        raise CorpusError(
            f"MSP-IMPROV at '{folder.name}' has no Evalution.txt or Evaluation.txt, which holds its labels. "
            "Copy it from the archive of the corpus into this folder."
        )
    clips: dict[str, Evaluation] = {}
    repeated, singles = [], SingleRatings(_SCALE)
    for evaluation in read_evaluations(path):
        stem = re.sub("^UTD-", "MSP-", PurePosixPath(evaluation.clip).stem)
        if not evaluation.rater:
            if clips.setdefault(stem, evaluation) is not evaluation:
                repeated.append(stem)
        elif target:
            singles.add(stem, evaluation.rater, *evaluation.rating(target))
    files = [file for file in recordings(folder) if file.lower().endswith(".wav")]  # and not the videos
    on_disk = by_clip(files, _PLACE.fullmatch, notes)
    rows = [_row(stem, clip, on_disk.get(clip_name(stem)), target, singles) for stem, clip in clips.items()]
    notes += counted(
        repeated,
        "clip has labels in several places; the first count",
        "clips have labels in several places; the first count",
    )
    notes += singles.notes()
    notes += without_labels(on_disk.values(), {clip_name(stem) for stem in clips})
    rows.sort(key=lambda row: row.file)
    return Labels(rows, f"MSP-IMPROV, with {path.name}", notes, [path])


def _row(stem: str, clip: Evaluation, file: str | None, target: str, singles: SingleRatings) -> LabelRow:
    rating, problem = None, None
    if target:
        text, where = clip.rating(target)
        try:
            rating = parse_rating(text, _SCALE, where)
        except ClipError as error:
            problem = error
    name = _NAME.fullmatch(stem)
    sentence, acted, speaker, sex, session, letter = name.groups() if name else ("",) * 6
    kind = _KINDS.get(letter, "")
    says_sentence = kind in _OF_THE_SENTENCE
    return LabelRow(
        place=clip.place,
        file=file or f"session{session.lstrip('0')}/{sentence}{acted}/{letter}/{stem}.wav",
        rating=None if rating is None else _oriented(rating, target),
        by_rater={rater: _oriented(value, target) for rater, value in singles.of(stem).items()},
        labels={
            "speaker": speaker,
            "sex": sex,
            "language": "en",
            "sentence": sentence if says_sentence else stem,  # improvised turns are said once
            "emotion": EMOTIONS.get(clip.emotion, ""),
            "acted_emotion": EMOTIONS.get(acted, "") if says_sentence else "",
            "kind": kind,
            "scenario": sentence + acted,
            "session": session,
        },
        problem=problem,
    )


def _oriented(rating: float, target: str) -> float:
    return sum(_SCALE) - rating if target == "arousal" else rating


CORPUS = PublishedCorpus(
    name="MSP-IMPROV",
    marks=(_LABEL_FILE, "[AaSs]*/**/MSP-IMPROV-S*.wav"),
    remains=((_LABEL_FILE,), "the recordings in session1/ to session6/"),
    read=read,
    scales=dict.fromkeys(LETTERS, _SCALE),
    content="8,438 turns (9.5 hours) of improvised and read English speech, 12 actors in 6 sessions",
    source="https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html",
    terms="academic licence of the University of Texas at Dallas, signed by the institution",
    citation=(
        "Busso, C., Parthasarathy, S., Burmania, A., AbdelWahab, M., Sadoughi, N., and Mower Provost, E. "
        "(2017). MSP-IMPROV: An Acted Corpus of Dyadic Interactions to Study Emotion Perception. IEEE "
        "Transactions on Affective Computing, 8(1), 67-80."
    ),
)
