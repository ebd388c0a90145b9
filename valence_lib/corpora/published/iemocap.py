"""IEMOCAP: scripted and improvised dialogues of five pairs of actors, rated turn by turn.

    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav
    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt        of one dialogue, a block of lines a turn:

        [6.2901 - 8.2357]   Ses01F_impro01_F000   neu   [2.5000, 2.5000, 2.5000]   valence, arousal, dominance
        A-E3:   val 3; act 2; dom  2;   ()                                         by the rater E3
        A-F1:   val 3; act 2; dom  1;   ()                                         by the actor herself

A name begins with the session and with the actor who wears the markers of the motion capture. Who speaks is
stated by the letter of the turn: Ses01F_impro01_M003 is spoken by the man of session 1.
"""

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from valence_lib.corpora.labels import LabelRow, Labels
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import (
    by_clip,
    clip_name,
    counted,
    parse_rating,
    recordings,
    without_labels,
)
from valence_lib.corpora.published.single_ratings import SingleRatings
from valence_lib.errors import ClipError, CorpusError

_SCALE = (1.0, 5.0)
_DIMENSIONS = {"valence": "val", "arousal": "act", "dominance": "dom"}  # in the order of a turn's line
_EMOTIONS = {
    "ang": "anger",
    "dis": "disgust",
    "exc": "excitement",
    "fea": "fear",
    "fru": "frustration",
    "hap": "happiness",
    "neu": "neutral",
    "oth": "other",
    "sad": "sadness",
    "sur": "surprise",
    "xxx": "no agreement",
}
_SCRIPTED = "script"
_KINDS = {"impro": "improvised", _SCRIPTED: "scripted"}
_EVALUATOR = "E"  # with which the names of raters begin who are not the actors
_AUDIO = "Session[1-5]/sentences/wav"
_PLACE = re.compile(r"Session\d/sentences/wav/([^/]+)/\1_[^/]+", re.IGNORECASE)
_LABELS = "Session[1-5]/dialog/EmoEvaluation"
_TURN_LINE = re.compile(r"\[[^\]]*\]\s+(\w+)\s+(\w+)\s+\[([^\]]*)\]\s*")
_EXPECTED = "'[6.2901 - 8.2357] Ses01F_impro01_F000 neu [2.5000, 2.5000, 2.5000]'"
_RATER = re.compile(r"A-(\w+)\s*:([^(]*)")  # without the rater's comment
_NAME = re.compile(r"Ses(\d+)[FM]_(impro|script)(\w+)_([FM])\w+")


def read(folder: Path, target: str) -> Labels:
    """Read IEMOCAP; the rating of a turn is the mean of its raters that the corpus states.

    The turns of one scripted dialogue have one sentence: their numbers differ between the sessions. Each
    improvised turn is a sentence of its own.

    Args:
        folder: with Session1 to Session5.
        target: "valence", "arousal", "dominance", or "" for the clips alone.

    Raises:
        CorpusError: there are no label files, none has the line of a turn, or a turn has two recordings.
    """
    paths = sorted(path for path in folder.glob(f"{_LABELS}/*.txt") if not path.name.startswith("."))
    if not paths:
        raise CorpusError(
            f"IEMOCAP at '{folder.name}' has no label files; expected "
            "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt and others. Copy them from the archive "
            "IEMOCAP_full_release."
        )
    notes: list[str] = []
    files = [
        f"{place.relative_to(folder).as_posix()}/{file}"
        for place in folder.glob(_AUDIO)
        for file in recordings(place)
    ]
    on_disk = by_clip(files, _PLACE.fullmatch, notes)
    found = _Found(target)
    for path in paths:
        found.add(path, path.relative_to(folder).parts[0])
    if not found.turns:
        first = found.unreadable[0] if found.unreadable else repr(paths[0].name)
        raise CorpusError(
            f"the {len(paths)} label files of IEMOCAP at '{folder.name}' have no line such as {_EXPECTED}; "
            f"see {first}. Restore them as they are published."
        )
    rows = [
        _row(name, turn, on_disk.get(clip_name(name)), target, found.singles)
        for name, turn in found.turns.items()
    ]
    notes += counted(
        found.repeated,
        "turn has labels in several places; the first count",
        "turns have labels in several places; the first count",
    )
    if found.unreadable:
        number = len(found.unreadable)
        lines = "1 line of a turn has" if number == 1 else f"{number:,} lines of turns have"
        notes.append(f"{lines} another form: {found.unreadable[0]}.")
    if found.n_self_reports:
        notes.append(f"{found.n_self_reports:,} ratings of turns by their own actors are left out.")
    notes += found.singles.notes()
    notes += without_labels(on_disk.values(), {clip_name(name) for name in found.turns})
    rows.sort(key=lambda row: row.file)
    return Labels(rows, "IEMOCAP, with dialog/EmoEvaluation", notes, paths)


@dataclass(frozen=True)
class _Turn:
    place: str
    session: str  # its folder
    emotion: str
    ratings: list[str]


class _Found:
    """What the label files state.

    Args:
        target: the dimension whose ratings by single raters are kept; "" for none.
    """

    def __init__(self, target: str):
        self.target = target
        self.turns: dict[str, _Turn] = {}
        self.singles = SingleRatings(_SCALE)
        self.repeated: list[str] = []
        self.unreadable: list[str] = []
        self.n_self_reports = 0

    def add(self, path: Path, session: str) -> None:
        """Add one file."""
        name = ""
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("latin-1").split("\n")
        for number, line in enumerate(lines, 1):
            place = f"line {number} of {path.name!r}"
            if line.startswith("["):
                name = self._add_turn(line, place, session)
            elif name and (rating := _RATER.match(line)):
                self._add_rating(name, rating[1], rating[2], place)

    def _add_turn(self, line: str, place: str, session: str) -> str:
        """Add the turn of a line, and give its name; "" where the line has another form."""
        form = _TURN_LINE.fullmatch(line)
        if form is None:
            self.unreadable.append(place)
            return ""
        turn = _Turn(place, session, form[2], [text.strip() for text in form[3].split(",")])
        if self.turns.setdefault(form[1], turn) is not turn:
            self.repeated.append(form[1])
        return form[1]

    def _add_rating(self, turn: str, rater: str, ratings: str, place: str) -> None:
        if not rater.startswith(_EVALUATOR):
            self.n_self_reports += 1
        elif self.target:
            name = _DIMENSIONS[self.target]
            value = re.search(rf"\b{name}\b([^;]*)", ratings)
            self.singles.add(turn, rater, value[1].strip() if value else "", f"{name} in {place}")


def _row(name: str, turn: _Turn, file: str | None, target: str, singles: SingleRatings) -> LabelRow:
    rating, problem = None, None
    if target:
        try:
            text = dict(zip(_DIMENSIONS, turn.ratings, strict=False)).get(target, "")
            rating = parse_rating(text, _SCALE, f"the {target} in {turn.place}")
        except ClipError as error:
            problem = error
    form = _NAME.fullmatch(name)
    session, kind, dialogue, sex = form.groups() if form else ("",) * 4
    return LabelRow(
        place=turn.place,
        file=file or f"{turn.session}/sentences/wav/{name.rpartition('_')[0]}/{name}.wav",
        rating=rating,
        by_rater=singles.of(name),
        labels={
            "speaker": session + sex,
            "sex": sex,
            "language": "en",
            "sentence": f"{kind}{dialogue.rstrip('b')}" if kind == _SCRIPTED else name,
            "emotion": _EMOTIONS.get(turn.emotion, ""),
            "kind": _KINDS.get(kind, ""),
            "session": session,
        },
        problem=problem,
    )


CORPUS = PublishedCorpus(
    name="IEMOCAP",
    marks=(f"{_AUDIO}/Ses0[1-5][FM]_*",),
    remains=((_LABELS,), "the recordings in Session1/sentences/wav/ and those of the other sessions"),
    read=read,
    scales=dict.fromkeys(_DIMENSIONS, _SCALE),
    content="10,039 turns (12 hours) of scripted and improvised English dialogues, 10 actors in 5 sessions",
    source="https://sail.usc.edu/iemocap/",
    terms="release form of the University of Southern California, signed by the institution",
    citation=(
        "Busso, C., Bulut, M., Lee, C.-C., Kazemzadeh, A., Mower, E., Kim, S., Chang, J. N., Lee, S., and "
        "Narayanan, S. S. (2008). IEMOCAP: Interactive Emotional Dyadic Motion Capture Database. Language "
        "Resources and Evaluation, 42(4), 335-359."
    ),
)
