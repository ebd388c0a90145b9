"""Files appear whole or not at all."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from valence_lib import files
from valence_lib.files import source_digest, stamp_of, write_json, written_whole


def test_a_file_appears_when_the_block_has_ended(tmp_path: Path):
    destination = tmp_path / "new" / "folder" / "table.csv"
    with written_whole(destination) as path:
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
    with written_whole(destination) as path:
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
        with written_whole(destination) as path:
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
    with pytest.raises(FileNotFoundError), written_whole(destination):
        pass
    assert destination.read_text() == "old"


def test_a_process_killed_while_it_writes_leaves_what_stood_there(tmp_path: Path):
    destination = tmp_path / "table.csv"
    destination.write_text("old")
    source = (
        "import sys, time; from pathlib import Path; from valence_lib.files import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as path:\n"
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
    with written_whole(destination) as path:
        path.write_text("new")
    assert destination.read_text() == "new"


def test_two_processes_may_write_the_same_file(tmp_path: Path):
    destination = tmp_path / "table.csv"
    source = (
        "import sys, time; from pathlib import Path; from valence_lib.files import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as path:\n"
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
        with written_whole(destination) as path:
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


def test_the_source_digest_is_of_the_package_s_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = source_digest()
    assert len(own) == 64
    assert int(own, 16) >= 0
    assert source_digest() == own
    for path in Path(files.__file__).parent.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(files, "__file__", str(tmp_path / "files.py"))
    assert source_digest() == own  # wherever the clone lies, and whenever it was made
    (tmp_path / "notes.txt").write_text("no code")
    assert source_digest() == own
    module = tmp_path / "metrics.py"
    code = module.read_text()
    module.write_text(code + "# changed\n")
    assert source_digest() != own
    module.write_text(code)
    assert source_digest() == own
    module.rename(tmp_path / "metrics_.py")  # in the same place among the others
    assert source_digest() != own


def test_a_stamp_changes_with_every_file_below_and_with_nothing_else(tmp_path: Path):
    folder = tmp_path / "corpus"
    (folder / "train").mkdir(parents=True)
    first, second = folder / "labels.csv", folder / "train" / "a.pkl"
    first.write_text("file,valence")
    second.write_bytes(b"abc")
    stamp = stamp_of(folder)
    seen = [stamp]
    assert len(stamp) == 64
    assert stamp_of(folder) == stamp
    second.read_bytes()
    (tmp_path / "beside").write_text("not of the corpus")
    assert stamp_of(folder) == stamp
    second.write_bytes(b"abcd")
    seen.append(stamp_of(folder))
    os.utime(second, ns=(1, 2_000_000_000))  # the same size, changed at another time
    seen.append(stamp_of(folder))
    (folder / "train" / "b.pkl").write_bytes(b"new")
    seen.append(stamp_of(folder))
    (folder / "train" / "b.pkl").rename(folder / "train" / "c.pkl")
    seen.append(stamp_of(folder))
    first.unlink()
    seen.append(stamp_of(folder))
    assert len(set(seen)) == len(seen)
    shutil.move(folder, tmp_path / "moved")
    assert stamp_of(tmp_path / "moved") == seen[-1]  # of names below the folder, and not of where it lies


def test_a_stamp_of_one_file(tmp_path: Path):
    path = tmp_path / "all.pkl"
    path.write_bytes(b"abc")
    stamp = stamp_of(path)
    (tmp_path / "beside").write_text("another")
    assert stamp_of(path) == stamp
    path.write_bytes(b"abcd")
    assert stamp_of(path) != stamp
