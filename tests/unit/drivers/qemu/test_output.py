"""Files that what machines write goes into, and that do not grow beyond a limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostel.drivers.qemu.output import writer
from hostel.drivers.qemu.output.sinks import Limits
from hostel.drivers.store import Directories
from hostel.errors import VirtError


def write(path: Path, *chunks: bytes, limit: int, backups: int) -> dict[str, bytes]:
    """Write chunks one after the other; the files that are there then."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        found = writer.RotatingFile(file, str(path), limit, backups)
        for chunk in chunks:
            found.write(chunk)
    finally:
        os.close(file)
    return {item.name: item.read_bytes() for item in sorted(path.parent.iterdir())}


def test_full_file_makes_room_for_a_new_one(tmp_path: Path) -> None:
    found = write(tmp_path / "log", *(b"%05d" % number for number in range(9)), limit=10, backups=2)
    assert found == {"log": b"00008", "log.0": b"0000600007", "log.1": b"0000400005"}


def test_lines_are_not_cut_where_one_ends_before_the_limit(tmp_path: Path) -> None:
    found = write(tmp_path / "log", b"one\ntwo\nthree\n", limit=10, backups=3)
    assert found == {"log": b"three\n", "log.0": b"one\ntwo\n"}
    assert [len(text) for text in write(tmp_path / "log", b"x" * 25, limit=10, backups=3).values()] == [1, 10, 10, 10]


def test_what_others_append_counts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a line that is longer than the limit\n")
    assert write(path, b"new", limit=10, backups=1) == {
        "log": b"new",
        "log.0": b"a line that is longer than the limit\n",
    }


def test_without_older_files_the_newest_text_stays(tmp_path: Path) -> None:
    assert write(tmp_path / "log", b"12345", b"67890", b"x", limit=10, backups=0) == {"log": b"x"}


def test_no_limit_and_no_file_never_make_room(tmp_path: Path) -> None:
    assert write(tmp_path / "log", b"12345", b"67890", b"x", limit=0, backups=3) == {"log": b"1234567890x"}
    os.mkfifo(tmp_path / "pipe")
    reads = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_end = os.open(tmp_path / "pipe", os.O_WRONLY)
        writer.RotatingFile(write_end, str(tmp_path / "pipe"), 3, 3).write(b"12345")
        os.close(write_end)
        assert os.read(reads, 100) == b"12345"
    finally:
        os.close(reads)
    assert sorted(os.listdir(tmp_path)) == ["log", "pipe"]


def test_text_that_the_host_has_no_room_for_is_dropped() -> None:
    file = os.open("/dev/full", os.O_WRONLY)
    try:
        writer.RotatingFile(file, "/dev/full", 0, 0).write(b"text")
    finally:
        os.close(file)


def test_pipes_are_copied_until_the_last_has_ended(tmp_path: Path) -> None:
    words = ["100", "1"]
    for name in ("a", "b"):
        reads, writes = os.pipe()
        file = os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(writes, f"of {name}".encode())
        os.close(writes)
        words += [str(reads), str(file), str(tmp_path / name)]
    writer.main(words)
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["of a", "of b"]


def test_limits_are_those_of_virtlogd(tmp_path: Path) -> None:
    directories = Directories.under(tmp_path)
    directories.config.mkdir()
    assert Limits.read(directories) == (2 << 20, 3)
    (directories.config / "virtlogd.conf").write_text("max_size = 4096\nmax_backups = 0\n")
    assert Limits.read(directories) == (4096, 0)
    (directories.config / "virtlogd.conf").write_text("max_backups = 33\n")
    with pytest.raises(VirtError, match="Max backup 33 must be less than or equal to 32"):
        Limits.read(directories)
