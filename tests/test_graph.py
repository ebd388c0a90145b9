"""What a build does again: counted notebooks on a tiny corpus, in a copy of the project that the test edits."""

import re
import shutil
import time

import pytest
from project_copy import ALL, RUNS, SEEDED, Project, make_corpus

CAPTION, OTHER_CAPTION = 'caption=\\"The ten tested clips with', 'caption=\\"Ten tested clips with'

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    folder = tmp_path_factory.mktemp("graph")
    return Project(folder / "project", make_corpus(folder / "clips"))


def test_a_build_does_what_is_stale_and_nothing_else(project):
    # One test, since every step begins where the one before it ended.
    assert project.plan() == dict.fromkeys(ALL, "not finished yet")
    assert project.build() == {"executed": ALL}
    first = project.artefacts()
    assert {"report.html", "report.pdf", "results.json", "provenance/render.json"} <= set(first)
    assert not [name for name in first if name.endswith("last.safetensors")]

    # Nothing to do: touched files are as they were.
    for path in [
        *project.folder.rglob("*.py"),
        *project.folder.glob("notebooks/*"),
        *project.corpus.iterdir(),
    ]:
        path.touch()
    assert project.plan() == {}
    began = time.monotonic()
    assert project.build() == {}
    print(f"a build without anything to do: {time.monotonic() - began:.2f} s")

    # Comments, docstrings and layout are no code.
    project.edit(
        "valence_lib/models/cnn.py", "class CNN(nn.Module):\n", "class CNN(nn.Module):  # convolutional\n\n"
    )
    assert project.plan() == {}

    # A caption is the report's alone.
    project.edit("notebooks/5_report.ipynb", CAPTION, OTHER_CAPTION)
    assert project.plan() == {"report": "its code changed; its text changed", "render": "after report"}
    assert project.build() == {"executed": {"report", "render"}}
    assert b"Ten tested clips with the largest" in project.artefacts()["report.html"]

    # Changed back, the earlier result is restored.
    project.edit("notebooks/5_report.ipynb", OTHER_CAPTION, CAPTION)
    assert project.build() == {"restored": {"report", "render"}}
    assert project.artefacts() == first

    # Of the models, only the one that changed is trained again.
    project.edit("valence_lib/models/cnn.py", "nn.Conv2d(1, 8,", "nn.Conv2d(1, 4 + 4,")
    followers = {"leakage", "compare", "error_analysis", "report", "render"}
    assert project.plan().keys() == {"CNN-default-0", "CNN-seed-0", *followers}
    done = project.build()
    assert done["executed"] == {*followers, "CNN-default-0", "CNN-seed-0"} - {"leakage", "compare"}
    # It came to the same numbers, so that what reads only numbers had nothing to do.
    assert done["up to date"] == {"leakage", "compare"}
    project.edit("valence_lib/models/cnn.py", "nn.Conv2d(1, 4 + 4,", "nn.Conv2d(1, 6,")
    project.edit("valence_lib/models/cnn.py", "nn.Conv2d(8, 16,", "nn.Conv2d(6, 16,")
    assert project.build() == {"executed": {"CNN-default-0", "CNN-seed-0", *followers}}
    assert project.artefacts() != first
    project.edit("valence_lib/models/cnn.py", "nn.Conv2d(1, 6,", "nn.Conv2d(1, 8,")
    project.edit("valence_lib/models/cnn.py", "nn.Conv2d(6, 16,", "nn.Conv2d(8, 16,")
    done = project.build()
    assert {"CNN-default-0", "CNN-seed-0", "compare", "report", "render"} <= done["restored"]
    assert "executed" not in done
    assert project.artefacts() == first

    # What is written between the cells is told anew, without running them.
    project.edit(
        "notebooks/2_experiment.ipynb", "This notebook trains one model", "Here is trained one model"
    )
    assert project.build() == {"up to date": ALL - {"preprocess", "report"}, "executed": {"report"}}
    told = project.artefacts()
    assert b"Here is trained one model" in told["runs/CNN-default-0/2_experiment.ipynb"]
    shutil.rmtree(project.folder / "reports")
    assert project.build() == {"executed": ALL}
    assert project.artefacts() == told  # as if it had been executed
    project.edit(
        "notebooks/2_experiment.ipynb", "Here is trained one model", "This notebook trains one model"
    )
    project.build()
    assert project.artefacts() == first

    # A new model or preset, or how a figure looks, trains nothing again.
    project.edit("valence_lib/figures.py", 'GREY, PALE = "#666666"', 'GREY, PALE = "#666665"')
    (project.folder / "valence_lib" / "registry.py").open("a").write(
        'PRESETS["other"] = {"standardise": "none"}\n'
    )
    trained = {name: data for name, data in first.items() if name.endswith("best.safetensors")}
    before = {name: (project.report / name).stat().st_mtime_ns for name in trained}
    assert project.build()["executed"] >= {"preprocess", *RUNS}
    assert {name: (project.report / name).stat().st_mtime_ns for name in trained} == before

    # One more seed trains only that.
    done = project.build("--seeds", "2")
    assert done["executed"] == {*(name[:-1] + "1" for name in SEEDED), *followers}

    # What is not what a job left is put right.
    results = project.report / "results.json"
    content = results.read_bytes()
    results.write_bytes(content.replace(b"0", b"1"))
    assert "results.json is not what it left" in project.plan("--seeds", "2")["compare"]
    project.build("--seeds", "2")
    assert results.read_bytes() == content
    (project.report / "runs" / "CNN-seed-1" / "best.safetensors").unlink()
    assert project.build("--seeds", "2")["restored"] == {"CNN-seed-1"}

    # Another corpus under the same name of file.
    project.edit("../clips/labels.csv", "03.wav,4,", "03.wav,5,")
    assert project.plan("--seeds", "2")["preprocess"] == "corpus changed"
    shutil.rmtree(project.folder / "reports" / ".features")
    project.edit("../clips/labels.csv", "03.wav,5,", "03.wav,4,")
    assert "files of the feature store are gone" in project.plan("--seeds", "2")["preprocess"]
    assert project.build("--seeds", "2")["executed"] == {"preprocess"}


def test_a_failing_notebook_keeps_what_others_finish(project):
    project.build()
    project.edit("valence_lib/models/cnn.py", "maps.sum(dim=2)", "maps.summ(dim=2)")
    finished = project.valence("report", "--jobs", "2")
    assert finished.returncode != 0
    said = finished.stdout + finished.stderr
    assert "2_experiment.ipynb failed in cell [" in said
    assert "AttributeError" in said
    assert re.search(r"jupyter lab reports/tiny/runs/CNN-default-0/2_experiment\.failed\.ipynb", said)
    assert (project.report / "runs" / "LSTM2-default-0" / "best.safetensors").is_file()
    assert (project.report / "report.html").is_file()  # of the build before
    project.edit("valence_lib/models/cnn.py", "maps.summ(dim=2)", "maps.sum(dim=2)")
    project.build()
    assert not list(project.report.rglob("*.failed.ipynb"))
