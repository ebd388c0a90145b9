"""Draw pages of the demo report for the README: `make example`."""

from pathlib import Path

import typst

REPORTS = Path("reports")
# The summary, the results on the test clips, and single predictions. New text may move them to other pages.
PAGES = {"report": 2, "results": 6, "predictions": 9}
PIXELS = 900

for name, page in PAGES.items():
    # A page as wide as it has pixels, at one pixel a point.
    source = f"""
        #set page(width: {PIXELS}pt, height: auto, margin: 0pt)
        #image("/report.pdf", page: {page}, width: 100%, alt: "{name}")
    """
    picture = typst.compile(source.encode(), root=REPORTS / "demo", format="png", ppi=72)
    (REPORTS / f"demo-{name}.png").write_bytes(picture)
    print(f"reports/demo-{name}.png: page {page}, {len(picture) / 1000:.0f} kB")
