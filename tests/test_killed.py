"""`kill -9` at random moments of `make report`, then `make report`: the results of an undisturbed build."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOMENTS = 5
REPORT = ["make", "report", "EPOCHS=2", "SEEDS=1"]


def report(name: str) -> list[str]:
    return [*REPORT, f"NAME={name}"]


def start(name: str, log: Path) -> subprocess.Popen:
    with log.open("ab") as output:
        return subprocess.Popen(report(name), cwd=ROOT, stdout=output, stderr=output, start_new_session=True)


@pytest.fixture
def names():
    """Two reports that are gone afterwards."""
    made = [f"test-{kind}-{os.getpid()}" for kind in ("undisturbed", "killed")]
    yield made
    for name in made:
        shutil.rmtree(ROOT / "reports" / name, ignore_errors=True)


@pytest.mark.slow
def test_a_killed_build_ends_in_the_results_of_an_undisturbed_one(names, tmp_path):
    undisturbed, killed = names
    began = time.monotonic()
    subprocess.run(report(undisturbed), cwd=ROOT, check=True, capture_output=True)
    duration = time.monotonic() - began
    generator = random.Random(time.time_ns())
    # Pieces of an undisturbed build: each build goes on where the last one was cut off.
    moments = [generator.uniform(1.0, 2 * duration / (MOMENTS + 1)) for _ in range(MOMENTS)]
    print(f"undisturbed: {duration:.0f} s; killed after {', '.join(f'{moment:.1f}' for moment in moments)} s")
    for moment in moments:
        process = start(killed, tmp_path / "log")
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    # The last time make alone is killed, and what it had started has to end with it.
    process = start(killed, tmp_path / "log")
    time.sleep(4)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)
    finished = subprocess.run(report(killed), cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr + (tmp_path / "log").read_text()
    results = [(ROOT / "reports" / name / "results.json").read_bytes() for name in names]
    assert results[0] == results[1]
    weights = [sorted((ROOT / "reports" / name / "runs").glob("*/best.safetensors")) for name in names]
    assert [path.read_bytes() for path in weights[0]] == [path.read_bytes() for path in weights[1]]
    assert (ROOT / "reports" / killed / "report.pdf").read_bytes().startswith(b"%PDF")
