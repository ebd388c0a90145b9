"""`python -m benchmarks.embedded_audio`: time and peak memory of reading audio that Parquet files hold."""

import io
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
from pyarrow import parquet

from benchmarks.timing import in_child
from valence_lib.corpora import hugging_face
from valence_lib.corpora.opening import open_corpus
from valence_lib.preprocess.inspection import inspect_corpus
from valence_lib.settings import CorpusSettings, FeatureSettings

COUNTS = (1000, 5000)  # clips
_RATE, _SECONDS = 16_000, 3
_SPEAKERS = 20


def write(path: Path, count: int, rows_per_group: int) -> None:
    """Write clips of noise to one Parquet file, group by group."""
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("audio", audio), ("valence", pa.float64()), ("speaker", pa.string())])
    rng = np.random.default_rng(0)
    with parquet.ParquetWriter(path, schema) as writer:
        for first in range(0, count, rows_per_group):
            rows = []
            for number in range(first, min(first + rows_per_group, count)):
                file = io.BytesIO()
                noise = 0.1 * rng.standard_normal(_RATE * _SECONDS)
                soundfile.write(file, noise, _RATE, format="WAV", subtype="PCM_16")
                held = {"bytes": file.getvalue(), "path": f"{number:06}.wav"}
                rating = 1 + number % 9 / 2
                rows.append({"audio": held, "valence": rating, "speaker": f"S{number % _SPEAKERS}"})
            writer.write_table(pa.Table.from_pylist(rows, schema), rows_per_group)


def decode(path: Path) -> float:
    """Seconds in which the clips of a file are decoded, in their order."""
    started = time.perf_counter()
    data_set = hugging_face.find(path)
    assert data_set is not None and data_set.recordings is not None
    for file, *_ in data_set.table.rows:
        data_set.recordings.read(file, _RATE)
    return time.perf_counter() - started


def inspect(path: Path, processes: int) -> float:
    """Seconds in which all clips of a file are inspected by some processes."""
    started = time.perf_counter()
    corpus = open_corpus(path)
    inspect_corpus(corpus, CorpusSettings(), FeatureSettings(), None, processes, progress=False)
    return time.perf_counter() - started


def main() -> None:
    """Print a row for each size of file and of row group; memory counts from that of decoding one clip."""
    print("clips  rows a group  read by                  seconds  peak MB above one clip")
    with tempfile.TemporaryDirectory(prefix="valence-bench-") as scratch:
        path = Path(scratch) / "clips.parquet"
        write(path, 1, 1)
        _, base = in_child(decode, path)
        for count in COUNTS:
            for rows_per_group in (100, count):
                write(path, count, rows_per_group)
                begin = f"{count:5}  {rows_per_group:12}"
                seconds, peak = in_child(decode, path)
                print(f"{begin}  one process, in order    {seconds:7.1f}  {peak - base:5.0f}", flush=True)
                for processes in (1, 2):
                    seconds, peak = in_child(inspect, path, processes)
                    print(
                        f"{begin}  inspection, {processes} processes  {seconds:7.1f}  {peak - base:5.0f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
