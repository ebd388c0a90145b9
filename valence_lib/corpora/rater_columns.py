"""From the ratings of each clip by named raters to one column a rater, rating_a1, rating_a2, ..."""

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial

_MOST_RATERS = 64  # that have a column each


def rater_columns(
    ratings: Sequence[Mapping[str, float]], ids: Sequence[str], raters: Collection[str]
) -> tuple[list[dict[str, float]], str]:
    """Give each rater a column; where there are very many, each column holds one rating of every clip.

    Raters of a crowd rate a few clips each. Their ratings are then put into a random order within each clip,
    and the columns are the first, the second, ... of them.

    Args:
        ratings: of each clip, by the rater's name.
        ids: the clips' names, which determine the random order.
        raters: the names that stand for one person each; ratings under other names have no column.

    Returns:
        The ratings of each clip by column, NaN where one is missing, and a sentence about the columns: ""
        where there are no raters, or they have the names of their columns.

    >>> rater_columns([{"Ann": 2.0, "Bo": 3.0}, {"Bo": 1.0}], ["x", "y"], ["Bo", "Ann"])[0]
    [{'rating_a1': 2.0, 'rating_a2': 3.0}, {'rating_a1': nan, 'rating_a2': 1.0}]
    """
    names = sorted(raters, key=lambda name: [*map(_as_number, re.split(r"(\d+)", name))])
    if len(names) <= _MOST_RATERS:
        columns = {f"rating_a{number}": name for number, name in enumerate(names, 1)}
        listed = ", ".join(f"a{number} {name}" for number, name in enumerate(names, 1))
        found = [
            {column: of_clip.get(name, math.nan) for column, name in columns.items()} for of_clip in ratings
        ]
        if names == [f"a{number}" for number in range(1, len(names) + 1)]:
            return found, ""
        return found, f"The raters are {listed}."
    in_order = [
        sorted(
            (name for name, rating in of_clip.items() if not math.isnan(rating)), key=partial(_digest, clip)
        )
        for clip, of_clip in zip(ids, ratings, strict=True)
    ]
    most = min(max(map(len, in_order), default=0), _MOST_RATERS)
    found = [
        {
            f"rating_a{number + 1}": of_clip[order[number]] if number < len(order) else math.nan
            for number in range(most)
        }
        for of_clip, order in zip(ratings, in_order, strict=True)
    ]
    note = (
        f"There are {len(names):,} raters, who are not distinguished: a1 is one rating of each clip, drawn "
        f"at random, a2 another, up to a{most}."
    )
    return found, note


def _digest(clip: str, rater: str) -> bytes:
    return hashlib.sha256(f"{clip}\n{rater}".encode()).digest()


def _as_number(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (-1, part)
