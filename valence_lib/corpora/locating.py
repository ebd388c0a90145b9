"""Find the audio files that a table names, also where it spells them in the way of another machine.

A name is first taken as it is. Otherwise the folder is searched without regard to case, to the form of
accents (NFC or NFD), to backslashes, to a missing suffix and to folders that exist elsewhere. A match counts
only if it is the only one, and if no other name of the table means the same file.
"""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from valence_lib.corpora.file_kinds import AUDIO_SUFFIXES, is_clutter, name_text
from valence_lib.errors import ClipError

_Parts = tuple[str, ...]  # of a path: folded names of folders and of the file
_MOST_SHOWN = 3


class Files:
    """The files that a table names.

    Args:
        folder: of the table.
        names: as the table has them.

    Attributes:
        paths: the file of each name that has one.
        problems: why another name has none.
        respelled: the names whose file is spelled otherwise, with its path within the folder.
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        self._folder = folder
        self.paths: dict[str, Path] = {}
        self.problems: dict[str, ClipError] = {}
        self.respelled: dict[str, str] = {}
        wanted = dict.fromkeys(names)
        for name in wanted:
            if os.path.isfile(os.path.join(folder, name)):  # noqa: PTH113, PTH118 (no error for odd names)
                self.paths[name] = folder / name
        missing = [name for name in wanted if name not in self.paths]
        taken = {path.resolve() for path in self.paths.values()} if missing else set()
        # Speaker 1's 001.wav is not speaker 2's: without its folder, a name has to be enough.
        bases = Counter(_parts(name)[-1:] for name in wanted)
        claims: dict[Path, list[str]] = defaultdict(list)
        for name in missing:
            is_enough = bases[_parts(name)[-1:]] == 1 and not self._has_folder_of(name)
            found = self._matches(name, is_enough)
            if len(found) == 1 and found[0].resolve() not in taken:
                claims[found[0]].append(name)
            else:
                self.problems[name] = self._problem(name, found)
        for path, claimed in claims.items():
            for name in claimed:
                if len(claimed) > 1:
                    others = ", ".join(repr(other) for other in claimed if other != name)
                    problem = f"the file '{self._shown(path)}' may be {name!r} or {others}; name it exactly."
                    self.problems[name] = ClipError("unreadable", problem)
                else:
                    self.paths[name] = path
                    self.respelled[name] = self._shown(path)

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[_Parts, Path]]]:
        """All files below the folder by their folded name, with and without the suffix of audio files."""
        found: dict[str, list[tuple[_Parts, Path]]] = defaultdict(list)
        seen = {os.path.realpath(self._folder)}  # links may form a circle
        for root, folders, files in os.walk(self._folder, followlinks=True):
            targets = {name: os.path.realpath(os.path.join(root, name)) for name in folders}  # noqa: PTH118
            folders[:] = sorted(
                name for name, at in targets.items() if at not in seen and not is_clutter(name)
            )
            seen.update(targets[name] for name in folders)
            for file in sorted(files):
                path = Path(root, file)
                if is_clutter(file):
                    continue
                relative = os.path.relpath(path, self._folder)
                for spelling in _spellings(relative):
                    parts = _parts(spelling)
                    found[parts[-1]].append((parts, path))
                    stem, dot, suffix = parts[-1].rpartition(".")
                    if stem and dot + suffix in AUDIO_SUFFIXES:
                        found[f"{stem}."].append(((*parts[:-1], stem), path))
        return found

    def _matches(self, name: str, without_folder: bool) -> list[Path]:
        """The files that a name may mean: those that share most of the end of its path."""
        parts = _parts(name)
        if not parts:
            return []
        candidates = self._by_name.get(parts[-1]) or self._by_name.get(f"{parts[-1]}.") or []
        shared: dict[Path, int] = {}
        for own, path in candidates:
            pairs = zip(reversed(own), reversed(parts), strict=False)
            n_shared = next(
                (n for n, (one, other) in enumerate(pairs) if one != other), min(len(own), len(parts))
            )
            # The whole of either path, or a name that no other row of the table has.
            whole = n_shared > 1 and n_shared in (len(own), len(parts))
            if whole or len(parts) == 1 or without_folder:
                shared[path] = max(n_shared, shared.get(path, 0))
        most = max(shared.values(), default=0)
        return [path for path, n_shared in shared.items() if n_shared == most]

    def _has_folder_of(self, name: str) -> bool:
        """Whether a relative name begins with a folder that is here, not on another machine."""
        first, *rest = re.split(r"[\\/]", name)
        return bool(rest) and first not in ("", ".", "..") and (self._folder / first).is_dir()

    def _problem(self, name: str, found: Sequence[Path]) -> ClipError:
        if len(found) > 1:
            listed = ", ".join(repr(self._shown(path)) for path in found[:_MOST_SHOWN])
            return ClipError(
                "unreadable", f"{name!r} may be any of {len(found)} files: {listed}; give its folder."
            )
        if found:
            shown = self._shown(found[0])
            return ClipError("unreadable", f"there is no file {name!r}; {shown!r} belongs to another row.")
        parts = [part for part in re.split(r"[\\/]", name) if part]
        tried = dict.fromkeys((name, *(parts[-1:] if len(parts) > 1 else [])))
        return ClipError(
            "unreadable",
            f"there is no file {name!r}; tried {' and '.join(map(repr, tried))} in the folder of the table "
            "and below it, in any case, and without a suffix with any.",
        )

    def _shown(self, path: Path) -> str:
        return name_text(os.path.relpath(path, self._folder))


def _parts(name: str) -> _Parts:
    """The folded parts of a path of any system, without the drive."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    parts = [part for part in re.split(r"[\\/]", folded) if part not in ("", ".")]
    return tuple(parts[1:] if parts and re.fullmatch("[a-z]:", parts[0]) else parts)


def _spellings(relative: str) -> list[str]:
    """A path as text; one that is not UTF-8 as the encodings of Windows archives have it."""
    encoded = os.fsencode(relative)
    try:
        return [encoded.decode("utf-8")]
    except UnicodeDecodeError:
        return list(dict.fromkeys(encoded.decode(name, "replace") for name in ("windows-1252", "cp437")))
