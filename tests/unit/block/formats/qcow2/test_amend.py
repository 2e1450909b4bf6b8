"""Changing what a qcow2 image was created with: the result, and the image at every step towards it."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest

from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.formats.qcow2.layout import Compatible, Extension, Header, Incompatible
from hostel.errors import BlockError
from support import qcow2
from support.crash import crash_states
from support.memory import FaultyDriver, LoggedDriver, MemoryDriver
from support.qcow2_workload import snapshot_content

CLUSTER = 1024
SIZE = 300 * CLUSTER
BACKING = b"below" * (SIZE // 5)
OLD: dict[str, Any] = {"compat": "0.10"}


def image(options: dict[str, Any] | None = None, *, backing: bytes | None = None, bitmap: bool = False) -> bytes:
    """An image with data, zero and compressed clusters, and two snapshots that share some of them."""
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER, **(options or {})}))
    with qcow2.attach(driver, backing=backing) as node:
        if bitmap:
            qcow2.driver_of(node).bitmap_add("b")
        node.pwrite(0, b"first" * 20000)
        qcow2.pwrite_compressed(node, 200 * CLUSTER, b"packed!!" * 128)
        node.write_zeroes(10 * CLUSTER, 5 * CLUSTER)
        node.write_zeroes(20 * CLUSTER, 5 * CLUSTER, unmap=True)
        qcow2.driver_of(node).snapshot_create("one", date=(0, 0))
        node.write_zeroes(12 * CLUSTER, 20 * CLUSTER)
        node.pwrite(50 * CLUSTER, b"second" * 1000)
        qcow2.driver_of(node).snapshot_create("two", date=(0, 0))
        node.write_zeroes(250 * CLUSTER, 3 * CLUSTER, unmap=True)
        node.pwrite(240 * CLUSTER, b"third" * 1000)
    return bytes(driver.data)


def amend(driver: MemoryDriver, *, backing: bytes | None = None, **options: Any) -> None:
    """Amend the image in ``driver``."""
    with qcow2.attach(driver, backing=backing) as node:
        assert isinstance(node.driver, Qcow2Driver)
        node.driver.amend(options, force=False, report=lambda done, total: None)


def contents(data: bytes | bytearray, backing: bytes | None = None) -> dict[str, bytes]:
    """What the guest reads now, and in each snapshot."""
    with qcow2.attach(MemoryDriver(data), read_only=True, backing=backing) as node:
        assert isinstance(node.driver, Qcow2Driver)
        ids = [snapshot.id for snapshot in node.driver.snapshots()]
        return {"": bytes(node.read(0, node.length)), **{id: snapshot_content(data, id, backing) for id in ids}}


def assert_clean(data: bytes | bytearray) -> None:
    """Neither a fault nor a leak."""
    result, lines, _ = qcow2.check(data)
    assert (qcow2.faults(result), result.leaks) == ((0, 0), 0), lines


CHANGES = [
    pytest.param({"refcount_bits": 8}, {"refcount_bits": 64}, id="wider"),
    pytest.param({"refcount_bits": 64}, {"refcount_bits": 2}, id="narrower"),
    pytest.param({}, {"compat": "0.10"}, id="down"),
    pytest.param(OLD, {"compat": "1.1"}, id="up"),
    pytest.param({"refcount_bits": 64, "lazy_refcounts": True}, {"compat": "v2", "refcount_bits": 16}, id="down-all"),
    pytest.param(OLD, {"compat": "v3", "refcount_bits": 4, "lazy_refcounts": True, "size": 2 * SIZE}, id="up-all"),
    pytest.param({}, {"lazy_refcounts": True}, id="lazy"),
    pytest.param({"lazy_refcounts": True}, {"lazy_refcounts": False}, id="eager"),
    pytest.param({}, {"size": SIZE + 5 * CLUSTER}, id="grow"),
]


@pytest.mark.parametrize("backing", [None, BACKING], ids=["alone", "overlay"])
@pytest.mark.parametrize(("options", "change"), CHANGES)
def test_the_content_stays_and_nothing_leaks(
    options: dict[str, Any], change: dict[str, Any], backing: bytes | None
) -> None:
    driver = MemoryDriver(image(options, backing=backing))
    before = contents(driver.data, backing)
    amend(driver, backing=backing, **change)
    after = contents(driver.data, backing)
    size = change.get("size", SIZE)
    assert after.pop("") == before.pop("").ljust(size, b"\0")
    assert after == before
    assert_clean(driver.data)
    header = qcow2.header(driver.data)
    wanted = options | change
    assert header.size == size
    assert header.version == (2 if wanted.get("compat") in ("0.10", "v2") else 3)
    assert 1 << header.refcount_order == wanted.get("refcount_bits", 16)
    assert bool(header.compatible_features & Compatible.LAZY_REFCOUNTS) == (
        bool(wanted.get("lazy_refcounts")) and header.version == 3
    )
    with qcow2.attach(driver, backing=backing) as node:
        node.pwrite(0, b"on it goes")
    assert_clean(driver.data)


@pytest.mark.parametrize("backing", [None, BACKING], ids=["alone", "overlay"])
@pytest.mark.parametrize(("options", "change"), CHANGES)
def test_cut_off_anywhere_the_image_is_whole(
    options: dict[str, Any], change: dict[str, Any], backing: bytes | None
) -> None:
    initial = image(options, backing=backing)
    before = contents(initial, backing)
    driver = LoggedDriver(initial)
    amend(driver, backing=backing, **change)
    states = 0
    for state in crash_states(initial, driver.log, random.Random(0), samples=4):
        after = contents(state.data, backing)
        assert after.pop("").rstrip(b"\0") == before[""].rstrip(b"\0")
        assert after == {id: content for id, content in before.items() if id}
        if not qcow2.header(state.data).incompatible_features & Incompatible.DIRTY:
            result, lines, _ = qcow2.check(state.data)
            assert qcow2.faults(result) == (0, 0), lines
        states += 1
    assert states > 3


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize(("options", "change"), CHANGES)
def test_a_failure_at_any_call_leaves_the_image_whole(
    options: dict[str, Any], change: dict[str, Any], code: int
) -> None:
    initial = image(options)
    before = contents(initial)
    fail_at = 0
    while True:
        driver = FaultyDriver(initial)
        driver.arm(fail_at, code)
        try:
            amend(driver, **change)
        except OSError as error:
            assert error.errno == code
        driver.armed = False
        if not driver.fired:
            break
        after = contents(driver.data)
        assert after.pop("").rstrip(b"\0") == before[""].rstrip(b"\0")
        assert after == {id: content for id, content in before.items() if id}
        if not qcow2.header(driver.data).incompatible_features & Incompatible.DIRTY:
            result, lines, _ = qcow2.check(driver.data)
            assert qcow2.faults(result) == (0, 0), lines
        # All calls of the beginning, where everything is read and decided; of the rest every third.
        fail_at += 1 if fail_at < 40 else 3
    assert fail_at > 4


REFUSALS = [
    ({}, {"refcount_bits": 1}, r"^Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x\w+ has a "),
    ({}, {"refcount_bits": 3}, "^Refcount width must be a power of two and may not exceed 64 bits$"),
    ({}, {"refcount_bits": 0}, "^Refcount width must be a power of two and may not exceed 64 bits$"),
    (OLD, {"refcount_bits": 8}, "^Refcount widths other than 16 bits require compatibility level 1.1 or above"),
    (OLD, {"lazy_refcounts": True}, "^Lazy refcounts only supported with compatibility level 1.1 and above"),
    ({"refcount_bits": 8}, {"compat": "v2"}, "^compat=0.10 requires refcount_bits=16$"),
    ({}, {"compat": "v4"}, "^Unknown compatibility level v4$"),
    ({}, {"backing_file": "x"}, "^Cannot amend the backing file$"),
    ({}, {"backing_fmt": "raw"}, "^Cannot amend the backing file$"),
    ({}, {"data_file": "x"}, "^data-file can only be set for images that use an external data file$"),
    ({}, {"data_file_raw": True}, "^data-file-raw cannot be set on existing images$"),
    ({}, {"size": 1000}, "^The new size must be a multiple of 512$"),
    ({}, {"encrypt.state": "active"}, "^Can't amend encryption options - encryption not present$"),
    (
        {"compression_type": "zstd"},
        {"compat": "v2"},
        "^Cannot downgrade an image with zstd compression type and existing compressed clusters$",
    ),
]


@pytest.mark.parametrize(("options", "change", "message"), REFUSALS)
def test_what_cannot_be_is_refused_and_nothing_changes(
    options: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    driver = MemoryDriver(image(options))
    before = bytes(driver.data)
    with pytest.raises(BlockError, match=message):
        amend(driver, **change)
    assert driver.data == before


def test_a_size_is_changed_before_snapshots_of_another_size_prevent_a_downgrade() -> None:
    driver = MemoryDriver(image({}))
    with qcow2.attach(driver) as node:
        content = bytes(node.read(0, SIZE))
    with pytest.raises(BlockError, match=r"^Internal snapshots prevent downgrade of image$"):
        amend(driver, compat="v2", size=SIZE + CLUSTER)
    with qcow2.attach(driver) as node:
        assert bytes(node.read(0, node.length)) == content + bytes(CLUSTER)
    assert qcow2.header(driver.data).version == 3
    assert qcow2.faults(qcow2.check(driver.data)[0]) == (0, 0)


def test_subclusters_are_no_version_2() -> None:
    driver = MemoryDriver(qcow2.create(1 << 20, {"cluster_size": 16384, "extended_l2": True}))
    with pytest.raises(BlockError, match=r"^Cannot downgrade an image with incompatible features 0x10 set$"):
        amend(driver, compat="v2")


def test_version_2_has_no_bitmaps_and_no_trace_of_them() -> None:
    driver = MemoryDriver(image(bitmap=True))
    amend(driver, compat="v2")
    assert_clean(driver.data)
    with qcow2.attach(driver, read_only=True) as node:
        assert qcow2.driver_of(node).bitmaps() == []


def test_version_2_has_zstd_no_more() -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"compression_type": "zstd"}))
    amend(driver, compat="v2")
    assert qcow2.header(driver.data).compression_type == 0
    amend(driver, compat="v3")
    assert qcow2.header(driver.data).incompatible_features == 0


def test_an_overlays_zeroes_do_not_become_what_is_below() -> None:
    driver = MemoryDriver(qcow2.create(SIZE, {"cluster_size": CLUSTER}))
    with qcow2.attach(driver, backing=BACKING) as node:
        node.write_zeroes(0, 10 * CLUSTER, unmap=True)
    amend(driver, backing=BACKING, compat="v2")
    with qcow2.attach(driver, read_only=True, backing=BACKING) as node:
        assert bytes(node.read(0, 10 * CLUSTER)) == bytes(10 * CLUSTER)


def test_refcounts_above_a_byte_are_carried_over() -> None:
    driver = MemoryDriver(qcow2.create(64 * 1024, {"cluster_size": 512}))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"x" * 512)
        for number in range(300):
            qcow2.driver_of(node).snapshot_create(str(number), date=(0, 0))
    for bits in (32, 64, 16):
        amend(driver, refcount_bits=bits)
        assert_clean(driver.data)
    before = bytes(driver.data)
    with pytest.raises(BlockError, match=r"width to 8 bits: Cluster at offset .* has a refcount of 301$"):
        amend(driver, refcount_bits=8)
    assert driver.data == before


def test_a_table_larger_than_the_format_allows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 16 << 10
    monkeypatch.setattr(layout, "MAX_REFTABLE_SIZE", limit)
    driver = MemoryDriver(qcow2.create(0, {"cluster_size": 512, "refcount_bits": 1}))
    # A cluster in use so far away that its 64-bit refcount needs a larger table.
    far = 64 * limit // 8 + 1
    with qcow2.attach(driver) as node:
        image = qcow2.driver_of(node)._image
        image.begin_write()
        image.refcounts.update(far, 1, 1)
        image.flush_metadata()
    before = bytes(driver.data)
    with pytest.raises(BlockError, match="refcount table would be larger"):
        amend(driver, refcount_bits=64)
    assert driver.data == before


def test_unknown_fields_and_extensions_survive_but_for_fields_that_version_2_has_no_room_for() -> None:
    data = bytearray(qcow2.create(SIZE))
    length = Header.OFFSET["header_length"]
    data[length : length + 4] = (Header.SIZE + 8).to_bytes(4, "big")
    extension = b"\x12\x34\x56\x78" + (5).to_bytes(4, "big") + b"hello".ljust(8, b"\0")
    data[Header.SIZE : Header.SIZE + 8 + len(extension) + 8] = b"unknown!" + extension + bytes(8)
    driver = MemoryDriver(data)
    amend(driver, refcount_bits=32)
    assert headers.parse(bytes(driver.data[:65536])).unknown_fields == b"unknown!"
    amend(driver, compat="v2", refcount_bits=16)
    preamble = headers.parse(bytes(driver.data[:65536]))
    assert (preamble.unknown_fields, preamble.extensions) == (b"", (Extension(0x12345678, b"hello"),))
    amend(driver, compat="v3")
    assert Extension(0x12345678, b"hello") in headers.parse(bytes(driver.data[:65536])).extensions
