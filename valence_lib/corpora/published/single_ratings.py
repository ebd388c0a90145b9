"""The ratings of single raters by clip, from files in which one may be missing, repeated or no number."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from valence_lib.corpora.published.label_files import clip_name, counted, parse_rating
from valence_lib.errors import ClipError


@dataclass
class SingleRatings:
    """Collects ratings; of several by one rater for one clip, the first counts.

    Args:
        scale: the lowest and the highest rating that can be given.
    """

    scale: tuple[float, float]
    _by_clip: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    _missing: list[str] = field(default_factory=list)
    _repeated: list[str] = field(default_factory=list)
    _unreadable: list[str] = field(default_factory=list)

    def add(self, clip: str, rater: str, text: str, where: str) -> None:
        """Add a rating.

        Args:
            clip: the name of its file, with or without folders and suffix.
            rater: the rater's name.
            text: the rating as the file has it.
            where: the place of the text, such as "V in line 7 of 'labels.txt'".
        """
        try:
            rating = parse_rating(text, self.scale, where)
        except ClipError as error:
            self._unreadable.append(str(error))
            return
        if rating is None:
            self._missing.append(clip)
        elif rater in (of_clip := self._by_clip[clip_name(clip)]):
            self._repeated.append(clip)
        else:
            of_clip[rater] = rating

    def of(self, clip: str) -> Mapping[str, float]:
        """The ratings of a clip by their raters."""
        return self._by_clip.get(clip_name(clip), {})

    def notes(self) -> list[str]:
        """What was left out, a sentence each."""
        notes = counted(
            self._repeated,
            "rating repeats one of the same rater for the same clip and is left out",
            "ratings repeat one of the same rater for the same clip and are left out",
        )
        notes += counted(
            self._missing,
            "clip lacks the rating of one of its raters",
            "ratings of single raters are missing",
        )
        if self._unreadable:
            number = len(self._unreadable)
            these = (
                "1 rating of a single rater is" if number == 1 else f"{number:,} ratings of single raters are"
            )
            notes.append(f"{these} left out. {self._unreadable[0]}")
        return notes
