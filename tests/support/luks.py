"""LUKS volumes in memory, made fast."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import pytest

from hostel.block import objects
from hostel.block.crypto import algorithm, antiforensic, keyslot, sector
from hostel.block.crypto import luks as crypto
from hostel.block.crypto.luks import HeaderArea, LuksVolume
from hostel.block.driver import OpenMode
from hostel.block.formats.luks import LuksDriver
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.node import BlockNode
from hostel.block.options import Value
from support.memory import MemoryDriver, memory_node

SECRETS = {"first": b"correct horse", "second": b"battery staple", "third": b"tr0ub4dor&3"}
FAST: dict[str, Value] = {"key-secret": "first", "iter-time": 1}
CHAINED: dict[str, Value] = {"cipher-alg": "aes-128", "cipher-mode": "cbc"}  # with keys of few bytes


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


@contextmanager
def many_volumes() -> Iterator[None]:
    """The secrets, and what makes thousands of volumes a matter of seconds.

    No time is measured, what is wiped is written over twice, not forty times, what a passphrase and the bytes of a slot
    give is worked out once, and so are the stripes of a key; many sectors are encrypted at once from the start.
    """
    with pytest.MonkeyPatch.context() as patch, secrets():
        patch.setattr(keyslot, "_WIPES", 2)
        patch.setattr(sector, "_FEW", 0)
        patch.setattr(crypto, "count_iterations", lambda hash, length, iter_time: 1000)
        patch.setattr(crypto, "split", functools.lru_cache(64)(antiforensic.split))
        patch.setattr(crypto, "merge", functools.lru_cache(256)(antiforensic.merge))
        patch.setattr(crypto, "pbkdf2", functools.lru_cache(1024)(algorithm.pbkdf2))
        yield


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


class Container:
    """Where a volume lies: here, in a file that is the volume.

    Attributes:
        prefix: before the names of options that change its key slots.
    """

    prefix = ""
    small: Final[dict[str, Value]] = {"cipher-alg": "aes-128", "cipher-mode": "ecb"}

    def create(self, driver: MemoryDriver, size: int) -> None:
        """Make a volume that the first passphrase opens."""
        LuksDriver.create(memory_node(driver), size, FAST | self.small)

    def open(self, driver: MemoryDriver, secret: str = "first", *, read_only: bool = False) -> BlockNode:
        """Open it."""
        return opened(driver, secret, read_only=read_only)

    def amend(self, driver: MemoryDriver, change: Mapping[str, Value], *, force: bool = False) -> None:
        """Change key slots, as whoever has the first passphrase does."""
        with self.open(driver) as node:
            self.change(node, change, force=force)

    def change(self, node: BlockNode, change: Mapping[str, Value], *, force: bool = False) -> None:
        """Change key slots of the open volume; nothing is said of the options' prefix."""
        given = {self.prefix + name: value for name, value in change.items()}
        if change["state"] == "active":
            given[f"{self.prefix}iter-time"] = 1
        assert isinstance(node.driver, LuksDriver | Qcow2Driver)
        node.driver.amend(given, force=force, report=lambda done, total: None)

    def area(self, driver: MemoryDriver) -> HeaderArea:
        """Where header and key material lie."""
        return HeaderArea(memory_node(driver))


class DetachedContainer(Container):
    """A header in a file of its own, which is the one that changes; the payload stays as it is."""

    def __init__(self) -> None:
        self._payload = MemoryDriver()

    def create(self, driver: MemoryDriver, size: int) -> None:
        """Make the header, and room for the payload."""
        LuksDriver.create(memory_node(driver), 0, FAST | self.small | {"detached-header": True})
        self._payload = MemoryDriver(bytes(size))

    def open(self, driver: MemoryDriver, secret: str = "first", *, read_only: bool = False) -> BlockNode:
        """Open the two files."""
        header, payload = (memory_node(each, read_only=read_only) for each in (driver, self._payload))
        mode = OpenMode(read_only=read_only, options={"key-secret": secret}, parts={"header": header})
        return BlockNode(LuksDriver.open(payload, mode), "memory", read_only=read_only)


class Qcow2Container(Container):
    """A volume among the clusters of a qcow2 image."""

    prefix = "encrypt."

    def create(self, driver: MemoryDriver, size: int) -> None:
        """Make an image of small clusters."""
        options = {f"encrypt.{name}": value for name, value in (FAST | self.small).items()}
        Qcow2Driver.create(memory_node(driver), size, options | {"encrypt.format": "luks", "cluster_size": 4096})

    def open(self, driver: MemoryDriver, secret: str = "first", *, read_only: bool = False) -> BlockNode:
        """Open it."""
        mode = OpenMode(read_only=read_only, options={"encrypt.key-secret": secret})
        file = memory_node(driver, read_only=read_only)
        return BlockNode(Qcow2Driver.open(file, mode), "memory", read_only=read_only)

    def area(self, driver: MemoryDriver) -> HeaderArea:
        """Where the image says."""
        encryption = Qcow2Driver.open(memory_node(driver, read_only=True), OpenMode(no_io=True))._guest.encryption
        assert encryption is not None
        assert encryption.volume is not None
        return encryption.volume.area._replace(node=memory_node(driver))


CONTAINERS = {"luks": Container, "a header alone": DetachedContainer, "qcow2": Qcow2Container}
