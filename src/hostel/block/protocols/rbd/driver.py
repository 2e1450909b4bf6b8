"""The protocol driver ``rbd``."""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

from hostel.block import objects
from hostel.block.driver import FormatInfo, OpenMode, Supports, Threading
from hostel.block.extent import Extent, Status
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.block.powers import Preallocation, SnapshotInfo
from hostel.block.protocol import SIZE, Creation, ProtocolDriver, items
from hostel.block.protocols.rbd import name as names
from hostel.block.protocols.rbd.library import Cluster, Encryption, Image
from hostel.block.write_lock import WriteLock
from hostel.errors import BlockError, ReadOnly
from hostel.units import SECTOR, GiB

_OPTIONS: Final = Options(
    Option("pool", Kind.STRING, "Pool that the image lies in"),
    Option("namespace", Kind.STRING, "Namespace of the pool"),
    Option("image", Kind.STRING, "Name of the image"),
    Option("conf", Kind.STRING, "Configuration file of Ceph"),
    Option("snapshot", Kind.STRING, "Snapshot of the image"),
    Option("user", Kind.STRING, "Ceph user whose key is used, without 'client.'"),
    Option("auth-client-required.0", Kind.STRING, "Ways to prove who we are: cephx, none"),
    Option("key-secret", Kind.STRING, "ID of the secret with the user's key"),
    Option("password-secret", Kind.STRING, "Older word for key-secret"),
    Option("server.0.host", Kind.STRING, "Host of a monitor"),
    Option("server.0.port", Kind.STRING, "Port of a monitor"),
    Option("encrypt.format", Kind.STRING, "luks or luks2"),
    Option("encrypt.key-secret", Kind.STRING, "ID of the secret with the passphrase"),
    Option(names.CEPH_OPTIONS, Kind.STRING, "Options of Ceph that a name gave"),
)
_CREATE_OPTIONS: Final = Options(
    SIZE,
    Option("cluster_size", Kind.SIZE, "RBD object size"),
    Option("password-secret", Kind.STRING, "ID of secret providing the password"),
    Option("encrypt.format", Kind.STRING, "Encrypt the image, format choices: 'luks', 'luks2'"),
    Option("encrypt.cipher-alg", Kind.STRING, "Name of encryption cipher algorithm (allowed values: aes-128, aes-256)"),
    Option("encrypt.key-secret", Kind.STRING, "ID of secret providing LUKS passphrase"),
)
# What a name must say too, where it is given, or another image would be opened.
_STRONG: Final = ("pool", "namespace", "image", "conf", "snapshot", "user")
_AUTHENTICATIONS: Final = ("cephx", "none")
_LUKS: Final = {"luks": 1, "luks2": 2}
_LUKS_MAGIC: Final = b"LUKS\xba\xbe\0"
_CIPHERS: Final = {"aes-128": 128, "aes-256": 256}
_SMALLEST_OBJECT: Final = 4096
_WINDOW: Final = 4 * GiB  # bytes whose extents are asked for at once
_MAX_NAME: Final = 128  # bytes that QEMU keeps of a snapshot's id, its NUL included


class RbdDriver(ProtocolDriver):
    """An image of a Ceph cluster, or a snapshot of one, which can only be read.

    Reads beyond the end are zeroes and writes beyond it make the image grow. Ceph's own snapshots are shown as
    internal ones, whose ids are their names.
    """

    name = "rbd"
    supports = Supports.WRITE | Supports.ZEROES | Supports.DISCARD | Supports.GROWS
    threading = Threading.PARALLEL
    creation = Creation.NEW
    options: Final = _OPTIONS  # type: ignore[misc]
    create_options: Final = _CREATE_OPTIONS  # type: ignore[misc]
    unknown = "Parameter '{name}' is unexpected"

    def __init__(self, cluster: Cluster, image: Image, filename: str, *, encrypted: bool, no_flush: bool) -> None:
        super().__init__()
        self.filename = filename
        self._cluster = cluster
        self._image = image
        self._encrypted = encrypted
        self._no_flush = no_flush
        self._growing = WriteLock()
        self._size = image.size()

    @classmethod
    def parse_filename(cls, name: str) -> Mapping[str, Any]:
        """See :mod:`hostel.block.protocols.rbd.name`."""
        return names.parse(name)

    @classmethod
    def open(cls, options: Mapping[str, Any], mode: OpenMode, *, creating: bool = False) -> Self:
        """Open an image, or with ``creating`` make one, of the cluster that the options name.

        Raises:
            OptionError: the options are wrong.
            BlockError: the cluster cannot be reached, or refuses; the text is QEMU's.
        """
        ceph_options = options.get(names.CEPH_OPTIONS, ())
        values = cls.converted({key: value for key, value in options.items() if key != names.CEPH_OPTIONS})
        for key in ("pool", "image"):
            if key not in values:
                raise OptionError(f"Parameter '{key}' is missing")
        encryption = _encryption(mode.options, "") if creating else _encryption(values, "encrypt.")
        order = _object_bits(mode.options) if creating else 0
        if creating and "password-secret" in mode.options:
            values.setdefault("password-secret", mode.options["password-secret"])
        snapshot = values.get("snapshot")
        if creating and snapshot is not None:
            raise OptionError("Can't use snapshot name for image creation")
        cluster = _configured(values, ceph_options, cached=not mode.cache.direct)
        image = None
        try:
            cluster.connect(values["pool"], values.get("namespace"))
            if creating:
                cluster.create(values["image"], int(mode.options.get("size", 0)), order)
                image = _new_image(cluster, values["image"], encryption)
            else:
                image = cluster.open(values["image"], snapshot, read_only=mode.read_only)
                if encryption is not None:
                    image.decrypt(encryption)
            if snapshot is not None and not mode.read_only:
                raise ReadOnly("rbd snapshots are read-only", errno=errno.EACCES)
            shown = _shown(options)
            return cls(cluster, image, shown, encrypted=encryption is not None, no_flush=mode.cache.no_flush)
        except BaseException:
            if image is not None:
                image.close()
            cluster.close()
            raise

    @property
    def length(self) -> int:
        """The image's size, in whole sectors."""
        return -(-self._size // SECTOR) * SECTOR

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``; what is beyond the end reads as zeroes."""
        inside = max(0, min(len(buf), self._size - offset))
        done = 0
        while done < inside:
            more = self._image.read(offset + done, buf[done:inside])
            if not more:
                raise BlockError(
                    f"'{self.filename}' ends at {offset + done} bytes, and had {self._size}", errno=errno.EIO
                )
            done += more
        buf[inside:] = bytes(len(buf) - inside)

    def _grow(self, end: int) -> None:
        """See that the image has so many bytes: the library writes no further."""
        if end > self._size:
            with self._growing.alone():
                if end > self._size:
                    self._resize(end)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``."""
        self._grow(offset + len(data))
        self._image.write(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero a range."""
        self._grow(offset + length)
        self._image.write_zeroes(offset, length, unmap=unmap)

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether whole objects are dropped."""
        return unmap

    def discard(self, offset: int, length: int) -> None:
        """Give a range's space back."""
        inside = min(length, self._size - offset)
        if inside > 0:
            self._image.discard(offset, inside)

    def flush(self) -> None:
        """Have the cluster store what was written."""
        if not self._no_flush:
            self._image.flush()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Which objects exist, where the image knows that; else everything is data."""
        end = offset + length
        # librbd counts the objects of an encrypted image from before the header.
        if self._encrypted or not self._image.tells_holes():
            yield from super().extents(offset, length)
            return
        size = self._image.object_size
        while offset < end:
            start = offset // size * size
            stop = min(start + max(_WINDOW, size), end)
            data = self._image.data(start, min(stop, max(self._size, start + 1)) - start)
            yield from super().extents(offset, stop - offset) if data is None else _alternating(offset, stop, data)
            offset = stop

    def info(self) -> FormatInfo:
        """The size of an object, and which encryption the image begins with."""
        head = bytearray(len(_LUKS_MAGIC) + 1)
        if self._size >= len(head):
            self.pread(0, memoryview(head))
        found = next((name for name, version in _LUKS.items() if head == _LUKS_MAGIC + bytes((version,))), None)
        return FormatInfo(
            cluster_size=self._image.object_size, specific={} if found is None else {"encryption-format": found}
        )

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Set the image's size.

        Raises:
            BlockError: the cluster refuses.
        """
        if preallocation is not Preallocation.OFF:
            raise BlockError(f"Unsupported preallocation mode '{preallocation.value}'", errno=errno.ENOTSUP)
        with self._growing.alone():
            if size != self._size:
                self._resize(size)

    def _resize(self, size: int) -> None:
        self._image.resize(size)
        found = self._image.size()
        if found < size:
            # Some versions count the header of an encrypted image, others do not.
            self._image.resize(2 * size - found)
        self._size = self._image.size()

    def snapshots(self) -> list[SnapshotInfo]:
        """Ceph's, with the image's size at that time where others have that of a machine's state."""
        return [
            SnapshotInfo(each.name, each.name, each.size, 0, 0, 0, 0, each.size) for each in self._image.snapshots()
        ]

    def snapshot_create(self, name: str, *, date: tuple[int, int], icount: int | None = 0) -> SnapshotInfo:
        """Keep the present state; the cluster knows when that was.

        Raises:
            BlockError: the name is empty or too long, or the cluster refuses.
        """
        if not name:
            raise BlockError("A snapshot of an rbd image needs a name", errno=errno.EINVAL)
        if len(name.encode(errors="surrogateescape")) >= _MAX_NAME:
            raise BlockError(f"The name of a snapshot of an rbd image has {_MAX_NAME - 1} bytes", errno=errno.ERANGE)
        self._image.flush()
        self._image.snapshot_create(name)
        return SnapshotInfo(name, name, self._size, *date, 0, 0, self._size)

    def snapshot_apply(self, id_or_name: str) -> None:
        """Go back to a snapshot's state."""
        with self._growing.alone():
            self._image.snapshot_rollback(id_or_name)
            self._size = self._image.size()

    def snapshot_delete(self, id_or_name: str) -> None:
        """Drop a snapshot."""
        self._image.snapshot_remove(id_or_name)

    def snapshot_load(self, id: str | None, name: str | None) -> None:
        """Refuse: the name of the image can say which snapshot is meant.

        Raises:
            BlockError: always.
        """
        raise BlockError(
            "Block format 'rbd' used by device '' does not support temporarily loading internal snapshots",
            errno=errno.ENOTSUP,
            hint=f"Name the snapshot with the image: rbd:POOL/IMAGE@{name if id is None else id}",
        )

    def close(self) -> None:
        """Close the image and the connection."""
        try:
            self._image.close()
        finally:
            self._cluster.close()


def _alternating(offset: int, end: int, data: list[tuple[int, int]]) -> Iterator[Extent]:
    """Data and what lies between; a hole is nobody else's to fill."""
    for start, length in data:
        start, stop = max(start, offset), min(start + length, end)
        if start >= stop:
            continue
        if start > offset:
            yield Extent(offset, start - offset, Status.ZERO | Status.ALLOCATED, offset)
        yield Extent(start, stop - start, Status.DATA | Status.ALLOCATED, start)
        offset = stop
    if offset < end:
        yield Extent(offset, end - offset, Status.ZERO | Status.ALLOCATED, offset)


def _configured(values: Mapping[str, Any], ceph_options: Any, *, cached: bool) -> Cluster:
    """A cluster that is told everything and is not connected yet."""
    secret = values.get("password-secret")
    if secret is not None and "key-secret" in values:
        raise OptionError("Legacy 'password-secret' clashes with 'key-secret'")
    secret = values.get("key-secret", secret)
    monitors = ";".join(_monitor(number, server) for number, server in enumerate(items(values, "server")))
    ways = [way.get("", "") for way in items(values, "auth-client-required")]
    for way in ways:
        if way not in _AUTHENTICATIONS:
            raise OptionError(f"Parameter 'auth-client-required[{ways.index(way)}]' does not accept value '{way}'")
    key = None if secret is None else base64.b64encode(objects.secret(secret).data).decode()
    cluster = Cluster(values.get("user"))
    try:
        cluster.configure(values.get("conf"))
        for name, value in ceph_options:
            if code := cluster.set(name, value):
                raise OptionError(f"invalid conf option {name}: {os.strerror(-code)}")
        for name, setting in (("mon_host", monitors), ("key", key), ("auth_client_required", ";".join(ways))):
            if setting and (code := cluster.set(name, setting)):
                raise BlockError(f"Could not set '{name}': {os.strerror(-code)}", errno=-code)
        cluster.set("rbd_cache", "true" if cached else "false")
    except BaseException:
        cluster.close()
        raise
    return cluster


def _monitor(number: int, server: Mapping[str, str]) -> str:
    for name in ("host", "port"):
        if name not in server:
            raise OptionError(f"Parameter 'server.{number}.{name}' is missing")
    host = f"[{server['host']}]" if ":" in server["host"] else server["host"]
    return f"{host}:{server['port']}"


def _new_image(cluster: Cluster, name: str, encryption: Encryption | None) -> Image:
    image = cluster.open(name, None, read_only=False)
    if encryption is not None:
        try:
            image.encrypt(encryption)
        except BaseException:
            image.close()
            cluster.remove(name)
            raise
    return image


def _encryption(values: Mapping[str, Any], path: str) -> Encryption | None:
    """What the options want of librbd's encryption, if anything; ``path`` is where QEMU says that a key is missing."""
    given = {name.removeprefix("encrypt."): value for name, value in values.items() if name.startswith("encrypt.")}
    if not given:
        return None
    if "format" not in given:
        raise OptionError("Parameter 'format' is missing")
    if given["format"] not in _LUKS:
        raise OptionError(f"Parameter 'format' does not accept value '{given['format']}'")
    if "key-secret" not in given:
        raise OptionError(f"Parameter '{path}key-secret' is missing")
    cipher = given.get("cipher-alg", "aes-256")
    if cipher not in _CIPHERS:
        raise OptionError(f"Parameter 'cipher-alg' does not accept value '{cipher}'")
    return Encryption(_LUKS[given["format"]], objects.secret(given["key-secret"]).data, _CIPHERS[cipher])


def _object_bits(options: Mapping[str, Any]) -> int:
    size = int(options.get("cluster_size", 0))
    if not size:
        return 0
    if size & (size - 1):
        raise OptionError("obj size needs to be power of 2")
    if size < _SMALLEST_OBJECT:
        raise OptionError("obj size too small")
    return size.bit_length() - 1


def _shown(options: Mapping[str, Any]) -> str:
    """The name that QEMU gives the image: its options, without what belongs to whoever opens it."""
    from hostel.codec.qobject import compact_json, hash_order

    strong = {key: options[key] for key in hash_order(options) if key in _STRONG or key.startswith("server.")}
    return f"json:{compact_json({'driver': 'rbd', **strong})}"
