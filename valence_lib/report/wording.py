"""How numbers, verdicts and names are written in tables and sentences."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from valence_lib.settings import Target

METRIC_TITLES = {
    "mse": "MSE",
    "ccc": "CCC",
    "mae": "MAE",
    "pearson_r": "Pearson r",
    "r2": "R²",
    "sd_ratio": "SD ratio",
}
SUBSET_WORDS = {"validation": "validation", "test": "test", "out_of_fold": "held-out"}
VERDICTS = {"better": "**better**", "worse": "**worse**", "tie": "**no significant difference**"}
# The dimensions of emotion, with the words for the lowest and the highest rating.
EMOTIONAL = {
    "valence": ("negative", "positive"),
    "arousal": ("calm", "excited"),
    "dominance": ("submissive", "dominant"),
}
_LABELS = {verdict: f"{words}:" for verdict, words in VERDICTS.items()}


def rounded(value: float, digits: int = 3) -> str:
    """A number with a true minus sign and no negative zero.

    >>> rounded(-0.12345), rounded(-0.0001)
    ('−0.123', '0.000')
    """
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def with_interval(value: float, interval: Sequence[float], digits: int = 3) -> str:
    """A score and its interval.

    >>> with_interval(0.5, [0.25, 0.75])
    '0.500 [0.250, 0.750]'
    """
    return f"{rounded(value, digits)} [{rounded(interval[0], digits)}, {rounded(interval[1], digits)}]"


def difference_of(comparison: Mapping[str, Any]) -> str:
    """The difference of a comparison, with its interval."""
    return with_interval(comparison["difference"], [comparison["low"], comparison["high"]])


def ends_of(target: Target) -> tuple[str, str]:
    """The words for the lowest and the highest rating.

    >>> ends_of(Target("dominance")), ends_of(Target("warmth"))
    (('submissive', 'dominant'), ('low', 'high'))
    """
    return EMOTIONAL.get(target.name, ("low", "high"))


def scale_of(target: Target) -> str:
    """The ends of a rating scale with their words.

    >>> scale_of(Target("arousal", 1, 7)), scale_of(Target("warmth", 0, 100))
    ('1 (calm) to 7 (excited)', '0 (low) to 100 (high)')
    """
    low, high = ends_of(target)
    return f"{target.low:g} ({low}) to {target.high:g} ({high})"


def capitalised(text: str) -> str:
    """Text as it begins a sentence; unlike `str.capitalize`, it keeps the other letters.

    >>> capitalised("valence"), capitalised("pleasantness (MOS)")
    ('Valence', 'Pleasantness (MOS)')
    """
    return text[:1].upper() + text[1:]


def p_value(p: float) -> str:
    """A p value with three digits.

    >>> p_value(0.0421), p_value(0.0001)
    ('0.042', '<0.001')
    """
    return rounded(p) if p >= 0.001 else "<0.001"


def title_of(row: Mapping[str, Any]) -> str:
    """The title of a row of results.json: its model and preset."""
    return "Predict the mean" if row["model"] == "mean" else f"{row['model']}, {row['preset']}"


def listed(names: Sequence[str]) -> str:
    """Names as a list in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def by_verdict(found: Iterable[tuple[str, str]], phrases: Mapping[str, str] = _LABELS) -> str:
    """Names grouped by their verdict, in the order of `phrases`; "" where none has one of them.

    Args:
        found: names, each with its verdict.
        phrases: what is written before the names of each verdict.

    >>> by_verdict([("a", "tie"), ("b", "worse"), ("c", "worse")])
    '**worse**: b and c; **no significant difference**: a'
    """
    pairs = list(found)
    names = {verdict: [name for name, own in pairs if own == verdict] for verdict in phrases}
    return "; ".join(f"{phrases[verdict]} {listed(group)}" for verdict, group in names.items() if group)
