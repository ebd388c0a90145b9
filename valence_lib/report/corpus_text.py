"""Text of a corpus (names, labels, descriptions) in a report: always shown as it is, never interpreted.

| where | function |
| --- | --- |
| a sentence in Markdown, for `rendering.prose` and captions | `literal`, or `code` for names of files |
| a sentence in Markdown whose web addresses are links | `linked` |
| alternative texts, labels of players, other sentences without markup | `plain` |
| cells of tables, which `rendering.table` takes as they are | `visible`, which it calls itself |
| ticks and titles of figures | `figure_labels` |
| cells of a CSV file that a spreadsheet may open | `spreadsheet_cell` |

Bidirectional controls are removed: they reorder the text around a name (Unicode Technical Report 36,
"Unicode Security Considerations", section 2.5). Names in a script that is written from right to left are
isolated instead, as Unicode Standard Annex 9 describes in section 2.4.2.
"""

import hashlib
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from valence_lib.report.transliteration import transliterate

LONGEST_LABEL = 32  # characters of a name in a figure
_ISOLATE, _END = "\u2068", "\u2069"
_BIDIRECTIONAL_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Control characters, line separators, lone surrogates, noncharacters, and characters that nobody can see.
# U+200C and U+200D stay, because Persian, Indian scripts and emoji need them.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u180e\u200b\u2028\u2029\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\ufdd0-\ufdef\U000e0000-\U000e007f]"
)
_MARK = f"[{re.escape(string.punctuation)}]"
# Punctuation that may be markup: some always; the rest at an end of the text or beside other punctuation,
# with exceptions; after the first word ("1. ", "a) ", "Table: "), in addresses; dots beside dots; and
# underscores that are not within a word.
_MARKUP = re.compile(
    rf"""[\\`*{{}}\[\]<>|~^$@&"'] | (?![.,;()?]){_MARK}(?:(?={_MARK})|(?<={_MARK}{_MARK}))
    | [.](?=[.]) | (?<=[.])[.] | ^{_MARK} | (?![.,;)?]){_MARK}$
    | (?<![^\W_])_ | _(?![^\W_]) | (?<=www)[.] | :(?=\S) | ^\w+[.)](?=\s|$) | ^table:""",
    re.VERBOSE | re.IGNORECASE,
)
_ADDRESS = re.compile(r"(https?://[A-Za-z0-9._~/%?#=&+-]*[A-Za-z0-9/])")
_FORMULA = re.compile("[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")  # the last four are full-width
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s?%?")


def visible(text: str) -> str:
    r"""Text on one line that hides nothing: no bidirectional controls, and escapes for other controls.

    >>> visible("two\nlines"), visible("caf\udce9")
    ('two\\nlines', 'caf\\xe9')
    """
    return _HIDDEN.sub(_escape, _BIDIRECTIONAL_CONTROLS.sub("", text))


def _escape(character: re.Match[str]) -> str:
    code = ord(character[0])
    if 0xDC80 <= code <= 0xDCFF:  # one byte of a file name that is not UTF-8, as `os.fsdecode` gives it
        return f"\\x{code - 0xDC00:02x}"
    return character[0].encode("unicode_escape").decode()


def _isolated(markup: str) -> str:
    """Text or Markdown, isolated where it has letters that are written from right to left."""
    if any(unicodedata.bidirectional(character) in ("R", "AL") for character in markup):
        return f"{_ISOLATE}{markup}{_END}"
    return markup


def plain(text: str) -> str:
    """Text for a sentence without markup."""
    return _isolated(visible(text))


def literal(text: str) -> str:
    r"""Text for a sentence in Markdown, of which neither pandoc nor Jupyter interprets anything.

    >>> literal("LJ001 *b*")
    'LJ001 \\*b\\*'
    """
    return _isolated(_MARKUP.sub(_as_markdown, visible(text)))


def _as_markdown(found: re.Match[str]) -> str:
    word, mark = found[0][:-1], found[0][-1]
    # Jupyter's MathJax reads the finished page, where a backslash before a dollar is gone. It finds no
    # formula that begins in one element and ends in another. page.lua takes the elements out again.
    return f"{word}<span>\\{mark}</span>" if mark in "$\\" else f"{word}\\{mark}"


def linked(text: str) -> str:
    r"""Text as `literal` gives it, with its web addresses as links.

    >>> linked("version_2: https://example.org/a_b.")
    'version_2: <https://example.org/a_b>\\.'
    """
    pieces = _ADDRESS.split(text)  # every second one is an address
    return "".join(f"<{piece}>" if odd % 2 else literal(piece) for odd, piece in enumerate(pieces))


def code(text: str) -> str:
    """The name of a file or another identifier as code in Markdown.

    >>> code("audio/a_1.wav")
    '`audio/a_1.wav`'
    """
    shown = visible(text)
    if "`" in shown or not shown.strip():
        return literal(text)
    return _isolated(f"`{shown}`")


def figure_labels(names: Sequence[str]) -> list[str]:
    """Names as ticks or titles of a figure, shortened in the middle; two are equal only where the names are.

    Args:
        names: of one figure.

    >>> figure_labels(["Ann", "A" * 90])
    ['Ann', 'AAAAAAAAAAAAAAAAAAAA…AAAAAAAAAAA']
    """
    labels = {name: _shortened(transliterate(visible(name))) for name in names}
    known = Counter(labels.values())
    return [_distinct(labels[name], name) if known[labels[name]] > 1 else labels[name] for name in names]


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_LABEL:
        return text
    return f"{text[: LONGEST_LABEL - 12]}…{text[-11:]}"


def _distinct(label: str, name: str) -> str:
    """A label with six digits of the digest of its name."""
    return f"{label} ({hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]})"


def spreadsheet_cell(text: str) -> str:
    """The text of a CSV cell; what a spreadsheet would take for a formula begins with an apostrophe.

    Source: OWASP, "CSV Injection".

    >>> spreadsheet_cell("=1+1"), spreadsheet_cell("-0.5")
    ("'=1+1", '-0.5')
    """
    return f"'{text}" if _FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text) else text
