"""The split ring without a thread or a socket: what a driver may do, and what breaks the device."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from hostel.errors import RemoteProtocolError
from hostel.wire.virtio.memory import GuestMemory, Region
from hostel.wire.virtio.ring import INDIRECT, MAX_INDIRECT, NEXT, WRITE, Addresses, SplitRing

SIZE = 8
TABLES = Addresses(0x1000, 0x2000, 0x3000)
DATA = 0x4000


class Driver:
    """The other side: 64 KiB of memory whose guest and user addresses are alike."""

    def __init__(self, *, event_index: bool = False, indirect: bool = True, base: int = 0) -> None:
        self.bytes = memoryview(bytearray(65536))
        self.memory = GuestMemory([Region(0, 0, self.bytes)])
        self.put = base
        self.write(TABLES.available + 2, "<H", base)
        self.write(TABLES.used + 2, "<H", base)
        self.ring = SplitRing(self.memory, SIZE, TABLES, base, event_index=event_index, indirect=indirect)

    def write(self, address: int, format: str, *values: int) -> None:
        struct.pack_into(format, self.bytes, address, *values)

    def read(self, address: int, format: str) -> int:
        return int(struct.unpack_from(format, self.bytes, address)[0])

    def describe(self, index: int, address: int, length: int, flags: int, following: int = 0, *, at: int = 0) -> None:
        self.write((at or TABLES.descriptors) + 16 * index, "<QIHH", address, length, flags, following)

    def offer(self, *heads: int) -> None:
        for head in heads:
            self.write(TABLES.available + 4 + 2 * (self.put % SIZE), "<H", head)
            self.put += 1
        self.write(TABLES.available + 2, "<H", self.put & 0xFFFF)

    def lengths(self) -> tuple[list[int], list[int]]:
        """The buffers of the one chain that is there."""
        ((_, table),) = self.ring.take(16)
        readable, writable = self.ring.buffers(table)
        return [len(part) for part in readable], [len(part) for part in writable]


def test_chains_come_out_in_their_order_and_no_more_than_asked_for() -> None:
    driver = Driver()
    driver.describe(3, DATA, 1, 0)
    driver.describe(5, DATA, 2, 0)
    driver.offer(3, 5, 3)
    assert [head for head, _ in driver.ring.take(2)] == [3, 5]
    assert [head for head, _ in driver.ring.take(2)] == [3]
    assert driver.ring.take(2) == []
    assert driver.ring.taken == 3


def test_a_chain_is_followed_wherever_it_leads() -> None:
    driver = Driver()
    driver.describe(7, DATA, 16, NEXT, 2)
    driver.describe(2, DATA + 100, 30, NEXT, 4)
    driver.describe(4, DATA + 200, 40, NEXT | WRITE, 0)
    driver.describe(0, DATA + 300, 1, WRITE)
    driver.offer(7)
    assert driver.lengths() == ([16, 30], [40, 1])


def test_an_indirect_table_is_followed_too() -> None:
    driver = Driver()
    table = DATA + 0x1000
    driver.describe(1, table, 48, INDIRECT)
    driver.describe(0, DATA, 16, NEXT, 2, at=table)
    driver.describe(2, DATA, 8, NEXT, 1, at=table)
    driver.describe(1, DATA, 1, WRITE, 0, at=table)
    driver.offer(1)
    assert driver.lengths() == ([16, 8], [1])


def test_indexes_wrap_at_65536() -> None:
    driver = Driver(base=65534)
    driver.describe(0, DATA, 1, 0)
    driver.offer(0, 0, 0, 0)
    assert len(driver.ring.take(16)) == 4
    assert driver.ring.taken == 2
    driver.ring.put([(0, 5)] * 4)
    assert driver.read(TABLES.used + 2, "<H") == 2
    assert driver.read(TABLES.used + 4 + 8 * 7 + 4, "<I") == 5


def test_what_is_put_back_names_its_head_and_what_was_written() -> None:
    driver = Driver()
    driver.ring.put([(6, 4097), (2, 1)])
    assert driver.bytes[TABLES.used : TABLES.used + 20] == struct.pack("<HHIIII", 0, 2, 6, 4097, 2, 1)


@pytest.mark.parametrize(("flag", "called"), [(0, True), (1, False)])
def test_a_driver_without_event_indexes_says_whether_it_wants_to_be_called(flag: int, called: bool) -> None:
    driver = Driver()
    driver.write(TABLES.available, "<H", flag)
    driver.ring.put([(0, 1)])
    assert driver.ring.must_call() is called
    assert not driver.ring.must_call()  # nothing new


def test_a_driver_with_an_event_index_is_called_when_it_is_passed() -> None:
    driver = Driver(event_index=True)
    event = TABLES.available + 4 + 2 * SIZE
    driver.write(event, "<H", 2)
    driver.ring.put([(0, 1), (0, 1)])
    assert not driver.ring.must_call()
    driver.ring.put([(0, 1)])
    assert driver.ring.must_call()
    driver.ring.put([(0, 1)])
    assert not driver.ring.must_call()


def test_kicks_are_asked_for_and_refused() -> None:
    driver = Driver()
    driver.ring.refuse_kicks()
    assert driver.read(TABLES.used, "<H") == 1
    assert driver.ring.want_kicks()
    assert driver.read(TABLES.used, "<H") == 0
    driver.describe(0, DATA, 1, 0)
    driver.offer(0)
    assert not driver.ring.want_kicks()


def test_with_event_indexes_the_next_entry_is_what_kicks() -> None:
    driver = Driver(event_index=True, base=9)
    assert driver.ring.want_kicks()
    assert driver.read(TABLES.used + 4 + 8 * SIZE, "<H") == 9


def spoil_count(driver: Driver) -> None:
    driver.write(TABLES.available + 2, "<H", SIZE + 1)


def spoil_head(driver: Driver) -> None:
    driver.offer(SIZE)


def spoil_next(driver: Driver) -> None:
    driver.describe(0, DATA, 1, NEXT, SIZE)
    driver.offer(0)


def spoil_loop(driver: Driver) -> None:
    driver.describe(0, DATA, 1, NEXT, 1)
    driver.describe(1, DATA, 1, NEXT, 0)
    driver.offer(0)


def spoil_address(driver: Driver) -> None:
    driver.describe(0, 65530, 7, 0)
    driver.offer(0)


def spoil_high_address(driver: Driver) -> None:
    driver.describe(0, 2**64 - 1, 2**32 - 1, 0)
    driver.offer(0)


def spoil_length(driver: Driver) -> None:
    driver.describe(0, DATA, 0, 0)
    driver.offer(0)


def spoil_order(driver: Driver) -> None:
    driver.describe(0, DATA, 1, NEXT | WRITE, 1)
    driver.describe(1, DATA, 1, 0)
    driver.offer(0)


def spoil_table_length(driver: Driver) -> None:
    driver.describe(0, DATA, 17, INDIRECT)
    driver.offer(0)


def spoil_table_size(driver: Driver) -> None:
    driver.describe(0, DATA, 16 * (MAX_INDIRECT + 1), INDIRECT)
    driver.offer(0)


def spoil_empty_table(driver: Driver) -> None:
    driver.describe(0, DATA, 0, INDIRECT)
    driver.offer(0)


def spoil_table_address(driver: Driver) -> None:
    driver.describe(0, 65520, 32, INDIRECT)
    driver.offer(0)


def spoil_table_followed(driver: Driver) -> None:
    driver.describe(0, DATA, 16, INDIRECT | NEXT, 1)
    driver.offer(0)


def spoil_table_in_table(driver: Driver) -> None:
    driver.describe(0, DATA, 16, INDIRECT)
    driver.describe(0, DATA, 16, INDIRECT, at=DATA)
    driver.offer(0)


def spoil_table_loop(driver: Driver) -> None:
    driver.describe(0, DATA, 16, INDIRECT)
    driver.describe(0, DATA + 64, 1, NEXT, 0, at=DATA)
    driver.offer(0)


def spoil_table_next(driver: Driver) -> None:
    driver.describe(0, DATA, 16, INDIRECT)
    driver.describe(0, DATA + 64, 1, NEXT, 1, at=DATA)
    driver.offer(0)


@pytest.mark.parametrize("spoil", [value for name, value in list(globals().items()) if name.startswith("spoil_")])
def test_a_driver_that_breaks_the_rules_breaks_the_device(spoil: Callable[[Driver], None]) -> None:
    driver = Driver()
    spoil(driver)
    with pytest.raises(RemoteProtocolError):
        for _, table in driver.ring.take(16):
            driver.ring.buffers(table)


def test_an_indirect_table_must_be_agreed_on() -> None:
    driver = Driver(indirect=False)
    driver.describe(0, DATA, 16, INDIRECT)
    driver.offer(0)
    with pytest.raises(RemoteProtocolError):
        driver.ring.take(1)


@pytest.mark.parametrize("size", [0, 3, 65536, 2**32 - 1])
def test_a_queue_of_an_absurd_size_is_refused(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"cannot have {size} entries"):
        SplitRing(Driver().memory, size, TABLES, 0, event_index=False, indirect=False)


@pytest.mark.parametrize(
    "tables", [(0x1008, 0x2000, 0x3000), (0x1000, 0x2001, 0x3000), (0x1000, 0x2000, 0x3002), (0x1000, 0x2000, 65500)]
)
def test_tables_must_be_aligned_and_in_memory(tables: tuple[int, int, int]) -> None:
    with pytest.raises(RemoteProtocolError):
        SplitRing(Driver().memory, SIZE, Addresses(*tables), 0, event_index=False, indirect=False)
