"""The check of a finished HTML page: known elements only, nothing to load or to run, and no dead link."""

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from valence_lib.errors import NotebookError


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ANY = _names("id class lang dir role title style tabindex translate")
_CELL = _names("align colspan headers rowspan scope valign")
_TEXT_ELEMENTS = _names(
    "abbr article aside b bdi blockquote body br caption cite code dd del dfn div dl dt em figcaption figure "
    "footer h1 h2 h3 h4 h5 h6 head header hr html i ins kbd main mark nav p pre q s samp section small span "
    "strong style sub sup tbody tfoot thead title tr u ul var wbr"
)
# MathML Core, and what of MathML 3 pandoc writes for tables of equations.
_MATH_ELEMENTS = _names(
    "math annotation menclose merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot "
    "mrow ms mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover semantics"
)
_MATH_ATTRIBUTES = _names(
    "accent accentunder columnalign columnlines columnspacing columnspan depth display displaystyle encoding "
    "fence form height largeop linebreak linethickness lspace mathcolor mathsize mathvariant maxsize minsize "
    "movablelimits notation rowalign rowlines rowspacing rowspan rspace scriptlevel separator stretchy "
    "symmetric voffset width xmlns"
)
_ELEMENTS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(_TEXT_ELEMENTS, frozenset[str]()),
    **dict.fromkeys(_MATH_ELEMENTS, _MATH_ATTRIBUTES),
    **dict.fromkeys(("td", "th"), _CELL),
    "a": _names("href"),
    "audio": _names("controls preload src"),
    "col": _names("span width"),
    "colgroup": _names("span"),
    "img": _names("alt height src width"),
    "li": _names("value"),
    "link": _names("href rel"),
    "meta": _names("charset content http-equiv name"),
    "ol": _names("start type"),
    "source": _names("src type"),
    "table": _names("border"),
}
_LINK = re.compile(r"#|https?://|mailto:", re.IGNORECASE)
_EMBEDDED = re.compile(r"data:(image/(png|jpeg|gif|webp)|audio/[\w.+-]+)[;,]", re.IGNORECASE)
_NO_ICON = "data:,"
_STYLE = re.compile(r"\s*(text-align|vertical-align|width|min-width)\s*:\s*[\w\s.%-]+", re.IGNORECASE)
_LOADING = re.compile(r"@import|url\(|image-set\(|expression\(", re.IGNORECASE)
_COMMENT = re.compile(r"<(!(?!DOCTYPE html>)|\?).{,60}", re.DOTALL)
_HEAD_ONLY = ("base", "link", "meta", "style", "title")
_SHOWN = 60  # characters of an attribute in a message


def check_page(notebook: Path, page: str) -> None:
    """Refuse a page with an unknown element or attribute, an image without a text, or a link to nowhere.

    Args:
        notebook: from which the page is made, for messages.
        page: the HTML.

    Raises:
        NotebookError: the first such thing.
    """
    _PageCheck(notebook, page)


class _PageCheck(HTMLParser):
    def __init__(self, notebook: Path, page: str):
        super().__init__()
        self.notebook = notebook
        self.identifiers: set[str] = set()
        self.links: set[str] = set()
        self.element = ""
        self.in_body = False
        if found := _COMMENT.search(page):
            self._refuse(f"{found[0]!r}, and browsers disagree where some comments and declarations end")
        self.feed(page)
        for target in sorted(self.links - self.identifiers):
            self._refuse(f"a link to #{target}, which names no heading, figure or table of it")

    def _refuse(self, what: str) -> None:
        raise NotebookError(
            f"The page of {self.notebook} would hold {what}; take that out of the notebook and run it again."
        )

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.element = tag
        given = {name: value or "" for name, value in attrs}
        if len(given) < len(attrs):
            self._refuse(f"an element <{tag}> that has one attribute twice")
        values = "".join(f" {name}={value[:_SHOWN]!r}" for name, value in given.items())
        shown = f"<{tag}{values}>"
        if tag not in _ELEMENTS or (self.in_body and tag in _HEAD_ONLY):
            self._refuse(f"{shown}, and a report has text, tables, figures and recordings only")
        self.in_body = self.in_body or tag == "body"
        own = _ELEMENTS[tag] | _ANY
        for name, value in given.items():
            if name not in own and not name.startswith(("aria-", "data-")):
                self._refuse(f"{shown} with the attribute {name}, and a report runs no script")
            if name == "src" and not _EMBEDDED.match(value):
                self._refuse(f"{shown}, and a report loads nothing from outside itself")
            if name == "href" and value != _NO_ICON and not _LINK.match(value):
                self._refuse(f"{shown}, and a report links to its own parts and to web pages only")
            if name == "style":
                self._check_style(value, shown)
        if tag == "img" and not given.get("alt", "").strip():
            self._refuse(f"{shown}, an image without alternative text")
        if identifier := given.get("id"):
            if identifier in self.identifiers:
                self._refuse(f"two things named {identifier!r}")
            self.identifiers.add(identifier)
        if tag == "a" and given.get("href", "").startswith("#"):
            self.links.add(unquote(given["href"][1:]))

    def _check_style(self, style: str, shown: str) -> None:
        for rule in filter(str.strip, style.split(";")):
            if not _STYLE.fullmatch(rule):
                self._refuse(f"{shown} with the style {rule.strip()!r}, and a report has its own style only")

    def handle_data(self, data: str) -> None:
        # The text of an element <style>, of which a page has one.
        if self.element == "style" and (found := _LOADING.search(data)):
            self._refuse(f"the style {found[0]!r}, and a report loads nothing from outside itself")

    def handle_endtag(self, tag: str) -> None:
        self.element = ""
