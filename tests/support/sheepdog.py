"""A Sheepdog cluster of one server, in memory: written from ``sheepdog_proto.h``, and not from our client."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

REQUEST = struct.Struct("<BBHIII")  # version, operation, flags, epoch, id, length of the data; 28 bytes follow
ABOUT_OBJECT = struct.Struct("<QQBBBBIII")  # oid, cow oid, copies, policy, strip, reserved, epoch, offset, padding
ABOUT_VDI = struct.Struct("<QIBBBBIIQ")  # size, base, copies, policy, store policy, block size, snapshot, type, padding
REPLY = struct.Struct("<BBHIIII28s")  # ... result, the rest
INODE = struct.Struct("<256s256sQQQQQBBBBIII")
TABLE = 4664
ENTRIES = 1 << 20

CREATE_AND_WRITE, READ, WRITE, NEW, LOCK, RELEASE, INFO, FLUSH, DEFAULT = 1, 2, 3, 0x11, 0x12, 0x13, 0x14, 0x16, 0x18
LIST, DELETE, LIST_DELETED = 0x15, 0x17, 0xC9
VERSION_MISMATCH = 0x14
SUCCESS, NO_OBJECT, EXISTS, INVALID, LOCKED, NO_VDI, NO_TAG, NOT_LOCKED, NO_SPACE, READ_ONLY = (
    *(0, 2, 4, 5, 7, 8, 0x0E, 0x10),
    *(0x15, 0x1A),
)
COW = 2
BITS = 20  # of an object's size, where a client says nothing

# Changes an answer before it is sent: what to send, or nothing to close the connection.
Tamper = Callable[[int, bytes], bytes | None]


class Vdi:
    """A disk, or a snapshot of one."""

    def __init__(self, number: int, name: str, size: int, bits: int, parent: Vdi | None, snapshot_id: int = 1) -> None:
        self.number = number
        self.parent = 0 if parent is None else parent.number
        self.snapshot_id = snapshot_id
        self.bits = bits
        header = INODE.pack(
            *(name.encode(), b"", 1, 0, 0, size, 0, 0, 0, 1, bits, self.snapshot_id, number, self.parent)
        )
        self.inode = bytearray(TABLE + 4 * ENTRIES)
        self.inode[: len(header)] = header
        if parent is not None:
            self.inode[TABLE:] = parent.inode[TABLE:]

    @property
    def fields(self) -> tuple[str, str, bool, int]:
        """Name, tag, whether it is a snapshot, and size."""
        found = INODE.unpack_from(self.inode)
        return found[0].rstrip(b"\0").decode(), found[1].rstrip(b"\0").decode(), bool(found[3]), found[5]

    def owner(self, index: int) -> int:
        """Which disk has a data object of this one; 0 where there is none."""
        return int(struct.unpack_from("<I", self.inode, TABLE + 4 * index)[0])

    def become_snapshot(self) -> None:
        """From now on nothing of it changes."""
        self.inode[520:528] = struct.pack("<Q", 1_700_000_000 << 32 | 5000)


class SheepdogServer:
    """The cluster.

    Attributes:
        objects: the data, by their ids.
        requests: operations in the order in which they came.
        tamper: see :data:`Tamper`.
        leaves: whether the server closes a connection after an answer.
        before: called with each request's operation and object, before it is done.
        caches: whether the server has a cache that can be flushed.
    """

    def __init__(self) -> None:
        self.vdis: dict[int, Vdi] = {}
        self.deleted: set[int] = set()
        self.dropped: dict[int, Vdi] = {}  # which keep their inodes for a while
        self.locks: set[int] = set()
        self.objects: dict[int, bytearray] = {}
        self.requests: list[int] = []
        self.tamper: Tamper | None = None
        self.before: Callable[[int, int], None] | None = None
        self.leaves = False
        self.caches = True
        self.limit = 1 << 30  # objects
        self._lock = threading.RLock()

    def current(self, name: str) -> Vdi | None:
        """The disk of a name that can be written."""
        found = [vdi for vdi in self.vdis.values() if vdi.fields[0] == name and not vdi.fields[2]]
        return found[-1] if found else None

    def create(self, name: str, size: int, bits: int = BITS) -> Vdi:
        """Make a disk."""
        vdi = Vdi(self._free(name), name, size, bits, None)
        self.vdis[vdi.number] = vdi
        return vdi

    def _free(self, name: str) -> int:
        """The first number for a name that is not in use: where its hash is, or behind."""
        value = 0xCBF29CE484222325
        for byte in name.encode():
            value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
        number = value & 0xFFFFFF
        while number in self.vdis or number in self.deleted:
            number = (number + 1) & 0xFFFFFF
        return number

    def snapshot(self, name: str, tag: str) -> None:
        """Snapshot a disk, as somebody else may do meanwhile."""
        with self._lock:
            old = self.current(name)
            assert old is not None
            old.inode[256:512] = tag.encode().ljust(256, b"\0")
            self._branch(name, old, old)

    def _branch(self, name: str, old: Vdi, base: Vdi) -> Vdi:
        """Make the disk a snapshot, and a new disk of the content of one."""
        new = Vdi(self._free(name), name, base.fields[3], base.bits, base, old.snapshot_id + 1)
        old.become_snapshot()
        self.vdis[new.number] = new
        return new

    def content(self, vdi: Vdi) -> bytes:
        """What a disk reads as."""
        size = vdi.fields[3]
        length = 1 << vdi.bits
        pieces = []
        for index in range(-(-size // length)):
            owner = vdi.owner(index)
            pieces.append(self.objects[owner << 32 | index] if owner else bytes(length))
        return b"".join(pieces)[:size]

    def serve(self, connection: socket.socket) -> None:
        """Answer one client until it goes."""
        with connection, contextlib.suppress(OSError, EOFError):
            stream = connection.makefile("rb")
            while True:
                head = _exactly(stream.read, 48)
                version, op, flags, _, number, length = REQUEST.unpack_from(head)
                data = _exactly(stream.read, length) if flags & 1 else b""
                with self._lock:
                    self.requests.append(op)
                    result, rest, answer = self._answer(version, op, flags, head[REQUEST.size :], length, data)
                reply = REPLY.pack(version, op, 0, 0, number, len(answer), result, rest.ljust(28, b"\0")) + answer
                changed = reply if self.tamper is None else self.tamper(op, reply)
                if changed is None:
                    return
                connection.sendall(changed)
                if self.leaves:
                    return

    def _answer(
        self, version: int, op: int, flags: int, rest: bytes, length: int, data: bytes
    ) -> tuple[int, bytes, bytes]:
        if self.before is not None:
            self.before(op, struct.unpack_from("<Q", rest)[0])
        if op in (READ, WRITE, CREATE_AND_WRITE, FLUSH):
            oid, cow, *_, offset, _ = ABOUT_OBJECT.unpack(rest)
            if op == FLUSH:
                return (SUCCESS if self.caches else INVALID), b"", b""
            if op == READ:
                return self._read(version, oid, offset, length)
            return self._write(oid, offset, data, cow if flags & COW else 0, create=op == CREATE_AND_WRITE), b"", b""
        size, base, *_, bits, snapshot, _, _ = ABOUT_VDI.unpack(rest)
        if op == DEFAULT:
            return SUCCESS, struct.pack("<BBB", 1, 0, BITS), b""
        if op == RELEASE:
            if base not in self.locks:
                return NOT_LOCKED, b"", b""
            self.locks.remove(base)
            return SUCCESS, b"", b""
        if op in (LIST, LIST_DELETED):
            if op == LIST_DELETED and version != 0x0A:
                return VERSION_MISMATCH, b"", b""
            return self._list(length, self.deleted if op == LIST_DELETED else {*self.vdis, *self.deleted})
        name = data[:256].rstrip(b"\0").decode()
        if op == NEW:
            old = self.current(name)
            if len(data) != 256 or (old is None) == bool(snapshot):
                return (INVALID if len(data) != 256 else NO_VDI if snapshot else EXISTS), b"", b""
            new = self.create(name, size, bits or BITS) if old is None else self._branch(name, old, self.vdis[base])
            return SUCCESS, struct.pack("<III", 0, new.number, 0), b""
        if op == DELETE and len(data) == 512:
            result, rest, _ = self._find(name, data[256:].rstrip(b"\0").decode(), snapshot, lock=False)
            if result == SUCCESS:
                number = struct.unpack_from("<II", rest)[1]
                self.deleted.add(number)
                self.dropped[number] = self.vdis.pop(number)
            return result, b"", b""
        if op in (INFO, LOCK) and len(data) == 512:
            return self._find(name, data[256:].rstrip(b"\0").decode(), snapshot, lock=op == LOCK)
        return INVALID, b"", b""

    def _list(self, length: int, numbers: set[int]) -> tuple[int, bytes, bytes]:
        used = bytearray(1 << 21)
        for number in numbers:
            used[number >> 3] |= 1 << (number & 7)
        return (SUCCESS, b"", bytes(used)) if length == len(used) else (INVALID, b"", b"")

    def _find(self, name: str, tag: str, snapshot: int, *, lock: bool) -> tuple[int, bytes, bytes]:
        vdi: Vdi | None
        if tag or snapshot:
            named = [vdi for vdi in self.vdis.values() if vdi.fields[0] == name]
            fits = [vdi for vdi in named if vdi.fields[2] and (vdi.fields[1] == tag or vdi.snapshot_id == snapshot)]
            if not fits:
                return (NO_TAG if named else NO_VDI), b"", b""
            vdi = fits[0]
        else:
            vdi = self.current(name)
            if vdi is None:
                return NO_VDI, b"", b""
        if lock:
            if vdi.number in self.locks:
                return LOCKED, b"", b""
            self.locks.add(vdi.number)
        return SUCCESS, struct.pack("<IIIBB", 0, vdi.number, 0, 1, vdi.bits), b""

    def _object(self, oid: int) -> bytearray | None:
        if oid >> 63:
            number = oid >> 32 & 0xFFFFFF
            vdi = self.vdis.get(number, self.dropped.get(number))
            return None if vdi is None else vdi.inode
        return self.objects.get(oid)

    def _read(self, version: int, oid: int, offset: int, length: int) -> tuple[int, bytes, bytes]:
        found = self._object(oid)
        if found is None:
            return NO_OBJECT, b"", b""
        data = bytes(found[offset : offset + length])
        return SUCCESS, b"", data.rstrip(b"\0") if version >= 2 else data

    def _write(self, oid: int, offset: int, data: bytes, cow: int, *, create: bool) -> int:
        owner = self.vdis.get(oid >> 32 & 0xFFFFFF)
        if owner is None:
            return NO_VDI
        if owner.fields[2]:
            return READ_ONLY
        if create:
            if len(self.objects) >= self.limit:
                return NO_SPACE
            source = self.objects.get(cow) if cow else bytearray(1 << owner.bits)
            if source is None:
                return NO_OBJECT
            self.objects[oid] = bytearray(source)
        found = self._object(oid)
        if found is None:
            return NO_OBJECT
        if offset + len(data) > len(found):
            return INVALID
        found[offset : offset + len(data)] = data
        return SUCCESS


def _exactly(read: Callable[[int], bytes], length: int) -> bytes:
    data = read(length)
    if len(data) != length:
        raise EOFError
    return data


@contextlib.contextmanager
def running(server: SheepdogServer, path: Path | None = None) -> Iterator[int]:
    """Serve on a port of this host, which is given, or on a socket."""
    with contextlib.ExitStack() as stack:
        family = socket.AF_INET if path is None else socket.AF_UNIX
        listener = stack.enter_context(socket.socket(family))
        listener.bind(("127.0.0.1", 0) if path is None else str(path))
        listener.listen()
        connections: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connections.append(connection)
                    threading.Thread(target=server.serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield 0 if path is not None else int(listener.getsockname()[1])
        finally:
            for each in (listener, *connections):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            thread.join(10)
