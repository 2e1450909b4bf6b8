"""Noise from a front end and from a guest: the back end reports it, and the next one is served as if nothing was."""

from __future__ import annotations

import contextlib
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from support.vhost import GUEST, IN, MIB, FrontEnd, Queue, Served, driver, serving

ROUNDS = 60


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    path = tmp_path / "disk.raw"
    path.write_bytes(random.Random(1).randbytes(MIB))
    with graph.open(str(path), "raw") as node, serving(tmp_path, node, writable=False, queues=2) as running:
        yield running
        assert not any("internal error" in line for line in running.log), running.log


def works(served: Served) -> bool:
    with driver(served.path) as (_, queue):
        return queue.request(IN, 0, read=512)[0] == 0


@pytest.mark.parametrize("seed", range(4))
def test_messages_of_noise(served: Served, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        with contextlib.suppress(OSError, AssertionError), FrontEnd(served.path) as front:
            if rng.random() < 0.7:
                front.negotiate()
            for _ in range(rng.randrange(1, 9)):
                length = rng.choice((0, 4, 8, 8, 8, 12, 20, 40, 48, 60))
                payload = bytes(rng.choices((0, 0, 0, 1, 2, 16, 128, 255), k=length))
                descriptors = [front.fd] * rng.choice((0, 0, 1, 1, 2, 8))
                front.tell(rng.randrange(46), payload, descriptors, flags=rng.choice((1, 1, 1, 9, 5, 0)))
    assert works(served)


@pytest.mark.parametrize("seed", range(4))
def test_rings_of_noise(served: Served, seed: int) -> None:
    """Descriptors that are nearly right: addresses near the edges of memory, lengths and flags of all kinds."""
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        with FrontEnd(served.path, memory=4 * MIB) as front:
            front.negotiate()
            queue = Queue(front, size=16)
            queue.start()
            edges = (0, queue.used, queue.data, 4 * MIB - 16, 4 * MIB - 1, 4 * MIB, 2**63)
            for index in range(16):
                address = (GUEST + rng.choice(edges) + rng.choice((0, 1, 16, -1))) % 2**64
                length = rng.choice((0, 1, 16, 17, 48, 512, 4096, 2**32 - 1))
                word = length | rng.randrange(8) << 32 | rng.choice((0, 1, index, 15, 16, 65535)) << 48
                queue.descriptors[2 * index], queue.descriptors[2 * index + 1] = address, word
            queue.bytes[queue.data : queue.data + 64] = struct.pack("<IIQ", rng.randrange(16), 0, rng.randrange(8)) * 4
            for index in range(16):
                queue.available_ring[2 + index] = rng.choice((index, index, 16, 65535))
            queue.available_ring[1] = rng.choice((1, 8, 16, 17, 65535))
            os.eventfd_write(queue.kick, 1)
            with contextlib.suppress(OSError):
                queue.stop()
            queue.close()
    assert works(served)
