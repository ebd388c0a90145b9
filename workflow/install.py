"""Install what `requirements.lock` pins into `.venv`, or end with one sentence that says what to do.

    python3 workflow/install.py auto|cpu|cuda

pip installs uv and PyTorch, because users configure pip; uv installs the rest, in a tenth of pip's time.
After an interruption, `.venv` is made again from the caches of both. Only the standard library is used, and
only syntax that an old Python can parse, so that it can print which version is needed.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from subprocess import PIPE

VENV = Path(".venv")
PYTHON = VENV / "bin" / "python"
PIP_INSTALL = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "2"]
STAMP = VENV / "installed"
LOCK = Path("requirements.lock")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
AGAIN = "run make again: what was downloaded is not downloaded again"


def main(wanted):
    """Check the machine, then install in three steps."""
    if sys.version_info < (3, 11):  # noqa: UP036
        version = f"Python 3.11 or newer is needed, and {sys.executable} is {platform.python_version()}"
        sys.exit(f"{version}: give a newer one, as in `make install PYTHON=python3.12`.")
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        sys.exit(f"{sys.executable} has no venv: install it (on Debian python3-venv), then run make again.")
    print(f"Installing into {VENV.absolute()}", flush=True)
    library = VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    whole = STAMP.exists() and PYTHON.exists() and library.exists()
    if whole and wanted == "auto" and installed_torch().split("+")[0] == locked("torch"):
        torch, explanation = [], f"{installed_torch()} is installed"
    else:
        torch, explanation = choose_torch(wanted)
    needed, free = (7.2 if "===" in str(torch) else 3.2), shutil.disk_usage(".").free / 1e9
    if free + gigabytes(VENV) < needed:
        sys.exit(
            f"{needed} GB are needed in {Path.cwd()} and {free:.1f} GB are free: make room, then {AGAIN}."
        )
    if torch:
        run([sys.executable, "-m", "venv", "--clear", VENV], "The virtual environment")
    else:
        STAMP.unlink()
    print("[1/3] uv, which installs the other packages", flush=True)
    run([*PIP_INSTALL, f"uv=={locked('uv')}"], "uv")
    print(f"[2/3] PyTorch: {explanation}; `make install TORCH=cpu` or `TORCH=cuda` chooses", flush=True)
    if torch:
        run([*PIP_INSTALL, "-c", LOCK, *torch], "PyTorch")
    print(f"[3/3] the packages of {LOCK}", flush=True)
    run_uv()
    print(f"Installed {gigabytes(VENV):.1f} GB, with torch {installed_torch()}", flush=True)


def choose_torch(wanted):
    """pip's arguments for the build of PyTorch, and an explanation."""
    ordinary = f"torch=={locked('torch')}"
    if not sys.platform.startswith("linux"):
        return [ordinary], "the only build for this system"
    reason = "as asked"
    if wanted == "auto":
        driver = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists()
        reason = f"{'an' if driver else 'no'} NVIDIA driver was found"
        wanted = "cuda" if driver else "auto"
    if wanted == "cuda":
        # `===` excludes versions with a local label such as +cpu; PyPI's build has none.
        return [f"torch==={locked('torch')}"], f"the build for NVIDIA, 2.5 GB to download ({reason})"
    try:
        if wanted == "auto":
            urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=10).close()
    except OSError:
        return [ordinary], f"the ordinary build ({reason}, but {CPU_INDEX} does not answer)"
    cpu = [f"{ordinary}+cpu", "--extra-index-url", CPU_INDEX]
    return cpu, f"the build for CPUs, 0.2 GB to download ({reason})"


def run(command, what):
    """Run a command, whose standard output shows its progress."""
    done = subprocess.run(command, stderr=PIPE, text=True)
    if done.returncode:
        explain(done.stderr, what)


def run_uv():
    """Install the lock file and, editable, this project, and show how much is downloaded."""
    command = [VENV / "bin" / "uv", "pip", "install", "--python", PYTHON, "--no-deps", "-r", LOCK, "-e", "."]
    # Else each process compiles the packages anew where PYTHONDONTWRITEBYTECODE is set.
    command += ["--compile-bytecode"]
    process = subprocess.Popen(command, stderr=PIPE, text=True, env=uv_environment())
    sizes, fetched, printed = {}, 0.0, ""
    for line in process.stderr:
        printed += line
        size = re.match(r"Downloading (\S+) \(([\d.]+)MiB\)", line)
        if size:
            sizes[size[1]] = float(size[2])
        elif line.startswith(" Downloaded"):
            fetched += sizes.pop(line.split()[1], 0)
            progress = f"  {fetched:.0f} of {fetched + sum(sizes.values()):.0f} MB  {' '.join(sizes)}"
            print(f"{progress[:78]:78}", end="\r" if sys.stdout.isatty() else "\n", flush=True)
        elif line.startswith(("Prepared", "Installed", "Bytecode compiled")):
            print(f"  {line.strip():76}", flush=True)
    if process.wait():
        explain(printed, f"The packages of {LOCK}")


def uv_environment():
    """The environment, with pip's index and certificates where uv has none of its own."""
    listed = subprocess.run([PYTHON, "-m", "pip", "config", "list"], stdout=PIPE, text=True).stdout
    # The first is from the environment, which takes precedence.
    found = dict(reversed(re.findall(r"\.(index-url|cert)='(.+)'$", listed, re.MULTILINE)))
    names = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}
    return {**{names[key]: value for key, value in found.items()}, **os.environ}


def gigabytes(folder):
    """The size of the files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e9


def locked(package):
    """The version of a package in the lock file."""
    return re.search(rf"^{package}==(\S+)", LOCK.read_text(), re.MULTILINE)[1]


def installed_torch():
    """The version of torch in `.venv`, or nothing."""
    return "".join(path.stem[6:] for path in VENV.glob("lib/python*/site-packages/torch-*.dist-info"))


def explain(output, what):
    """Stop with the reason that the output of a tool contains."""
    if "No space left" in output:
        sys.exit(f"A disk is full (here, or of the home or temporary folder): make room, then {AGAIN}.")
    if re.search(r"Retrying \(|Request failed|error sending|Failed to fetch|time(d |)out", output):
        url = re.search("Failed to fetch: `([^`]+)", output)
        sys.exit(
            f"{url[1] if url else 'The package index'} cannot be reached: check the network, then {AGAIN}."
        )
    reason = (re.findall("(?im)^error: (.+)", output) or output.split("\n"))[-1]
    if re.search("Failed to build|No matching distribution", output):
        system = f"{platform.platform()} with Python {platform.python_version()}"
        sys.exit(f"A package is not there for {system} ({reason}): use Linux or a Mac with Apple silicon.")
    sys.exit(f"{what} cannot be installed: {reason}.")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(f"Interrupted; to finish the installation, {AGAIN}.")
