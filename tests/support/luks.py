"""LUKS volumes in memory, made fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hostel.block import objects
from hostel.block.crypto.luks import HeaderArea, LuksVolume
from hostel.block.driver import OpenMode
from hostel.block.formats.luks import LuksDriver
from hostel.block.node import BlockNode
from hostel.block.options import Value
from support.memory import MemoryDriver, memory_node

SECRETS = {"first": b"correct horse", "second": b"battery staple", "third": b"tr0ub4dor&3"}
FAST: dict[str, Value] = {"key-secret": "first", "iter-time": 1}


@contextmanager
def secrets() -> Iterator[None]:
    """The secrets that the images here are made and opened with."""
    objects.clear()
    for name, data in SECRETS.items():
        objects.add(name, objects.Secret(data))
    try:
        yield
    finally:
        objects.clear()


def new_volume(driver: MemoryDriver, size: int = 64 * 1024, **options: Value) -> None:
    """Lay out a volume in memory; underscores in the options' names are dashes."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    LuksDriver.create(memory_node(driver), size, FAST | named)


def opened(driver: MemoryDriver, secret: str = "first", *, read_only: bool = False) -> BlockNode:
    """Open a volume that lies in memory."""
    mode = OpenMode(read_only=read_only, options={"key-secret": secret})
    file = memory_node(driver, read_only=read_only)
    return BlockNode(LuksDriver.open(file, mode), "memory", read_only=read_only)


def opens(data: bytes, secret: str) -> bool:
    """Whether a passphrase opens a volume."""
    volume = LuksVolume.open(HeaderArea(memory_node(MemoryDriver(data))))
    return any(volume.key_in(index, SECRETS[secret]) is not None for index in range(8))
