"""Any requests in any shape that the rules allow, all under way at once: the disk is an array of bytes."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostel.block import graph
from hostel.img import create
from support.vhost import (
    DISCARD,
    EVENT_IDX,
    FLUSH,
    GUEST,
    IN,
    INDIRECT,
    OUT,
    WRITE,
    WRITE_ZEROES,
    Queue,
    driver,
    serving,
)

SECTORS = 256
SLOT = 1 << 17  # bytes of memory for a request


class Step(NamedTuple):
    kind: int
    sector: int
    sectors: int
    cuts: tuple[int, ...]
    fill: int
    indirect: bool


STEPS = st.builds(
    Step,
    st.sampled_from([IN, OUT, FLUSH, WRITE_ZEROES, DISCARD]),
    st.integers(0, SECTORS + 2),
    st.integers(1, 40),
    st.lists(st.integers(1, 40 * 512 - 1), max_size=4).map(tuple),
    st.integers(1, 255),
    st.booleans(),
)


class Oracle:
    """The disk as it must be, and which of it is unknown since it was discarded."""

    def __init__(self) -> None:
        self.content = bytearray(SECTORS * 512)
        self.unknown: set[int] = set()

    def do(self, step: Step) -> tuple[int, bytes | None]:
        """The status of a step, and what it reads; None where that is not said."""
        end = step.sector + step.sectors
        if step.kind == FLUSH:
            return 0, b""
        if end > SECTORS:
            return 1, None
        place, span = slice(step.sector * 512, end * 512), range(step.sector, end)
        if step.kind == IN:
            return 0, None if self.unknown.intersection(span) else bytes(self.content[place])
        if step.kind == DISCARD:
            self.unknown.update(span)
        else:
            self.unknown.difference_update(span)
            self.content[place] = bytes([step.fill if step.kind == OUT else 0]) * (512 * step.sectors)
        return 0, b""


def put(queue: Queue, number: int, step: Step) -> None:
    """Write a request's buffers and descriptors into its part of the memory."""
    place = (queue.data // SLOT + 1 + number) * SLOT
    head, status, table, body = place, place + 16, place + 256, place + 4096
    queue.bytes[head : head + 16] = struct.pack("<IIQ", step.kind, 0, step.sector if step.kind in (IN, OUT) else 0)
    queue.bytes[status] = 0xFF
    chain = [(head, 16, 0)]
    if step.kind in (IN, OUT):
        length = 512 * step.sectors
        queue.bytes[body : body + length] = bytes([step.fill]) * length
        edges = sorted({0, length, *(cut for cut in step.cuts if cut < length)})
        flags = WRITE if step.kind == IN else 0
        chain += [(body + start, stop - start, flags) for start, stop in itertools.pairwise(edges)]
    elif step.kind != FLUSH:
        queue.bytes[body : body + 16] = struct.pack("<QII", step.sector, step.sectors, 0)
        chain.append((body, 16, 0))
    chain.append((status, 1, WRITE))
    first = 8 * number
    if step.indirect:
        queue.describe(0, chain, table=queue.bytes[table : table + 16 * len(chain)].cast("Q"))
        queue.descriptors[2 * first] = GUEST + table
        queue.descriptors[2 * first + 1] = 16 * len(chain) | INDIRECT << 32
    else:
        queue.describe(first, chain)


def result(queue: Queue, number: int, step: Step) -> tuple[int, bytes]:
    place = (queue.data // SLOT + 1 + number) * SLOT
    read = 512 * step.sectors if step.kind == IN else 0
    return queue.bytes[place + 16], bytes(queue.bytes[place + 4096 : place + 4096 + read])


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@settings(max_examples=40)
@given(batches=st.lists(st.lists(STEPS, min_size=1, max_size=24), min_size=1, max_size=6), plain=st.booleans())
def test_the_disk_is_an_array_of_bytes(
    tmp_path_factory: pytest.TempPathFactory, format: str, batches: list[list[Step]], plain: bool
) -> None:
    folder: Path = tmp_path_factory.mktemp("vhost")
    path = str(folder / "disk")
    create.create(create.plan(path, format, SECTORS * 512))
    oracle = Oracle()
    with (
        graph.open(path, format, read_only=False) as node,
        serving(folder, node) as served,
        driver(served.path, size=256, leave_out=EVENT_IDX if plain else 0) as (_, queue),
    ):
        for steps in batches:
            for number, step in enumerate(steps):
                put(queue, number, step)
            queue.offer(*[8 * number for number in range(len(steps))])
            done: list[int] = []
            while len(done) < len(steps):
                done += [head for head, _ in queue.wait()]
            assert sorted(done) == [8 * number for number in range(len(steps))]
            for number, step in enumerate(steps):
                status, read = result(queue, number, step)
                expected, content = oracle.do(step)
                assert status == expected, step
                assert content is None or read == content, step
        assert served.log == []
