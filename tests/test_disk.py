"""Files that are written whole or not at all, and locks."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ppnmf import disk


def full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_file_is_replaced_whole_or_not_at_all(step, tmp_path, monkeypatch):
    path = disk.write_text(tmp_path / "a.txt", "before")
    with monkeypatch.context() as patch:
        patch.setattr(f"os.{step}", full)
        sentence = "a.txt cannot be written: the disk is full .*free some space.*; the file that was there is as it was"
        with pytest.raises(OSError, match=sentence) as caught:
            disk.write_text(path, "after")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    assert disk.write_text(path, "after").read_text() == "after" and list(tmp_path.iterdir()) == [path]


def test_any_exception_leaves_what_was_there(tmp_path):
    path = disk.write_text(tmp_path / "a.txt", "before")
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), disk.replacing(path) as file:
            file.write(b"half")
            raise error
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_link_and_a_file_s_permissions_stay(tmp_path):
    path = disk.write_text(tmp_path / "a.txt", "before")
    path.chmod(0o640)
    (tmp_path / "link").symlink_to(path)
    disk.write_text(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink() and path.read_text() == "after" and path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["a.xlsx", "a.NC", "a.json", "a.csv.gz", "a.tsv.XZ"])
def test_a_table_has_no_other_file_s_name(name, tmp_path):
    with pytest.raises(ValueError, match=r"end its name in .csv or .parquet"):
        disk.write_table(tmp_path / name, ["a"], [[1]])
    assert not list(tmp_path.iterdir())


def test_a_table_is_what_its_name_says(tmp_path):
    rows = [[1.0, 2.0]]
    assert disk.write_table(tmp_path / "a.tsv", ["a", "b"], rows).read_text().splitlines() == ["a\tb", "1.0\t2.0"]
    assert disk.write_table(tmp_path / "a.csv", ["a", "b"], rows).read_text().splitlines() == ["a,b", "1.0,2.0"]
    assert disk.write_table(tmp_path / "a.PARQUET", ["a", "b"], rows).read_bytes().startswith(b"PAR1")
    with pytest.raises(ValueError, match=r"several columns are named 'a', which Parquet cannot tell apart: write .csv"):
        disk.write_table(tmp_path / "b.parquet", ["a", "b", "a"], [[1, 2, 3]])


def test_what_cannot_be_written_is_known_before_and_nothing_is_left(tmp_path, monkeypatch):
    disk.try_to_write(tmp_path / "a.nc")
    disk.try_folder(tmp_path / "new" / "newer")
    (tmp_path / "ppnmf").mkdir()  # as in a clone of the repository
    disk.try_folder(tmp_path / "new" / "newer")
    with pytest.raises(FileNotFoundError, match=r"b.nc cannot be written: there is no folder .*nowhere"):
        disk.try_to_write(tmp_path / "nowhere" / "b.nc")
    with pytest.raises(IsADirectoryError, match="cannot be written: Is a directory"):
        disk.try_to_write(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="folder cannot be written: there is no folder"):
        disk.try_folder(tmp_path / "file" / "folder")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write to everything
    with pytest.raises(PermissionError, match="file cannot be written: Permission denied"):
        disk.try_to_write(tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "ppnmf"} and not list((tmp_path / "ppnmf").iterdir())


def test_unfinished_files_go_with_the_process(tmp_path):
    with disk.replacing(tmp_path / "a.txt") as file:
        file.write(b"half")
        assert len(list(tmp_path.iterdir())) == 1
        disk.remove_unfinished()
        assert not list(tmp_path.iterdir())
        (tmp_path / "a.txt.new").touch()
        os.replace(tmp_path / "a.txt.new", file.name)  # so that the block can end


HOLD = """
import sys, pathlib
from ppnmf import disk
lock = disk.Lock(pathlib.Path(sys.argv[1]))
assert lock.take()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
    lock = disk.Lock(tmp_path / "lock")
    environment = {**os.environ, "PYTHONPATH": str(Path(disk.__file__).parents[1])}
    command = [sys.executable, "-c", HOLD, lock.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout.readline() == b"held\n"
        assert not lock.take()
        other.kill()
    assert lock.take()
    assert not disk.Lock(lock.path).take()
    lock.give_back()
    assert not lock.path.exists() and lock.take()
    lock.give_back()


def test_a_lock_that_was_given_back_while_it_was_waited_for_is_taken_anew(tmp_path, monkeypatch):
    first, second = disk.Lock(tmp_path / "lock"), disk.Lock(tmp_path / "lock")
    assert first.take()
    flock, calls = disk.fcntl.flock, []

    def late(*args):
        if not calls:
            first.give_back()  # its file goes, and the second has opened it
        calls.append(args)
        flock(*args)

    monkeypatch.setattr(disk.fcntl, "flock", late)
    assert second.take() and len(calls) == 2 and second.path.exists()
    second.give_back()
