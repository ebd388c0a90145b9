"""What a build does again after an edit, with a tiny corpus, in a copy of the project."""

import shutil

import pytest
from project_copy import ALL, NETWORKS, RUNS

CAPTION, OTHER_CAPTION = 'caption=\\"The ten test clips with', 'caption=\\"Ten test clips with'
TEXT, OTHER_TEXT = "This notebook trains one model", "Here one model is trained"
CNN, CNN_SAME, CNN_SMALLER = "nn.Conv2d(1, 8,", "nn.Conv2d(1, 4 + 4,", "nn.Conv2d(1, 6,"
FOLLOWERS = {"leakage", "compare", "error_analysis", "report", "render"}

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("builds")]


def test_a_build_does_what_is_stale_and_nothing_else(project):
    # One test, since every step begins where the one before it ended.
    first = project.artefacts()
    assert {"report.html", "report.pdf", "results.json", "provenance/render.json"} <= set(first)
    assert not [name for name in first if name.endswith("checkpoint.pt")]

    # Modification times, comments, layout and a new preset make nothing stale.
    for path in [
        *project.folder.rglob("*.py"),
        *project.folder.glob("notebooks/*"),
        *project.corpus.iterdir(),
    ]:
        path.touch()
    project.edit(
        "valence_lib/models/cnn.py", "class CNN(ValenceModel):\n", "class CNN(ValenceModel):  # comment\n\n"
    )
    with (project.folder / "valence_lib" / "registry.py").open("a") as file:
        file.write('PRESETS["other"] = {"standardise": "none"}\n')
    assert project.plan() == {}
    assert project.build() == {}
    print(f"a build without anything to do: {project.seconds:.2f} s")

    # A caption belongs to the report alone. Changed back, the earlier result is restored.
    project.edit("notebooks/5_report.ipynb", CAPTION, OTHER_CAPTION)
    assert project.plan() == {"report": "its code changed; its text changed", "render": "after report"}
    assert project.build() == {"executed": {"report", "render"}}
    assert b"Ten test clips with the largest" in project.artefacts()["report.html"]
    project.edit("notebooks/5_report.ipynb", OTHER_CAPTION, CAPTION)
    assert project.build() == {"restored": {"report", "render"}}
    assert project.artefacts() == first

    # Of the models, only the edited one is trained again. Jobs whose inputs come out the same do not run.
    project.edit("valence_lib/models/cnn.py", CNN, CNN_SAME)
    assert project.plan().keys() == {"CNN-course-0", *FOLLOWERS}
    assert project.build() == {
        "executed": {"CNN-course-0", "error_analysis", "report", "render"},
        "up to date": {"leakage", "compare"},
    }
    project.edit("valence_lib/models/cnn.py", CNN_SAME, CNN_SMALLER)
    project.edit("valence_lib/models/cnn.py", "nn.Conv2d(8, 16,", "nn.Conv2d(6, 16,")
    assert project.build() == {"executed": {"CNN-course-0", *FOLLOWERS}}
    assert project.artefacts() != first
    project.edit("valence_lib/models/cnn.py", CNN_SMALLER, CNN)
    project.edit("valence_lib/models/cnn.py", "nn.Conv2d(6, 16,", "nn.Conv2d(8, 16,")
    outcomes = project.build()
    assert {"CNN-course-0", "compare", "report", "render"} <= outcomes["restored"]
    assert "executed" not in outcomes
    assert project.artefacts() == first

    # Edited text between cells is updated in the executed notebooks, without running them.
    project.edit("notebooks/2_experiment.ipynb", TEXT, OTHER_TEXT)
    assert project.build() == {"up to date": ALL - {"preprocess", "report"}, "executed": {"report"}}
    updated = {name: data for name, data in project.artefacts().items() if name.startswith("runs/")}
    assert OTHER_TEXT.encode() in updated["runs/CNN-course-0/2_experiment.ipynb"]

    # The style of figures makes notebooks run again, and no model train again.
    project.edit(
        "valence_lib/report/figures/style.py", 'GREY, PALE = "#666666"', 'GREY, PALE = "#66666" + "6"'
    )
    weights = sorted(project.report.glob("runs/*/best.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    assert project.build()["executed"] >= {"preprocess", *RUNS}
    assert [path.stat().st_mtime_ns for path in weights] == before
    executed = project.artefacts()
    assert {name: executed[name] for name in updated} == updated

    # One more seed trains only that.
    assert project.build("--seeds", "2")["executed"] == {*(f"{name[:-1]}1" for name in NETWORKS), *FOLLOWERS}

    # Changed and missing outputs are replaced.
    results = project.report / "results.json"
    content = results.read_bytes()
    results.write_bytes(content.replace(b"0", b"1"))
    assert "results.json" in project.plan("--seeds", "2")["compare"]
    project.build("--seeds", "2")
    assert results.read_bytes() == content
    (project.report / "runs" / "CNN-course-1" / "best.safetensors").unlink()
    assert project.build("--seeds", "2")["restored"] == {"CNN-course-1"}

    # The corpus and the stored features are inputs, too.
    project.edit("clips/labels.csv", "03.wav,4,", "03.wav,5,")
    assert project.plan("--seeds", "2")["preprocess"] == "corpus changed"
    shutil.rmtree(project.folder / "reports" / ".features")
    project.edit("clips/labels.csv", "03.wav,5,", "03.wav,4,")
    assert "files of the feature store are gone" in project.plan("--seeds", "2")["preprocess"]
    assert project.build("--seeds", "2")["executed"] == {"preprocess"}


def test_a_failing_notebook_keeps_the_report_of_the_build_before(project):
    project.edit("valence_lib/models/cnn.py", "maps.sum(dim=2)", "maps.summ(dim=2)")
    project.edit(
        "valence_lib/models/lstm2.py",
        "class LSTM2(ValenceModel):\n",
        "class LSTM2(ValenceModel):\n    revision = 2\n",
    )
    finished = project.run("report", "--jobs", "2")
    assert finished.returncode == 1
    assert "2_experiment.ipynb failed in cell [" in finished.stdout
    assert "AttributeError" in finished.stdout
    assert "jupyter lab reports/tiny/runs/CNN-course-0/2_experiment.failed.ipynb" in finished.stdout
    assert (project.report / "report.html").is_file()
    project.edit("valence_lib/models/cnn.py", "maps.summ(dim=2)", "maps.sum(dim=2)")
    # What others finished in the failed build is not done again.
    assert "LSTM2-course-0" not in project.build()["executed"]
    assert not list(project.report.rglob("*.failed.ipynb"))
