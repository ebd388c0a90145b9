"""A short way through course pickles that differ from one read before in nothing but their numbers.

The pickles of one program are alike: the same instructions in the same places around other samples, another
number of them and another rating. Once one file has been followed instruction by instruction, others are
held against its bytes; where they are the same but for those numbers, so is what they mean.
"""

import pickletools
import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

# Instructions whose arguments may differ, and how many bytes say them (of samples: their length).
_COUNTS = {"BININT1": 1, "BININT2": 2, "BININT": 4}
_SAMPLES = {"SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}
_OTHERS = {"FRAME": 8, "BINFLOAT": 8}


@dataclass(frozen=True)
class Form:
    """What the pickles of one program have in common.

    Args:
        head: matches all before the samples, and names the parts that may differ.
        tail: the same for all after them.
        dtype: of the samples, in native byte order.
    """

    head: re.Pattern[bytes]
    tail: re.Pattern[bytes]
    dtype: np.dtype

    def read(self, content: bytes) -> tuple[np.ndarray, float | None] | None:
        """Samples [shape=(n_samples,), read-only] and rating of a pickle of this form; None where it has another."""
        if not (head := self.head.match(content)):
            return None
        start, length = head.end(), int.from_bytes(head["length"], "little")
        if not (tail := self.tail.fullmatch(content, start + length)):
            return None
        found = {**head.groupdict(), **tail.groupdict()}
        count = int.from_bytes(found["count"], "little")
        if count * self.dtype.itemsize != length:
            return None
        valence = struct.unpack(">d", found["valence"])[0] if "valence" in found else None
        return np.frombuffer(content, self.dtype, count, start), valence


def form_of(content: bytes, audio: np.ndarray, valence: float | None) -> Form | None:
    """The form of a pickle that has been read, or None where its numbers cannot be told from all else.

    Args:
        content: the whole pickle, known to be well formed.
        audio [shape=(n_samples,)], valence: what it holds.
    """
    patterns: list[bytes] = [b""]  # of the head, then of the tail
    named: list[str] = []
    fixed_from = 0
    argument: Any
    for opcode, argument, position in pickletools.genops(content):
        name, size = opcode.name, 0
        start = (position or 0) + 1
        if name in _COUNTS and argument == audio.size:
            part, size = "count", _COUNTS[name]
        elif name in _SAMPLES and len(argument) == audio.nbytes:
            if bytes(argument) != audio.tobytes():
                return None  # stored in the other byte order
            part, size = "length", _SAMPLES[name]
        elif name in _OTHERS:
            part, size = "valence" if name == "BINFLOAT" else f"frame{len(named)}", _OTHERS[name]
        if not size:
            continue
        named.append(part)
        patterns[-1] += re.escape(content[fixed_from:start]) + b"(?P<%s>.{%d})" % (part.encode(), size)
        fixed_from = start + size
        if part == "length":
            fixed_from += len(argument)
            patterns.append(b"")
    patterns[-1] += re.escape(content[fixed_from:])
    expected = ["count", "length"] + ["valence"] * (valence is not None)
    if sorted(part for part in named if not part.startswith("frame")) != expected:
        return None
    head, tail = (re.compile(pattern, re.DOTALL) for pattern in patterns)
    return Form(head, tail, audio.dtype)
