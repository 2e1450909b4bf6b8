"""Our back end and a front end of the tests': requests, set-up, and all that a hostile guest may try."""

from __future__ import annotations

import os
import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel.block import blockdev, graph
from hostel.block.node import BlockNode
from hostel.img import create
from support.vhost import (
    DISCARD,
    EVENT_IDX,
    F_FLUSH,
    F_RO,
    FLUSH,
    GET_ID,
    GUEST,
    IN,
    INDIRECT,
    INDIRECT_DESC,
    MIB,
    NEXT,
    OUT,
    USER,
    WRITE,
    WRITE_ZEROES,
    FrontEnd,
    Queue,
    Served,
    driver,
    serving,
)

OK, FAILED, UNSUPPORTED = 0, 1, 2
SIZE = 4 * MIB


@pytest.fixture(params=["raw", "qcow2"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlockNode]:
    path = str(tmp_path / f"disk.{request.param}")
    create.create(create.plan(path, request.param, SIZE))
    with graph.open(path, request.param, read_only=False) as opened:
        yield opened


@pytest.fixture
def served(node: BlockNode, tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, node) as running:
        yield running
        assert running.log == []


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[BlockNode]:
    path = tmp_path / "raw"
    path.write_bytes(random.Random(1).randbytes(MIB))
    with graph.open(str(path), "raw", read_only=False) as opened:
        yield opened


@pytest.mark.parametrize("leave_out", [0, EVENT_IDX, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC, F_FLUSH])
def test_what_is_written_is_read_back(served: Served, node: BlockNode, leave_out: int) -> None:
    data = random.Random(2).randbytes(70_000 // 512 * 512)
    with driver(served.path, leave_out=leave_out) as (_, queue):
        indirect = not leave_out & INDIRECT_DESC
        assert queue.request(OUT, 9, data, indirect=indirect) == (OK, b"")
        parts = (1, 511, 100_000, len(data) - 512 - 100_000) if len(data) > 101_000 else (1, 511, len(data) - 512)
        assert queue.request(IN, 9, read=len(data), parts=parts) == (OK, data)
        assert queue.request(IN, 9, read=len(data), indirect=indirect) == (OK, data)
        assert queue.request(FLUSH) == (OK, b"")
    assert node.read(9 * 512, len(data)) == data


def test_zeroes_and_discards(served: Served, node: BlockNode) -> None:
    node.pwrite(0, b"x" * MIB)
    with driver(served.path) as (_, queue):
        assert queue.request(WRITE_ZEROES, 0, struct.pack("<QII", 8, 8, 1))[0] == OK
        assert queue.request(WRITE_ZEROES, 0, struct.pack("<QII", 24, 8, 0))[0] == OK
        assert queue.request(DISCARD, 0, struct.pack("<QII", 128, 128, 0))[0] == OK
        assert queue.request(DISCARD, 0, struct.pack("<QII", 128, 128, 1))[0] == UNSUPPORTED
        assert queue.request(WRITE_ZEROES, 0, struct.pack("<QII", 8, 8, 2))[0] == UNSUPPORTED
        assert queue.request(WRITE_ZEROES, 0, struct.pack("<QII", 8, 8, 0) * 2)[0] == UNSUPPORTED
        assert queue.request(WRITE_ZEROES, 0, b"short")[0] == FAILED
        assert queue.request(WRITE_ZEROES, 0, struct.pack("<QII", SIZE // 512 - 1, 2, 0))[0] == FAILED
        assert queue.request(WRITE_ZEROES, 0, struct.pack("<QII", 0, 2**32 - 1, 0))[0] == FAILED
        assert queue.request(DISCARD, 0, struct.pack("<QII", 2**64 - 1, 1, 0))[0] == FAILED
    assert node.read(4096, 4096) == bytes(4096)
    assert node.read(8192, 4096) == b"x" * 4096
    assert node.read(24 * 512, 4096) == bytes(4096)


@pytest.mark.parametrize("sector", [SIZE // 512 - 1, SIZE // 512, 2**63, 2**64 - 1])
def test_a_request_beyond_the_end_fails_alone(served: Served, sector: int) -> None:
    with driver(served.path) as (_, queue):
        assert queue.request(IN, sector, read=1024)[0] == FAILED
        assert queue.request(OUT, sector, b"x" * 1024)[0] == FAILED
        assert queue.request(IN, 0, read=511)[0] == FAILED
        assert queue.request(IN, 0, read=512) == (OK, bytes(512))


def test_the_disk_has_a_name_and_refuses_what_it_does_not_know(served: Served) -> None:
    with driver(served.path) as (_, queue):
        assert queue.request(GET_ID, read=20)[1].startswith(b"vhost_user_blk\0")
        assert queue.request(GET_ID, read=5)[1] == b"vhost"
        assert queue.request(99)[0] == UNSUPPORTED
        assert queue.request(0x80000000 | IN, read=512) == (OK, bytes(512))


def test_a_read_only_device_says_so_and_cannot_be_written(raw: BlockNode, tmp_path: Path) -> None:
    before = raw.read(0, MIB)
    with serving(tmp_path, raw, writable=False) as served, driver(served.path) as (front, queue):
        assert front.features & F_RO
        for kind, data in ((OUT, b"x" * 512), (WRITE_ZEROES, struct.pack("<QII", 0, 1, 0)), (DISCARD, bytes(16))):
            assert queue.request(kind, 0, data)[0] == FAILED
        assert queue.request(IN, 3, read=512) == (OK, bytes(before[1536:2048]))
    assert raw.read(0, MIB) == before


def test_logical_blocks_may_be_larger_than_sectors(raw: BlockNode, tmp_path: Path) -> None:
    with serving(tmp_path, raw, block_size=4096) as served, driver(served.path) as (front, queue):
        assert struct.unpack_from("<I", front.config(), 20)[0] == 4096
        assert queue.request(IN, 8, read=4096)[0] == OK
        assert queue.request(IN, 7, read=4096)[0] == FAILED


def test_each_write_is_durable_for_a_driver_that_cannot_ask_for_it(
    raw: BlockNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    real = os.fdatasync

    def sync(fd: int) -> None:
        syncs.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", sync)
    with serving(tmp_path, raw) as served:
        with driver(served.path, leave_out=F_FLUSH) as (_, queue):
            assert queue.request(OUT, 0, b"x" * 512)[0] == OK
            assert len(syncs) == 1
        with driver(served.path) as (front, queue):
            assert queue.request(OUT, 0, b"x" * 512)[0] == OK
            assert len(syncs) == 1
            front.tell(25, struct.pack("<IIIB", 32, 1, 0, 0))
            assert front.config()[32] == 0
            assert queue.request(OUT, 0, b"x" * 512)[0] == OK
            assert len(syncs) == 2


def test_many_requests_at_once_all_come_back(raw: BlockNode, tmp_path: Path) -> None:
    content = raw.read(0, MIB)
    with serving(tmp_path, raw) as served, driver(served.path, size=256) as (_, queue):
        rng, base = random.Random(4), queue.data
        places = [rng.randrange(2048) for _ in range(64)]
        for slot, sector in enumerate(places):
            head, body, status = base + 16 * slot, base + 8192 + 512 * slot, base + 4096 + slot
            queue.bytes[head : head + 16] = struct.pack("<IIQ", IN, 0, sector)
            queue.describe(3 * slot, [(head, 16, 0), (body, 512, WRITE), (status, 1, WRITE)])
        for _ in range(20):
            queue.offer(*[3 * slot for slot in range(64)])
            done: set[int] = set()
            while len(done) < 64:
                done.update(head for head, _ in queue.wait())
        for slot, sector in enumerate(places):
            start = base + 8192 + 512 * slot
            assert queue.bytes[start : start + 512] == content[512 * sector : 512 * sector + 512]


def test_a_queue_stops_where_it_was_and_goes_on_there(served: Served) -> None:
    with driver(served.path) as (_, queue):
        queue.request(OUT, 0, b"a" * 512)
        queue.request(OUT, 1, b"b" * 512)
        assert queue.stop() == 2
        queue.start()
        assert queue.request(IN, 0, read=1024) == (OK, b"a" * 512 + b"b" * 512)
        assert queue.stop() == 3


def test_a_front_end_that_comes_back_finds_the_disk_again(served: Served) -> None:
    with driver(served.path) as (_, queue):
        queue.request(OUT, 5, b"kept" * 128)
    for _ in range(3):
        with driver(served.path) as (_, queue):
            assert queue.request(IN, 5, read=512) == (OK, b"kept" * 128)


def test_memory_may_change_while_the_queue_runs(served: Served) -> None:
    with driver(served.path) as (front, queue):
        queue.request(OUT, 0, b"a" * 512)
        front.share()
        assert queue.request(IN, 0, read=512) == (OK, b"a" * 512)


def test_memory_may_come_in_slots(served: Served) -> None:
    with FrontEnd(served.path) as front:
        front.number(16, front.protocol)
        front.number(2, front.features)
        assert front.ask(36) >= 8
        half = front.size // 2
        for start in (0, half):
            region = struct.pack("<QQQQQ", 0, GUEST + start, half, USER + start, start)
            front.tell(37, region, [front.fd], flags=9)
            assert front.receive() == (37, bytes(8))
        queue = Queue(front)
        queue.start()
        data = random.Random(5).randbytes(8192)
        assert queue.request(OUT, 0, data)[0] == OK
        front.tell(38, struct.pack("<QQQQQ", 0, GUEST + half, half, USER + half, half), flags=9)
        assert front.receive() == (38, bytes(8))
        assert queue.request(IN, 0, read=8192) == (OK, data)
        queue.close()


def test_a_buffer_may_lie_in_two_regions(raw: BlockNode, tmp_path: Path) -> None:
    with serving(tmp_path, raw) as served, FrontEnd(served.path) as front:
        front.number(16, front.protocol)
        front.number(2, front.features)
        cut = MIB
        table = struct.pack("<II", 2, 0)
        for start, length in ((0, cut), (cut, front.size - cut)):
            table += struct.pack("<QQQQ", GUEST + start, length, USER + start, start)
        front.tell(5, table, [front.fd, front.fd])
        queue = Queue(front)
        queue.start()
        queue.data = cut - 4096 - 512
        assert queue.request(IN, 0, read=4096) == (OK, bytes(raw.read(0, 4096)))
        queue.close()


def test_several_queues_work_at_once(raw: BlockNode, tmp_path: Path) -> None:
    with serving(tmp_path, raw, queues=4) as served, FrontEnd(served.path) as front:
        front.negotiate()
        assert front.ask(17) == 4
        assert struct.unpack_from("<H", front.config(), 34)[0] == 4
        queues = [Queue(front, index, place=index * 8 * MIB) for index in range(4)]
        for queue in queues:
            queue.start()
        for index, queue in enumerate(queues):
            assert queue.request(OUT, index, bytes([index]) * 512)[0] == OK
        for queue in queues:
            assert queue.request(IN, 0, read=2048)[1] == b"".join(bytes([index]) * 512 for index in range(4))
            queue.close()


def test_the_guest_hears_of_another_size(served: Served, node: BlockNode) -> None:
    with driver(served.path) as (front, queue):
        channel = front.open_channel()
        front.config()  # answered once the channel is there
        assert queue.request(IN, SIZE // 512, read=512)[0] == FAILED
        node.resize(2 * SIZE)
        served.back_end.resized()
        assert struct.unpack("<III", channel.recv(12)) == (2, 1, 0)
        assert struct.unpack_from("<Q", front.config())[0] == 2 * SIZE // 512
        assert queue.request(IN, SIZE // 512, read=512) == (OK, bytes(512))
        served.back_end.resized()
        channel.settimeout(0.2)
        with pytest.raises(TimeoutError):
            channel.recv(1)  # it has the size that was told


def test_nobody_waits_for_a_front_end_that_does_not_listen(raw: BlockNode, tmp_path: Path) -> None:
    with serving(tmp_path, raw) as served, driver(served.path) as (front, _):
        channel = front.open_channel()
        front.config()
        start = time.monotonic()
        for number in range(600):  # more than a socket holds
            raw.resize(SIZE + 512 * number)
            served.back_end.resized()
        assert time.monotonic() - start < 9
        assert struct.unpack("<III", channel.recv(12)) == (2, 1, 0)
        assert struct.unpack_from("<Q", front.config())[0] == SIZE // 512 + 599


def test_a_queue_without_kicks_is_looked_at(served: Served) -> None:
    with FrontEnd(served.path) as front:
        front.negotiate()
        queue = Queue(front)
        queue.start()
        queue.stop()
        front.number(12, 1 << 8)
        assert queue.request(IN, 0, read=512) == (OK, bytes(512))
        queue.close()


# ---- hostile guests


def spoil_loop(queue: Queue) -> None:
    queue.describe(0, [(queue.data, 16, NEXT)])
    queue.descriptors[1] = 16 | NEXT << 32 | 0 << 48


def spoil_address(queue: Queue) -> None:
    queue.describe(0, [(2**40, 16, 0), (queue.data, 1, WRITE)])


def spoil_status(queue: Queue) -> None:
    queue.describe(0, [(queue.data, 16, 0), (queue.data + 512, 512, WRITE), (2**40, 1, WRITE)])


def spoil_header(queue: Queue) -> None:
    queue.describe(0, [(queue.data, 15, 0), (queue.data + 512, 1, WRITE)])


def spoil_no_status(queue: Queue) -> None:
    queue.describe(0, [(queue.data, 16, 0)])


def spoil_no_header(queue: Queue) -> None:
    queue.describe(0, [(queue.data, 16, WRITE)])


def spoil_table(queue: Queue) -> None:
    queue.descriptors[0] = GUEST + 2**40
    queue.descriptors[1] = 48 | INDIRECT << 32


SPOILERS = [value for name, value in list(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_ring_that_breaks_the_rules_breaks_its_queue_and_nothing_else(
    raw: BlockNode, tmp_path: Path, spoil: Callable[[Queue], object]
) -> None:
    with serving(tmp_path, raw, queues=2) as served, FrontEnd(served.path) as front:
        front.negotiate()
        bad, good = Queue(front, 0), Queue(front, 1, place=8 * MIB)
        bad.start()
        good.start()
        spoil(bad)
        bad.offer(0)
        assert bad.is_broken()
        assert served.has_said("queue 0 is broken: ")
        assert good.request(IN, 0, read=512)[0] == OK
        # A driver that resets the device has a good one again.
        front.tell(34)
        front.tell(18, struct.pack("<II", 0, 0))
        fresh = Queue(front, 0)
        fresh.start()
        assert fresh.request(IN, 0, read=512)[0] == OK
        for queue in (bad, good, fresh):
            queue.close()


def test_an_available_index_beyond_the_queue_breaks_it(raw: BlockNode, tmp_path: Path) -> None:
    with serving(tmp_path, raw) as served, driver(served.path) as (_, queue):
        queue.available_ring[1] = queue.size + 1
        os.eventfd_write(queue.kick, 1)
        assert queue.is_broken()
        assert served.has_said("129 entries are available in a queue of 128")


def test_a_read_into_all_of_memory_ends_and_harms_nobody(raw: BlockNode, tmp_path: Path) -> None:
    """A chain may name the same bytes, its own tables among them, again and again."""
    with serving(tmp_path, raw) as served:
        with driver(served.path) as (_, queue):
            queue.bytes[queue.data : queue.data + 16] = struct.pack("<IIQ", IN, 0, 0)
            chain = [(queue.data, 16, 0), *[(0, 65536, WRITE)] * 16, (queue.data + 16, 1, WRITE)]
            queue.describe(0, chain)
            queue.offer(0)
        with driver(served.path) as (_, queue):
            assert queue.request(IN, 0, read=512)[0] == OK


def offer_repeated(queue: Queue, kind: int, times: int, length: int) -> int:
    """Offer a request whose buffers are all the same memory; where its status goes."""
    table, head, body = queue.data + MIB, queue.data, queue.data + 4 * MIB
    status = head + 16
    queue.bytes[status] = 0xFF
    queue.bytes[head : head + 16] = struct.pack("<IIQ", kind, 0, 0)
    chain = [(head, 16, 0), *[(body, length, WRITE if kind == IN else 0)] * times, (status, 1, WRITE)]
    queue.describe(0, chain, table=queue.bytes[table : table + 16 * len(chain)].cast("Q"))
    queue.descriptors[0] = GUEST + table
    queue.descriptors[1] = 16 * len(chain) | INDIRECT << 32
    queue.offer(0)
    return status


@pytest.fixture
def endless() -> Iterator[BlockNode]:
    with graph.open(blockdev.from_options({"driver": "null-co", "size": "16G"}), read_only=False) as opened:
        yield opened


def test_a_large_write_takes_little_memory(endless: BlockNode, tmp_path: Path) -> None:
    with serving(tmp_path, endless) as served, driver(served.path) as (_, queue):
        tracemalloc.start()
        try:
            status = offer_repeated(queue, OUT, 100, 4 * MIB)
            queue.wait()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert queue.bytes[status] == OK
        assert peak < 32 * MIB


@pytest.mark.parametrize("kind", [IN, OUT])
def test_a_request_of_2_gib_is_refused(endless: BlockNode, tmp_path: Path, kind: int) -> None:
    with serving(tmp_path, endless) as served, driver(served.path) as (_, queue):
        status = offer_repeated(queue, kind, 64, 32 * MIB)
        queue.wait()
        assert queue.bytes[status] == FAILED


BAD_MESSAGES = [
    struct.pack("<III", 1, 2, 0),  # another version
    struct.pack("<III", 1, 1, 2**31),  # a payload without end
    struct.pack("<III", 99, 1, 0),
    struct.pack("<IIIII", 8, 1, 8, 9, 128),  # a queue that is not there
    struct.pack("<IIIII", 8, 1, 8, 0, 100),  # no power of two
    struct.pack("<IIIII", 8, 1, 8, 0, 2**31),
    struct.pack("<IIIQ", 2, 1, 8, 1 << 60),  # features that were not offered
    struct.pack("<IIIQ", 16, 1, 8, 1 << 60),
    struct.pack("<IIIQ", 12, 1, 8, 0),  # a kick without its eventfd
    struct.pack("<IIIII", 5, 1, 8, 1, 0),  # a memory table without regions
    struct.pack("<IIIIIQQQQ", 5, 1, 40, 1, 0, 0, 4096, 0, 0),  # without descriptors
    struct.pack("<IIIIIIB", 25, 1, 13, 0, 1, 0, 5),  # the capacity cannot be set
    struct.pack("<III", 21, 1, 0),  # a channel without its socket
    struct.pack("<IIIQQQQQ", 38, 1, 40, 0, 1, 2, 3, 4),  # a region that is not there
    struct.pack("<IIIQQHH", 31, 1, 20, 0, 0, 1, 0),  # a log for queues of no entries
    struct.pack("<IIIQQHHI", 31, 1, 24, 0, 0, 1, 65535, 0),
    struct.pack("<IIIQ", 31, 1, 8, 0),
    struct.pack("<IIIQQHH", 32, 1, 20, 8192, 0, 1, 128),  # one without its descriptor
    b"\1\0",
]


@pytest.mark.parametrize("data", BAD_MESSAGES, ids=[str(index) for index in range(len(BAD_MESSAGES))])
def test_a_front_end_that_breaks_the_protocol_is_dropped_and_the_next_is_served(
    raw: BlockNode, tmp_path: Path, data: bytes
) -> None:
    with serving(tmp_path, raw) as served:
        with FrontEnd(served.path) as front:
            front.negotiate()
            front.sock.sendall(data)
            front.sock.shutdown(1)
            assert front.sock.recv(100) == b""
        assert served.has_said("front end dropped: ")
        with driver(served.path) as (_, queue):
            assert queue.request(IN, 0, read=512)[0] == OK


@pytest.mark.parametrize(
    "region",
    [
        (0, 1 << 40, 0, 0),  # more than the file has
        (0, 4096, 0, 1 << 40),
        (0, 0, 0, 0),
        (2**64 - 4096, 8192, 0, 0),
        (0, 4096, 2**64 - 1, 0),
    ],
)
def test_memory_that_is_not_in_its_file_is_refused(
    raw: BlockNode, tmp_path: Path, region: tuple[int, int, int, int]
) -> None:
    with serving(tmp_path, raw) as served:
        with FrontEnd(served.path) as front:
            front.number(16, front.protocol)
            front.number(2, front.features)
            front.tell(5, struct.pack("<IIQQQQ", 1, 0, *region), [front.fd], flags=9)
            assert front.receive() == (5, struct.pack("<Q", 1))
        assert served.has_said("front end dropped: ")


@pytest.mark.parametrize("place", [(8192, 1 << 40), (2**64 - 1, 0), (4095, 0), (8192, 2**64 - 1), (1 << 40, 0)])
def test_a_log_that_is_not_in_its_file_is_refused(raw: BlockNode, tmp_path: Path, place: tuple[int, int]) -> None:
    with serving(tmp_path, raw) as served:
        with FrontEnd(served.path) as front:
            front.tell(32, struct.pack("<QQHHI", *place, 1, 128, 0), [front.fd])
            assert front.sock.recv(100) == b""
        assert served.has_said("front end dropped: ")


def after_a_kill(
    folder: Path, path: Path, before: Callable[[Queue], object], *, format: str = "qcow2", resets: bool = False
) -> tuple[list[int], list[str]]:
    """What flushes answer, and is reported, where the back end before was killed after it had done some requests.

    Beside what is in files, what it leaves is the front end's buffer as it was at that moment; a new one, where the
    guest ``resets`` the disk after the requests.
    """
    left = os.memfd_create("left", os.MFD_CLOEXEC)
    with graph.open(str(path), format, read_only=False) as node, serving(folder, node) as served:
        with driver(served.path) as (front, queue):
            log, described = front.new_log()
            front.keep_log(log, described)
            before(queue)
            if resets:
                os.close(log)
                log, described = front.new_log()
                front.keep_log(log, described)
            os.write(left, os.pread(log, MIB, 0))
            os.close(log)
        assert served.log == []
    with graph.open(str(path), format, read_only=False) as node, serving(folder, node) as served:
        found = []
        for _ in range(2):  # also when the one after that is served by yet another
            with driver(served.path) as (front, queue):
                front.keep_log(left, described)
                found += [queue.request(FLUSH)[0], queue.request(OUT, 9, bytes(512))[0], queue.request(FLUSH)[0]]
        with driver(served.path) as (front, queue):
            front.keep_log(*front.new_log())  # the guest has reset the disk
            assert queue.request(FLUSH)[0] == OK
        os.close(left)
        return found, served.log


def test_no_flush_succeeds_once_writes_have_gone_with_a_back_end(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create.create(create.plan(str(path), "qcow2", SIZE))
    changes: list[Callable[[Queue], object]] = [
        lambda queue: queue.request(OUT, 0, bytes(512)),
        lambda queue: queue.request(WRITE_ZEROES, data=struct.pack("<QII", 0, 8, 0)),
        lambda queue: queue.request(DISCARD, data=struct.pack("<QII", 0, 128, 0)),
        lambda queue: (queue.request(OUT, 0, bytes(512)), queue.request(FLUSH), queue.request(OUT, 9, bytes(512))),
    ]
    for change in changes:
        found, log = after_a_kill(tmp_path, path, change)
        assert found == [FAILED, OK, FAILED] * 2
        assert all("ended with writes that were not flushed" in line for line in log) and log


def test_what_is_held_back_when_the_guest_resets_the_disk_is_not_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create.create(create.plan(str(path), "qcow2", SIZE))
    found, _ = after_a_kill(tmp_path, path, lambda queue: queue.request(OUT, 0, bytes(512)), resets=True)
    assert found == [FAILED, OK, FAILED] * 2


def test_a_back_end_that_was_killed_when_all_was_flushed_is_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create.create(create.plan(str(path), "qcow2", SIZE))
    settled: list[Callable[[Queue], object]] = [
        lambda queue: None,
        lambda queue: queue.request(IN, 0, read=512),
        lambda queue: (queue.request(OUT, 0, bytes(512)), queue.request(FLUSH)),
        # As a machine is before it moves elsewhere, and takes the buffer with it.
        lambda queue: (queue.request(OUT, 0, bytes(512)), queue.stop()),
    ]
    for change in settled:
        for resets in (False, True):
            assert after_a_kill(tmp_path, path, change, resets=resets) == ([OK] * 6, [])


def test_what_is_in_a_file_as_it_is_does_not_go_with_a_back_end(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(SIZE))
    assert after_a_kill(tmp_path, path, lambda queue: queue.request(OUT, 0, bytes(512)), format="raw") == ([OK] * 6, [])


def test_a_front_end_that_went_leaves_nothing_that_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create.create(create.plan(str(path), "qcow2", SIZE))
    with (
        graph.open(str(path), "qcow2", read_only=False) as node,
        serving(tmp_path, node) as served,
        driver(served.path) as (front, queue),
    ):
        log, described = front.new_log()
        front.keep_log(log, described)
        assert queue.request(OUT, 0, bytes(512))[0] == OK
    with graph.open(str(path), "qcow2", read_only=False) as node, serving(tmp_path, node) as served:
        with driver(served.path) as (front, queue):
            front.keep_log(log, described)
            assert queue.request(FLUSH)[0] == OK
        os.close(log)
        assert served.log == []


def test_a_wrong_request_of_an_image_that_was_guessed_raw_cannot_disguise_it(tmp_path: Path) -> None:
    path = tmp_path / "guessed"
    path.write_bytes(bytes(MIB))
    with (
        graph.open(str(path), None, read_only=False) as node,
        serving(tmp_path, node) as served,
        driver(served.path) as (_, queue),
    ):
        assert queue.request(OUT, 0, b"QFI\xfb\0\0\0\3" + bytes(504))[0] == FAILED
        assert queue.request(OUT, 8, b"x" * 512)[0] == OK
    assert path.read_bytes()[:4] == bytes(4)
