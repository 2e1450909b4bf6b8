"""Pages, merging and sleep of hosts of our own making."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hostel.drivers.host import memory
from hostel.drivers.host.driver import LinuxHostDriver
from hostel.errors import ErrorCode, VirtError
from support.refusal import refused

BASE = os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    nodes = tmp_path / "sys/devices/system/node"
    for cell, free in ((0, 800), (1, 400)):
        pool = nodes / f"node{cell}/hugepages/hugepages-2048kB"
        pool.mkdir(parents=True)
        (pool / "free_hugepages").write_text(f"{cell + 3}\n")
        (pool / "nr_hugepages").write_text("8\n")
        (nodes / f"node{cell}/meminfo").write_text(f"Node {cell} MemTotal: 9000 kB\nNode {cell} MemFree: {free} kB\n")
    whole = tmp_path / "sys/kernel/mm/hugepages/hugepages-2048kB"
    whole.mkdir(parents=True)
    (whole / "nr_hugepages").write_text("16\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 18000 kB\nMemFree: 1200 kB\n")
    merging = tmp_path / "sys/kernel/mm/ksm"
    merging.mkdir()
    for name, value in (("pages_to_scan", 100), ("full_scans", 7), ("run", 1)):
        (merging / name).write_text(f"{value}\n")
    return tmp_path


def test_free_pages_are_counted_cell_by_cell(root: Path) -> None:
    host = LinuxHostDriver(root)
    assert host.node_get_free_pages([BASE, 2048], 0, 9) == [800 // BASE, 3, 400 // BASE, 4]
    assert host.node_get_free_pages([BASE], -1, 1) == [1200 // BASE]
    with refused(ErrorCode.INTERNAL_ERROR, "internal error: start cell 2 out of range (0-1)"):
        host.node_get_free_pages([BASE], 2, 1)
    with refused(ErrorCode.OPERATION_FAILED, "operation failed: page size 5 is not available on node 0"):
        host.node_get_free_pages([5], 0, 1)


def test_pages_are_kept_more_of_them_or_exactly_so_many(root: Path) -> None:
    host = LinuxHostDriver(root)
    pool = root / "sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"
    assert host.node_alloc_pages([2048], [12], 1, 1) == 1
    assert pool.read_text().split() == ["20"]
    assert host.node_alloc_pages([2048], [30], 0, 2, exactly=True) == 2
    assert pool.read_text().split() == ["30"]
    with refused(ErrorCode.OPERATION_UNSUPPORTED, "Operation not supported: system pages pool can't be modified"):
        host.node_alloc_pages([BASE], [1], 0, 1)


def test_merging_is_told_and_changed(root: Path) -> None:
    host = LinuxHostDriver(root)
    assert host.node_get_memory_parameters() == {"shm_pages_to_scan": 100, "shm_full_scans": 7}
    host.node_set_memory_parameters({"shm_pages_to_scan": 250})
    assert host.node_get_memory_parameters()["shm_pages_to_scan"] == 250
    for name, value in (("shm_full_scans", 1), ("shm_pages_to_scan", -1), ("shm_sleep_millisecs", 1)):
        with pytest.raises(VirtError):
            host.node_set_memory_parameters({name: value})


def test_host_sleeps_only_as_it_can(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, heard = LinuxHostDriver(root), root / "heard"
    with refused(ErrorCode.ARGUMENT_UNSUPPORTED, "argument unsupported: Suspend-to-RAM"):
        host.node_suspend_for_duration(0, 60)
    (root / "sys/power").mkdir()
    (root / "sys/power/state").write_text("freeze mem\n")
    (root / "rtcwake").write_text(f'#!/bin/sh\necho "$@" > {heard}.new; mv {heard}.new {heard}\n')
    (root / "rtcwake").chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}:/usr/bin:/bin")
    monkeypatch.setattr(memory, "_DELAY", 0)
    with refused(ErrorCode.ARGUMENT_UNSUPPORTED, "argument unsupported: Suspend-to-Disk"):
        host.node_suspend_for_duration(1, 60)
    with refused(ErrorCode.ARGUMENT_UNSUPPORTED, "argument unsupported: Hybrid-Suspend"):
        host.node_suspend_for_duration(2, 60)
    with refused(ErrorCode.INVALID_ARG, "invalid argument: Suspend duration is too short"):
        host.node_suspend_for_duration(0, 59)
    host.node_suspend_for_duration(0, 61)
    deadline = time.monotonic() + 60
    while not heard.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert heard.read_text() == "-m mem -s 61\n"
