"""Label files of the MSP laboratory as text: a line for each clip, then one for each of its raters.

    MSP-PODCAST_0001_0139.wav; N; A:2.400000; V:4.000000; D:2.800000;
    WORKER00000001; Other-confused; Concerned,Confused; A:3.000000; V:3.000000; D:4.000000;

MSP-IMPROV adds the naturalness, N, and writes "D:2.8 ;". The second list of emotions may be absent, and what
a rater wrote may hold semicolons.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from valence_lib.corpora.published.label_files import read_text
from valence_lib.errors import CorpusError

LETTERS = {"valence": "V", "arousal": "A", "dominance": "D"}
EMOTIONS = {
    "A": "anger",
    "C": "contempt",
    "D": "disgust",
    "F": "fear",
    "H": "happiness",
    "N": "neutral",
    "O": "other",
    "S": "sadness",
    "U": "surprise",
    "X": "no agreement",
}
_CLIP = (".wav", ".avi")
_LINE = re.compile(
    r"\s*([^;]+?)\s*;\s*([^;]*?)\s*;(?:.*;)?\s*A:([^;]*);\s*V:([^;]*);\s*D:([^;]*);?(?:\s*N:[^;]*;?)?\s*"
)
_EXPECTED = "'NAME; EMOTION; A:2.4; V:4.0; D:2.8;'"
_MOST_SHOWN = 60  # characters of a line


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The labels of a clip, by one rater or by all.

    Args:
        place: such as "line 7 of 'labels.txt'".
        clip: the name of the clip's file.
        rater: the rater's name; "" for all.
        emotion: as it is written.
        ratings: the texts after A:, V: and D:, by their letters; the line itself where it has another form.
    """

    place: str
    clip: str
    rater: str
    emotion: str
    ratings: Mapping[str, str]

    def rating(self, target: str) -> tuple[str, str]:
        """The text of a rating of "valence", "arousal" or "dominance", and where it is, for a message."""
        return self.ratings[LETTERS[target]], f"{LETTERS[target]} in {self.place}"


def parse_evaluation(text: str, place: str, clip: str = "") -> Evaluation:
    """Read one line.

    Args:
        text: of the line.
        place: where it is.
        clip: the clip that a rater's line is about; "" for a line about a clip itself.
    """
    name, _, _ = text.partition(";")
    rater = name.strip() if clip else ""
    if not (found := _LINE.fullmatch(text)):
        shown = dict.fromkeys(LETTERS.values(), text.strip()[:_MOST_SHOWN])
        return Evaluation(place, clip or name.strip(), rater, "", shown)
    ratings = {"A": found[3].strip(), "V": found[4].strip(), "D": found[5].strip()}
    return Evaluation(place, clip or name.strip(), rater, found[2], ratings)


def read_evaluations(path: Path) -> list[Evaluation]:
    """Read a file of such lines, in their order.

    Raises:
        CorpusError: it is no text, or no line is about a clip.
    """
    found: list[Evaluation] = []
    clip = ""
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, 1):
        place = f"line {number} of {path.name!r}"
        if line.partition(";")[0].strip().lower().endswith(_CLIP):
            found.append(parse_evaluation(line, place))
            clip = found[-1].clip
        elif clip and line.strip():
            found.append(parse_evaluation(line, place, clip))
    if not found:
        begin = next((line.strip() for line in lines if line.strip()), "")
        raise CorpusError(
            f"the label file {path.name!r} begins with {begin[:_MOST_SHOWN]!r} and has no line such as "
            f"{_EXPECTED} with a .wav or .avi file as its NAME. Restore the file as it is published."
        )
    return found
