"""A Slurm cluster of two nodes on this machine, on the loopback interface, in one temporary folder.

    python tests/slurm_cluster.py COMMAND ...    run a command on it

Its daemons end with this process, however it ends.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from valence_lib.workflow.forkserver import end_with_parent

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
NODES = ("n1", "n2")
# Debian installs daemons in folders that are not on every user's path.
_PATH = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdSpoolDir={folder}/spool.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.txt
# Without control groups, Slurm measures the memory of jobs every second and kills those above their limit.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=UsePss,OverMemoryKill
JobAcctGatherFrequency=task=1
MpiDefault=none
ReturnToService=2
MinJobAge=3600
KillWait=2
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory={memory}
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory={memory}
PartitionName=main Nodes=ALL Default=YES
"""


class NoSlurm(Exception):  # noqa: N818 (a reason to skip tests)
    """Slurm is not installed or cannot run here."""


@dataclass(frozen=True)
class Job:
    """A job as squeue lists it."""

    number: str
    state: str
    comment: str  # from Snakemake, such as rule_experiment_wildcards_CNN-course-0
    name: str
    node: str
    memory: str  # requested, such as 1500M


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which Slurm's commands use this cluster."""
        inherited = {
            name: text for name, text in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))
        }
        path = f"{self.folder}/bin:{_PATH}"
        return inherited | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def run(self, *command: str) -> str:
        """Run one of Slurm's commands; its output."""
        finished = subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=60
        )
        return finished.stdout

    def jobs(self) -> list[Job]:
        """All jobs, also ended ones, in the order of their submission."""
        listed = self.run("squeue", "--noheader", "--states=all", "--format=%i|%T|%k|%j|%N|%m")
        jobs = [Job(*(part.strip() for part in line.split("|"))) for line in listed.splitlines()]
        return sorted(jobs, key=lambda job: int(job.number))

    def left(self) -> list[Job]:
        """Jobs that have not ended."""
        active = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING")
        return [job for job in self.jobs() if job.state in active]

    def completed(self) -> list[str]:
        """One line per ended job, from Slurm's accounting file."""
        path = self.folder / "jobcomp.txt"
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


@contextmanager
def running() -> Iterator[Cluster]:
    """A cluster while the block runs.

    Raises:
        NoSlurm: it is not installed or does not start; with the end of its daemons' output.
    """
    if absent := [name for name in PROGRAMS if not shutil.which(name, path=_PATH)]:
        raise NoSlurm(f"{', '.join(absent)} not found; install Debian's packages slurm-wlm and munge")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: it holds a socket
    cluster = Cluster(folder)
    daemons: list[subprocess.Popen] = []
    try:
        _prepare(folder)
        for command in _commands(folder):
            daemons.append(_start(command, cluster))
        _wait_until_idle(cluster, daemons)
        yield cluster
    finally:
        _stop(cluster, daemons)
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(folder: Path) -> None:
    folder.chmod(0o755)  # munged requires it
    for name in ("state", "bin", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir()
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(
            folder=folder, user=getpass.getuser(), ports=_free_ports(3), memory=min(8000, memory * 3 // 4)
        )
    )
    # Within a job, Snakemake's executor calls srun without the variable that names the cluster.
    wrapper = folder / "bin" / "srun"
    real = shutil.which("srun", path=_PATH)
    wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {real} "$@"\n')
    wrapper.chmod(0o755)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _commands(folder: Path) -> list[list[str]]:
    munged = ["munged", "--foreground", f"--key-file={folder}/key", f"--socket={folder}/munge.socket"]
    munged += [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
    return [munged, ["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in NODES)]


def _start(command: list[str], cluster: Cluster) -> subprocess.Popen:
    with (cluster.folder / f"{command[0]}.out").open("ab") as output:
        return subprocess.Popen(
            command,
            env=cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=partial(end_with_parent, os.getpid()),
            process_group=0,  # Ctrl-C does not reach it
        )


def _wait_until_idle(cluster: Cluster, daemons: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and all(daemon.poll() is None for daemon in daemons):
        with suppress(subprocess.SubprocessError):
            if len(cluster.run("sinfo", "--noheader", "--Node", "--states=idle").splitlines()) == len(NODES):
                return
        time.sleep(0.3)
    outputs = [path.read_text(errors="replace")[-1500:] for path in sorted(cluster.folder.glob("*.out"))]
    raise NoSlurm("its daemons do not start here:\n" + "\n".join(outputs))


def _stop(cluster: Cluster, daemons: list[subprocess.Popen]) -> None:
    with suppress(subprocess.SubprocessError, OSError):
        if len(daemons) > 1 and (left := cluster.left()):
            cluster.run("scancel", *(job.number for job in left))
            deadline = time.monotonic() + 20
            while cluster.left() and time.monotonic() < deadline:
                time.sleep(0.3)
    for daemon in reversed(daemons):
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    for process in _left_over(cluster.folder):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _left_over(folder: Path) -> list[int]:
    """Processes whose environment names this cluster's configuration."""
    mark = f"SLURM_CONF={folder}/slurm.conf\0".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    with running() as started:
        sys.exit(subprocess.run(sys.argv[1:], env=started.environment).returncode)
