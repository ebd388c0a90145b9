"""The report page in both editions, from one small notebook that really runs."""

import base64
import doctest
import io
import itertools
import re
import shutil
import subprocess
import time
import zlib
from html.parser import HTMLParser
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from valence_lib import rendering
from valence_lib.errors import NotebookError
from valence_lib.rendering import audio, figure, render_html, render_pdf, table

TITLE = "Valence — a “small” report"

INTRODUCTION = r"""# A title that gives way

See [Figure 1](#figure-1), [Table 1](#table-1), [Concordance](#concordance) and [Lin](#lin1989).

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
from valence_lib.rendering import figure, table, prose
print("to stderr", file=sys.stderr)
hidden_code = 1
"""

FIGURE = r"""
fig, axes = plt.subplots(figsize=(3, 2))
_ = axes.plot([1, 5], [1, 5])
figure(fig, "Figure 1", "Truth and *prediction*, $\\rho_c$ [pooled].", 'A line from 1 to 5, said to be "ideal".')
print("open figures:", plt.get_fignums())
"""

TABLES = r"""
frame = pd.DataFrame({"Model": ["<b>LSTM1</b>", "CNN & co"], "CCC": ["0.41 [0.36, 0.45]", "–"]})
table(frame, "Table 1", "Scores, $\\rho_c$ & more.", note="Intervals from *2,000* samples.")
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
        new_markdown_cell(
            "## References\n\n[Lin, L. I.-K. (1989)]{#lin1989}. *Biometrics*. <https://doi.org/10.2307/2532051>"
        ),
    ]
    content = new_notebook(cells=cells)
    nbclient.NotebookClient(content, kernel_name="python3").execute()
    path = tmp_path_factory.mktemp("run") / "report.ipynb"
    nbformat.write(content, path)
    return path


@pytest.fixture(scope="module")
def html(notebook):
    destination = notebook.with_suffix(".html")
    render_html(notebook, destination, TITLE)
    return destination.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pdf(notebook):
    destination = notebook.with_suffix(".pdf")
    render_pdf(notebook, destination, TITLE)
    return destination


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


def written(tmp_path, *cells):
    path = tmp_path / "small.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


def png_cell(**described):
    png = base64.b64encode(b"\x89PNG").decode()
    output = new_output("display_data", {"image/png": png}, metadata={"image/png": described})
    return new_code_cell("plot_everything()", outputs=[output])


def test_page_has_head_title_and_contents_that_lead_somewhere(html):
    page = Elements(html)
    assert html.startswith("<!DOCTYPE html>")
    assert page.all("html") == [{"lang": "en"}]
    assert "<title>Valence — a “small” report</title>" in html
    assert html.count("<h1") == 1
    assert "gives way" not in html
    identifiers = [attributes["id"] for _, attributes in page.found if attributes.get("id")]
    assert len(identifiers) == len(set(identifiers))
    links = [attributes["href"][1:] for attributes in page.all("a") if attributes["href"].startswith("#")]
    assert {"data-definitions", "concordance", "results", "references", "figure-1", "lin1989"} <= set(links)
    assert set(links) <= set(identifiers)


def test_page_loads_nothing_and_runs_nothing(html):
    page = Elements(html)
    assert not page.all("script")
    loaded = [value for _, attributes in page.found for name, value in attributes.items() if name == "src"]
    loaded += [attributes["href"] for attributes in page.all("link")]
    assert len(loaded) == 3  # the figure, the recording and the empty icon
    assert all(address.startswith("data:") for address in loaded)
    assert "@import" not in html
    assert "url(" not in html


def test_formulas_are_mathml_also_in_captions(html):
    display = [attributes for attributes in Elements(html).all("math") if attributes["display"] == "block"]
    assert len(display) == 1
    figcaption = re.search("<figcaption>.*?</figcaption>", html, re.DOTALL)[0]
    caption = re.search("<caption>.*?</caption>", html, re.DOTALL)[0]
    assert "<math" in figcaption
    assert "<math" in caption


def test_figure_keeps_alternative_text_and_caption(html):
    (image,) = Elements(html).all("img")
    assert image["alt"] == 'A line from 1 to 5, said to be "ideal".'
    assert "<strong>Figure 1.</strong> Truth and <em>prediction</em>, " in html
    assert "open figures: []" in html
    assert "No description has been provided" not in html


def test_table_is_semantic_and_escaped(html):
    assert '<div class="table" role="region" tabindex="0" aria-label="Table 1">' in html
    assert "<caption><b>Table 1.</b> Scores, " in html
    assert '<th scope="col" class="num">CCC</th>' in html
    assert '<th scope="row" class="short">&lt;b&gt;LSTM1&lt;/b&gt;</th>' in html
    # The interval may stand on a line of its own, but is never broken.
    assert '<td class="num">0.41 [0.36,\N{NO-BREAK SPACE}0.45]</td>' in html
    assert '<div class="note">Intervals from <em>2,000</em> samples.</div>' in html
    # Tables of Markdown and of pandas scroll in a region of their own too.
    assert html.count('role="region"') == html.count("<table") == 4


def test_page_shows_prose_callout_and_sound_but_no_code(html):
    text = Elements(html).text
    assert "<strong>0.41</strong>" in html
    assert re.search(r'<div class="callout" role="note">\s*<p><strong>Note.</strong> Speakers', html)
    assert html.count("<audio") == 1
    for absent in ("to stderr", "plt.subplots", "hidden_code", "hidden output", "<IPython", "In [", "Out["):
        assert absent not in text


def inflated(pdf):
    """The PDF with its compressed streams opened."""
    content = pdf.read_bytes()
    whole = content
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL):
        try:
            whole += zlib.decompress(stream)
        except zlib.error:
            continue
    return whole


def test_pdf_is_tagged_with_alternative_texts_and_no_date(pdf):
    whole = inflated(pdf)
    assert whole.startswith(b"%PDF-")
    assert b"pdfuaid:part" in whole
    assert b'A line from 1 to 5, said to be "ideal".' in whole
    assert rb"\\sigma_{xy}" in whole
    assert b"CreationDate" not in whole


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext reads the PDF back")
def test_pdf_holds_the_text_and_cuts_no_column(pdf):
    printed = subprocess.run(
        ["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True, check=True
    ).stdout
    for expected in (
        TITLE,
        "Contents",
        "Figure 1. Truth and prediction",
        "<b>LSTM1</b>",
        "Twelve columns.",
        "Computed: 0.41.",
        *(f"{column}.123" for column in range(1, 13)),
    ):
        assert expected in printed
    assert "Recording: to be heard in the HTML edition." in printed
    for absent in ("to stderr", "hidden output", "plt.subplots"):
        assert absent not in printed
    boxes = subprocess.run(
        ["pdftotext", "-bbox", pdf, "-"], capture_output=True, text=True, check=True
    ).stdout
    page_width = float(re.search(r'<page width="([\d.]+)"', boxes)[1])
    for page in boxes.split("<page ")[1:]:
        lines = {}
        for left, top, right, word in re.findall(
            r'xMin="(.*?)" yMin="(.*?)" xMax="(.*?)" yMax=".*?">(.*?)</word>', page
        ):
            lines.setdefault(top, []).append((float(left), float(right), word))
        for words in map(sorted, lines.values()):
            assert words[-1][1] < page_width - 60, words
            for (_, end, _), (start, _, _) in itertools.pairwise(words):
                assert end <= start, words


def test_bytes_depend_on_nothing_but_the_notebook(notebook, html, pdf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        render_html(notebook, Path("again.html"), TITLE)
        render_pdf(notebook, Path("again.pdf"), TITLE)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html
    assert (tmp_path / "again.pdf").read_bytes() == pdf.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.html", "again.pdf"]


@pytest.mark.parametrize("render", [render_html, render_pdf])
def test_undescribed_image_is_refused_and_the_earlier_file_stays(render, tmp_path):
    destination = tmp_path / "report"
    destination.write_text("earlier")
    path = written(tmp_path, new_markdown_cell("# A"), png_cell(number="Figure 1", caption="Something."))
    with pytest.raises(NotebookError, match=r"cell 2 \('plot_everything\(\)'\) shows an image without alt"):
        render(path, destination, TITLE)
    assert destination.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "small.ipynb"]


def html_cell(markup):
    return new_code_cell("show()", outputs=[new_output("display_data", {"text/html": markup})])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (html_cell("<script>alert(1)</script>"), "runs no script"),
        (html_cell('<p onclick="alert(1)">text</p>'), "runs no script"),
        (html_cell('<iframe src="data:text/html,x"></iframe>'), "frames no other page"),
        (html_cell('<img alt="x" src="https://example.org/x.png">'), "loads nothing from outside"),
        (html_cell('<link rel="stylesheet" href="//example.org/x.css">'), "loads nothing from outside"),
        (html_cell("<style>@import 'x.css';</style>"), "loads nothing from outside"),
        (html_cell('<p style="background: url(x.png)">text</p>'), "loads nothing from outside"),
        (html_cell('<img src="data:image/png;base64,AAAA">'), "without alternative text"),
        (html_cell('<p id="a">1</p><p id="a">2</p>'), "two things named 'a'"),
        (new_markdown_cell("![figure](figure.png)"), "loads nothing from outside"),
        (new_markdown_cell("[Table 7](#table-7)"), "a link to #table-7"),
        (
            new_code_cell(
                "1 / 0", outputs=[new_output("error", ename="ZeroDivisionError", evalue="by zero")]
            ),
            "failed with ZeroDivisionError: by zero",
        ),
    ],
)
def test_page_that_would_mislead_or_load_is_refused(cell, message, tmp_path):
    with pytest.raises(NotebookError, match=re.escape(message)):
        render_html(written(tmp_path, cell), tmp_path / "report.html", TITLE)


def test_a_file_that_is_no_notebook_is_refused(tmp_path):
    with pytest.raises(NotebookError, match=r"There is no notebook .*absent\.ipynb; run it first"):
        render_html(tmp_path / "absent.ipynb", tmp_path / "report.html", TITLE)
    (tmp_path / "text.ipynb").write_text("no JSON")
    with pytest.raises(NotebookError, match="is not a notebook"):
        render_html(tmp_path / "text.ipynb", tmp_path / "report.html", TITLE)


def test_pdf_refuses_a_sign_that_no_embedded_font_has(tmp_path):
    with pytest.raises(NotebookError, match=r"cannot be laid out as PDF.*😀"):
        render_pdf(written(tmp_path, new_markdown_cell("😀")), tmp_path / "report.pdf", TITLE)


@pytest.fixture
def shown(monkeypatch):
    """What `display` was called with."""
    calls = []
    monkeypatch.setattr(rendering, "display", lambda data, **options: calls.append((data, options)))
    return calls


def test_figure_is_shown_at_its_own_size_with_its_texts(shown):
    figure(plt.figure(figsize=(4, 3)), "Figure 2", "A caption.", "What is seen.")
    ((data, options),) = shown
    described = options["metadata"]["image/png"]
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert {name: described[name] for name in ("number", "caption", "alt")} == {
        "number": "Figure 2",
        "caption": "A caption.",
        "alt": "What is seen.",
    }
    assert described["width"] == pytest.approx(4 * 96, abs=20)  # a margin of 0.1 inch on each side
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("caption", "alt", "missing"), [("A caption.", " ", "alt"), ("", "Seen.", "caption")]
)
def test_figure_without_caption_or_alternative_text_is_refused(shown, caption, alt, missing):
    with pytest.raises(NotebookError, match=f"The {missing} of figure 'Figure 1' is"):
        figure(plt.figure(), "Figure 1", caption, alt)
    plt.close("all")
    assert shown == []


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["0.51", "−0.3", "1,234", "12 %", "31 s"], "num"),
        (["0.41 [0.36, 0.45]", "–", ""], "num"),
        (["LSTM1", "2"], "short"),
        (["–", "–"], "short"),
        (["a remark that is far too long for one line", "x"], "long"),
    ],
)
def test_columns_of_numbers_are_told_from_columns_of_text(shown, cells, kind):
    frame = pd.DataFrame({"Row": [str(i) for i in range(len(cells))], "Cell": cells})
    table(frame, "Table 1", "Cells.")
    assert shown[0][0]["text/html"].count(f'<td class="{kind}">') == len(cells)
    assert "Cells." in shown[0][0]["text/plain"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"Model": ["A"], "MSE": [0.5]}), "holds 0.5 in column 'MSE', row 0"),
        (pd.DataFrame({0: ["A"]}), "a column named 0"),
        (pd.DataFrame({"MSE": ["0.5"]}, index=["LSTM1"]), "call reset_index() first"),
        (pd.DataFrame(), "has no columns"),
    ],
)
def test_table_refuses_what_would_get_lost(shown, frame, message):
    with pytest.raises(NotebookError, match=re.escape(message)):
        table(frame, "Table 1", "Scores.")
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
    kind, _, content = player["src"].partition(",")
    assert kind == "data:audio/mpeg;base64"
    assert len(content) < 12000  # 1.5 s
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    assert rate == 16000
    start = 1105  # the delay of coder and decoder
    assert np.corrcoef(heard[start : start + 24000 : 2], SWEEP)[0, 1] > 0.99

    path = written(tmp_path, html_cell(data["text/html"]), html_cell(data["text/html"]))
    render_html(path, tmp_path / "report.html", TITLE)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [found["src"] for found in Elements(html).all("audio")] == [player["src"]] * 2
    assert "default-src 'none'; img-src data:; media-src data:;" in html
    render_pdf(path, tmp_path / "report.pdf", TITLE)
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")


def test_pdf_says_which_recording_is_missing():
    html = f'<figure class="recording"><figcaption>{LABEL.replace("<", "&lt;").replace(">", "&gt;")}</figcaption><audio></audio></figure>'
    typst = rendering._pandoc(f"``` {{=html}}\n{html}\n```", "typst", TITLE)
    assert "Recording (Clip “7”" in typst or 'Recording (Clip "7"' in typst.replace("\\", "")
    assert "to be heard in the HTML edition." in typst


@pytest.mark.parametrize(
    ("waveform", "label", "message"),
    [
        (SWEEP, " ", "The label of recording ' ' is ' '"),
        (SWEEP[None], "A", r"float32 with the shape (1, 12000)"),
        (SWEEP[:0], "A", "n_samples > 0"),
        (np.zeros(9, np.int16), "A", "array of int16"),
        (SWEEP * np.nan, "A", "expected finite floats"),
    ],
)
def test_recording_that_cannot_be_played_or_named_is_refused(shown, waveform, label, message):
    with pytest.raises(NotebookError, match=re.escape(message)):
        audio(waveform, 8000, label)
    assert shown == []


def test_doctests():
    assert doctest.testmod(rendering).failed == 0


def test_figures_float_in_the_pdf_but_for_those_of_the_opening_and_of_recordings(tmp_path):
    figure = """``` {.figure-block}
{"identifier": "ID", "number": "Figure 1", "caption": "Curve.", "alt": "A curve.", "width": 400, "source": "a.png"}
```"""
    recording = """``` {=html}
<figure class="recording"><figcaption>Clip</figcaption><audio></audio></figure>
```"""
    blocks = [figure, "## Results", figure, recording, figure, "Words.", figure]
    text = "\n\n".join(block.replace("ID", f"figure-{number}") for number, block in enumerate(blocks))
    typst = rendering._pandoc(text, "typst", TITLE)
    assert re.findall(r"kind: image, placement: (\w+)", typst) == ["none", "auto", "none", "auto"]
