"""Files appear whole or not at all."""

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from valence_lib import files
from valence_lib.files import atomic_write, digest_of_files, remove_orphans, write_json


def test_a_file_appears_when_the_block_has_ended(tmp_path: Path):
    destination = tmp_path / "new" / "folder" / "table.csv"
    with atomic_write(destination) as path:
        path.write_text("a,b\n")
        assert not destination.exists()
        assert path.parent == destination.parent  # on one file system, where renaming is atomic
        assert path.suffix == ".csv"  # by which numpy and matplotlib choose the format
        assert path.name.startswith(".")
    assert destination.read_text() == "a,b\n"
    assert list(destination.parent.iterdir()) == [destination]


def test_what_stood_there_is_replaced_only_in_the_end(tmp_path: Path):
    destination = tmp_path / "table.csv"
    destination.write_text("old")
    with atomic_write(destination) as path:
        path.write_text("new")
        assert destination.read_text() == "old"
    assert destination.read_text() == "new"


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_changes_nothing(tmp_path: Path, old: str | None, error: type[BaseException]):
    destination = tmp_path / "table.csv"
    if old:
        destination.write_text(old)

    def write_half() -> None:
        with atomic_write(destination) as path:
            path.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == (["table.csv"] if old else [])
    if old:
        assert destination.read_text() == old


def test_a_block_that_writes_nothing_is_an_error_and_changes_nothing(tmp_path: Path):
    destination = tmp_path / "table.csv"
    destination.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(destination):
        pass
    assert destination.read_text() == "old"


def test_a_process_killed_while_it_writes_leaves_what_stood_there(tmp_path: Path):
    destination = tmp_path / "table.csv"
    destination.write_text("old")
    source = (
        "import sys, time; from pathlib import Path; from valence_lib.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as path:\n"
        "    path.write_text('half')\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", source, str(destination)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
    assert destination.read_text() == "old"
    with atomic_write(destination) as path:
        path.write_text("new")
    assert destination.read_text() == "new"


def test_two_processes_may_write_the_same_file(tmp_path: Path):
    destination = tmp_path / "table.csv"
    source = (
        "import sys, time; from pathlib import Path; from valence_lib.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as path:\n"
        "    path.write_text('theirs')\n"
        "    print('written', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", source, str(destination)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        with atomic_write(destination) as path:
            path.write_text("ours")
        assert destination.read_text() == "ours"
    finally:
        writer.communicate()
    assert writer.returncode == 0
    assert destination.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [destination]


def test_json_is_indented_utf_8_with_a_last_newline(tmp_path: Path):
    content = {"title": "Følelser", "values": [1, 2.5], "b": None, "a": True}
    write_json(tmp_path / "new" / "results.json", content)
    raw = (tmp_path / "new" / "results.json").read_bytes()
    assert json.loads(raw) == content
    assert list(json.loads(raw)) == list(content)
    assert "Følelser".encode() in raw
    assert raw.endswith(b"\n}\n")
    assert raw.count(b"\n") > 5
    write_json(tmp_path / "again.json", content)
    assert (tmp_path / "again.json").read_bytes() == raw


@pytest.mark.parametrize("content", [{"ccc": math.nan}, [math.inf], {"a": {1, 2}}, {"path": Path("x")}])
def test_what_json_cannot_say_is_refused_and_changes_nothing(tmp_path: Path, content: object):
    destination = tmp_path / "results.json"
    destination.write_text("{}")
    with pytest.raises((ValueError, TypeError)):
        write_json(destination, content)
    assert destination.read_text() == "{}"
    assert list(tmp_path.iterdir()) == [destination]


def _digest(*files: tuple[str, bytes]) -> str:
    """By hand: SHA-256 of the lines "name digest"."""
    text = "\n".join(f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in files)
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_digest_of_files_is_of_names_and_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, notes = tmp_path / "corpus", tmp_path / "notes.json"
    (folder / "train").mkdir(parents=True)
    first, second = folder / "labels.csv", folder / "train" / "a.pkl"
    first.write_bytes(b"file,valence")
    second.write_bytes(b"abc")
    read: list[Path] = []
    digest_of = files.digest_of
    monkeypatch.setattr(files, "digest_of", lambda path: (read.append(path), digest_of(path))[1])
    digest = _digest(("labels.csv", b"file,valence"), ("train/a.pkl", b"abc"))
    assert digest_of_files([first, second], folder) == digest
    assert digest_of_files([second, first], folder, notes) == digest
    read.clear()
    assert digest_of_files([first, second], folder, notes) == digest
    assert read == []  # the size and the times of change are known
    os.utime(second, ns=(1, 2_000_000_000))
    assert digest_of_files([first, second], folder, notes) == digest
    assert read == [second]
    stamp = second.stat()
    second.write_bytes(b"abd")
    os.utime(second, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as a copy with its times does
    changed = _digest(("labels.csv", b"file,valence"), ("train/a.pkl", b"abd"))
    assert digest_of_files([first, second], folder, notes) == changed
    notes.write_text("{")  # of a disk that was full
    shutil.move(folder, tmp_path / "moved")
    moved = [tmp_path / "moved" / path.relative_to(folder) for path in (first, second)]
    assert digest_of_files(moved, tmp_path / "moved", notes) == changed
    # A file outside of the folder counts too, and one that is not there as such.
    outside = tmp_path / "b.wav"
    without = digest_of_files([*moved, outside], tmp_path / "moved", notes)
    outside.write_bytes(b"x")
    assert len({changed, without, digest_of_files([*moved, outside], tmp_path / "moved", notes)}) == 3


def test_the_digest_of_a_file_is_its_sha_256(tmp_path: Path):
    path = tmp_path / "all.pkl"
    path.write_bytes(b"abc")
    # The example of FIPS 180-4.
    assert files.digest_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_a_kill_leaves_of_a_file_is_removed_and_nothing_else(tmp_path: Path):
    program = f"""if True:
        import os, signal
        from pathlib import Path
        from valence_lib.files import atomic_write
        with atomic_write(Path({str(tmp_path)!r}) / "deep" / "a.csv") as path:
            path.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", program])
    (tmp_path / ".lock").touch()
    (tmp_path / "b.partial.csv").touch()
    (tmp_path / ".c.another-machine.1234567.partial.csv").touch()
    assert len(list((tmp_path / "deep").iterdir())) == 1
    with atomic_write(tmp_path / "d.csv") as path:  # at work
        path.touch()
        remove_orphans(tmp_path)
    left = sorted(p.name for p in tmp_path.rglob("*"))
    assert left == [".c.another-machine.1234567.partial.csv", ".lock", "b.partial.csv", "d.csv", "deep"]


@pytest.fixture
def short() -> Iterator[Path]:
    """A temporary folder whose path is short enough for sockets, as the system's is."""
    with TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        yield Path(folder)


def test_what_a_kill_leaves_in_the_system_s_folder_is_removed(short: Path):
    program = """if True:
        import os, signal
        from valence_lib.files import temporary_folder
        with temporary_folder():
            os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = os.environ | {"TMPDIR": str(short)}
    subprocess.run([sys.executable, "-c", program], env=environment)
    assert len(list(short.iterdir())) == 1
    sweep = "from pathlib import Path; from valence_lib.files import *; remove_orphans(Path('nowhere'))"
    subprocess.run([sys.executable, "-c", sweep], env=environment, check=True)
    assert list(short.iterdir()) == []


def test_sockets_find_a_place_whatever_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(files, "gettempdir", lambda: str(long))
    with files.temporary_folder() as folder:
        assert len(folder) < 60


def test_names_that_are_not_utf_8_are_digested_and_noted(tmp_path: Path):
    strange = tmp_path / os.fsdecode(b"gl\xfcck.wav")
    strange.write_bytes(b"1")
    notes = tmp_path / "notes.json"
    digest = digest_of_files([strange], tmp_path, notes)
    assert "\\udcfc" in notes.read_text(encoding="utf-8")
    assert list(json.loads(notes.read_text(encoding="utf-8"))) == [strange.name]
    assert digest_of_files([strange], tmp_path, notes) == digest
    strange.write_bytes(b"2")
    assert digest_of_files([strange], tmp_path, notes) != digest
