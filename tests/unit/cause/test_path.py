"""Where a path ends, as the kernel sees it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hostel.cause import explain
from hostel.cause.path import Why, existing, walk


def test_missing_directory_is_named_and_a_missing_file_is_not(tmp_path: Path) -> None:
    assert explain(errno.ENOENT, f"{tmp_path}/no/such/disk") == f"There is no directory '{tmp_path}/no'."
    assert explain(errno.ENOENT, f"{tmp_path}/disk") is None


def test_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "disk").symlink_to("away/disk")
    assert explain(errno.ENOENT, f"{tmp_path}/disk") == (
        f"There is no directory '{tmp_path}/away', where the link '{tmp_path}/disk' leads."
    )
    (tmp_path / "away").mkdir()
    assert explain(errno.ENOENT, f"{tmp_path}/disk") == (
        f"There is no '{tmp_path}/away/disk', where the link '{tmp_path}/disk' leads."
    )


def test_file_on_the_way_and_a_loop_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert explain(errno.ENOTDIR, f"{tmp_path}/file/disk") == f"'{tmp_path}/file' is no directory."
    assert explain(errno.ELOOP, f"{tmp_path}/loop") == f"The link '{tmp_path}/loop' leads to itself."


def test_walk_follows_links_and_dots_as_the_kernel_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/disk").touch()
    (tmp_path / "link").symlink_to("a/b")
    monkeypatch.chdir(tmp_path)
    stop = walk("link/../disk")
    assert (stop.why, stop.place) == (Why.FOUND, f"{tmp_path}/a/disk")
    assert existing("link/x/y") == f"{tmp_path}/a/b"
    assert explain(errno.ENOENT, "nul\0byte") is None
