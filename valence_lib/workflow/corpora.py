"""The corpora of a report: their names in requests and notebooks, their links, and their digest."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from valence_lib.corpora.opening import folder_of, split_names
from valence_lib.corpora.sources import Corpus
from valence_lib.errors import RunError
from valence_lib.files import digest_of_files
from valence_lib.provenance import digest_of_content
from valence_lib.workflow.jobs import CORPUS_LINK


def seen_from(corpora: str, root: Path) -> str:
    """Corpora by their paths from a folder, the same for every spelling of the paths."""
    names = split_names(corpora)
    return ",".join(
        name if name == "demo" else os.path.relpath(Path(name).expanduser(), root) for name in names
    )


def absolute(corpora: str, root: Path) -> str:
    """The corpora that `seen_from` named."""
    names = split_names(corpora, root)
    return ",".join(name if name == "demo" else str(root / name) for name in names)


def seen_from_notebooks(corpora: Sequence[str], report: str) -> list[str]:
    """Each corpus by its link in the report's folder, so that notebooks hold no path of this machine."""
    found = []
    for name, link in zip(corpora, _links(corpora), strict=True):
        path = Path(name).expanduser()
        place = f"../reports/{report}/{link}"
        found.append(name if name == "demo" else f"{place}/{path.name}" if path.is_file() else place)
    return found


def _links(corpora: Sequence[str]) -> list[str]:
    """The name of each corpus's link in the report's folder."""
    if len(corpora) == 1:
        return [CORPUS_LINK]
    return [f"{CORPUS_LINK}-{number}" for number in range(1, len(corpora) + 1)]


def link_corpora(folder: Path, corpora: Sequence[str], root: Path) -> None:
    """Make the links by which the notebooks name the corpora, and remove those of an earlier request.

    Raises:
        RunError: a folder is in place of a link.
    """
    links = {link: name for link, name in zip(_links(corpora), corpora, strict=True) if name != "demo"}
    for path in folder.glob(f"{CORPUS_LINK}*"):
        if path.is_symlink() and path.name not in links:
            path.unlink()
    for name, corpus in links.items():
        where = folder_of(corpus)
        link, target = folder / name, (where if where.is_dir() else where.parent).resolve()
        text = os.path.relpath(target, link.parent) if target.is_relative_to(root) else str(target)
        if link.is_symlink() and os.readlink(link) == text:  # noqa: PTH115 (Path.readlink would lose "./")
            continue
        if link.is_dir() and not link.is_symlink():
            raise RunError(
                f"{os.path.relpath(link)} is a folder; expected the link to the corpus, or nothing. A copied "
                "report may hold the corpus in place of the link: move the folder away, and start again."
            )
        link.unlink(missing_ok=True)
        link.symlink_to(text)


def corpus_digest(corpus: Corpus, places: Sequence[str], notes: Path | None) -> str:
    """Digest of all files of the corpora that were opened from `places`; `notes` as for `digest_of_files`."""
    digests = []
    for number, (part, place) in enumerate(zip(corpus.parts, places, strict=True)):
        folder = folder_of(place)
        own_notes = notes and notes.with_stem(f"{notes.stem}-{number}" if number else notes.stem)
        digests.append(digest_of_files(part.files(), folder if folder.is_dir() else folder.parent, own_notes))
    return digests[0] if len(digests) == 1 else digest_of_content(digests)


def report_name(corpora: str, tested: str, target: str) -> str:
    """A report's name after its corpora, a table of labels by its folder, and after what it predicts."""
    first, *others = ("-".join(map(_stem, split_names(names))) for names in (corpora, tested))
    name = "-to-".join([first, *filter(None, others)])
    if target != "valence":
        name = f"{name}-{target}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "report"


def _stem(corpus: str) -> str:
    path = folder_of(corpus).resolve()
    return path.stem if path.suffix in (".pkl", ".pickle") else path.name
