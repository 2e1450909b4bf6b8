"""What a signal handler does to a raw disk, or to one on a server, that its own thread is in the middle of."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest

from hostel.block import graph, incident
from hostel.block.blockdev import from_options
from hostel.block.draining import drained
from hostel.block.driver import Cache
from hostel.block.filters.packed.spool import Spool
from hostel.block.gate import Gate
from hostel.block.node import BlockNode
from hostel.block.powers import Preallocation
from hostel.block.protocols.rbd.driver import RbdDriver
from hostel.block.unpacked import Unpacked
from hostel.errors import BlockError, Reentered
from hostel.export.nbd.export import NbdExport
from support.nbd import MIB, played, raw_disk, serving
from support.scripted_nbd import Scripted, opened
from support.web import played_http, ranged

SOON = 20.0  # seconds, where an endless wait is what would be wrong


class Handler:
    """Something that comes once before a call of some function, as a signal handler does.

    Args:
        before: the name of one in C, or of one in Python behind ``def``; with a number before it, of that call.
    """

    def __init__(self, before: str, act: Callable[[], object]) -> None:
        number, _, name = before.partition(" ")
        self._before, self._act = (name if number.isdigit() else before), act
        self._left = int(number) if number.isdigit() else 1
        self.came = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        name = getattr(argument, "__name__", "") if event == "c_call" else f"def {frame.f_code.co_name}"
        if event in ("c_call", "call") and name == self._before and not self.came:
            self._left -= 1
            if not self._left:
                self.came = True
                self._act()

    def comes_into(self, call: Callable[[], object]) -> None:
        """Make a call, in a thread that is given up where it does not come to an end."""
        failures: list[BaseException] = []

        def run() -> None:
            sys.setprofile(self)
            try:
                call()
            except BaseException as error:
                failures.append(error)
            finally:
                sys.setprofile(None)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(SOON)
        assert not thread.is_alive()
        if failures:
            raise failures[0]
        assert self.came


def _drain(node: BlockNode) -> None:
    with drained(node):
        pass


EXCLUDING: dict[str, Callable[[BlockNode], object]] = {
    "close": BlockNode.close,
    "shrink": lambda node: node.resize(MIB // 2),
    "drain": _drain,
}
USES: dict[str, Callable[[BlockNode], object]] = {
    "read": lambda node: node.read(0, 512),
    "write": lambda node: node.pwrite(0, b"w" * 512),
    "part of a block": lambda node: node.pwrite(1, b"w"),
    "zero": lambda node: node.write_zeroes(0, MIB),
    "flush": BlockNode.flush,
}


def _refused(use: Callable[[BlockNode], object], node: BlockNode) -> None:
    begun = time.monotonic()
    with pytest.raises(Reentered, match="signal handler"):
        use(node)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("use", EXCLUDING)
def test_raw_disk_is_not_taken_away_from_a_request(tmp_path: Path, use: str) -> None:
    with raw_disk(tmp_path, b"d" * MIB) as node:
        got: list[bytearray] = []
        Handler("preadv", lambda: _refused(EXCLUDING[use], node)).comes_into(lambda: got.append(node.read(0, 4096)))
        assert got == [b"d" * 4096]
        Handler("pwrite", lambda: _refused(EXCLUDING[use], node)).comes_into(lambda: node.pwrite(0, b"x" * 4096))
        assert not node.closed
        EXCLUDING[use](node)  # nobody is kept out by what was refused
    assert (tmp_path / "disk.raw").read_bytes()[:4097] == b"x" * 4096 + b"d"


def test_raw_disk_is_used_in_the_middle_of_a_request(tmp_path: Path) -> None:
    with raw_disk(tmp_path, b"d" * MIB) as node:
        Handler("preadv", lambda: node.pwrite(0, b"w" * 512)).comes_into(lambda: node.read(0, 4096))
        assert node.read(0, 513) == b"w" * 512 + b"d"


def test_threshold_is_passed_in_the_middle_of_passing_it(tmp_path: Path) -> None:
    with raw_disk(tmp_path, b"d" * MIB) as node:
        node.marks.watch(1024)
        Handler("def watch", lambda: node.pwrite(4096, b"w" * 512)).comes_into(lambda: node.pwrite(4096, b"x" * 512))
        assert not node.marks.threshold


def test_gate_is_not_closed_from_inside() -> None:
    gate = Gate()
    with gate:
        for _ in range(2):
            with pytest.raises(Reentered):
                gate.close(SOON)
    assert gate.close(0)
    gate.open()
    assert gate.is_idle


@pytest.mark.parametrize("use", ["write", "part of a block"])
def test_write_past_the_page_cache_is_not_waited_for_by_its_own_thread(tmp_path: Path, use: str) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"d" * MIB)
    try:
        node = graph.open(str(path), "raw", read_only=False, cache=Cache(direct=True))
    except BlockError as error:
        pytest.skip(str(error))
    with node:
        Handler("pwrite", lambda: _refused(USES[use], node)).comes_into(lambda: node.pwrite(1, b"x"))
        assert node.read(0, 3) == b"dxd"


@pytest.mark.parametrize("use", [*USES, "close", "drain"])
def test_disk_on_an_nbd_server_is_not_used_in_the_middle_of_a_request(tmp_path: Path, use: str) -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(raw_disk(tmp_path, b"d" * MIB))
        path = stack.enter_context(serving(tmp_path, NbdExport(disk))).path
        node = stack.enter_context(opened(path))
        act = (USES | EXCLUDING)[use]
        got: list[bytearray] = []
        for call in ("recv_into", "sendmsg"):
            Handler(call, lambda: _refused(act, node)).comes_into(lambda: got.append(node.read(0, MIB)))
        Handler("recv_into", lambda: _refused(act, node)).comes_into(lambda: node.pwrite(512, b"x" * 512))
        Handler("recv_into", lambda: _refused(act, node)).comes_into(node.flush)
        assert got == [b"d" * MIB] * 2
        assert node.read(0, 1536) == b"d" * 512 + b"x" * 512 + b"d" * 512


@pytest.mark.parametrize("options", ["", ",reconnect-delay=10"])
@pytest.mark.parametrize("error", [TimeoutError("too long"), ValueError("too long"), Reentered("another's")])
@pytest.mark.parametrize("call", ["recv_into", "sendmsg"])
def test_what_a_handler_raises_is_no_error_of_a_server(
    tmp_path: Path, call: str, error: Exception, options: str
) -> None:
    """Nor is it forgotten where the request can be made again; and what comes late is not put into its memory."""

    def handler() -> None:
        raise error

    with played(tmp_path, Scripted(MIB, 0)) as path, opened(path, options=options) as node:
        with pytest.raises(type(error), match=str(error)):
            Handler(call, handler).comes_into(lambda: node.pread(0, memoryview(bytearray(MIB))))
        if options:
            assert node.read(0, 512) == bytes(512)
        else:
            with pytest.raises(BlockError, match="was lost: interrupted"):
                node.read(0, 512)


def test_what_a_handler_raises_in_a_web_transfer_is_raised() -> None:
    pytest.importorskip("pycurl")
    content = bytes(range(256)) * 4096

    def handler() -> None:
        raise TimeoutError("too long")

    with played_http(lambda headers: ranged(content, headers)) as (url, _), graph.open(url, "raw") as node:
        for call in ("decode", "perform"):  # in the answer's headers, and between two steps of libcurl
            with pytest.raises(TimeoutError, match="too long"):
                Handler(call, handler).comes_into(lambda: node.read(0, MIB))
        assert node.read(0, MIB) == content


def test_disk_on_a_web_server_is_read_in_the_middle_of_a_read() -> None:
    pytest.importorskip("pycurl")
    content = random.Random(1).randbytes(MIB)
    got: list[bytearray] = []
    wanted: list[bytes] = []
    with played_http(lambda headers: ranged(content, headers)) as (url, _), graph.open(url, "raw") as node:
        for number, call in enumerate(("decode", "perform", "setopt", "appendleft")):
            offset = MIB - 4096 * (number + 1)  # before what was read ahead
            handler = Handler(call, lambda: got.append(node.read(0, MIB)))
            handler.comes_into(lambda offset=offset: got.append(node.read(offset, 4096)))  # type: ignore[misc]
            wanted += [content, content[offset : offset + 4096]]
    assert got == wanted


class GrowingImage:
    """As much of an image of a Ceph cluster as growing takes."""

    def __init__(self) -> None:
        self.bytes = 0

    def size(self) -> int:
        return self.bytes

    def resize(self, size: int) -> None:
        self.bytes = size

    def write(self, offset: int, data: memoryview) -> None:
        assert offset + len(data) <= self.bytes


def test_growing_image_is_not_cut_off_by_the_growth_a_handler_came_into() -> None:
    image = GrowingImage()
    driver = RbdDriver(cast(Any, None), cast(Any, image), "rbd:p/i", encrypted=False, no_flush=False)
    node = BlockNode(driver, "rbd:p/i", read_only=False)
    refused: list[BaseException] = []

    def handler() -> None:
        with pytest.raises(Reentered) as caught:
            node.pwrite(4096, b"h" * 512)
        refused.append(caught.value)

    Handler("def resize", handler).comes_into(lambda: node.pwrite(0, b"x" * 512))
    assert len(refused) == 1
    node.pwrite(4096, b"h" * 512)
    assert image.bytes == 4608


@pytest.mark.parametrize("name", ["preallocate", "blklogwrites"])
def test_filter_that_keeps_account_of_writes_is_not_waited_for_by_its_own_thread(tmp_path: Path, name: str) -> None:
    for each in ("disk", "log"):
        (tmp_path / each).write_bytes(b"")
    options = {"driver": name, "file.driver": "file", "file.filename": str(tmp_path / "disk")}
    if name == "blklogwrites":
        options |= {"log.driver": "file", "log.filename": str(tmp_path / "log")}
    with graph.open(from_options(options), read_only=False) as node:
        step = {"preallocate": "def zeroes_fast", "blklogwrites": "def _make_room"}[name]
        Handler(step, lambda: _refused(USES["write"], node)).comes_into(lambda: node.pwrite(0, b"x" * 512))
        assert node.read(0, 512) == b"x" * 512
        node.pwrite(MIB, b"w" * 512)


def _late() -> None:
    raise TimeoutError("too late")


CHILDREN = {
    "preallocate": ["file"],
    "quorum": ["children.0", "children.1", "children.2"],
    "blkverify": ["raw", "test"],
}


@pytest.mark.parametrize(
    ("name", "use", "step"),
    [
        ("preallocate", "write", "def _libc_fallocate"),
        ("quorum", "read", "preadv"),
        ("quorum", "write", "pwrite"),
        ("quorum", "correct", "pwrite"),
        ("quorum", "flush", "fdatasync"),
        ("blkverify", "write", "2 pwrite"),
    ],
)
def test_what_a_handler_raises_is_no_failure_of_what_is_below_a_filter(
    tmp_path: Path, name: str, use: str, step: str
) -> None:
    options = {"driver": name} | ({"vote-threshold": "2", "rewrite-corrupted": "on"} if name == "quorum" else {})
    for each in CHILDREN[name]:
        (tmp_path / each).write_bytes(b"" if name == "preallocate" else b"x" * MIB)
        options |= {f"{each}.driver": "file", f"{each}.filename": str(tmp_path / each)}
    if use == "correct":
        (tmp_path / "children.1").write_bytes(b"y" * MIB)

    told: list[str] = []
    with (
        incident.listening(lambda event, data: told.append(event)),
        graph.open(from_options(options), read_only=False) as node,
    ):
        if use == "flush":
            node.pwrite(0, b"w" * 512)
        with pytest.raises(TimeoutError, match="too late"):
            Handler(step, _late).comes_into(lambda: (USES | {"correct": USES["read"]})[use](node))
    assert told == (["QUORUM_REPORT_BAD"] if use == "correct" else [])


def test_what_a_handler_raises_while_a_file_grows_is_raised_and_the_file_keeps_its_size(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x" * MIB)

    with graph.open(from_options({"driver": "file", "filename": str(tmp_path / "disk")}), read_only=False) as node:
        with pytest.raises(TimeoutError, match="too late"):
            Handler("posix_fallocate", _late).comes_into(lambda: node.resize(2 * MIB, Preallocation.FALLOC))
        assert node.length == MIB
    assert (tmp_path / "disk").read_bytes() == b"x" * MIB


def test_part_is_not_unpacked_in_the_middle_of_unpacking_it() -> None:
    unpacked = Unpacked()

    def unpack() -> bytes:
        with pytest.raises(Reentered):
            unpacked.part(3, lambda: b"")
        return b"part"

    assert unpacked.part(3, unpack) == b"part"


def test_stream_is_not_unpacked_further_in_the_middle_of_that() -> None:
    def pieces() -> Iterator[bytes]:
        with pytest.raises(Reentered):
            spool.fill()
        yield b"piece"

    spool = Spool(pieces(), MIB)
    with contextlib.closing(spool):
        assert spool.fill() == 5
