"""The tables of both READMEs come from results.json; times, ratios, memory and operations are right."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import summary, timing, work
from benchmarks.training import forward_flops, training_flops
from valence_lib.corpora.waveforms import digest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results() -> dict:
    return json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("page", "name", "write"),
    [
        ("README.md", "benchmark", summary.table),
        ("benchmarks/README.md", "arithmetic", summary.arithmetic),
        ("benchmarks/README.md", "growth", summary.growth),
    ],
)
def test_the_readmes_show_the_results(results: dict, page, name, write):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert summary.section(text, name) == write(results)


def test_a_section_is_replaced_and_the_rest_of_the_page_remains(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("old\n<!-- a: begin -->\n<!-- a: end -->\n<!-- b: begin -->\nold\n<!-- b: end -->\n")
    summary.write_into(page, {"a": "new\n", "b": "newer\n"})
    expected = "old\n<!-- a: begin -->\nnew\n<!-- a: end -->\n<!-- b: begin -->\nnewer\n<!-- b: end -->\n"
    assert page.read_text() == expected


def test_the_results_are_those_of_a_full_run(results: dict):
    assert results["date"] and results["cpu"] and results["versions"]["torch"]
    assert results["scaling"]["clips"][-1] == 64_000
    for model in ("LSTM1", "LSTM2"):
        assert {"ratio_vs_course", "ratio_vs_packed"} <= set(results["training"][model])
    assert "ratio_vs_course" in results["training"]["CNN"]
    assert {"peak_mb_10k", "peak_mb_40k"} <= set(results["preprocessing"])
    assert "ratio_vs_librosa" in results["front_end"]
    assert results["limits"] and results["shares"]


def test_functions_take_turns_and_the_first_round_does_not_count():
    order: list[str] = []
    functions = {name: lambda name=name: order.append(name) for name in "AB"}
    seconds = timing.take_turns(functions, 3)
    assert "".join(order) == "ABABABAB"
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_speed_ups_are_paired_by_round():
    seconds = {"ours": [1.0, 2.0, 4.0], "theirs": [3.0, 10.0, 12.0]}
    assert timing.speed_up(seconds, "ours", "theirs") == {"median": 3.0, "low": 3.0, "high": 5.0}
    assert timing.rates(seconds, 8)["ours"] == {"median": 4.0, "low": 2.0, "high": 8.0}


def test_exponents_of_known_powers():
    assert timing.exponent([10, 100, 1000], [2.0, 20.0, 200.0]) == pytest.approx(1)
    assert timing.exponent([10, 100, 1000], [3.0, 300.0, 30000.0]) == pytest.approx(2)


# Takes 350 MB and frees them. A process that does only this needs less than 150 MB more.
FILLS = "b'x' * (350 << 20)"


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        pytest.param(eval, f"len({FILLS})", id="of the process"),
        pytest.param(subprocess.check_call, [sys.executable, "-c", FILLS], id="of its child"),
    ],
)
def test_peak_memory_counts(function, argument):
    _, peak = timing.in_child(function, argument)
    assert 350 < peak < 500


def test_peak_memory_does_not_count_what_is_taken_at_exit():
    _, peak = timing.in_child(exec, f"import atexit\natexit.register(lambda: {FILLS})")
    assert peak < 150


def test_peak_memory_does_not_count_the_parent():
    filled = bytearray(b"x") * (350 << 20)
    _, peak = timing.in_child(len, "")
    assert len(filled) == 350 << 20
    assert peak < 150


def test_floating_point_operations_by_hand():
    lstm1, cnn = 2 * 512 * (128 + 128), 2 * 9 * 8 * 128 + 2 * 9 * 8 * 16 * 128
    lstm2 = 2 * 2 * 512 * (128 + 128) + 2 * 2 * 512 * (256 + 128)  # two layers, both directions
    assert [forward_flops(model) for model in ("LSTM1", "CNN", "LSTM2")] == [lstm1, cnn, lstm2]
    # Backward: twice the forward pass, less the gradient of the first layer's input.
    assert training_flops("LSTM1") == 3 * lstm1 - 2 * 512 * 128
    assert training_flops("LSTM2") == 3 * lstm2 - 2 * 2 * 512 * 128
    assert training_flops("CNN") == 3 * cnn - 2 * 9 * 8 * 128


def test_repeated_clips_do_not_have_the_same_audio(tmp_path: Path, write_pickle):
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 4000).astype(np.float32)
    write_pickle(tmp_path / "train" / "0.pkl", {"audio_data": audio, "valence": 3.0})
    write_pickle(tmp_path / "train" / "1.pkl", {"audio_data": audio[:3000], "valence": 2.0})
    corpus = work.Repeated(tmp_path, range(7))
    clips = list(corpus)
    assert [clip.waveform.size for clip in clips] == [4000, 3000] * 3 + [4000]
    assert len({digest(clip.waveform) for clip in clips}) == 7
    (last,) = corpus.cut(6, 7)
    assert digest(last.waveform) == digest(clips[6].waveform)
    assert work.longest_clip(tmp_path) == 8
