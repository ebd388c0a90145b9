"""A page whose names come from a hostile corpus: nothing is interpreted, in HTML, PDF, figures and tables."""

import re
import shutil
import subprocess
import warnings
from html.parser import HTMLParser
from itertools import pairwise

import nbformat
import numpy as np
import pandas as pd
import pytest
from hostile import NAMES
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from valence_lib.report import rendering, tables
from valence_lib.report.corpus_text import code, literal, plain, visible
from valence_lib.report.figures.errors import plot_prediction_intervals
from valence_lib.report.figures.scores import plot_differences, plot_error_by_group
from valence_lib.report.rendering import audio, figure, prose, render_report, table
from valence_lib.report.sentences import analysis, data
from valence_lib.settings import Target

ORDINARY = [f"speaker {number:02}" for number in range(len(NAMES))]


def _show(names, folder):
    """Shows names in every place of a report where a corpus has names."""
    pairs = [{"first": first, "second": second} for first, second in pairwise(names)]
    split = {"shared_speakers": names[:3], "unnamed": 0, "subsets": {"test": {"speakers": 30}}}
    for begin in range(0, len(names), 5):
        results = {"split": split | {"shared_speakers": names[begin : begin + 5]}}
        results |= {"synthetic": True, "description": names[begin], "tested": "test", "speakers": 30}
        near = {"pairs": 9, "across_subsets": 1, "listed": pairs[begin : begin + 5]}
        for warning in data.warnings(results | {"near_duplicates": near}):
            prose(f"> {warning}")
    stated = [
        # A whole address is a link there.
        {"name": name, "clips": 1, "scale": [1, 5], "source": "", "citation": name.replace("http", "ftp")}
        for name in names
    ]
    stated = [part | {"terms": part["citation"]} for part in stated]
    for about in data.corpora({"corpora": stated}):
        prose(about)
    mse = np.linspace(0.2, 1.0, len(names))
    groups = pd.DataFrame({"group": names, "mse": mse, "low": mse - 0.1, "high": mse + 0.1, "n": 50})
    for name in names:
        prose(f"**Corpus.** {literal(name)}: clips {literal(name)}, {code(name)}.")
        prose(analysis.by_group(groups[groups["group"].isin([name, names[0]])], 0.01, "speaker"))
    number = iter(range(1, 100))
    for drawn in (
        plot_error_by_group(groups, "speaker"),
        plot_differences(groups.assign(label=names, difference=mse, verdict="tie"), "the others"),
        plot_prediction_intervals(
            pd.DataFrame({"truth": 3.0, "prediction": 3.1, "low": 2.0, "high": 4.0, "speaker": names[:24]}),
            0.9,
            Target(),
        ),
    ):
        caption = f"Tiles of {code(names[0])}, {literal(names[1])}"
        figure(drawn, f"Figure {next(number)}", caption, f"MSE of {plain(names[0])}.", folder)
    for name in names:
        audio(np.zeros(800, np.float32), 8000, f"{plain(name)}: rated 1.00, predicted 2.00")
    worst = pd.DataFrame({"id": names, "speaker": names[::-1], "truth": 3.0, "prediction": 2.0})
    table(tables.worst_table(worst.assign(duration_seconds=1.0)), "Table 1", "The worst clips.", "", folder)
    lost = pd.DataFrame({"id": names, "subset": "test", "reason": "unreadable", "message": names})
    table(tables.quarantine_table(lost), "Table 2", f"Quarantined {code(names[0])}.", "A note.", folder)
    table(pd.DataFrame({name: ["x"] for name in names[:8]}), "Table 3", "Names as columns.", "", folder)


class Page(HTMLParser):
    """The elements of a page with the names of their attributes, its links, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.links, self.text, self.values = [], [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, *sorted(name for name, _ in attrs)))
        self.links += [value for name, value in attrs if name in ("href", "src") and len(value) < 200]
        self.values += [value or "" for name, value in attrs if name in ("alt", "aria-label")]

    def handle_data(self, data):
        self.text += data


def _rendered(names, folder, monkeypatch):
    cells = []

    def display(shown, metadata=None, **_):
        content = shown if isinstance(shown, dict) else {"text/markdown": shown.data}
        cells.append(new_code_cell(outputs=[new_output("display_data", content, metadata=metadata or {})]))

    monkeypatch.setattr(rendering, "display", display)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of glyphs that a font lacks
        _show(names, folder)
    monkeypatch.undo()
    path = folder / "names.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Names\n\n## First"), *cells]), path)
    render_report(path, folder / "names.html", folder / "names.pdf")
    return Page((folder / "names.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        folders = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("ordinary")
        named = zip((list(NAMES.values()), ORDINARY), folders, strict=True)
        return *(_rendered(names, folder, monkeypatch) for names, folder in named), folders[0]


def test_names_add_no_element_attribute_or_link(pages):
    hostile, ordinary, _ = pages

    def apart_from_code(page):  # a name with backticks or without letters is no code
        note = ("p", "class")  # of transliterated names
        return [element for element in page.elements if element not in (("code",), note)]

    assert apart_from_code(hostile) == apart_from_code(ordinary)
    assert hostile.links == ordinary.links


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_on_the_page_as_it_is(pages, name):
    hostile, *_ = pages
    text = " ".join(hostile.text.split())
    expected = " ".join(visible(NAMES[name]).split())
    isolated = " ".join(plain(NAMES[name]).split())
    assert text.count(isolated) >= 6  # in sentences, tables and over players
    assert text.count(expected) >= 10
    assert any(value.startswith(f"{plain(NAMES[name])}: rated") for value in hostile.values)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("html", "<b>bold</b><img src=x onerror=alert(1)>"),
        ("emphasis", "*stars* _lines_ __both__ ~~gone~~ ~sub~ ^sup^"),
        ("citation", "[@lin1989] @lin1989 [^1] [^note]: text"),
        ("dollars", "costs $5 or $6"),
        ("math", r"$\frac{1}{2}$ $$x$$ \(y\) \[z\] \begin{equation}"),
        ("typst", '#text(red)[x] #import "a" @fig <label> // gone /* gone */ = a'),
        ("template", "{{ cell.source }} {% block %} $title$ ${ style.css() } {0} %s"),
        ("smart", '"quoted" it\'s -- --- ... (c) -1 (-2) -? a-?b'),
        ("minus", "-2+3"),
        ("address", "http://example.org www.example.org a@example.org"),
        ("chinese", "⟨ZhangSan 1d841b⟩"),
        ("chinese again", "⟨ZhangSan 6f15d5⟩"),
        ("tamil", "⟨tmil⟩"),
        ("ethiopic", "⟨selam⟩"),
        ("private", "⟨U+E000-U+F0000⟩"),
    ],
)
def test_the_pdf_has_each_name_or_its_latin_letters(pages, name, shown):
    command = ["pdftotext", "-raw", pages[2] / "names.pdf", "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text = re.sub(r"[\s\u00ad\u200b]", "", text)  # hyphens and the ends of lines
    assert text.count(re.sub(r"\s", "", shown)) >= 6
    assert "⟨anglebrackets⟩areinLatinletters" in text


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext")
def test_long_names_stay_within_the_margins_of_the_pdf(pages):
    command = ["pdftotext", "-bbox", pages[2] / "names.pdf", "-"]
    boxes = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    left = [float(x) for x in re.findall(r'xMin="([\d.]+)"', boxes)]
    right = [float(x) for x in re.findall(r'xMax="([\d.]+)"', boxes)]
    margin = 25 / 25.4 * 72  # points; A4 is 595.28 wide
    assert min(left) >= margin - 1
    assert max(right) <= 595.28 - margin + 2


def test_a_page_without_foreign_scripts_has_no_note(pages):
    hostile, ordinary, _ = pages
    assert "in Latin letters" in hostile.text
    assert "in Latin letters" not in ordinary.text


def test_tables_hold_no_formula(pages):
    frame = pd.read_csv(pages[2] / "table-2.csv", dtype=str, keep_default_na=False)
    assert list(frame.columns) == ["Clip", "Subset", "Reason", "Message"]
    for cell in frame.to_numpy().ravel():
        assert not re.match("[=+@\t\r-]", cell)
    assert '\'=HYPERLINK("http://example.org","x")' in set(frame["Clip"])
