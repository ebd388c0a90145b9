"""The report page in both editions, from one small notebook that really runs."""

import base64
import contextlib
import doctest
import io
import re
import shutil
import subprocess
import time
import zlib
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from valence_lib.errors import NotebookError
from valence_lib.report import rendering
from valence_lib.report.rendering import audio, figure, render_report, table

INTRODUCTION = r"""# Valence — a "small" report

See [Figure 1](#figure-1), [Table 1](#table-1), [Concordance](#concordance) and @lin1989.

> **Note.** Speakers are unknown.

## Data & definitions
- a list without a blank line above, $\sigma_x^2$

### Concordance
$$\rho_c = \frac{2\sigma_{xy}}{\sigma_x^2 + \sigma_y^2 + (\mu_x - \mu_y)^2}$$

| Part | Clips |
|:-----|------:|
| test |   120 |
"""

SETUP = """
import sys
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Audio
from valence_lib.report.rendering import figure, table, prose
print("to stderr", file=sys.stderr)
hidden_code = 1
"""

FIGURE = r"""
fig, axes = plt.subplots(figsize=(3, 2))
_ = axes.plot([1, 5], [1, 5])
figure(fig, "Figure 1", "Truth and *prediction*, $\\rho_c$ [pooled].", 'A line, said to be "ideal".')
print("open figures:", plt.get_fignums())
"""

TABLES = r"""
frame = pd.DataFrame({"Model": ["<b>LSTM1</b>", "CNN & co"], "CCC": ["0.41 [0.36, 0.45]", "–"]})
table(frame, "Table 1", "Scores, $\\rho_c$ & more.", note="Intervals from *2,000* samples [@efron1993].")
wide = pd.DataFrame({f"Column {i}": [f"{i}.123 [0.25, 0.75]"] for i in range(1, 13)})
table(wide, "Table 2", "Twelve columns.")
prose("Computed: **0.41**.")
pd.DataFrame({"a": [1]})
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    cells = [
        new_markdown_cell(INTRODUCTION),
        new_code_cell(SETUP),
        new_code_cell(FIGURE),
        new_markdown_cell("## Results"),
        new_code_cell(TABLES),
        new_code_cell("Audio([0.0, 0.5, -0.5] * 100, rate=8000)"),
        new_code_cell("print('hidden output')", metadata={"tags": ["hide"]}),
        new_markdown_cell("## References"),
    ]
    content = new_notebook(cells=cells)
    nbclient.NotebookClient(content, kernel_name="python3").execute()
    path = tmp_path_factory.mktemp("run") / "report.ipynb"
    nbformat.write(content, path)
    return path


@pytest.fixture(scope="module")
def pages(notebook):
    html, pdf = notebook.with_suffix(".html"), notebook.with_suffix(".pdf")
    render_report(notebook, html, pdf)
    return html, pdf


@pytest.fixture(scope="module")
def html(pages):
    return pages[0].read_text(encoding="utf-8")


def rendered(tmp_path, *cells):
    """The two pages of a notebook of these cells, below a title."""
    notebook, html, pdf = (tmp_path / f"small.{kind}" for kind in ("ipynb", "html", "pdf"))
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A"), *cells]), notebook)
    render_report(notebook, html, pdf)
    return html.read_text(encoding="utf-8"), pdf


class Elements(HTMLParser):
    """Start tags with their attributes, in order, and the text outside <style>."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.lasttag != "style":
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def html_cell(markup):
    return new_code_cell("show()", outputs=[new_output("display_data", {"text/html": markup})])


def png_cell(**described):
    png = base64.b64encode(b"\x89PNG").decode()
    output = new_output("display_data", {"image/png": png}, metadata={"image/png": described})
    return new_code_cell("plot_everything()", outputs=[output])


def test_page_has_head_title_and_contents_that_lead_somewhere(html):
    page = Elements(html)
    assert page.all("html") == [{"lang": "en"}]
    assert "<title>Valence — a “small” report</title>" in html
    assert html.count("<h1") == 1
    identifiers = [attributes["id"] for _, attributes in page.found if attributes.get("id")]
    assert len(identifiers) == len(set(identifiers))
    links = [attributes["href"][1:] for attributes in page.all("a") if attributes["href"].startswith("#")]
    named = {"data-definitions", "concordance", "results", "references", "figure-1", "ref-lin1989"}
    assert named <= set(links) <= set(identifiers)


def test_page_loads_nothing(html):
    assert html.count('src="data:') == html.count("src=") == 2  # the figure and the recording
    assert "default-src 'none'; img-src data:; media-src data:;" in html
    assert "form-action 'none'; base-uri 'none'" in html


def test_citations_link_to_a_list_of_what_is_cited(html):
    assert re.search(r'and Lin \(<a href="#ref-lin1989">1989</a>\)', html)
    # Also in a note below a table.
    assert '(<a href="#ref-efron1993">Efron and Tibshirani 1993</a>)' in html
    listed = [each["id"] for each in Elements(html).all("div") if each.get("role") == "listitem"]
    assert listed == ["ref-efron1993", "ref-lin1989"]


def test_figure_keeps_alternative_text_caption_and_formulas(html):
    (image,) = Elements(html).all("img")
    assert image["alt"] == 'A line, said to be "ideal".'
    assert "<strong>Figure 1.</strong> Truth and <em>prediction</em>, " in html
    assert "open figures: []" in html
    for tag in ("figcaption", "caption", "p"):
        assert re.search(f"<{tag}>[^§]*?<math.*?</{tag}>", html, re.DOTALL)


def test_table_is_semantic_and_escaped(html):
    page = Elements(html)
    regions = [each["aria-label"] for each in page.all("div") if each.get("role") == "region"]
    # Tables of Markdown and of pandas scroll in a region of their own too.
    assert sorted(regions) == ["Table", "Table", "Table 1", "Table 2"]
    assert "<caption><strong>Table 1.</strong> Scores, " in html
    assert {"scope": "col", "class": "num"} in page.all("th")
    assert re.search('<th class="short" scope="row">&lt;b&gt;LSTM1&lt;/b&gt;</th>', html)
    # The interval may be on a line of its own, but is never broken.
    assert '<td class="num">0.41 [0.36,\N{NO-BREAK SPACE}0.45]</td>' in html
    assert re.search(r'<div class="note">\s*<p>Intervals from <em>2,000</em> samples', html)


def test_page_shows_prose_callout_and_sound_but_no_code(html):
    text = Elements(html).text
    assert "<strong>0.41</strong>" in html
    assert re.search(r'<div class="callout" role="note">\s*<p><strong>Note.</strong> Speakers', html)
    assert html.count("<audio") == 1
    for absent in ("to stderr", "plt.subplots", "hidden_code", "hidden output", "<IPython", "In [", "Out["):
        assert absent not in text


def test_pdf_is_tagged_with_alternative_texts_and_no_date(pages):
    whole = content = pages[1].read_bytes()
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL):
        with contextlib.suppress(zlib.error):
            whole += zlib.decompress(stream)
    assert whole.startswith(b"%PDF-")
    assert all(part in whole for part in (b"pdfuaid:part", b'said to be "ideal"', rb"\\sigma_{xy}"))
    assert b"CreationDate" not in whole


def printed(pdf):
    command = ["pdftotext", "-layout", pdf, "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext")
def test_pdf_holds_the_text_and_cuts_no_column(pages):
    text = printed(pages[1])
    for expected in (
        *("Valence — a “small” report", "Contents", "Figure 1. Truth and prediction", "<b>LSTM1</b>"),
        *("Twelve columns.", "Computed: 0.41.", "Recording: played in the HTML edition."),
        *("Lin (1989)", "Efron, Bradley, and Robert J. Tibshirani. 1993."),
        *(f"{column}.123" for column in range(1, 13)),
    ):
        assert expected in text


def test_bytes_depend_on_nothing_but_the_notebook(notebook, pages, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        render_report(notebook, Path("again.html"), Path("again.pdf"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (tmp_path / "again.html").read_bytes() == pages[0].read_bytes()
    assert (tmp_path / "again.pdf").read_bytes() == pages[1].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.html", "again.pdf"]


def test_undescribed_image_is_refused_and_earlier_pages_stay(tmp_path):
    earlier = [tmp_path / "small.html", tmp_path / "small.pdf"]
    for page in earlier:
        page.write_text("earlier")
    with pytest.raises(NotebookError, match=r"the cell 'plot_everything\(\)' shows an image without alt"):
        rendered(tmp_path, png_cell(number="Figure 1", caption="Something."))
    assert [page.read_text() for page in earlier] == ["earlier"] * 2
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (html_cell("<script>alert(1)</script>"), "<script>, and a report has text, tables, figures"),
        (html_cell('<p style="background: url(x.png)">text</p>'), "a report has its own style only"),
        (html_cell('<img src="data:image/png;base64,AAAA">'), "without alternative text"),
        (html_cell('<p id="a">1</p><p id="a">2</p>'), "two things named 'a'"),
        (new_markdown_cell("![figure](figure.png)"), "loads nothing from outside"),
        (new_markdown_cell("[Table 7](#table-7)"), "a link to #table-7"),
        (new_markdown_cell("As in [@nobody2000]."), "nobody2000"),
        (new_markdown_cell("```{=typst}\n#nothing()\n```"), "cannot be laid out as PDF"),
        (new_code_cell(outputs=[new_output("error", ename="E", evalue="by zero")]), "failed with E: by zero"),
    ],
)
def test_page_that_would_mislead_or_load_is_refused(cell, message, tmp_path):
    with pytest.raises(NotebookError, match=re.escape(message)):
        rendered(tmp_path, cell)


def test_a_file_that_is_no_notebook_is_refused(tmp_path):
    pages = tmp_path / "report.html", tmp_path / "report.pdf"
    with pytest.raises(NotebookError, match=r"There is no notebook .*absent\.ipynb; run it first"):
        render_report(tmp_path / "absent.ipynb", *pages)
    (tmp_path / "text.ipynb").write_text("no JSON")
    with pytest.raises(NotebookError, match="is not a notebook"):
        render_report(tmp_path / "text.ipynb", *pages)


@pytest.fixture
def shown(monkeypatch):
    """What `display` was called with."""
    calls = []
    monkeypatch.setattr(rendering, "display", lambda data, **options: calls.append((data, options)))
    return calls


def test_figure_is_shown_at_its_own_size_with_its_texts(shown):
    figure(plt.figure(figsize=(4, 3)), "Figure 2", "A caption.", "A line.")
    described = shown[0][1]["metadata"]["image/png"]
    assert described.pop("width") == pytest.approx(4 * 96, abs=20)  # a margin of 0.1 inch on each side
    assert described == {"number": "Figure 2", "caption": "A caption.", "alt": "A line."}
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["0.51", "−0.3", "1,234", "12 %", "31 s"], "num"),
        (["0.41 [0.36, 0.45]", "–", ""], "num"),
        (["−0.10 n.s.", "0.2"], "short"),
        (["a remark that is far too long for one line", "x"], "long"),
    ],
)
def test_columns_of_numbers_are_distinguished_from_columns_of_text(shown, cells, kind):
    frame = pd.DataFrame({"Row": [str(i) for i in range(len(cells))], "Cell": cells})
    table(frame, "Table 1", "Cells.")
    assert shown[0][0]["text/html"].count(f'<td class="{kind}">') == len(cells)
    assert "Cells." in shown[0][0]["text/plain"]


def test_what_has_no_text_is_refused(shown):
    with pytest.raises(NotebookError, match=r"Table 1 holds 0\.5 in column 'MSE'; format it as a string"):
        table(pd.DataFrame({"Model": ["A"], "MSE": [0.5]}), "Table 1", "Scores.")
    with pytest.raises(NotebookError, match="The label of recording ' ' is ' '"):
        audio(SWEEP, 8000, " ")
    with pytest.raises(NotebookError, match="The alt of figure 'Figure 1' is ' '"):
        figure(plt.figure(), "Figure 1", "A caption.", " ")
    plt.close("all")
    assert shown == []


SWEEP = (0.3 * np.sin(2 * np.pi * np.cumsum(np.linspace(200, 1500, 12000)) / 8000)).astype(np.float32)
LABEL = 'Clip "7" <a>: rated 4.0 & predicted 2.1'


def test_recording_is_played_from_the_page_itself_and_named(shown, tmp_path):
    audio(SWEEP, 8000, LABEL)
    audio(SWEEP, 8000, LABEL)
    (data, _), again = shown
    assert again[0] == data  # the same bytes
    assert data["text/plain"] == f"Recording: {LABEL}"
    page = Elements(data["text/html"])
    (player,) = page.all("audio")
    assert "controls" in player and player["aria-label"] == LABEL
    assert LABEL in page.text
    content = player["src"].removeprefix("data:audio/mpeg;base64,")
    decoded, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    assert rate == 16000
    start = 1105  # the delay of coder and decoder
    assert np.corrcoef(decoded[start : start + 24000 : 2], SWEEP)[0, 1] > 0.99
    html, _ = rendered(tmp_path, html_cell(data["text/html"]))
    assert [found["src"] for found in Elements(html).all("audio")] == [player["src"]]


def test_doctests():
    assert doctest.testmod(rendering).failed == 0


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext")
def test_figures_float_in_the_pdf_but_for_those_of_recordings(shown, tmp_path):
    def shown_as(number):
        figure(plt.figure(figsize=(4, 3)), f"Figure {number}", "Curve.", "A curve.")
        data, options = shown.pop()
        return new_code_cell(outputs=[new_output("display_data", data, metadata=options["metadata"])])

    audio(SWEEP, 8000, LABEL)
    recording = html_cell(shown.pop()[0]["text/html"])
    first, then, last = map(new_markdown_cell, ("First.", "## Results\n\nThen.", "Last."))
    cells = [first, shown_as(1), then, recording, shown_as(2), shown_as(3), last]
    text = printed(rendered(tmp_path, *cells)[1])
    order = re.findall(r"First\.|Then\.|Last\.|Recording|Figure \d", text)
    # Figure 1, of the opening, and Figure 3 are moved to the foot of the page.
    assert order == ["First.", "Then.", "Recording", "Figure 2", "Last.", "Figure 1", "Figure 3"]
    assert 'Recording (Clip "7" <a>: rated 4.0 & predicted 2.1): played in the HTML edition.' in text
