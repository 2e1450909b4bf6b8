"""A driver that does nothing but keep a number of virtio-blk requests under way, and counts what comes back."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

from support.vhost import GUEST, IN, INDIRECT, MIB, NEXT, OUT, WRITE, Queue, driver

SPIN = 100e-6  # seconds for which the driver looks for itself before it sleeps, as a guest that polls before it halts


def rate(path: Path | str, *, write: bool, depth: int, length: int = 4096, seconds: float = 0.7, spin: bool) -> float:
    """Requests a second, at random places, with ``depth`` of them under way."""
    with driver(path, size=256) as (front, queue):
        capacity = struct.unpack_from("<Q", front.config())[0] * 512
        return _run(_Load(queue, capacity // length, write=write, depth=depth, length=length), depth, seconds, spin)


class _Load:
    """Requests whose buffers and tables are written once; only their sectors change."""

    def __init__(self, queue: Queue, blocks: int, *, write: bool, depth: int, length: int) -> None:
        self.queue = queue
        base = -(-queue.data // MIB) * MIB
        tables, heads, statuses, data = base, base + 0x10000, base + 0x20000, base + 0x30000
        rng = random.Random(depth)
        self.sectors = [rng.randrange(blocks) * (length // 512) for _ in range(1 << 14)]
        self.head_words = queue.bytes[heads : heads + 16 * depth].cast("Q")
        self.statuses = queue.bytes[statuses : statuses + depth]
        self.next = 0
        for slot in range(depth):
            self.head_words[2 * slot] = OUT if write else IN
            table = queue.bytes[tables + 48 * slot : tables + 48 * slot + 48].cast("Q")
            place = data + slot * length
            if write:
                queue.bytes[place : place + length] = rng.randbytes(length)
            chain = (heads + 16 * slot, 16, 0), (place, length, 0 if write else WRITE), (statuses + slot, 1, WRITE)
            for index, (offset, size, flags) in enumerate(chain):
                table[2 * index] = GUEST + offset
                table[2 * index + 1] = size | (flags | (NEXT if index < 2 else 0)) << 32 | index + 1 << 48
            queue.descriptors[2 * slot] = GUEST + tables + 48 * slot
            queue.descriptors[2 * slot + 1] = 48 | INDIRECT << 32

    def offer(self, slots: list[int]) -> None:
        """Give requests new places, and make them available."""
        words, sectors, number = self.head_words, self.sectors, self.next
        for slot in slots:
            words[2 * slot + 1] = sectors[number & 0x3FFF]
            number += 1
        self.next = number
        self.queue.offer(*slots)


def _run(load: _Load, depth: int, seconds: float, spin: bool) -> float:
    queue, clock = load.queue, time.perf_counter
    head, seen, ring, mask = queue.used_head, queue.seen, queue.used_ring, queue.size - 1
    load.offer(list(range(depth)))
    start = now = clock()
    done = 0
    while now - start < seconds:
        until = now + SPIN
        while spin and head[1] == seen & 0xFFFF and clock() < until:
            pass
        if head[1] == seen & 0xFFFF:
            queue.seen = seen
            queue.wait_for_call()
        count = (head[1] - seen) & 0xFFFF
        slots = [ring[2 * (index & mask)] for index in range(seen, seen + count)]
        seen += count
        done += count
        load.offer(slots)
        now = clock()
    queue.seen = seen
    left = depth
    while left:
        left -= len(queue.wait())
    assert not any(load.statuses), "a request failed"
    return done / (now - start)
