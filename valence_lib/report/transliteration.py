"""Latin letters for the scripts that the fonts of figures and of the PDF lack.

Both use DejaVu Sans, which comes with matplotlib, so that they are the same on every machine. It has Latin,
Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic letters and many symbols. Chinese, Japanese, Korean,
Indian and other scripts are written in Latin letters, between angle brackets: 张三 as ⟨ZhangSan⟩.
"""

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

OPENING, CLOSING = "⟨", "⟩"
_JOINERS = "\u200c\u200d\ufe00-\ufe0f"  # which belong to the letters and emoji around them


@cache
def fonts() -> tuple[Path, ...]:
    """The files of DejaVu Sans, the regular one first."""
    import matplotlib

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return tuple(folder / f"DejaVuSans{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique"))


@cache
def _lacking() -> re.Pattern[str]:
    """Finds runs of characters that DejaVu Sans lacks."""
    from matplotlib.ft2font import FT2Font

    has = set(FT2Font(str(fonts()[0])).get_charmap()) - {0x1680}  # a blank that typst takes as missing
    # Bidirectional isolates need no glyph.
    shown = "".join(map(re.escape, map(chr, sorted(has | {0x09, 0x0A, 0x2068, 0x2069}))))
    return re.compile(f"[^{shown}](?:[^{shown}]|[{_JOINERS}])*")


def transliterate(text: str) -> str:
    """Text that DejaVu Sans can show: what it lacks is written in Latin letters, between angle brackets.

    Where two runs of one text have the same letters, six digits of a digest distinguish them.

    Args:
        text: of any length, such as all text of a page.

    >>> transliterate("Ann and 张三")
    'Ann and ⟨ZhangSan⟩'
    """
    runs = set(_lacking().findall(text))
    if not runs:
        return text
    letters = {run: _letters(run) for run in runs}
    written = {run: f"{OPENING}{latin}{CLOSING}" for run, latin in letters.items()}
    for run in _ambiguous(written, text):
        digits = hashlib.sha256(run.encode("utf-8", "surrogatepass")).hexdigest()[:6]
        written[run] = f"{OPENING}{letters[run]} {digits}{CLOSING}"
    return _lacking().sub(lambda found: written[found[0]], text)


def _letters(run: str) -> str:
    """Latin letters and digits for a run; its code points where there are none."""
    from anyascii import anyascii

    words = re.findall(r"[A-Za-z0-9]+", anyascii(run))
    return "-".join(words) or "-".join(f"U+{ord(character):04X}" for character in run)


def _ambiguous(written: dict[str, str], text: str) -> Iterable[str]:
    """The runs that are written as another one, or as something else in the text."""
    known = list(written.values())
    return [run for run, shown in written.items() if known.count(shown) > 1 or shown in text]
