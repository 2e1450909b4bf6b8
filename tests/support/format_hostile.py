"""Small images of each format that have everything, and random damage to them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from support.format_subjects import SUBJECTS
from support.format_workload import FormatWorkload
from support.qcow2_hostile import WORDS

_HEADER = 128  # bytes that are hit as often as all others


def sound(format: str, *, backing: bool = False) -> bytes:
    """An image with data, zeroes and, where there is such a thing, compressed clusters and a backing file's name."""
    subject = SUBJECTS[format]
    rng = random.Random(f"sound {format} {backing}")
    while True:
        options = subject.options(rng)
        size = 40 * subject.cluster_size(options)
        workload = FormatWorkload(subject, rng, options=options, size=size, aligned=True)
        if (workload.backing is not None) == (backing and subject.backing):
            break
        workload.node.close()
    for name in ("write", "compress", "zero", "write", "unmap", "compress"):
        if name in workload.operations():
            getattr(workload, name)()
    workload.node.close()
    return bytes(workload.driver.data)


def poke(data: bytearray, place: int, width: int, rng: random.Random) -> str:
    """Put some number in the place of another one; returns what was done."""
    value = rng.choice((*WORDS, rng.getrandbits(64), rng.randrange(len(data)))) & (1 << 8 * width) - 1
    orders: tuple[Literal["big"], Literal["little"]] = ("big", "little")
    order = rng.choice(orders)
    data[place : place + width] = value.to_bytes(width, order)
    return f"{order} {value:#x} at {place:#x}"


def cut_off(data: bytearray, rng: random.Random) -> list[str]:
    """Now and then cut an image off; returns what was done."""
    if rng.random() >= 0.1:
        return []
    del data[rng.randrange(len(data)) :]
    return [f"cut to {len(data)}"]


def mutations(format: str, rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Damaged images, each with what was done to it; most of their bytes are metadata."""
    images = [sound(format), sound(format, backing=True)]
    for _ in range(count):
        data, history = bytearray(rng.choice(images)), []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            width = rng.choice((4, 8))
            end = _HEADER if rng.random() < 0.5 else len(data)
            place = rng.randrange(end // width) * width
            history.append(poke(data, place, width, rng))
        history += cut_off(data, rng)
        yield "; ".join(history), bytes(data)
