"""One executed notebook becomes a report page: HTML and PDF, both from the same saved outputs.

Inside a notebook, `figure`, `table`, `audio` and `prose` show results with what a page needs of them: a
number, a caption, alternative text. Afterwards `render_report` lays the notebook out.

    notebook ─► Markdown (nbconvert, index.md.j2) ─┬► HTML (pandoc, page.html, style.css)
                                                   └► typst (pandoc, page.typ) ─► PDF/UA-1

Nothing is executed or fetched, neither here nor by the finished page. The same notebook gives the same bytes,
whatever the folder, the time and the language of the machine.

Every notebook imports this module: what only `render_report` needs is imported there.
"""

from __future__ import annotations  # what is only named in signatures is not imported with this module

import json
import mimetypes
import re
import shutil
from base64 import b64encode
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd
from IPython.display import Markdown, display

from valence_lib.errors import NotebookError
from valence_lib.files import atomic_write, temporary_folder
from valence_lib.report.corpus_text import spreadsheet_cell, visible
from valence_lib.report.page_check import check_page
from valence_lib.report.transliteration import OPENING, fonts, transliterate

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from nbformat import NotebookNode

    from valence_lib.corpora.waveforms import Waveform

BIBLIOGRAPHY = Path(__file__).parents[2] / "notebooks" / "references.bib"
_FIGURE_DPI = 200
_TEMPLATES = Path(__file__).parent / "templates"

# Of several forms of one output the first of these is shown. A widget is shown nowhere, nor its line of text.
_OUTPUT_PRIORITY = [
    "application/vnd.jupyter.widget-view+json",
    "text/html",
    "text/markdown",
    "image/png",
    "text/latex",
    "text/plain",
]

# Pandoc's Markdown, close to what Jupyter shows. Raw TeX would vanish from the page, so it stays text.
MARKDOWN = (
    "markdown-yaml_metadata_block-pandoc_title_block-raw_tex-example_lists"
    "-simple_tables-multiline_tables-grid_tables"
    "-blank_before_header-blank_before_blockquote+lists_without_preceding_blankline+autolink_bare_uris"
)

_MP3_RATE = 16000  # Hz: the lowest of MPEG-2; 8000 Hz are of the unofficial MPEG-2.5
_MP3_LEVEL = (160 - 32) / (160 - 8)  # libsndfile's scale from 160 kbit/s down to 8, for 32 kbit/s

# "0.51 [0.48, 0.54]", "−0.3", "1e-3", "31 s"
_NUMBER = re.compile(r"[<>≤≥≈±+\-−–]?\s?\.?\d[\d\s.,%±×+\-−–()\[\]*†‡eE]*(?:\s[a-zA-Zµ]{1,3})?")
_LONGEST_UNBROKEN = 24  # characters of a cell that a narrow screen can show on one line
_FORMULA = re.compile(r"\$|\\[(\[]|\\begin")
_NO_MATHJAX = " tex2jax_ignore mathjax_ignore"  # Jupyter typesets formulas in HTML too


def figure(fig: Figure, number: str, caption: str, alt: str, folder: Path | None = None) -> None:
    """Show a figure in a notebook, as PNG with its number, caption and alternative text, and close it.

    Args:
        number: the whole label, such as "Figure 1", which `[Figure 1](#figure-1)` links to.
        caption: one paragraph of Markdown.
        alt: what the figure shows, for those who do not see it.
        folder: where the PNG is also written, under a name such as figure-1.png.

    Raises:
        NotebookError: one of the texts is empty.
    """
    from matplotlib import pyplot as plt
    from matplotlib.text import Text

    _require(f"figure {number!r}", number=number, caption=caption, alt=alt)
    image = BytesIO()
    unsigned = {"Software": None}  # else matplotlib signs the file with its version
    transliterated = any(OPENING in text.get_text() for text in fig.findobj(Text))
    fig.savefig(image, dpi=_FIGURE_DPI, bbox_inches="tight", facecolor="white", metadata=unsigned)
    plt.close(fig)
    png = image.getvalue()
    if folder is not None:
        with atomic_write(folder / f"{_identifier(number)}.png") as path:
            path.write_bytes(png)
    # From the PNG's header: tight cropping changes the figure's own width.
    width = int.from_bytes(png[16:20]) * 96 // _FIGURE_DPI  # CSS pixels
    described: dict[str, Any] = {"number": number, "caption": caption, "alt": alt, "width": width}
    if transliterated:
        described["transliterated"] = True
    shown = {"image/png": b64encode(png).decode(), "text/plain": f"{number}. {caption}"}
    display(shown, metadata={"image/png": described}, raw=True)


def table(frame: pd.DataFrame, number: str, caption: str, note: str = "", folder: Path | None = None) -> None:
    """Show a table of finished texts in a notebook; its first column heads the rows.

    Args:
        frame: strings alone, numbers already rounded; columns of numbers are aligned right. Text of a corpus
            is given as it is.
        number: such as "Table 1", which `[Table 1](#table-1)` links to.
        caption, note: Markdown, above and below the table.
        folder: where the table is also written as CSV, under a name such as table-1.csv. What a spreadsheet
            would take for a formula begins with an apostrophe there.

    Raises:
        NotebookError: an empty number or caption, or a cell or column name that is no string.
    """
    _require(f"table {number!r}", number=number, caption=caption)
    for name, cell in [(at, text) for at in frame.columns for text in (at, *frame[at])]:
        if not isinstance(cell, str):
            raise NotebookError(f"{number} holds {cell!r} in column {name!r}; format it as a string first.")
    frame = frame.map(visible).rename(columns=visible)
    if folder is not None:
        sheet = frame.map(spreadsheet_cell).rename(columns=spreadsheet_cell)
        with atomic_write(folder / f"{_identifier(number)}.csv") as path:
            sheet.to_csv(path, index=False, lineterminator="\n")
    kinds = [_kind_of(list(frame[name])) for name in frame.columns]
    header, *rows = [
        "".join(
            f'<{tag} class="{kind}{_NO_MATHJAX * bool(_FORMULA.search(cell))}">{escape(cell)}</{tag[:2]}>'
            for tag, kind, cell in zip([first, *[other] * (len(kinds) - 1)], kinds, cells, strict=True)
        )
        for first, other, cells in [
            ('th scope="col"', 'th scope="col"', frame.columns),
            *(('th scope="row"', "td", cells) for cells in frame.to_numpy()),
        ]
    ]
    html = [
        f'<table id="{_identifier(number)}">\n<caption><b>{escape(number)}.</b> {escape(caption)}</caption>',
        f"<thead><tr>{header}</tr></thead>\n<tbody>",
        *(f"<tr>{row}</tr>" for row in rows),
        "</tbody>\n</table>",
        *([f'<div class="note">{escape(note)}</div>'] if note else []),
    ]
    plain = f"{number}. {caption}\n{frame.to_string(index=False)}\n{note}".rstrip()
    display({"text/html": "\n".join(html), "text/plain": plain}, raw=True)


def audio(waveform: Waveform, sample_rate: int, label: str) -> None:
    """Show a clip in a notebook, to be played there and in the HTML; the PDF has a remark in its place.

    The clip is embedded as MP3 at 32 kbit/s and 16 kHz, which every browser plays. Its bytes are the same
    each time, unlike those of an Ogg file, whose serial numbers are random.

    Args:
        waveform [shape=(n_samples,)]: in [-1, 1].
        sample_rate: Hz, any.
        label: what the recording is, shown above the player and read by a screen reader; without markup.

    Raises:
        NotebookError: an empty label.
    """
    import soundfile

    from valence_lib.corpora.waveforms import resample

    _require(f"recording {label!r}", label=label)
    file = BytesIO()
    rate = {"bitrate_mode": "CONSTANT", "compression_level": _MP3_LEVEL}
    soundfile.write(file, resample(waveform, sample_rate, _MP3_RATE), _MP3_RATE, format="MP3", **rate)
    html = (
        f'<figure class="recording"><figcaption>{escape(label)}</figcaption><audio controls '
        f'aria-label="{escape(label)}" src="data:audio/mpeg;base64,{b64encode(file.getvalue()).decode()}">'
        "</audio></figure>"
    )
    display({"text/html": html, "text/plain": f"Recording: {label}"}, raw=True)


def link(number: str) -> str:
    """A link to a figure or a table of the page, by its label.

    >>> link("Figure 6")
    '[Figure 6](#figure-6)'
    """
    return f"[{number}](#{_identifier(number)})"


def referring(sentence: str, number: str) -> str:
    """A sentence that ends with a link to a figure or a table.

    >>> referring("The difference is significant.", "Figure 6")
    'The difference is significant ([Figure 6](#figure-6)).'
    """
    return f"{sentence.removesuffix('.')} ({link(number)})."


def prose(markdown: str) -> None:
    """Show Markdown in a notebook, for sentences whose numbers are computed."""
    display(Markdown(markdown))


def render_report(notebook: Path, html: Path, pdf: Path) -> None:
    """Write an executed notebook as one HTML file and as a PDF.

    The notebook's first heading becomes the title, and citations such as [@lin1989] refer to `BIBLIOGRAPHY`.
    Cells tagged "hide", code, warnings and progress bars are left out. The HTML loads nothing and runs no
    script. The PDF (PDF/UA-1, A4) is tagged. It uses the fonts inside typst's wheel, then DejaVu Sans. Text
    in other scripts is written there in Latin letters, and a note says so (see `transliteration`).

    Raises:
        NotebookError: the file is no notebook, or holds a failed cell, an image without number, caption or
            alternative text, two things of one name, a link or citation to nowhere, an element that is not of
            a report, or anything to be loaded from outside. Earlier pages are then unchanged.
    """
    import typst

    markdown, images, transliterated = _markdown(notebook)
    noted = ["--variable=transliterated"] * transliterated
    page = _pandoc(notebook, markdown, "html", "--mathml", "--toc", "--toc-depth=3", *noted)
    for name, content in images.items():
        address = f"data:{mimetypes.guess_type(name)[0]};base64,{b64encode(content).decode()}"
        page = page.replace(f'src="{quote(name)}"', f'src="{address}"')
    check_page(notebook, page)
    latin = transliterate(markdown)
    noted = ["--variable=transliterated"] * (transliterated or latin != markdown)
    with temporary_folder() as temporary:
        main = Path(temporary, "main.typ")
        # Once more, for what pandoc adds: entries of the bibliography, and characters written as entities.
        main.write_text(transliterate(_pandoc(notebook, latin, "typst", *noted)), encoding="utf-8")
        font_folder = Path(temporary, "fonts")
        font_folder.mkdir()
        for font in fonts():
            shutil.copy(font, font_folder)
        for name, content in images.items():
            main.with_name(name).write_bytes(content)
        try:
            document = typst.compile(
                main, font_paths=[font_folder], ignore_system_fonts=True, pdf_standards="ua-1"
            )
        except typst.TypstError as error:
            raise NotebookError(
                f"{notebook} cannot be laid out as PDF: {error.message}. Write that part in another way."
            ) from error
    with atomic_write(html) as path:
        path.write_text(page, encoding="utf-8", newline="\n")
    with atomic_write(pdf) as path:
        path.write_bytes(document)


def _identifier(number: str) -> str:
    return re.sub(r"[^\w.]+", "-", number.strip().lower())


def _require(what: str, **texts: str) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise NotebookError(f"The {name} of {what} is {text!r}; write a sentence or a name there.")


def _kind_of(cells: list[str]) -> str:
    """The CSS class of a column: numbers, short names that stay on one line, or long texts."""
    filled = [cell.strip() for cell in cells if cell.strip() not in ("", "–")]
    if filled and all(_NUMBER.fullmatch(cell) for cell in filled):
        return "num"
    return "short" if all(len(cell) <= _LONGEST_UNBROKEN for cell in filled) else "long"


def _markdown(path: Path) -> tuple[str, dict[str, bytes], bool]:
    """The notebook as one Markdown text, its images as bytes, and whether one has transliterated names.

    The images are under the names that the text uses.
    """
    import nbformat
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    try:
        notebook = nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise NotebookError(f"There is no notebook {path}; run it first, then render its result.") from None
    except (ValueError, nbformat.ValidationError, AttributeError) as error:
        raise NotebookError(f"{path} is not a notebook ({error}); render an executed .ipynb file.") from error
    notebook.cells = [cell for cell in notebook.cells if "hide" not in cell.metadata.get("tags", [])]
    transliterated = False
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            first_line = cell.source.strip().partition("\n")[0]
            _require_presentable(output, f"{path}, the cell {first_line!r}")
            transliterated |= "transliterated" in output.get("metadata", {}).get("image/png", {})
    exporter = MarkdownExporter(
        template_name="report",
        extra_template_basedirs=[str(_TEMPLATES)],
        exclude_input=True,
        config=Config(NbConvertBase={"display_data_priority": _OUTPUT_PRIORITY}),
    )
    exporter.register_filter("fence", _fence)
    exporter.register_filter("figure_json", _figure_json)
    markdown, resources = exporter.from_notebook_node(notebook)
    return markdown, resources["outputs"], transliterated


def _require_presentable(output: NotebookNode, where: str) -> None:
    """Refuse a failure, and an image without what a reader needs."""
    if output.output_type == "error":
        raise NotebookError(f"{where} failed with {output.ename}: {output.evalue}. Mend it and run again.")
    data = output.get("data", {})
    if "text/html" in data or not any(kind.startswith("image/") for kind in data):
        return
    described = output.metadata.get("image/png", {})
    missing = [name for name in ("number", "caption", "alt") if not described.get(name)]
    if missing:
        raise NotebookError(
            f"{where} shows an image without {' or '.join(missing)}; "
            "show it with valence_lib.report.rendering.figure(fig, number, caption, alt)."
        )


def _fence(text: str) -> str:
    """A fence of backticks longer than any run of them in `text`."""
    return "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))


def _figure_json(output: NotebookNode) -> str:
    """What page.lua needs to build a figure, on one line."""
    described = dict(output.metadata["image/png"])
    source = output.metadata["filenames"]["image/png"]
    described |= {"source": source, "identifier": _identifier(described["number"])}
    return json.dumps(described, ensure_ascii=False)  # so that names in other scripts are seen


def _pandoc(notebook: Path, markdown: str, target: str, *options: str) -> str:
    import pypandoc

    folder = _TEMPLATES / "report"
    arguments = [
        "--standalone",
        f"--template={folder / 'page'}.{ {'html': 'html', 'typst': 'typ'}[target] }",
        f"--lua-filter={folder / 'page.lua'}",
        f"--bibliography={BIBLIOGRAPHY}",
        "--fail-if-warnings",  # such as a citation of an unknown source
        "--syntax-highlighting=none",
        "--wrap=none",
        "--columns=100000",  # a table whose source has longer lines would get widths by its dashes
        *options,
    ]
    try:
        return pypandoc.convert_text(markdown, target, format=MARKDOWN, extra_args=arguments)
    except RuntimeError as error:
        raise NotebookError(
            f"{notebook} cannot be laid out: {error}. Change it, or {BIBLIOGRAPHY.name}, and render it again."
        ) from error
