"""A guest's FAT driver: changes files on a disk, sector by sector, and lets a test decide when and in which order."""

from __future__ import annotations

import random
import struct

from hostel.block.node import BlockNode

SECTOR = 512
SLOT = 32
DIRECTORY = 0x10


class Guest:
    """A FAT file system on a disk. Changes are staged until :meth:`write_back` sends them."""

    def __init__(self, node: BlockNode, rng: random.Random) -> None:
        self.node = node
        self.rng = rng
        self.staged: dict[int, bytes] = {}
        self.start = 0
        if bytes(node.read(0, 1)) not in (b"\xeb", b"\xe9"):
            self.start = struct.unpack("<I", node.read(446 + 8, 4))[0]
        boot = bytes(node.read(self.start * SECTOR, SECTOR))
        self.unit: int
        self.reserved: int
        self.unit, self.reserved, _, roots, total = struct.unpack_from("<BHBHH", boot, 13)
        total = total or struct.unpack_from("<I", boot, 32)[0]
        self.table = struct.unpack_from("<H", boot, 22)[0] or struct.unpack_from("<I", boot, 36)[0]
        self.root = self.start + self.reserved + 2 * self.table
        self.root_length = roots * SLOT
        self.first: int = self.root + self.root_length // SECTOR
        self.clusters = (total - (self.first - self.start)) // self.unit
        self.bits = 12 if self.clusters < 4085 else 16 if self.clusters < 65525 else 32
        self.last = (1 << min(self.bits, 28)) - 1

    @property
    def cluster_size(self) -> int:
        """Bytes."""
        return self.unit * SECTOR

    # ---- sectors

    def get(self, offset: int, length: int) -> bytes:
        """Bytes of the disk, with what is staged."""
        first, last = offset // SECTOR, -(-(offset + length) // SECTOR)
        data = bytearray(self.node.read(first * SECTOR, (last - first) * SECTOR))
        for number in range(first, last):
            if (own := self.staged.get(number)) is not None:
                data[(number - first) * SECTOR : (number - first + 1) * SECTOR] = own
        return bytes(data[offset - first * SECTOR :][:length])

    def put(self, offset: int, data: bytes | bytearray) -> None:
        """Stage bytes."""
        first, last = offset // SECTOR, -(-(offset + len(data)) // SECTOR)
        whole = bytearray(self.get(first * SECTOR, (last - first) * SECTOR))
        whole[offset - first * SECTOR :][: len(data)] = data
        whole[offset - first * SECTOR : offset - first * SECTOR + len(data)] = data
        for number in range(first, last):
            self.staged[number] = bytes(whole[(number - first) * SECTOR : (number - first + 1) * SECTOR])

    def write_back(self, *, flushes: float = 0.0) -> None:
        """Send what is staged in any order, with flushes at any time, and flush at the end."""
        numbers = list(self.staged)
        self.rng.shuffle(numbers)
        for number in numbers:
            self.node.pwrite(number * SECTOR, self.staged[number])
            if self.rng.random() < flushes:
                self.node.flush()
        self.staged.clear()
        self.node.flush()

    # ---- the table

    def following(self, cluster: int) -> int:
        """The entry of a cluster."""
        place, width = self._entry(cluster)
        value = int.from_bytes(self.get(place, width), "little")
        if self.bits == 12:
            return value >> 4 if cluster & 1 else value & 0xFFF
        return value & self.last

    def link(self, cluster: int, following: int) -> None:
        """Set the entry of a cluster, in both tables."""
        place, width = self._entry(cluster)
        value = following
        if self.bits == 12:
            old = int.from_bytes(self.get(place, width), "little")
            value = old & 0xF | following << 4 if cluster & 1 else old & 0xF000 | following
        for copy in (0, 1):
            self.put(place + copy * self.table * SECTOR, value.to_bytes(width, "little"))

    def _entry(self, cluster: int) -> tuple[int, int]:
        start = (self.start + self.reserved) * SECTOR
        return (start + cluster * 3 // 2, 2) if self.bits == 12 else (start + cluster * self.bits // 8, self.bits // 8)

    def chain(self, cluster: int) -> list[int]:
        """The clusters that follow each other."""
        found = []
        while cluster and cluster < self.last - 7:
            found.append(cluster)
            cluster = self.following(cluster)
        return found

    def allocate(self, count: int) -> list[int]:
        """Take free clusters from anywhere, and link them."""
        found: list[int] = []
        while len(found) < count:
            cluster = self.rng.randrange(2, min(self.clusters, 3000) + 2)
            step = 0
            while len(found) < count and step < 4 and cluster + step < self.clusters + 2:
                if not self.following(cluster + step) and cluster + step not in found:
                    found.append(cluster + step)
                step += 1
        for cluster, following in zip(found, [*found[1:], self.last], strict=False):
            self.link(cluster, following)
        return found

    def free(self, cluster: int) -> None:
        """Give a chain back."""
        for each in self.chain(cluster):
            self.link(each, 0)

    def place(self, cluster: int) -> int:
        """Where a cluster begins."""
        return (self.first + (cluster - 2) * self.unit) * SECTOR

    # ---- directories

    def slots(self, directory: int) -> bytearray:
        """The entries of a directory, which begins at a cluster; 0 for the first one."""
        if not directory and self.root_length:
            return bytearray(self.get(self.root * SECTOR, self.root_length))
        chain = self.chain(directory or 2)
        return bytearray(b"".join(self.get(self.place(each), self.cluster_size) for each in chain))

    def store(self, directory: int, slots: bytes | bytearray) -> None:
        """Write the entries of a directory."""
        if not directory and self.root_length:
            assert len(slots) <= self.root_length
            self.put(self.root * SECTOR, slots)
            return
        chain = self.chain(directory or 2)
        missing = -(-len(slots) // self.cluster_size) - len(chain)
        if missing > 0:
            more = self.allocate(missing)
            self.link(chain[-1], more[0])
            for each in more:
                self.put(self.place(each), bytes(self.cluster_size))
            chain += more
        for at, each in enumerate(chain):
            part = slots[at * self.cluster_size : (at + 1) * self.cluster_size]
            if part and part != self.get(self.place(each), len(part)):
                self.put(self.place(each), part)

    def find(self, path: str) -> tuple[int, int, int]:
        """Where a name's entries lie: its directory, the offset of the first, and of the last."""
        directory = 0
        *above, name = path.split("/")
        for step in above:
            directory = self.entry(*self._find(directory, step))[1]
        return self._find(directory, name)

    def _find(self, directory: int, name: str) -> tuple[int, int, int]:
        slots, first = self.slots(directory), None
        parts: list[bytearray] = []
        for at in range(0, len(slots), SLOT):
            slot = slots[at : at + SLOT]
            if not slot[0]:
                break
            if slot[11] == 15 and slot[0] != 0xE5:
                first = at if first is None else first
                parts.insert(0, slot[1:11] + slot[14:26] + slot[28:32])
                continue
            long = b"".join(parts).decode("utf-16-le").rstrip("\uffff").rstrip("\0")
            short = f"{slot[:8].decode('latin-1').rstrip()}.{slot[8:11].decode('latin-1').rstrip()}".rstrip(".")
            if slot[0] != 0xE5 and not slot[11] & 8 and (long or short) == name:
                return directory, at if first is None else first, at
            first = None
            parts.clear()
        raise FileNotFoundError(name)

    def entry(self, directory: int, first: int, at: int) -> tuple[int, int, int]:
        """Attributes, cluster and size of an entry."""
        slot = self.slots(directory)[at : at + SLOT]
        high, low, size = *struct.unpack_from("<H", slot, 20), *struct.unpack_from("<HI", slot, 26)
        return slot[11], high << 16 | low, size

    def update(self, directory: int, at: int, cluster: int, size: int) -> None:
        """Change an entry."""
        slots = self.slots(directory)
        struct.pack_into("<H", slots, at + 20, cluster >> 16)
        struct.pack_into("<HI", slots, at + 26, cluster & 0xFFFF, size)
        self.store(directory, slots)

    def add(self, path: str, attributes: int, cluster: int, size: int) -> None:
        """Put a name into its directory."""
        *above, name = path.split("/")
        directory = self.entry(*self.find("/".join(above)))[1] if above else 0
        short = f"{self.rng.getrandbits(32):08X}".encode().ljust(11)
        total = 0
        for byte in short:
            total = ((total >> 1 | (total & 1) << 7) + byte) & 0xFF
        units = name.encode("utf-16-le")
        units = (units + b"\0\0" * (len(units) % 26 > 0)).ljust(-(-len(units) // 26) * 26, b"\xff")
        new = b""
        for number in range(len(units) // 26, 0, -1):
            part = units[(number - 1) * 26 : number * 26]
            order = number | (0x40 if number == len(units) // 26 else 0)
            new += bytes([order]) + part[:10] + bytes([15, 0, total]) + part[10:22] + b"\0\0" + part[22:]
        new += struct.pack("<11sB8xHHHHI", short, attributes, cluster >> 16, 0x6000, 0x5A21, cluster & 0xFFFF, size)
        slots = self.slots(directory)
        at = run = 0
        while run < len(new):  # the first free ones in a row; the end of the directory is free
            at += SLOT
            run = run + SLOT if at > len(slots) or slots[at - SLOT] in (0, 0xE5) else 0
        at -= run
        ended = at < len(slots) and 0 in slots[at : at + len(new) : SLOT]
        end = at + len(new)
        slots[at:end] = new
        if ended and end < len(slots):
            slots[end] = 0
        self.store(directory, slots)

    def erase(self, path: str) -> tuple[int, int, int]:
        """Take a name out of its directory; its clusters stay as they are."""
        directory, first, last = self.find(path)
        found = self.entry(directory, first, last)
        slots = self.slots(directory)
        for at in range(first, last + 1, SLOT):
            slots[at] = 0xE5
        self.store(directory, slots)
        return found

    # ---- what a guest does

    def create(self, path: str, data: bytes) -> None:
        """Make a file."""
        chain = self.allocate(-(-len(data) // self.cluster_size))
        self._fill(chain, 0, data)
        self.add(path, 0x20, chain[0] if chain else 0, len(data))

    def _fill(self, chain: list[int], offset: int, data: bytes) -> None:
        while data:
            index, within = divmod(offset, self.cluster_size)
            part = data[: self.cluster_size - within]
            self.put(self.place(chain[index]) + within, part)
            data, offset = data[len(part) :], offset + len(part)

    def modify(self, path: str, offset: int, data: bytes) -> None:
        """Write into a file, which grows where that is beyond its end."""
        where = self.find(path)
        _, cluster, size = self.entry(*where)
        chain, end = self.chain(cluster), max(size, offset + len(data))
        missing = -(-end // self.cluster_size) - len(chain)
        if missing > 0:
            more = self.allocate(missing)
            if chain:
                self.link(chain[-1], more[0])
            chain += more
        if offset > size:
            data, offset = bytes(offset - size) + data, size
        self._fill(chain, offset, data)
        self.update(where[0], where[2], chain[0] if chain else 0, end)

    def truncate(self, path: str, size: int) -> None:
        """Cut a file."""
        where = self.find(path)
        _, cluster, old = self.entry(*where)
        chain, kept = self.chain(cluster), -(-min(size, old) // self.cluster_size)
        for each in chain[kept:]:
            self.link(each, 0)
        if kept:
            self.link(chain[kept - 1], self.last)
        self.update(where[0], where[2], cluster if kept else 0, min(size, old))

    def rename(self, path: str, new: str) -> None:
        """Move a file or directory."""
        attributes, cluster, size = self.entry(*self.find(path))
        self.erase(path)
        self.add(new, attributes, cluster, size)
        if attributes & DIRECTORY:
            *above, _ = new.split("/")
            parent = self.entry(*self.find("/".join(above)))[1] if above else 0
            self.update(cluster, SLOT, parent, 0)

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        (cluster,) = self.allocate(1)
        *above, _ = path.split("/")
        parent = self.entry(*self.find("/".join(above)))[1] if above else 0
        dots = b"".join(
            struct.pack("<11sB8xHHHHI", name, DIRECTORY, number >> 16, 0x6000, 0x5A21, number & 0xFFFF, 0)
            for name, number in ((b".".ljust(11), cluster), (b"..".ljust(11), parent))
        )
        self.put(self.place(cluster), dots.ljust(self.cluster_size, b"\0"))
        self.add(path, DIRECTORY, cluster, 0)

    def remove(self, path: str) -> None:
        """Remove a file, or an empty directory."""
        self.free(self.erase(path)[1])
