"""Installation: which build of PyTorch, the sentence where it fails, and the lock file."""

import ast
import importlib.util
import io
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import valence_lib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = [Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line]
TORCH = next(str(pin.specifier)[2:] for pin in LOCKED if pin.name == "torch")
NO_INDEX = "WARNING: Retrying (Retry(total=1)) after connection broken\nERROR: No matching distribution found"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Linux without an NVIDIA driver, an empty folder, and programs that only record how they are called."""
    specification = importlib.util.spec_from_file_location("install", ROOT / "workflow" / "install.py")
    installer = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(installer)
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    machine = SimpleNamespace(
        main=installer.main, commands=[], pip_configuration="", failures={}, uv_output=""
    )

    def run(command, **options):
        machine.commands.append(" ".join(map(str, command)))
        failure = next((text for part, text in machine.failures.items() if part in machine.commands[-1]), "")
        return SimpleNamespace(returncode=bool(failure), stderr=failure, stdout=machine.pip_configuration)

    def popen(command, env, **options):
        machine.commands.append(" ".join(map(str, command)))
        machine.environment = env
        failed = "error" in machine.uv_output
        return SimpleNamespace(stderr=io.StringIO(machine.uv_output), wait=lambda: failed)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1e11))
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO())
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    return machine


def no_answer(url, timeout):
    raise OSError("no route to host")


def fails(machine, wanted="auto"):
    """The sentence with which the installation ends."""
    with pytest.raises(SystemExit) as stopped:
        machine.main(wanted)
    assert re.fullmatch(r"[^\n]+\.", stopped.value.code)
    return stopped.value.code


@pytest.mark.parametrize(
    ("wanted", "driver", "answers", "asked", "printed"),
    [
        (
            "auto",
            False,
            True,
            f"torch=={TORCH}+cpu --extra-index-url",
            "for CPUs, 0.2 GB to download (no NVIDIA",
        ),
        (
            "auto",
            False,
            False,
            f"torch=={TORCH}",
            "ordinary build (no NVIDIA driver was found, but https://down",
        ),
        (
            "auto",
            True,
            True,
            f"torch==={TORCH}",
            "for NVIDIA, 2.5 GB to download (an NVIDIA driver was found)",
        ),
        (
            "cpu",
            True,
            False,
            f"torch=={TORCH}+cpu --extra-index-url",
            "for CPUs, 0.2 GB to download (as asked)",
        ),
        ("cuda", False, True, f"torch==={TORCH}", "for NVIDIA, 2.5 GB to download (as asked)"),
    ],
)
def test_the_build_of_pytorch_suits_the_machine(
    wanted, driver, answers, asked, printed, machine, monkeypatch, capsys
):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if driver else None)
    if not answers:
        monkeypatch.setattr("urllib.request.urlopen", no_answer)
    machine.main(wanted)
    (torch,) = [
        command.split("requirements.lock ")[1] for command in machine.commands if " torch=" in command
    ]
    assert torch.startswith(asked) if "--extra" in asked else torch == asked
    output = capsys.readouterr().out
    assert printed in output
    assert "`make install TORCH=cpu` or `TORCH=cuda` chooses" in output


def test_a_mac_gets_the_only_build(machine, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    machine.main("auto")
    assert any(command.endswith(f" torch=={TORCH}") for command in machine.commands)


@pytest.mark.parametrize(("finished", "made_anew"), [(True, False), (False, True)])
def test_only_an_interrupted_installation_is_made_anew(finished, made_anew, machine):
    library = Path(f".venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
    (library / f"torch-{TORCH}+cpu.dist-info").mkdir(parents=True)
    Path(".venv/bin").mkdir()
    Path(".venv/bin/python").touch()
    if finished:
        Path(".venv/installed").touch()
    machine.main("auto")
    assert any("venv --clear" in command for command in machine.commands) == made_anew
    assert any(" torch=" in command for command in machine.commands) == made_anew
    assert not Path(".venv/installed").exists()  # make writes it when all is done


def test_uv_shows_how_much_is_fetched_and_uses_the_index_of_pip(machine, capsys):
    machine.pip_configuration = (
        ":env:.index-url='https://first.example'\nglobal.index-url='https://second.example'\n"
    )
    machine.uv_output = (
        "Downloading numpy (16.5MiB)\nDownloading scipy (33.5MiB)\n Downloaded numpy\n Downloaded scipy\n"
        "Prepared 2 packages in 1s\n + numpy==2.4.6\n"
    )
    machine.main("auto")
    assert machine.environment["UV_DEFAULT_INDEX"] == "https://first.example"
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert lines == ["  16 of 50 MB  scipy", "  50 of 50 MB", "  Prepared 2 packages in 1s"]


@pytest.mark.parametrize(
    ("part", "output", "sentence"),
    [
        ("uv==", NO_INDEX, "The package index cannot be reached: check the network, then run make again"),
        ("torch", "OSError: [Errno 28] No space left on device", "A disk is full"),
        ("torch", "ERROR: No matching distribution found for torch", "A package is not there for "),
        ("venv", "Error: something else", "The virtual environment cannot be installed: something else"),
    ],
)
def test_a_failure_of_pip_ends_in_one_sentence(part, output, sentence, machine):
    machine.failures[part] = output
    assert fails(machine).startswith(sentence)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (
            "error: Request failed\n  cause: Failed to fetch: `https://x.example/a`\n",
            "https://x.example/a cannot be",
        ),
        (
            "error: Failed to download `numpy`\n  cause: No space left on device (os error 28)\n",
            "A disk is full",
        ),
        ("error: Failed to build `pesq==0.0.4`\n  cause: no compiler\n", "A package is not there for "),
    ],
)
def test_a_failure_of_uv_ends_in_one_sentence(output, sentence, machine):
    machine.uv_output = output
    assert fails(machine).startswith(sentence)


def test_a_disk_that_is_too_small_is_named_before_anything_is_downloaded(machine, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1.5e9))
    assert fails(machine).startswith(f"3.2 GB are needed in {Path.cwd()} and 1.5 GB are free: make room")
    assert fails(machine, "cuda").startswith("7.2 GB are needed")
    assert machine.commands == []


def test_an_unsuitable_python_is_named(machine, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "ensurepip", None)
        assert "has no venv: install it (on Debian python3-venv)" in fails(machine)
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))
    monkeypatch.setattr("platform.python_version", lambda: "3.8.18")
    expected = (
        f"Python 3.11 or newer is needed, and {sys.executable} is 3.8.18: give a newer one, as in `make"
    )
    assert fails(machine).startswith(expected)


def test_old_pythons_can_parse_the_installer():
    ast.parse((ROOT / "workflow" / "install.py").read_text(), feature_version=(3, 7))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("PYTHON=python9", "There is no python9: install Python 3.11"),
        ("TORCH=gpu", "TORCH=gpu was given; expected auto, cpu"),
    ],
)
def test_make_names_what_is_wrong(argument, message, tmp_path):
    for name in ("Makefile", "requirements.lock", "encoder.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(["make", "install", argument], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stdout + done.stderr


# The lock file, and what else has to agree with it


def environment(system, python):
    """What markers are evaluated by."""
    names = {"platform_system": system, "sys_platform": system.lower(), "platform_machine": "x86_64"}
    return {**default_environment(), **names, "python_version": python, "python_full_version": f"{python}.5"}


ENVIRONMENTS = [environment(system, python) for system in ("Linux", "Darwin") for python in ("3.11", "3.13")]


def needed_in(environment):
    """The packages that the project needs, by the metadata of those that are installed here."""
    groups = PROJECT["optional-dependencies"]
    locked_groups = [text for name in ("develop", "encoders", "av") for text in groups[name]]
    waiting = [Requirement(text) for text in PROJECT["dependencies"] + locked_groups]
    found = {}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras | {""}
        if extras <= found.get(name, set()):
            continue
        found[name] = found.get(name, set()) | extras
        try:
            listed = map(Requirement, requires(name) or [])
        except PackageNotFoundError:
            continue
        for other in listed:
            if not other.marker or any(other.marker.evaluate({**environment, "extra": e}) for e in extras):
                waiting.append(other)
    return set(found)


def test_the_lock_file_pins_what_is_needed_and_nothing_else():
    needed = [needed_in(environment) for environment in ENVIRONMENTS]
    for names, environment in zip(needed, ENVIRONMENTS, strict=True):
        pins = {pin.name for pin in LOCKED if not pin.marker or pin.marker.evaluate(environment)}
        assert names - set(map(canonicalize_name, pins)) == set()
    # uv installs; the others belong to packages that only Python 3.13 needs.
    assert {canonicalize_name(pin.name) for pin in LOCKED} - set.union(*needed) <= {
        "uv",
        "audioop-lts",
        "standard-chunk",
    }


def test_the_lock_file_is_what_is_installed_and_within_the_ranges_of_the_project():
    pins = {canonicalize_name(pin.name): pin for pin in LOCKED}
    for pin in LOCKED:
        if not pin.marker or pin.marker.evaluate():
            assert pin.specifier.contains(version(pin.name)), pin.name
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["develop"]:
        requirement = Requirement(text)
        pinned = str(pins[canonicalize_name(requirement.name)].specifier).removeprefix("==")
        assert requirement.specifier.contains(pinned), text


def test_every_dependency_is_imported_or_run():
    """A package that nothing names any more is not installed."""
    run_by_name = {"jupyter", "jupyterlab", "ipykernel", "snakemake", "snakemake-executor-plugin-slurm"}
    run_by_name |= {"openpyxl"}  # by pandas
    modules = {"scikit-learn": "sklearn", "pyyaml": "yaml", "pypandoc-binary": "pypandoc"}
    code = "\n".join(path.read_text() for path in (ROOT / "valence_lib").rglob("*.py"))
    names = {Requirement(text).name for text in PROJECT["dependencies"]} - run_by_name
    imported = {name for name in names if re.search(rf"\b(import|from) {modules.get(name, name)}\b", code)}
    assert names - imported == set()


def test_conda_gets_the_same_set():
    content = (ROOT / "environment.yml").read_text()
    assert "- -r requirements.lock" in content
    assert f">={re.search(r'python=([0-9.]+)', content)[1]}" == PROJECT["requires-python"]


def test_the_version_is_in_one_place():
    assert re.fullmatch(r"\d+\.\d+\.\d+", valence_lib.__version__)
    assert "version" in PROJECT["dynamic"]
    assert not re.search("^version", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)


def test_the_workflow_of_github_follows_its_schema_and_runs_what_ci_runs():
    workflow = ROOT / ".github" / "workflows" / "ci.yml"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, str(workflow)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    linux = workflow.read_text().split("macos:")[0]
    targets = re.findall(r"^(make .+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert re.findall(r"- run: (make .+)", linux) == targets
