"""The filters other than ``blkdebug``: "copy-on-read", "compress", "preallocate", "throttle", and the null protocol."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import creating, graph, objects
from hostel.block.blockdev import from_options
from hostel.block.draining import drained
from hostel.block.extent import Status
from hostel.block.filters.compress import write_compressed
from hostel.block.filters.forward import ForwardDriver
from hostel.block.filters.throttle import ThrottleGroup
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.node import BlockNode
from hostel.block.options import OptionError
from hostel.block.protocols.file import FileDriver
from hostel.block.restraint import unrestrained
from hostel.block.rewiring import insert_filter
from hostel.errors import ReadOnly, UnsupportedFeature

KiB = 1024
CLUSTER = 64 * KiB


def create(path: Path, size: int, **options: str) -> str:
    with creating.create(str(path)) as file:
        Qcow2Driver.create(file, size, Qcow2Driver.create_options.convert(options))
    return str(path)


# ---- copy-on-read


@pytest.fixture
def overlay(tmp_path: Path) -> str:
    """An overlay of 1 MiB on a base that has data in its second cluster."""
    base = create(tmp_path / "base", 1 << 20)
    with graph.open(base, "qcow2", read_only=False) as node:
        node.pwrite(CLUSTER, b"\5" * CLUSTER)
    return create(tmp_path / "top", 1 << 20, backing_file=base, backing_fmt="qcow2")


def allocated(path: str) -> list[tuple[int, int, bool]]:
    with graph.open(path, "qcow2") as node:
        return [
            (each.offset, each.length, bool(each.status & Status.ZERO))
            for each in node.extents()
            if each.status & Status.ALLOCATED
        ]


def test_what_is_read_is_kept_in_whole_clusters(overlay: str) -> None:
    with graph.open(from_options({"driver": "copy-on-read", "file.filename": overlay}), read_only=False) as node:
        assert node.read(CLUSTER + 5, 1) == b"\5"
        assert node.read(3 * CLUSTER, 1) == b"\0"
    assert allocated(overlay) == [(CLUSTER, CLUSTER, False), (3 * CLUSTER, CLUSTER, True)]
    with graph.open(overlay, "qcow2") as node:
        assert node.read(0, 3 * CLUSTER) == bytes(CLUSTER) + b"\5" * CLUSTER + bytes(CLUSTER)


def test_what_is_in_the_overlay_is_not_copied_over(overlay: str) -> None:
    with graph.open(overlay, "qcow2", read_only=False) as node:
        node.pwrite(CLUSTER, b"\6" * CLUSTER)
    with graph.open(from_options({"driver": "copy-on-read", "file.filename": overlay}), read_only=False) as node:
        assert node.read(CLUSTER, CLUSTER) == b"\6" * CLUSTER
    assert allocated(overlay) == [(CLUSTER, CLUSTER, False)]


def test_nothing_can_be_kept_in_what_is_only_read(overlay: str) -> None:
    with pytest.raises(ReadOnly, match="Block node is read-only"):
        graph.open(from_options({"driver": "copy-on-read", "file.filename": overlay}))


# ---- compress


def test_writes_are_compressed(tmp_path: Path) -> None:
    path = create(tmp_path / "disk", 200 * KiB)
    with graph.open(from_options({"driver": "compress", "file.filename": path}), read_only=False) as node:
        node.pwrite(10, b"\7" * CLUSTER)
        node.pwrite(3 * CLUSTER, b"\x08" * 8 * KiB)
        node.write_zeroes(5, 10)
    with graph.open(path, "qcow2") as node:
        expected = bytes(15) + b"\7" * (CLUSTER - 5) + bytes(2 * CLUSTER - 10) + b"\x08" * 8 * KiB
        assert node.read(0, 200 * KiB) == expected
        data = [each for each in node.extents() if each.status & Status.DATA]
        assert data
        assert all(each.status & Status.COMPRESSED for each in data)


def test_what_a_job_puts_between_is_not_passed_by(tmp_path: Path) -> None:
    path = create(tmp_path / "disk", 1 << 20)
    with graph.open(from_options({"driver": "compress", "file.filename": path}), read_only=False) as node:
        assert node.file is not None
        seen: list[int] = []

        class Watching(ForwardDriver):
            def pwrite(self, offset: int, data: memoryview) -> None:
                seen.append(offset)
                super().pwrite(offset, data)

        insert_filter(node.file, Watching)
        node.pwrite(0, b"a" * CLUSTER)
        assert node.read(0, CLUSTER) == b"a" * CLUSTER
        assert seen == [0]


def test_what_a_job_puts_between_meanwhile_is_not_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = create(tmp_path / "disk", 1 << 20)
    with graph.open(path, "qcow2", read_only=False) as node:
        driver = node.driver
        assert isinstance(driver, Qcow2Driver)
        seen: list[int] = []

        class Watching(ForwardDriver):
            def pwrite(self, offset: int, data: memoryview) -> None:
                seen.append(offset)
                super().pwrite(offset, data)

        def compress(data: bytes | bytearray | memoryview) -> bytes:
            insert_filter(node, Watching)
            return b"not what was to be written"

        monkeypatch.setattr(driver, "compressor", lambda: compress)
        write_compressed(node, 0, b"a" * CLUSTER)
        assert node.read(0, CLUSTER) == b"a" * CLUSTER
        assert seen == [0]


def test_a_format_without_compression_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    options = {"driver": "compress", "file.driver": "raw", "file.file.filename": str(tmp_path / "disk")}
    with pytest.raises(UnsupportedFeature, match="Compression is not supported for underlying format: raw"):
        graph.open(from_options(options), read_only=False)


# ---- preallocate


def preallocating(path: Path, **options: str) -> dict[str, str]:
    tree = {"driver": "raw", "file.driver": "preallocate", "file.file.driver": "file", "file.file.filename": str(path)}
    return tree | {f"file.{key.replace('_', '-')}": value for key, value in options.items()}


def test_space_is_reserved_behind_the_end_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    image = create(path, 1 << 20)
    options = {**preallocating(path, prealloc_size="1M", prealloc_align="64k"), "driver": "qcow2"}
    before = os.path.getsize(image)
    with graph.open(from_options(options), read_only=False) as node:
        node.pwrite(0, b"\1" * CLUSTER)
        assert os.path.getsize(image) >= before + (1 << 20)
        assert node.file is not None
        assert node.file.length < before + 4 * CLUSTER
    assert os.path.getsize(image) < before + 4 * CLUSTER
    with graph.open(image, "qcow2") as node:
        assert node.read(0, CLUSTER) == b"\1" * CLUSTER


def test_a_resize_is_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(CLUSTER))
    with graph.open(from_options(preallocating(path)), read_only=False) as node:
        node.resize(2 * CLUSTER)
        node.pwrite(CLUSTER, b"\1" * CLUSTER)
        node.resize(3 * CLUSTER)
        assert node.read(2 * CLUSTER, 1) == b"\0"
    assert path.stat().st_size == 3 * CLUSTER


def test_what_a_full_disk_reserved_before_it_said_no_is_given_back(tmp_path: Path) -> None:
    """ext4 grows the file by each part that it has found room for."""

    class Full(FileDriver):
        def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
            os.ftruncate(self.fileno(), offset + length // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "disk"
    path.write_bytes(bytes(CLUSTER))
    with graph.open(from_options(preallocating(path)), read_only=False) as node:
        grown = node.driver.children["file"]
        below = grown.driver.children["file"].driver
        assert isinstance(below, FileDriver)
        below.__class__ = Full
        grown.pwrite(CLUSTER, b"\1" * 512)
        assert path.stat().st_size > CLUSTER + 512
    assert path.stat().st_size == CLUSTER + 512


def test_an_alignment_is_a_number_of_sectors(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    with pytest.raises(OptionError, match="prealloc-align parameter of preallocate filter is not aligned to 512"):
        graph.open(from_options(preallocating(tmp_path / "disk", prealloc_align="100")))


# ---- throttle


@pytest.fixture
def no_objects() -> Iterator[None]:
    objects.clear()
    yield
    objects.clear()


@pytest.mark.usefixtures("no_objects")
@pytest.mark.parametrize("limit", ["limits.iops-total", "x-iops-write", "limits.bps-write"])
def test_requests_above_the_limit_wait(tmp_path: Path, limit: str) -> None:
    (tmp_path / "disk").write_bytes(bytes(CLUSTER))
    per_second = 40 * 512 if "bps" in limit else 40
    objects.add("group", ThrottleGroup.from_properties({limit: per_second}))
    options = {
        "driver": "throttle", "throttle-group": "group", "file.driver": "raw",
        "file.file.filename": str(tmp_path / "disk"),
    }  # fmt: skip
    with graph.open(from_options(options), read_only=False) as node:
        start = time.monotonic()
        for index in range(20):
            node.pwrite(index * 512, b"\1" * 512)
        took = time.monotonic() - start
        assert node.read(0, 512) == b"\1" * 512
    assert 0.3 < took < 30


@pytest.fixture
def slow(tmp_path: Path, no_objects: None) -> Iterator[tuple[ThrottleGroup, BlockNode, list[threading.Thread]]]:
    """A group that lets a request through in 100 seconds, a node in it, and three writes that wait."""
    (tmp_path / "disk").write_bytes(bytes(CLUSTER))
    group = ThrottleGroup.from_properties({"limits.bps-write": 100})
    objects.add("group", group)
    options = {
        "driver": "raw", "file.driver": "throttle", "file.throttle-group": "group", "file.file.driver": "file",
        "file.file.filename": str(tmp_path / "disk"),
    }  # fmt: skip
    with graph.open(from_options(options), read_only=False) as node:
        node.pwrite(0, b"\1" * 10_000)
        writes = [threading.Thread(target=node.pwrite, args=(at * 512, b"\2" * 512)) for at in range(3)]
        for each in writes:
            each.start()
        writes[0].join(0.2)
        assert all(each.is_alive() for each in writes)
        yield group, node, writes
        for each in writes:
            each.join(20)
            assert not each.is_alive()
        assert node.read(0, 3 * 512) == b"\2" * (3 * 512)


Slow = tuple[ThrottleGroup, BlockNode, list[threading.Thread]]


def test_who_drains_a_node_waits_for_no_limit(slow: Slow) -> None:
    _, node, writes = slow
    start = time.monotonic()
    with drained(node):
        for each in writes:
            each.join(20)
        assert not any(each.is_alive() for each in writes)
    assert time.monotonic() - start < 20
    late = threading.Thread(target=node.pwrite, args=(0, b"\2" * 512))
    late.start()
    late.join(0.2)
    assert late.is_alive(), "the limit is there again"
    with unrestrained(node):
        late.join(20)
    assert not late.is_alive()


@pytest.mark.usefixtures("no_objects")
def test_who_closes_a_disk_waits_for_no_limit(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(CLUSTER))
    objects.add("group", ThrottleGroup.from_properties({"limits.bps-write": 100}))
    options = {
        "driver": "raw", "file.driver": "throttle", "file.throttle-group": "group",
        "file.file.filename": str(tmp_path / "disk"),
    }  # fmt: skip
    node = graph.open(from_options(options), read_only=False)
    node.pwrite(0, b"\1" * 10_000)
    writer = threading.Thread(target=node.pwrite, args=(0, b"\2" * 512), daemon=True)
    writer.start()
    writer.join(0.2)
    assert writer.is_alive()
    closer = threading.Thread(target=node.close, daemon=True)
    closer.start()
    closer.join(30)
    assert not closer.is_alive()
    writer.join(20)
    assert (tmp_path / "disk").read_bytes()[:512] == b"\2" * 512


def test_what_waits_does_so_by_new_limits(slow: Slow) -> None:
    group, node, writes = slow
    assert node.read(512, 512) != b"\3" * 512, "what is read does not wait behind what is written"
    with pytest.raises(OptionError, match="cannot be used at the same time"):
        group.change({"bps-total": 5})
    assert group.properties["bps-write"] == 100
    assert group.properties["bps-total"] == 0
    group.change({"bps-write": 10**9})
    for each in writes:
        each.join(20)
    assert not any(each.is_alive() for each in writes)


@pytest.mark.usefixtures("no_objects")
def test_a_group_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    options = {"driver": "throttle", "file.driver": "raw", "file.file.filename": str(tmp_path / "disk")}
    with pytest.raises(OptionError, match="Please specify a throttle group"):
        graph.open(from_options(options))
    with pytest.raises(OptionError, match="Throttle group 'x' does not exist"):
        graph.open(from_options({**options, "throttle-group": "x"}))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"iops-total": 1}, "Parameter 'iops-total' is unexpected"),
        ({"limits.iops-total": "x"}, "Parameter 'limits.iops-total' expects integer"),
        ({"limits.iops-total": 1, "limits.iops-read": 1}, "cannot be used at the same time"),
        ({"limits.bps-total-max": 1}, "require corresponding bps/iops values"),
        ({"limits.bps-total": 2, "limits.bps-total-max": 1}, "cannot be lower than bps/iops"),
        ({"limits.bps-total": 2, "limits.bps-total-max-length": 2}, "burst length set without burst rate"),
        ({"limits.bps-total-max-length": 0}, "the burst length cannot be 0"),
        ({"limits.bps-total": 10**15 + 1}, r"must be within \[0, 1000000000000000\]"),
        ({"limits.bps-total": -1}, r"must be within \[0, 1000000000000000\]"),
        ({"limits.iops-total": 9, "limits.iops-total-max": 10**9, "limits.iops-total-max-length": 10**7}, "too high"),
        ({"limits.bps-total": 9, "limits.iops-size": 512}, "iops size requires an iops value to be set"),
    ],
)
def test_limits_that_make_no_sense_are_refused(given: dict[str, str | int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ThrottleGroup.from_properties(given)


# ---- null


def test_a_null_disk_accepts_everything_and_keeps_nothing() -> None:
    with graph.open(from_options({"driver": "null-co", "size": "1M", "read-zeroes": "on"}), read_only=False) as node:
        node.pwrite(0, b"\1" * 512)
        node.flush()
        assert (node.length, bytes(node.read(0, 512))) == (1 << 20, bytes(512))
        assert [each.status for each in node.extents()] == [Status.ZERO | Status.ALLOCATED]


def test_a_null_disk_has_one_name() -> None:
    with graph.open("null-co://", "raw") as node:
        assert (node.length, node.filename) == (1 << 30, "null-co://")
    with pytest.raises(OptionError, match="The only allowed filename for this driver is 'null-co://'"):
        graph.open("null-co://x", "raw")
    with pytest.raises(OptionError, match="latency-ns is invalid"):
        graph.open(from_options({"driver": "null-co", "latency-ns": "-1"}))
