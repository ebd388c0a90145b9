"""The README's table is the benchmark's, and what it is made of can be trusted."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import summary, timing, work
from benchmarks.training import flops_per_frame
from valence_lib.waveforms import digest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results() -> dict:
    return json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))


def test_the_readme_shows_the_benchmarks_own_table(results: dict):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert summary.between_marks(text, "benchmark")[1] == summary.table(results)
    assert "benchmarks/results.png" in text
    assert (ROOT / "benchmarks" / "results.png").is_file()
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert summary.between_marks(text, "arithmetic")[1] == summary.arithmetic(results)
    assert summary.between_marks(text, "growth")[1] == summary.growth(results)


def test_the_results_are_a_full_run_and_say_on_what(results: dict):
    assert results["date"] and results["cpu"] and results["versions"]["torch"]
    assert results["scaling"]["clips"][-1] == 64_000
    for model in ("LSTM1", "LSTM2"):
        assert {"ratio_vs_course", "ratio_vs_packed"} <= set(results["training"][model])
    assert "ratio_vs_course" in results["training"]["CNN"]
    assert {"peak_mb_10k", "peak_mb_40k"} <= set(results["preprocessing"])
    assert "ratio_vs_librosa" in results["front_end"]
    assert results["limits"] and results["shares"]


def test_ways_take_turns_and_the_first_round_does_not_count():
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) for name in "AB"}
    seconds = timing.side_by_side(ways, 3)
    assert "".join(order) == "ABABABAB"
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_ratios_are_taken_pair_by_pair():
    seconds = {"ours": [1.0, 2.0, 4.0], "theirs": [3.0, 10.0, 12.0]}
    assert timing.ratio(seconds, "ours", "theirs") == {"median": 3.0, "low": 3.0, "high": 5.0}
    assert timing.rates(seconds, 8)["ours"] == {"median": 4.0, "low": 2.0, "high": 8.0}


def test_exponents_of_known_powers():
    assert timing.exponent([10, 100, 1000], [2.0, 20.0, 200.0]) == pytest.approx(1)
    assert timing.exponent([10, 100, 1000], [3.0, 300.0, 30000.0]) == pytest.approx(2)


# Fills 350 MB and lets go of them. A process that does only this takes less than 150 MB more.
FILLS = "b'x' * (350 << 20)"


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        pytest.param(eval, f"len({FILLS})", id="its own"),
        pytest.param(subprocess.check_call, [sys.executable, "-c", FILLS], id="of one below it"),
    ],
)
def test_the_peak_memory_of_another_process_is_seen(function, argument):
    _, peak = timing.in_child(function, argument)
    assert 350 < peak < 500


def test_what_a_process_takes_as_it_ends_is_not_in_its_peak():
    _, peak = timing.in_child(exec, f"import atexit\natexit.register(lambda: {FILLS})")
    assert peak < 150


def test_the_memory_of_the_process_that_measures_is_not_in_the_peak():
    held = bytearray(b"x") * (350 << 20)
    _, peak = timing.in_child(len, "")
    assert len(held) == 350 << 20
    assert peak < 150


def test_floating_point_operations_by_hand():
    # LSTM1, one frame: forth 2 * 512 * (128 + 128); back the same for the weights, and for the hidden state alone.
    assert flops_per_frame("LSTM1") == 3 * 2 * 512 * 256 - 2 * 512 * 128
    first, second = 2 * 2 * 512 * 256, 2 * 2 * 512 * 384  # LSTM2, both directions
    assert flops_per_frame("LSTM2") == 3 * (first + second) - 2 * 2 * 512 * 128
    assert flops_per_frame("CNN") == 2 * (2 * 9 * 8 * 128) + 3 * (2 * 9 * 8 * 16 * 128)


def test_copies_of_a_clip_are_not_the_same_audio(tmp_path: Path, write_pickle):
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 4000).astype(np.float32)
    write_pickle(tmp_path / "train" / "0.pkl", {"audio_data": audio, "valence": 3.0})
    write_pickle(tmp_path / "train" / "1.pkl", {"audio_data": audio[:3000], "valence": 2.0})
    corpus = work.Repeated(tmp_path, 7)
    clips = list(corpus)
    assert [clip.waveform.size for clip in clips] == [4000, 3000] * 3 + [4000]
    assert len({digest(clip.waveform) for clip in clips}) == 7
    (last,) = corpus.cut(6, 7)
    assert digest(last.waveform) == digest(clips[6].waveform)
    assert work.longest_clip(tmp_path) == 8
