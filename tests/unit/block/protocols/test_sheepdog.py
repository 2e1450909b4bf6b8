"""Disks of a Sheepdog cluster, on a server that follows the protocol's description, or does not."""

from __future__ import annotations

import errno
import json
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hostel.block import blockdev, graph
from hostel.block.driver import OpenMode
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.block.options import OptionError
from hostel.block.powers import Preallocation
from hostel.block.protocols.sheepdog import address
from hostel.block.protocols.sheepdog.driver import SheepdogDriver
from hostel.cli.img.main import main
from hostel.errors import BlockError, CorruptImage, ReadOnly, UnsupportedFeature
from hostel.img import snapshot as snapshots
from support import sheepdog
from support.sheepdog import SheepdogServer, running

MIB = 1 << 20
TOLD = 48  # bytes of a reply without its data


@pytest.fixture
def server() -> SheepdogServer:
    return SheepdogServer()


@pytest.fixture
def url(server: SheepdogServer) -> Iterator[str]:
    with running(server) as port:
        yield f"sheepdog://127.0.0.1:{port}"


def node_of(name: str, *, read_only: bool = True, force_share: bool = False) -> BlockNode:
    return graph.open(name, "raw", read_only=read_only, force_share=force_share)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sheepdog:disk", {"server.host": "localhost", "server.port": "7000", "vdi": "disk"}),
        ("sheepdog:disk:3", {"server.host": "localhost", "server.port": "7000", "vdi": "disk", "snap-id": "3"}),
        ("sheepdog:disk:old", {"server.host": "localhost", "server.port": "7000", "vdi": "disk", "tag": "old"}),
        ("sheepdog:h:1:disk:old", {"server.host": "h", "server.port": "1", "vdi": "disk", "tag": "old"}),
        ("sheepdog:///disk", {"server.host": "localhost", "server.port": "7000", "vdi": "disk"}),
        ("sheepdog+tcp://h/a%20b#t", {"server.host": "h", "server.port": "7000", "vdi": "a b", "tag": "t"}),
        ("sheepdog://h:1/disk#7", {"server.host": "h", "server.port": "1", "vdi": "disk", "snap-id": "7"}),
        ("sheepdog+unix:///disk?socket=/a#7", {"server.path": "/a", "vdi": "disk", "snap-id": "7"}),
    ],
)
def test_names_are_read_as_qemu_read_them(name: str, options: dict[str, str]) -> None:
    kind = "unix" if "server.path" in options else "inet"
    assert SheepdogDriver.parse_filename(name) == {"server.type": kind, **options}


def test_what_a_disk_is_called_leads_to_it() -> None:
    for name in ("sheepdog://[::1]:7000/disk#tag", "sheepdog://host:1/a%20b%2Fc#7", "sheepdog+unix:///d?socket=/a%20b"):
        disk = address.disk(SheepdogDriver.converted(SheepdogDriver.parse_filename(name)))
        assert str(disk) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sheepdog:", "Can't parse filename"),
        ("sheepdog:h:x:disk", "Can't parse filename"),
        ("sheepdog:disk:0", "Can't parse filename"),
        ("sheepdog+tls://h/disk", "URI scheme must be 'sheepdog', 'sheepdog[+]tcp', or 'sheepdog[+]unix'"),
        ("sheepdog://h", "missing file path in URI"),
        ("sheepdog://h:x/disk", "invalid URI 'sheepdog://h:x/disk'"),
        ("sheepdog://h/" + "x" * 256, "VDI name is too long"),
        ("sheepdog://h/disk?socket=/a", "unexpected query parameters"),
        ("sheepdog://h/disk#0", "'0' is not a valid snapshot ID"),
        ("sheepdog://h/disk#4294967296", "'4294967296' is not a valid snapshot ID"),
        ("sheepdog://h/disk#" + "x" * 256, "is not a valid snapshot ID"),
        ("sheepdog+unix:///disk", "URI scheme sheepdog[+]unix requires query parameter 'socket'"),
        ("sheepdog+unix://h/disk?socket=/a", "URI scheme sheepdog[+]unix doesn't accept a server address"),
        ("sheepdog+unix:///disk?socket=/a&colour=red", "unexpected query parameters"),
    ],
)
def test_what_is_no_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SheepdogDriver.parse_filename(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vdi": "disk"}, "Parameter 'server' is missing"),
        ({"vdi": "disk", "server.host": "h"}, "Parameter 'server.type' is missing"),
        ({"vdi": "disk", "server.type": "vsock"}, "Parameter 'server.type' does not accept value 'vsock'"),
        ({"vdi": "disk", "server.type": "inet", "server.host": "h"}, "Parameter 'server.port' is missing"),
        ({"vdi": "disk", "server.type": "unix"}, "Parameter 'server.path' is missing"),
        ({"server.type": "unix", "server.path": "/a"}, "parameter 'vdi' is missing"),
        ({"server.type": "unix", "server.path": "/a", "vdi": "x" * 256}, "value of parameter 'vdi' is too long"),
        (
            {"server.type": "unix", "server.path": "/a", "vdi": "x", "snap-id": "0"},
            "'snap-id=0' is not a valid snapshot ID",
        ),
        ({"vdi": "disk", "colour": "red"}, "Block protocol 'sheepdog' doesn't support the option 'colour'"),
    ],
)
def test_options_are_checked_before_anybody_is_asked(options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SheepdogDriver.open(options, OpenMode())


def test_what_is_written_is_read_again(server: SheepdogServer, url: str) -> None:
    vdi = server.create("disk", 5 * MIB + 512)
    expected = bytearray(5 * MIB + 512)
    chance = random.Random(1)
    with node_of(f"{url}/disk", read_only=False) as node:
        for _ in range(40):
            offset = chance.randrange(len(expected))
            data = chance.randbytes(min(chance.randrange(1, 2 * MIB), len(expected) - offset))
            node.pwrite(offset, data)
            expected[offset : offset + len(data)] = data
        node.flush()
        assert bytes(node.read(0, node.length)) == bytes(expected)
    assert server.content(vdi) == bytes(expected)
    with node_of(f"{url}/disk") as node:
        assert bytes(node.read(0, node.length)) == bytes(expected)


def test_an_object_is_written_before_the_table_names_it(server: SheepdogServer, url: str) -> None:
    vdi = server.create("disk", 4 * MIB)
    seen: list[tuple[int, int]] = []
    server.before = lambda op, oid: seen.append((op, oid >> 63)) if op in (1, 3) else None
    with node_of(f"{url}/disk", read_only=False) as node:
        node.pwrite(MIB // 2, bytes([1]) * (2 * MIB))
    assert seen == [(1, 0), (1, 0), (1, 0), (3, 1)]
    assert [vdi.owner(index) == vdi.number for index in range(4)] == [True, True, True, False]


def test_a_disk_is_locked_while_it_is_used_and_not_longer(server: SheepdogServer, url: str) -> None:
    vdi = server.create("disk", MIB)
    with node_of(f"{url}/disk"):
        assert server.locks == {vdi.number}
        with pytest.raises(BlockError, match="cannot get vdi info, VDI is already locked, disk 0") as caught:
            node_of(f"{url}/disk")
        assert caught.value.errno == errno.EBUSY
        with node_of(f"{url}/disk", force_share=True) as shared:
            assert shared.length == MIB
    assert not server.locks
    with pytest.raises(BlockError, match="cannot get vdi info, No vdi found, nothing 0"):
        node_of(f"{url}/nothing")


def test_a_disk_that_cannot_be_opened_does_not_stay_locked(server: SheepdogServer, url: str) -> None:
    vdi = server.create("disk", MIB)
    vdi.inode[553] = 1
    with pytest.raises(UnsupportedFeature, match="'disk' is a hypervolume"):
        node_of(f"{url}/disk")
    assert not server.locks


def test_snapshots_are_read_and_never_written(server: SheepdogServer, url: str) -> None:
    server.create("disk", 2 * MIB)
    with node_of(f"{url}/disk", read_only=False) as node:
        node.pwrite(0, b"old" * 1000)
    server.snapshot("disk", "before")
    with node_of(f"{url}/disk", read_only=False) as node:
        node.pwrite(1000, b"new")
    for name in ("disk#before", "disk#1"):
        with node_of(f"{url}/{name}") as node:
            assert bytes(node.read(0, 3000)) == b"old" * 1000
    with node_of(f"{url}/disk") as node:
        assert bytes(node.read(0, 3000)) == (b"old" * 1000)[:1000] + b"new" + (b"old" * 1000)[1003:]
    with pytest.raises(ReadOnly, match="sheepdog snapshots are read-only"):
        node_of(f"{url}/disk#before", read_only=False)
    with pytest.raises(BlockError, match="Failed to find the requested tag, disk 0 after"):
        node_of(f"{url}/disk#after")
    assert not server.locks


def test_snapshots_are_made_listed_applied_and_dropped(
    server: SheepdogServer, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.create("other", MIB)
    server.create("disk", 2 * MIB)
    with node_of(f"{url}/disk", read_only=False) as node:
        for content in (b"one", b"two", b"now"):
            node.pwrite(0, content)
            if content != b"now":
                snapshots.create(node, content.decode())
        assert bytes(node.read(0, 3)) == b"now"
        kept = [(each.id, each.name, each.disk_size, each.date) for each in snapshots.snapshots(node)]
        assert kept == [("1", "one", 2 * MIB, 1_700_000_000), ("2", "two", 2 * MIB, 1_700_000_000)]
        node.resize(3 * MIB)
        snapshots.apply(node, "one")
        assert (node.length, bytes(node.read(0, 3))) == (2 * MIB, b"one")
        node.pwrite(0, b"ONE")
        assert len(snapshots.snapshots(node)) == 2
        snapshots.delete(node, "one")
        assert [each.name for each in snapshots.snapshots(node)] == ["two"]
        assert bytes(node.read(0, 3)) == b"ONE"
        with pytest.raises(BlockError, match="'7' would be taken for a snapshot's number"):
            snapshots.create(node, "7")
        assert node.file is not None
        assert isinstance(node.file.driver, SheepdogDriver)
        with pytest.raises(BlockError, match="The tag of a sheepdog snapshot has 255 bytes"):
            node.file.driver.snapshot_create("x" * 256, date=(0, 0))
        with pytest.raises(BlockError, match="Failed to find the requested tag"):
            snapshots.apply(node, "nothing")
        with pytest.raises(BlockError, match="snapshot not found"):
            snapshots.delete(node, "nothing")
    assert not server.locks
    assert qemu_img("snapshot", "-l", f"{url}/disk") == 0
    assert "two" in capsys.readouterr().out
    with node_of(f"{url}/disk#two") as node:
        assert bytes(node.read(0, 3)) == b"two"


def test_going_back_drops_nothing_before_the_new_disk_is_there(server: SheepdogServer, url: str) -> None:
    server.create("disk", MIB)
    with node_of(f"{url}/disk", read_only=False) as node:
        node.pwrite(0, b"old")
        snapshots.create(node, "kept")
        node.pwrite(0, b"new")
        server.tamper = lambda op, reply: result(reply, 3) if op == sheepdog.NEW else reply
        server.before = lambda op, oid: pytest.fail("dropped") if op == sheepdog.DELETE else None
        with pytest.raises(BlockError, match="cannot go back to snapshot 'kept': I/O error"):
            snapshots.apply(node, "kept")


@pytest.mark.parametrize("at", range(1, 5))
def test_a_snapshot_that_is_made_meanwhile_loses_nothing(server: SheepdogServer, url: str, at: int) -> None:
    server.create("disk", 3 * MIB)
    with node_of(f"{url}/disk", read_only=False) as node:
        node.pwrite(0, b"a" * (2 * MIB))
        writes = 0

        def snapshot_first(op: int, oid: int) -> None:
            nonlocal writes
            if op in (sheepdog.WRITE, sheepdog.CREATE_AND_WRITE):
                writes += 1
                if writes == at:
                    server.snapshot("disk", "meanwhile")

        server.before = snapshot_first
        node.pwrite(MIB - 10, b"b" * (2 * MIB))
        server.before = None
        node.flush()
    expected = b"a" * (MIB - 10) + b"b" * (2 * MIB) + bytes(10)
    vdi = server.current("disk")
    assert vdi is not None
    assert server.content(vdi) == expected


def test_zeroes_and_discards_give_whole_objects_back(server: SheepdogServer, url: str) -> None:
    vdi = server.create("disk", 4 * MIB)
    with node_of(f"{url}/disk", read_only=False) as node:
        node.pwrite(0, b"x" * (4 * MIB))
        node.write_zeroes(MIB // 2, 2 * MIB, unmap=True)
        node.discard(3 * MIB - 5, MIB + 5)
        assert [bool(vdi.owner(index)) for index in range(4)] == [True, False, True, False]
        node.write_zeroes(0, 10, unmap=False)
        node.pwrite(MIB, b"y")
    half = b"x" * (MIB // 2)
    expected = bytes(10) + half[10:] + bytes(MIB // 2) + b"y" + bytes(MIB - 1) + bytes(MIB // 2) + half + bytes(MIB)
    assert server.content(vdi) == expected


def test_extents_are_the_objects(server: SheepdogServer, url: str) -> None:
    server.create("disk", 4 * MIB)
    with node_of(f"{url}/disk", read_only=False) as node:
        node.pwrite(MIB + 5, b"x")
        found = [(each.offset, each.length, bool(each.status & Status.DATA)) for each in node.extents(0, node.length)]
        assert found == [(0, MIB, False), (MIB, MIB, True), (2 * MIB, 2 * MIB, False)]
        assert node.file is not None
        assert node.file.driver.allocated_length == MIB  # type: ignore[attr-defined]


def test_a_disk_grows_and_never_shrinks(server: SheepdogServer, url: str) -> None:
    vdi = server.create("disk", MIB)
    struct.pack_into("<I", vdi.inode, sheepdog.TABLE + 4, vdi.number)  # left behind by whoever made it smaller
    server.objects[vdi.number << 32 | 1] = bytearray(b"z" * MIB)
    with node_of(f"{url}/disk", read_only=False) as node:
        node.resize(3 * MIB)
        assert (node.length, vdi.fields[3]) == (3 * MIB, 3 * MIB)
        assert bytes(node.read(MIB, MIB)) == bytes(MIB)
        node.resize(4 * MIB, Preallocation.FULL)
        assert [bool(vdi.owner(index)) for index in range(4)] == [False, False, False, True]
        with pytest.raises(UnsupportedFeature, match="shrinking is not supported"):
            node.resize(MIB)
        with pytest.raises(UnsupportedFeature, match="Unsupported preallocation mode 'falloc'"):
            node.resize(9 * MIB, Preallocation.FALLOC)
        with pytest.raises(BlockError, match="too big image size"):
            node.resize((1 << 40) + 512)


def qemu_img(*words: object) -> int:
    return main(list(map(str, words)), "qemu-img")


def test_images_are_created_and_converted(
    server: SheepdogServer, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.raw"
    source.write_bytes(random.Random(1).randbytes(3 * MIB) + bytes(3 * MIB))
    assert qemu_img("convert", "-f", "raw", "-O", "raw", source, f"{url}/copy") == 0
    assert qemu_img("convert", "-f", "raw", "-O", "qcow2", source, f"{url}/image") == 0
    assert qemu_img("compare", "-f", "raw", source, f"{url}/copy") == 0
    assert qemu_img("check", f"{url}/image") == 0
    assert qemu_img("compare", "-f", "raw", "-F", "qcow2", source, f"{url}/image") == 0
    copy = server.current("copy")
    assert copy is not None
    assert server.content(copy) == source.read_bytes()
    assert [bool(copy.owner(index)) for index in range(6)] == [True] * 3 + [False] * 3
    assert not server.locks
    capsys.readouterr()
    assert qemu_img("info", "--output=json", f"{url}/copy") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["filename"], told["virtual-size"], told["actual-size"]) == (f"{url}/copy", 6 * MIB, 3 * MIB)


def test_options_of_a_new_disk(server: SheepdogServer, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    create = ("create", "-f", "raw", "-o")
    assert qemu_img(*create, "object_size=2M,redundancy=4:2,preallocation=full", f"{url}/new", "3M") == 0
    vdi = server.current("new")
    assert vdi is not None
    assert (vdi.bits, [bool(vdi.owner(index)) for index in range(2)]) == (21, [True, True])
    capsys.readouterr()
    for options, name, message in (
        ("object_size=3M", "a", "Invalid object_size"),
        ("object_size=512k", "a", "Invalid object_size"),
        ("redundancy=3:1", "a", "Invalid redundancy mode"),
        ("redundancy=0", "a", "Invalid redundancy mode"),
        ("redundancy=32", "a", "Invalid redundancy mode"),
        ("redundancy=2:16", "a", "Invalid redundancy mode"),
        ("redundancy=1", "new", "VDI exists already, new"),
        ("redundancy=1", "a#tag", "Can't use snapshot name for image creation"),
        ("preallocation=falloc", "b", "Unsupported preallocation mode 'falloc'"),
    ):
        assert qemu_img(*create, options, f"{url}/{name}", "3M") == 1
        assert message in capsys.readouterr().err
    assert qemu_img("create", "-f", "raw", f"{url}/large", "2T") == 1
    assert "The maximum image size is 1024GB" in capsys.readouterr().err
    assert qemu_img(*create, "help", f"{url}/new") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  object_size=<size>     - Object size of the image",
        "  preallocation=<str>    - Preallocation mode (allowed values: off, full)",
        "  redundancy=<str>       - Redundancy of the image",
        "  size=<size>            - Virtual disk size",
    ]


def test_a_disk_by_options_and_over_a_socket(server: SheepdogServer, tmp_path: Path) -> None:
    server.create("a b", MIB)
    path = tmp_path / "sheep"
    with running(server, path):
        place = {"driver": "sheepdog", "server": {"type": "unix", "path": str(path)}, "vdi": "a b"}
        with graph.open(f"json:{json.dumps(place)}") as node:
            assert (node.length, node.filename) == (MIB, f"sheepdog+unix:///a%20b?socket={path}")
        options = blockdev.from_options({"driver": "raw", "file.driver": "sheepdog", "file.vdi": "a b",
                                         "file.server.type": "unix", "file.server.path": str(path)})  # fmt: skip
        with graph.open(options) as node:
            assert node.filename == f"sheepdog+unix:///a%20b?socket={path}"
        with node_of(f"sheepdog+unix:///a%20b?socket={path}") as node:
            assert node.length == MIB


def test_a_server_without_a_cache_has_nothing_to_flush(server: SheepdogServer, url: str) -> None:
    server.create("disk", MIB)
    server.caches = False
    with node_of(f"{url}/disk", read_only=False) as node:
        node.pwrite(0, b"x")
        node.flush()
    assert sheepdog.FLUSH in server.requests


def test_no_room_is_an_error_and_what_was_written_before_is_there(server: SheepdogServer, url: str) -> None:
    vdi = server.create("disk", 4 * MIB)
    server.limit = 2
    with node_of(f"{url}/disk", read_only=False) as node:
        with pytest.raises(BlockError, match="Server has no space for new objects") as caught:
            node.pwrite(0, b"x" * (4 * MIB))
        assert caught.value.errno == errno.ENOSPC
    assert server.content(vdi) == b"x" * (2 * MIB) + bytes(2 * MIB)


def test_an_object_without_a_name_is_written_anew(server: SheepdogServer, url: str) -> None:
    vdi = server.create("disk", MIB)
    with node_of(f"{url}/disk", read_only=False) as node:
        # The table cannot be written: what was written must not be taken for named.
        server.tamper = lambda op, reply: result(reply, 3) if op == sheepdog.WRITE else reply
        with pytest.raises(BlockError, match="failed to update an inode: I/O error"):
            node.pwrite(0, b"x")
        server.tamper = None
        assert bytes(node.read(0, 1)) == b"\0"
        node.pwrite(1, b"y")
        node.flush()
    assert server.content(vdi)[:2] == b"\0y"


def result(reply: bytes, code: int) -> bytes:
    return reply[:12] + struct.pack("<II", 0, code) + reply[20:TOLD]


def length(reply: bytes, count: int) -> bytes:
    return reply[:12] + struct.pack("<I", count) + reply[16:]


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda reply: None, "the server closed the connection"),
        (lambda reply: reply[:-1], "no answer to READ within 1 seconds"),
        (lambda reply: b"", "no answer to READ within 1 seconds"),
        (lambda reply: length(reply, 0xFFFFFFFF), "the server sends 4294967295 bytes, and was asked for"),
        (lambda reply: length(reply, 0)[:TOLD], "the server sent 0 of"),
        (lambda reply: length(reply, 5)[: TOLD + 5], "the server sent 5 of"),
        (lambda reply: reply[:8] + b"\xff" * 4 + reply[12:], "the server answers request 4294967295 instead of"),
        (lambda reply: reply + reply, "the server answers what was not asked"),
        (lambda reply: result(reply, 2), "No object found"),
        (lambda reply: result(reply, 0xDEADBEEF), "Invalid error code"),
        (lambda reply: bytes(len(reply)), "the server answers request 0 instead of"),
    ],
)
def test_a_server_that_breaks_the_protocol_is_an_error(
    server: SheepdogServer, tamper: Callable[[bytes], bytes | None], message: str
) -> None:
    server.create("disk", MIB)
    server.tamper = lambda op, reply: tamper(reply) if op == sheepdog.READ else reply
    begun = time.monotonic()
    with running(server) as port:
        options = SheepdogDriver.parse_filename(f"sheepdog://127.0.0.1:{port}/disk")
        with pytest.raises(BlockError, match=message):
            SheepdogDriver.open(options, OpenMode(), timeout=1)
    assert time.monotonic() - begun < 10


def test_a_server_that_leaves_in_the_middle_of_an_answer_is_an_error(server: SheepdogServer, url: str) -> None:
    server.create("disk", MIB)

    def leave(op: int, reply: bytes) -> bytes:
        server.leaves = op == sheepdog.READ
        return reply[: TOLD // 2] if server.leaves else reply

    server.tamper = leave
    with pytest.raises(BlockError, match="Failed to read a reply: Unexpected end-of-file"):
        node_of(f"{url}/disk")


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (555, b"\x00", "objects of 2.0 bytes"),
        (555, b"\x28", "objects of 2.40 bytes"),
        (560, b"\xff\xff\xff\xff", "is that of vdi ffffffff"),
        (0, b"other", "'other'"),
        (536, b"\xff" * 8, "more bytes than its table has room for"),
    ],
)
def test_an_inode_that_makes_no_sense_is_refused(
    server: SheepdogServer, url: str, offset: int, value: bytes, message: str
) -> None:
    vdi = server.create("disk", MIB)

    def change(op: int, reply: bytes) -> bytes:
        place = TOLD + offset
        return reply[:place] + value + reply[place + len(value) :] if op == sheepdog.READ else reply

    server.tamper = change
    with pytest.raises(CorruptImage, match=message):
        node_of(f"{url}/disk")
    assert vdi.number not in server.locks


def test_nothing_is_asked_on_a_connection_that_was_lost(server: SheepdogServer, url: str) -> None:
    server.create("disk", MIB)
    node = node_of(f"{url}/disk", read_only=False)
    server.tamper = lambda op, reply: None
    for _ in range(2):
        with pytest.raises(BlockError, match=r"the connection to '.*' was lost: the server closed the connection"):
            node.pwrite(0, b"x")
    node.close()


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BlockError, match=r"Failed to connect to '.*/nobody': No such file or directory"):
        node_of(f"sheepdog+unix:///disk?socket={tmp_path}/nobody")
