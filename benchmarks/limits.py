"""Rates of the machine that no stage can exceed."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import rates, take_turns

_MATRIX = 1024
_BYTES = 1 << 28


def measure(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Matrix product in GFLOP/s, memory copy and reading of a cached file in GB/s, on one thread."""
    matrix = torch.randn(_MATRIX, _MATRIX)
    arrays = matrix.numpy(), matrix.t().contiguous().numpy()
    source, target = np.ones(_BYTES // 4, np.float32), np.empty(_BYTES // 4, np.float32)
    file = folder / "bytes"
    file.write_bytes(source.tobytes())
    functions = {
        "torch": lambda: [matrix @ matrix for _ in range(4)],
        "numpy": lambda: [arrays[0] @ arrays[1] for _ in range(4)],
        "copy": lambda: np.copyto(target, source),
        "read": lambda: _read(file),
    }
    seconds = take_turns(functions, rounds)
    file.unlink()
    gflops, gigabytes = rates(seconds, 8 * _MATRIX**3 / 1e9), rates(seconds, _BYTES / 1e9)
    return {
        # The faster of two libraries: a slow product would make the shares of the limit too high.
        "matrix_product_gflops": max(gflops["torch"], gflops["numpy"], key=lambda rate: rate["median"]),
        "memory_copy_gb_per_s": gigabytes["copy"],
        "file_read_gb_per_s": gigabytes["read"],
    }


def _read(file: Path) -> None:
    content = bytearray(1 << 20)
    with file.open("rb", buffering=0) as opened:
        while opened.readinto(content):
            pass
