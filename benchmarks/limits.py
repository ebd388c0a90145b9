"""What the machine can do: the rates that no stage can pass."""

import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import spread

_MATRIX = 1024
_BYTES = 1 << 28


def measure(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Single-thread matrix product in GFLOP/s, memory copy in GB/s, reading of a cached file in GB/s."""
    a = torch.randn(_MATRIX, _MATRIX)
    arrays = a.numpy(), a.t().contiguous().numpy()
    source, target = np.ones(_BYTES // 4, np.float32), np.empty(_BYTES // 4, np.float32)
    file = folder / "bytes"
    file.write_bytes(source.tobytes())
    content = bytearray(1 << 20)
    rates: dict[str, list[float]] = {"torch": [], "numpy": [], "copy": [], "read": []}
    for number in range(rounds + 1):
        seconds = {
            "torch": _seconds(lambda: [a @ a for _ in range(4)]),
            "numpy": _seconds(lambda: [arrays[0] @ arrays[1] for _ in range(4)]),
            "copy": _seconds(lambda: np.copyto(target, source)),
            "read": _seconds(lambda: _read(file, content)),
        }
        if number:
            for name, taken in seconds.items():
                amount = 8 * _MATRIX**3 if name in ("torch", "numpy") else _BYTES
                rates[name].append(amount / taken / 1e9)
    file.unlink()
    return {
        # The faster of two libraries, so that no share is flattered by a slow one.
        "matrix_product_gflops": max((spread(rates[name]) for name in ("torch", "numpy")), key=_median),
        "memory_copy_gb_per_s": spread(rates["copy"]),
        "file_read_gb_per_s": spread(rates["read"]),
    }


def _median(values: dict[str, float]) -> float:
    return values["median"]


def _seconds(run: object) -> float:
    started = time.perf_counter()
    run()  # type: ignore[operator]
    return time.perf_counter() - started


def _read(file: Path, content: bytearray) -> None:
    with file.open("rb", buffering=0) as opened:
        while opened.readinto(content):
            pass
