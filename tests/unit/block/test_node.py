from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hostel.block import filename
from hostel.block.driver import CACHE_MODES, BlockDriver, Supports
from hostel.block.extent import Extent, Status, merge
from hostel.block.node import BlockNode, fill_zeroes
from hostel.errors import BlockError, HostelError, NoSpace, OutOfRange, ReadOnly, UnsupportedFeature


class Plain(BlockDriver):
    """The least that a driver can be: no zeroes, no discard."""

    name = "plain"
    supports = Supports.WRITE

    def __init__(self, size: int) -> None:
        super().__init__()
        self.data = bytearray(size)
        self.flushes = 0
        self.closes = 0
        self.fail_close = False

    @property
    def length(self) -> int:
        return len(self.data)

    def pread(self, offset: int, buf: memoryview) -> None:
        buf[:] = self.data[offset : offset + len(buf)]

    def pwrite(self, offset: int, data: memoryview) -> None:
        self.data[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.flushes += 1

    def close(self) -> None:
        self.closes += 1
        if self.fail_close:
            raise OSError(5, "metadata lost")


class Fixed(Plain):
    """What has a size of its own, as a device has."""

    supports = Supports.WRITE | Supports.ENDS


def test_node_of_a_fixed_size_has_zeroes_and_no_space_beyond_its_end() -> None:
    node = BlockNode(Fixed(1000), "x", read_only=False)
    node.pwrite(0, b"d" * 1000)
    assert node.read(990, 20) == b"d" * 10 + bytes(10)
    assert node.read(5000, 20) == bytes(20)
    assert list(node.extents(500, 1000)) == [
        Extent(500, 500, Status.DATA | Status.ALLOCATED),
        Extent(1000, 500, Status.ZERO | Status.ALLOCATED),
    ]
    writes: tuple[Callable[[], None], ...] = (
        lambda: node.pwrite(990, b"x" * 20),
        lambda: node.write_zeroes(990, 20),
    )
    for write in writes:
        with pytest.raises(NoSpace, match=r"^'x' ends at 1000 bytes, and cannot grow$"):
            write()
    assert node.read(990, 10) == b"d" * 10
    with pytest.raises(OutOfRange):
        node.read(-1, 5)
    bounded = BlockNode(Fixed(1000), "x", read_only=False, bounded=True)
    with pytest.raises(OutOfRange):
        bounded.read(990, 20)


def test_node_emulates_zeroes_by_writing() -> None:
    driver = Plain(3 << 20)
    node = BlockNode(driver, "x", read_only=False)
    node.pwrite(0, b"\xff" * (3 << 20))
    node.write_zeroes(1, (3 << 20) - 2, unmap=True)
    assert driver.data == b"\xff" + bytes((3 << 20) - 2) + b"\xff"


def test_node_ignores_discard_and_reports_all_data_where_the_driver_knows_no_better() -> None:
    driver = Plain(100)
    node = BlockNode(driver, "x", read_only=False)
    node.pwrite(0, b"\xff" * 100)
    node.discard(0, 100)
    assert node.read(0, 100) == b"\xff" * 100
    assert list(node.extents()) == [Extent(0, 100, Status.DATA | Status.ALLOCATED)]


def test_node_refuses_resize_by_the_format_s_name() -> None:
    with pytest.raises(UnsupportedFeature, match="Image format driver does not support resize"):
        BlockNode(Plain(1), "x", read_only=False).resize(5)


def test_writethrough_flushes_after_each_write() -> None:
    driver = Plain(100)
    node = BlockNode(driver, "x", read_only=False, cache=CACHE_MODES["writethrough"])
    node.pwrite(0, b"a")
    node.write_zeroes(0, 1)
    assert driver.flushes == 2


def test_read_only_node_is_not_flushed() -> None:
    driver = Plain(1)
    BlockNode(driver, "x", read_only=True).flush()
    assert driver.flushes == 0


def test_empty_ranges_are_allowed_up_to_the_end() -> None:
    node = BlockNode(Plain(10), "x", read_only=False)
    node.pwrite(10, b"")
    node.write_zeroes(10, 0)
    node.discard(10, 0)
    assert node.read(10, 0) == b""
    with pytest.raises(OutOfRange):
        node.read(11, 0)


def test_read_of_a_shorter_backing_is_padded() -> None:
    node = BlockNode(Plain(10), "x", read_only=False)
    node.pwrite(0, b"0123456789")
    for offset, expected in ((5, b"56789\0\0\0"), (10, bytes(8)), (50, bytes(8)), (0, b"01234567")):
        buffer = bytearray(b"?" * 8)
        node.pread_padded(offset, memoryview(buffer))
        assert buffer == expected


def test_close_closes_the_children_once_even_when_the_driver_fails() -> None:
    parent, child = Plain(1), Plain(1)
    parent.children["file"] = BlockNode(child, "child", read_only=False)
    parent.fail_close = True
    node = BlockNode(parent, "parent", read_only=False)
    with pytest.raises(OSError, match="metadata lost"):
        node.close()
    node.close()
    assert (parent.closes, child.closes) == (1, 1)


def test_a_failure_to_close_does_not_hide_why_the_block_was_left() -> None:
    driver = Plain(1)
    driver.fail_close = True
    with pytest.raises(OSError, match="no space") as caught, BlockNode(driver, "x", read_only=False):
        raise OSError(28, "no space")
    assert "metadata lost" in caught.value.__notes__[0]
    with pytest.raises(OSError, match="metadata lost"), BlockNode(driver, "x", read_only=False):
        pass


def test_chain_goes_down_the_backing_files() -> None:
    base, top = Plain(1), Plain(1)
    top.children["backing"] = BlockNode(base, "base", read_only=True)
    node = BlockNode(top, "top", read_only=True)
    assert [each.filename for each in node.chain()] == ["top", "base"]
    assert node.file is None
    assert "plain 'top'" in repr(node)


def test_driver_without_writing_refuses() -> None:
    class Still(Plain):
        pwrite = BlockDriver.pwrite
        write_zeroes = BlockDriver.write_zeroes

    node = BlockNode(Still(5), "x", read_only=False)
    with pytest.raises(ReadOnly, match="plain images cannot be written"):
        node.pwrite(0, b"x")


def test_neighbours_merge_when_status_and_host_offset_continue() -> None:
    data, zero = Status.DATA, Status.ZERO

    def pieces() -> Iterator[Extent]:
        yield Extent(0, 5, data, 100)
        yield Extent(5, 5, data, 105)
        yield Extent(10, 5, data, 500)
        yield Extent(15, 5, zero)
        yield Extent(20, 5, zero)
        yield Extent(25, 5, zero, 3)

    assert list(merge(pieces())) == [
        Extent(0, 10, data, 100),
        Extent(10, 5, data, 500),
        Extent(15, 10, zero),
        Extent(25, 5, zero, 3),
    ]


def test_fill_zeroes_reaches_the_end_of_a_big_buffer() -> None:
    buffer = bytearray(b"\xff" * ((2 << 20) + 3))
    fill_zeroes(memoryview(buffer))
    assert not any(buffer)


def test_block_error_is_an_os_error_with_its_message_alone() -> None:
    error = BlockError("broken")
    assert isinstance(error, OSError)
    assert isinstance(error, HostelError)
    assert (str(error), error.errno) == ("broken", 5)


@pytest.mark.parametrize(
    ("name", "holder", "expected"),
    [
        ("base.raw", "/images/top.qcow2", "/images/base.raw"),
        ("base.raw", "top.qcow2", "base.raw"),
        ("../base", "dir/top", "dir/../base"),
        ("/abs", "dir/top", "/abs"),
        ("nbd:host:1", "dir/top", "nbd:host:1"),
        ("base", "file:dir/top", "dir/base"),
        ("base", "file:image:top", "./base"),
        ("./a:b", "dir/top", "dir/./a:b"),
    ],
)
def test_relative_backing_names_start_at_their_holder(name: str, holder: str, expected: str) -> None:
    assert filename.resolve(name, holder) == expected


def test_protocol_is_what_stands_before_the_first_colon() -> None:
    assert filename.protocol("nbd+unix:///x") == "nbd+unix"
    assert filename.protocol("dir/a:b") is None
    assert filename.protocol("/a:b") is None
    assert filename.protocol("plain") is None
