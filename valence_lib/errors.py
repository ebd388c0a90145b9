"""The errors of this library: each message says what was given, what was expected, and how to mend it."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches

_DISK_ADVICE = {
    errno.ENOSPC: "The disk is full: free some space and start again; finished work is kept.",
    errno.EDQUOT: "Your quota is used up: free some space and start again; what was finished is kept.",
    errno.EROFS: "The file system is read-only: make it writable, or work in a copy of the project.",
    errno.EACCES: "Permission is missing: change the permissions, or work in a copy of the project.",
}


class ValenceError(Exception):
    """Base of every error that this library raises on purpose."""


class SettingsError(ValenceError):
    """A parameter has an unknown name, a wrong type or an impossible value."""


class CorpusError(ValenceError):
    """A corpus is absent, is in no known format, or holds no clip that can be used."""


class ClipError(ValenceError):
    """One clip cannot be used; the rest of its corpus still can.

    `reason` is one of the short names under which the quarantine table counts clips.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # Pickling between processes uses the arguments, of which the base class keeps one.
        return type(self), (self.reason, str(self))


class PickleRefused(ClipError):  # noqa: N818
    """A pickle asks for something that a course pickle never needs, or is not a pickle."""


class WorkerError(ValenceError):
    """A worker process was killed."""


class TrainingError(ValenceError):
    """Training cannot go on: its loss is not finite."""


class NotebookError(ValenceError):
    """A notebook cannot be run as asked, or one of its cells failed."""


class LackOfMemoryError(NotebookError):
    """The process of a notebook was killed, most often for lack of memory."""


class RunError(ValenceError):
    """A folder is not a finished run of this library, or is damaged."""


def disk_advice(number: int | None) -> str:
    """What to do about an error of the disk, by its errno; empty for other errors."""
    return _DISK_ADVICE.get(number or 0, "")


def unknown_name(kind: str, given: str, known: Iterable[str]) -> str:
    """The message for a name that does not exist: what was given, the nearest, and all there are."""
    known = sorted(known)
    nearest = get_close_matches(given.lower(), [name.lower() for name in known], n=1, cutoff=0.5)
    hint = ""
    if nearest:
        original = next(name for name in known if name.lower() == nearest[0])
        hint = f" Did you mean {original!r}?"
    return f"There is no {kind} {given!r}.{hint} Known: {', '.join(known)}."
