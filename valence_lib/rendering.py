"""One executed notebook becomes a report page: HTML and PDF, both from the same saved outputs.

Inside a notebook, `figure`, `table`, `audio` and `prose` show results together with what a page needs of them:
a number, a caption, alternative text. Afterwards `render_html` and `render_pdf` lay the notebook out.

    notebook ─► Markdown (nbconvert, index.md.j2) ─┬► HTML (pandoc, page.html, style.css)
                                                   └► typst (pandoc, page.typ) ─► PDF/UA-1

Nothing is executed and nothing is fetched, neither here nor by who opens the page. The same notebook gives
the same bytes, whatever the folder, the time and the language of the machine.

Every notebook imports this module, but only `valence render` lays out a page: what that needs is imported there.
"""

from __future__ import annotations  # what is only named in signatures is not imported with this module

import json
import mimetypes
import re
from base64 import b64encode
from html import escape
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pandas as pd
from IPython.display import Markdown, display

from valence_lib.errors import NotebookError
from valence_lib.files import temporary_folder, written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from nbformat import NotebookNode

    from valence_lib.waveforms import Waveform

REPORT_TITLE = "Predicting emotional valence from speech"
TEMPLATES = Path(__file__).parent / "templates"

# Of several forms of one output the first of these is shown. A widget is shown nowhere, and neither is
# the line of text that stands in for it.
OUTPUT_PRIORITY = [
    "application/vnd.jupyter.widget-view+json",
    "text/html",
    "text/markdown",
    "image/png",
    "text/latex",
    "text/plain",
]

# Pandoc's Markdown as close as may be to what Jupyter shows. Raw TeX would vanish from the page, so it stays text.
MARKDOWN = (
    "markdown-citations-yaml_metadata_block-pandoc_title_block-raw_tex-example_lists"
    "-simple_tables-multiline_tables-grid_tables"
    "-blank_before_header-blank_before_blockquote+lists_without_preceding_blankline+autolink_bare_uris"
)

FIGURE_DPI = 200
CSS_PIXELS_PER_INCH = 96

_MP3_RATE = 16000  # Hz: the lowest of MPEG-2; 8000 Hz are of the unofficial MPEG-2.5
_MP3_LEVEL = (160 - 32) / (160 - 8)  # what libsndfile makes 32 kbit/s of, on its way from 160 down to 8

# "0.51 [0.48, 0.54]", "−0.3", "1e-3", "31 s"; a verdict is no unit
NUMBER = re.compile(r"[<>≤≥≈±+\-−–]?\s?\.?\d[\d\s.,%±×+\-−–()\[\]*†‡eE]*(?:\s(?!tie)[a-zA-Zµ]{1,3})?")
BLANKS = {"", "-", "–", "—"}
LONGEST_UNBROKEN = 24  # characters of a cell that a narrow screen can still show on one line


def figure(fig: Figure, number: str, caption: str, alt: str, folder: Path | None = None) -> None:
    """Show a figure in a notebook, as PNG with its number, caption and alternative text, and close it.

    `number` is the whole label ("Figure 1"), by which `[Figure 1](#figure-1)` links to it; `caption` is one
    paragraph of Markdown, formulas included; `alt` says in plain words what the figure shows, for those who do
    not see it. With a `folder`, the PNG is also written there, under a name such as figure-1.png.
    Raises NotebookError if one of the texts is empty.
    """
    from matplotlib import pyplot as plt

    _require(f"figure {number!r}", number=number, caption=caption, alt=alt)
    image = BytesIO()
    # matplotlib would otherwise sign the file with its version.
    fig.savefig(
        image,
        format="png",
        dpi=FIGURE_DPI,
        bbox_inches="tight",
        facecolor="white",
        metadata={"Software": None},
    )
    plt.close(fig)
    png = image.getvalue()
    if folder is not None:
        with written_whole(folder / f"{_identifier(number)}.png") as path:
            path.write_bytes(png)
    # The width in the PNG's header: tight cropping makes it differ from the figure's own.
    pixels = int.from_bytes(png[16:20])
    shown = {
        "number": number,
        "caption": caption,
        "alt": alt,
        "width": pixels * CSS_PIXELS_PER_INCH // FIGURE_DPI,
    }
    display(
        {"image/png": b64encode(png).decode(), "text/plain": f"{number}. {caption}"},
        metadata={"image/png": shown},
        raw=True,
    )


def table(frame: pd.DataFrame, number: str, caption: str, note: str = "", folder: Path | None = None) -> None:
    """Show a table of finished texts in a notebook; its first column heads the rows.

    `frame` holds strings alone: rounding is over by now. Columns of numbers are aligned right. `number` is
    "Table 1", which `[Table 1](#table-1)` links to; `caption` and `note` (shown below) are Markdown.
    With a `folder`, the table is also written there as CSV, under a name such as table-1.csv.
    Raises NotebookError for an empty number or caption, a frame without columns, a cell or column name that is
    no string, and an index with a meaning, since the index is not shown.
    """
    _require(f"table {number!r}", number=number, caption=caption)
    _require_texts(frame, number)
    if folder is not None:
        with written_whole(folder / f"{_identifier(number)}.csv") as path:
            frame.to_csv(path, index=False, lineterminator="\n")
    kinds = [_kind_of(list(frame.iloc[:, position])) for position in range(frame.shape[1])]
    header = "".join(
        f'<th scope="col" class="{kind}">{escape(name)}</th>'
        for name, kind in zip(frame.columns, kinds, strict=True)
    )
    rows = []
    for first, *others in frame.itertuples(index=False, name=None):
        cells = "".join(
            f'<td class="{kind}">{escape(cell)}</td>' for cell, kind in zip(others, kinds[1:], strict=True)
        )
        rows.append(f'<tr><th scope="row" class="{kinds[0]}">{escape(first)}</th>{cells}</tr>')
    html = "\n".join(
        [
            f'<div class="table" role="region" tabindex="0" aria-label="{escape(number)}">',
            f'<table id="{_identifier(number)}">',
            f"<caption><b>{escape(number)}.</b> {escape(caption)}</caption>",
            f"<thead><tr>{header}</tr></thead>",
            "<tbody>",
            *rows,
            "</tbody>",
            "</table>",
            "</div>",
            *([f'<div class="note">{escape(note)}</div>'] if note else []),
        ]
    )
    plain = f"{number}. {caption}\n{frame.to_string(index=False)}\n{note}".rstrip()
    display({"text/html": html, "text/plain": plain}, raw=True)


def audio(waveform: Waveform, sample_rate: int, label: str) -> None:
    """Show a clip in a notebook, to be played there and in the HTML edition; the PDF has a remark in its place.

    The clip is embedded as MP3 at 32 kbit/s and 16 kHz, about 5 kB a second: a page may hold some tens of short
    ones. Every browser plays that, where older ones do without Opus, and MP3 of 8 kHz is no part of the standard;
    and its bytes are the same each time, which those of an Ogg file are not, whose serial numbers are random.

    Args:
        waveform [shape=(n_samples,)]: in [-1, 1].
        sample_rate: Hz, any.
        label: in plain words what is heard; shown above the player, and read out by a screen reader.

    Raises:
        NotebookError: an empty label, or a waveform that is not one of finite floats.
    """
    import numpy as np
    import soundfile

    from valence_lib.waveforms import resample

    _require(f"recording {label!r}", label=label)
    samples = np.asarray(waveform)
    if samples.ndim != 1 or samples.size == 0 or samples.dtype.kind != "f" or not np.isfinite(samples).all():
        raise NotebookError(
            f"Recording {label!r} is an array of {samples.dtype} with the shape {samples.shape}; expected finite "
            "floats with the shape (n_samples,), n_samples > 0."
        )
    file = BytesIO()
    heard = resample(samples.astype(np.float32), sample_rate, _MP3_RATE)
    soundfile.write(
        file, heard, _MP3_RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=_MP3_LEVEL
    )
    address = f"data:audio/mpeg;base64,{b64encode(file.getvalue()).decode()}"
    html = (
        f'<figure class="recording"><figcaption>{escape(label)}</figcaption>'
        f'<audio controls aria-label="{escape(label)}" src="{address}"></audio></figure>'
    )
    display({"text/html": html, "text/plain": f"Recording: {label}"}, raw=True)


def link(number: str) -> str:
    """The way to a figure or a table of the page, by its label.

    >>> link("Figure 6")
    '[Figure 6](#figure-6)'
    """
    return f"[{number}](#{_identifier(number)})"


def referring(sentence: str, number: str) -> str:
    """A sentence that ends by pointing to a figure or a table.

    >>> referring("It is a tie.", "Figure 6")
    'It is a tie ([Figure 6](#figure-6)).'
    """
    return f"{sentence.removesuffix('.')} ({link(number)})."


def prose(markdown: str) -> None:
    """Show Markdown in a notebook, for sentences whose numbers are computed."""
    display(Markdown(markdown))


def render_html(notebook: Path, destination: Path, title: str) -> None:
    """Write an executed notebook as one HTML file that loads nothing from anywhere and runs no script.

    `title` may hold inline Markdown; a first-level heading that opens the notebook gives way to it. Cells
    tagged "hide", code, warnings and progress bars are left out.
    Raises NotebookError, and leaves an earlier `destination` whole, for a notebook that is none, has a failed cell,
    an image without number, caption or alternative text, two things of one name, a link to nowhere inside
    the page, a script, or anything to be loaded from outside.
    """
    markdown, images = _markdown(notebook)
    page = _page(notebook, markdown, images, title)
    with written_whole(destination) as path:
        path.write_text(page, encoding="utf-8", newline="\n")


def render_pdf(notebook: Path, destination: Path, title: str) -> None:
    """Write an executed notebook as a tagged PDF (PDF/UA-1) with contents and page numbers, on A4.

    The same notebook as for `render_html`, laid out by typst with the fonts inside its wheel. Of an audio
    player only a remark remains. Raises NotebookError as `render_html` does, and where typst refuses the document.
    """
    import typst

    markdown, images = _markdown(notebook)
    # Made only for what it refuses: neither edition is to exist without the other.
    _page(notebook, markdown, images, title)
    source = _pandoc(markdown, "typst", title)
    with temporary_folder() as temporary:
        folder = Path(temporary)
        for name, content in images.items():
            (folder / name).write_bytes(content)
        main = folder / "main.typ"
        main.write_text(source, encoding="utf-8")
        try:
            content = typst.compile(main, root=folder, ignore_system_fonts=True, pdf_standards="ua-1")
        except typst.TypstError as error:
            raise NotebookError(
                f"{notebook} cannot be laid out as PDF: {error.message}. Write that part of it another way."
            ) from error
    with written_whole(destination) as path:
        path.write_bytes(content)


def render_report(notebook: Path, html: Path, pdf: Path) -> None:
    """Write the executed 5_report.ipynb in both editions, as `render_html` and `render_pdf` do."""
    render_html(notebook, html, REPORT_TITLE)
    render_pdf(notebook, pdf, REPORT_TITLE)


def _identifier(number: str) -> str:
    return re.sub(r"[^\w.]+", "-", number.strip().lower())


def _require(what: str, **texts: str) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise NotebookError(f"The {name} of {what} is {text!r}; write a sentence or a name there.")


def _require_texts(frame: pd.DataFrame, number: str) -> None:
    if frame.shape[1] == 0:
        raise NotebookError(
            f"{number} has no columns; pass a frame with the column that heads the rows, at least."
        )
    if (
        frame.index.nlevels > 1
        or frame.index.name is not None
        or not pd.api.types.is_integer_dtype(frame.index)
    ):
        raise NotebookError(
            f"{number} has an index with names, and an index is not shown; call reset_index() first."
        )
    for name in frame.columns:
        if not isinstance(name, str):
            raise NotebookError(f"{number} has a column named {name!r}; names must be strings.")
    for name, (position, cell) in ((n, item) for n in frame.columns for item in enumerate(frame[n])):
        if not isinstance(cell, str):
            raise NotebookError(
                f"{number} holds {cell!r} in column {name!r}, row {position}; every cell must be a string: format it first."
            )


def _kind_of(cells: list[str]) -> str:
    """The CSS class of a column: numbers, short names that stay on one line, or long texts."""
    filled = [cell.strip() for cell in cells if cell.strip() not in BLANKS]
    if filled and all(NUMBER.fullmatch(cell) for cell in filled):
        return "num"
    return "short" if all(len(cell) <= LONGEST_UNBROKEN for cell in filled) else "long"


def _markdown(path: Path) -> tuple[str, dict[str, bytes]]:
    """The notebook as one Markdown text, and its images as bytes under the names that the text uses."""
    import nbformat
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    try:
        notebook = nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise NotebookError(
            f"There is no notebook {path}; run it first, then render what the run wrote."
        ) from None
    except (
        nbformat.reader.NotJSONError,
        nbformat.ValidationError,
        UnicodeDecodeError,
        AttributeError,
    ) as error:
        raise NotebookError(f"{path} is not a notebook ({error}); render an executed .ipynb file.") from error
    shown = [
        (position, cell)
        for position, cell in enumerate(notebook.cells, start=1)
        if "hide" not in cell.metadata.get("tags", [])
    ]
    for position, cell in shown:
        if cell.cell_type == "code":
            first_line = cell.source.strip().partition("\n")[0]
            _require_presentable(cell, f"{path}, cell {position} ({first_line!r})")
    notebook.cells = [cell for _, cell in shown]
    exporter = MarkdownExporter(
        template_name="report",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input=True,
        config=Config(NbConvertBase={"display_data_priority": OUTPUT_PRIORITY}),
    )
    exporter.register_filter("fence", _fence)
    exporter.register_filter("figure_json", _figure_json)
    markdown, resources = exporter.from_notebook_node(notebook)
    return markdown, resources["outputs"]


def _require_presentable(cell: NotebookNode, where: str) -> None:
    """Everything a reader would miss in the outputs of one code cell raises, and the message names the cell."""
    for output in cell.outputs:
        if output.output_type == "error":
            raise NotebookError(
                f"{where} failed with {output.ename}: {output.evalue}. Mend it and run again."
            )
        data = output.get("data", {})
        if "text/html" in data or not any(kind.startswith("image/") for kind in data):
            continue
        described = output.metadata.get("image/png", {})
        missing = [name for name in ("number", "caption", "alt") if not described.get(name, "").strip()]
        if "image/png" not in data or missing:
            raise NotebookError(
                f"{where} shows an image without {' or '.join(missing or ['a PNG form'])}; "
                "show it with valence_lib.rendering.figure(fig, number, caption, alt)."
            )


def _fence(text: str) -> str:
    """A fence of backticks longer than any run of them in `text`."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)


def _figure_json(output: NotebookNode) -> str:
    """What page.lua needs to build a figure, on one line."""
    described = output.metadata["image/png"]
    source = output.metadata["filenames"]["image/png"]
    return json.dumps(
        {
            "identifier": _identifier(described["number"]),
            "number": described["number"],
            "caption": described["caption"],
            "alt": described["alt"],
            "width": described.get("width"),
            "source": source,
        }
    )


def _page(notebook: Path, markdown: str, images: dict[str, bytes], title: str) -> str:
    page = _pandoc(markdown, "html", title, "--mathml", "--toc", "--toc-depth=3")
    for name, content in images.items():
        kind = mimetypes.guess_type(name)[0]
        page = page.replace(f'src="{quote(name)}"', f'src="data:{kind};base64,{b64encode(content).decode()}"')
    _PageCheck(notebook).feed_whole(page)
    return page


def _pandoc(markdown: str, target: str, title: str, *options: str) -> str:
    import pypandoc

    template = TEMPLATES / "report" / {"html": "page.html", "typst": "page.typ"}[target]
    with temporary_folder() as folder:
        # On the command line the title would be read in the encoding of the locale.
        metadata = Path(folder, "metadata.json")
        metadata.write_text(json.dumps({"title": title}), encoding="utf-8")
        arguments = [
            "--standalone",
            f"--template={template}",
            f"--metadata-file={metadata}",
            f"--lua-filter={TEMPLATES / 'report' / 'page.lua'}",
            "--syntax-highlighting=none",
            "--wrap=none",
            # Tables whose source has lines beyond this would get widths by the number of their dashes.
            "--columns=100000",
            *options,
        ]
        return pypandoc.convert_text(markdown, target, format=MARKDOWN, extra_args=arguments)


class _PageCheck(HTMLParser):
    """Refuses a page that loads or runs anything, hides an image from those who do not see, or links to nowhere."""

    LOADING_TAGS = frozenset({"script", "iframe", "frame", "object", "embed", "base", "applet"})
    LOADING_ATTRIBUTES = frozenset({"src", "srcset", "poster", "data", "background", "xlink:href"})

    def __init__(self, notebook: Path):
        super().__init__()
        self.notebook = notebook
        self.identifiers: set[str] = set()
        self.links: set[str] = set()
        self.in_style = False

    def feed_whole(self, page: str) -> None:
        self.feed(page)
        self.close()
        for target in sorted(self.links - self.identifiers):
            self._refuse(f"a link to #{target}, which names no heading, figure or table of it")

    def _refuse(self, what: str) -> None:
        raise NotebookError(
            f"The page of {self.notebook} would hold {what}; take that out of the notebook and run it again."
        )

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        shown = f"<{tag} {' '.join(f'{name}={value[:60]!r}' for name, value in given.items())}>"
        self.in_style = tag == "style"
        loaded = [value for name, value in given.items() if name in self.LOADING_ATTRIBUTES]
        if tag in ("link", "image", "use"):
            loaded.append(given.get("href", ""))
        if tag in self.LOADING_TAGS or any(name.startswith("on") for name in given):
            self._refuse(f"{shown}, and a report runs no script and frames no other page")
        if given.get("http-equiv", "").lower() == "refresh":
            self._refuse(f"{shown}, and a report leads nowhere by itself")
        if any(not address.startswith(("data:", "#")) for address in loaded if address):
            self._refuse(f"{shown}, and a report loads nothing from outside itself")
        self._check_css(given.get("style", ""))
        if tag == "img" and not given.get("alt", "").strip():
            self._refuse(f"{shown}, an image without alternative text")
        if given.get("id"):
            if given["id"] in self.identifiers:
                self._refuse(f"two things named {given['id']!r}")
            self.identifiers.add(given["id"])
        if tag == "a" and given.get("href", "").startswith("#"):
            self.links.add(unquote(given["href"][1:]))

    def handle_data(self, data: str) -> None:
        if self.in_style:
            self._check_css(data)

    def handle_endtag(self, tag: str) -> None:
        self.in_style = False

    def _check_css(self, css: str) -> None:
        found = re.search(r"@import[^;]*|url\(\s*['\"]?(?!data:)[^)]*\)", css)
        if found:
            self._refuse(f"the style {found[0][:80]!r}, and a report loads nothing from outside itself")
