"""What a signal handler does to an image that its own thread is in the middle of."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.driver import FilterDriver
from hostel.block.filters.forward import ForwardDriver
from hostel.block.node import BlockNode
from hostel.block.rewiring import insert_filter, remove_filter
from hostel.errors import BlockError, Reentered
from support.image import content, qemu_img, real_qemu_img
from support.memory import LoggedDriver

KIB = 1024


class Handled(LoggedDriver):
    """A driver in each of whose calls a handler comes."""

    handler: Callable[[], object] | None = None

    def _handle(self) -> None:
        handler, self.handler = self.handler, None
        if handler is not None:
            handler()

    def pread(self, offset: int, buf: memoryview) -> None:
        self._handle()
        super().pread(offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        self._handle()
        super().pwrite(offset, data)

    def flush(self) -> None:
        self._handle()
        super().flush()

    def close(self) -> None:
        self._handle()
        super().close()


USES: dict[str, Callable[[BlockNode], object]] = {
    "read": lambda node: node.read(0, 512),
    "write": lambda node: node.pwrite(0, b"w" * 512),
    "zero": lambda node: node.write_zeroes(0, 512),
    "flush": BlockNode.flush,
    "extents": lambda node: list(node.extents()),
    "resize": lambda node: node.resize(128 * KIB),
    "drain": lambda node: node.drain(0.0),
    "close": BlockNode.close,
}
CALLS = {name: USES[name] for name in ("read", "write", "flush")}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("call", CALLS)
def test_use_in_the_middle_of_a_call_is_refused(call: str, use: str) -> None:
    driver = Handled(bytes(64 * KIB))
    node = BlockNode(driver, "disk", read_only=False)
    refused: list[str] = []

    def handler() -> None:
        with pytest.raises(Reentered) as caught:
            USES[use](node)
        refused.append(str(caught.value))

    driver.handler = handler
    CALLS[call](node)
    assert refused == ["A signal handler cannot use 'disk', which its own thread is in the middle of using"]
    assert not node.closed
    node.pwrite(0, b"x" * 512)  # whoever catches that may go on
    assert node.read(0, 512) == b"x" * 512
    node.close()
    assert node.closed


def test_use_while_it_is_closed_is_refused() -> None:
    driver = Handled(bytes(64 * KIB))
    node = BlockNode(driver, "disk", read_only=False)
    refused: list[type[BaseException]] = []

    def handler() -> None:
        with pytest.raises(BlockError) as caught:
            node.flush()
        refused.append(caught.type)

    driver.handler = handler
    node.close()
    assert refused == [Reentered]
    assert node.closed


@pytest.mark.parametrize(
    "error", [TimeoutError("too long"), ValueError("too long"), MemoryError(), KeyboardInterrupt()]
)
@pytest.mark.parametrize("call", CALLS)
def test_what_a_handler_raises_ends_the_use_of_an_image(call: str, error: BaseException) -> None:
    driver = Handled(bytes(64 * KIB))
    node = BlockNode(driver, "disk", read_only=False)

    def handler() -> None:
        raise error

    driver.handler = handler
    with pytest.raises(type(error)):
        CALLS[call](node)
    for use in ("read", "write", "flush"):
        with pytest.raises(BlockError, match="'disk' was interrupted in the middle of a request; open it again"):
            USES[use](node)


def test_it_ends_also_where_the_image_is_moved_to(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    with graph.open(str(path), "qcow2", read_only=False) as node:
        below = insert_filter(node, ForwardDriver)
        filtered = node.driver
        assert isinstance(filtered, FilterDriver)
        with pytest.raises(ValueError, match="late"), below.lock():
            raise ValueError("late")
        remove_filter(node, filtered)
        with pytest.raises(BlockError, match="was interrupted in the middle of a request; open it again"):
            node.read(0, 512)
        with contextlib.suppress(BlockError):
            node.flush()
        node.disown("the test has seen it")


def test_error_of_the_host_does_not() -> None:
    driver = Handled(bytes(64 * KIB))
    node = BlockNode(driver, "disk", read_only=False)

    def handler() -> None:
        raise OSError(5, "Input/output error")

    driver.handler = handler
    with pytest.raises(OSError, match="Input/output error"):
        node.flush()
    node.pwrite(0, b"x" * 512)
    assert node.read(0, 512) == b"x" * 512
    node.close()


@contextlib.contextmanager
def alarms(handler: Callable[[], object], seconds: float) -> Iterator[None]:
    former = signal.signal(signal.SIGALRM, lambda number, frame: handler())
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def test_image_stays_whole_under_a_handler_that_flushes_and_writes(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "16M")
    rng = random.Random(3)
    wanted = bytearray(16 << 20)
    refused = 0

    def write() -> None:
        block = rng.randrange(len(wanted) >> 12)
        data = bytes([block % 251 + 1]) * 4096
        node.pwrite(block << 12, data)
        wanted[block << 12 : (block + 1) << 12] = data

    def handler() -> None:
        nonlocal refused
        try:
            node.flush()
            write()
        except Reentered:
            refused += 1

    with graph.open(str(path), "qcow2", read_only=False) as node, alarms(handler, 0.0005):
        for _ in range(4000):
            write()
    assert refused > 0
    assert content(path, "qcow2") == wanted
    real_qemu_img("check", "-q", "-f", "qcow2", path)
