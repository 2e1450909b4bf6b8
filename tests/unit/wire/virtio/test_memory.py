"""Guest memory: what is in a region is found, and nothing else."""

from __future__ import annotations

import pytest

from hostel.errors import RemoteProtocolError
from hostel.wire.virtio.memory import GuestMemory, Region
from hostel.wire.virtio.ring import Addresses, SplitRing

LOW, HIGH = memoryview(bytearray(b"l" * 100)), memoryview(bytearray(b"h" * 50))


@pytest.fixture
def memory() -> GuestMemory:
    return GuestMemory([Region(1100, 50_000, HIGH), Region(1000, 90_000, LOW)])


def test_bytes_are_found_by_either_address(memory: GuestMemory) -> None:
    assert memory.view(1000, 100) == LOW
    assert bytes(memory.view(1149, 1)) == b"h"
    assert bytes(memory.view(1001, 2)) == b"ll"
    assert memory.at_user(50_010, 40) == HIGH[10:]


def test_a_view_is_the_memory_itself(memory: GuestMemory) -> None:
    memory.view(1105, 1)[0] = 7
    assert HIGH[5] == 7
    HIGH[5] = ord("h")


def test_a_buffer_may_go_over_into_the_next_region(memory: GuestMemory) -> None:
    assert [bytes(part) for part in memory.views(1098, 4)] == [b"ll", b"hh"]
    assert [bytes(part) for part in memory.views(1098, 2)] == [b"ll"]


@pytest.mark.parametrize(("address", "length"), [(999, 1), (1098, 3), (1150, 1), (0, 5000), (2**64 - 1, 2)])
def test_what_is_no_memory_is_refused(memory: GuestMemory, address: int, length: int) -> None:
    memory.view(1000, 1)
    with pytest.raises(RemoteProtocolError):
        memory.view(address, length)


def test_a_buffer_that_leaves_memory_is_refused(memory: GuestMemory) -> None:
    with pytest.raises(RemoteProtocolError):
        memory.views(1098, 53)
    with pytest.raises(RemoteProtocolError):
        memory.at_user(50_040, 11)


@pytest.mark.parametrize(
    "regions",
    [
        [Region(0, 0, LOW), Region(99, 500, HIGH)],
        [Region(0, 0, LOW), Region(500, 99, HIGH)],
        [Region(0, 0, memoryview(b""))],
        [Region(2**64 - 99, 0, LOW)],
        [Region(0, 2**64 - 99, LOW)],
    ],
)
def test_regions_that_make_no_sense_are_refused(regions: list[Region]) -> None:
    with pytest.raises(RemoteProtocolError):
        GuestMemory(regions)


def test_each_queue_remembers_for_itself_where_it_looked_last() -> None:
    """Queues have threads of their own: what one remembers half must not be taken for the rest of the other's."""
    ours = GuestMemory(
        [Region(0, 0, memoryview(bytearray(0x4000))), Region(0x8000, 0x8000, memoryview(bytearray(512)))]
    )
    rings = [
        SplitRing(ours, 8, Addresses(0x1000, 0x2000, 0x3000), 0, event_index=False, indirect=True) for _ in range(2)
    ]
    rings[0].memory.view(0x8000, 512)
    rings[1].memory.view(0, 512)
    assert (rings[0].memory.low, rings[1].memory.low) == (0x8000, 0)
