from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel.block import creating, graph, notice, permission, rewiring
from hostel.block import node as node_module
from hostel.block.driver import CACHE_MODES, WRITEBACK, Cache, OpenMode
from hostel.block.extent import Extent, Status
from hostel.block.gate import BYPASS, Gate
from hostel.block.node import BlockNode
from hostel.block.permission import Permission, lock
from hostel.block.powers import Preallocation
from hostel.block.protocols.file import FileDriver
from hostel.cause.holder import find_holders
from hostel.errors import BlockError, ImageLocked, OutOfRange, ReadOnly
from support.bystander import Bystander

MODE = OpenMode(read_only=False)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[BlockNode]:
    path = str(tmp_path / "f")
    with creating.create(path) as node:
        yield node


def test_write_beyond_the_end_extends_and_the_gap_reads_as_zeroes(node: BlockNode) -> None:
    node.pwrite(5000, b"tail")
    assert node.length == 5004
    assert node.read(0, 5004) == bytes(5000) + b"tail"


def test_read_beyond_the_end_is_zeroes(node: BlockNode) -> None:
    node.pwrite(0, b"ab")
    assert node.read(1, 4) == b"b\0\0\0"
    assert node.read(100, 4) == bytes(4)


def test_negative_or_huge_offsets_are_out_of_range(node: BlockNode) -> None:
    for offset in (-1, 2**63 - 1, 2**64):
        with pytest.raises(OutOfRange):
            node.read(offset, 2)
        with pytest.raises(OutOfRange):
            node.pwrite(offset, b"xy")
        with pytest.raises(OutOfRange):
            node.write_zeroes(offset, 2)


@pytest.mark.parametrize("unmap", [False, True])
def test_zeroes_are_written_inside_across_and_beyond_the_end(node: BlockNode, unmap: bool) -> None:
    node.pwrite(0, b"\xff" * 100_000)
    node.write_zeroes(10, 50_000, unmap=unmap)
    node.write_zeroes(99_999, 1001, unmap=unmap)
    node.write_zeroes(200_000, 5, unmap=unmap)
    expected = b"\xff" * 10 + bytes(50_000) + b"\xff" * 49_989 + bytes(100_006)
    assert node.length == 200_005
    assert node.read(0, node.length) == expected


def test_zeroes_are_written_where_the_file_system_cannot(node: BlockNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostel.block.protocols.file_space._libc_fallocate", lambda *_: errno.EOPNOTSUPP)
    node.pwrite(0, b"\xff" * 3_000_000)
    node.write_zeroes(1, 2_999_998, unmap=True)
    assert node.read(0, 3_000_000) == b"\xff" + bytes(2_999_998) + b"\xff"
    node.discard(0, 3_000_000)
    assert node.read(0, 1) == b"\xff"


def test_zeroes_beyond_the_end_never_cut_off_what_another_thread_writes_there(node: BlockNode) -> None:
    count, size = 4000, 512
    ready = threading.Barrier(2, timeout=30)

    def write() -> None:
        for index in range(count):
            ready.wait()
            node.pwrite((2 * index + 1) * size, b"x" * size)

    thread = threading.Thread(target=write)
    thread.start()
    for index in range(count):
        ready.wait()
        node.write_zeroes(2 * index * size, size, unmap=True)
    thread.join()
    assert node.read(0, 2 * count * size) == (bytes(size) + b"x" * size) * count


def test_failing_fallocate_is_reported(node: BlockNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostel.block.protocols.file_space._libc_fallocate", lambda *_: errno.ENOSPC)
    node.pwrite(0, b"\xff" * 10)
    with pytest.raises(OSError) as caught:
        node.write_zeroes(0, 10)
    assert caught.value.errno == errno.ENOSPC


def test_extents_show_holes(node: BlockNode) -> None:
    node.pwrite(1 << 20, b"x" * 65536)
    node.resize(3 << 20)
    zero, data = Status.ZERO | Status.ALLOCATED, Status.DATA | Status.ALLOCATED
    assert list(node.extents()) == [
        Extent(0, 1 << 20, zero, 0),
        Extent(1 << 20, 65536, data, 1 << 20),
        Extent((1 << 20) + 65536, (2 << 20) - 65536, zero, (1 << 20) + 65536),
    ]
    assert list(node.extents(1 << 20, 10)) == [Extent(1 << 20, 10, data, 1 << 20)]


def test_extents_know_of_holes_made_since_they_were_last_asked(node: BlockNode) -> None:
    node.pwrite(0, b"x" * (3 << 20))
    assert [extent.length for extent in node.extents(0, 1 << 20)] == [1 << 20]
    node.write_zeroes(1 << 20, 1 << 20, unmap=True)
    assert [bool(extent.status & Status.ZERO) for extent in node.extents()] == [False, True, False]
    node.discard(0, 1 << 20)
    assert [bool(extent.status & Status.ZERO) for extent in node.extents()] == [True, False]
    node.resize(1 << 20)
    assert [(extent.length, bool(extent.status & Status.ZERO)) for extent in node.extents(0, 2 << 20)] == [
        (2 << 20, True)
    ]


def test_sector_in_which_a_file_ends_is_data_to_its_end(node: BlockNode) -> None:
    node.pwrite(0, b"x" * 1000)
    assert [(extent.length, extent.status) for extent in node.extents(0, 1024)] == [
        (1024, Status.DATA | Status.ALLOCATED)
    ]
    assert [extent.length for extent in node.extents(0, 4096)] == [1024, 3072]


def test_a_sync_that_failed_once_keeps_failing(node: BlockNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            node.flush()
    with pytest.raises(OSError, match="Input/output error"):
        node.flush()


def test_a_sync_that_failed_while_the_file_grew_keeps_failing(node: BlockNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host tells of what it has lost once, whoever asks first."""
    lost = [OSError(errno.EIO, "Input/output error")]

    def sync(fd: int) -> None:
        if lost:
            raise lost.pop()

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "fdatasync", sync)
    node.pwrite(0, b"written before")
    with pytest.raises(BlockError, match="Could not write zeros for preallocation: Input/output error"):
        node.resize(1 << 20, Preallocation.FULL)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            node.flush()


@pytest.mark.parametrize("mode", [Preallocation.FALLOC, Preallocation.FULL])
def test_preallocated_growth_occupies_space_and_reads_as_zeroes(node: BlockNode, mode: Preallocation) -> None:
    node.pwrite(0, b"x")
    node.resize(2 << 20, mode)
    assert isinstance(node.driver, FileDriver)
    assert node.driver.allocated_length >= 2 << 20
    assert node.read(0, 3) == b"x\0\0"
    with pytest.raises(BlockError, match="Cannot use preallocation for shrinking files"):
        node.resize(1, mode)


def test_growth_that_fails_leaves_the_old_size(node: BlockNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    node.pwrite(0, b"x")
    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(BlockError, match="No space left on device") as caught:
        node.resize(1 << 20, Preallocation.FALLOC)
    assert caught.value.errno == errno.ENOSPC
    assert node.length == 1


@pytest.mark.parametrize("name", ["", "missing/x", "dir", "fifo", "a\0b", "gopher:host:1"])
def test_what_cannot_be_opened_is_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BlockError) as caught:
        graph.open(name, "raw")
    assert caught.value.errno
    if name != "gopher:host:1":
        assert not name or f"'{name}'" in str(caught.value)
    else:
        assert "Unknown protocol 'gopher'" in str(caught.value)


def test_create_refuses_what_is_no_file_and_keeps_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BlockError, match="Could not create"):
        creating.create(str(tmp_path / "missing" / "x"))
    with pytest.raises(BlockError, match="Could not create"):
        creating.create(str(tmp_path))
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockError, match="no regular file"):
            creating.create(str(tmp_path / "fifo"))
    finally:
        os.close(reader)


def test_read_only_file_refuses_writes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"data")
    with graph.open(str(tmp_path / "f"), "raw") as node:
        writes: tuple[Callable[[], None], ...] = (
            lambda: node.pwrite(0, b"x"),
            lambda: node.write_zeroes(0, 1),
            lambda: node.discard(0, 1),
            lambda: node.resize(10),
        )
        for write in writes:
            with pytest.raises(ReadOnly):
                write()
    assert (tmp_path / "f").read_bytes() == b"data"


def test_second_writer_is_refused_and_told_who(tmp_path: Path) -> None:
    path = str(tmp_path / "disk")
    with creating.create(path) as first:
        first.resize(512)
        with pytest.raises(ImageLocked, match='Failed to get "write" lock') as caught:
            graph.open(path, "raw", read_only=False)
        assert f"Is another process using the image [{path}]?" in str(caught.value.hint)
        with pytest.raises(ImageLocked):
            creating.create(path)
        assert first.length == 512
        with graph.open(path, "raw", force_share=True) as reader:
            assert reader.length == 512
    with graph.open(path, "raw", read_only=False):
        pass


def test_readers_share(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(512))
    with graph.open(str(tmp_path / "f"), "raw"), graph.open(str(tmp_path / "f"), "raw"):
        pass


def test_shared_write_permission_lets_a_second_writer_in(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(512))
    used = Permission.CONSISTENT_READ | Permission.WRITE
    with open(tmp_path / "f", "r+b") as one, open(tmp_path / "f", "r+b") as two:
        lock(one.fileno(), "f", used, Permission.ALL)
        lock(two.fileno(), "f", used, Permission.ALL)
        with open(tmp_path / "f", "r+b") as three, pytest.raises(ImageLocked, match='shared "write" lock'):
            lock(three.fileno(), "f", Permission.CONSISTENT_READ, Permission.ALL & ~Permission.WRITE)


def test_holder_is_named_with_its_process_and_machine(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(512))
    code = "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path), "-name", "guest=web1,debug-threads=on"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        holders = find_holders(str(path))
        process.communicate(timeout=10)
    assert holders == [f"process {process.pid} ({Path(sys.executable).name}, machine web1)"]
    assert find_holders(str(tmp_path / "missing")) == []


def test_force_share_is_for_readers(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(512))
    with pytest.raises(BlockError, match="force-share"):
        graph.open(str(tmp_path / "f"), "raw", read_only=False, force_share=True)


def test_unsafe_cache_never_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hostel.block.driver import CACHE_MODES

    calls: list[int] = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    with creating.create(str(tmp_path / "f"), cache=CACHE_MODES["unsafe"]) as node:
        node.pwrite(0, b"x")
        node.flush()
    assert calls == []
    with graph.open(str(tmp_path / "f"), "raw", read_only=False, cache=CACHE_MODES["writethrough"]) as node:
        node.pwrite(0, b"y")
    assert calls


@pytest.mark.parametrize("cache", [WRITEBACK, CACHE_MODES["none"]])
@pytest.mark.parametrize("mode", [Preallocation.OFF, Preallocation.FALLOC])
def test_a_new_file_has_its_first_block(tmp_path: Path, mode: Preallocation, cache: Cache) -> None:
    path = tmp_path / "a"
    path.touch()
    with graph.open(str(path), "raw", read_only=False, cache=cache) as node:
        node.resize(1 << 20, mode)
        with path.open("rb") as file:
            assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        node.resize(2 << 20)
    assert path.stat().st_size == 2 << 20
    assert path.read_bytes() == bytes(2 << 20)


@pytest.mark.parametrize("size", [1, 100, 512, 4095, 4096])
def test_a_small_new_file_gets_no_larger_by_that(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a"
    path.touch()
    with creating.create(str(path)) as node:
        node.resize(size)
    assert path.stat().st_size == size


def test_locks_end_with_the_node_though_a_program_that_starts_has_the_file_open(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(512))
    node = graph.open(str(path), "raw", read_only=False)
    held = [os.dup(int(fd)) for fd in os.listdir("/proc/self/fd") if _opens(fd, path)]  # as after a fork
    assert held
    node.close()
    graph.open(str(path), "raw", read_only=False).close()
    for fd in held:
        os.close(fd)


def _opens(fd: str, path: Path) -> bool:
    try:
        return Path(f"/proc/self/fd/{fd}").readlink() == path
    except OSError:
        return False


@pytest.mark.parametrize("refused", [False, True])
def test_a_file_is_locked_all_the_while_it_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """Between the old locks and the new ones a writer could come in that QEMU would keep out."""
    path = tmp_path / "f"
    path.write_bytes(bytes(512))
    unlock, seen = permission.unlock, list[bool]()
    driver = FileDriver.open(str(path), OpenMode(read_only=True))
    driver.lock(Permission.CONSISTENT_READ, Permission.ALL & ~Permission.RESIZE)
    with open(path, "rb") as other, open(path, "rb") as probe:
        if refused:
            lock(other.fileno(), str(path), Permission.CONSISTENT_READ, Permission.ALL & ~Permission.WRITE)

        def unlocked(fd: int) -> None:
            unlock(fd)
            # That we write, or that nobody else may resize: the other one has locked something else.
            seen.append(any(permission._held(probe.fileno(), byte) for byte in (101, 203)))

        monkeypatch.setattr(permission, "unlock", unlocked)
        if refused:
            with pytest.raises(ImageLocked, match='Failed to get "write" lock'):
                driver.reopened(lambda mode: mode._replace(read_only=False))
        else:
            driver = driver.reopened(lambda mode: mode._replace(read_only=False))
        assert seen == ([True, True] if refused else [True])
        monkeypatch.undo()
        driver.close()


# Once a file is closed, the next one that is opened has its number.


def _driver(node: BlockNode) -> FileDriver:
    assert isinstance(node.driver, FileDriver)
    return node.driver


def _closing(node: BlockNode) -> threading.Thread:
    closer = threading.Thread(target=node.close, daemon=True)
    closer.start()
    closer.join(0.3)  # where it waits for nobody, it has ended by then
    return closer


def test_a_closed_image_reaches_no_file_that_has_its_number(tmp_path: Path) -> None:
    node = creating.create(str(tmp_path / "f"))
    driver = _driver(node)
    with Bystander(tmp_path / "other", driver.fileno()) as other:
        node.close()
        other.take()
        with pytest.raises(BlockError, match=r"f' is closed$"):
            node.pwrite(0, b"lost")
        with pytest.raises(BlockError, match=r"f' is closed$"):
            node.read(0, 4)
        late: tuple[Callable[[], object], ...] = (
            lambda: driver.pwrite(0, memoryview(b"lost")),
            lambda: driver.pread(0, memoryview(bytearray(4))),
            lambda: driver.resize(0),
            lambda: driver.write_zeroes(0, 4, unmap=True),
            lambda: list(driver.extents(0, 9)),
            driver.flush,
            driver.close,
        )
        for use in late:
            with pytest.raises((OSError, ValueError)):
                use()
        assert driver.fileno() == -1
        assert other.untouched()


def test_closing_waits_for_a_write_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = creating.create(str(tmp_path / "f"))
    reached, go, pwrite = threading.Event(), threading.Event(), os.pwrite

    def held(fd: int, data: memoryview, offset: int) -> int:
        reached.set()
        go.wait(10)
        return pwrite(fd, data, offset)

    with Bystander(tmp_path / "other", _driver(node).fileno()) as other:
        monkeypatch.setattr(os, "pwrite", held)
        writer = threading.Thread(target=node.pwrite, args=(0, b"image"), daemon=True)
        writer.start()
        assert reached.wait(10)
        closer = _closing(node)
        other.take()
        go.set()
        writer.join(10)
        closer.join(10)
        assert other.untouched()
    assert (tmp_path / "f").read_bytes() == b"image"


def test_closing_waits_for_who_goes_past_the_node(tmp_path: Path) -> None:
    node = creating.create(str(tmp_path / "f"))
    number = _driver(node).fileno()
    reached, go = threading.Event(), threading.Event()
    generation = BYPASS.generation

    def write() -> None:
        with _driver(node).past:
            reached.set()
            go.wait(10)
            os.pwrite(number, b"image", 0)

    with Bystander(tmp_path / "other", number) as other:
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        assert reached.wait(10)
        closer = _closing(node)
        other.take()
        go.set()
        writer.join(10)
        closer.join(10)
        assert other.untouched()
        assert BYPASS.generation != generation  # who comes now asks the graph anew
    assert (tmp_path / "f").read_bytes() == b"image"


def test_an_image_whose_requests_do_not_end_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "DRAIN_TIMEOUT", 0.05)
    node = creating.create(str(tmp_path / "f"))
    reached, go, pwrite = threading.Event(), threading.Event(), os.pwrite

    def held(fd: int, data: memoryview, offset: int) -> int:
        reached.set()
        go.wait(10)
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", held)
    writer = threading.Thread(target=node.pwrite, args=(0, b"image"), daemon=True)
    writer.start()
    assert reached.wait(10)
    with pytest.raises(BlockError, match=r"do not come to an end; it stays open$") as caught:
        node.close()
    assert caught.value.errno == errno.EBUSY
    assert not node.closed
    go.set()
    writer.join(10)
    assert node.read(0, 5) == b"image"
    node.close()
    assert node.closed


def test_an_image_whose_close_fails_as_it_is_reopened_keeps_its_new_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = creating.create(str(tmp_path / "f"))
    node.pwrite(0, b"image")
    number, close = _driver(node).fileno(), os.close

    def full(fd: int) -> None:
        close(fd)  # which frees the number, whatever comes of it
        if fd == number:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    said: list[str] = []
    with Bystander(tmp_path / "other", number) as other:
        with notice.listening(said.append), monkeypatch.context() as patch:
            patch.setattr(os, "close", full)
            rewiring.reopen(node, read_only=True)
        other.take()
        rewiring.reopen(node, read_only=False)
        node.pwrite(0, b"after")
        assert said == [f"'{tmp_path}/f', which was opened anew, could not be closed: {os.strerror(errno.EDQUOT)}"]
        with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
            node.flush()  # what the host could not store stays told
        assert other.untouched()
        node.close()
        assert other.untouched()
    assert (tmp_path / "f").read_bytes() == b"after"


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="the host has no /proc")
def test_a_file_without_a_size_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(BlockError, match="Could not refresh total sector count: Invalid argument"):
        FileDriver.open("/proc/version", OpenMode())


@pytest.mark.parametrize(
    "act",
    [lambda node: node.read(0, 4), lambda node: node.pwrite(0, b"data"), lambda node: node.flush()],
    ids=["read", "write", "flush"],
)
def test_who_is_interrupted_on_coming_in_is_not_waited_for(tmp_path: Path, act: Callable[[BlockNode], object]) -> None:
    """As by Ctrl-C between two steps of the interpreter, of which the first has counted the request."""
    node = creating.create(str(tmp_path / "f"))
    gate = node._lock
    assert isinstance(gate, Gate)
    come = gate.come

    def come_and_be_interrupted(me: int) -> None:
        come(me)
        raise KeyboardInterrupt

    gate.come = come_and_be_interrupted
    with pytest.raises(KeyboardInterrupt):
        act(node)
    gate.come = come
    assert node.drain(0.0)
    node.resume()
    node.close()


def test_who_clears_up_behind_an_interruption_does_not_wait_for_himself(tmp_path: Path) -> None:
    """A request that was interrupted as it went out may be counted still."""
    node = creating.create(str(tmp_path / "f"))
    assert isinstance(node._lock, Gate)
    node._lock.come(threading.get_ident())
    notes: list[str] = []

    def work() -> None:
        try:
            with node:
                raise KeyboardInterrupt
        except KeyboardInterrupt as interruption:
            notes.extend(interruption.__notes__)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    [note] = notes
    assert note.endswith("do not come to an end; it stays open")
    node._lock.go(threading.get_ident())
    node.close()
