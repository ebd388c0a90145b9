"""The check of a finished page: only known elements, attributes, links and styles."""

from pathlib import Path

import pytest

from valence_lib.errors import NotebookError
from valence_lib.report.page_check import check_page

GOOD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>A</title><link rel="icon" href="data:,">
<style>p { color: red }</style></head><body><a class="skip" href="#one">Skip</a>
<h2 id="one">One</h2><p style="text-align: left">See <a href="https://example.org">it</a>.</p>
<table id="t"><thead><tr><th scope="col" class="num">A</th></tr></thead></table>
<math display="inline"><semantics><mi mathvariant="normal">x</mi><annotation encoding="tex">x</annotation>
</semantics></math><img alt="A line." width="9px" src="data:image/png;base64,AAAA">
<audio controls aria-label="A" src="data:audio/mpeg;base64,AAAA"></audio></body></html>"""


def test_a_page_of_a_report_passes():
    check_page(Path("a.ipynb"), GOOD)


@pytest.mark.parametrize(
    ("element", "message"),
    [
        ("<script>alert(1)</script>", "<script>, and a report has text, tables, figures and recordings only"),
        ("<form action='https://example.org'>", "has text, tables"),
        ("<button>x</button>", "has text, tables"),
        ("<svg><a></a></svg>", "has text, tables"),
        ("<template></template>", "has text, tables"),
        ("<base href='https://example.org'>", "has text, tables"),
        ("<style>p {}</style>", "has text, tables"),
        ("<meta http-equiv='refresh' content='0'>", "has text, tables"),
        ("<p onclick='alert(1)'>x</p>", "with the attribute onclick, and a report runs no script"),
        ("<a href='#one' ping='https://example.org'>x</a>", "with the attribute ping"),
        ("<img alt='x' srcset='x.png 2x' src='data:image/png;base64,AAAA'>", "with the attribute srcset"),
        ("<img alt='x' src='x.png'>", "loads nothing from outside"),
        ("<img alt='x' src='data:image/svg+xml,<svg>'>", "loads nothing from outside"),
        ("<img src='data:image/png;base64,AAAA'>", "without alternative text"),
        ("<img alt='x' src='https://example.org' src='data:image/png;base64,AAAA'>", "one attribute twice"),
        ("<a href='javascript:alert(1)'>x</a>", "links to its own parts and to web pages only"),
        ("<a href='data:text/html,x'>x</a>", "links to its own parts and to web pages only"),
        ("<a href='#nowhere'>x</a>", "a link to #nowhere"),
        ("<p id='one'>x</p>", "two things named 'one'"),
        (
            "<p style='position: fixed'>x</p>",
            "the style 'position: fixed', and a report has its own style only",
        ),
        ("<p style='width: 1px; background: url(x.png)'>x</p>", "the style 'background: url(x.png)'"),
        ("<!--><img src=x onerror=alert(1)>-->", "comments and declarations"),
        ("<![CDATA[><img src=x onerror=alert(1)>]]>", "comments and declarations"),
        ("<?php echo 1 ?>", "comments and declarations"),
    ],
)
def test_anything_else_is_refused(element, message):
    with pytest.raises(NotebookError) as caught:
        check_page(Path("a.ipynb"), GOOD.replace("</body>", f"{element}</body>"))
    assert str(caught.value).startswith("The page of a.ipynb would hold ")
    assert message in str(caught.value)


def test_a_style_that_loads_is_refused():
    for rule in ("@import 'x.css'", "p { background: URL(x.png) }"):
        with pytest.raises(NotebookError, match="loads nothing from outside"):
            check_page(Path("a.ipynb"), GOOD.replace("p { color: red }", rule))
