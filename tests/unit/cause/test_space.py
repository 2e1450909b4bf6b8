"""Full, read-only and limited: what of this host is in the way."""

from __future__ import annotations

import errno
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import creating
from hostel.block.powers import Preallocation
from hostel.cause import explain
from hostel.cause.mount import mount_of
from hostel.errors import BlockError
from support.small_disk import small_disk


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    with small_disk(tmp_path / "a b", 1 << 20) as mounted:
        yield mounted.folder


def test_full_file_system_is_named_and_what_is_missing(small: Path) -> None:
    with (
        creating.create(str(small / "disk")) as node,
        pytest.raises(BlockError, match="Could not preallocate new data") as caught,
    ):
        node.resize(5 << 20, Preallocation.FALLOC)
    assert caught.value.hint == (
        f"The file system of '{small}/disk' (tmpfs on '{small}') has 1 MiB, of which 1 MiB are free: "
        "at least 4 MiB more are needed."
    )


def test_read_only_mount_is_named(small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with pytest.raises(BlockError, match="Read-only file system") as caught:
        creating.create(str(small / "disk"))
    assert "which is mounted read-only" in str(caught.value.hint)
    assert f"tmpfs on '{small}'" in str(caught.value.hint)


def test_mount_of_a_file_that_is_not_there_is_its_directorys(small: Path) -> None:
    found = mount_of(f"{small}/no/such/file")
    assert found is not None
    assert (found.point, found.kind) == (str(small), "tmpfs")
    assert mount_of("/proc/self/status") is not None


def test_limit_on_open_files_is_told() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert str(explain(errno.EMFILE, "/disk")).startswith(f"This process may have {soft} files open")
